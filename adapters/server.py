"""One port for HTTP and WebSocket: accepts, bounds, supervises and drains connections.

Owns who may connect and when everybody has to go. What is said on a connection is `http1`'s (hypercorn and
the ASGI application) and, after a handshake for the WebSocket path, the given handler's over trio-websocket.
One peer's error ends one peer's connection, never the server.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeAlias, TypeVar, final

import h11
import trio
import trio_websocket
import wsproto.utilities
from attrs import Attribute, field, frozen
from hypercorn.config import Config as HypercornConfig
from hypercorn.typing import ASGIFramework, ConnectionState

from engine import Overloaded

from .guarded import Guarded
from .head import Head
from .http1 import Bounds, HttpConnection, context
from .lifespan import Lifespan, StartupFailed
from .problems import answer

__all__ = ["Drain", "ServerConfig", "StartupFailed", "WebSocketHandler", "serve"]

_log = logging.getLogger("penstock.server")

# Handles one handshake: accepts or rejects it, and returns when the conversation is over. Whatever it leaves
# open is closed behind it. The event is set while draining, when all that ends by itself has ended.
WebSocketHandler: TypeAlias = Callable[[trio_websocket.WebSocketRequest, Head, trio.Event], Awaitable[None]]

# Makes what is going on end by itself.
Drain: TypeAlias = Callable[[], Awaitable[None]]

_Number = TypeVar("_Number", int, float)


def _positive(_: object, attribute: Attribute[_Number], value: _Number) -> None:
    if not value > 0:
        raise ValueError(f"{attribute.name} must be above 0, not {value!r}")


@final
@frozen(kw_only=True)
class ServerConfig:
    """The server's bounds, each with its reason. Times are in seconds."""

    # A viewer costs some 32 KiB, so this is 320 MiB: what one process serves before another should.
    max_connections: int = field(default=10_000, validator=_positive)

    # A connection that takes nothing for so long is gone or hopeless. It resumes by cursor, so nothing is lost.
    send_timeout: float = field(default=30.0, validator=_positive)

    # What process supervisors commonly wait between SIGTERM and SIGKILL.
    drain_timeout: float = field(default=10.0, validator=_positive)

    # Of that, what clients get to take the last of their answers once everything has ended: a slow line's worth of
    # a buffer. Who needs longer does not read; it resumes by cursor, and the process has time left to close.
    farewell_timeout: float = field(default=3.0, validator=_positive)

    # hypercorn's own: cookies and a token fit many times over.
    head_bytes: int = field(default=16 * 1024, validator=_positive)

    # A head is one packet or a few; more than this is a peer that wants to hold a connection.
    head_timeout: float = field(default=10.0, validator=_positive)

    # Above the 60 s that load balancers keep idle connections to us: who closes first must be the client.
    keep_alive: float = field(default=75.0, validator=_positive)

    # How long an answered peer may go on sending before it is cut, so that it gets to read the answer.
    linger: float = field(default=2.0, validator=_positive)

    # The application's own start and stop; the engine is open before and closed after it.
    lifespan_timeout: float = field(default=10.0, validator=_positive)

    # A message is a command with a prompt: as large as a request's body may be.
    websocket_message_bytes: int = field(default=1024 * 1024, validator=_positive)

    # Commands that wait while one is carried out; then the socket is not read, and the peer waits.
    websocket_messages: int = field(default=16, validator=_positive)

    # Every other handshake is a plain request to the application.
    websocket_path: str = "/v1/ws"


# Accepting fails when descriptors or memory have run out (trio retries what concerns one peer only). Some will
# be free again soon; until then busy waiting helps nobody.
_ACCEPT_PAUSE: Final = 0.1

# Refusals past the cap, said at the same time. Who comes on top of these is cut without a word.
_MAX_REFUSALS: Final = 128
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

    def __init__(self, stream: Guarded) -> None:
        self.stream = stream
        self.http: HttpConnection | None = None


@final
class _Server:
    def __init__(self, app: ASGIFramework, websocket: WebSocketHandler, config: ServerConfig) -> None:
        self._app = app
        self._websocket = websocket
        self._config = config
        self._bounds = Bounds(
            head_bytes=config.head_bytes,
            head_timeout=config.head_timeout,
            keep_alive=config.keep_alive,
            websocket_path=config.websocket_path,
        )
        self._hypercorn = HypercornConfig()
        self._hypercorn.include_server_header = False
        self._hypercorn.accesslog = self._hypercorn.errorlog = None  # ours is `penstock.server`
        self._hypercorn.h11_max_incomplete_size = config.head_bytes
        self._shared = context()
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
                guarded = Guarded(stream, send_timeout=self._config.send_timeout)
                if len(self._open) < self._config.max_connections:
                    connection = _Connection(guarded)
                    self._open.add(connection)
                    nursery.start_soon(self._supervise, connection)
                elif self._refusing < _MAX_REFUSALS:
                    nursery.start_soon(self._refuse, guarded)
                else:
                    guarded.abort()

    async def _supervise(self, connection: _Connection) -> None:
        """Serve one connection to its end. Raises nothing but `trio.Cancelled`."""
        try:
            await self._converse(connection)
            await connection.stream.finish(self._config.linger)
        except Exception as error:  # noqa: BLE001  # whatever one connection does, the others go on
            if _is_peers_fault(error):
                _log.debug("a peer broke its connection: %r", error)
            else:
                _log.exception("a connection failed")
        finally:
            connection.stream.abort()
            self._open.discard(connection)
            if not self._open:
                self._ended.set()
                self._ended = trio.Event()

    async def _converse(self, connection: _Connection) -> None:
        state = ConnectionState(self._lifespan.state.copy())
        connection.http = HttpConnection(
            connection.stream, self._app, self._hypercorn, self._shared, state, self._bounds
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

    async def _refuse(self, stream: Guarded) -> None:
        """Say that there is no room, in bounded time."""
        told = answer(Overloaded("this server holds as many connections as it may; try again"))
        lines = [f"HTTP/1.1 {told.status} Service Unavailable", f"Content-Length: {len(told.body)}"]
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


async def serve(
    app: ASGIFramework,
    websocket: WebSocketHandler,
    listeners: Sequence[trio.SocketListener],
    *,
    shutdown: trio.Event,
    drain: Drain | None = None,
    config: ServerConfig | None = None,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until ``shutdown`` is set, then drain and return. Takes ownership of ``listeners``.

    Draining: no new connection, idle ones are closed, ``drain`` is awaited (streams end by it), the others get
    to finish within ``farewell_timeout``, all of it within ``drain_timeout``; what is left then is cut, also a
    peer that never reads. Cancelling
    cuts everything at once. ``task_status.started()`` is called when connections are accepted.

    Raises `StartupFailed` when the application's lifespan startup fails.
    """
    await _Server(app, websocket, config or ServerConfig()).run(listeners, shutdown, drain, task_status)
