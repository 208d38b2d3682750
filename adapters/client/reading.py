"""A session's events as an application reads them: one iteration over any number of connections."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, Self, final

import trio
from attrs import frozen

from penstock.engine import Cursor, Event, Gap, GapError

from .following import Follower
from .lines import Over
from .place import Arrived, Delivery, Place
from .reconnecting import Lost
from .wire import Wire

__all__ = ["Events", "FollowStatistics", "follow"]


@final
@frozen(kw_only=True)
class FollowStatistics:
    """``attempts`` to connect, of which ``connections`` came about; events that came again, and gaps that were told."""

    attempts: int
    connections: int
    duplicates: int
    gaps: int


@final
class Events:
    """What `RemoteSession.events` gives: iterate over it, or `receive` all that is delivered.

    Cancelling either and calling it again loses nothing and repeats nothing.
    """

    def __init__(self, follower: Follower) -> None:
        self._follower: Final = follower
        self._events: deque[Event] = deque()
        self._cursor = follower.place.cursor

    @property
    def session_id(self) -> str:
        return self._follower.place.session_id

    @property
    def cursor(self) -> Cursor | None:
        """Behind the last delivery; None before the first one, unless it was given."""
        return self._cursor

    def statistics(self) -> FollowStatistics:
        place = self._follower.place
        return FollowStatistics(
            attempts=self._follower.attempts,
            connections=self._follower.connections,
            duplicates=place.duplicates,
            gaps=place.gaps,
        )

    def refresh(self) -> None:
        """Have a new `SnapshotTaken` come, with what follows it: for who found that what it holds does not add up.

        What was underway is delivered before.
        """
        self._follower.refresh()

    async def receive(self) -> Delivery | Lost:
        """The next delivery, as soon as there is one; `Lost` tells that the connection is being made anew.

        Raises `trio.EndOfChannel` when nothing will follow, and a `PenstockError` that no new attempt would change.
        """
        delivery = await self._follower.receive()
        match delivery:
            case Arrived(cursor=cursor):
                self._cursor = cursor
            case Gap(resumed=resumed):
                self._cursor = resumed
            case _:
                self._cursor = getattr(delivery, "cursor", self._cursor)
        return delivery

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        """The next event; one that is not in the log has no offset.

        Raises `GapError` where a gap is met; iterating on continues behind it.
        """
        while not self._events:
            try:
                delivery = await self.receive()
            except trio.EndOfChannel:
                raise StopAsyncIteration from None
            match delivery:
                case Arrived(events=events):
                    self._events.extend(events)
                case Gap():
                    raise GapError(
                        f"the session cannot resume from {delivery.asked}: {delivery.reason}",
                        asked=delivery.asked,
                        resumed_at=str(delivery.resumed),
                        session_id=self.session_id,
                    )
                case _:
                    pass
        return self._events.popleft()


@asynccontextmanager
async def follow(tasks: trio.Nursery, wire: Wire, place: Place, over: Over) -> AsyncIterator[Events]:
    """Follow in a task of ``tasks`` until the block is left."""
    follower = Follower(wire, place, over)
    async with follower.running(tasks):
        yield Events(follower)
