"""What the process tells of itself: its log, its figures, the ids of requests."""
