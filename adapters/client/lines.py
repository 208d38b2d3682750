"""One connection that tells of a session, as server-sent events or on a WebSocket: frames, until it breaks.

A server that says nothing for a heartbeat is asked to: a stream once, when it is opened, a WebSocket each time. A line
that stays silent (`ClientConfig.silence`) is dead, whatever TCP says. Who reconnects is `following`.
"""

from __future__ import annotations

import ssl
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Final, Generic, Literal, Protocol, TypeAlias, TypeVar, final

import httpx
import trio
from trio_websocket import (
    ConnectionClosed,
    ConnectionRejected,
    HandshakeError,
    WebSocketConnection,
    wrap_client_stream,
)

from penstock.engine import Cursor, PenstockError, encode_json

from ..forms.sse_reader import EventStream, ServerSent
from ..problems import Forbidden, Unauthenticated
from ..tasks import open_tasks
from .frames import Frame, from_message, from_socket, joined
from .place import Asks
from .refusals import BadAnswer, Unreachable, from_answer
from .wire import Wire, session_path

__all__ = ["Line", "Over", "open_line", "open_list"]

Over: TypeAlias = Literal["sse", "websocket"]

T = TypeVar("T")

_Stream: TypeAlias = trio.SocketStream | trio.SSLStream[trio.SocketStream]

_SUBPROTOCOL: Final = "penstock.v1"
_LONGEST_HEARTBEAT: Final = 3600  # that a server may be asked for, in seconds
_PING: Final = '{"op":"ping"}'  # its answer bears no id, so that it is nobody's
_PORTS: Final = {"http": 80, "https": 443}


class Line(Protocol):
    """An open connection."""

    async def receive(self) -> Frame:
        """The next frame. Raises `trio.EndOfChannel` when it was ended in order, `Unreachable` when it broke,
        `BadAnswer`, and what the server refuses to go on with. Cancelling it spoils the line."""


def open_line(wire: Wire, session_id: str, asks: Asks, over: Over, silence: float) -> AbstractAsyncContextManager[Line]:
    """Connect. It may be silent for ``silence`` seconds. Raises `Unreachable`, and what the server refuses with."""
    opening = _open_stream if over == "sse" else _open_socket
    return opening(wire, session_id, asks, silence)


@asynccontextmanager
async def _open_stream(wire: Wire, session_id: str, asks: Asks, silence: float) -> AsyncIterator[Line]:
    headers: dict[str, str] = {}
    query: dict[str, str] = {}
    if asks.snapshot:
        query["snapshot"] = "true"
        if asks.limit is not None:
            query["limit"] = str(asks.limit)
    elif asks.after == "now":  # no cursor, so no header: the stream's first line tells where that was
        query["after"] = asks.after
    elif asks.after is not None:
        headers["Last-Event-ID"] = asks.after
    async with _streamed(wire, f"{session_path(session_id)}/events", query, headers, silence, _frames) as line:
        yield line


def _frames(messages: Iterable[ServerSent]) -> list[Frame]:
    return joined([frame for message in messages for frame in from_message(message)])


def open_list(
    wire: Wire, after: Cursor | None, limit: int, read: Callable[[Iterable[ServerSent]], Iterable[T]]
) -> AbstractAsyncContextManager[StreamLine[T]]:
    """Connect to the stream of the list; ``read`` makes frames of its messages. Raises as `open_line`."""
    headers = {} if after is None else {"Last-Event-ID": str(after)}
    return _streamed(wire, "/v1/events", {"limit": str(limit)}, headers, wire.config.silence, read)


@asynccontextmanager
async def _streamed(
    wire: Wire,
    path: str,
    query: Mapping[str, str],
    headers: Mapping[str, str],
    silence: float,
    read: Callable[[Iterable[ServerSent]], Iterable[T]],
) -> AsyncIterator[StreamLine[T]]:
    query = {"heartbeat": str(min(max(1, int(wire.config.heartbeat)), _LONGEST_HEARTBEAT)), **query}
    asked = {"Accept": "text/event-stream", "Accept-Encoding": "identity", "Cache-Control": "no-store", **headers}
    async with wire.stream(path, query=query, headers=asked, within=silence) as response:
        form = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if form != "text/event-stream":
            raise BadAnswer(f"what answers at {wire.url} is no penstock server: it sends {form or 'something'}")
        line = StreamLine(response, silence, wire.config.frame_bytes, read)
        try:
            yield line
        finally:
            await line.leave()


@final
class StreamLine(Generic[T]):
    """As `Line`, of server-sent events of which ``read`` makes frames."""

    def __init__(
        self,
        response: httpx.Response,
        silence: float,
        bound: int,
        read: Callable[[Iterable[ServerSent]], Iterable[T]],
    ) -> None:
        self._read = read
        self._pieces = response.aiter_bytes()
        self._silence = silence
        self._parser = EventStream(bound)
        self._ready: deque[T] = deque()

    async def receive(self) -> T:
        """See `Line`."""
        while not self._ready:
            with trio.move_on_after(self._silence) as limit:
                try:
                    piece = await anext(self._pieces)
                except StopAsyncIteration:
                    raise trio.EndOfChannel from None
            if limit.cancelled_caught:
                raise Unreachable(f"the stream was silent for {self._silence} s")
            try:
                messages = self._parser.feed(piece)
            except ValueError as error:
                raise BadAnswer(str(error)) from error
            self._ready.extend(self._read(messages))
        return self._ready.popleft()

    async def leave(self) -> None:
        """End the library's generators from the inside: it leaves those that are not exhausted to the collector."""
        with trio.CancelScope() as scope, suppress(StopAsyncIteration, httpx.HTTPError, httpx.StreamError):
            scope.cancel(reason="penstock: the stream is left")
            while True:
                await anext(self._pieces)


@asynccontextmanager
async def _open_socket(wire: Wire, session_id: str, asks: Asks, silence: float) -> AsyncIterator[Line]:
    try:
        async with open_tasks() as nursery, _connected(wire) as stream:
            ws = await _handshake(nursery, stream, wire)
            line = _SocketLine(ws, session_id, wire.config.heartbeat, silence)
            await line.subscribe(asks)
            yield line
            # A farewell only where the line is well: on one that broke, or whose reader left, it would be waited for.
            with trio.move_on_after(wire.config.cleanup_timeout):
                await ws.aclose()
    except ExceptionGroup as group:  # of the library's own task, which reads
        raise _translated(group, wire) from group


@asynccontextmanager
async def _connected(wire: Wire) -> AsyncIterator[_Stream]:
    """A stream of our own: the WebSocket library leaves its open when the server closes first."""
    url = httpx.URL(wire.url)
    port = url.port or _PORTS[url.scheme]
    tcp: trio.SocketStream | None = None
    try:
        with trio.fail_after(wire.config.connect_timeout):
            tcp = await trio.open_tcp_stream(url.host, port)
            stream: _Stream = tcp
            if url.scheme == "https":
                context = wire.ssl_context or ssl.create_default_context()
                secure = trio.SSLStream(tcp, context, server_hostname=url.host, https_compatible=True)
                await secure.do_handshake()
                stream = secure
    except (OSError, trio.TooSlowError, trio.BrokenResourceError) as error:
        raise Unreachable(f"no connection to {wire.url}: {error}") from error
    else:
        yield stream
    finally:
        if tcp is not None:
            await trio.aclose_forcefully(tcp)


async def _handshake(nursery: trio.Nursery, stream: _Stream, wire: Wire) -> WebSocketConnection:
    url = httpx.URL(wire.url)
    host = url.netloc.decode()
    headers = [(name.encode(), value.encode()) for name, value in (await wire.headers()).items()]
    try:
        with trio.fail_after(wire.config.silence):
            return await wrap_client_stream(
                nursery,
                stream,
                host,
                f"{url.path.rstrip('/')}/v1/ws",
                subprotocols=[_SUBPROTOCOL],
                extra_headers=headers,
                max_message_size=wire.config.frame_bytes,
            )
    except (HandshakeError, ConnectionClosed, trio.TooSlowError, OSError) as error:
        raise _translated(error, wire) from error


def _translated(error: Exception, wire: Wire) -> PenstockError:
    """What the WebSocket library found, as ours."""
    if isinstance(error, ExceptionGroup):
        return _translated(error.exceptions[0], wire)
    if isinstance(error, ConnectionRejected):
        after = dict(error.headers or ()).get(b"retry-after")
        return from_answer(error.status_code, error.body or b"", None if after is None else after.decode("latin-1"))
    return Unreachable(f"no WebSocket at {wire.url}: {error!r}")


@final
class _SocketLine:
    """One subscription on a socket of its own."""

    def __init__(self, ws: WebSocketConnection, session_id: str, heartbeat: float, silence: float) -> None:
        self._ws = ws
        self._session_id = session_id
        self._heartbeat = heartbeat
        self._silence = silence
        self._ready: deque[Frame] = deque()

    async def subscribe(self, asks: Asks) -> None:
        frame: dict[str, str | int | bool] = {"op": "subscribe", "id": 1, "session_id": self._session_id}
        if asks.snapshot:
            frame["snapshot"] = True
            if asks.limit is not None:
                frame["limit"] = asks.limit
        elif asks.after is not None:
            frame["after"] = asks.after
        try:
            await self._ws.send_message(encode_json(frame).decode())
        except ConnectionClosed as closed:
            raise self._closed(closed) from closed

    async def receive(self) -> Frame:
        while not self._ready:
            try:
                message = await self._next()
            except ConnectionClosed as closed:
                raise self._closed(closed) from closed
            if not isinstance(message, str):
                raise BadAnswer("a frame is binary")
            self._ready.extend(from_socket(message, self._session_id, 1))
        return self._ready.popleft()

    async def _next(self) -> str | bytes:
        """The next message. A server that says nothing for a heartbeat is asked for one: a pong is none, and would not
        be seen while messages wait to be read."""
        message: str | bytes
        with trio.move_on_after(self._heartbeat):
            message = await self._ws.get_message()
            return message
        with trio.move_on_after(self._silence - self._heartbeat):
            await self._ws.send_message(_PING)
            message = await self._ws.get_message()
            return message
        raise Unreachable(f"the socket was silent for {self._silence} s")

    def _closed(self, closed: ConnectionClosed) -> PenstockError:
        code = None if closed.reason is None else closed.reason.code
        if code == 4401:
            return Unauthenticated("the token is not valid any more")
        if code == 4403:
            return Forbidden("the server closed the socket: this is not allowed")
        return Unreachable(f"the socket was closed ({code})")
