"""`FaultyLog`: a log around another one that fails or holds up the writes a schedule picks.

It never lies: what it reports as failed was not stored, what it reports as stored was. A session's writes are carried
out and reported in the order they were handed over, also when one of them is held up; other sessions' pass it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import TypeAlias, final

import trio
from attrs import define, evolve, frozen

from penstock.engine.errors import PenstockError, StorageError, WriteFailed
from penstock.engine.log import Entry, EventLog, Head, LogStatistics, Report, Write


@final
@frozen(kw_only=True)
class Fail:
    """Nothing of the write is stored. ``whole`` as in `WriteFailed`."""

    whole: bool = False


@final
class Hold:
    """The write waits until `release`, and with ``stored`` only its report does. One may hold many."""

    def __init__(self, *, stored: bool = False) -> None:
        self.stored = stored
        self.released = False
        self._held: list[Callable[[], None]] = []

    def __len__(self) -> int:
        """How many wait here now."""
        return len(self._held)

    def release(self) -> None:
        """Let go what waits, and hold nothing from now on."""
        self.released = True
        held, self._held = self._held, []
        for go_on in held:
            go_on()

    def then(self, go_on: Callable[[], None]) -> None:
        if self.released:
            go_on()
        else:
            self._held.append(go_on)


Fault: TypeAlias = Fail | Hold
Schedule: TypeAlias = Callable[[int, Write], Fault | None]


@define
class _Step:
    write: Write
    report: Report
    fault: Fault | None
    started: bool = False


@final
class FaultyLog(EventLog):
    """Asks ``schedule`` about each write: its number, from 0, and the write; None lets it pass.

    ``schedule`` and ``fail_reads`` may be set at any time. ``writes`` has what was handed over so far.
    """

    def __init__(self, inner: EventLog, schedule: Schedule | None = None) -> None:
        self.inner = inner
        self.schedule = schedule
        self.fail_reads = False
        self.writes: list[Write] = []
        self._lanes: dict[str, deque[_Step]] = {}
        self._holds: list[Hold] = []
        self._failed = 0

    def submit(self, write: Write, report: Report) -> None:
        fault = self.schedule(len(self.writes), write) if self.schedule else None
        self.writes.append(write)
        if isinstance(fault, Hold):
            self._holds.append(fault)
        self._lanes.setdefault(write.session_id, deque()).append(_Step(write, report, fault))
        self._go_on(write.session_id)

    def _go_on(self, session_id: str) -> None:
        lane = self._lanes[session_id]
        if not lane:
            del self._lanes[session_id]
            return
        step = lane[0]
        if step.started:
            return
        step.started = True
        fault = step.fault
        if isinstance(fault, Fail):
            failed = WriteFailed("failed by schedule", whole=fault.whole, session_id=session_id)
            self._failed += 1
            trio.lowlevel.current_trio_token().run_sync_soon(self._reported, lane, failed)
        elif fault is None:
            self.inner.submit(step.write, lambda error: self._reported(lane, error))
        elif fault.stored:
            self.inner.submit(step.write, lambda error: fault.then(lambda: self._reported(lane, error)))
        else:
            fault.then(lambda: self.inner.submit(step.write, lambda error: self._reported(lane, error)))

    def _reported(self, lane: deque[_Step], error: PenstockError | None) -> None:
        step = lane.popleft()
        step.report(error)
        if self._lanes.get(step.write.session_id) is lane:
            self._go_on(step.write.session_id)

    def _reading(self) -> EventLog:
        if self.fail_reads:
            raise StorageError("failed by schedule")
        return self.inner

    async def head(self, session_id: str) -> Head | None:
        return await self._reading().head(session_id)

    async def read(self, session_id: str, epoch: str, *, after: int, limit: int, max_bytes: int) -> list[Entry]:
        return await self._reading().read(session_id, epoch, after=after, limit=limit, max_bytes=max_bytes)

    async def records(self, session_id: str, epoch: str, prefix: str = "") -> dict[str, bytes]:
        return await self._reading().records(session_id, epoch, prefix)

    async def record(self, session_id: str, epoch: str, key: str) -> bytes | None:
        return await self._reading().record(session_id, epoch, key)

    async def holders(self, key: str, *, after: str = "", limit: int = 1000) -> list[tuple[str, bytes]]:
        return await self._reading().holders(key, after=after, limit=limit)

    async def owned(self, owner: str, *, having: Sequence[str], after: str = "", limit: int = 1000) -> list[str]:
        return await self._reading().owned(owner, having=having, after=after, limit=limit)

    async def heads(self, *, after: str = "", limit: int = 100) -> list[Head]:
        return await self._reading().heads(after=after, limit=limit)

    async def ranked(self, *, prefix: str = "", behind: tuple[int, str] | None = None, limit: int = 100) -> list[Head]:
        return await self._reading().ranked(prefix=prefix, behind=behind, limit=limit)

    async def doubt(self, missed: Head, *, proven: bool) -> bool:
        return await self._reading().doubt(missed, proven=proven)

    async def doubt_all(self) -> bool:
        return await self._reading().doubt_all()

    def statistics(self) -> LogStatistics:
        inner = self.inner.statistics()
        waiting = sum(len(lane) for lane in self._lanes.values())
        return evolve(inner, failed_writes=inner.failed_writes + self._failed, waiting=waiting)

    async def aclose(self) -> None:
        """Release every hold, see that all is reported, close the log inside."""
        for hold in self._holds:
            hold.release()
        with trio.move_on_after(10, shield=True):
            while self._lanes:
                await self._turn()
        await self.inner.aclose()

    async def _turn(self) -> None:
        """Until something that was submitted to the log inside has been reported."""
        busy = trio.Event()
        lane = next(iter(self._lanes.values()))
        step = lane[-1]
        report = step.report

        def then(error: PenstockError | None) -> None:
            report(error)
            busy.set()

        step.report = then
        await busy.wait()
