"""A log in memory that takes its time, counted in turns of the loop, so that a test can interleave anything with it."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from functools import partial
from typing import Final, final

import trio

from penstock.engine import Entry, EventLog, Head, LogStatistics, MemoryLog, PenstockError
from penstock.engine.log import Report, Write

__all__ = ["SlowLog", "turns"]


async def turns(count: int) -> None:
    for _ in range(count):
        await trio.lowlevel.checkpoint()


@final
class SlowLog(EventLog):
    """A log in memory whose reads and reports take as many turns of the loop as the schedule says."""

    def __init__(self) -> None:
        self.inner: Final = MemoryLog()
        self.turns: deque[int] = deque([0])

    def _turns(self) -> int:
        self.turns.rotate(-1)
        return self.turns[0]

    def submit(self, write: Write, report: Report) -> None:
        # Readers may see in the log what has not been reported, and a part of it at the end of a page.
        before, after = self._turns(), self._turns()
        reported = partial(self._later, after, report)
        self._later(before, lambda _: self.inner.submit(write, reported), None)

    def _later(self, turns: int, call: Report, error: PenstockError | None) -> None:
        if turns:
            trio.lowlevel.current_trio_token().run_sync_soon(self._later, turns - 1, call, error)
        else:
            call(error)

    async def _wait(self) -> None:
        await turns(self._turns())

    async def head(self, session_id: str) -> Head | None:
        await self._wait()
        return await self.inner.head(session_id)

    async def read(self, session_id: str, epoch: str, *, after: int, limit: int, max_bytes: int) -> list[Entry]:
        await self._wait()
        page = await self.inner.read(session_id, epoch, after=after, limit=limit, max_bytes=max_bytes)
        await self._wait()
        return page

    async def records(self, session_id: str, epoch: str, prefix: str = "") -> dict[str, bytes]:
        await self._wait()
        return await self.inner.records(session_id, epoch, prefix)

    async def record(self, session_id: str, epoch: str, key: str) -> bytes | None:
        await self._wait()
        return await self.inner.record(session_id, epoch, key)

    async def holders(self, key: str, *, after: str = "", limit: int = 1000) -> list[tuple[str, bytes]]:
        return await self.inner.holders(key, after=after, limit=limit)

    async def owned(self, owner: str, *, having: Sequence[str], after: str = "", limit: int = 1000) -> list[str]:
        return await self.inner.owned(owner, having=having, after=after, limit=limit)

    async def heads(self, *, after: str = "", limit: int = 100) -> list[Head]:
        return await self.inner.heads(after=after, limit=limit)

    async def ranked(self, *, prefix: str = "", behind: tuple[int, str] | None = None, limit: int = 100) -> list[Head]:
        return await self.inner.ranked(prefix=prefix, behind=behind, limit=limit)

    def statistics(self) -> LogStatistics:
        return self.inner.statistics()

    async def aclose(self) -> None:
        await self.inner.aclose()
