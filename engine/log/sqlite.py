"""`SqliteLog`: the durable log, in one SQLite file.

Owns the loop's side: handing over, reporting, reading, closing. Writing is the `writer` thread's; a read runs
in a thread as well, on one of a few connections of its own, and takes one statement, so that it sees one
committed state of the database.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from typing import Final, TypeVar, final

import trio

from ..errors import PenstockError, StaleEpoch, StorageError, WriteFailed
from .commit import Committer
from .database import connect, connect_reader, explain, locate, prepare
from .lockfile import LockFile
from .port import Entry, EventLog, Head, LogStatistics, Report, Write, check_plain_key
from .writer import Outcome, Writer

__all__ = ["SqliteLog", "open_sqlite"]

_T = TypeVar("_T")
_K = TypeVar("_K")
_V = TypeVar("_V")

# A read takes a fraction of a millisecond; more threads than this only fight over the interpreter.
_READERS: Final = 4

# What is waiting, then moving the write-ahead log into the database: seconds at most. After this the disk hangs.
_CLOSE_TIMEOUT: Final = 30.0

_HEAD = """
SELECT s.session, s.epoch, max(s.tail, coalesce((SELECT max(offset) FROM events WHERE life = s.life), 0)),
       s.token, s.ended
FROM sessions AS s
"""
_HEAD_OF = _HEAD + "WHERE s.session = ? ORDER BY s.life DESC LIMIT 1"
_LIVING_HEADS = _HEAD + "INDEXED BY sessions_living WHERE s.ended = 0 AND s.session > ? ORDER BY s.session LIMIT ?"

# No row: this life is over. One row of NULLs: it has nothing of the kind.
_LIVING = "WHERE s.session = ? AND s.epoch = ? AND s.ended = 0"
_READ = f"""
SELECT e.offset, e.body FROM sessions AS s LEFT JOIN events AS e ON e.life = s.life AND e.offset > ?
{_LIVING} ORDER BY e.offset LIMIT ?
"""
_RECORDS = f"""
SELECT r.key, r.value FROM sessions AS s LEFT JOIN records AS r ON r.life = s.life AND r.key >= ?
{_LIVING} ORDER BY r.key
"""
_RECORD = f"""
SELECT r.value FROM sessions AS s LEFT JOIN records AS r ON r.life = s.life AND r.key = ?
{_LIVING}
"""
_HOLDERS = """
SELECT s.session, r.value FROM records AS r INDEXED BY records_plain CROSS JOIN sessions AS s ON s.life = r.life
WHERE r.key = ? AND instr(r.key, '/') = 0 AND s.ended = 0 AND s.session > ? ORDER BY s.session LIMIT ?
"""


async def open_sqlite(path: str | os.PathLike[str]) -> SqliteLog:
    """Open the database at ``path``, creating it where there is no file; its folder must be there.

    Close it with `SqliteLog.aclose`. Raises `DatabaseInUse`, `NewerSchema`, `CorruptDatabase` or
    `UnwritableDatabase`, each naming the file and what to do. Finishes even when cancelled.
    """
    lock, committer, readers = await trio.to_thread.run_sync(_open, path)
    return SqliteLog(lock, committer, readers)


def _open(path: str | os.PathLike[str]) -> tuple[LockFile, Committer, list[sqlite3.Connection]]:
    located = locate(path)
    with contextlib.ExitStack() as undo:
        lock = LockFile.acquire(located)
        undo.callback(lock.release)
        prepare(located)
        try:
            committer = Committer(lambda: connect(located))
            undo.callback(committer.close)
            readers: list[sqlite3.Connection] = []
            for _ in range(_READERS):
                readers.append(connect_reader(located))
                undo.callback(readers[-1].close)
        except sqlite3.Error as error:
            raise StorageError(f"{located} cannot be opened: {explain(error)}") from error
        undo.pop_all()
    return lock, committer, readers


@final
class SqliteLog(EventLog):
    """The log in one SQLite database; made by `open_sqlite`, in the trio loop that uses it.

    A write is reported after it is on the disk (WAL, synchronous=FULL).
    """

    def __init__(self, lock: LockFile, committer: Committer, readers: list[sqlite3.Connection]) -> None:
        self._lock = lock
        self._loop = trio.lowlevel.current_trio_token()
        self._readers = readers
        self._reading = trio.CapacityLimiter(len(readers))
        self._closing = False
        self._closed = trio.Event()
        self._waiting = 0
        self._failed = 0
        self._totals = Outcome([], 0, 0, 0.0)
        self._writer = Writer(committer, self._wake, self._left)
        self._writer.start()

    def submit(self, write: Write, report: Report) -> None:
        self._waiting += 1
        if self._closing:
            closed = WriteFailed("the log is closed", whole=True, session_id=write.session_id)
            self._loop.run_sync_soon(self._report, [(report, closed)])
        else:
            self._writer.hand_over(write, report)

    def _wake(self, outcome: Outcome) -> None:
        with contextlib.suppress(trio.RunFinishedError):  # nobody is left to hear it
            self._loop.run_sync_soon(self._deliver, outcome)

    def _deliver(self, outcome: Outcome) -> None:
        self._totals = outcome._replace(reports=[])
        self._report(outcome.reports)

    def _report(self, reports: Iterable[tuple[Report, PenstockError | None]]) -> None:
        for report, error in reports:
            self._waiting -= 1
            self._failed += isinstance(error, WriteFailed)
            report(error)

    def _left(self) -> None:
        self._lock.release()
        with contextlib.suppress(trio.RunFinishedError):
            self._loop.run_sync_soon(self._closed.set)

    async def head(self, session_id: str) -> Head | None:
        def query(connection: sqlite3.Connection) -> Head | None:
            row = connection.execute(_HEAD_OF, (session_id,)).fetchone()
            return None if row is None else _head(*row)

        return await self._query(query)

    async def read(self, session_id: str, epoch: str, *, after: int, limit: int, max_bytes: int) -> list[Entry]:
        def query(connection: sqlite3.Connection) -> list[Entry]:
            page: list[Entry] = []
            size = 0
            with contextlib.closing(connection.execute(_READ, (after, session_id, epoch, limit))) as rows:
                for offset, body in _of_living(rows, session_id):
                    size += len(body)
                    if page and size > max_bytes:
                        break
                    page.append(Entry(offset, body))
            return page

        return await self._query(query)

    async def records(self, session_id: str, epoch: str, prefix: str = "") -> dict[str, bytes]:
        def query(connection: sqlite3.Connection) -> dict[str, bytes]:
            found: dict[str, bytes] = {}
            with contextlib.closing(connection.execute(_RECORDS, (prefix, session_id, epoch))) as rows:
                for key, value in _of_living(rows, session_id):
                    if not key.startswith(prefix):
                        break
                    found[key] = value
            return found

        return await self._query(query)

    async def record(self, session_id: str, epoch: str, key: str) -> bytes | None:
        def query(connection: sqlite3.Connection) -> bytes | None:
            row = connection.execute(_RECORD, (key, session_id, epoch)).fetchone()
            if row is None:
                raise _stale(session_id)
            value: bytes | None = row[0]
            return value

        return await self._query(query)

    async def holders(self, key: str, *, after: str = "", limit: int = 1000) -> list[tuple[str, bytes]]:
        check_plain_key(key)
        return await self._query(lambda connection: connection.execute(_HOLDERS, (key, after, limit)).fetchall())

    async def heads(self, *, after: str = "", limit: int = 100) -> list[Head]:
        def query(connection: sqlite3.Connection) -> list[Head]:
            return [_head(*row) for row in connection.execute(_LIVING_HEADS, (after, limit))]

        return await self._query(query)

    def statistics(self) -> LogStatistics:
        return LogStatistics(
            commits=self._totals.commits,
            events=self._totals.events,
            failed_writes=self._failed,
            waiting=self._waiting,
            commit_seconds=self._totals.seconds,
        )

    async def aclose(self) -> None:
        """Carry out and report what was handed over, then close. May be called again, and by several at once.

        Cancelling does not shorten it. Raises `StorageError` when the disk hangs for 30 s; what was not reported by
        then may or may not be stored, and the database stays locked for as long as this process lives.
        """
        first, self._closing = not self._closing, True
        with trio.move_on_after(_CLOSE_TIMEOUT, shield=True):
            try:
                if first:
                    await self._retire_readers()
            finally:
                if first:
                    self._writer.stop()
            await self._closed.wait()
        if not self._closed.is_set():
            raise StorageError(f"the database did not close within {_CLOSE_TIMEOUT:.0f} s: its disk hangs")
        await trio.lowlevel.checkpoint()

    async def _retire_readers(self) -> None:
        # Those in use come back by themselves. Places are given in the order they were asked for, so no read waits
        # behind us that began before the log was closing.
        askers = [object() for _ in range(_READERS)]
        for asker in askers:
            await self._reading.acquire_on_behalf_of(asker)
            self._readers.pop().close()
        for asker in askers:
            self._reading.release_on_behalf_of(asker)

    async def _query(self, query: Callable[[sqlite3.Connection], _T]) -> _T:
        def run() -> _T:
            if self._closing:
                raise StorageError("the log is closed")
            connection = self._readers.pop()
            try:
                return query(connection)
            finally:
                self._readers.append(connection)

        try:
            return await trio.to_thread.run_sync(run, limiter=self._reading)
        except sqlite3.Error as error:
            raise StorageError(f"cannot read: {explain(error)}") from error


def _head(session_id: str, epoch: str, tail: int, token: int, ended: int) -> Head:
    return Head(session_id=session_id, epoch=epoch, tail=tail, token=token, deleted=ended != 0)


def _of_living(rows: Iterable[tuple[_K, _V]], session_id: str) -> Iterator[tuple[_K, _V]]:
    """What a life has, read with a LEFT JOIN. Raises `StaleEpoch` when the life is not there."""
    over = True
    for row in rows:
        over = False
        if row[0] is not None:
            yield row
    if over:
        raise _stale(session_id)


def _stale(session_id: str) -> StaleEpoch:
    return StaleEpoch("this life of the session is over", session_id=session_id)
