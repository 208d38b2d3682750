"""A copy of a database, made while a server writes to it; and the way back.

Owns the steps and their order: whenever it is cut off, the name of a copy stands for a whole one or for nothing, and
the name of a database that is restored for the old one or for the new one. A copy is made by `VACUUM INTO`, which reads
one committed state and makes nobody wait. It is written to a file beside its place, checked, synced, and then renamed.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from typing import Final, Literal, TypeVar, final

import trio
from attrs import frozen

from ...errors import CorruptDatabase, DatabaseError, DatabaseInUse, UnwritableDatabase
from ...events import new_epoch
from .claim import OWNER_ONLY, Claim
from .database import check, connect, connect_read_only, connect_to, is_damaged, is_held, locate, translated, uri_of
from .lockfile import LockFile
from .source import Source, size_of

__all__ = ["CopyProgress", "back_up", "restore"]

_T = TypeVar("_T")

# What is being written stands beside its place under this name.
_PART: Final = ".part"

# SQLite's own, beside that, while it writes.
_JOURNAL: Final = "-journal"

# SQLite's steps between two looks whether to go on: a millisecond or less.
_STEPS: Final = 10_000

# Between two reports of how far it is: seconds.
_PAUSE: Final = 0.1

# A copy that is not whole yet has this bit, which means nothing on a file. So what is left of one that was cut off is
# known, and nothing else is ever written over.
_UNFINISHED: Final = stat.S_ISVTX


@final
@frozen
class CopyProgress:
    """How far a copy is: ``done`` of about ``total`` bytes are written; or all are, and it is being checked."""

    phase: Literal["copying", "checking"]
    done: int
    total: int


async def back_up(
    database: str | os.PathLike[str],
    file: str | os.PathLike[str],
    *,
    progress: Callable[[CopyProgress], None] | None = None,
) -> None:
    """Copy the database to ``file``, which must not be there yet; some process may have it open and write to it.

    The copy is one committed state, whole and checked, on the disk, and readable by this user only. Cancelling, or a
    Ctrl-C, leaves nothing of it. ``progress`` is called now and then.

    Raises `DatabaseError`, which names the file and what to do, and `StorageError` when a database that was closed is
    opened meanwhile: try again.
    """
    await _carried_out(lambda run: _back_up(database, file, run), progress)


async def restore(
    file: str | os.PathLike[str],
    database: str | os.PathLike[str],
    *,
    progress: Callable[[CopyProgress], None] | None = None,
) -> str | None:
    """Put a copy of ``file`` in the place of the database; the name under which what was there is kept, if it was.

    Each session's log begins a new life, with a new epoch: cursors of what was stored after the backup fit nothing. No
    process may have either file open. Cancelling, or a Ctrl-C, leaves the database as it was. ``progress`` is called
    now and then. Raises `DatabaseError`, which names the file and what to do.
    """
    return await _carried_out(lambda run: _restore(file, database, run), progress)


# --- in a thread


@final
class _Run:
    """What the thread and the loop have in common."""

    def __init__(self) -> None:
        self.stopped = threading.Event()
        self.progress = CopyProgress("copying", 0, 0)

    def check(self) -> None:
        if self.stopped.is_set():
            raise _Stopped


class _Stopped(Exception):
    """Nobody wants it any more. Never leaves this module."""


def _back_up(database: str | os.PathLike[str], file: str | os.PathLike[str], run: _Run) -> None:
    _check_free(file)
    target = locate(file)
    with contextlib.ExitStack() as leave:
        source = Source.take(database)
        leave.callback(source.release)
        part = leave.enter_context(_copied(source, target + _PART, run))
        _check_free(file)
        run.check()
        _rename(part, target)


def _restore(file: str | os.PathLike[str], database: str | os.PathLike[str], run: _Run) -> str | None:
    target = locate(database)
    with contextlib.ExitStack() as leave:
        source = Source.take(file)
        leave.callback(source.release)
        if source.look.claimed:
            raise DatabaseInUse(f"{source.path} is open in some process: name a backup first, and then the database")
        lock = LockFile.acquire(target)
        leave.callback(lock.release)
        former: Claim | None = None
        if os.path.exists(target):
            former = Claim.take(target)
            leave.callback(former.release)
            if former.key == source.look.key:
                raise UnwritableDatabase(f"{target} is the file to restore from: name a backup of it first")
        alter = partial(_make_heir, former=former)
        part = leave.enter_context(_copied(source, target + _PART, run, alter=alter))
        run.check()
        kept = _set_aside(target, former)
        _rename(part, target)
        return kept


def _make_heir(part: str, claim: Claim, *, former: Claim | None) -> None:
    """Let a copy stand in the place of ``former``, whose sessions may have come further than those of the copy."""
    if former is not None:
        with contextlib.suppress(PermissionError):  # only root may give files away, and only it need
            os.fchown(claim.fileno(), former.stat().st_uid, former.stat().st_gid)
    try:
        with contextlib.closing(connect_to(part)) as connection:
            connection.create_function("new_epoch", 0, new_epoch)
            connection.execute("UPDATE sessions SET epoch = new_epoch() WHERE ended = 0")
    except sqlite3.Error as error:
        raise translated(error, part) from error


def _set_aside(target: str, former: Claim | None) -> str | None:
    """Give what is there another name beside its own, for which another file can then stand."""
    if former is not None:
        _bring_to_rest(target)
    beside = [suffix for suffix in ("", "-wal") if os.path.exists(target + suffix)]
    if not beside:
        return None
    kept = f"{target}.replaced-{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}"
    if former is not None:
        try:
            os.link(target, kept)
        except OSError:  # a disk without hard links
            os.rename(target, kept)
    if "-wal" in beside:
        # It could not be moved into its database, and would be taken for a part of the new one.
        os.rename(target + "-wal", kept + "-wal")
    _remove(target + "-shm")
    return kept


def _bring_to_rest(path: str) -> None:
    """Leave a database without its write-ahead log, if it is sound."""
    with contextlib.suppress(sqlite3.Error), contextlib.closing(connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


@contextlib.contextmanager
def _copied(
    source: Source, part: str, run: _Run, *, alter: Callable[[str, Claim], None] | None = None
) -> Iterator[str]:
    """A whole copy in the file ``part``, on the disk; the file is removed at the end, unless it has another name then.

    ``alter`` may change it before it is checked.
    """
    with _part(part, source) as claim:
        _copy(source, part, run)
        if alter is not None:
            alter(part, claim)
        run.progress = CopyProgress("checking", run.progress.total, run.progress.total)
        _check(source, part, run)
        os.fsync(claim.fileno())
        os.fchmod(claim.fileno(), OWNER_ONLY)
        yield part


@contextlib.contextmanager
def _part(part: str, source: Source) -> Iterator[Claim]:
    """The file, empty and ours: a new one, or what a copy that was cut off has left."""
    if os.path.islink(part):
        raise _in_the_way(part)
    try:
        claim = Claim.take(part)
    except DatabaseInUse as error:
        raise DatabaseInUse(
            f"{part} is open in some process, such as another backup to this place: wait for that, or name another file"
        ) from error
    with contextlib.ExitStack() as leave:
        leave.callback(claim.release)
        found = claim.stat()
        if found.st_size and not found.st_mode & _UNFINISHED:
            raise _in_the_way(part)
        with contextlib.suppress(OSError):  # a disk that does not know this bit
            os.fchmod(claim.fileno(), OWNER_ONLY | _UNFINISHED)
        os.ftruncate(claim.fileno(), 0)
        leave.callback(_remove_own, claim, part)
        _remove(part + _JOURNAL)
        yield claim


def _copy(source: Source, part: str, run: _Run) -> None:
    with contextlib.closing(source.connect()) as connection:
        check(connection, source.path, older=True)
        pages, unused, size = (
            connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
        )

        def turn() -> bool:
            run.progress = CopyProgress("copying", size_of(part), (pages - unused) * size)
            return run.stopped.is_set()

        connection.set_progress_handler(turn, _STEPS)
        try:
            # It was opened for reading only, and stays so. This forbids to write elsewhere, too.
            connection.execute("PRAGMA query_only = OFF")
            connection.execute("VACUUM INTO ?", (uri_of(part),))
        except sqlite3.Error as error:
            run.check()
            raise translated(error, source.path if is_damaged(error) or is_held(error) else part) from error
    source.check_still()


def _check(source: Source, part: str, run: _Run) -> None:
    finding = "it is no database"
    with contextlib.closing(connect_read_only(part, still=True)) as connection:
        connection.set_progress_handler(run.stopped.is_set, _STEPS)
        try:
            check(connection, part, older=True)
            finding = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
        except (sqlite3.Error, DatabaseError) as error:
            run.check()
            finding = str(error)
    if finding != "ok":
        raise CorruptDatabase(
            f"the copy of {source.path} is not sound, and was removed ({finding}): "
            f"see what `penstock inspect {source.path}` says, and try another disk"
        )


def _check_free(file: str | os.PathLike[str]) -> None:
    if os.path.lexists(file):
        raise UnwritableDatabase(f"{os.fspath(file)} is there already, and is not replaced: name another file")


def _in_the_way(part: str) -> DatabaseError:
    return UnwritableDatabase(
        f"{part} is there already, and was not left by a copy that was cut off: move it away, or name another file"
    )


def _rename(part: str, target: str) -> None:
    os.rename(part, target)
    folder = os.open(os.path.dirname(target), os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _remove_own(claim: Claim, part: str) -> None:
    with contextlib.suppress(OSError):
        if claim.is_at(part):
            os.unlink(part)
            _remove(part + _JOURNAL)


def _remove(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


# --- in the loop


async def _carried_out(work: Callable[[_Run], _T], progress: Callable[[CopyProgress], None] | None) -> _T:
    """What ``work`` returns, in a thread.

    A Ctrl-C comes to the caller's task, and only where that may be cancelled: another one waits for the thread.
    """
    run = _Run()
    over = trio.Event()
    results: list[_T] = []
    failures: list[Exception] = []

    async def in_thread() -> None:
        try:
            results.append(await trio.to_thread.run_sync(work, run))
        except OSError as error:
            failure = UnwritableDatabase(f"{error.filename} cannot be written ({error.strerror}): see to its disk")
            failure.__cause__ = error
            failures.append(failure)
        except Exception as error:  # noqa: BLE001  carried to the task that waits
            failures.append(error)
        finally:
            over.set()

    raised: BaseException | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(in_thread)
        try:
            while not over.is_set():
                with trio.move_on_after(_PAUSE):
                    await over.wait()
                if progress is not None:
                    progress(run.progress)
        except BaseException as error:  # noqa: BLE001  carried around the nursery, once the thread has cleaned up
            run.stopped.set()
            raised = error
    if raised is not None:
        raise raised
    if failures:
        raise failures[0]
    return results[0]
