"""What waits for the writer, and which of it is the next commit.

Owns the order between sessions and how much one commit takes; nothing here waits or stores. A commit keeps everybody
waiting whose write is in it, so it is bounded in events and in bytes, and the small writes go first: a large one holds
up the others for as long as it is written itself, and no longer, however many large ones wait.
"""

from __future__ import annotations

from collections import deque
from typing import Final, TypeAlias, final

from .port import Append, Keep, Move, Report

__all__ = ["Handed", "Rounds", "weight"]

Handed: TypeAlias = tuple[Move, Report]

# A round is closed once it has this many events: the bound of one commit's time, for everyone waits for it.
_EVENTS: Final = 4096

# And before it would have more bytes: twice what that many ordinary events have, 10 to 20 ms of writing.
_BYTES: Final = 2 * 1024 * 1024


def weight(write: Move) -> int:
    """The bytes that a write brings."""
    if isinstance(write, Append):
        size = write.size
    elif isinstance(write, Keep):
        size = 0
    else:
        return 0
    if write.records:
        size += sum(len(value) for value in write.records.values() if value is not None)
    return size


@final
class Rounds:
    """The writes that wait. Those of one session stay in order.

    Whatever fits into one round together goes as it came. Past that the lightest sessions go first, and what came
    first of all is passed over once at most. A write that is larger than a round goes alone.
    """

    def __init__(self) -> None:
        self.waiting: deque[tuple[Handed, int]] = deque()  # with their weights
        self._bytes = 0
        self._events = 0
        self._passed_over = False  # what came first was left out of the last round

    def add(self, handed: Handed) -> None:
        write, _ = handed
        size = weight(write)
        self.waiting.append((handed, size))
        self._bytes += size
        self._events += len(write.events) if isinstance(write, Append) else 1

    def next(self) -> list[Handed]:
        """Take out the next round: at least one write, if any waits."""
        if self._bytes <= _BYTES and self._events < _EVENTS:
            chosen, self.waiting = self.waiting, deque()
            self._bytes = self._events = 0
            self._passed_over = False
        else:
            chosen = self._choose()
            self._bytes -= sum(size for _, size in chosen)
            self._events -= sum(_count(write) for (write, _), _ in chosen)
        return [handed for handed, _ in chosen]

    def _choose(self) -> deque[tuple[Handed, int]]:
        waiting = list(self.waiting)
        order = self._in_order(waiting)
        chosen: set[int] = set()
        events = size = 0
        for place in order:
            (write, _), more = waiting[place]
            if chosen and (events >= _EVENTS or size + more > _BYTES):
                break
            chosen.add(place)
            events += _count(write)
            size += more
        self._passed_over = 0 not in chosen
        self.waiting = deque(each for place, each in enumerate(waiting) if place not in chosen)
        return deque(each for place, each in enumerate(waiting) if place in chosen)

    def _in_order(self, waiting: list[tuple[Handed, int]]) -> list[int]:
        """The places, in the order in which they are to be taken."""
        sums: dict[str, int] = {}
        ranks: list[int] = []
        for (write, _), size in waiting:
            # With all that its session has before it, so that no write overtakes one of its own session.
            sums[write.session_id] = sums.get(write.session_id, 0) + size
            ranks.append(sums[write.session_id])
        if self._passed_over:
            ranks[0] = -1
        return sorted(range(len(waiting)), key=ranks.__getitem__)


def _count(write: Move) -> int:
    return len(write.events) if isinstance(write, Append) else 1
