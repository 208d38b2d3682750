"""Rounds of writes: each is one call of a function in the store, carried out once however often it is called.

Rounds have numbers, and the store remembers what it said of the last one. So a round whose answer was lost is called
again, and one that comes late, behind another, changes nothing. And a store that does not remember a round which it has
answered went back: then all that it holds is put in doubt, before anything of the next round is carried out.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, assert_never, final

import psycopg
import trio

from ...errors import CorruptSession, PenstockError, WriteFailed
from ..fence import Standing, admit, admit_compact
from ..port import MOST, Append, Claim, Compact, Delete, Keep, Move, Release, Write
from .store import Store

__all__ = ["Writing"]

_COMPACT: Final = """
SELECT compact_{}(%s, %s, %s, %s, %s, %s::bigint[], %b::bytea[], %s::text[], %b::bytea[], %s::text[], %b::bytea[])
"""
_WRITE: Final = """
SELECT write_{}(
    %s, %s, %s,
    %s::text[], %s::text[], %s::text[], %s::bigint[], %s::bigint[], %s::bigint[], %s::text[], %s::text[],
    %s::bigint[], %b::bytea[],
    %s::integer[], %s::bigint[], %b::bytea[],
    %s::integer[], %s::text[], %b::bytea[]
)
"""


# So long the store remembers a round for certain: seconds. What is a day old is removed.
_REMEMBERED: Final = 12 * 3600.0

# What functions.sql says where it has lost one.
_LOST: Final = "PS002"


@final
class Writing:
    """One writer, which carries out one round at a time. ``version`` is that of the functions.

    ``doubt`` is called with the writer's name and the number of a round that the store has lost.
    """

    def __init__(self, store: Store, version: str, doubt: Callable[[uuid.UUID, int], Awaitable[None]]) -> None:
        self._store = store
        self._doubt = doubt
        self._compact = _COMPACT.format(version)
        self._write = _WRITE.format(version)
        self._writer = uuid.uuid4()
        self._number = 0
        self._answered = 0  # the last round that the store must remember, and when it was answered
        self._at = trio.current_time()

    async def carry_out(self, writes: Sequence[Write]) -> Sequence[PenstockError | None]:
        """As `lane.CarryOut`. A round without writes shows whether the store went back."""
        if not writes:
            await self._round([])
        refused = {
            place: _no_such(write)
            for place, write in enumerate(writes)
            if not isinstance(write, Keep | Compact) and write.token >= MOST
        }
        stored = iter(await self._store_all([write for place, write in enumerate(writes) if place not in refused]))
        return [refused[place] if place in refused else next(stored) for place in range(len(writes))]

    async def _store_all(self, writes: Sequence[Write]) -> Sequence[PenstockError | None]:
        if not writes:
            return []
        try:
            return await self._round(writes)
        except (psycopg.Error, ValueError) as error:
            if len(writes) == 1:
                return [_failure(writes[0], error)]
        # One of them is at fault, and must take no other with it.
        return [(await self._store_all([write]))[0] for write in writes]

    async def _round(self, writes: Sequence[Write]) -> Sequence[PenstockError | None]:
        self._number += 1
        order = sorted(range(len(writes)), key=lambda place: writes[place].session_id)
        ordered = [writes[place] for place in order]
        if ordered and isinstance(ordered[0], Compact):
            sql, arguments = self._compact, _arguments_of_compact(ordered[0])
        else:
            sql, arguments = self._write, _arguments(ordered)
        if trio.current_time() - self._at > _REMEMBERED:
            self._answered = 0
        while (verdicts := await self._call(sql, arguments)) is None:
            await self._doubt(self._writer, self._answered)
        self._answered, self._at = self._number, trio.current_time()
        told = [_refusal(write, verdict) for write, verdict in zip(ordered, verdicts, strict=True)]
        return [error for _, error in sorted(zip(order, told, strict=True), key=lambda each: each[0])]

    async def _call(self, sql: str, arguments: Sequence[Any]) -> Sequence[str | None] | None:
        """The verdicts; None where the store does not remember what it has answered."""
        values = [self._writer, self._number, self._answered, *arguments]
        try:
            (verdicts,) = await self._store.write(lambda link: link.execute(sql, values).fetchone() or ([],))
        except psycopg.Error as error:
            if error.sqlstate == _LOST:
                return None
            raise
        told: Sequence[str | None] = verdicts
        return told


def _arguments(writes: Sequence[Write]) -> list[list[Any]]:
    """In the order of the function's parameters: of each write, of each event, of each record."""
    moves: list[tuple[Any, ...]] = []
    events: list[tuple[int, int, bytes]] = []
    records: list[tuple[int, str, bytes | None]] = []
    for place, write in enumerate(writes, 1):
        session_id = write.session_id
        match write:
            case Append():
                kind, tail, count = "create" if write.create else "append", write.expected_tail, len(write.events)
                rank, body = (None, None) if write.summary is None else (-write.summary.rank, write.summary.body)
                moves.append((kind, session_id, write.epoch, write.token, tail, count, write.owner, None, rank, body))
                events += ((place, offset, body) for offset, body in enumerate(write.events, tail + 1))
            case Keep():
                moves.append(("keep", session_id, write.epoch, *[None] * 7))
            case Claim():
                claim = (write.token, write.seen, None, write.owner, write.anew)
                moves.append(("claim", session_id, write.epoch, *claim, None, write.said))
            case Release():
                moves.append(("release", session_id, None, write.token, None, None, write.owner, *[None] * 3))
            case Delete():
                kind = "force" if write.forced else "delete"
                moves.append((kind, session_id, write.epoch, write.token, *[None] * 6))
            case Compact():
                raise TypeError("a Compact makes a round alone")
            case _:
                assert_never(write)
        if isinstance(write, Append | Keep):
            records += ((place, key, value) for key, value in write.records.items())
    return [*_columns(moves, 10), *_columns(events, 3), *_columns(records, 3)]


def _arguments_of_compact(write: Compact) -> list[Any]:
    bodies: list[tuple[int, bytes | None]] = [*write.replace.items(), *((offset, None) for offset in write.remove)]
    records, forgotten = list(write.records.items()), list(write.forget.items())
    return [write.session_id, write.epoch, *_columns(bodies, 2), *_columns(records, 2), *_columns(forgotten, 2)]


def _columns(rows: Sequence[tuple[Any, ...]], count: int) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)] if rows else [[] for _ in range(count)]


def _refusal(write: Write, verdict: str | None) -> PenstockError | None:
    if verdict is None:
        return None
    found = json.loads(verdict)
    standing = Standing(*found) if found else None
    told = admit_compact(standing, write) if isinstance(write, Compact) else admit(standing, write)
    if isinstance(told, PenstockError):
        return told
    # functions.sql and `fence` do not agree: a mistake in one of them.
    return WriteFailed("the store refused what it should have taken", session_id=write.session_id)


def _no_such(write: Move) -> PenstockError:
    told = admit(None, write)
    assert isinstance(told, PenstockError)
    return told


def _failure(write: Write, error: Exception) -> PenstockError:
    if isinstance(error, psycopg.IntegrityError) or (getattr(error, "sqlstate", None) or "").startswith("XX"):
        return CorruptSession(f"what is stored of it stands in the way: {error}", session_id=write.session_id)
    return WriteFailed(f"it cannot be stored: {error}", session_id=write.session_id)
