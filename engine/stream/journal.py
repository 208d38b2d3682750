"""One session's way into the log: stamped, then stored, then told.

Everything that is said in a session passes here: what its live producer writes, what its steps commit, what somebody
posts. All of them call `append` (or one of its kin below) from their own tasks. It does not wait, so the order of the
calls is the order of the session's events, and no lock is needed:

    producer    step    post
        │         │       │
        └─────────┼───────┘
                  ▼
             append(bodies, records)      stamped: each event has its offset; nobody outside can see it yet
                  │
             gathers here                 while a write of this session is under way
                  │
             _submit                      all that has gathered, as one write
                  ▼
             the log                      stored or refused, together with what other sessions have handed over
                  │
             _reported                    told: `committed` moves on, the hub publishes, who waited goes on

At most one write of a session is under way. What is stamped meanwhile gathers and becomes the next write. A session
that says little gets every event stored as fast as the disk can; one that says much gets few, long writes; and nobody
had to set a timer for it. How much may gather is bounded: `wait_room` is where a fast producer waits for a slow disk.
It is the only wait on the way of an event, and no reader can cause it.

A part is what one call hands over: its events and its records are stored together or not at all. Usually its bodies are
there when it is stamped. A step that retracts ten thousand messages cannot encode all of them in one slice of the loop:
it calls `reserve` for the offsets, encodes in slices, and calls `fill`. What is stamped behind it waits until then.

Taking over. Each write bears the epoch, a token and the offset behind which it belongs, and the log compares all three
before it appends, as in compare-and-swap (`log.fence`). Where engines share a log, whoever is to write in a session
claims it first, and gets the first token of a block that nobody had. Then it reads where the log stands, raises the
token, as every step does, within its block, and writes the end of what was live. What the former owner hands over later
is refused for good, with `StaleToken`: it steps down. That is between owners of a session. Producers of one owner all
write here, under its token; what stops a superseded one is the fence of its `GenerationWriter`, and behind that the
structure of its generation, which has finished. (`SqliteLog` keeps a second engine out by a lock on the file; one that
is alone claims nothing.)

When the log refuses a write, all that was stamped behind it is gone: its offsets go to others. The journal falls back
to the committed tail and begins a new life, a number that only this process knows. A `Mark` is an offset in one life,
so whoever waits for a mark of the former life learns that it was dropped, and cannot take a later event at the same
offset for its own. Nothing more is stamped until `restart`, which the session's repair calls once it has read where the
log stands.

Between stamped and stored lies the promise of durability: an answer to a caller, an event to a reader, a cursor, all
speak of what is committed. What is stamped is known to the session's own steps only, which is why some of them begin
with a wait for it.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import final

import trio
from attrs import frozen

from ..config import Config
from ..errors import CorruptSession, Moved, PenstockError, TimedOut, WriteFailed
from ..events import Cursor
from ..log.port import Append, Entry, EventLog, Head, Summary
from ..rules.listing import Listed, read_listed
from .budget import LARGE, Budget
from .bus import Bus
from .hub import Batch, Hub

__all__ = ["Journal", "Mark"]


@final
@frozen
class Mark:
    """A place in the session's own order: behind ``offset`` and so many parts without events, in one life of it.

    Those are counted because a part may hold records alone, and then offsets do not tell whether it is stored.
    """

    offset: int
    life: int
    without_events: int


@final
class Journal:
    """Stamps, gathers, submits, publishes. Synchronous but for its waits; never waits for a reader."""

    __slots__ = (
        "_bodies",
        "_budget",
        "_bus",
        "_closed",
        "_fell_back_to",
        "_half",
        "_half_bytes",
        "_held",
        "_hub",
        "_life",
        "_line",
        "_log",
        "_most_gathered",
        "_most_gathered_bytes",
        "_most_published",
        "_on_listed",
        "_on_refused",
        "_pending",
        "_pending_bytes",
        "_records",
        "_reserved",
        "_size",
        "_size_submitted",
        "_unlisted",
        "_waiting",
        "_without_events",
        "_without_events_stored",
        "_without_events_submitted",
        "committed",
        "epoch",
        "listed",
        "refused",
        "reporter",
        "session_id",
        "stamped",
        "token",
    )

    def __init__(
        self,
        log: EventLog,
        head: Head,
        *,
        hub: Hub,
        budget: Budget,
        config: Config,
        on_refused: Callable[[PenstockError], None],
        on_listed: Callable[[str], None],
        bus: Bus | None = None,
    ) -> None:
        self._log = log
        self._hub = hub
        self._budget = budget
        self._pending = config.session_pending
        self._pending_bytes = config.session_pending_bytes
        # As much may gather: else writes come out long and short in turns, and while a long one gathers, the disk has
        # nothing to do.
        self._half = max(1, self._pending // 2)
        self._half_bytes = max(1, self._pending_bytes // 2)
        self._most_published = config.subscriber_buffer
        self._line = budget.lines[False]  # by what its last write was
        self._on_refused = on_refused
        self._on_listed = on_listed
        self._bus = bus  # where other engines may follow the session
        self.reporter = hub.reporter
        self.session_id = head.session_id
        self.epoch = head.epoch
        self.committed = head.tail
        self.stamped = head.tail
        self.token = head.token
        self.listed = _listed(head)
        self._unlisted = False  # what is told in a list has changed, and is not handed to the log yet
        self.refused: PenstockError | None = None
        self._life = 0
        self._without_events = 0  # parts that were taken over, handed to the log, stored
        self._without_events_submitted = 0
        self._without_events_stored = 0
        self._fell_back_to = (0, 0)  # the offset, and so many of these parts, at which the life before this one ended
        self._bodies: list[bytes] = []
        self._records: dict[str, bytes | None] = {}
        self._size = 0  # of what has gathered
        self._size_submitted = 0
        self._held = 0  # why nothing is handed to the log: a write is under way, a part is not filled yet
        self._reserved: int | None = None  # where it belongs among those that have gathered
        self._closed = False
        self._waiting: trio.lowlevel.ParkingLot | None = None  # for the next report; made when somebody does
        self._most_gathered = self._half
        self._most_gathered_bytes = self._half_bytes

    @property
    def cursor(self) -> Cursor:
        """The committed tail: the only position that anybody outside may see."""
        return Cursor(self.epoch, self.committed)

    @property
    def clean(self) -> bool:
        return self.stamped == self.committed and not self._held and self.refused is None

    @property
    def full(self) -> bool:
        budget = self._budget
        return (
            len(self._bodies) >= self._most_gathered
            or self._size >= self._most_gathered_bytes
            or budget.used >= budget.limit
            or budget.bytes >= self._line.most_bytes
        )

    def raise_token(self) -> None:
        """Fence: from here on, the log takes this session's writes with the new token only."""
        self.token += 1

    def summarize(self, listed: Listed) -> None:
        """What lists tell of the session once the part that is appended next is stored; stored with it."""
        if listed is not self.listed:
            self.listed = listed
            self._unlisted = True

    def append(self, bodies: Sequence[bytes], records: Mapping[str, bytes | None] | None = None) -> Mark:
        """Take over events stamped ``stamped + 1 …``, with their records, as one indivisible part.

        Raises `WriteFailed` while the session is behind a refused write.
        """
        self.check()
        if not bodies and not records:
            return self.mark()
        size = sum(map(len, bodies))
        self.stamped += len(bodies)
        self._without_events += not bodies
        self._bodies.extend(bodies)
        self._size += size
        if records:
            self._records.update(records)
        self._budget.take(len(bodies), size)
        if not self._held and not self._closed:
            self._submit()
        return self.mark()

    def reserve(self, count: int, records: Mapping[str, bytes | None] | None = None) -> Mark:
        """Give the next offsets to a part with ``records`` whose events come with `fill`. One at a time: for a step.

        Raises `WriteFailed` while the session is behind a refused write.
        """
        self.check()
        assert self._reserved is None
        self._reserved = len(self._bodies)
        self._held += 1
        self.stamped += count
        self._without_events += not count
        if records:
            self._records.update(records)
        self._budget.take(count)
        return self.mark()

    def fill(self, mark: Mark, bodies: Sequence[bytes]) -> None:
        """The events of the part that ends at ``mark``. Nothing happens if it was dropped meanwhile."""
        if mark.life != self._life:
            return
        assert self._reserved is not None
        self._bodies[self._reserved : self._reserved] = bodies
        self._reserved = None
        self._held -= 1
        size = sum(map(len, bodies))
        self._size += size
        self._budget.take(0, size)
        if (self._bodies or self._records) and not self._held and not self._closed:
            self._submit()

    def append_one(self, body: bytes) -> None:
        """As `append`, for one event without records. To be called behind `check`."""
        self.stamped += 1
        self._bodies.append(body)
        size = len(body)
        self._size += size
        budget = self._budget
        budget.used += 1
        budget.bytes += size
        if not self._held and not self._closed:
            self._submit()

    def check(self) -> None:
        """Raises `WriteFailed` while the session is behind a refused write."""
        if self.refused is not None:
            raise self._failure("the log refused a write of this session") from self.refused

    def _failure(self, detail: str) -> PenstockError:
        """What to tell of what the refused write has taken with it."""
        if isinstance(self.refused, Moved):
            return Moved(self.refused.detail, owner=self.refused.owner, session_id=self.session_id)
        if isinstance(self.refused, CorruptSession):
            return CorruptSession(self.refused.detail, session_id=self.session_id)
        whole = isinstance(self.refused, WriteFailed) and self.refused.whole
        return WriteFailed(detail, whole=whole, session_id=self.session_id)

    async def wait_room(self) -> None:
        """Wait until an event may be stamped. Returns at once when a write was refused; check again behind it."""
        while self.refused is None and self.full:
            if len(self._bodies) >= self._most_gathered or self._size >= self._most_gathered_bytes:
                await self.next_report()
            else:
                await self._line.wait_room()

    def cursor_at(self, mark: Mark) -> Cursor:
        """The cursor of a committed mark."""
        return Cursor(self.epoch, mark.offset)

    def current(self, mark: Mark) -> bool:
        """Whether nothing was dropped since the mark was made."""
        return mark.life == self._life

    def settled(self, mark: Mark) -> bool:
        """Whether what the mark stands for was committed or dropped."""
        return mark.life != self._life or (
            mark.offset <= self.committed and mark.without_events <= self._without_events_stored
        )

    def _dropped(self, mark: Mark) -> bool:
        # A caller may hear of its commit only after the next write was refused: what was stored stays stored.
        # It hears of it in the next turn of the loop, so the last fall is the only one that matters.
        if mark.life == self._life:
            return False
        offset, without_events = self._fell_back_to
        return mark.life != self._life - 1 or mark.offset > offset or mark.without_events > without_events

    def mark(self) -> Mark:
        """The last stamped place."""
        return Mark(self.stamped, self._life, self._without_events)

    async def wait_committed(self, mark: Mark, within: float = math.inf) -> None:
        """Wait until everything up to ``mark`` is durable.

        Raises `WriteFailed` when it was dropped, `TimedOut` after ``within`` seconds (it may yet be stored).
        """
        with trio.move_on_after(within):
            while not self.settled(mark):
                await self.next_report()
        if self._dropped(mark):
            raise self._failure("what was written could not be stored") from self.refused
        if not self.settled(mark):
            raise TimedOut(f"the log did not commit within {within} s", session_id=self.session_id)

    def restart(self, head: Head) -> None:
        """Go on from what the log says is committed, after a refused write."""
        assert not self._held
        assert not self._bodies
        if head.tail != self.committed:
            # The store reported failure and had committed all the same: nobody was told of those events.
            self._hub.overflow()
        self.epoch, self.token = head.epoch, head.token
        self.committed = self.stamped = head.tail
        self.listed = _listed(head)
        self.refused = None

    def close(self) -> None:
        """Hand nothing further over: the engine is gone, and what has gathered went with it."""
        self._closed = True

    def probe(self) -> None:
        """Have the log say whether it still takes this session's writes: where none is under way, with an empty one."""
        if not self._held and not self._closed and self.refused is None:
            self._submit()

    def give_up(self, error: Moved) -> None:
        """Whoever writes or waits from here on is told ``error``; what had gathered is dropped by the refusal."""
        self.refused = error
        self._tell()

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """In here no write is under way; what is stamped gathers, and is handed over behind it. For a step."""
        life = self._life
        self._held += 1
        try:
            while self._life == life and self._held > 1:
                await self.next_report()
            yield
        finally:
            if self._life == life:  # else a refusal has let go of all
                self._held -= 1
                if (self._bodies or self._records) and not self._held and not self._closed:
                    self._submit()

    def _submit(self) -> None:
        write = Append(
            session_id=self.session_id,
            epoch=self.epoch,
            expected_tail=self.committed,
            token=self.token,
            events=self._bodies,
            records=self._records,
            summary=Summary(self.listed.rank, self.listed.encoded()) if self._unlisted else None,
            size=self._size,
        )
        self._unlisted = False
        self._line = self._budget.lines[self._size > LARGE * len(self._bodies)]
        self._bodies, self._records = [], {}
        self._size, self._size_submitted = 0, self._size
        # While these are under way, no more may gather than makes all that may be pending.
        left, left_bytes = self._pending - len(write.events), self._pending_bytes - write.size
        if left < self._most_gathered:
            self._most_gathered = left
        if left_bytes < self._most_gathered_bytes:
            self._most_gathered_bytes = left_bytes
        self._held += 1
        self._without_events_submitted = self._without_events
        handed_over = trio.current_time()
        self._log.submit(write, lambda error: self._reported(write, handed_over, error))

    def _reported(self, write: Append, handed_over: float, error: PenstockError | None) -> None:
        self._held -= 1
        if error is not None:
            self._refuse(error)
            return
        first = self.committed + 1
        self.committed += len(write.events)
        self._without_events_stored = self._without_events_submitted
        self._budget.give_back(len(write.events), self._size_submitted)
        self._size_submitted = 0
        self._most_gathered, self._most_gathered_bytes = self._half, self._half_bytes
        if (self._bodies or self._records) and not self._held and not self._closed:
            self._submit()
        try:
            if not write.events or not (len(self._hub) or self._bus is not None):
                pass  # nobody is to be told of anything
            elif len(write.events) > self._most_published:
                self._hub.overflow()  # readers take pages of it from the log, each at its own pace
                if self._bus is not None:
                    self._bus.tell(self.session_id, None)
            else:
                entries = [Entry(first + i, body) for i, body in enumerate(write.events)]
                batch = Batch(self.session_id, self.epoch, entries)
                self._hub.publish(batch)
                if self._bus is not None:
                    self._bus.tell(self.session_id, batch)
        finally:
            self._tell()
        if write.summary is not None:
            self._on_listed(self.session_id)
        self.reporter.committed(write, handed_over)

    def _refuse(self, error: PenstockError) -> None:
        self._budget.give_back(self.stamped - self.committed, self._size + self._size_submitted)
        self._bodies, self._records = [], {}
        self._unlisted = False
        self._size = self._size_submitted = 0
        self._reserved, self._held = None, 0
        self._most_gathered, self._most_gathered_bytes = self._half, self._half_bytes
        self.stamped = self.committed
        self._without_events = self._without_events_stored
        self._fell_back_to = (self.committed, self._without_events)
        self._life += 1
        self.refused = error
        self._tell()
        self._on_refused(error)

    async def next_report(self) -> None:
        """Until something was stored or refused."""
        if self._waiting is None:
            self._waiting = trio.lowlevel.ParkingLot()
        await self._waiting.park()

    def _tell(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.unpark_all()


def _listed(head: Head) -> Listed:
    return read_listed(None if head.summary is None else head.summary.body)
