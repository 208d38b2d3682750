"""What passes through this process's edge, counted where it passes.

One `traffic` for the process, as the process has one set of sockets: those who count say so in one line and are handed
nothing. Whoever shows it (`metrics`) reads it.
"""

from __future__ import annotations

from collections import Counter
from typing import Final, final

__all__ = ["Traffic", "traffic"]


@final
class Traffic:
    """The first three are how many there are now; the others count from the process's start."""

    def __init__(self) -> None:
        self.connections = 0
        self.sockets = 0  # WebSockets, each on a connection of its own
        self.streams = 0  # answers that follow a session
        self.refused = 0  # connections past the cap
        self.broken_off = 0  # streams whose reader left before their end
        self.log_lines_lost = 0  # nobody read the log in time
        self.answers: Counter[int] = Counter()  # by HTTP status
        self.problems: Counter[str] = Counter()  # by code, over HTTP and WebSocket


traffic: Final = Traffic()
