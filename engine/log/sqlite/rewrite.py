"""What a `Compact` changes, as SQL, and whether it stands. Who carries it out, and when, is `commit` and `writer`."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from typing import Final

from ..port import Compact
from .layout import CHUNK_OF, CHUNK_WITH
from .plan import Life, Statement, set_records

__all__ = ["stands", "statements"]

# Whoever removes a life's last events raises its tail first: the log ends where it ended.
_KEEP_TAIL: Final = "UPDATE sessions SET tail = ?2 WHERE life = ?1 AND tail < ?2"
_FIND: Final = f"""
FROM (VALUES {{}}) AS v CROSS JOIN events AS e INDEXED BY events_by_chunk
ON {CHUNK_OF.format(id="e.id")} = {CHUNK_WITH.format(life="?1", offset="v.column1")}
AND e.life = ?1 AND e.offset = v.column1
WHERE e.body IS NOT NULL
"""
_REPLACE: Final = f"UPDATE events SET body = ?3 WHERE id IN (SELECT e.id {_FIND.format('(?2)')})"
# A chunk's others are found by its first, so that stays and is empty.
_EMPTY: Final = f"UPDATE events SET body = NULL WHERE id & 1 AND id IN (SELECT e.id {_FIND})"
_REMOVE: Final = f"DELETE FROM events WHERE NOT id & 1 AND id IN (SELECT e.id {_FIND})"
_FORGET: Final = "DELETE FROM records WHERE life = ? AND key = ? AND value = ?"
_FOUND: Final = f"SELECT e.offset, e.body {_FIND}"
_RECORD: Final = "SELECT value FROM records WHERE life = ? AND key = ?"


def statements(life: Life, write: Compact, max_variables: int) -> Iterator[Statement]:
    """The changes, every statement within the limit of bound variables."""
    number, tail = life.number, life.standing.tail
    if write.remove and max(write.remove) >= tail:
        yield _KEEP_TAIL, (number, tail)
    for offset, body in write.replace.items():
        yield _REPLACE, (number, offset, body)
    for part in _parts(write.remove, max_variables - 1):
        for statement in (_REMOVE, _EMPTY):
            yield statement.format(_rows(part)), (number, *part)
    yield from set_records({(number, key): value for key, value in write.records.items()}, max_variables)
    for key, value in write.forget.items():
        yield _FORGET, (number, key, value)


def stands(connection: sqlite3.Connection, life: Life, write: Compact) -> bool:
    """Whether the log is as ``write`` wants it."""
    offsets = [*write.replace, *write.remove]
    for part in _parts(offsets, connection.getlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER) - 1):
        found = connection.execute(_FOUND.format(_rows(part)), (life.number, *part))
        if any(write.replace.get(offset) != body for offset, body in found):
            return False
    for key, value in write.records.items():
        row = connection.execute(_RECORD, (life.number, key)).fetchone()
        if (None if row is None else row[0]) != value:
            return False
    return True


def _rows(offsets: Sequence[int]) -> str:
    """``(?2),(?3)…``, behind the life, which is ?1."""
    return ",".join(f"(?{number})" for number in range(2, len(offsets) + 2))


def _parts(offsets: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    return (offsets[start : start + size] for start in range(0, len(offsets), size))
