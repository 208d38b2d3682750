"""One HTTP/1.1 connection: hypercorn's protocol with our own reading, closing and idling.

hypercorn's `TCPServer` is not used. It closes and idles a connection from within the request's task, which
Quart-Trio cancels as soon as the answer is complete: the connection then stays open and never times out
(20 of 20). It also sends inside a shield without a deadline. Here both are flags, set without a checkpoint.

This is the only module that uses hypercorn's internals, hence the narrow version bound: `H11Protocol` (its
constructor, ``handle``, ``stream_send``, some attributes, four private methods), the interface of its task group,
`WorkerContext`, and the events between them. `tests/adapters/test_foundations.py` names each.
No other protocol than HTTP/1.1 is spoken: an upgrade to h2c is ignored, HTTP/2 with prior knowledge refused.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from math import inf
from time import time
from typing import Final, final

import h11
import trio
from hypercorn.config import Config as HypercornConfig
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol.events import Event as StreamEvent
from hypercorn.protocol.events import Response, StreamClosed
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import (
    ASGIFramework,
    ConnectionState,
    H11SendableEvent,
)
from hypercorn.utils import parse_socket_addr

from penstock.engine import InvalidBody, PenstockError

from ..problems import BodyTooLarge, MethodNotAllowed, SlowRequest, answer
from .apps import Apps
from .config import ServerConfig
from .framing import StrictConnection
from .guarded import Guarded
from .head import Head, check_headers, is_handshake, origin_form, replaced, rooted, wire
from .limits import Connection
from .proxies import FORWARDED

__all__ = ["Config", "HttpConnection", "context"]

_log = logging.getLogger("penstock.server")

_READ: Final = 64 * 1024

# What is told to who writes them in small letters, which are other methods (RFC 9110, 9.1).
_METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


# Answers that have no body, whatever they say of it (RFC 9110, 6.4.1).
_BODILESS: Final = (204, 304)


class _Upgrade(Exception):
    """The request is a WebSocket handshake: the connection changes hands."""

    def __init__(self, head: Head, raw: bytes) -> None:
        super().__init__()
        self.head = head
        self.raw = raw


def context() -> WorkerContext:
    """What the connections of one server share; its ``terminated`` tells them to close after their answer."""
    return WorkerContext(None)


@final
class Config(HypercornConfig):
    """hypercorn's, which writes the date once a second, and not for each answer."""

    _written: tuple[int, list[tuple[bytes, bytes]]] = (-1, [])

    def response_headers(self, protocol: str) -> list[tuple[bytes, bytes]]:
        now = int(time())
        if self._written[0] != now:
            self._written = (now, super().response_headers(protocol))
        return self._written[1]


@final
class _Protocol(H11Protocol):
    """hypercorn's HTTP/1.1 without its ways into other protocols and with problem answers for bad requests."""

    bounds: ServerConfig
    peer: Connection
    address: str  # the socket's other end
    encrypted: bool
    apps: Apps
    begin_answer: Callable[[bool], None]  # is told whether it ends by itself
    asked: h11.Request  # the one that is being worked on
    upgrades = False  # it asks for another protocol
    held = b""  # the head of an answer whose body follows at once

    async def _check_protocol(self, event: h11.Request) -> None:
        if event.http_version not in (b"1.0", b"1.1"):
            raise InvalidBody("this server speaks HTTP/1.1")
        if event.method != event.method.upper():
            raise MethodNotAllowed("a method is written in capital letters", allowed=_METHODS)
        asked = self.asked = self._as_asked(event)
        if asked.method != b"GET":
            return  # no handshake, then
        websocket_path = self.bounds.root_path + self.bounds.websocket_path
        if is_handshake(asked, websocket_path) and not self.context.terminated.is_set():
            raise _Upgrade(Head.of(asked), wire(asked, self.connection.trailing_data[0]))

    async def _create_stream(self, request: h11.Request) -> None:
        asked = self.asked
        if self.upgrades:
            # Without the header nothing upgrades: a server may ignore it, and the application answers.
            headers = [(name, value) for name, value in asked.headers.raw_items() if name.lower() != b"upgrade"]
            asked = replaced(asked, asked.target, headers)
        await super()._create_stream(asked)

    def _as_asked(self, event: h11.Request) -> h11.Request:
        """The request as the client made it, before proxies that are trusted; of the others' word nothing is left.

        Raises `InvalidBody`.
        """
        names = check_headers(event.headers)
        self.upgrades = b"upgrade" in names
        headers = event.headers.raw_items()
        told = self.bounds.trusted_proxies.read(self.address, headers)
        if told.client != self.address:
            self.client = (told.client, 0)
        elif self.client is not None:
            self.client = (self.address, self.client[1])
        self.peer.client = told.client
        self.ssl = self.encrypted if told.scheme is None else told.scheme == "https"
        path, host = origin_form(event.target)
        if told.host is not None:
            host = told.host.encode("latin-1")
            check_headers([(b"host", host)])
        target = rooted(path, self.bounds.root_path.encode())
        if host is None and target == event.target and FORWARDED.isdisjoint(names):
            return event
        headers = [(name, value) for name, value in headers if name.lower() not in FORWARDED]
        if host is not None:
            headers = [(name, value) for name, value in headers if name.lower() != b"host"]
            headers.insert(0, (b"Host", host))
        return replaced(event, target, headers)

    async def stream_send(self, event: StreamEvent) -> None:
        # A connection that will not be kept says so, or the client sends its next request into the close. It is not
        # kept where the answer came before the whole body, and while draining.
        leaving = self.connection.their_state is h11.SEND_BODY or self.context.terminated.is_set()
        if isinstance(event, Response):
            if leaving:
                event = replace(event, headers=[*event.headers, (b"connection", b"close")])
            await super().stream_send(event)
            # With a Content-Length its head is held back for the body; see `_send_h11_event`.
            bodiless = self.asked.method == b"HEAD" or event.status_code in _BODILESS
            self.begin_answer(bodiless or self.apps.ending.promised or bool(self.held))
            return
        if self.held and isinstance(event, StreamClosed):  # it did not follow: the application failed
            held, self.held = self.held, b""
            await self.send(RawData(held))
        await super().stream_send(event)

    async def _send_h11_event(self, event: H11SendableEvent) -> None:
        """As hypercorn's, but a head whose body follows at once leaves with it: the peer wakes once, not twice."""
        try:
            data = self.held + (self.connection.send(event) or b"")
        except h11.LocalProtocolError:
            if self.connection.their_state is not h11.ERROR:
                raise
            return
        self.held = b""
        if isinstance(event, h11.Response) and any(name == b"content-length" for name, _ in event.headers):
            self.held = data
        elif data:
            await self.send(RawData(data))

    async def _send_error_response(self, status_code: int) -> None:
        if status_code == 431:
            await self.refuse(BodyTooLarge(f"a request's head is at most {self.config.h11_max_incomplete_size} bytes"))
        else:
            await self.refuse(InvalidBody("this is not HTTP/1.1"))

    async def refuse(self, error: PenstockError) -> None:
        """Answer with a problem and announce the close, unless an answer has begun."""
        connection = self.connection
        assert isinstance(connection, StrictConnection)
        if connection.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return
        asked = connection.request if connection.our_state is h11.SEND_RESPONSE else None
        told = answer(error)
        headers = [(name.encode(), value.encode()) for name, value in told.headers]
        headers += [(b"content-length", str(len(told.body)).encode()), (b"connection", b"close")]
        headers += self.config.response_headers("h11")
        await self._send_h11_event(h11.Response(status_code=told.status, headers=headers))
        if asked is None or asked.method != b"HEAD":
            await self._send_h11_event(h11.Data(data=told.body))
        await self._send_h11_event(h11.EndOfMessage())


@final
class HttpConnection:
    """Serves requests on ``stream`` until either side closes or a WebSocket handshake comes.

    A request's head has ``head_timeout`` seconds from its first byte, an idle connection ``keep_alive``. A peer
    that closes its sending side still gets an answer that has an end, if it begins within ``send_timeout``; of another
    it has left, and whatever still works on that is cancelled.
    """

    def __init__(
        self,
        stream: Guarded,
        app: ASGIFramework,
        config: HypercornConfig,
        shared: WorkerContext,
        state: ConnectionState,
        bounds: ServerConfig,
        peer: Connection,
    ) -> None:
        self._stream = stream
        self._peer = peer
        self._app = app
        self._config = config
        self._shared = shared
        self._state = state
        self._bounds = bounds
        self._reading = trio.CancelScope()
        self._protocol: _Protocol
        self._nursery: trio.Nursery
        self._idle = False
        self._begun = False  # the first byte of the next request has come, and not all of its head
        self._closing = False
        self._half_closed = False  # the peer sends nothing more
        self._endless = False  # the answer has begun, and goes on until its reader leaves

    def drain(self) -> None:
        """Close now if no request is being worked on. Else the answer's end will close, as ``shared`` is terminated."""
        if self._idle:
            self._reading.cancel(reason="draining")

    async def run(self) -> Head | None:
        """Serve. Returns the head of a WebSocket handshake, which then is the next thing to read from the stream,
        or None when there is nothing more to do but to close.
        """
        upgrade: _Upgrade | None = None
        refusal: PenstockError | None = None
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            self._protocol = protocol = self._make_protocol(nursery)
            self._become_idle(self._bounds.head_timeout)
            try:
                await self._read(protocol)
            except _Upgrade as found:
                upgrade = found
            except PenstockError as error:
                refusal = error
            else:
                if self._idle and self._begun and self._reading.cancelled_caught and not self._closing:
                    refusal = SlowRequest("the head of the request did not arrive in time")
            nursery.cancel_scope.cancel(reason="the connection has ended")
        if refusal is not None:  # nobody else sends any more
            await protocol.refuse(refusal)
        if upgrade is None:
            return None
        self._stream.give_back(upgrade.raw)
        return upgrade.head

    def _make_protocol(self, nursery: trio.Nursery) -> _Protocol:
        sock = self._stream.socket
        try:
            client = parse_socket_addr(sock.family, sock.getpeername())
            server = parse_socket_addr(sock.family, sock.getsockname())
        except OSError as error:
            raise trio.BrokenResourceError("the peer left at once") from error
        apps = Apps(nursery, self._app, self)
        protocol = _Protocol(
            self._app,  # type: ignore[arg-type]  # passed through to `spawn_app`, which does not use it
            self._config,
            self._shared,
            apps,
            self._state,
            self._stream.encrypted,
            client,
            server,
            self._send,
        )
        protocol.connection = StrictConnection(self._bounds.head_bytes)
        protocol.apps = apps
        protocol.begin_answer = self._begin_answer
        protocol.bounds = self._bounds
        protocol.peer = self._peer
        protocol.address = self._peer.client
        protocol.encrypted = self._stream.encrypted
        return protocol

    async def _read(self, protocol: _Protocol) -> None:
        with self._reading:
            while True:
                try:
                    data = await self._stream.receive_some(_READ)
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    return
                await protocol.handle(RawData(data))
                # Empty lines begin no request.
                if self._idle and not self._begun and protocol.connection.trailing_data[0].strip(b"\r\n"):
                    self._begin_head()
                if not data:
                    await self._let_answer(protocol)
                    return

    async def _let_answer(self, protocol: _Protocol) -> None:
        """The peer sends nothing more: wait until it has its answer, unless it has left a stream."""
        self._half_closed = True
        if self._idle or self._endless:
            return
        if protocol.connection.our_state is h11.SEND_RESPONSE:
            self._reading.deadline = trio.current_time() + self._bounds.send_timeout
        await trio.sleep_forever()  # the end of the answer ends the reading

    def _begin_answer(self, has_end: bool) -> None:
        self._endless = not has_end
        if self._half_closed and has_end:
            self._reading.deadline = inf
        elif self._half_closed:
            self._reading.cancel(reason="the peer has left the stream")

    def _become_idle(self, seconds: float) -> None:
        self._idle, self._begun, self._endless = True, False, False
        self._peer.rest()
        if self._shared.terminated.is_set():
            self._reading.cancel(reason="draining")
        self._reading.deadline = trio.current_time() + seconds

    def _begin_head(self) -> None:
        self._begun = True
        self._reading.deadline = trio.current_time() + self._bounds.head_timeout

    def send_now(self, data: bytes) -> bytes:
        return self._stream.send_now(data)

    async def send_all(self, data: bytes) -> None:
        try:
            if rest := self._stream.send_now(data):
                await self._stream.send_all(rest)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._nursery.cancel_scope.cancel(reason="the peer does not take the answer")
            await trio.lowlevel.checkpoint()

    async def _send(self, event: Event) -> None:
        """Where hypercorn's protocol sends to; only bytes ever wait."""
        if isinstance(event, RawData):
            await self.send_all(event.data)
        elif isinstance(event, Closed):
            self._closing = True
            self._reading.cancel(reason="answered, and the connection is not kept")
        elif isinstance(event, Updated):
            if event.idle:
                self._become_idle(self._bounds.keep_alive)
            else:
                self._idle = False
                self._reading.deadline = inf
