"""One port for HTTP and WebSocket: accepts, bounds, supervises and drains connections.

Owns who may connect and when everybody has to go. What is said on a connection is `connection`'s (hypercorn and
the ASGI application) and, after a handshake for the WebSocket path, the given handler's over trio-websocket.
One peer's error ends one peer's connection, never the server.
"""

from __future__ import annotations

import logging
import os
import socket as stdlib_socket
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from http import HTTPStatus
from typing import Final, TypeAlias, final

import h11
import trio
import trio_websocket
import wsproto.utilities
from hypercorn.typing import ASGIFramework, ASGIReceiveCallable, ASGISendCallable, ConnectionState, Scope

from penstock.engine import Overloaded, PenstockError

from ..problems import NotFound, RateLimited, answer
from ..watching.traffic import traffic
from .config import ServerConfig
from .connection import Config, HttpConnection, context
from .guarded import Guarded, reset
from .head import Head
from .lifespan import Lifespan, StartupFailed
from .limits import CONNECTION, Connection, RateLimiter, Shares, address_key
from .tls import Certificate

__all__ = ["Drain", "ServerConfig", "StartupFailed", "WebSocketHandler", "serve"]

_log = logging.getLogger("penstock.server")

# Handles one handshake: accepts or rejects it, and returns when the conversation is over. Whatever it leaves
# open is closed behind it. The event is set while draining, when all that ends by itself has ended.
WebSocketHandler: TypeAlias = Callable[[trio_websocket.WebSocketRequest, Head, trio.Event], Awaitable[None]]

# Makes what is going on end by itself.
Drain: TypeAlias = Callable[[], Awaitable[None]]

# Accepting fails when descriptors or memory have run out (trio retries what concerns one peer only). Some will
# be free again soon; until then busy waiting helps nobody.
_ACCEPT_PAUSE: Final = 0.1

# One connection to serve is accepted in each turn of the loop, as trio does it, so that those being served get theirs:
# with 64 a turn, clients that reconnect in a loop make everybody wait. But of those
# that have left already, or are turned away, so many at once: they must not stand before others.
_ACCEPT_AT_ONCE: Final = 64

# How many seconds' worth of one address's new connections may come at once.
_PEER_BURST: Final = 10

# hypercorn closes a connection after its thousandth request, to spread clients over workers: there is one process here,
# and a producer that keeps its connection must not run into the close.
_MAX_REQUESTS: Final = sys.maxsize

# Refusals that are said, at the same time and a second. Who comes on top of these is cut without a word.
_MAX_REFUSALS: Final = 128
_REFUSALS: Final = 50
_REFUSAL_TIMEOUT: Final = 1.0

# What a peer can do to us; all else is a bug and is logged with its traceback.
_PEERS_FAULT: Final = (
    ConnectionError,
    trio.BrokenResourceError,
    trio.ClosedResourceError,
    trio.TooSlowError,
    trio_websocket.ConnectionClosed,
    trio_websocket.HandshakeError,
    h11.RemoteProtocolError,
    wsproto.utilities.ProtocolError,
)


def _is_peers_fault(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return all(_is_peers_fault(inner) for inner in error.exceptions)
    return isinstance(error, _PEERS_FAULT)


@final
class _Connection:
    """What the server holds of one peer."""

    def __init__(self, stream: Guarded, address: str, key: str | None) -> None:
        self.stream = stream
        self.key = key  # what it is counted under; None: it is a proxy's
        self.peer = Connection(address, stream)
        self.http: HttpConnection | None = None


@final
class _Server:
    def __init__(self, app: ASGIFramework, websocket: WebSocketHandler, config: ServerConfig) -> None:
        self._app = app
        self._websocket = websocket
        self._config = config
        self._hypercorn = Config()
        self._hypercorn.include_server_header = False
        self._hypercorn.accesslog = self._hypercorn.errorlog = None  # ours is `penstock.server`
        self._hypercorn.h11_max_incomplete_size = config.head_bytes
        self._hypercorn.keep_alive_max_requests = _MAX_REQUESTS
        self._hypercorn.root_path = config.root_path
        self._shared = context()
        self._peers = Shares(config.peer_connections, "connections open,")
        self._refusals = RateLimiter(_REFUSALS, _MAX_REFUSALS)
        self._arrivals = RateLimiter(config.peer_rate, max(1.0, config.peer_rate * _PEER_BURST))
        self._open: set[_Connection] = set()
        self._refusing = 0
        self._drained = trio.Event()
        self._ended = trio.Event()  # renewed each time the last connection has ended
        self._lifespan = Lifespan(app)

    async def run(
        self,
        listeners: Sequence[trio.SocketListener],
        shutdown: trio.Event,
        drain: Drain | None,
        task_status: trio.TaskStatus[None],
    ) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._lifespan.run)
            failure = await self._lifespan.startup(self._config.lifespan_timeout)
            if failure is None:
                await self._serve(listeners, shutdown, drain, task_status)
                await self._lifespan.shutdown(self._config.lifespan_timeout)
            nursery.cancel_scope.cancel(reason="the server has ended")
        if failure is not None:
            raise StartupFailed(f"the application could not start: {failure}")

    async def _serve(
        self,
        listeners: Sequence[trio.SocketListener],
        shutdown: trio.Event,
        drain: Drain | None,
        task_status: trio.TaskStatus[None],
    ) -> None:
        async with trio.open_nursery() as connections:
            try:
                async with trio.open_nursery() as accepting:
                    for listener in listeners:
                        accepting.start_soon(self._accept, listener, connections)
                    task_status.started()
                    await shutdown.wait()
                    accepting.cancel_scope.cancel(reason="draining")
                await self._drain(drain)
            finally:
                for connection in self._open:
                    connection.stream.abort()
                connections.cancel_scope.cancel(reason="the time to drain is over")

    async def _drain(self, drain: Drain | None) -> None:
        with trio.move_on_after(self._config.drain_timeout) as limit:
            await self._shared.terminated.set()
            for connection in self._open:
                if connection.http is not None:
                    connection.http.drain()
            if drain is not None:
                try:
                    await drain()
                except Exception:  # noqa: BLE001  # the server has to end
                    _log.exception("draining failed; connections are closed all the same")
            self._drained.set()
            limit.deadline = min(limit.deadline, trio.current_time() + self._config.farewell_timeout)
            while self._open:
                await self._ended.wait()
        if limit.cancelled_caught:
            _log.warning("%d connections did not end in time and are cut", len(self._open))

    async def _accept(self, listener: trio.SocketListener, nursery: trio.Nursery) -> None:
        failing = False
        async with listener:
            with stdlib_socket.socket(fileno=os.dup(listener.socket.fileno())) as waiting:
                waiting.setblocking(False)
                while True:
                    try:
                        stream = await listener.accept()
                    except OSError as error:
                        if not failing:
                            _log.error("cannot accept connections for now: %s", error)
                        failing = True
                        await trio.sleep(_ACCEPT_PAUSE)
                        continue
                    failing = False
                    served = self._receive(stream, nursery)
                    others = _accept_waiting(waiting, _ACCEPT_AT_ONCE)
                    while not served and (another := next(others, None)) is not None:
                        served = self._receive(another, nursery)

    def _receive(self, stream: trio.SocketStream, nursery: trio.Nursery) -> bool:
        """Serve it, or refuse it, in ``nursery``; whether it is served."""
        address = _address(stream)
        if address is None:
            stream.socket.close()  # it has left while it waited for its turn, and must not keep others from theirs
            return False
        key = None if address in self._config.trusted_proxies else address_key(address)
        try:
            self._admit(key)
        except (Overloaded, RateLimited) as error:
            traffic.refused += 1
            if self._may_say():
                nursery.start_soon(self._refuse, self._guard(stream), error)
            else:
                reset(stream.socket)
            return False
        connection = _Connection(self._guard(stream), address, key)
        self._open.add(connection)
        traffic.connections += 1
        nursery.start_soon(self._supervise, connection)
        return True

    def _guard(self, stream: trio.SocketStream) -> Guarded:
        tls = self._config.tls
        context = tls.context if isinstance(tls, Certificate) else tls
        return Guarded(stream, send_timeout=self._config.send_timeout, tls=context)

    def _admit(self, key: str | None) -> None:
        """Count one more of ``key``'s. Raises `Overloaded` and `RateLimited`."""
        if len(self._open) >= self._config.max_connections:
            raise Overloaded("this server holds as many connections as it may; try again")
        if key is not None:
            self._arrivals.take(key)
            self._peers.take(key)

    def _may_say(self) -> bool:
        """Whether there is time to say why."""
        try:
            self._refusals.take("")
        except RateLimited:
            return False
        return self._refusing < _MAX_REFUSALS

    def _dismiss(self, connection: _Connection) -> None:
        connection.peer.rest()
        if connection.key is not None:
            self._peers.leave(connection.key)
        self._open.discard(connection)
        traffic.connections -= 1
        if not self._open:
            self._ended.set()
            self._ended = trio.Event()

    async def _supervise(self, connection: _Connection) -> None:
        """Serve one connection to its end. Raises nothing but `trio.Cancelled`."""
        CONNECTION.set(connection.peer)
        try:
            await connection.stream.secure(self._config.head_timeout)
            await self._converse(connection)
            await connection.stream.finish(self._config.linger)
        except* Exception as errors:  # noqa: BLE001  # whatever one connection does, also while cancelled, others go on
            if _is_peers_fault(errors):
                _log.debug("a peer broke its connection: %r", errors)
            else:
                _log.exception("a connection failed")
        finally:
            connection.stream.abort()
            self._dismiss(connection)

    async def _converse(self, connection: _Connection) -> None:
        state = ConnectionState(self._lifespan.state.copy())
        connection.http = HttpConnection(
            connection.stream, self._app, self._hypercorn, self._shared, state, self._config, connection.peer
        )
        head = await connection.http.run()
        connection.http = None
        if head is None:
            return
        async with trio.open_nursery() as nursery:
            with trio.fail_after(self._config.head_timeout):
                request = await trio_websocket.wrap_server_stream(
                    nursery,
                    connection.stream,
                    message_queue_size=self._config.websocket_messages,
                    max_message_size=self._config.websocket_message_bytes,
                )
            await self._websocket(request, head, self._drained)
            nursery.cancel_scope.cancel(reason="the conversation is over")

    async def _refuse(self, stream: Guarded, error: PenstockError) -> None:
        """Say that there is no room, in bounded time."""
        told = answer(error)
        lines = [f"HTTP/1.1 {told.status} {HTTPStatus(told.status).phrase}", f"Content-Length: {len(told.body)}"]
        lines += [f"{name}: {value}" for name, value in (*told.headers, ("Connection", "close"))]
        self._refusing += 1
        try:
            with trio.move_on_after(_REFUSAL_TIMEOUT):
                await stream.send_all("\r\n".join(lines).encode() + b"\r\n\r\n" + told.body)
                await stream.finish(_REFUSAL_TIMEOUT)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            self._refusing -= 1
            stream.abort()


def _accept_waiting(listening: stdlib_socket.socket, most: int) -> Iterator[trio.SocketStream]:
    """Those who have been waiting. What goes wrong is said by the next ordinary accept."""
    for _ in range(most):
        try:
            accepted, _peer = listening.accept()
        except OSError:
            return
        yield trio.SocketStream(trio.socket.from_stdlib_socket(accepted))


def _address(stream: trio.SocketStream) -> str | None:
    """Where the peer is; None when it is gone."""
    try:
        name = stream.socket.getpeername()
    except OSError:
        return None
    if not isinstance(name, tuple):
        return ""
    # A socket for both families has a peer of IPv4 as ::ffff:192.0.2.1.
    address = str(name[0])
    return address.removeprefix("::ffff:") if address.startswith("::ffff:") and "." in address else address


async def _nothing(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
    """The application where there is only a WebSocket: what is not its handshake leads nowhere."""
    if scope["type"] != "http":
        raise NotFound("this is for requests only")
    told = answer(NotFound("there is nothing here but a WebSocket"))
    await send({"type": "http.response.start", "status": told.status, "headers": told.head()})
    await send({"type": "http.response.body", "body": told.body, "more_body": False})


async def serve(
    app: ASGIFramework | None,
    websocket: WebSocketHandler,
    listeners: Sequence[trio.SocketListener],
    *,
    shutdown: trio.Event,
    drain: Drain | None = None,
    config: ServerConfig | None = None,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until ``shutdown`` is set, then drain and return. Takes ownership of ``listeners``.

    Without an ``app`` there is the WebSocket alone.

    Draining: no new connection, idle ones are closed, ``drain`` is awaited (streams end by it), the others get
    to finish within ``farewell_timeout``, all of it within ``drain_timeout``; what is left then is cut, also a
    peer that never reads. Cancelling cuts everything at once. ``task_status.started()`` is called when connections are
    accepted.

    The head of an answer with a ``content-length`` leaves together with the first piece of its body.

    Raises `StartupFailed` when the application's lifespan startup fails.
    """
    await _Server(_nothing if app is None else app, websocket, config or ServerConfig()).run(
        listeners, shutdown, drain, task_status
    )
