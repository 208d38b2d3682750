"""What an engine tells of itself: to its observers, and to the log."""
