"""A database as version 1 of the schema had it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from penstock.engine.log.sqlite.layout import CHUNK

__all__ = ["VERSION_1", "make_version_1", "take_back"]

VERSION_1 = """
CREATE TABLE sessions (
    life INTEGER PRIMARY KEY, session TEXT NOT NULL, epoch TEXT NOT NULL, tail INTEGER NOT NULL, token INTEGER NOT NULL,
    ended INTEGER NOT NULL
);
CREATE UNIQUE INDEX sessions_by_id ON sessions (session, life);
CREATE UNIQUE INDEX sessions_living ON sessions (session) WHERE ended = 0;
CREATE INDEX sessions_to_purge ON sessions (life) WHERE ended = 1;
CREATE TABLE events (life INTEGER NOT NULL, offset INTEGER NOT NULL, body BLOB NOT NULL);
CREATE UNIQUE INDEX events_by_offset ON events (life, offset);
CREATE TABLE records (
    life INTEGER NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL, PRIMARY KEY (life, key)
) WITHOUT ROWID;
CREATE INDEX records_plain ON records (key, life) WHERE instr(key, '/') = 0;
PRAGMA application_id = 0x70656e73;
PRAGMA user_version = 1;
PRAGMA journal_mode = WAL;
"""


def make_version_1(path: Path) -> None:
    """Two lives, event by event in turns over two chunks, with gaps; a third that ended, and is to be purged."""
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(VERSION_1)
        lives = [(1, "a", "e1", 0, 1, 0), (2, "b", "e1", 0, 7, 0), (3, "gone", "e1", 0, 1, 1)]
        connection.executemany("INSERT INTO sessions VALUES (?, ?, ?, ?, ?, ?)", lives)
        rows = [(1 + number % 3, 1 + number // 3, b"%d" % number) for number in range(2 * CHUNK)]
        connection.executemany("INSERT INTO events VALUES (?, ?, ?)", rows)
        connection.execute("DELETE FROM events WHERE life = 1 AND offset % 100 = 5")
        connection.execute("INSERT INTO records VALUES (1, 'open', x'01')")
        connection.commit()


def take_back(path: Path, filler: int) -> None:
    """Make of a database of today what version 1 would have made, with so many events of a session that is deleted."""
    new = path.with_name("new.db")
    path.rename(new)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.executescript(VERSION_1)
        connection.execute("ATTACH ? AS new", (str(new),))
        connection.execute("BEGIN")
        connection.execute("INSERT INTO sessions SELECT life, session, epoch, tail, token, ended FROM new.sessions")
        connection.execute("INSERT INTO records SELECT * FROM new.records")
        connection.execute("INSERT INTO events SELECT life, offset, body FROM new.events ORDER BY id")
        connection.execute("INSERT INTO sessions VALUES (1000000, 'filler', 'e1', 0, 1, 1)")
        rows = ((1_000_000, number, b"x" * 100) for number in range(1, filler + 1))
        connection.executemany("INSERT INTO events VALUES (?, ?, ?)", rows)
        connection.execute("COMMIT")
