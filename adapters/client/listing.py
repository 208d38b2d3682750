"""The list of sessions as an application follows it: one iteration over any number of connections.

As `following` and `reading` for a session, with less to hold together: what comes tells how a session is listed now, so
that a repetition does no harm.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Final, Self, TypeAlias, final

import trio
from attrs import frozen

from penstock.engine import (
    CallerError,
    CaughtUp,
    Cursor,
    Degraded,
    Drained,
    LastSaid,
    ListChange,
    Opened,
    SessionInfo,
    decode_json,
    structure,
)

from ..forms.controls import Control, read_control
from ..forms.sse_reader import ServerSent
from ..requests.answers import ListedSession, SessionList
from .frames import Later
from .lines import open_list
from .reconnecting import Lost, Reconnecting
from .refusals import BadAnswer
from .wire import Wire

__all__ = ["ListDelivery", "ListEvents", "SessionPage", "follow_list", "info_of", "page_of"]


@final
@frozen
class SessionPage:
    """Sessions of a list; ``next`` is where the following page begins, None where there is none."""

    sessions: tuple[SessionInfo, ...]
    next: str | None = None


_Delivery: TypeAlias = SessionPage | ListChange | Opened | Control

ListDelivery: TypeAlias = _Delivery | Lost


def info_of(listed: ListedSession) -> SessionInfo:
    """A session of a list, as the engine's own are."""
    last = listed.last
    return SessionInfo(
        session_id=listed.session_id,
        cursor=listed.cursor,
        metadata=listed.metadata,
        generation_id=None if listed.generation is None else listed.generation.generation_id,
        corrupt=bool(listed.corrupt),
        created=listed.created,
        updated=listed.updated,
        title=listed.title,
        approvals=listed.approvals or 0,
        last=None if last is None else LastSaid(role=last.role, text=last.text),
    )


def page_of(answer: SessionList) -> SessionPage:
    return SessionPage(tuple(map(info_of, answer.sessions)), answer.next)


@final
@frozen
class _Gone:
    """What ``session-gone`` says."""

    session_id: str


def _read(messages: Iterable[ServerSent]) -> list[_Delivery | Later]:
    """The frames of these. Raises `BadAnswer`; what this version does not know is left out."""
    made: list[_Delivery | Later] = []
    for message in messages:
        if message.retry is not None:
            made.append(Later(message.retry))
        try:
            frame = _frame(message)
        except CallerError as error:
            raise BadAnswer(f"a frame cannot be read: {error.detail}") from error
        if frame is not None:
            made.append(frame)
    return made


def _frame(message: ServerSent) -> _Delivery | None:
    if message.data is None:
        return Opened(Cursor.parse(message.id)) if message.id else None
    value = decode_json(message.data.encode())
    if not isinstance(value, dict):
        raise BadAnswer("a frame is no object")
    match message.event:
        case "sessions":
            return page_of(structure(value, SessionList))
        case "session":
            info = info_of(structure(value, ListedSession))
            return ListChange(info.session_id, info, Cursor.parse(message.id))
        case "session-gone":
            return ListChange(structure(value, _Gone).session_id, None, Cursor.parse(message.id))
        case name:
            return read_control(name, value)


@final
class _Follower(Reconnecting[_Delivery]):
    """One reader's task."""

    def __init__(self, wire: Wire, after: Cursor | None, limit: int) -> None:
        super().__init__(wire, "the list")
        self._after = after
        self._limit: Final = limit

    async def connect(self) -> bool:
        """False: the list has no end."""
        async with self.connected(open_list(self._wire, self._after, self._limit, _read)) as line:
            with suppress(trio.EndOfChannel):
                while await self._take(await line.receive()):
                    pass
        return False

    async def _take(self, frame: _Delivery | Later) -> bool:
        """Pass it on; whether more comes on this connection."""
        match frame:
            case Later(seconds=seconds):
                self.come_back(seconds)
                return True
            case ListChange(cursor=cursor) | CaughtUp(cursor=cursor):
                # Not of `Opened` or a gap: the page that follows may not have come.
                self._after = cursor
                self.brought_on()
            case Drained(reason="token-expired"):
                self.come_back(0.0)  # the server is well; only our token is not
            case _:
                pass
        await self._send.send(frame)
        return not isinstance(frame, Drained | Degraded)


@final
class ListEvents:
    """What `Client.watch` gives: iterate over it, or `receive` all that is delivered.

    Cancelling either and calling it again loses nothing and repeats nothing.
    """

    def __init__(self, follower: _Follower) -> None:
        self._follower: Final = follower

    async def receive(self) -> ListDelivery:
        """The next delivery, as soon as there is one.

        A `SessionPage` is the list from its beginning: at first, and behind a `Gap`. `Lost` tells that the connection
        is being made anew. Raises a `PenstockError` that no new attempt would change.
        """
        return await self._follower.receive()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SessionPage | ListChange:
        """The next page, which takes the place of all that came before, or the next change."""
        while True:
            try:
                delivery = await self.receive()
            except trio.EndOfChannel:
                raise StopAsyncIteration from None
            if isinstance(delivery, SessionPage | ListChange):
                return delivery


@asynccontextmanager
async def follow_list(tasks: trio.Nursery, wire: Wire, after: Cursor | None, limit: int) -> AsyncIterator[ListEvents]:
    """Follow in a task of ``tasks`` until the block is left."""
    follower = _Follower(wire, after, limit)
    async with follower.running(tasks):
        yield ListEvents(follower)
