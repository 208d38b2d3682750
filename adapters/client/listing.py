"""The list of sessions as an application follows it: one iteration over any number of connections.

As `following` and `reading` for a session, with less to hold together: what comes tells how a session is listed now, so
that a repetition does no harm.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Final, Self, TypeAlias, final

import trio
from attrs import frozen

from penstock.engine import (
    CallerError,
    CapacityError,
    CaughtUp,
    Cursor,
    Degraded,
    Drained,
    LastSaid,
    ListChange,
    Opened,
    PenstockError,
    SessionInfo,
    decode_json,
    structure,
)

from ..forms.controls import Control, read_control
from ..forms.sse_reader import ServerSent
from ..problems import Unauthenticated
from ..requests.answers import ListedSession, SessionList
from .backoff import Backoff
from .following import Lost
from .frames import Later
from .lines import open_list
from .refusals import BadAnswer
from .wire import Wire

__all__ = ["ListDelivery", "ListEvents", "SessionPage", "follow_list", "info_of", "page_of"]

logger = logging.getLogger("penstock.client")


@final
@frozen
class SessionPage:
    """Sessions of a list; ``next`` is where the following page begins, None where there is none."""

    sessions: tuple[SessionInfo, ...]
    next: str | None = None


ListDelivery: TypeAlias = SessionPage | ListChange | Opened | Control | Lost

_Frame: TypeAlias = SessionPage | ListChange | Opened | Control | Later


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


def _read(messages: Iterable[ServerSent]) -> list[_Frame]:
    """The frames of these. Raises `BadAnswer`; what this version does not know is left out."""
    made: list[_Frame] = []
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


def _frame(message: ServerSent) -> _Frame | None:
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
class _Follower:
    """The reader's task: connect, read, lose the connection, wait, go on behind the last frame."""

    def __init__(
        self, wire: Wire, after: Cursor | None, limit: int, send: trio.MemorySendChannel[ListDelivery]
    ) -> None:
        config = wire.config
        self._wire: Final = wire
        self._after = after
        self._limit: Final = limit
        self._send: Final = send
        self._backoff: Final = Backoff(config.first_pause, config.longest_pause)
        self._later = 0.0
        self._bad_frames = 0
        self._refused = False
        self.scope: Final = trio.CancelScope()
        self.done: Final = trio.Event()
        self.failure: Exception | None = None

    async def run(self) -> None:
        """Until it is left; then ``done`` is set, and ``failure`` says why if it was one. Raises nothing."""
        try:
            with self.scope:
                while True:
                    error = await self._connect()
                    if error is not None and not self._goes_on(error):
                        raise error
                    if isinstance(error, CapacityError):
                        self._later = error.retry_after
                    pause = self._backoff.next(min(self._later, self._wire.config.longest_retry_after))
                    logger.info("the stream of the list is lost (%s); again in %.3f s", error or "ended", pause)
                    await self._send.send(Lost(error, pause))
                    await trio.sleep(pause)
        except Exception as error:  # noqa: BLE001  # whatever it is, it is the reader's to learn
            self.failure = error
        finally:
            self._send.close()
            self.done.set()

    async def _connect(self) -> PenstockError | None:
        """One connection's life, and what it ended with."""
        self._later = 0.0
        try:
            async with open_list(self._wire, self._after, self._limit, _read) as line:
                self._refused = False
                begun = trio.current_time()
                try:
                    while await self._take(await line.receive()):
                        pass
                except trio.EndOfChannel:
                    pass
                finally:
                    if trio.current_time() - begun >= self._wire.config.longest_pause:
                        self._backoff.reset()
        except PenstockError as error:
            return error
        return None

    async def _take(self, frame: _Frame) -> bool:
        """Pass it on; whether more comes on this connection."""
        match frame:
            case Later(seconds=seconds):
                self._later = seconds
                return True
            case ListChange(cursor=cursor) | CaughtUp(cursor=cursor):
                # Not of `Opened` or a gap: the page that follows may not have come.
                self._after = cursor
                self._backoff.reset()
                self._bad_frames = 0
            case Drained(reason="token-expired"):
                self._later = 0.0  # the server is well; only our token is not
            case _:
                pass
        await self._send.send(frame)
        return not isinstance(frame, Drained | Degraded)

    def _goes_on(self, error: PenstockError) -> bool:
        """Whether another attempt may fare better."""
        if isinstance(error, Unauthenticated):
            again = self._wire.renews and not self._refused
            self._refused = True
            return again
        if isinstance(error, BadAnswer):
            self._bad_frames += 1
            logger.error("the stream of the list: %s", error.detail)
            return self._bad_frames < self._wire.config.bad_frames
        return error.retryable


@final
class ListEvents:
    """What `Client.watch` gives: iterate over it, or `receive` all that is delivered.

    Cancelling either and calling it again loses nothing and repeats nothing.
    """

    def __init__(self, follower: _Follower, receive: trio.MemoryReceiveChannel[ListDelivery]) -> None:
        self._follower: Final = follower
        self._receive: Final = receive

    async def receive(self) -> ListDelivery:
        """The next delivery, as soon as there is one.

        A `SessionPage` is the list from its beginning: at first, and behind a `Gap`. `Lost` tells that the connection
        is being made anew. Raises a `PenstockError` that no new attempt would change.
        """
        try:
            return await self._receive.receive()
        except trio.EndOfChannel:
            await self._follower.done.wait()
            if self._follower.failure is not None:
                raise self._follower.failure from None
            raise

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
    send, receive = trio.open_memory_channel[ListDelivery](wire.config.deliveries)
    follower = _Follower(wire, after, limit, send)
    tasks.start_soon(follower.run, name="penstock follow the list")
    try:
        yield ListEvents(follower, receive)
    finally:
        follower.scope.cancel(reason="penstock: the reader has left")
        receive.close()
