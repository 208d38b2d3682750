"""Reading an SQLite log: a few connections of its own, each read one statement in a thread.

Owns the reads of `SqliteLog`, and of a log that is only looked at (`reader`). What a read finds is one statement's, so
that it is of one committed state of the database.
"""

from __future__ import annotations

import contextlib
import math
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice, repeat
from typing import Final, TypeVar

import trio

from ...errors import CorruptSession, StaleEpoch, StorageError
from ..fence import life_over
from ..port import Entry, EventLog, Head, check_plain_key, head_of
from .database import explain, is_damaged
from .layout import FIRST_UP_TO, OF_CHUNK, TAIL

__all__ = ["PATIENCE", "READERS", "SqliteReads"]

_T = TypeVar("_T")
_K = TypeVar("_K")
_V = TypeVar("_V")

# `Entry._make`, without Python code of its own for every event.
_entry: Final[Callable[[type[Entry], tuple[int, bytes]], Entry]] = tuple.__new__

# A read takes a fraction of a millisecond; more threads than this only fight over the interpreter.
READERS: Final = 4

# A page is read in milliseconds, and on a slow disk, each event of it at another place, in some seconds. After so many
# the disk hangs: whoever waits for the read, a session's steps above all, goes on without it.
PATIENCE: Final = 30.0

# Behind every id that begins with what stands before it; and before every place of a summary.
_BEHIND_ALL: Final = "\U0010ffff"
_FIRST: Final = -(2**63)

# Lives that one statement asks for at most.
_AT_ONCE: Final = 1000

# What is small, in parts of what each event of a full page has room for: at most twice too much is fetched at once.
_SMALL: Final = 2

# Up to so many sessions of one prefix are sorted for a page. Where there are more, a page of them is found sooner among
# all sessions, in their order.
_SORTED: Final = 100_000

_HEAD_COLUMNS = f"s.session, s.epoch, {TAIL}, s.token, s.ended, s.owner, -v.place, v.body"
_HEAD = f"""
SELECT {_HEAD_COLUMNS}
FROM sessions AS s LEFT JOIN summaries AS v ON v.life = s.life
"""
_HEAD_OF = _HEAD + "WHERE s.session = ? ORDER BY s.ended = 0 DESC, s.life DESC LIMIT 1"
_LIVING_HEADS = (
    _HEAD.replace("sessions AS s", "sessions AS s INDEXED BY sessions_living")
    + "WHERE s.ended = 0 AND s.session > ? ORDER BY s.session"
)
# A page of lives in order of their places, by either index: all in order, or those of a prefix, to be sorted.
_RANKED = """
SELECT life, place, session FROM summaries INDEXED BY {}
WHERE (place, session) > (:place, :behind) AND session >= :prefix AND session < :end
ORDER BY place, session LIMIT :limit
"""
_RANKED_OF_ALL = _RANKED.format("summaries_by_place")
_RANKED_OF_FEW = _RANKED.format("summaries_by_id")
_HOW_MANY = f"""
SELECT count(*) FROM (
    SELECT 1 FROM summaries INDEXED BY summaries_by_id WHERE session >= :prefix AND session < :end LIMIT {_SORTED + 1}
)
"""
_HEADS_OF_LIVES = f"""
SELECT {_HEAD_COLUMNS} FROM (VALUES {{}}) AS w
CROSS JOIN sessions AS s ON s.life = w.column2 CROSS JOIN summaries AS v ON v.life = s.life
WHERE s.ended = 0 ORDER BY w.column1
"""

# With a LEFT JOIN, no row: this life is over. One row of NULLs: it has nothing of the kind.
_LIVING = "WHERE s.session = ? AND s.epoch = ? AND s.ended = 0"
# Chunk by chunk, from the one on that may have the next event. No row: nothing is behind it, or this life is over.
_BEHIND = f"""
FROM sessions AS s
CROSS JOIN {OF_CHUNK} AND f.life = s.life AND e.offset > :after
WHERE s.session = :session AND s.epoch = :epoch AND s.ended = 0
AND f.id & 1 AND f.offset >= {FIRST_UP_TO.format(life="s.life", offset=":after + 1")} AND e.body IS NOT NULL
ORDER BY f.offset, e.offset LIMIT :limit
"""
_READ = f"SELECT e.offset, e.body {_BEHIND}"
# The same, with NULL for every body above a size: what is left may be fetched at once, however large the others are.
_READ_SMALL = f"SELECT e.offset, CASE WHEN length(e.body) <= :most THEN e.body END {_BEHIND}"
_IS_LIVING = "SELECT 1 FROM sessions AS s WHERE s.session = :session AND s.epoch = :epoch AND s.ended = 0"
_RECORDS = f"""
SELECT r.key, r.value FROM sessions AS s LEFT JOIN records AS r ON r.life = s.life AND r.key >= ?
{_LIVING} ORDER BY r.key
"""
_RECORD = f"""
SELECT r.value FROM sessions AS s LEFT JOIN records AS r ON r.life = s.life AND r.key = ?
{_LIVING}
"""
_LIVING_OF = f"""
SELECT {_HEAD_COLUMNS} FROM (VALUES {{}}) AS w
CROSS JOIN sessions AS s INDEXED BY sessions_living ON s.session = w.column1 AND s.ended = 0
LEFT JOIN summaries AS v ON v.life = s.life
"""
# One row for each that is asked for: without a life, where that is over.
_EACH_RECORD = """
SELECT w.column1, s.life, r.value FROM (VALUES {}) AS w
LEFT JOIN sessions AS s ON s.session = w.column2 AND s.epoch = w.column3 AND s.ended = 0
LEFT JOIN records AS r ON r.life = s.life AND r.key = ?
"""
_HOLDERS = """
SELECT s.session, r.value FROM records AS r INDEXED BY records_plain CROSS JOIN sessions AS s ON s.life = r.life
WHERE r.key = ? AND instr(r.key, '/') = 0 AND s.ended = 0 AND s.session > ? ORDER BY s.session
"""
_OWNED = """
SELECT DISTINCT s.session FROM records AS r INDEXED BY records_plain CROSS JOIN sessions AS s ON s.life = r.life
WHERE r.key IN ({}) AND instr(r.key, '/') = 0 AND s.ended = 0 AND s.owner = ? AND s.session > ? ORDER BY s.session
"""


class SqliteReads(EventLog):
    """The reads, over ``connections`` that this object owns from now on. To be derived; writing is not its matter."""

    def __init__(self, connections: list[sqlite3.Connection]) -> None:
        self._connections = connections
        self._count = len(connections)
        self._reading = trio.CapacityLimiter(len(connections))
        self._closing = False

    async def head(self, session_id: str) -> Head | None:
        def query(connection: sqlite3.Connection) -> Head | None:
            row = connection.execute(_HEAD_OF, (session_id,)).fetchone()
            return None if row is None else _head(*row)

        return await self._query(query, session_id)

    async def read(self, session_id: str, epoch: str, *, after: int, limit: int, max_bytes: int) -> list[Entry]:
        wanted = {
            "session": session_id,
            "epoch": epoch,
            "after": after,
            "limit": limit,
            "most": _SMALL * max_bytes // limit,
        }

        def query(connection: sqlite3.Connection) -> list[Entry]:
            page = _small_ones(connection) or _as_many_as_fit(connection)
            if not page and connection.execute(_IS_LIVING, wanted).fetchone() is None:
                raise life_over(session_id)
            return page

        def _small_ones(connection: sqlite3.Connection) -> list[Entry]:
            """The page, if no large event is in it; fetched at once it takes half the time."""
            rows = connection.execute(_READ_SMALL, wanted).fetchall()
            size = 0
            for count, (_, body) in enumerate(rows):
                if body is None:
                    return []
                size += len(body)
                if size > max_bytes:
                    return list(map(_entry, repeat(Entry), rows[:count]))
            return list(map(_entry, repeat(Entry), rows))

        def _as_many_as_fit(connection: sqlite3.Connection) -> list[Entry]:
            page: list[Entry] = []
            size = 0
            with contextlib.closing(connection.execute(_READ, wanted)) as rows:
                for offset, body in rows:
                    size += len(body)
                    if page and size > max_bytes:
                        break
                    page.append(Entry(offset, body))
            return page

        return await self._query(query, session_id)

    async def records(self, session_id: str, epoch: str, prefix: str = "") -> dict[str, bytes]:
        def query(connection: sqlite3.Connection) -> dict[str, bytes]:
            found: dict[str, bytes] = {}
            with contextlib.closing(connection.execute(_RECORDS, (prefix, session_id, epoch))) as rows:
                for key, value in _of_living(rows, session_id):
                    if not key.startswith(prefix):
                        break
                    found[key] = value
            return found

        return await self._query(query, session_id)

    async def record(self, session_id: str, epoch: str, key: str) -> bytes | None:
        def query(connection: sqlite3.Connection) -> bytes | None:
            row = connection.execute(_RECORD, (key, session_id, epoch)).fetchone()
            if row is None:
                raise life_over(session_id)
            value: bytes | None = row[0]
            return value

        return await self._query(query, session_id)

    async def holders(self, key: str, *, after: str = "", limit: int = 1000) -> list[tuple[str, bytes]]:
        check_plain_key(key)

        def query(connection: sqlite3.Connection) -> list[tuple[str, bytes]]:
            with contextlib.closing(connection.execute(_HOLDERS, (key, after))) as rows:
                return list(islice((row for row in rows if _is_name(row[0])), limit))

        return await self._query(query)

    async def owned(self, owner: str, *, having: Sequence[str], after: str = "", limit: int = 1000) -> list[str]:
        for key in having:
            check_plain_key(key)
        sql = _OWNED.format(",".join("?" * len(having)))

        def query(connection: sqlite3.Connection) -> list[str]:
            with contextlib.closing(connection.execute(sql, (*having, owner, after))) as rows:
                return list(islice((name for (name,) in rows if _is_name(name)), limit))

        return await self._query(query)

    async def heads(self, *, after: str = "", limit: int = 100) -> list[Head]:
        def query(connection: sqlite3.Connection) -> list[Head]:
            with contextlib.closing(connection.execute(_LIVING_HEADS, (after,))) as rows:
                return list(islice((_head(*row) for row in rows if _is_name(row[0])), limit))

        return await self._query(query)

    async def ranked(self, *, prefix: str = "", behind: tuple[int, str] | None = None, limit: int = 100) -> list[Head]:
        wanted: dict[str, int | str] = {"prefix": prefix, "end": prefix + _BEHIND_ALL, "place": _FIRST, "behind": ""}
        if behind is not None:
            wanted["place"], wanted["behind"] = -behind[0], behind[1]

        def query(connection: sqlite3.Connection) -> list[Head]:
            few = bool(prefix) and connection.execute(_HOW_MANY, wanted).fetchone()[0] <= _SORTED
            found: list[Head] = []
            while (missing := limit - len(found)) > 0:
                page = connection.execute(
                    _RANKED_OF_FEW if few else _RANKED_OF_ALL, {**wanted, "limit": missing}
                ).fetchall()
                found += _heads_of(connection, [life for life, _, _ in page])
                if len(page) < missing:
                    break
                _, wanted["place"], wanted["behind"] = page[-1]  # of those that are damaged there is no head
            return found

        def of_one_state(connection: sqlite3.Connection) -> list[Head]:
            """Else a session that moves between the statements stands at two places, or at none."""
            connection.execute("BEGIN")
            try:
                return query(connection)
            finally:
                connection.rollback()

        return await self._query(of_one_state)

    async def living(self, session_ids: Sequence[str]) -> dict[str, Head]:
        def query(connection: sqlite3.Connection) -> dict[str, Head]:
            found: dict[str, Head] = {}
            for part, rows in _parts(connection, session_ids, 1):
                found.update((row[0], _head(*row)) for row in connection.execute(_LIVING_OF.format(rows), part))
            return found

        return await self._query(query)

    async def each_record(
        self, key: str, lives: Sequence[tuple[str, str]], *, max_bytes: float
    ) -> list[bytes | StaleEpoch | CorruptSession | None]:
        def query(connection: sqlite3.Connection) -> list[bytes | StaleEpoch | CorruptSession | None]:
            found: list[bytes | StaleEpoch | CorruptSession | None] = []
            left = max_bytes
            for part, rows in _parts(connection, lives, 3):
                asked = [each for number, life in enumerate(part, len(found)) for each in (number, *life)]
                with contextlib.closing(connection.execute(_EACH_RECORD.format(rows), (*asked, key))) as answers:
                    for (number, life, value), (session_id, _) in zip(answers, part, strict=True):
                        if number != len(found):
                            raise ValueError("not in order")  # sorted, all of them would be read at once
                        left -= len(value or b"")
                        if found and left < 0:
                            return found
                        found.append(life_over(session_id) if life is None else value)
            return found

        try:
            return await self._query(query)
        except (StorageError, TypeError, ValueError) as error:
            if isinstance(error, StorageError) and not is_damaged(error.__cause__):
                raise
            # Which of them is damaged they tell one by one.
            return await super().each_record(key, lives, max_bytes=max_bytes)

    async def _retire(self) -> None:
        """Close the connections, once nobody reads; to be called once, with ``_closing`` set."""
        # Those in use come back by themselves. Places are given in the order they were asked for, so no read waits
        # behind us that began before the log was closing.
        askers = [object() for _ in range(self._count)]
        for asker in askers:
            await self._reading.acquire_on_behalf_of(asker)
            self._connections.pop().close()
        for asker in askers:
            self._reading.release_on_behalf_of(asker)

    async def _query(
        self, query: Callable[[sqlite3.Connection], _T], session_id: str | None = None, *, within: float | None = None
    ) -> _T:
        """Carry it out in a thread. ``session_id``: it reads what is stored of this one session.

        After ``within`` seconds (`PATIENCE`) the thread is left behind, with its connection, which comes back when it
        is done. Raises `StorageError` then.
        """
        patience = PATIENCE if within is None else within

        def run() -> _T:
            if self._closing:
                raise StorageError("the log is closed")
            connection = self._connections.pop()
            try:
                return query(connection)
            finally:
                self._connections.append(connection)

        try:
            with trio.move_on_after(patience):
                return await trio.to_thread.run_sync(run, abandon_on_cancel=patience < math.inf, limiter=self._reading)
        except sqlite3.Error as error:
            if session_id is not None and is_damaged(error):
                raise CorruptSession(f"the file is damaged where it lies: {error}", session_id=session_id) from error
            raise StorageError(f"cannot read: {explain(error)}") from error
        except (TypeError, ValueError, AttributeError) as error:
            # There is something of another kind in the rows than was ever written to them.
            if session_id is None:
                raise
            raise CorruptSession(f"its rows cannot be read: {error}", session_id=session_id) from error
        raise StorageError(f"cannot read: the disk has not answered for {patience:.0f} s")


def _head(
    session_id: str,
    epoch: object,
    tail: object,
    token: object,
    ended: object,
    owner: object,
    rank: object,
    body: object,
) -> Head:
    return head_of(session_id, epoch, tail, token, deleted=ended != 0, owner=owner, rank=rank, body=body)


def _heads_of(connection: sqlite3.Connection, lives: Sequence[int]) -> list[Head]:
    """In that order; none of one that is damaged."""
    found: list[Head] = []
    for part, rows in _parts(connection, lives, 2):
        asked = [each for numbered in enumerate(part) for each in numbered]
        heads = (_head(*row) for row in connection.execute(_HEADS_OF_LIVES.format(rows), asked) if _is_name(row[0]))
        found += (head for head in heads if head.summary is not None)
    return found


def _parts(connection: sqlite3.Connection, all_: Sequence[_V], width: int) -> Iterator[tuple[Sequence[_V], str]]:
    """As many at a time as one statement has room for, and the rows of ``width`` variables that these are in it."""
    room = (connection.getlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER) - 1) // width  # one for what is not theirs
    row = f"({','.join('?' * width)})"
    for start in range(0, len(all_), min(_AT_ONCE, room)):
        part = all_[start : start + min(_AT_ONCE, room)]
        yield part, ",".join(repeat(row, len(part)))


def _is_name(value: object) -> bool:
    """Whether a session can be asked for by this. None that was ever written cannot."""
    return isinstance(value, str) and "\ufffd" not in value


def _of_living(rows: Iterable[tuple[_K, _V]], session_id: str) -> Iterator[tuple[_K, _V]]:
    """What a life has, read with a LEFT JOIN. Raises `StaleEpoch` when the life is not there."""
    over = True
    for row in rows:
        over = False
        if row[0] is not None:
            yield row
    if over:
        raise life_over(session_id)
