"""A database file that is only read, while nobody is kept from opening it.

Owns how it is opened without a write: a database that is in use, or was left by a crash, has its write-ahead log and
SQLite's index of it there already, and one that was closed is read without either. That last way has no protection
against a writer, so every read makes sure that the file is still the one that was opened.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from typing import Self, final

from attrs import frozen

from ...errors import DatabaseInUse, StorageError
from .claim import Look
from .database import connect_read_only, locate

__all__ = ["Source", "size_of"]


@final
@frozen
class _Stamp:
    """By what a file that was written to is told from what it was."""

    inode: int
    size: int
    modified: int


@final
@frozen(kw_only=True)
class Source:
    """One database file; made by `take`."""

    path: str
    look: Look
    still: _Stamp | None  # None: it may be written to, and SQLite minds that

    @classmethod
    def take(cls, path: str | os.PathLike[str]) -> Self:
        """Raises `UnwritableDatabase` (there is no such file, or it cannot be read) or `DatabaseInUse`."""
        located = locate(path)
        with contextlib.ExitStack() as undo:
            look = Look.take(located)
            undo.callback(look.release)
            claimed = look.claimed
            still = None if claimed or size_of(located + "-wal") else _stamp(located)
            if claimed and not any(os.path.exists(located + suffix) for suffix in ("-lock", "-wal")):
                raise DatabaseInUse(
                    f"{located} is open in another process by another name (a hard link, a bind mount), where the rest "
                    "of it lies: use that name"
                )
            undo.pop_all()
        return cls(path=located, look=look, still=still)

    def connect(self) -> sqlite3.Connection:
        """A connection that reads. Raises `UnwritableDatabase`."""
        return connect_read_only(self.path, still=self.still is not None)

    def check_still(self) -> None:
        """To be called behind every read. Raises `StorageError` when it may have been of no one state."""
        if self.still is not None and (size_of(self.path + "-wal") or _stamp(self.path) != self.still):
            raise StorageError(f"{self.path} was opened by another process meanwhile: try again")

    def release(self) -> None:
        """Once its connections are closed. May be called again."""
        self.look.release()


def _stamp(path: str) -> _Stamp | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return _Stamp(found.st_ino, found.st_size, found.st_mtime_ns)


def size_of(path: str) -> int:
    """In bytes; 0 when there is no such file."""
    try:
        return os.path.getsize(path)
    except OSError:
        return 0
