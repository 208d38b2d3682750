"""The room in the log for what is stamped and not committed, over all sessions of an engine.

Owns who waits for it, and who is woken when there is some. What one session may have pending by itself is `journal`'s.
"""

from __future__ import annotations

import sys
from typing import Final, final

import trio

__all__ = ["LARGE", "Budget", "Line"]

# A session whose events are larger than this, on an average of its last write, leaves a part of the budget's bytes to
# the others. Pieces of an answer have some hundred bytes, hardly ever more than a few thousand.
LARGE: Final = 16 * 1024
_LEFT_BY_LARGE: Final = 4  # the fourth part


@final
class Budget:
    """How many events, of how many bytes, may be stamped and not committed, over all sessions of an engine.

    Of those who wait for room, one is woken for every ``share`` events that there is room for. If fewer were, those who
    come newly would be served before them; if more, most of a thousand would find that the others have left nothing.
    Who writes large events waits in a line of its own, for more room than others need.
    """

    __slots__ = ("bytes", "limit", "lines", "used", "waiting")

    def __init__(self, limit: int, share: int, most_bytes: int = sys.maxsize) -> None:
        self.limit = limit
        self.used = 0
        self.bytes = 0
        self.waiting = 0  # tasks, in both lines
        # Where those wait who write ordinary events, and those who write large ones.
        self.lines = (
            Line(self, most_bytes, share),
            Line(self, most_bytes - most_bytes // _LEFT_BY_LARGE, share),
        )

    def take(self, count: int, size: int = 0) -> None:
        """Never refuses: only producers wait for room, so that ends always find some."""
        self.used += count
        self.bytes += size

    def give_back(self, count: int, size: int = 0) -> None:
        self.used -= count
        self.bytes -= size
        if self.waiting:
            for line in self.lines:
                line.call()


@final
class Line:
    """Those who wait until the budget has less than ``most_bytes``, and room for an event."""

    __slots__ = ("_budget", "_called", "_lot", "_share", "most_bytes")

    def __init__(self, budget: Budget, most_bytes: int, share: int) -> None:
        self.most_bytes = most_bytes
        self._budget = budget
        self._share = share
        self._lot = trio.lowlevel.ParkingLot()
        self._called = 0  # were woken and have not run yet

    @property
    def _room(self) -> int:
        budget = self._budget
        return budget.limit - budget.used if budget.bytes < self.most_bytes else 0

    async def wait_room(self) -> None:
        budget = self._budget
        while self._room <= 0:
            budget.waiting += 1
            try:
                await self._lot.park()
            finally:
                budget.waiting -= 1
            self._called -= 1
            self.call()  # for what we may leave, or not want any more

    def call(self) -> None:
        """Wake those for whom there is room; one at least, if there is any."""
        if not self._lot:
            return
        room = self._room
        if room > 0:
            count = max(1, room // self._share) - self._called
            if count > 0:
                self._called += len(self._lot.unpark(count=count))
