"""What one socket follows, sessions and the list of them: each a task of its own, ended without harm to the others."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from functools import partial
from typing import Final, Protocol, TypeAlias, TypeVar, final

import trio

from penstock.engine import (
    JSON,
    CaughtUp,
    Degraded,
    Delivery,
    Drained,
    Gap,
    InvalidBody,
    Opened,
    Overloaded,
    PenstockError,
)

from ..forms.frames import frame_control, frame_error, frame_list, frame_reply, on_the_wire, wire_frames
from ..problems import Forbidden, Unauthenticated
from ..requests.listing import FollowedList, ListFrame
from .socket_log import note_refusal

__all__ = ["Send", "Subscriptions"]

_log = logging.getLogger("penstock.websocket")

# Sends one frame after those before it. Cancelling it breaks the socket.
Send: TypeAlias = Callable[[bytes], Awaitable[None]]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

# Stands for the list among the sessions that are followed: no session has this id.
_LIST: Final = ""


class _Followed(Protocol[T_co]):
    async def receive(self) -> T_co: ...


Opening: TypeAlias = AbstractAsyncContextManager[_Followed[Delivery]]


def _wire_session(session_id: str, delivery: Delivery, request_id: JSON) -> Sequence[bytes]:
    return wire_frames(session_id, delivery, request_id)


def _wire_list(delivery: ListFrame | Opened | Gap | CaughtUp | Degraded | Drained, request_id: JSON) -> Sequence[bytes]:
    match delivery:
        case ListFrame():
            text = frame_list(*delivery)
        case Opened(cursor=cursor):
            text = frame_reply(request_id, {"cursor": str(cursor)})
        case _:
            text = frame_control(delivery)
    return (on_the_wire(text),)


@final
class _Reader:
    """One subscription's task, as others see it."""

    def __init__(self, request_id: JSON) -> None:
        self.request_id: Final = request_id
        self.scope = trio.CancelScope()
        self.sending = False
        self.leaving = False
        self.answered = False
        self.opened = trio.Event()  # the request is answered, or never will be by the subscription
        self.left = trio.Event()

    def leave(self, reason: str) -> bool:
        """Whether it was not leaving before."""
        was, self.leaving = self.leaving, True
        if not self.sending:  # in the middle of a frame it would break the socket for all others
            self.scope.cancel(reason=reason)
        return not was


@final
class Subscriptions:
    """At most ``bound`` subscriptions, at most one per session, and one to the list.

    ``send_frame`` takes frames as they go over the wire.

    Each takes a ``share`` of what its client may have in all; that it is used up is said like any refusal.
    """

    def __init__(
        self, send: Send, send_frame: Send, bound: int, share: Callable[[], AbstractContextManager[None]]
    ) -> None:
        self._send = send
        self._send_frame = send_frame
        self._bound = bound
        self._share = share
        self._readers: dict[str, _Reader] = {}
        self._stopped = False

    @property
    def sessions(self) -> list[str]:
        """Those that are followed."""
        return [session_id for session_id in self._readers if session_id != _LIST]

    async def add(self, nursery: trio.Nursery, session_id: str, opening: Opening, request_id: JSON) -> None:
        """Begin to deliver, in ``nursery``. Returns when the request has been answered, well or ill.

        Raises `InvalidBody` when there is one for this session, `Overloaded`, and `Forbidden` if it was left meanwhile.
        """
        if session_id in self._readers:
            raise InvalidBody("this socket is subscribed to the session; unsubscribe first", session_id=session_id)
        await self._begin(nursery, session_id, opening, partial(_wire_session, session_id), request_id)

    async def watch(self, nursery: trio.Nursery, followed: FollowedList, request_id: JSON) -> None:
        """The same for the list."""
        if _LIST in self._readers:
            raise InvalidBody("this socket watches the list; unwatch first")
        await self._begin(nursery, _LIST, followed, _wire_list, request_id)

    async def unwatch(self) -> None:
        """As `remove`, for the list."""
        await self.remove(_LIST)

    async def _begin(
        self,
        nursery: trio.Nursery,
        name: str,
        opening: AbstractAsyncContextManager[_Followed[T]],
        frames: Callable[[T, JSON], Sequence[bytes]],
        request_id: JSON,
    ) -> None:
        if self._stopped:
            raise Unauthenticated("the token has expired", reason="expired")
        if len(self._readers) >= self._bound:
            raise Overloaded(f"a socket has at most {self._bound} subscriptions; open another")
        reader = self._readers[name] = _Reader(request_id)

        async def follow() -> None:
            await self._follow(reader, name, opening, frames)

        nursery.start_soon(follow)
        await reader.opened.wait()
        if not reader.answered:
            raise Forbidden("you may not read here any more")

    def leave(self, session_id: str) -> bool:
        """End the session's subscription, if there is one. No frame of it follows the one that is being sent."""
        reader = self._readers.get(session_id)
        return reader is not None and reader.leave("unsubscribed")

    async def remove(self, session_id: str) -> None:
        """`leave`, and wait for that frame."""
        reader = self._readers.get(session_id)
        if reader is not None:
            self.leave(session_id)
            await reader.left.wait()

    def stop(self) -> None:
        """End all of them; no frame follows the one that is being sent, and no other begins."""
        self._stopped = True
        for reader in self._readers.values():
            reader.leave("stopped")

    async def ended(self) -> None:
        """Wait until there is none."""
        while self._readers:
            await next(iter(self._readers.values())).left.wait()

    async def _follow(
        self,
        reader: _Reader,
        name: str,
        opening: AbstractAsyncContextManager[_Followed[T]],
        frames: Callable[[T, JSON], Sequence[bytes]],
    ) -> None:
        op, ids = ("watch", {}) if name == _LIST else ("subscribe", {"session_id": name})
        try:
            with self._share(), reader.scope:
                async with opening as followed:
                    await self._deliver(reader, followed, frames)
        except PenstockError as error:
            note_refusal(error, op, **ids)
            await self._tell_end(reader, error, ids)
        except Exception as error:  # noqa: BLE001  # one subscription's bug is not the others'
            _log.exception("a subscription failed")
            await self._tell_end(reader, error, ids)
        finally:
            del self._readers[name]
            reader.opened.set()
            reader.left.set()

    async def _tell_end(self, reader: _Reader, error: Exception, ids: Mapping[str, str]) -> None:
        if not reader.leaving:
            request_id = None if reader.answered else reader.request_id
            reader.answered = True
            await self._send(frame_error(request_id, error, **ids))

    async def _deliver(
        self, reader: _Reader, followed: _Followed[T], frames: Callable[[T, JSON], Sequence[bytes]]
    ) -> None:
        while not reader.leaving:
            try:
                delivery = await followed.receive()
            except trio.EndOfChannel:
                return
            await self._tell(reader, frames(delivery, reader.request_id))

    async def _tell(self, reader: _Reader, frames: Sequence[bytes]) -> None:
        for frame in frames:
            if reader.leaving:
                return
            reader.sending = True
            await self._send_frame(frame)
            reader.sending = False
            reader.answered = True
            reader.opened.set()
