"""Stops that came before their start: each remembered for a while."""

from __future__ import annotations

from typing import Final, final

import trio

__all__ = ["PendingStops"]

# Stops that name generations nobody has seen; a client that invents more than this gains nothing.
_MAX_PENDING_STOPS: Final = 64


@final
class PendingStops:
    """Of one session, by the ids of generations that nobody has seen yet."""

    __slots__ = ("_seconds", "_until")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._until: dict[str, float] = {}

    def __len__(self) -> int:
        now = trio.current_time()
        self._until = {gid: until for gid, until in self._until.items() if until > now}
        return len(self._until)

    def add(self, generation_id: str) -> None:
        while len(self._until) >= _MAX_PENDING_STOPS:
            del self._until[next(iter(self._until))]
        self._until[generation_id] = trio.current_time() + self._seconds

    def take(self, generation_id: str) -> bool:
        """Whether the generation was stopped before it was seen; told once."""
        until = self._until.pop(generation_id, None)
        return until is not None and until > trio.current_time()
