"""`SqliteReader`: a database only looked at, also beside the process that serves it.

Owns what is asked of a file as a whole. It takes no lock, and changes neither the file nor its folder; how that can be,
`source` says.
"""

from __future__ import annotations

import contextlib
import math
import os
import sqlite3
from collections.abc import Callable
from typing import Final, TypeVar, final

import trio
from attrs import frozen

from ...errors import WriteFailed
from ..port import LogStatistics, Report, Write, tell
from .database import check, explain
from .lockfile import holder
from .reading import PATIENCE, READERS, SqliteReads
from .source import Source, size_of

__all__ = ["FileState", "SqliteReader", "open_sqlite_reader"]

_T = TypeVar("_T")

# More than anybody reads; one finding condemns the file.
_FINDINGS: Final = 20

_PURGEABLE: Final = "SELECT count(*) FROM sessions WHERE ended = 1"


@final
@frozen(kw_only=True)
class FileState:
    """A database file; sizes in bytes.

    ``free`` is the part of ``size`` that is not used and will be used again. ``wal`` is what has not been moved into
    the file yet. ``ended`` counts ended lives of sessions that still have to be purged. ``served``: some process has
    the database open to write to it. ``process`` is that process, where it is known.
    """

    path: str
    size: int
    free: int
    wal: int
    ended: int
    served: bool
    process: int | None


async def open_sqlite_reader(path: str | os.PathLike[str]) -> SqliteReader:
    """Open the database at ``path`` to look at it; nothing is written, and nobody is kept from opening it.

    Close it with `SqliteReader.aclose`. Raises `NewerSchema`, `CorruptDatabase`, `UnwritableDatabase` (there is no such
    file, or it cannot be read) or `DatabaseInUse` (by another name), each naming the file and what to do. Finishes even
    when cancelled.
    """
    return SqliteReader(*await trio.to_thread.run_sync(_open, path))


def _open(path: str | os.PathLike[str]) -> tuple[Source, list[sqlite3.Connection]]:
    with contextlib.ExitStack() as undo:
        source = Source.take(path)
        undo.callback(source.release)
        connections: list[sqlite3.Connection] = []
        for _ in range(READERS):
            connections.append(source.connect())
            undo.callback(connections[-1].close)
        check(connections[0], source.path)
        undo.pop_all()
    return source, connections


@final
class SqliteReader(SqliteReads):
    """A log that can be read and not written; made by `open_sqlite_reader`.

    Every read also raises `StorageError` when a database that was closed has been opened by somebody meanwhile: open
    it again.
    """

    def __init__(self, source: Source, connections: list[sqlite3.Connection]) -> None:
        super().__init__(connections)
        self._source = source
        self._refused = 0

    def submit(self, write: Write, report: Report) -> None:
        """Every write is reported as `WriteFailed`."""
        self._refused += 1
        failed = WriteFailed("the log was opened for reading", whole=True, session_id=write.session_id)
        trio.lowlevel.current_trio_token().run_sync_soon(tell, report, failed)

    def statistics(self) -> LogStatistics:
        return LogStatistics(commits=0, events=0, failed_writes=self._refused, waiting=0, commit_seconds=0.0)

    async def state(self) -> FileState:
        def query(connection: sqlite3.Connection) -> FileState:
            def pragma(name: str) -> int:
                return int(connection.execute(f"PRAGMA {name}").fetchone()[0])

            path = self._source.path
            process = holder(path)
            return FileState(
                path=path,
                size=size_of(path),
                free=pragma("freelist_count") * pragma("page_size"),
                wal=size_of(path + "-wal"),
                ended=connection.execute(_PURGEABLE).fetchone()[0],
                served=process is not None or self._source.look.claimed,
                process=process,
            )

        return await self._query(query)

    async def check_integrity(self) -> list[str]:
        """What SQLite finds wrong with the whole file; empty when it is sound. Reads every page.

        Beside a server it makes the write-ahead log grow for as long as it takes. Cancelling does not shorten it.
        """

        def query(connection: sqlite3.Connection) -> list[str]:
            try:
                found = [str(text) for (text,) in connection.execute(f"PRAGMA integrity_check({_FINDINGS})")]
            except sqlite3.DatabaseError as error:
                return [f"{explain(error)} ({error})"]
            return [] if found == ["ok"] else found

        return await self._query(query, within=math.inf)

    async def aclose(self) -> None:
        """Close. May be called again."""
        if not self._closing:
            self._closing = True
            # A read in a thread ends by itself, and cannot be ended otherwise: one that hangs is left behind.
            with trio.move_on_after(PATIENCE, shield=True):
                await self._retire()
            self._source.release()
        await trio.lowlevel.checkpoint()

    async def _query(
        self, query: Callable[[sqlite3.Connection], _T], session_id: str | None = None, *, within: float | None = None
    ) -> _T:
        def checked(connection: sqlite3.Connection) -> _T:
            try:
                return query(connection)
            finally:
                self._source.check_still()

        return await super()._query(checked, session_id, within=within)
