"""From version 1 of the schema to version 2, in slices: it may be left at any point, and goes on from there.

Version 1 had one index of events, by life and offset. Their rows are copied into a table of their own, laid out as
`layout` says, while the old one stays as it is, and stays what the database is, until all of them are there. The new
table then takes the old one's place in one short step, and the old one is emptied: to drop it as a whole would take
as long as a good part of the copying, and could not be interrupted.

Half-way, an older penstock may open the database and change it. Rows that it adds are copied as all others; a row that
was copied and then changed or removed leaves a mark, and the copy begins anew.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable
from typing import Final, TypeAlias

__all__ = ["Progress", "lines", "upgrade"]

logger = logging.getLogger("penstock.log")

# Is told how many rows of how many are done. Where it raises, the upgrade is left: all that was told is stored.
Progress: TypeAlias = Callable[[int, int], None]

# Between two lines in the log, in seconds.
_PAUSE: Final = 1.0

# One slice: so many rows, or bytes of them. A tenth of a second on a slow disk, and little beside what it costs to
# commit it.
_ROWS: Final = 4096
_BYTES: Final = 8 * 1024 * 1024

_BEGIN: Final = """
BEGIN IMMEDIATE;
CREATE TABLE events_new (
    id     INTEGER PRIMARY KEY,
    life   INTEGER NOT NULL,
    offset INTEGER NOT NULL,
    body   BLOB
);
CREATE UNIQUE INDEX events_by_chunk ON events_new (id / 16384, life, offset);
CREATE UNIQUE INDEX events_first ON events_new (life, offset) WHERE id & 1;
CREATE TABLE events_touched (life INTEGER NOT NULL);
CREATE TRIGGER events_updated AFTER UPDATE ON events
WHEN NOT EXISTS (SELECT 1 FROM events_touched) AND EXISTS (SELECT 1 FROM events_new WHERE id >= old.rowid * 2)
BEGIN INSERT INTO events_touched VALUES (old.life); END;
CREATE TRIGGER events_deleted AFTER DELETE ON events
WHEN NOT EXISTS (SELECT 1 FROM events_touched) AND EXISTS (SELECT 1 FROM events_new WHERE id >= old.rowid * 2)
BEGIN INSERT INTO events_touched VALUES (old.life); END;
COMMIT;
"""

_DISCARD: Final = """
BEGIN IMMEDIATE;
DROP TRIGGER events_updated;
DROP TRIGGER events_deleted;
DROP TABLE events_touched;
ALTER TABLE events_new RENAME TO events_old;
COMMIT;
"""

_INDEXES: Final = "SELECT name FROM sqlite_master WHERE type = 'index' AND tbl_name = 'events_old'"

# A life's events came in the order of their offsets, so the first in its chunk is the one with none before it there.
_COPY: Final = """
INSERT INTO events_new (id, life, offset, body)
SELECT rowid * 2 + (rowid / 8192 IS NOT (
           SELECT b.rowid / 8192 FROM events AS b
           WHERE b.life = a.life AND b.offset < a.offset ORDER BY b.offset DESC LIMIT 1
       )), life, offset, body
FROM events AS a WHERE rowid > ? AND rowid <= ? ORDER BY rowid
"""

_FINISH: Final = """
BEGIN IMMEDIATE;
DROP TRIGGER events_updated;
DROP TRIGGER events_deleted;
DROP TABLE events_touched;
ALTER TABLE events RENAME TO events_old;
ALTER TABLE events_new RENAME TO events;
PRAGMA user_version = 2;
COMMIT;
"""


def lines(path: str) -> Progress:
    """Tells of it in the log: at its beginning, each second, and at its end."""
    due = 0.0
    hint = "; it may be interrupted, and goes on the next time"

    def tell(done: int, total: int) -> None:
        nonlocal due, hint
        now = time.monotonic()
        if now >= due or done == total:
            logger.info("bringing %s up to date: %d of %d rows%s", path, done, total, hint)
            due, hint = now + _PAUSE, ""

    return tell


def upgrade(connection: sqlite3.Connection, version: int, progress: Progress) -> None:
    """Bring a database of ``version`` 1 to version 2, or finish with what was left to do behind that.

    Rows are counted twice: they are copied, and cleared away.
    """
    _clear(connection, progress)
    if version == 1:
        _copy(connection, progress)
        _clear(connection, progress)


def _copy(connection: sqlite3.Connection, progress: Progress) -> None:
    if _has(connection, "events_new") and not _goes_on(connection):
        connection.executescript(_DISCARD)
        _clear(connection, progress)
    if not _has(connection, "events_new"):
        connection.executescript(_BEGIN)
    top = _highest(connection, "events")
    done = _highest(connection, "events_new") // 2
    while done < top:
        end = _slice(connection, "events", done)
        connection.execute(_COPY, (done, end))
        done = end
        progress(done, 2 * top)
    connection.executescript(_FINISH)


def _goes_on(connection: sqlite3.Connection) -> bool:
    """Whether what was copied is still what the old table holds.

    A VACUUM may have given its rows other numbers: then the last that was copied is another one there.
    """
    if connection.execute("SELECT EXISTS (SELECT 1 FROM events_touched)").fetchone()[0]:
        return False
    last = connection.execute("SELECT id / 2, life, offset FROM events_new ORDER BY id DESC LIMIT 1").fetchone()
    if last is None:
        return True
    there = connection.execute("SELECT rowid, life, offset FROM events WHERE rowid = ?", last[:1]).fetchone()
    return bool(there == last)


def _clear(connection: sqlite3.Connection, progress: Progress) -> None:
    """Empty and drop the table that nobody needs any more, if there is one."""
    if not _has(connection, "events_old"):
        return
    for (index,) in connection.execute(_INDEXES).fetchall():  # a row is removed faster without
        connection.execute(f"DROP INDEX {index}")
    top = _highest(connection, "events_old")
    while (end := _slice(connection, "events_old", 0)) > 0:
        connection.execute("DELETE FROM events_old WHERE rowid <= ?", (end,))
        progress(top + end, 2 * top)
    connection.execute("DROP TABLE events_old")


def _slice(connection: sqlite3.Connection, table: str, done: int) -> int:
    """The last row of the slice behind row ``done``; ``done`` where there is none."""
    size = 0
    rows = f"SELECT rowid, length(body) FROM {table} WHERE rowid > ? ORDER BY rowid LIMIT ?"
    for row, length in connection.execute(rows, (done, _ROWS)).fetchall():
        done, size = row, size + (length or 0)
        if size >= _BYTES:
            break
    return done


def _highest(connection: sqlite3.Connection, table: str) -> int:
    return int(connection.execute(f"SELECT coalesce(max(rowid), 0) FROM {table}").fetchone()[0])


def _has(connection: sqlite3.Connection, table: str) -> bool:
    return bool(
        connection.execute("SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE name = ?)", (table,)).fetchone()[0]
    )
