"""What engines that share a log know together for a while only: who is present, who reads, which tickets were used.

Owns that each entry ends by one clock, the store's, whoever put it there: what an engine put that died is gone with its
time. Nothing of it is durable. What is durable is the log's; that something changed is the `Bus`'s to tell, and an
engine that was not told looks every few seconds.
"""

from __future__ import annotations

import abc
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Final, Literal, TypeAlias, final

import trio
from attrs import define, frozen

from ..events import new_epoch

__all__ = ["LocalVolatile", "Noted", "Place", "Volatile"]

# Of one life of a session, by its id and epoch: who is present, by actor and device, or which engines have readers of
# it, by name.
Place: TypeAlias = tuple[str, str, Literal["present", "reading"]]


@final
@frozen
class Noted:
    """The sessions of the list that changed, by the number of each one's last change, the oldest first.

    ``number`` is the last one given, and ``epoch`` whose numbers they are. ``forgotten``: which sessions changed up to
    there is not known any more.
    """

    epoch: str
    number: int
    forgotten: int
    sessions: Sequence[tuple[int, str]]


class Volatile(abc.ABC):
    """One for all engines that share a log. Every call may raise `StorageError`; then it may have been carried out."""

    @abc.abstractmethod
    async def put(self, place: Place, key: str, value: bytes, *, ttl: float, limit: int | None = None) -> bool | None:
        """Have ``key`` say ``value`` for ``ttl`` seconds. Returns whether it said anything else before.

        None: there are ``limit`` others already, and nothing was put.
        """

    @abc.abstractmethod
    async def drop(self, place: Place, keys: Sequence[str]) -> bool:
        """Take these out; whether any of them was there."""

    @abc.abstractmethod
    async def listed(self, asked: Sequence[Place]) -> Sequence[Mapping[str, bytes]]:
        """Of each of ``asked`` what is there now, in the order in which it came."""

    @abc.abstractmethod
    async def redeem(self, ticket_id: str, ttl: float) -> bool:
        """Use a ticket up; whether nobody had within its ``ttl`` seconds.

        After an answer that was lost on its way it may be False for the one who did: never True twice.
        """

    @abc.abstractmethod
    async def note(self, session_ids: Sequence[str], *, keep: int) -> None:
        """What is listed of these sessions has changed. The last ``keep`` of all are remembered."""

    @abc.abstractmethod
    async def noted(self, after: int, *, limit: int = 1000) -> Noted:
        """The sessions whose last change has a number above ``after``: the first ``limit`` of them."""


@define
class _Entry:
    value: bytes
    until: float  # by the trio clock


@final
class LocalVolatile(Volatile):
    """Between engines of one process and one trio loop."""

    def __init__(self) -> None:
        self._entries: dict[Place, dict[str, _Entry]] = {}
        self._used: dict[str, float] = {}
        self._epoch: Final = new_epoch()
        self._number = self._forgotten = 0
        self._changed = OrderedDict[str, int]()

    def _living(self, place: Place) -> dict[str, _Entry]:
        time = trio.current_time()
        here = self._entries.get(place, {})
        for key in [key for key, entry in here.items() if entry.until <= time]:
            del here[key]
        if not here:
            self._entries.pop(place, None)
        return here

    async def put(self, place: Place, key: str, value: bytes, *, ttl: float, limit: int | None = None) -> bool | None:
        await trio.lowlevel.checkpoint()
        here = self._living(place)
        former = here.get(key)
        if former is None and limit is not None and len(here) >= limit:
            return None
        until = trio.current_time() + ttl
        if former is None:
            self._entries.setdefault(place, here)[key] = _Entry(value, until)
            return True
        changed = former.value != value
        former.value, former.until = value, until
        return changed

    async def drop(self, place: Place, keys: Sequence[str]) -> bool:
        await trio.lowlevel.checkpoint()
        here = self._living(place)
        return bool([key for key in keys if here.pop(key, None)])

    async def listed(self, asked: Sequence[Place]) -> Sequence[Mapping[str, bytes]]:
        await trio.lowlevel.checkpoint()
        return [{key: entry.value for key, entry in self._living(place).items()} for place in asked]

    async def redeem(self, ticket_id: str, ttl: float) -> bool:
        await trio.lowlevel.checkpoint()
        time = trio.current_time()
        self._used = {each: until for each, until in self._used.items() if until > time}
        if ticket_id in self._used:
            return False
        self._used[ticket_id] = time + ttl
        return True

    async def note(self, session_ids: Sequence[str], *, keep: int) -> None:
        await trio.lowlevel.checkpoint()
        for session_id in session_ids:
            self._number += 1
            self._changed.pop(session_id, None)
            self._changed[session_id] = self._number
        while len(self._changed) > keep:
            _, self._forgotten = self._changed.popitem(last=False)

    async def noted(self, after: int, *, limit: int = 1000) -> Noted:
        await trio.lowlevel.checkpoint()
        found = [(number, session_id) for session_id, number in self._changed.items() if number > after]
        return Noted(self._epoch, self._number, self._forgotten, found[:limit])
