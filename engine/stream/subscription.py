"""A reader of one session from a cursor: replay, then tail, with no seam between them.

A reader says where it stands, and gets every event behind that, once and in order, for as long as it stays. What is
stored comes from the log, in pages. What is stored from now on comes from the hub, in batches, one for each commit. The
two overlap or leave a hole, depending on the moment, unless they are taken in this order:

    register     a mailbox at the hub: from here on it gets every batch
       │
    replay       pages from the log, up to the committed tail; batches gather in the mailbox meanwhile
       │
    caught up    the position is the tail: the reader is told, and who is present
       │
    drain        batches from the mailbox; of each, what lies behind the position

Registering first is what closes the hole: an event that is committed while the replay reads is in the log behind the
page or in the mailbox, and perhaps in both. What is in both is dropped by its offset (`seam`). The position is behind
the last event that was handed out, and the only state that matters; a new subscription with the same cursor goes on
exactly there. Of a reader that has everything up to 7 and finds a batch in its mailbox:

    offsets  3 to  7     nothing of it is new
    offsets  6 to  9     it gets 8 and 9
    offsets  8 to 10     it gets all of it
    offsets 12 to 15     9 to 11 were passed over: it replays, and gets them from the log

The mailbox is a memory channel, bounded in events and in bytes. The hub never waits for a reader: a batch that finds no
room is not put in. Instead the channel is emptied and `Lagged` is left in it. The reader finds that, goes back to
replaying from the log, and takes batches again when it has caught up. So a slow reader costs the engine a full mailbox
and pages of the log, and never an event or anybody else's time. Likewise when a batch begins too far ahead of the
position: whatever the reason, the log has what is missing. The log is the truth, and the mailbox a hint.

`receive` hands out one delivery and waits for it if need be. A connection then takes what else is there with
`receive_ready`, without a wait, and writes all of it at once: one write for all that has gathered while the last one
was under way.

Cancelling `receive` loses nothing and repeats nothing. The position moves only in the last step, with no wait between
it and the return; where there has to be a checkpoint behind a change, it is shielded. That is what the pairs of
`checkpoint_if_cancelled` and `cancel_shielded_checkpoint` are for. A subscription holds no task, nursery or cancel
scope, so it can be left at any moment, by whoever reads.

It ends when the session's life does, or when the engine shuts down. Both are a last delivery, and `EndOfChannel` behind
it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol, Self, TypeAlias, TypeVar, final

import trio
from attrs import field, frozen

from ..codec import decode, encode_json
from ..errors import CorruptSession, Draining, GapError, SessionDeleted, StaleEpoch, StorageError, WentBack
from ..events import JSON, Cursor, Event
from ..reducer import Snapshot, SnapshotPage
from ..results import Present
from ..supervision import protected
from .hub import WENT_BACK, Aside, Batch, Degraded, Drained, Ended, Hub, Lagged, Mail
from .seam import Seam, seam

__all__ = [
    "CaughtUp",
    "Delivery",
    "Ephemeral",
    "Gap",
    "Opened",
    "PresenceListed",
    "SnapshotTaken",
    "Source",
    "Subscription",
]


T = TypeVar("T")


@final
@frozen
class Opened:
    """The position before everything else, so that a cursor is known from the start."""

    cursor: Cursor


@final
@frozen
class SnapshotTaken:
    """The session's state; what follows continues from its cursor. ``page`` is what it was read from, where it was."""

    snapshot: Snapshot
    page: SnapshotPage | None = field(default=None, eq=False, repr=False)

    def framed(self, frame: Callable[[SnapshotPage], T]) -> T:
        """``frame`` of the page, computed once for all who read the session at the same cursor."""
        page = self.page or SnapshotPage(self.snapshot, encode_json(self.snapshot.to_json()))
        return page.framed(frame)


@final
@frozen
class CaughtUp:
    """The replay reached the tail here."""

    cursor: Cursor


@final
@frozen
class Gap:
    """What was asked for cannot be given; what follows begins behind ``resumed``.

    ``reason``: ``unknown_epoch`` (the cursor is of another life of this session) or ``past_tail``.
    """

    reason: str
    asked: str
    resumed: Cursor


@final
@frozen
class PresenceListed:
    """All who are here; behind each `CaughtUp`."""

    present: tuple[Present, ...]

    def to_json(self) -> dict[str, JSON]:
        return {"presence": [present.to_json() for present in self.present]}


@final
@frozen
class Ephemeral:
    """An event that is not in the log, as its JSON. ``cursor`` is where the reader stands, before and after it."""

    cursor: Cursor
    body: bytes

    def event(self) -> Event:
        return decode(self.body)


Delivery: TypeAlias = (
    Opened | SnapshotTaken | Batch | CaughtUp | PresenceListed | Ephemeral | Gap | Degraded | Ended | Drained
)


class Source(Protocol):
    """What a subscription needs of a session in memory."""

    hub: Hub

    @property
    def session_id(self) -> str: ...

    @property
    def cursor(self) -> Cursor:
        """The committed tail."""

    @property
    def present(self) -> tuple[Present, ...]:
        """All who are here now."""

    async def page(self, after: int) -> Batch | None:
        """One page of the log behind ``after``; None at the tail. Raises `StaleEpoch`."""

    async def snapshot_page(self, limit: int | None = None, *, with_open: bool) -> SnapshotPage:
        """The session's state, its newest messages and those that are open. Raises `SessionDeleted`."""


@final
@protected
class Subscription:
    """Use as ``async with``; then `receive`, or iterate over the decoded events.

    Cancelling `receive` and calling it again loses nothing and repeats nothing.
    """

    def __init__(
        self,
        source: Source,
        after: Cursor | None,
        *,
        from_tail: bool,
        live: bool,
        snapshot: bool,
        limit: int | None = None,
    ) -> None:
        self._source = source
        self._live = live
        self._snapshot = snapshot
        self._limit = limit  # of the snapshot's messages
        self._mailbox = source.hub.register()
        self._ready: list[Delivery] = []  # a few at most
        self._events: Iterator[Event] = iter(())
        self._replaying = True
        self._page: Batch | None = None  # the last one, kept for who comes behind
        self._listed = 0  # what was said aside up to here, the list that was told has in it
        self._reading = False  # by a task, right now
        self._left = False  # by `close`
        self._over = False  # nothing comes any more, but for what is ready
        self._epoch, self._position = self._begin(after, from_tail)

    def _begin(self, after: Cursor | None, from_tail: bool) -> tuple[str, int]:
        tail = self._source.cursor
        if from_tail:
            start = tail
        elif after is None:
            start = Cursor(tail.epoch, 0)
        elif after.epoch != tail.epoch:
            start = Cursor(tail.epoch, 0)
            self._ready.append(self._gap("unknown_epoch", after, start))
        elif after.offset > tail.offset:
            start = tail
            self._ready.append(self._gap("past_tail", after, start))
        else:
            start = after
        self._ready.insert(0, Opened(start))
        return start.epoch, start.offset

    def _gap(self, reason: str, asked: Cursor, resumed: Cursor) -> Gap:
        self._source.hub.reporter.met_gap(reason)
        return Gap(reason, str(asked), resumed)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave the session; nothing further is delivered, also to a task that waits for it. Idempotent."""
        self._left = True
        self._ready.clear()
        self._events = iter(())
        self._leave()

    def _leave(self) -> None:
        self._over = True
        self._source.hub.unregister(self._mailbox)
        self._mailbox.close(Ended("left"))  # wakes who waits; nobody is told that

    @property
    def cursor(self) -> Cursor:
        """Behind the last event delivered."""
        return Cursor(self._epoch, self._position)

    async def receive(self) -> Delivery:
        """The next delivery, as soon as there is one. A checkpoint.

        Raises `trio.EndOfChannel` when nothing will follow, `trio.BusyResourceError` when another task is reading, and
        `StorageError` when the log cannot be read.
        """
        if self._reading:  # of two tasks, each would miss what the other got
            raise trio.BusyResourceError("another task is reading this subscription")
        self._reading = True
        try:
            return await self._receive()
        finally:
            self._reading = False

    async def _receive(self) -> Delivery:
        if self._over and not self._ready:
            await trio.lowlevel.checkpoint()
            raise trio.EndOfChannel
        if self._snapshot:
            await self._take_snapshot()
        delivery: Delivery | None = None
        if self._ready:
            await trio.lowlevel.checkpoint_if_cancelled()
            delivery = self._ready.pop(0)
            await trio.lowlevel.cancel_shielded_checkpoint()
        while delivery is None:
            delivery = await (self._replay() if self._replaying else self._tail())
        if self._left:  # while we waited
            raise trio.EndOfChannel
        return delivery

    async def _take_snapshot(self) -> None:
        try:
            page = await self._source.snapshot_page(self._limit, with_open=True)
        except SessionDeleted:
            self._ready.append(self._end(Ended("deleted")))
        except WentBack:
            self._ready.append(self._end(Drained(WENT_BACK)))
        except CorruptSession:
            self._ready.append(self._end(Ended("corrupt")))
        except Draining:
            self._ready.append(self._end(self._mailbox.final or Drained("shutdown")))
        else:
            self._ready.clear()
            cursor = page.snapshot.cursor
            self._epoch, self._position = cursor.epoch, cursor.offset
            self._ready.extend((Opened(cursor), SnapshotTaken(page.snapshot, page)))
        self._snapshot = False

    def receive_ready(self) -> Delivery | None:
        """The next delivery at the tail, if it need not be waited for: what has gathered goes out together.

        None, too, where `receive` has something else to say first. Raises `trio.BusyResourceError`.
        """
        if self._reading:
            raise trio.BusyResourceError("another task is reading this subscription")
        while not (self._replaying or self._ready or self._over or self._snapshot):
            mail = self._mailbox.receive_ready()
            if mail is None:
                return None
            delivery = self._met(mail)
            if delivery is not None:
                return delivery
        return None

    async def _replay(self) -> Delivery | None:
        tail = self._source.cursor
        if tail.epoch == self._epoch and self._position >= tail.offset:
            # Cancelled before anything changes or not at all: a delivery that nobody gets would be lost.
            await trio.lowlevel.checkpoint_if_cancelled()
            self._replaying = False
            self._page = None
            self._listed = self._source.hub.asides
            self._ready.append(PresenceListed(self._source.present))
            if not self._live:
                self._leave()
            await trio.lowlevel.cancel_shielded_checkpoint()
            return CaughtUp(self.cursor)
        try:
            page = await self._source.page(self._position)
        except StaleEpoch:
            return self._end(Ended("deleted"))
        except WentBack:
            return self._end(Drained(WENT_BACK))
        except CorruptSession:
            return self._end(Ended("corrupt"))
        except StorageError:
            if self._mailbox.final is None:
                raise
            return self._end(self._mailbox.final)  # the log was closed beneath us
        assert page is not None, "a session's tail is where its log ends"
        self._position = page.last
        self._page = page
        return page

    async def _tail(self) -> Delivery | None:
        try:
            mail = await self._mailbox.receive()
        except trio.EndOfChannel:
            assert self._mailbox.final is not None
            return self._end(self._mailbox.final)
        return self._met(mail)

    def _met(self, mail: Mail) -> Delivery | None:
        """What of it is new here."""
        match mail:
            case Degraded():
                return mail
            case Aside(number=number, body=body):
                if number <= self._listed:
                    return None
                return Ephemeral(self.cursor, body)
            case Lagged():
                self._source.hub.reporter.fell_behind()
                self._mailbox.rearm()
                self._replaying = True
                return None
            case Batch():
                pass
        match seam(self._position, mail.first, mail.last):
            case Seam.SEEN:
                return None
            case Seam.HOLE:
                self._replaying = True
                return None
            case Seam.OVERLAP:
                mail = mail.after(self._position)
            case Seam.NEXT:
                pass
        self._position = mail.last
        return mail

    def _end(self, final: Ended | Drained) -> Delivery:
        self._leave()
        return final

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        """The next event, decoded; one that is not in the log has no offset.

        Raises `GapError` where a gap is met; iterating on continues behind it.
        """
        while True:
            for event in self._events:
                return event
            try:
                delivery = await self.receive()
            except trio.EndOfChannel:
                raise StopAsyncIteration from None
            match delivery:
                case Batch():
                    self._events = delivery.events()
                case Ephemeral():
                    return delivery.event()
                case Gap():
                    raise GapError(
                        f"the session cannot resume from {delivery.asked}: {delivery.reason}",
                        asked=delivery.asked,
                        resumed_at=str(delivery.resumed),
                        session_id=self._source.session_id,
                    )
                case _:
                    pass
