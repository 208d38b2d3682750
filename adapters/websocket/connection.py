"""The conversation on one WebSocket: commands in order per session, subscriptions side by side, a keep-alive.

Owns who waits for whom: commands of one session run one after the other, those of others beside them, and a
subscription never waits for a command. All of it waits for this socket's peer, and nothing else does.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import suppress
from typing import Final, final

import trio
from attrs import frozen
from trio_websocket import ConnectionClosed, WebSocketConnection

from penstock.engine import JSON, CapacityError, Draining, Engine, InvalidBody, PenstockError, TimedOut

from ..forms.frames import frame_error, frame_reply, on_the_wire
from ..problems import RateLimited, Unauthenticated, close_code, ids_in
from ..requests.bodies import read_body
from ..server.handover import Outlet
from ..server.limits import Limits
from .commands import Commands
from .envelope import parse_frame, read_envelope, request_id_of
from .hearing import Hearing
from .holder import Holder
from .lanes import Lanes, Room
from .productions import Productions
from .socket_log import note_refusal
from .subscriptions import Subscriptions

__all__ = ["Conversation", "SocketConfig"]

_log = logging.getLogger("penstock.websocket")

_SOCKET_ENVELOPE: Final = frozenset({"op", "id"})

# What is read from somebody unknown: a token fits.
_FIRST_FRAME: Final = 16 * 1024


@final
@frozen(kw_only=True)
class SocketConfig:
    """The bounds of one socket, each with its reason. Times are in seconds."""

    # Below the 30 to 60 s after which proxies cut a silent line.
    heartbeat: float = 15.0

    # A phone on a bad line answers within a few seconds, or it is gone.
    pong_timeout: float = 10.0

    # The pong of a slow reader stands behind all that it has yet to read; while it takes frames it gets this
    # long, which is what a send may take without any progress.
    slow_pong_timeout: float = 30.0

    # Each holds up to 1024 events in memory when its reader is slow.
    max_subscriptions: int = 256

    # Each is one task that waits for its generation's fence.
    max_productions: int = 256

    # Commands under way, in number and in bytes; then the socket is not read, and the peer waits. A command is under
    # way until its answer is sent, so that this bounds the answers, too, that a peer does not read. Four of the largest
    # messages: who sends large ones is not held up by one.
    max_commands: int = 64
    max_command_bytes: int = 4 * 1024 * 1024

    # From the handshake to the token, where none came with it: a round trip, and the time to get one.
    auth_timeout: float = 10.0

    # For the peer's own close frame.
    close_timeout: float = 2.0


@final
@frozen(kw_only=True)
class _AuthBody:
    token: str


@final
class Conversation:
    """One socket over the connection ``outlet``, whose commands its ``holder`` gives."""

    def __init__(
        self,
        ws: WebSocketConnection,
        outlet: Outlet,
        engine: Engine,
        holder: Holder,
        config: SocketConfig,
        limits: Limits,
    ) -> None:
        self._ws = ws
        self._outlet = outlet
        self._engine = engine
        self._holder = holder
        self._config = config
        self._limits = limits
        self._productions = Productions(
            self._send,
            config.max_productions,
            lambda session_id: holder.covers("produce", session_id),
        )
        self._subscriptions = Subscriptions(
            self._send,
            self._send_frame,
            config.max_subscriptions,
            lambda: limits.subscription(holder.counted),
        )
        self._hearing = Hearing(holder, self._subscriptions, self._productions)
        self._listening = False
        self._closing = False
        self._pong: trio.CancelScope | None = None
        self._pong_limit = 0.0
        self._nursery: trio.Nursery
        self._lanes: Lanes

    async def run(self, drained: trio.Event) -> None:
        """Until either side closes. Raises nothing but `trio.Cancelled`."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                commands = Commands(
                    self._engine,
                    self._holder,
                    nursery,
                    subscriptions=self._subscriptions,
                    productions=self._productions,
                )
                room = Room(self._config.max_commands, self._config.max_command_bytes)
                self._lanes = Lanes(nursery, commands, self._send, room)
                nursery.start_soon(self._keep_alive)
                nursery.start_soon(self._leave_when, drained)
                nursery.start_soon(self._expire)
                nursery.start_soon(self._ask_again)
                await self._read()
                nursery.cancel_scope.cancel(reason="the socket has closed")
        except Exception as error:  # noqa: BLE001  # the last resort: the peer is told, the server goes on
            _log.exception("a conversation failed")
            await self._close(close_code(error), "internal error")

    # --- commands

    async def _read(self) -> None:
        with suppress(ConnectionClosed):
            while await self._take(await self._receive()):
                pass

    async def _receive(self) -> bytes | None:
        """The next frame's text; None where it is none. Not as str, which may take four times as much."""
        self._listening = True
        try:
            message = await self._ws.get_message()
        finally:
            self._listening = False
        return message.encode() if isinstance(message, str) else None

    async def _take(self, text: bytes | None) -> bool:
        """Answer one frame, or have it wait for its turn; whether the conversation goes on."""
        request_id: JSON = None
        envelope: Mapping[str, JSON] = {}
        try:
            if text is None:
                raise InvalidBody("a frame is text, not binary")
            if not self._holder.known and len(text) > _FIRST_FRAME:
                self._holder.principal()
            envelope = read_envelope(text)
            request_id = request_id_of(envelope)
            self._limits.admit(self._holder.counted)
            if envelope.get("op") == "auth":
                signed_in = self._auth(parse_frame(text))
                left = await self._hearing.leave_refused()
                await self._send(frame_reply(request_id, signed_in))
                for refusal in left:
                    await self._send(refusal)
            else:
                self._holder.principal()
                await self._lanes.put(text, envelope, request_id)
        except PenstockError as raised:
            error = self._counted(raised, envelope)
            if not self._holder.known:
                error = error if isinstance(error, CapacityError) else _as_unknown(error)
                note_refusal(error, envelope.get("op"))
                await self._refuse(error, request_id)
                return False
            ids = ids_in(envelope)
            note_refusal(error, envelope.get("op"), **ids)
            await self._send(frame_error(request_id, error, **ids))
        return True

    def _auth(self, value: Mapping[str, JSON]) -> Mapping[str, JSON]:
        """Say who holds the socket, before anything that comes behind. Raises `Unauthenticated`, `Forbidden`."""
        body = read_body(value, _AuthBody, aside=_SOCKET_ENVELOPE)
        principal = self._holder.present(body.token)
        return {"subject": principal.subject}

    async def _ask_again(self) -> None:
        """Whether what is open may still be: a right that was withdrawn ends it, not only at the next command."""
        while True:
            await trio.sleep(self._holder.ask_again)
            if self._holder.known:
                for refusal in await self._hearing.leave_refused():
                    await self._send(refusal)

    def _counted(self, error: PenstockError, envelope: Mapping[str, JSON]) -> PenstockError:
        """The error, unless too many tokens of this address were not good, or not there: then that is said."""
        failed = not self._holder.known or (envelope.get("op") == "auth" and isinstance(error, Unauthenticated))
        if failed and not isinstance(error, CapacityError):
            try:
                self._limits.admit_refused()
            except RateLimited as limited:
                return limited
        return error

    # --- the peer

    async def _send(self, text: bytes) -> None:
        await self._send_frame(on_the_wire(text))

    async def _send_frame(self, frame: bytes) -> None:
        """Send a frame in its turn. Where the socket has closed, it is lost, and the reading side ends all.

        Past trio-websocket, which would make a frame of each text again for each peer. Its own frames and these go
        through the same stream, each whole.
        """
        try:
            if self._closing or self._ws.closed is not None:
                raise trio.ClosedResourceError
            if rest := self._outlet.send_now(frame):
                await self._outlet.send_all(rest)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            await trio.lowlevel.checkpoint()
            return
        if self._pong is not None:
            self._pong.deadline = min(self._pong_limit, trio.current_time() + self._config.pong_timeout)

    async def _keep_alive(self) -> None:
        """Close when a pong is overdue: a peer that has vanished says nothing."""
        config = self._config
        while True:
            await trio.sleep(config.heartbeat)
            if not self._listening:
                continue  # while there is no room for commands nothing is read, and a pong would not be seen
            self._pong_limit = trio.current_time() + config.slow_pong_timeout
            with trio.move_on_after(config.pong_timeout) as self._pong:
                try:
                    await self._ws.ping()
                except ConnectionClosed:
                    return
            late, self._pong = self._pong.cancelled_caught, None
            if late and self._listening:
                await self._close(close_code(TimedOut("no pong in time")), "no pong in time")
                return

    async def _leave_when(self, drained: trio.Event) -> None:
        await drained.wait()
        await self._subscriptions.ended()  # each says `drain` as its last word
        await self._close(close_code(Draining("")), "the server is shutting down")

    async def _expire(self) -> None:
        """When the holder's time is over nothing more is read for them."""
        error = await self._holder.wait_over()
        note_refusal(error, None)
        self._hearing.stop()
        await self._refuse(error, None)

    async def _refuse(self, error: PenstockError, request_id: JSON) -> None:
        """Say why, and end the conversation."""
        with trio.move_on_after(self._config.close_timeout):
            await self._send(frame_error(request_id, error))
        await self._close(close_code(error), error.code)
        self._nursery.cancel_scope.cancel(reason="the conversation was refused")

    async def _close(self, code: int, reason: str) -> None:
        """Close by force if need be: trio-websocket would wait for the peer."""
        self._closing = True
        with trio.move_on_after(self._config.close_timeout):
            await self._ws.aclose(code, reason)


def _as_unknown(error: PenstockError) -> Unauthenticated:
    """Whatever a frame is refused with, to somebody who has not said who they are."""
    return error if isinstance(error, Unauthenticated) else Unauthenticated(error.detail, reason="malformed")
