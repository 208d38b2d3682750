"""One run of a producer: what it is given, what it writes with, and what holds it."""
