"""Opening a database file: what it must be, how connections to it are set up, what its errors mean.

Owns the checks at open and the wording of storage errors. Reads and writes are `log` and `commit`.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from importlib.resources import files
from typing import Final
from urllib.parse import quote

from ...errors import CorruptDatabase, DatabaseError, DatabaseInUse, NewerSchema, UnwritableDatabase
from .upgrade import Progress, upgrade

__all__ = [
    "at_once",
    "check",
    "connect",
    "connect_read_only",
    "connect_reader",
    "connect_to",
    "explain",
    "is_damaged",
    "is_held",
    "is_store_wide",
    "locate",
    "prepare",
    "rehearse",
    "translated",
    "uri_of",
]

_APPLICATION_ID: Final = 0x70656E73
_VERSION: Final = 4
_OLDER_TABLES: Final = frozenset({"sessions", "events", "records"})
_TABLES: Final = _OLDER_TABLES | {"summaries"}

# SQLite's smallest page. It would take a smaller file for an empty one and write over it.
_SMALLEST: Final = 512

# quick_check reads every page, some 1000 MiB/s when cached. Up to this size it is done at every open (below
# 0.1 s); beyond, only the sessions table, which recovery and every append stand on, and SQLite's own test
# that the file is as long as its header says. Damage elsewhere shows as StorageError where it is read.
_CHECK_ALL_BELOW: Final = 64 * 1024 * 1024

# Another program, such as a backup, may hold the write lock for a moment.
_BUSY_TIMEOUT: Final = 5.0

# A statement of a few thousand rows takes up to a MiB. There are some twenty large ones (`plan`), all others are small.
_CACHED_STATEMENTS: Final = 64

# Sorted pages of the index of many interleaved sessions: KiB.
_CACHE_SIZE: Final = 16 * 1024

# Pages in the write-ahead log (64 MiB), above which a commit moves them itself, for some ten milliseconds. A
# `Checkpointer` does it before.
_CHECKPOINT: Final = 16 * 1024

# The write-ahead log is cut back to this once it grew in a rush.
_JOURNAL_SIZE_LIMIT: Final = 64 * 1024 * 1024

_STORE_WIDE: Final = frozenset(
    {
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_AUTH,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_NOLFS,
    }
)


def _primary(error: BaseException | None) -> int:
    """SQLite's primary result code; 0 when it is none of SQLite's errors."""
    code = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF if isinstance(code, int) else 0


def is_store_wide(error: Exception) -> bool:
    """Whether the fault may lie with the whole store, not with the values that were to be stored."""
    return isinstance(error, DatabaseError | MemoryError) or _primary(error) in _STORE_WIDE


def is_held(error: Exception) -> bool:
    """Whether another program holds the database, and only that is in the way."""
    return _primary(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def is_damaged(error: BaseException | None) -> bool:
    """Whether a database's own content is at fault."""
    return _primary(error) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def explain(error: Exception) -> str:
    """What is wrong, in a few words fit for anyone's eyes."""
    match _primary(error):
        case sqlite3.SQLITE_FULL:
            return "the disk is full"
        case sqlite3.SQLITE_IOERR:
            return "the disk fails"
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM | sqlite3.SQLITE_CANTOPEN:
            return "the database cannot be written"
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return "the database is damaged"
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return "another program holds the database"
        case sqlite3.SQLITE_TOOBIG:
            return "it is too big"
        case _:
            return "the database refused it"


def locate(path: str | os.PathLike[str]) -> str:
    """The file behind ``path``, past symbolic links, so that one database has one lock.

    Raises `UnwritableDatabase` when no database can be there.
    """
    located = os.path.realpath(path)
    if os.path.isdir(located):
        raise UnwritableDatabase(f"{located} is a folder: name a file in it")
    folder = os.path.dirname(located)
    if not os.path.isdir(folder):
        raise UnwritableDatabase(f"{located} cannot be opened, because the folder {folder} is missing: create it first")
    return located


def connect(path: str) -> sqlite3.Connection:
    """A connection that writes durably. It may pass from thread to thread, one at a time. The file must be there."""
    connection = connect_to(path)
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(f"PRAGMA cache_size = -{_CACHE_SIZE}")
    connection.execute(f"PRAGMA journal_size_limit = {_JOURNAL_SIZE_LIMIT}")
    connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT}")
    return connection


def connect_reader(path: str) -> sqlite3.Connection:
    """A connection that sees what is committed and cannot write. The file must be there."""
    connection = connect_to(path)
    connection.execute("PRAGMA query_only = ON")
    # Now it opens all that it will need: later another file may have these names.
    connection.execute("SELECT 1 FROM sessions LIMIT 1").fetchone()
    return connection


def connect_to(path: str) -> sqlite3.Connection:
    """A connection to a file that is there: no new one is made where it was."""
    return _connect(f"{uri_of(path)}?mode=rw", uri=True)


def uri_of(path: str) -> str:
    """The name of a file as SQLite takes it, whatever characters it has."""
    return f"file:{quote(os.fsencode(path))}"


@contextlib.contextmanager
def at_once(connection: sqlite3.Connection) -> Iterator[None]:
    """What is done meanwhile does not wait for other programs."""
    connection.execute("PRAGMA busy_timeout = 0")
    try:
        yield
    finally:
        connection.execute(f"PRAGMA busy_timeout = {_BUSY_TIMEOUT * 1000:.0f}")


def rehearse(connection: sqlite3.Connection, *, write: bool) -> None:
    """Take the write lock, and with ``write`` store what is stored already. Raises `sqlite3.Error`."""
    connection.execute("BEGIN IMMEDIATE")
    if write:
        connection.execute(f"PRAGMA user_version = {_VERSION}")
    connection.execute("COMMIT")


def connect_read_only(path: str, *, still: bool) -> sqlite3.Connection:
    """A connection to a file that is not to be changed. ``still``: nobody else writes to it, and it is read as it is.

    Raises `UnwritableDatabase` when it cannot be read.
    """
    # Without `immutable`, SQLite would put its own files beside a database that was closed, and leave them.
    uri = f"{uri_of(path)}?mode=ro{'&immutable=1' if still else ''}"
    try:
        connection = _connect(uri, uri=True)
        connection.execute("PRAGMA query_only = ON")
    except sqlite3.Error as error:
        raise translated(error, path, "read") from error
    return connection


def _connect(path: str, *, uri: bool = False) -> sqlite3.Connection:
    connection = sqlite3.connect(
        path,
        uri=uri,
        timeout=_BUSY_TIMEOUT,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=_CACHED_STATEMENTS,
    )
    # A text that is damaged must not keep the others of its page from being read.
    connection.text_factory = _text
    return connection


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")


def prepare(path: str, progress: Progress = lambda done, total: None) -> None:
    """See that ``path`` is a sound, writable database of this version; create it where there is nothing.

    One of an older version is brought up to date, in slices: ``progress`` hears of each, and may raise to stop there.

    Touches no file that is not penstock's. Raises `NewerSchema`, `CorruptDatabase`, `UnwritableDatabase` or
    `DatabaseInUse`, each naming the file and what to do.
    """
    try:
        if os.path.exists(path) and 0 < os.path.getsize(path) < _SMALLEST:
            raise _no_database(path)
        with contextlib.closing(_connect(path)) as connection:
            _check_kind(connection, path)
            _make_durable(connection, path)
            _bring_up(connection, progress)
            _check_sound(connection, path)
            # Without a write, SQLite opens a read-only file without a word.
            rehearse(connection, write=True)
    except sqlite3.Error as error:
        raise translated(error, path) from error


def check(connection: sqlite3.Connection, path: str, *, older: bool = False) -> None:
    """See that the connection reads a database of this version, or with ``older`` of one before; change nothing.

    Raises `NewerSchema`, `CorruptDatabase` or `UnwritableDatabase`.
    """
    try:
        if os.path.getsize(path) < _SMALLEST:
            raise _no_database(path)
        _check_kind(connection, path)
        version = _version(connection)
        if not version:
            raise _no_database(path)
        if version < _VERSION and not older:
            raise UnwritableDatabase(
                f"{path} was written by an older penstock (schema {version}, this one reads {_VERSION}): "
                "serve it once, which brings it up to date"
            )
        connection.execute("SELECT count(*) FROM sessions").fetchone()
    except sqlite3.Error as error:
        raise translated(error, path, "read") from error


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _check_kind(connection: sqlite3.Connection, path: str) -> None:
    kind = connection.execute("PRAGMA application_id").fetchone()[0]
    version = _version(connection)
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if kind != _APPLICATION_ID:
        if kind or version or tables:
            raise CorruptDatabase(f"{path} is a database of some other program: name another file")
        return
    if version > _VERSION:
        raise NewerSchema(
            f"{path} was written by a newer penstock (schema {version}, this one knows {_VERSION}): "
            "install that version, or name another file"
        )
    if not version or not tables >= (_TABLES if version == _VERSION else _OLDER_TABLES):
        raise _damaged(path, "its tables are not all there")


def _make_durable(connection: sqlite3.Connection, path: str) -> None:
    mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    if mode != "wal":
        raise UnwritableDatabase(
            f"{path} lies on a file system that does not support write-ahead logging: put it on a local disk"
        )
    connection.execute("PRAGMA synchronous = FULL")


def _bring_up(connection: sqlite3.Connection, progress: Progress) -> None:
    """To this version's schema: a new file from nothing, an older one with all that is in it."""
    version = _version(connection)
    if not version:
        connection.executescript(files(__package__).joinpath("schema.sql").read_text("utf-8"))
    else:
        upgrade(connection, version, progress)


def _check_sound(connection: sqlite3.Connection, path: str) -> None:
    table = "" if os.path.getsize(path) <= _CHECK_ALL_BELOW else "(sessions)"
    finding = connection.execute(f"PRAGMA quick_check{table}").fetchone()[0]
    if finding != "ok":
        raise _damaged(path, finding)


def _no_database(path: str) -> CorruptDatabase:
    return CorruptDatabase(f"{path} is not a database: name another file, or restore it from a backup")


def _damaged(path: str, finding: str) -> CorruptDatabase:
    return CorruptDatabase(
        f"{path} is damaged ({finding}): restore it from a backup, or save what `sqlite3 {path} .recover` finds"
    )


def translated(error: sqlite3.Error, path: str, deed: str = "written") -> DatabaseError:
    """What to tell of an error while a file was opened, or copied: which one it is about, and what to do."""
    match _primary(error):
        case sqlite3.SQLITE_NOTADB:
            return _no_database(path)
        case sqlite3.SQLITE_CORRUPT:
            return _damaged(path, str(error))
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return DatabaseInUse(f"{path} is held by another program: stop that one first, or name another file")
        case sqlite3.SQLITE_FULL:
            return UnwritableDatabase(f"{path} cannot be written, because its disk is full: free some space")
        case _:
            return UnwritableDatabase(
                f"{path} cannot be {deed} ({error}): let this user write to the file and its folder, on a sound disk"
            )
