"""Whether the database file is still there, and what there is to say of its disk.

A file that is open can be deleted, moved, or replaced, and SQLite goes on writing to what has no name any more: nothing
of it is there after the process. Owns how that is noticed, and the log lines of it. The writing thread looks, each
second and before it writes; with `stat`, and by the descriptor that the claim has, for a reason that `claim` tells.
"""

from __future__ import annotations

import logging
import os
import stat
import time
from typing import Final, final

from attrs import frozen

from .claim import Claim
from .lockfile import LockFile

__all__ = ["FileWatch"]

logger = logging.getLogger("penstock.log")

# Under load there is a round of writes every few milliseconds. To look before each would be one more hand-over of the
# interpreter for each; five in a second are none that can be measured.
_FRESH: Final = 0.2

# How SQLite's files begin, and where a counter stands that only grows: by each transaction that writes the first page.
_HEADER: Final = 100
_MAGIC: Final = b"SQLite format 3\0"
_COUNTER: Final = slice(24, 28)
_HALF: Final = 1 << 31

# SQLite may be writing just then, and what is read be half old and half new; not each time.
_READS: Final = 3

_OTHERS: Final = stat.S_IRGRP | stat.S_IWGRP | stat.S_IROTH | stat.S_IWOTH


@final
@frozen(kw_only=True)
class _Loss:
    """What became of a file, what to do now, and whether it still is the database that it was."""

    what: str
    advice: str
    whole: bool = True


_DELETED: Final = _Loss(
    what="the database file was deleted",
    advice="What was stored can be read until the server stops. Stop it, and restore a backup (`penstock restore`)",
)
_REPLACED: Final = _Loss(
    what="the database file was replaced by another one",
    advice="What was stored can be read until the server stops. Its next start opens the file that is there now",
)
_MOVED: Final = _Loss(
    what="the database file was moved",
    advice="Move it back, and writing goes on; or stop the server, then the file has all that was stored",
)
_OVERWRITTEN: Final = _Loss(
    what="the database file was overwritten",
    advice="It is no longer what it was, nor what was written over it. Stop the server, and restore a backup "
    "(`penstock restore`)",
    whole=False,
)
_WITHOUT_WAL: Final = _Loss(
    what="the database's write-ahead log was deleted",
    advice="What was stored is moved into the database file now. Restart the server",
)


@final
class FileWatch:
    """Looks at one open database. The attributes may be read by any thread; all else is the writing thread's.

    ``gone`` says what became of the file, in a few words fit for anyone's eyes; None while all is well. ``size``,
    ``wal`` and ``free`` are bytes: of the file, of its write-ahead log, free on its disk; None while not known.
    """

    def __init__(self, path: str, located: str, claim: Claim, lock: LockFile) -> None:
        """``path`` as it was given, which may lead over symbolic links to ``located``; both absolute."""
        self.path: Final = path
        self._wal_path = located + "-wal"
        self._shm_path = located + "-shm"
        self._claim = claim
        self._lock = lock
        self._wal = _identity(self._wal_path)
        self._counter = _counter(claim.read(_HEADER))
        self._overwritten = False
        self._warned: set[str] = set()
        self._looked = 0.0
        self.gone: str | None = None
        self.size: int | None = None
        self.wal: int | None = None
        self.free: int | None = None
        self._measure()
        if claim.stat().st_mode & _OTHERS:
            self._warn("database_open_to_others", f"others on this machine may use it: chmod 600 {path}")

    @property
    def is_due(self) -> bool:
        return time.monotonic() - self._looked >= _FRESH

    def look(self) -> bool:
        """See how things stand.

        True when the file was found to be gone just now, and should have what lies in its write-ahead log, wherever it
        is.
        """
        try:
            loss = self._find()
            self._measure()
            if loss is None:
                self._look_beside()
        except OSError:  # the disk fails, or a folder may not be entered any more: nothing is known, nothing said
            return False
        finally:
            self._looked = time.monotonic()
        before, self.gone = self.gone, None if loss is None else loss.what
        if loss is None:
            if before is not None:
                self._say(logging.WARNING, "database_back", "it is there again, and writing goes on")
            return False
        if before is not None:
            return False
        self._say(logging.CRITICAL, "database_gone", f"{loss.what}: nothing is stored any more. {loss.advice}")
        return loss.whole

    def _find(self) -> _Loss | None:
        if not self._claim.stat().st_nlink:
            return _REPLACED if os.path.exists(self.path) else _DELETED
        if not self._claim.is_at(self.path):
            return _MOVED
        if self._is_overwritten():
            return _OVERWRITTEN
        if self._wal is not None and _identity(self._wal_path) != self._wal:
            return _WITHOUT_WAL
        return None

    def _is_overwritten(self) -> bool:
        """Whether it was once: then there is no way back, whatever SQLite has written over that since."""
        for _ in range(_READS):
            counter = _counter(self._claim.read(_HEADER))
            if self._overwritten or (counter is not None and not _went_back(self._counter, counter)):
                self._counter = counter
                return self._overwritten
        self._overwritten = True
        return True

    def _measure(self) -> None:
        self.size = self._claim.stat().st_size
        self.free = self._claim.free_space()
        try:
            self.wal = os.stat(self._wal_path).st_size
        except FileNotFoundError:
            self.wal = None

    def _look_beside(self) -> None:
        """What is no danger to what is stored, and will be in somebody's way."""
        if (names := self._claim.stat().st_nlink) > 1:
            self._warn(
                "database_has_names",
                f"the file has {names} names now (hard links), and will not be opened again while it has: "
                f"`find FOLDER -samefile {self.path}` shows them; for a copy, use `penstock backup`",
            )
        if not (self._lock.is_there and os.path.exists(self._shm_path)):
            self._warn(
                "database_lacks_files",
                "its -lock or its -shm file was deleted: other programs that open it now may take it for unused, "
                "and damage it. Restart the server",
            )

    def _warn(self, event: str, detail: str) -> None:
        """Once."""
        if event not in self._warned:
            self._warned.add(event)
            self._say(logging.WARNING, event, detail)

    def _say(self, level: int, event: str, detail: str) -> None:
        logger.log(level, event, extra={"event": event, "path": self.path, "detail": detail})


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_dev, found.st_ino


def _went_back(before: int | None, now: int) -> bool:
    return before is not None and (now - before) % (2 * _HALF) > _HALF


def _counter(header: bytes) -> int | None:
    """None when it is no database."""
    if len(header) < _HEADER or not header.startswith(_MAGIC):
        return None
    return int.from_bytes(header[_COUNTER])
