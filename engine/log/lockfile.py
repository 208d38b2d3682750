"""One process, one engine, one database: an exclusive lock on a file beside the database.

Not on the database itself: closing any descriptor of that would drop SQLite's own locks on it. The kernel
frees the lock when the process dies, however it dies. A child process never holds it: the descriptor is closed
on exec, and after a bare fork.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import weakref
from typing import Self, final

from ..errors import DatabaseInUse, UnwritableDatabase

__all__ = ["LockFile", "holder"]

_SUFFIX = "-lock"


@final
class LockFile:
    """A held lock on ``<database>-lock``, from `acquire` until `release`."""

    def __init__(self, path: str, descriptor: int) -> None:
        self._path = path
        self._descriptor: int | None = descriptor
        _held.add(self)

    @classmethod
    def acquire(cls, database: str) -> Self:
        """Take the lock for this database; never waits.

        Raises `DatabaseInUse`, or `UnwritableDatabase` when the file cannot be made or locked.
        """
        path = database + _SUFFIX
        try:
            while (descriptor := _lock(database, path)) is None:
                pass
        except OSError as error:
            reason = "its disk is full" if error.errno == errno.ENOSPC else error.strerror
            raise UnwritableDatabase(
                f"{database} cannot be opened, because {path} cannot be locked ({reason}): "
                "let this user write to the folder, on a disk that has room"
            ) from error
        return cls(path, descriptor)

    def release(self) -> None:
        """Free the lock and remove its file. May be called again."""
        if self._descriptor is not None:
            _remove(self._path)
            self._close()

    def _close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
            _held.discard(self)


def holder(database: str) -> int | None:
    """The process that has this database open, told from the lock's file alone, so that nobody is kept from it.

    None when there is none. A file that a dead process left can name another one that has its number now.
    """
    try:
        with open(database + _SUFFIX, "rb") as file:
            process = int(file.read(20))
    except (OSError, ValueError):
        return None
    try:
        os.kill(process, 0)
    except PermissionError:
        pass  # another user's
    except (OSError, OverflowError):
        return None
    return process if process > 0 else None


def _lock(database: str, path: str) -> int | None:
    """The descriptor of the locked file; None when a former holder removed the file meanwhile: try again."""
    with contextlib.ExitStack() as undo:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        undo.callback(os.close, descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip()
            raise DatabaseInUse(_in_use(database, holder)) from error
        if not _is_at(descriptor, path):
            return None
        undo.callback(_remove, path)
        os.ftruncate(descriptor, 0)
        os.write(descriptor, b"%d\n" % os.getpid())
        undo.pop_all()
        return descriptor


def _is_at(descriptor: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _remove(path: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)


def _in_use(database: str, holder: str) -> str:
    if holder == str(os.getpid()):
        return f"{database} is already open in this process: use that engine, or name another file"
    process = f"process {holder}" if holder.isdigit() else "another process"
    return f"{database} is open in {process}: stop that one first, or name another file"


_held: weakref.WeakSet[LockFile] = weakref.WeakSet()


def _forget_in_child() -> None:
    for lock in list(_held):
        lock._close()


os.register_at_fork(after_in_child=_forget_in_child)
