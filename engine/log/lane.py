"""The one writer of a store of others: rounds of writes, one under way at a time; and the log that has such writers.

Takes what has gathered while a round was under way as the next one: group commit without a timer. What a round is to
the store, and how often it is tried, is the store's log's.
"""

from __future__ import annotations

import abc
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeAlias, final

import trio
from attrs import frozen

from ..errors import PenstockError, StorageError, WriteFailed
from .port import Append, Compact, EventLog, LogStatistics, Report, Write, tell
from .rounds import Rounds

__all__ = ["CarryOut", "Lane", "LanedLog", "Outcome"]

logger = logging.getLogger("penstock.log")

# Carries out a round of writes: for each None, or why nothing of it is there. Raises `StorageError` when the store
# fails. A `Compact` makes a round alone.
CarryOut: TypeAlias = Callable[[Sequence[Write]], Awaitable[Sequence[PenstockError | None]]]


@final
@frozen
class Outcome:
    """What came of a round, in the order the writes were handed over. ``seconds`` is how long it took."""

    reports: list[tuple[Report, PenstockError | None]]
    landed: int
    events: int
    seconds: float


@final
class Lane:
    """``trouble`` says why the store takes nothing at present; ``told`` is called with what came of each round."""

    def __init__(self, carry_out: CarryOut, trouble: Callable[[], str | None], told: Callable[[Outcome], None]) -> None:
        self._carry_out: Final = carry_out
        self._trouble: Final = trouble
        self._told: Final = told
        self._rounds = Rounds()
        self._compacts: deque[tuple[Compact, Report]] = deque()
        self._wake = trio.Event()
        self._closing = False
        self._checking = False

    def hand_over(self, write: Write, report: Report) -> None:
        if isinstance(write, Compact):
            self._compacts.append((write, report))
        else:
            self._rounds.add((write, report))
        self._wake.set()

    def check(self) -> None:
        """Have a round without writes carried out, unless another comes first: it finds a store that went back."""
        self._checking = True
        self._wake.set()

    def close(self) -> None:
        """Carry out what was handed over, then end. Does not wait."""
        self._closing = True
        self._wake.set()

    async def run(self) -> None:
        """Carry out what is handed over, until it is closed."""
        while True:
            if self._rounds.waiting:
                await self._round(self._rounds.next())
            elif self._compacts:
                await self._round([self._compacts.popleft()])
            elif self._closing:
                return
            elif self._checking:
                await self._round([])
            else:
                self._wake = trio.Event()
                await self._wake.wait()

    async def _round(self, handed: Sequence[tuple[Write, Report]]) -> None:
        begun = trio.current_time()
        self._checking = False
        writes = [write for write, _ in handed]
        try:
            errors = await self._carry_out(writes)
        except StorageError as error:
            self._fail(handed, error.detail)
        except Exception:  # a task that dies here leaves everyone waiting
            logger.exception("a round of writes failed")
            self._fail(handed, "the round could not be carried out")
        else:
            landed = [write for write, error in zip(writes, errors, strict=True) if error is None]
            self._told(
                Outcome(
                    reports=[(report, error) for (_, report), error in zip(handed, errors, strict=True)],
                    landed=len(landed),
                    events=sum(len(write.events) for write in landed if isinstance(write, Append)),
                    seconds=trio.current_time() - begun,
                )
            )

    def _fail(self, handed: Sequence[tuple[Write, Report]], detail: str) -> None:
        """Report a round as failed, and while the store is in trouble what waits behind it, too: nobody waits twice.

        It may arrive all the same, until the next round has. Who goes on from the head then finds out.
        """
        failed: list[tuple[Write, Report]] = [*handed]
        if self._trouble() is not None:
            while self._rounds.waiting:
                failed += self._rounds.next()
            failed += self._compacts
            self._compacts.clear()
        errors = [WriteFailed(detail, whole=True, session_id=write.session_id) for write, _ in failed]
        reports = [(report, error) for (_, report), error in zip(failed, errors, strict=True)]
        self._told(Outcome(list(reports), landed=0, events=0, seconds=0.0))


class LanedLog(EventLog):
    """A log whose writes go through lanes, which call `_told`; it owns handing over, reporting and counting.

    Its task runs them until `_closing` is set, carries out what they have, and sets `_closed`.
    """

    def __init__(self) -> None:
        self._closing = trio.Event()
        self._closed = trio.Event()
        self._waiting = 0
        self._commits = self._events = self._failed = self._went_back = 0
        self._seconds = 0.0
        self._committed = trio.current_time()

    @abc.abstractmethod
    def _hand_over(self, write: Write, report: Report) -> None: ...

    @property
    @abc.abstractmethod
    def _trouble(self) -> str | None: ...

    def submit(self, write: Write, report: Report) -> None:
        self._waiting += 1
        if self._closing.is_set():
            closed = WriteFailed("the log is closed", whole=True, session_id=write.session_id)
            trio.lowlevel.current_trio_token().run_sync_soon(self._report, report, closed)
        else:
            self._hand_over(write, report)

    def _told(self, outcome: Outcome) -> None:
        self._seconds += outcome.seconds
        if outcome.landed:
            self._commits += 1
            self._events += outcome.events
            self._committed = trio.current_time()
        for report, error in outcome.reports:
            self._report(report, error)

    def _report(self, report: Report, error: PenstockError | None) -> None:
        self._waiting -= 1
        self._failed += isinstance(error, WriteFailed)
        tell(report, error)

    def _doubted(self, address: str, how: str, *, changed: bool) -> bool:
        """What the store holds was to be put in doubt: one session where that is only ``said``, else all.

        Returns ``changed``, which is whether any of it was not in doubt before.
        """
        if how != "said":
            self.on_went_back()
        if changed:
            self._went_back += 1
            logger.critical(
                "%s went back: it has lost what it had acknowledged. %s in a new epoch, and whoever reads begins anew",
                address,
                "One session goes on" if how == "said" else "All sessions go on",
            )
        return changed

    def _check_open(self) -> None:
        if self._closing.is_set():
            raise StorageError("the log is closed")

    def statistics(self) -> LogStatistics:
        return LogStatistics(
            commits=self._commits,
            events=self._events,
            failed_writes=self._failed,
            waiting=self._waiting,
            commit_seconds=self._seconds,
            commit_age=trio.current_time() - self._committed,
            trouble=self._trouble,
            went_back=self._went_back,
        )

    async def aclose(self) -> None:
        """Carry out and report what was handed over, then close. May be called again, and by several at once.

        Cancelling does not shorten it. A store that is away is waited for as long as its patience lasts.
        """
        self._closing.set()
        with trio.CancelScope(shield=True):
            await self._closed.wait()
        await trio.lowlevel.checkpoint()
