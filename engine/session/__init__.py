"""One session: its steps, one at a time, and what each changes."""
