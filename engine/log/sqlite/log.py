"""`SqliteLog`: the durable log, in one SQLite file.

Owns the loop's side of writing: handing over, reporting, closing. The writing itself is the `writer` thread's, the
reads are `reading`'s.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterable
from typing import Final, final

import trio
from attrs import frozen

from ...errors import PenstockError, StorageError, UnwritableDatabase, WriteFailed
from ..port import Append, LogStatistics, Report, Write, tell
from .checkpoint import Checkpointer
from .claim import Claim
from .commit import Committer
from .database import connect, connect_reader, explain, locate, prepare
from .lockfile import LockFile
from .probe import Probe
from .reading import READERS, SqliteReads
from .upgrade import Progress, lines
from .watch import FileWatch
from .writer import Outcome, Writer

__all__ = ["SqliteLog", "open_sqlite"]

# What is waiting, then moving the write-ahead log into the database: seconds at most. After this the disk hangs.
_CLOSE_TIMEOUT: Final = 30.0

# A commit takes milliseconds, on a slow disk hundreds of them. One that takes longer than so many seconds waits for
# something that is not in order.
_PATIENCE: Final = 2.0

# When reports have led to so many events, the loop gives up the interpreter for so long (seconds): until the writer has
# it, and begins the next round. Otherwise the writer would get it when the loop has nothing more to do, and each would
# wait for the other: one producer at full speed gets 250 k events/s stored for 170 k.
_MUCH: Final = 200
_GIVEN_UP: Final = 50e-6


async def open_sqlite(path: str | os.PathLike[str], *, progress: Progress | None = None) -> SqliteLog:
    """Open the database at ``path``, creating it where there is no file; its folder must be there.

    One that an older version made is brought up to date first, which takes a copy of its events: ``progress`` is
    called with how many rows of how many are done, in a thread; without it, the log tells. Cancelled meanwhile, or
    killed, it goes on there the next time. Otherwise opening finishes even when cancelled.

    Close it with `SqliteLog.aclose`. Raises `DatabaseInUse`, `NewerSchema`, `CorruptDatabase` or
    `UnwritableDatabase`, each naming the file and what to do.
    """
    return SqliteLog(await trio.to_thread.run_sync(_open, path, progress))


def _open(path: str | os.PathLike[str], progress: Progress | None) -> _Opened:
    located = locate(path)
    told = lines(located) if progress is None else progress

    def go_on(done: int, total: int) -> None:
        told(done, total)
        trio.from_thread.check_cancelled()

    with contextlib.ExitStack() as undo:
        lock = LockFile.acquire(located)
        undo.callback(lock.release)
        claim = Claim.take(located)
        undo.callback(claim.release)
        prepare(located, go_on)

        def connecting() -> sqlite3.Connection:
            connection = connect(located)
            try:
                if not claim.is_at(located):
                    raise sqlite3.OperationalError("the database file is gone")
            except BaseException:
                connection.close()
                raise
            return connection

        try:
            committer = Committer(connecting)
            undo.callback(committer.close)
            readers: list[sqlite3.Connection] = []
            for _ in range(READERS):
                readers.append(connect_reader(located))
                undo.callback(readers[-1].close)
            # Not `abspath`, which takes `link/..` for nothing.
            watch = FileWatch(os.path.join(os.getcwd(), path), located, claim, lock)
        except (sqlite3.Error, OSError) as error:
            raise StorageError(f"{located} cannot be opened: {explain(error)}") from error
        undo.pop_all()
    return _Opened(
        lock=lock,
        claim=claim,
        committer=committer,
        checkpointer=Checkpointer(connecting),
        watch=watch,
        readers=readers,
    )


@final
@frozen(kw_only=True)
class _Opened:
    """What a log is made of."""

    lock: LockFile
    claim: Claim
    committer: Committer
    checkpointer: Checkpointer
    watch: FileWatch
    readers: list[sqlite3.Connection]


@final
class SqliteLog(SqliteReads):
    """The log in one SQLite database; made by `open_sqlite`, in the trio loop that uses it.

    A write is reported after it is on the disk (WAL, synchronous=FULL).
    """

    def __init__(self, opened: _Opened) -> None:
        super().__init__(opened.readers)
        self._lock = opened.lock
        self._claim = opened.claim
        self._watch = opened.watch
        self._probe = Probe(opened.committer)
        self._loop = trio.lowlevel.current_trio_token()
        self._closed = trio.Event()
        self._waiting = 0
        self._gathered = 0  # events handed over since the last report
        self._failed = 0
        self._totals = Outcome([], 0, 0, 0.0)
        self._committed = self._expecting = time.monotonic()
        self._writer = Writer(
            opened.committer, opened.checkpointer, self._watch, self._probe, wake=self._wake, left=self._left
        )
        self._writer.start()

    def submit(self, write: Write, report: Report) -> None:
        if not self._waiting:
            self._expecting = time.monotonic()
        self._waiting += 1
        if self._closing:
            closed = WriteFailed("the log is closed", whole=True, session_id=write.session_id)
            self._loop.run_sync_soon(self._report, [(report, closed)])
        else:
            self._writer.hand_over(write, report)
            if isinstance(write, Append):
                self._gathered += len(write.events)

    def _wake(self, outcome: Outcome) -> None:
        with contextlib.suppress(trio.RunFinishedError):  # nobody is left to hear it
            self._loop.run_sync_soon(self._deliver, outcome)

    def _deliver(self, outcome: Outcome) -> None:
        if outcome.commits > self._totals.commits:
            self._committed = self._expecting = time.monotonic()
        self._totals = outcome._replace(reports=[])
        self._gathered = 0
        self._report(outcome.reports)
        if self._gathered >= _MUCH:
            time.sleep(_GIVEN_UP)

    def _report(self, reports: Iterable[tuple[Report, PenstockError | None]]) -> None:
        for report, error in reports:
            self._waiting -= 1
            self._failed += isinstance(error, WriteFailed)
            tell(report, error)

    def _left(self) -> None:
        self._claim.release()
        self._lock.release()
        with contextlib.suppress(trio.RunFinishedError):
            self._loop.run_sync_soon(self._closed.set)

    def statistics(self) -> LogStatistics:
        now = time.monotonic()
        return LogStatistics(
            commits=self._totals.commits,
            events=self._totals.events,
            failed_writes=self._failed,
            waiting=self._waiting,
            commit_seconds=self._totals.seconds,
            commit_age=now - self._committed,
            trouble=self._trouble(now),
            size=self._watch.size,
            wal=self._watch.wal,
            free=self._watch.free,
        )

    def _trouble(self, now: float) -> str | None:
        """Why nothing can be stored. Nobody is waited for to tell it: the writing thread may hang."""
        probing = self._probe.since
        if self._watch.gone is not None:
            return self._watch.gone
        if self._waiting and now - self._expecting > _PATIENCE:
            return f"nothing has been stored for {now - self._expecting:.0f} s, though writes wait"
        if probing is not None and now - probing > _PATIENCE:
            return "the disk hangs"
        return self._probe.trouble

    async def aclose(self) -> None:
        """Carry out and report what was handed over, then close. May be called again, and by several at once.

        Cancelling does not shorten it. Raises `StorageError` when the disk hangs for 30 s; what was not reported by
        then may or may not be stored, and the database stays locked for as long as this process lives. Raises
        `UnwritableDatabase` when the file is not where it was.
        """
        first, self._closing = not self._closing, True
        with trio.move_on_after(_CLOSE_TIMEOUT, shield=True):
            try:
                if first:
                    await self._retire()
            finally:
                if first:
                    self._writer.stop()
            await self._closed.wait()
        if not self._closed.is_set():
            raise StorageError(f"the database did not close within {_CLOSE_TIMEOUT:.0f} s: its disk hangs")
        if first and self._watch.gone is not None:
            raise UnwritableDatabase(
                f"{self._watch.path} was closed, but {self._watch.gone}: see to it before it is opened"
            )
        await trio.lowlevel.checkpoint()
