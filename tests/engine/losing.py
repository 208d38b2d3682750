"""A store that can lose what it had acknowledged, in memory, and the way of each engine to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, final

import trio

from penstock.engine import Cursor, Entry, EventLog, Head, LogStatistics, MemoryLog, PenstockError, Session
from penstock.engine.log import Report, Write
from penstock.engine.stream.hub import Batch
from penstock.engine.stream.subscription import CaughtUp, Gap, Opened, SnapshotTaken

__all__ = ["LosingStore", "OwnWay", "Traveller"]


@final
class LosingStore:
    """Remembers of each writer how much it was told, as the logs in a Redis and a Postgres have it."""

    def __init__(self) -> None:
        self.log: Final = MemoryLog()
        self.ways: list[OwnWay] = []
        self._copies: list[tuple[Callable[[], None], list[int]]] = []

    def way(self) -> OwnWay:
        made = OwnWay(self.log)
        self.ways.append(made)
        return made

    def keep(self) -> None:
        self._copies.append((self.log.copied(), [way.stored for way in self.ways]))

    def go_back(self, number: int = -1) -> None:
        """To a copy that was kept. Those who had written something since find out when their connections are back."""
        if not self._copies:
            return
        go_back, stored = self._copies[number % len(self._copies)]
        del self._copies[number % len(self._copies) + 1 :]
        go_back()
        for way, count in zip(self.ways, stored, strict=True):
            way.stored = count
        lost = [way for way in self.ways if way.stored < way.answered]
        if lost:
            self.log._put_in_doubt()
            for way in lost:
                way.stored = way.answered
            for way in self.ways:
                way.on_went_back()


@final
class OwnWay(EventLog):
    """One engine's way to the store."""

    def __init__(self, inner: MemoryLog) -> None:
        self.inner: Final = inner
        self.stored = self.answered = 0

    def submit(self, write: Write, report: Report) -> None:
        def reported(error: PenstockError | None) -> None:
            self.stored += 1
            self.answered += 1
            report(error)

        self.inner.submit(write, reported)

    async def head(self, session_id: str) -> Head | None:
        return await self.inner.head(session_id)

    async def read(self, session_id: str, epoch: str, *, after: int, limit: int, max_bytes: int) -> list[Entry]:
        return await self.inner.read(session_id, epoch, after=after, limit=limit, max_bytes=max_bytes)

    async def records(self, session_id: str, epoch: str, prefix: str = "") -> dict[str, bytes]:
        return await self.inner.records(session_id, epoch, prefix)

    async def record(self, session_id: str, epoch: str, key: str) -> bytes | None:
        return await self.inner.record(session_id, epoch, key)

    async def holders(self, key: str, *, after: str = "", limit: int = 1000) -> list[tuple[str, bytes]]:
        return await self.inner.holders(key, after=after, limit=limit)

    async def owned(self, owner: str, *, having: Sequence[str], after: str = "", limit: int = 1000) -> list[str]:
        return await self.inner.owned(owner, having=having, after=after, limit=limit)

    async def heads(self, *, after: str = "", limit: int = 100) -> list[Head]:
        return await self.inner.heads(after=after, limit=limit)

    async def ranked(self, *, prefix: str = "", behind: tuple[int, str] | None = None, limit: int = 100) -> list[Head]:
        return await self.inner.ranked(prefix=prefix, behind=behind, limit=limit)

    async def doubt(self, missed: Head, *, proven: bool) -> bool:
        return await self.inner.doubt(missed, proven=proven)

    async def doubt_all(self) -> bool:
        return await self.inner.doubt_all()

    def statistics(self) -> LogStatistics:
        return self.inner.statistics()

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


@final
class Traveller:
    """A reader that goes by its cursor, from one engine to another, and remembers all that it ever got."""

    def __init__(self) -> None:
        self.cursor: Cursor | None = None
        self.got: dict[Cursor, bytes] = {}
        self.gaps: list[str] = []

    async def read(self, session: Session, *, snapshot: bool = False) -> None:
        """All that there is behind its cursor."""
        async with session.subscribe(self.cursor, live=False, snapshot=snapshot) as subscription:
            try:
                while True:
                    self.take(await subscription.receive())
            except trio.EndOfChannel:
                pass

    def take(self, delivery: object) -> None:
        match delivery:
            case Opened(cursor=cursor) | CaughtUp(cursor=cursor):
                self.cursor = cursor
            case SnapshotTaken(snapshot=snapshot):
                self.cursor = snapshot.cursor
            case Gap(reason=reason, resumed=resumed):
                self.gaps.append(reason)
                self.cursor = resumed
            case Batch(epoch=epoch, entries=entries):
                for entry in entries:
                    place = Cursor(epoch, entry.offset)
                    assert self.got.setdefault(place, entry.body) == entry.body, f"another event at {place}"
                    self.cursor = place
            case _:
                pass
