"""Whose database file it is, told by the file itself and not by its name.

A file may have more names than one: hard links, and paths that a mount binds to it. `lockfile` tells apart who opens it
by one name; this module owns what holds for all of them: a table of the files that this process uses, by device and
inode, and for other processes a lock on the file itself. A new file is made here, too, readable by its owner only.

When a process closes any descriptor of a file, the kernel drops all POSIX locks that the process has on it, SQLite's
among them. So a file that is in the table is never opened once more for a look, and what was opened for the lock is
closed when the last user in this process has left.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import struct
import sys
import threading
from typing import Final, Self, TypeAlias, final

from attrs import Factory, define

from ...errors import DatabaseInUse, UnwritableDatabase

__all__ = ["OWNER_ONLY", "Claim", "Look"]

# What a file that is made here may be used for, and by whom: reading and writing, by its owner.
OWNER_ONLY: Final = 0o600

# One byte, farther behind the beginning than any database is long (2^48), and none of those that SQLite locks.
_PLACE: Final = 1 << 62

# How a kernel or a file system says that it has no locks of an open file (Linux has had them since 3.15).
_NO_SUCH_LOCKS: Final = frozenset({errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK})

_Key: TypeAlias = tuple[int, int]


@define
class _Used:
    """A file that this process uses: by whom, and what is open of it, by mode."""

    path: str | None = None  # by which a log has it open; None while it is only looked at
    users: int = 0
    descriptors: dict[int, int] = Factory(dict)


_table: dict[_Key, _Used] = {}
_guard = threading.Lock()


class _Use:
    """One user of one file. To be derived."""

    def __init__(self, key: _Key, descriptor: int) -> None:
        self.key: Final = key
        self._descriptor = descriptor
        self._left = False

    def release(self) -> None:
        """Leave the file; to be called once its connections are closed. May be called again."""
        with _guard:
            used = _table.get(self.key)
            if self._left or used is None:  # a fork uses nothing
                return
            self._left = True
            self._end(used)
            used.users -= 1
            if not used.users:
                del _table[self.key]
                for descriptor in used.descriptors.values():
                    os.close(descriptor)

    def _end(self, used: _Used) -> None:
        """Undo what is this user's own. Under the guard."""


@final
class Claim(_Use):
    """The right of one log to a database file, from `take` until `release`."""

    @classmethod
    def take(cls, path: str) -> Self:
        """Claim the file at ``path``, which is made if there is none; never waits.

        Raises `DatabaseInUse` when it is open already, by this name or another, and `UnwritableDatabase`.
        """
        try:
            claim = cls(*_enter(path, os.O_RDWR))
        except OSError as error:
            reason = "its disk is full" if error.errno == errno.ENOSPC else error.strerror
            raise UnwritableDatabase(
                f"{path} cannot be written ({reason}): let this user write to the file and its folder, on a sound disk"
            ) from error
        with contextlib.ExitStack() as undo:
            undo.callback(claim.release)
            if not _lock(claim._descriptor):
                raise DatabaseInUse(
                    f"{path} is open in another process, which knows it by another name (a hard link, a bind mount) or "
                    "lost its lock file: stop that one first, or name another file"
                )
            if (names := claim.stat().st_nlink) > 1:
                raise UnwritableDatabase(
                    f"{path} is one of {names} names of a file (hard links), and what is stored by one name is missed "
                    f"by the other: remove all but one (`find FOLDER -samefile {path}` shows them), or serve a copy"
                )
            undo.pop_all()
        return claim

    def fileno(self) -> int:
        return self._descriptor

    def stat(self) -> os.stat_result:
        """Of the file, wherever it is now. Raises `OSError`."""
        return os.fstat(self._descriptor)

    def read(self, size: int) -> bytes:
        """How the file begins. Raises `OSError`."""
        return os.pread(self._descriptor, size, 0)

    def free_space(self) -> int:
        """How many bytes the disk takes from this user. Raises `OSError`."""
        disk = os.fstatvfs(self._descriptor)
        return disk.f_bavail * disk.f_frsize

    def is_at(self, path: str) -> bool:
        """Whether the file is the one at ``path``. Raises `OSError`."""
        try:
            return _key(os.stat(path)) == self.key
        except (FileNotFoundError, NotADirectoryError):
            return False

    def _end(self, used: _Used) -> None:
        used.path = None
        with contextlib.suppress(OSError):  # the descriptor may stay open
            _set(self._descriptor, fcntl.F_UNLCK)


@final
class Look(_Use):
    """The use of a database file by one who only reads it, from `take` until `release`."""

    @classmethod
    def take(cls, path: str) -> Self:
        """Raises `UnwritableDatabase` when there is no such file, or it cannot be read."""
        try:
            return cls(*_enter(path, os.O_RDONLY))
        except FileNotFoundError as error:
            raise UnwritableDatabase(
                f"{path} cannot be read, because it is not there: name a database that is"
            ) from error
        except OSError as error:
            raise UnwritableDatabase(f"{path} cannot be read ({error.strerror}): let this user read it") from error

    @property
    def claimed(self) -> bool:
        """Whether a log has the file open now, by whatever name; as far as the system has such locks."""
        with _guard:
            used = _table.get(self.key)
            return (used is not None and used.path is not None) or _is_locked(self._descriptor)


def _key(found: os.stat_result) -> _Key:
    return found.st_dev, found.st_ino


def _enter(path: str, mode: int) -> tuple[_Key, int]:
    """Take the file into the table, and open it if it is not open yet. Raises `OSError` and `DatabaseError`."""
    claims = mode == os.O_RDWR
    with _guard, contextlib.ExitStack() as undo:
        made = _make(path) if claims else None
        found = os.stat(path) if made is None else os.fstat(made)
        if not stat.S_ISREG(found.st_mode):
            raise UnwritableDatabase(f"{path} is not a plain file: name one that is")
        key = _key(found)
        used = _table.get(key, _Used())
        if claims and used.path is not None:
            known = "" if used.path == path else f", as {used.path}"
            raise DatabaseInUse(f"{path} is already open in this process{known}: use that engine, or name another file")
        if mode not in used.descriptors:
            descriptor = made if made is not None else os.open(path, mode | os.O_CLOEXEC)
            undo.callback(os.close, descriptor)
            if _key(os.fstat(descriptor)) != key:
                raise UnwritableDatabase(f"{path} was replaced while it was being opened: try again")
            used.descriptors[mode] = descriptor
        used.users += 1
        used.path = path if claims else used.path
        _table[key] = used
        undo.pop_all()
        return key, used.descriptors[mode]


def _make(path: str) -> int | None:
    """A new file's descriptor; None when there is a file already."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, OWNER_ONLY)
    except FileExistsError:
        return None
    os.fchmod(descriptor, OWNER_ONLY)  # the umask may have taken more
    return descriptor


# --- Locks of an open file are the descriptor's, not the process's. SQLite's come and go beside them.


def _lock(descriptor: int) -> bool:
    """Take the lock; False when another process has it. True, with nothing done, where there are no such locks."""
    try:
        _set(descriptor, fcntl.F_WRLCK)
    except (BlockingIOError, PermissionError):
        return False
    except OSError as error:
        if error.errno not in _NO_SUCH_LOCKS:
            raise
    return True


def _set(descriptor: int, kind: int) -> None:
    if sys.platform == "linux":
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _flock(kind))


def _is_locked(descriptor: int) -> bool:
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            answer = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, _flock(fcntl.F_WRLCK))
            return bool(struct.unpack(_FLOCK, answer)[0] != fcntl.F_UNLCK)
    return False


# Linux's `struct flock`: type, whence, start, length, process; as long as its alignment makes it.
_FLOCK: Final = "hhqqi0q"


def _flock(kind: int) -> bytes:
    return struct.pack(_FLOCK, kind, os.SEEK_SET, _PLACE, 1, 0)


def _forget_in_child() -> None:
    """A fork has the descriptors, and would keep the lock when the process is gone that took it."""
    global _guard
    _guard = threading.Lock()  # another thread may have held the old one
    for used in _table.values():
        for descriptor in used.descriptors.values():
            os.close(descriptor)
    _table.clear()


os.register_at_fork(after_in_child=_forget_in_child)
