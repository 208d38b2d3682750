"""Compaction: the events of old messages' blocks give way to the messages' whole content, piece by piece.

Owns when and in which steps; what is compacted is `compacting`'s. Works on a log alone, with no session in memory,
and goes on from wherever it was interrupted. Every step leaves a log that folds to the same state: first the last
block event of a message is replaced by the whole, which says all that those before it do, then these go from the back
to the front.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Final, final

import trio
from attrs import frozen

from ..config import Config
from ..errors import CorruptSession, PenstockError, StaleEpoch, WriteFailed
from ..log.port import Compact, EventLog, Head
from ..rules.compacting import Compaction, Scan, seconds_of
from ..rules.records import (
    COMPACTED,
    DIRTY,
    OPEN,
    CompactedRecord,
    DirtyRecord,
    OpenRecord,
    read_record,
    to_record,
)
from ..stream.aside import SetsAside, check_page, reading, reading_event, reading_in_bits, sound
from ..stream.slices import in_slices

__all__ = ["CompactionStatistics", "Compactor", "Progress"]

logger = logging.getLogger("penstock.compaction")

# Events that one write removes: an append that comes meanwhile waits for it, half a millisecond (256: 0.6 to 3 ms).
_PIECE: Final = 64

# A page is decoded in slices: while one is, nothing else runs in the loop, nor does the writer thread's Python.
_PAGE: Final = 32
_SLICE: Final = 8

# In the background, a rest of this many times what the last page or piece took. With all of this, a neighbour that
# streams 100 events/s sees its p99 go from 0.9 to 1.3 ms, and 1800 events/s are compacted (measured; with pieces of
# 256, pages of 128 and a rest of 3 it was 2.5 ms, and 7000 events/s).
_REST: Final = 5.0

# The background walk over what is due: at least this far apart (a share of `compact_after`), within these seconds.
_WALK_SHARE: Final = 0.01
_WALK_LEAST: Final = 1.0
_WALK_MOST: Final = 60.0

# How many sessions one read of the index gives.
_SESSIONS: Final = 200


@final
@frozen(kw_only=True)
class CompactionStatistics:
    """Since the compactor was made: messages compacted, and events that went."""

    messages: int
    events: int


@final
@frozen(kw_only=True)
class Progress:
    """How far `Compactor.compact_all` is, in offsets over all sessions; ``total`` is what was there at its start."""

    done: int
    total: int


@final
class Compactor:
    """Compacts what a log holds.

    Only messages that were closed more than `Config.compact_after` seconds ago, by the events' own time, and only
    of generations that have ended: recovery reads the events of one that is live. ``wall`` is the clock, in seconds
    since 1970. `run` looks only at sessions of whose ids ``mine`` is true. A session that cannot be read is passed
    over: ``aside`` hears of it, or the log.
    """

    def __init__(
        self,
        log: EventLog,
        config: Config,
        *,
        aside: SetsAside | None = None,
        mine: Callable[[str], bool] = lambda _: True,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._log = log
        self._config = config
        self._aside: SetsAside = _Passed() if aside is None else aside
        self._mine = mine
        self._wall = wall
        self._messages = 0
        self._events = 0

    def statistics(self) -> CompactionStatistics:
        return CompactionStatistics(messages=self._messages, events=self._events)

    async def run(self) -> None:
        """Compact what is due, rest until the next is, and so on until cancelled. Returns if it is switched off.

        Survives a store that fails: what could not be done is tried again later.
        """
        after = self._config.compact_after
        if after is None:
            return
        pause = min(_WALK_MOST, max(_WALK_LEAST, after * _WALK_SHARE))
        looked_at_all = self._wall()
        while True:
            now = self._wall()
            look_at_all = now - looked_at_all >= after
            if look_at_all:
                looked_at_all = now
            try:
                due = await self._walk(now, after, look_at_all=look_at_all)
            except PenstockError as error:
                logger.warning("compaction waits for the store: %s", error)
                due = now
            await trio.sleep(min(max(pause, due - self._wall()), max(pause, after)))

    async def compact_all(self, progress: Callable[[Progress], None] | None = None) -> CompactionStatistics:
        """Compact what is old enough in every session, without a rest; what it did.

        Raises `StorageError`, `WriteFailed`. Cancelled, or failed, it keeps what it has done.
        """
        after = self._config.compact_after
        messages, events = self._messages, self._events
        total = await self._extent() if progress is not None else 0
        done = 0

        def passed(offset: int) -> None:
            if progress is not None:
                progress(Progress(done=done + offset, total=max(total, done + offset)))

        last = ""
        while after is not None and (heads := await self._log.heads(after=last, limit=_SESSIONS)):
            for head in heads:
                with self._alone(head.session_id):
                    sound(head)
                    mark = await self._log.record(head.session_id, head.epoch, DIRTY)
                    await self._visit(head.session_id, mark, self._wall() - after, passed=passed, rest=0)
                done += head.tail
                passed(0)
            last = heads[-1].session_id
        return CompactionStatistics(messages=self._messages - messages, events=self._events - events)

    async def _extent(self) -> int:
        """The offsets of all sessions together."""
        total = 0
        last = ""
        while heads := await self._log.heads(after=last, limit=_SESSIONS):
            total += sum(head.tail for head in heads)
            last = heads[-1].session_id
        return total

    async def _walk(self, now: float, after: float, *, look_at_all: bool) -> float:
        """Compact in every session that is due; when the next will be.

        The index tells when a session's last generation ended. One that goes on and on is found by ``look_at_all``.
        """
        next_due = now + after
        last = ""
        while holders := await self._log.holders(DIRTY, after=last, limit=_SESSIONS):
            for session_id, mark in holders:
                if self._aside.is_aside(session_id) or not self._mine(session_id):
                    continue
                with self._alone(session_id):
                    with reading(session_id):
                        due = seconds_of(read_record(mark, DirtyRecord).time) + after
                    if due > now:
                        next_due = min(next_due, due)
                    if due <= now or look_at_all:
                        await self._visit(session_id, mark, now - after, passed=None, rest=_REST)
            last = holders[-1][0]
        return next_due

    @contextmanager
    def _alone(self, session_id: str) -> Iterator[None]:
        """What is wrong with this session keeps no other from being compacted."""
        try:
            yield
        except StaleEpoch:
            pass  # deleted meanwhile
        except CorruptSession as error:
            self._aside.set_aside(error)
        except WriteFailed as error:
            if error.whole:
                raise
            logger.warning("session %s is not compacted for now: %s", session_id, error)

    async def _visit(
        self,
        session_id: str,
        mark: bytes | None,
        before: float,
        *,
        passed: Callable[[int], None] | None,
        rest: float,
    ) -> None:
        """Compact in one session. ``mark`` is its record `DIRTY`, read before anything else.

        Raises `StaleEpoch` when it was deleted meanwhile, `CorruptSession` when it cannot be read.
        """
        log = self._log
        head = sound(await log.head(session_id))
        if head is None or head.deleted:
            return
        body = await log.record(session_id, head.epoch, COMPACTED)
        # After the head: what is live now began behind it, or is in this record.
        live = await log.record(session_id, head.epoch, OPEN)
        with reading(session_id):
            known = 0 if body is None else read_record(body, CompactedRecord).done
            until = head.tail if live is None else min(head.tail, read_record(live, OpenRecord).after)
        scan = Scan(after=known, before=before)
        position = known
        while position < until and not scan.ended:
            began = trio.current_time()
            entries = await log.read(
                session_id, head.epoch, after=position, limit=_PAGE, max_bytes=self._config.page_bytes
            )
            if not entries:
                break
            with reading(session_id):
                check_page(entries, position)
            for number, entry in enumerate(entries, 1):
                if entry.offset > until or scan.ended:
                    break
                if number % _SLICE == 0:
                    await trio.lowlevel.checkpoint()
                event = await in_slices(reading_in_bits(session_id, reading_event(entry)))
                with reading(session_id):
                    found = scan.take(event)
                if found:
                    known = await self._swap(head, found, scan.settled, rest)
            position = entries[-1].offset
            if passed is not None:
                passed(min(position, head.tail))
            await trio.sleep((trio.current_time() - began) * rest)
        await self._note(head, known, scan, mark)

    async def _swap(self, head: Head, found: Compaction, settled: int, rest: float) -> int:
        """Compact one message; how far the session is done then."""
        if found.content is None and not found.runs:
            return settled
        body = await in_slices(found.encoding())
        assert found.last.offset is not None
        replace = {} if body is None else {found.last.offset: body}
        left = found.events
        for piece in found.pieces(_PIECE):
            left -= len(piece)
            began = trio.current_time()
            write = Compact(
                session_id=head.session_id,
                epoch=head.epoch,
                replace=replace,
                remove=piece,
                records={COMPACTED: to_record(CompactedRecord(done=settled))} if not left else {},
            )
            with self._aside.rewriting(head.session_id):
                await self._log.write(write)
            self._events += len(piece)
            replace = {}
            await trio.sleep((trio.current_time() - began) * rest)
        self._messages += 1
        return settled

    async def _note(self, head: Head, known: int, scan: Scan, mark: bytes | None) -> None:
        """Remember how far the session is done, and that nothing is left if nothing is."""
        records: dict[str, bytes | None] = {}
        if scan.settled > known:
            records[COMPACTED] = to_record(CompactedRecord(done=scan.settled))
        forget = {DIRTY: mark} if mark is not None and not scan.ended else {}
        if records or forget:
            await self._log.write(Compact(session_id=head.session_id, epoch=head.epoch, records=records, forget=forget))


@final
class _Passed:
    """For one who compacts a log alone: the sessions that could not be read."""

    def __init__(self) -> None:
        self._sessions: set[str] = set()

    def is_aside(self, session_id: str) -> bool:
        return session_id in self._sessions

    def rewriting(self, _: str) -> AbstractContextManager[None]:
        return nullcontext()  # there is no reader

    def set_aside(self, error: CorruptSession) -> None:
        self._sessions.add(error.session_id or "")
        logger.warning("session %s is not compacted: %s", error.session_id, error)
