"""From an older version of the schema to version 4, in slices: it may be left at any point, and goes on from there.

Version 1 had one index of events, by life and offset. Their rows are copied into a table of their own, laid out as
`layout` says, while the old one stays as it is, and stays what the database is, until all of them are there. The new
table then takes the old one's place in one short step, and the old one is emptied: to drop it as a whole would take
as long as a good part of the copying, and could not be interrupted.

Half-way, an older penstock may open the database and change it. Rows that it adds are copied as all others; a row that
was copied and then changed or removed leaves a mark, and the copy begins anew.

Version 2 had no summaries. Each living session gets one, made of its first events, its last one, and what it holds
open; what that does not tell, the next turn does. Here, too, an older penstock may come between: a session that it adds
to, or ends, loses its summary again, and gets it when the upgrade goes on.

Version 3 had no owners. The column comes with a default, so nothing is rewritten.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable
from typing import Final, TypeAlias

from ...rules.listing import found_again
from ...rules.records import OPEN
from .layout import OF_CHUNK

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

# Sessions that get their summary in one slice: three small reads of each.
_LIVES: Final = 500

# Before all lives.
_NO_LIFE: Final = -(2**63)

# Of so many first events one is what a user said first, if anybody did; larger ones are passed over.
_FIRST: Final = 8
_READ: Final = 64 * 1024

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

# As in schema.sql, and what keeps it true beside an older version.
_BEGIN_SUMMARIES: Final = """
BEGIN IMMEDIATE;
CREATE TABLE summaries (
    life    INTEGER PRIMARY KEY,
    session TEXT    NOT NULL,
    place   INTEGER NOT NULL,
    body    BLOB    NOT NULL
);
CREATE INDEX summaries_by_place ON summaries (place, session);
CREATE INDEX summaries_by_id ON summaries (session, place);
CREATE TRIGGER summaries_added AFTER INSERT ON events
BEGIN DELETE FROM summaries WHERE life = new.life; END;
CREATE TRIGGER summaries_ended AFTER UPDATE OF ended ON sessions WHEN new.ended
BEGIN DELETE FROM summaries WHERE life = new.life; END;
COMMIT;
"""

_FINISH_SUMMARIES: Final = """
BEGIN IMMEDIATE;
DROP TRIGGER summaries_added;
DROP TRIGGER summaries_ended;
PRAGMA user_version = 3;
COMMIT;
"""

_ADD_OWNERS: Final = """
BEGIN IMMEDIATE;
ALTER TABLE sessions ADD COLUMN owner TEXT NOT NULL DEFAULT '';
PRAGMA user_version = 4;
COMMIT;
"""

_WITHOUT: Final = """
FROM sessions AS s WHERE s.ended = 0 AND s.life > ? AND NOT EXISTS (SELECT 1 FROM summaries WHERE life = s.life)
"""
_NEXT_WITHOUT: Final = f"SELECT s.life, s.session {_WITHOUT} ORDER BY s.life LIMIT ?"

# A life's events, from either end.
_EVENTS: Final = f"""
SELECT CASE WHEN length(e.body) <= {_READ} THEN e.body END
FROM {OF_CHUNK} WHERE f.life = ? AND f.id & 1 AND e.body IS NOT NULL ORDER BY f.offset {{0}}, e.offset {{0}}
"""
_FIRST_EVENTS: Final = f"{_EVENTS.format('')} LIMIT {_FIRST}"
_LAST_EVENT: Final = f"{_EVENTS.format('DESC')} LIMIT 1"
_OPEN: Final = "SELECT value FROM records WHERE life = ? AND key = ?"
_ADD: Final = "INSERT INTO summaries (life, session, place, body) VALUES (?, ?, ?, ?)"


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
    """Bring a database of an older ``version`` to version 4, or finish with what was left to do behind that.

    Rows are counted twice: they are copied, and cleared away; sessions once, behind them.
    """
    sessions = _living(connection) if version < 3 else 0
    rows = 0  # of events, as far as is known

    def of_rows(done: int, total: int) -> None:
        nonlocal rows
        rows = total
        progress(done, total + sessions)

    _clear(connection, of_rows)
    if version == 1:
        _copy(connection, of_rows)
        _clear(connection, of_rows)
    if version < 3:
        _summarize(connection, lambda left: progress(rows + sessions - left, rows + sessions))
    if version < 4:
        connection.executescript(_ADD_OWNERS)


def _living(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT count(*) FROM sessions WHERE ended = 0").fetchone()[0])


def _summarize(connection: sqlite3.Connection, progress: Callable[[int], None]) -> None:
    """``progress`` hears how many sessions are left."""
    if not _has(connection, "summaries"):
        connection.executescript(_BEGIN_SUMMARIES)
    left = int(connection.execute(f"SELECT count(*) {_WITHOUT}", (_NO_LIFE,)).fetchone()[0])
    last = _NO_LIFE
    while lives := connection.execute(_NEXT_WITHOUT, (last, _LIVES)).fetchall():
        made = [(life, session, *_summary(connection, life)) for life, session in lives]
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(_ADD, made)
        connection.execute("COMMIT")
        last, left = lives[-1][0], max(0, left - len(lives))
        progress(left)
    connection.executescript(_FINISH_SUMMARIES)


def _summary(connection: sqlite3.Connection, life: int) -> tuple[int, bytes]:
    """Its place and its body."""
    first = [body for (body,) in connection.execute(_FIRST_EVENTS, (life,)) if body is not None]
    last = connection.execute(_LAST_EVENT, (life,)).fetchone()
    open_ = connection.execute(_OPEN, (life, OPEN)).fetchone()
    listed = found_again(first, None if last is None else last[0], None if open_ is None else open_[0])
    return -listed.rank, listed.encoded()


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
