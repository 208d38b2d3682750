"""What one transaction changes, worked out before SQLite hears of it.

Owns the bookkeeping: writes are taken one by one, each against what the ones before it leave behind, and come
out as a handful of statements for all sessions together. Few statements matter more than cheap ones: SQLite's
module gives up the interpreter lock around each step and, beside a busy loop, waits up to 5 ms to get it back (1000
interleaved sessions, 1000 events a commit: 431 events/s with a statement per row, 8 k with
one per 256 rows in a transaction, 99 k with a single statement that is its own transaction).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain, count, repeat
from typing import Final, NamedTuple, TypeAlias, final

from ...errors import PenstockError
from ..fence import Standing, admit
from ..port import Append, Claim, Delete, Keep, Move
from .layout import CHUNK

__all__ = ["DELETED_PURGED", "Life", "Plan", "Statement", "Value", "set_records"]

Value: TypeAlias = "int | str | bytes | None"
Statement: TypeAlias = tuple[str, Sequence[Value]]

LIVING: Final = 0
DELETED: Final = 1
DELETED_PURGED: Final = 2

_EVENTS = "INSERT INTO events (id, life, offset, body) SELECT * FROM (VALUES "
_EVENTS_GIVEN = ") WHERE column1 IS NOT NULL"
_SESSIONS = "INSERT INTO sessions (life, session, epoch, tail, token, ended, owner) VALUES "
_SESSIONS_KNOWN = (
    " ON CONFLICT (life) DO UPDATE"
    " SET epoch = excluded.epoch, tail = excluded.tail, token = excluded.token, ended = excluded.ended,"
    " owner = excluded.owner"
)
_RECORDS = "INSERT INTO records (life, key, value) VALUES "
_RECORDS_KNOWN = " ON CONFLICT (life, key) DO UPDATE SET value = excluded.value"
_UNRECORD = "DELETE FROM records WHERE (life, key) IN (VALUES "
_SUMMARIES = "INSERT INTO summaries (life, session, place, body) VALUES "
_SUMMARIES_KNOWN = (
    " ON CONFLICT (life) DO UPDATE SET session = excluded.session, place = excluded.place, body = excluded.body"
)
_UNSUMMARIZE = "DELETE FROM summaries WHERE life IN (VALUES "

# One statement holds a whole round of ordinary size and still parses in a millisecond.
_MAX_ROWS: Final = 4096

# How many rows a statement with events has: the next of these, the rest left empty. So there are a few statements, each
# parsed once, where nearly every round had one of its own (a seventh of what a round of a thousand events takes).
_ROWS: Final = sorted(rows for power in range(13) for rows in (1 << power, 3 << power) if rows <= _MAX_ROWS)


@final
class Life(NamedTuple):
    """One life of a session: its number in the database, where it stands, and the last chunk that has events of it."""

    number: int
    standing: Standing
    chunk: int | None


@final
class Plan:
    """The changes of the writes taken so far.

    ``changed`` has the lives they leave behind, ``records`` the values by life and key, None where one goes. Events
    are numbered in the order they come, the next one is ``next_row``.
    """

    def __init__(self, known: Mapping[str, Life], new_number: Callable[[], int], next_row: int) -> None:
        self._known = known
        self._new_number = new_number
        self.next_row = next_row
        self.changed: dict[str, Life] = {}
        self.records: dict[tuple[int, str], bytes | None] = {}
        self.events = 0
        self._events: list[Value] = []
        self._sessions: dict[int, tuple[Value, ...]] = {}
        self._summaries: dict[int, tuple[Value, ...]] = {}  # by life; empty where it goes

    def take(self, write: Move) -> PenstockError | None:
        """Add this write, or say why it must not land; then it leaves no trace."""
        session_id = write.session_id
        life = self.changed.get(session_id) or self._known.get(session_id)
        before = life.standing if life is not None else None
        after = admit(before, write)
        if not isinstance(after, Standing):
            return after
        if life is None or before is None or (isinstance(write, Append) and write.create):
            if life is not None and before is not None:
                # No longer the tombstone: to be purged as a whole. Before the new row, for the index's sake.
                self._sessions[life.number] = _row(life, session_id, DELETED)
            life = Life(self._new_number(), after, None)
            before = None
        else:
            life = Life(life.number, after, life.chunk)
        if before is None or before.token != after.token or after.deleted or not _has_content(write):
            self._sessions[life.number] = _row(life, session_id, DELETED if after.deleted else LIVING)
        if isinstance(write, Delete):
            self._summaries[life.number] = ()
        elif isinstance(write, Append | Keep | Claim):
            records = write.record(after.tail) if isinstance(write, Claim) else write.records
            for key, value in records.items():
                self.records[life.number, key] = value
        if isinstance(write, Append):
            life = life._replace(chunk=self._add(life, write.expected_tail + 1, write.events))
            if write.summary is not None:
                self._summaries[life.number] = (life.number, session_id, -write.summary.rank, write.summary.body)
        self.changed[session_id] = life
        return None

    def _add(self, life: Life, offset: int, events: Sequence[bytes]) -> int | None:
        """The rows of these events, the first of which has that offset; the chunk of the last."""
        chunk = life.chunk
        while events:
            into = self.next_row // CHUNK
            here = events[: (into + 1) * CHUNK - self.next_row]
            ids = chain((2 * self.next_row + (into != chunk),), count(2 * self.next_row + 2, 2))
            self._events.extend(chain.from_iterable(zip(ids, repeat(life.number), count(offset), here, strict=False)))
            self.next_row += len(here)
            self.events += len(here)
            offset += len(here)
            events = events[len(here) :]
            chunk = into
        return chunk

    def statements(self, max_variables: int) -> Iterator[Statement]:
        """The changes as SQL, every statement within the limit of bound variables."""
        sessions: list[Value] = list(chain.from_iterable(self._sessions.values()))
        yield from _by_rows(_SESSIONS, 7, sessions, _SESSIONS_KNOWN, max_variables)
        yield from _by_rows(_EVENTS, 4, self._events, _EVENTS_GIVEN, max_variables, _ROWS)
        yield from set_records(self.records, max_variables)
        if self._summaries:
            gone: list[Value] = [life for life, row in self._summaries.items() if not row]
            yield from _by_rows(_UNSUMMARIZE, 1, gone, ")", max_variables)
            rows: list[Value] = list(chain.from_iterable(self._summaries.values()))
            yield from _by_rows(_SUMMARIES, 4, rows, _SUMMARIES_KNOWN, max_variables)


def set_records(records: Mapping[tuple[int, str], bytes | None], max_variables: int) -> Iterator[Statement]:
    """These records, by life and key, as SQL; None where one goes."""
    kept: list[Value] = []
    removed: list[Value] = []
    for (life, key), value in records.items():
        if value is None:
            removed += (life, key)
        else:
            kept += (life, key, value)
    yield from _by_rows(_UNRECORD, 2, removed, ")", max_variables)
    yield from _by_rows(_RECORDS, 3, kept, _RECORDS_KNOWN, max_variables)


def _has_content(write: Move) -> bool:
    # An empty append is stored too: whoever asks for one learns whether anything can be.
    if isinstance(write, Append):
        return bool(write.events or write.records)
    return isinstance(write, Keep) and bool(write.records)


def _row(life: Life, session_id: str, ended: int) -> tuple[Value, ...]:
    at = life.standing
    return life.number, session_id, at.epoch, at.tail, at.token, ended, at.owner


def _by_rows(
    head: str, width: int, values: list[Value], end: str, max_variables: int, sizes: Sequence[int] = ()
) -> Iterator[Statement]:
    """Statements of so many rows as there are, or filled up to the next of ``sizes`` with empty ones."""
    step = min(_MAX_ROWS, max_variables // width)
    row = "(" + ",".join("?" * width) + ")"
    for start in range(0, len(values), width * step):
        part = values[start : start + width * step] if len(values) > width * step else values
        rows = count = len(part) // width
        if sizes:
            rows = min(sizes[bisect_left(sizes, count)], step)
            part = [*part, *repeat(None, width * (rows - count))]
        yield head + ",".join(repeat(row, rows)) + end, part
