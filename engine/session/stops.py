"""Stops that came before their start: each remembered for a while.

In memory; where engines share the log, in a record of the session, too, for whichever engine the start comes to.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Final, cast, final

import trio
from attrs import frozen

from ..codec import encode_record
from ..events import JSONObject

__all__ = ["STOPPED", "PendingStops", "StoppedRecord"]

# The record of those that are remembered. It is overwritten with the next one, and otherwise stays: it is small, and
# says until when it holds.
STOPPED: Final = "stops/pending"

# Stops that name generations nobody has seen; a client that invents more than this gains nothing.
_MAX_PENDING_STOPS: Final = 64


@final
@frozen(kw_only=True)
class StoppedRecord:
    """Until when each is remembered, by the wall clock in seconds."""

    until: JSONObject


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

    def records(self) -> Mapping[str, bytes]:
        """What stores them."""
        ahead = time.time() - trio.current_time()
        return {STOPPED: encode_record(StoppedRecord(until={gid: at + ahead for gid, at in self._until.items()}))}

    def restore(self, stored: StoppedRecord | None) -> None:
        """Remember what was stored, and nothing else. No clock can have it remembered for longer than from now."""
        ahead, now = time.time() - trio.current_time(), trio.current_time()
        until = {} if stored is None else cast("dict[str, float]", stored.until)
        self._until = {gid: min(at - ahead, now + self._seconds) for gid, at in until.items()}
