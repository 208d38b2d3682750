"""The stream of one session: in through the journal, out through the hub, and read again from the log."""
