"""The subscriptions of one socket: each a task of its own, each ended without harm to the others."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Final, TypeAlias, final

import trio

from penstock.engine import JSON, Delivery, InvalidBody, Overloaded, PenstockError, Subscription

from ..forms.frames import frame_error, wire_frames
from ..problems import Forbidden, Unauthenticated
from .socket_log import note_refusal

__all__ = ["Send", "Subscriptions"]

_log = logging.getLogger("penstock.websocket")

# Sends one frame after those before it. Cancelling it breaks the socket.
Send: TypeAlias = Callable[[bytes], Awaitable[None]]

Opening: TypeAlias = AbstractAsyncContextManager[Subscription]


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
    """At most ``bound`` subscriptions, at most one per session. ``send_frame`` takes frames as they go over the wire.

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
        return list(self._readers)

    async def add(self, nursery: trio.Nursery, session_id: str, opening: Opening, request_id: JSON) -> None:
        """Begin to deliver, in ``nursery``. Returns when the request has been answered, well or ill.

        Raises `InvalidBody` when there is one for this session, `Overloaded`, and `Forbidden` if it was left meanwhile.
        """
        if self._stopped:
            raise Unauthenticated("the token has expired", reason="expired")
        if session_id in self._readers:
            raise InvalidBody("this socket is subscribed to the session; unsubscribe first", session_id=session_id)
        if len(self._readers) >= self._bound:
            raise Overloaded(f"a socket has at most {self._bound} subscriptions; open another", session_id=session_id)
        reader = self._readers[session_id] = _Reader(request_id)
        nursery.start_soon(self._follow, reader, session_id, opening)
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

    async def _follow(self, reader: _Reader, sid: str, opening: Opening) -> None:
        try:
            with self._share(), reader.scope:
                async with opening as subscription:
                    await self._deliver(reader, sid, subscription)
        except PenstockError as error:
            note_refusal(error, "subscribe", session_id=sid)
            await self._tell_end(reader, sid, error)
        except Exception as error:  # noqa: BLE001  # one subscription's bug is not the others'
            _log.exception("a subscription failed")
            await self._tell_end(reader, sid, error)
        finally:
            del self._readers[sid]
            reader.opened.set()
            reader.left.set()

    async def _tell_end(self, reader: _Reader, session_id: str, error: Exception) -> None:
        if not reader.leaving:
            request_id = None if reader.answered else reader.request_id
            reader.answered = True
            await self._send(frame_error(request_id, error, session_id=session_id))

    async def _deliver(self, reader: _Reader, session_id: str, subscription: Subscription) -> None:
        while not reader.leaving:
            try:
                delivery = await subscription.receive()
            except trio.EndOfChannel:
                return
            await self._tell(reader, session_id, delivery)

    async def _tell(self, reader: _Reader, session_id: str, delivery: Delivery) -> None:
        for frame in wire_frames(session_id, delivery, reader.request_id):
            if reader.leaving:
                return
            reader.sending = True
            await self._send_frame(frame)
            reader.sending = False
            reader.answered = True
            reader.opened.set()
