"""What is done to a session's log when nobody waits for it."""
