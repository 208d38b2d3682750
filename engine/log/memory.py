"""`MemoryLog`: the log of tests and of whoever needs no disk. Gone with the process.

Uses no thread, so it works under a mock clock that jumps. What is handed over in one turn of the loop is
carried out, and reported, in one go at its end.
"""

from __future__ import annotations

import bisect
import copy
import math
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from operator import attrgetter
from typing import final

import trio
from attrs import define, field

from ..errors import CorruptSession, PenstockError, StorageError, WriteFailed
from .fence import Standing, admit, admit_compact, life_over, went_back
from .port import (
    Append,
    Claim,
    Compact,
    Delete,
    Entry,
    EventLog,
    Head,
    Keep,
    LogStatistics,
    Report,
    Summary,
    Write,
    check_plain_key,
    head_of,
    tell,
)

__all__ = ["MemoryLog"]


@define
class _Life:
    standing: Standing
    entries: list[Entry] = field(factory=list)
    records: dict[str, bytes] = field(factory=dict)
    summary: Summary | None = None

    def head(self, session_id: str) -> Head:
        epoch, tail, token, deleted, owner, doubted = self.standing
        rank, body = self.summary or (None, None)
        return head_of(
            session_id, epoch, tail, token, deleted=deleted, owner=owner, doubted=doubted, rank=rank, body=body
        )


@final
class MemoryLog(EventLog):
    """Many sessions' logs in memory, without a bound."""

    def __init__(self) -> None:
        self._lives: dict[str, _Life] = {}
        self._waiting: list[tuple[Write, Report]] = []
        self._closed = False
        self._commits = 0
        self._events = 0
        self._failed = 0
        self._went_back = 0
        self._said: set[str] = set()  # sessions that were put in doubt alone since it last went back

    def submit(self, write: Write, report: Report) -> None:
        if not self._waiting:
            trio.lowlevel.current_trio_token().run_sync_soon(self._carry_out)
        self._waiting.append((write, report))

    def _carry_out(self) -> None:
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        waiting.sort(key=lambda handed: isinstance(handed[0], Compact))
        outcomes = [(report, self._write(write)) for write, report in waiting]
        self._commits += any(error is None for _, error in outcomes)
        for report, error in outcomes:
            tell(report, error)

    def _write(self, write: Write) -> PenstockError | None:
        if self._closed:
            self._failed += 1
            return WriteFailed("the log is closed", whole=True, session_id=write.session_id)
        life = self._lives.get(write.session_id)
        if isinstance(write, Compact):
            return self._compact(life, write)
        standing = admit(life.standing if life else None, write)
        if not isinstance(standing, Standing):
            return standing
        if life is None or standing.deleted or (isinstance(write, Append) and write.create):
            life = self._lives[write.session_id] = _Life(standing)
        life.standing = standing
        if isinstance(write, Delete):
            life.entries, life.records, life.summary = [], {}, None
            return None
        if isinstance(write, Append):
            life.entries.extend(map(Entry, range(write.expected_tail + 1, standing.tail + 1), write.events))
            self._events += len(write.events)
            life.summary = write.summary or life.summary
        if isinstance(write, Append | Keep):
            _set(life.records, write.records)
        elif isinstance(write, Claim):
            _set(life.records, write.record(standing.tail))
        return None

    def _compact(self, life: _Life | None, write: Compact) -> PenstockError | None:
        refusal = admit_compact(life.standing if life else None, write)
        if refusal is not None or life is None:
            return refusal
        for offset, body in write.replace.items():
            place = _place(life.entries, offset)
            life.entries[place : place + 1] = [
                Entry(offset, body) if entry.offset == offset else entry for entry in life.entries[place : place + 1]
            ]
        if write.remove:
            gone = set(write.remove)
            first, last = _place(life.entries, min(gone)), _place(life.entries, max(gone) + 1)
            life.entries[first:last] = [entry for entry in life.entries[first:last] if entry.offset not in gone]
        _set(life.records, write.records)
        for key, value in write.forget.items():
            if life.records.get(key) == value:
                del life.records[key]
        return None

    async def head(self, session_id: str) -> Head | None:
        await self._reading()
        life = self._lives.get(session_id)
        return None if life is None else life.head(session_id)

    async def read(self, session_id: str, epoch: str, *, after: int, limit: int, max_bytes: int) -> list[Entry]:
        entries = (await self._living(session_id, epoch)).entries
        page: list[Entry] = []
        size = 0
        try:
            start = _place(entries, after + 1)
            for entry in islice(entries, start, start + limit):
                size += len(entry.body)
                if page and size > max_bytes:
                    break
                page.append(entry)
        except TypeError as error:
            raise CorruptSession(f"its events cannot be read: {error}", session_id=session_id) from error
        return page

    async def records(self, session_id: str, epoch: str, prefix: str = "") -> dict[str, bytes]:
        records = (await self._living(session_id, epoch)).records
        return {key: records[key] for key in sorted(records) if key.startswith(prefix)}

    async def record(self, session_id: str, epoch: str, key: str) -> bytes | None:
        return (await self._living(session_id, epoch)).records.get(key)

    async def holders(self, key: str, *, after: str = "", limit: int = 1000) -> list[tuple[str, bytes]]:
        check_plain_key(key)
        await self._reading()
        holders = ((session_id, life.records[key]) for session_id, life in self._behind(after) if key in life.records)
        return list(islice(holders, limit))

    async def owned(self, owner: str, *, having: Sequence[str], after: str = "", limit: int = 1000) -> list[str]:
        for key in having:
            check_plain_key(key)
        await self._reading()
        living = (each for each in self._behind(after) if not each[1].standing.deleted)
        found = (
            session_id
            for session_id, life in living
            if life.standing.owner == owner and not life.records.keys().isdisjoint(having)
        )
        return list(islice(found, limit))

    async def heads(self, *, after: str = "", limit: int = 100) -> list[Head]:
        await self._reading()
        living = (life.head(session_id) for session_id, life in self._behind(after) if not life.standing.deleted)
        return list(islice(living, limit))

    async def ranked(self, *, prefix: str = "", behind: tuple[int, str] | None = None, limit: int = 100) -> list[Head]:
        await self._reading()
        place = (-math.inf, "") if behind is None else (-behind[0], behind[1])
        found = [
            ((-life.summary.rank, session_id), life)
            for session_id, life in self._lives.items()
            if life.summary is not None and session_id.startswith(prefix)
        ]
        ordered = sorted((at, life) for at, life in found if at > place)
        return [life.head(at[1]) for at, life in ordered[:limit]]

    async def doubt(self, missed: Head, *, proven: bool) -> bool:
        await self._reading()
        life = self._lives.get(missed.session_id)
        if life is None or life.standing.doubted or not went_back(life.standing, missed):
            return False
        if proven:
            self._put_in_doubt()
            return True
        if missed.session_id in self._said:
            return False
        self._said.add(missed.session_id)
        self._went_back += 1
        life.standing = life.standing._replace(doubted=True)
        return True

    async def doubt_all(self) -> bool:
        await self._reading()
        self._put_in_doubt()
        return True

    def _put_in_doubt(self) -> None:
        self._went_back += 1
        for life in self._lives.values():
            life.standing = life.standing._replace(doubted=not life.standing.deleted)
        self.on_went_back()

    def copied(self) -> Callable[[], None]:
        """What takes the log back to where it is now, as a store is that has lost what came since: for tests."""
        kept = copy.deepcopy(self._lives)

        def go_back() -> None:
            self._lives = copy.deepcopy(kept)
            self._said.clear()

        return go_back

    def statistics(self) -> LogStatistics:
        return LogStatistics(
            commits=self._commits,
            events=self._events,
            failed_writes=self._failed,
            waiting=len(self._waiting),
            commit_seconds=0.0,
            went_back=self._went_back,
        )

    async def aclose(self) -> None:
        self._carry_out()
        self._closed = True
        await trio.lowlevel.checkpoint()

    async def _reading(self) -> None:
        await trio.lowlevel.checkpoint()
        if self._closed:
            raise StorageError("the log is closed")

    async def _living(self, session_id: str, epoch: str) -> _Life:
        await self._reading()
        life = self._lives.get(session_id)
        if life is None or life.standing.deleted or life.standing.epoch != epoch:
            raise life_over(session_id)
        return life

    def _behind(self, after: str) -> list[tuple[str, _Life]]:
        return sorted((session_id, life) for session_id, life in self._lives.items() if session_id > after)


def _place(entries: Sequence[Entry], offset: int) -> int:
    """Where the entry with this offset stands, or the first behind it."""
    return bisect.bisect_left(entries, offset, key=attrgetter("offset"))


def _set(records: dict[str, bytes], changes: Mapping[str, bytes | None]) -> None:
    for key, value in changes.items():
        if value is None:
            records.pop(key, None)
        else:
            records[key] = value
