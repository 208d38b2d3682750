"""What a `Compact` changes, as SQL, and whether it stands. Who carries it out, and when, is `commit` and `writer`."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from typing import Final

from .plan import Life, Statement, set_records
from .port import Compact

__all__ = ["stands", "statements"]

# Whoever removes a life's last events raises its tail first: the log ends where it ended.
_KEEP_TAIL: Final = "UPDATE sessions SET tail = ?2 WHERE life = ?1 AND tail < ?2"
_REPLACE: Final = "UPDATE events SET body = ?3 WHERE life = ?1 AND offset = ?2"
_REMOVE: Final = "DELETE FROM events WHERE life = ? AND offset IN ({})"
_FORGET: Final = "DELETE FROM records WHERE life = ? AND key = ? AND value = ?"
_FOUND: Final = "SELECT offset, body FROM events WHERE life = ? AND offset IN ({})"
_RECORD: Final = "SELECT value FROM records WHERE life = ? AND key = ?"


def statements(life: Life, write: Compact, max_variables: int) -> Iterator[Statement]:
    """The changes, every statement within the limit of bound variables. A removal alone is one statement."""
    number, tail = life.number, life.standing.tail
    if write.remove and max(write.remove) >= tail:
        yield _KEEP_TAIL, (number, tail)
    for offset, body in write.replace.items():
        yield _REPLACE, (number, offset, body)
    for part in _parts(write.remove, max_variables - 1):
        yield _REMOVE.format(",".join("?" * len(part))), (number, *part)
    yield from set_records({(number, key): value for key, value in write.records.items()}, max_variables)
    for key, value in write.forget.items():
        yield _FORGET, (number, key, value)


def stands(connection: sqlite3.Connection, life: Life, write: Compact) -> bool:
    """Whether the log is as ``write`` wants it."""
    offsets = [*write.replace, *write.remove]
    for part in _parts(offsets, connection.getlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER) - 1):
        found = connection.execute(_FOUND.format(",".join("?" * len(part))), (life.number, *part))
        if any(write.replace.get(offset) != body for offset, body in found):
            return False
    for key, value in write.records.items():
        row = connection.execute(_RECORD, (life.number, key)).fetchone()
        if (None if row is None else row[0]) != value:
            return False
    return True


def _parts(offsets: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    return (offsets[start : start + size] for start in range(0, len(offsets), size))
