"""One process, one engine, one name of a database: an exclusive lock on a file beside it, and who holds that.

The kernel frees the lock when the process dies, however it dies. A child process never holds it: the descriptor is
closed on exec, and after a bare fork. Older versions know this lock only; the one that holds for all names of a file is
`claim`'s.

The file says who wrote it. Of that no more is told than is known: a number of a process means something only where
processes are numbered alike (not in another container, nor on another machine that shares the disk), and a dead
process's number may be another one's by now.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import weakref
from typing import Final, Self, final

from attrs import frozen

from ...errors import DatabaseInUse, UnwritableDatabase
from .claim import OWNER_ONLY

__all__ = ["LockFile", "holder"]

_SUFFIX: Final = "-lock"

# An older version reads so much, and takes it for the process's number; it minds no blanks.
_NUMBER: Final = 20

# More than anybody writes into such a file.
_LONGEST: Final = 4096


@final
@frozen
class _Writer:
    """Who wrote a lock file: a process's number, when it began, and where that number counts."""

    process: int
    began: str
    realm: str
    host: str

    @classmethod
    def here(cls) -> Self:
        return cls(os.getpid(), _began(os.getpid()), _realm(), socket.gethostname())

    @classmethod
    def read(cls, content: bytes) -> Self | None:
        """None when it does not say. An older version wrote the number alone."""
        number, _, began, realm, host = (*content.decode("utf-8", "replace").split("\n"), *[""] * 4)[:5]
        return cls(int(number), began, realm, host) if number.isascii() and number.isdecimal() else None

    def __bytes__(self) -> bytes:
        number = f"{self.process}\n".ljust(_NUMBER)
        return f"{number}\n{self.began}\n{self.realm}\n{self.host}\n".encode("utf-8", "replace")

    @property
    def lives(self) -> bool:
        """Whether it is known to live: it counts where we do, and is not another one that has its number now."""
        return self.realm == _realm() and self.began == _began(self.process) and _exists(self.process)


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

    @property
    def is_there(self) -> bool:
        """Whether the file is still where others look for it."""
        with contextlib.suppress(OSError):
            return self._descriptor is not None and _is_at(self._descriptor, self._path)
        return False

    def release(self) -> None:
        """Free the lock and remove its file. May be called again."""
        if self._descriptor is not None:
            if self.is_there:  # or somebody removed it, and this is another one's
                _remove(self._path)
            self._close()

    def _close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
            _held.discard(self)


def holder(database: str) -> int | None:
    """The process that has this database open, told from the lock's file alone, so that nobody is kept from it.

    None when there is none, and when it cannot be known.
    """
    try:
        with open(database + _SUFFIX, "rb") as file:
            writer = _Writer.read(file.read(_LONGEST))
    except OSError:
        return None
    return writer.process if writer is not None and writer.lives else None


def _lock(database: str, path: str) -> int | None:
    """The descriptor of the locked file; None when a former holder removed the file meanwhile: try again."""
    with contextlib.ExitStack() as undo:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, OWNER_ONLY)
        undo.callback(os.close, descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DatabaseInUse(_in_use(database, _Writer.read(os.pread(descriptor, _LONGEST, 0)))) from error
        if not _is_at(descriptor, path):
            return None
        undo.callback(_remove, path)
        with contextlib.suppress(PermissionError):  # another user's, left there
            os.fchmod(descriptor, _mode(database))
        os.ftruncate(descriptor, 0)
        os.write(descriptor, bytes(_Writer.here()))
        undo.pop_all()
        return descriptor


def _mode(database: str) -> int:
    """Who may read the database may read who has it open. A new one is its owner's."""
    try:
        return os.stat(database).st_mode & 0o666
    except FileNotFoundError:
        return OWNER_ONLY


def _is_at(descriptor: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _remove(path: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)


def _in_use(database: str, writer: _Writer | None) -> str:
    if writer is not None and writer.lives:
        if writer.process == os.getpid():
            return f"{database} is already open in this process: use that engine, or name another file"
        return f"{database} is open in process {writer.process}: stop that one first, or name another file"
    # Locked it is, by a living process. Which one that is, the file has not said in numbers that count here.
    says = ""
    if writer is not None and writer.realm != _realm():
        where = f" on {writer.host}" if writer.host else ""
        says = f" (its lock file names process {writer.process}{where}, as another container or machine counts)"
    return f"{database} is open in another process{says}: stop that one first, or name another file"


def _realm() -> str:
    """Where processes are numbered as here: a boot of a machine, and in it a container."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as boot:
            return f"{boot.read().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # a system without /proc
        return socket.gethostname()


def _began(process: int) -> str:
    """When the process began, in the kernel's count; empty when there is none, or the system does not say."""
    try:
        with open(f"/proc/{process}/stat") as file:
            return file.read().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def _exists(process: int) -> bool:
    try:
        os.kill(process, 0)
    except PermissionError:
        return True  # another user's
    except (OSError, OverflowError):
        return False
    return process > 0


_held: weakref.WeakSet[LockFile] = weakref.WeakSet()


def _forget_in_child() -> None:
    for lock in list(_held):
        lock._close()


os.register_at_fork(after_in_child=_forget_in_child)
