"""A session's state, kept up to date: the engine's own fold, fed by a stream that reconnects.

Where the two do not meet (a gap was told, a seq is missing, the session began a new life) nothing is guessed: a new
snapshot is asked for, and the fold goes on from it. It has the newest messages; older ones come when asked for.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from itertools import takewhile
from typing import Final, final

import trio
from attrs import evolve

from penstock.engine import (
    CallerError,
    CaughtUp,
    Cursor,
    Drained,
    Ended,
    Gap,
    MessageNotFound,
    MessageRetracted,
    PresenceChanged,
    PresenceListed,
    Present,
    SessionReset,
    SessionState,
    Snapshot,
    SnapshotTaken,
)

from .place import Arrived, Delivery
from .reading import Events, FollowStatistics
from .reconnecting import Lost
from .snapshots import generations_of

__all__ = ["Transcript", "open_transcript"]

# The status of who has left.
_GONE: Final = "gone"


@final
class Transcript:
    """The state as it is known here; look at it at any time, and wait for what comes.

    It begins with the newest messages; `older` fetches a page of those before, while there is ``more``. ``live``
    says whether it is at the tail of a connection that holds, ``presence`` who is here, ``ended`` why nothing follows
    any more.
    """

    def __init__(self, events: Events, read: Callable[[int | None, str | None], Awaitable[Snapshot]]) -> None:
        """``read`` fetches a page: at most so many messages, those before this one."""
        self._events: Final = events
        self._read: Final = read
        self._next: str | None = None  # the message that those which are left out are before
        self._seen_at = 0  # the offset at which pages were read
        self._retracted_at = 0  # the offset of the last retraction
        self._paging: Final = trio.Lock()
        self._state: SessionState | None = None
        self._changed: Final = trio.lowlevel.ParkingLot()
        self._waits = False  # for a snapshot
        self._failure: Exception | None = None
        self._over = False
        self.ended: str | None = None
        self.live = False
        self.snapshots = 0
        self.presence: tuple[Present, ...] = ()

    @property
    def session_id(self) -> str:
        return self._events.session_id

    @property
    def state(self) -> SessionState:
        """The fold. It belongs to the transcript: do not apply anything to it."""
        assert self._state is not None  # it is given away behind its first snapshot
        return self._state

    @property
    def cursor(self) -> Cursor:
        return self.state.cursor

    @property
    def more(self) -> bool:
        """Whether there are older messages that are not here."""
        return self._next is not None

    def snapshot(self, limit: int | None = None, before: str | None = None) -> Snapshot:
        """What it looks like now; see `SessionState.snapshot`."""
        return self.state.snapshot(limit, before)

    async def older(self, limit: int | None = None) -> bool:
        """Fetch a page of the messages before those that are here, ``limit`` at most; whether there is more then.

        Where the state has to begin anew meanwhile, it is that of the newest messages again. Raises as `wait_changed`,
        and what the request is refused with.
        """
        async with self._paging:
            while self.more:
                if await self._take_older(limit):
                    break
        return self.more

    async def _take_older(self, limit: int | None) -> bool:
        snapshots = self.snapshots
        try:
            page = await self._read(limit, self._next)
        except MessageNotFound:  # the one that they are before was retracted
            self._ask_anew()
        else:
            if page.cursor.epoch == self.state.epoch and not self._waits and self.snapshots == snapshots:
                if not self.state.whole:
                    await self.wait_changed()  # what it lacks is on its way, and would be forgotten
                    return False
                if page.cursor.offset < self._retracted_at:
                    return False  # the message that was retracted may be in it
                self._put_before(page)
                return True
        while self.snapshots == snapshots:
            await self.wait_changed()
        return False

    def _put_before(self, page: Snapshot) -> None:
        """What is known of a message stands, also of an open one whose place is in the page; one that is still older
        stays in front."""
        known = self.state.snapshot()
        here = {message.message_id: message for message in known.messages}
        older = {message.message_id: here.get(message.message_id, message) for message in page.messages}
        in_front = {each: here[each] for each in takewhile(lambda each: each != self._next, here) if each not in older}
        messages = tuple((in_front | older | here).values())
        self._seen_at = max(self._seen_at, page.cursor.offset)
        self._next = _next_of(page)
        self._state = SessionState.from_snapshot(
            evolve(
                known,
                messages=messages,
                generations=generations_of(known, page),
                more=page.more,
                next=self._next,
            ),
            older_seen_at=self._seen_at,
        )
        self._changed.unpark_all()

    def statistics(self) -> FollowStatistics:
        return self._events.statistics()

    async def wait_changed(self) -> None:
        """Until something else is known than now. Raises `trio.EndOfChannel` when nothing will follow, and what the
        stream was refused with."""
        if not self._over:
            await self._changed.park()
        else:
            await trio.lowlevel.checkpoint()
        if self._failure is not None:
            raise self._failure
        if self._over:
            raise trio.EndOfChannel

    async def wait_for(self, found: Callable[[SessionState], bool]) -> SessionState:
        """Until this is true of the state; looks whenever it changed. Raises as `wait_changed`."""
        while not found(self.state):
            await self.wait_changed()
        return self.state

    async def follow(self) -> None:
        """Keep it up to date until nothing follows."""
        try:
            while not self._over:
                try:
                    self._take(await self._events.receive())
                except trio.EndOfChannel:
                    self._over = True
                except Exception as error:  # noqa: BLE001  # who waits learns of it
                    self._failure, self._over = error, True
                self._changed.unpark_all()
        finally:
            self._over, self.live = True, False
            self._changed.unpark_all()

    def _take(self, delivery: Delivery | Lost) -> None:
        match delivery:
            case SnapshotTaken(snapshot=snapshot):
                self._begin(snapshot)
            case Arrived():
                self._fold(delivery)
            case Gap():
                self._ask_anew()
            case CaughtUp():
                self.live = not self._waits
            case PresenceListed(present=present):
                self.presence = present
            case Ended(reason=reason):
                self.ended, self.live = reason, False
            case Lost() | Drained():
                self.live = False
            case _:
                pass

    def _begin(self, snapshot: Snapshot) -> None:
        self._state = SessionState.from_snapshot(snapshot)
        self._next = _next_of(snapshot)
        self._seen_at = self._retracted_at = 0
        self._waits = False
        self.snapshots += 1

    def _fold(self, arrived: Arrived) -> None:
        if self._waits or self._state is None:
            return  # of before the snapshot that was asked for
        for event in arrived.events:
            if isinstance(event.data, PresenceChanged):
                self._change_presence(event.data)
            try:
                self._state.apply(event)
            except CallerError:
                self._ask_anew()
                return
            if event.offset is not None and self._state.offset < event.offset:
                self._ask_anew()  # it does not follow from what is known, and was not applied
                return
            if isinstance(event.data, MessageRetracted):
                self._retracted_at = self._state.offset
            elif isinstance(event.data, SessionReset):
                self._next = None

    def _change_presence(self, said: PresenceChanged) -> None:
        place = said.actor_id, said.device_id
        kept = tuple(here for here in self.presence if (here.actor_id, here.device_id) != place)
        if said.status != _GONE:
            kept += (Present(actor_id=said.actor_id, device_id=said.device_id, name=said.name, status=said.status),)
        self.presence = kept

    def _ask_anew(self) -> None:
        self._waits, self.live = True, False
        self._events.refresh()


@asynccontextmanager
async def open_transcript(
    tasks: trio.Nursery,
    opening: AbstractAsyncContextManager[Events],
    session_id: str,
    read: Callable[[int | None, str | None], Awaitable[Snapshot]],
) -> AsyncIterator[Transcript]:
    """Keep one up to date in a task of ``tasks``; given away when its first snapshot is there."""
    async with opening as events:
        transcript = Transcript(events, read)
        scope = trio.CancelScope()

        async def follow() -> None:
            with scope:
                await transcript.follow()

        tasks.start_soon(follow, name=f"penstock transcript {session_id}")
        try:
            while not transcript.snapshots:
                await transcript.wait_changed()
            yield transcript
        finally:
            scope.cancel(reason="penstock: the transcript is not wanted any more")


def _next_of(page: Snapshot) -> str | None:
    """The message that those which a page leaves out are before; None where it leaves out none."""
    if not page.more:
        return None
    return page.next or page.messages[0].message_id  # an older server does not tell it
