"""A server of our own for tests: on a free loopback port, ended with the test, spoken to by raw sockets."""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress

import httpx
import trio
import trio_websocket
from attrs import define
from hypercorn.typing import ASGIFramework

from penstock.adapters.access import OPEN, Identity, Recognize
from penstock.adapters.http import create_app
from penstock.adapters.server.accept import ServerConfig, WebSocketHandler, serve
from penstock.adapters.watching.metrics import Metrics
from penstock.adapters.websocket import SocketConfig, websocket_handler
from penstock.engine import Bus, Config, Engine, EventLog, MemoryLog, Producer, open_engine
from tests.adapters.describing import described, described_line, validate

__all__ = [
    "PATIENCE",
    "Lines",
    "Penstock",
    "Served",
    "Socket",
    "penstock",
    "problem",
    "read_to_end",
    "read_until",
    "serving",
]

PATIENCE = 10.0  # far above what any wait here takes, far below the test's own limit


@define
class Served:
    port: int
    shutdown: trio.Event
    finished: trio.Event

    async def connect(self) -> trio.SocketStream:
        return await trio.open_tcp_stream("127.0.0.1", self.port)

    async def exchange(self, raw: bytes) -> bytes:
        """Send, and read until the server closes."""
        with trio.fail_after(PATIENCE):
            async with await self.connect() as stream:
                await stream.send_all(raw)
                return await read_to_end(stream)

    async def get(self, path: str) -> bytes:
        return await self.exchange(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())


@asynccontextmanager
async def serving(
    app: ASGIFramework,
    websocket: WebSocketHandler,
    *,
    drain: Callable[[], Awaitable[None]] | None = None,
    config: ServerConfig | None = None,
) -> AsyncIterator[Served]:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    served = Served(listeners[0].socket.getsockname()[1], trio.Event(), trio.Event())

    async def run(task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        await serve(
            app,
            websocket,
            listeners,
            shutdown=served.shutdown,
            drain=drain,
            config=config,
            task_status=task_status,
        )
        served.finished.set()

    async with trio.open_nursery() as nursery:
        await nursery.start(run)
        yield served
        nursery.cancel_scope.cancel()


async def read_to_end(stream: trio.SocketStream) -> bytes:
    data = b""
    while piece := await stream.receive_some():
        data += piece
    return data


async def read_until(stream: trio.SocketStream, mark: bytes) -> bytes:
    data = b""
    with trio.fail_after(PATIENCE):
        while mark not in data:
            piece = await stream.receive_some()
            assert piece, data
            data += piece
    return data


def problem(answer: bytes) -> tuple[int, dict[str, object]]:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"content-type: application/problem+json" in head.lower()
    made = json.loads(body)
    status = int(head.split()[1])
    assert made["status"] == status
    return status, made


class Socket:
    """A WebSocket client that speaks JSON."""

    def __init__(self, ws: trio_websocket.WebSocketConnection, stream: trio.SocketStream) -> None:
        self.ws = ws
        self.stream = stream

    async def send(self, **frame: object) -> None:
        await self.ws.send_message(json.dumps(frame))

    async def receive(self) -> dict[str, object]:
        with trio.fail_after(PATIENCE):
            message = await self.ws.get_message()
        frame = json.loads(message)
        assert isinstance(frame, dict)
        for event in frame.get("events", ()):
            validate(event, {"$ref": "#/components/schemas/Event"})
        return frame

    async def ask(self, **frame: object) -> dict[str, object]:
        """Send, and read on to the answer with this id."""
        await self.send(**frame)
        while True:
            answer = await self.receive()
            if answer.get("id") == frame["id"]:
                return answer

    async def until(self, op: str) -> tuple[list[dict[str, object]], dict[str, object]]:
        """The frames before the first one with this ``op``, and that one."""
        before = []
        while (frame := await self.receive())["op"] != op:
            before.append(frame)
        return before, frame

    async def closed(self) -> int:
        """Read on to the end; the close code."""
        with trio.fail_after(PATIENCE), suppress(trio_websocket.ConnectionClosed):
            while True:
                await self.ws.get_message()
        assert self.ws.closed is not None
        return self.ws.closed.code


class Lines:
    """The lines of an answer, as they come. Chunks are read as strictly as RFC 9112 writes them."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.status = 0
        self.headers: dict[str, str] = {}
        self.ended = False  # with the last chunk, and not only with the connection
        self._raw = b""
        self._body = b""

    async def open(self) -> None:
        """Read the head."""
        head = await self._until(b"\r\n\r\n")
        status, *lines = head.decode().split("\r\n")
        self.status = int(status.split()[1])
        for line in lines:
            name, _, value = line.partition(":")
            self.headers[name.lower()] = value.strip()

    async def _until(self, mark: bytes) -> bytes:
        while mark not in self._raw:
            await self._receive()
        found, _, self._raw = self._raw.partition(mark)
        return found

    async def _receive(self) -> None:
        with trio.fail_after(PATIENCE):
            piece = await self.stream.receive_some()
        if not piece:
            raise EOFError
        self._raw += piece

    async def _more(self) -> None:
        """Read more of the body. Raises `EOFError` behind it."""
        if self.headers.get("transfer-encoding") != "chunked":
            if not self._raw:
                await self._receive()
            self._body, self._raw = self._body + self._raw, b""
            return
        if self.ended:
            raise EOFError
        size = int(await self._until(b"\r\n"), 16)
        while len(self._raw) < size + 2:
            await self._receive()
        assert self._raw[size : size + 2] == b"\r\n", self._raw
        self._body, self._raw = self._body + self._raw[:size], self._raw[size + 2 :]
        self.ended = not size

    async def _line(self) -> str:
        while b"\n" not in self._body:
            await self._more()
        line, _, self._body = self._body.partition(b"\n")
        return line.decode()

    async def next(self) -> str:
        """The next line, without its end. Raises `EOFError` after the last one."""
        line = await self._line()
        described_line(line)
        return line


class Penstock:
    """A whole server over an engine."""

    def __init__(self, engine: Engine, served: Served) -> None:
        self.engine = engine
        self.served = served
        self.url = f"http://127.0.0.1:{served.port}"

    @asynccontextmanager
    async def client(self) -> AsyncIterator[httpx.AsyncClient]:
        """A client whose every answer is held against the API's description."""
        hooks = {"response": [described]}
        # It speaks no TLS: to load whom it would trust takes longer than most tests.
        untrusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        async with httpx.AsyncClient(
            base_url=self.url, timeout=PATIENCE, trust_env=False, verify=untrusting, event_hooks=hooks
        ) as client:
            yield client

    @asynccontextmanager
    async def lines(self, path: str, *, version: str = "1.1", **headers: str) -> AsyncIterator[Lines]:
        async with await self.served.connect() as stream:
            head = [f"GET {path} HTTP/{version}", "Host: localhost"]
            head += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
            await stream.send_all("\r\n".join([*head, "", ""]).encode())
            lines = Lines(stream)
            await lines.open()
            yield lines

    @asynccontextmanager
    async def socket(
        self, *, subprotocols: Sequence[str] = ("penstock.v1",), headers: Sequence[tuple[bytes, bytes]] = ()
    ) -> AsyncIterator[Socket]:
        # Over a stream of our own: the library leaves its own open when the server closes first.
        async with await self.served.connect() as stream, trio.open_nursery() as nursery:
            ws = await trio_websocket.wrap_client_stream(
                nursery,
                stream,
                f"127.0.0.1:{self.served.port}",
                "/v1/ws",
                subprotocols=list(subprotocols),
                extra_headers=list(headers),
            )
            yield Socket(ws, stream)
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def penstock(
    log: EventLog | None = None,
    *,
    producers: Mapping[str, Producer] | None = None,
    heartbeat: float = 15.0,
    config: Config | None = None,
    server: ServerConfig | None = None,
    socket: SocketConfig | None = None,
    identity: Identity | Recognize = OPEN,
    owner: str | None = None,
    bus: Bus | None = None,
) -> AsyncIterator[Penstock]:
    """An engine over ``log`` behind a server on a free port; drained when the block is left."""
    metrics = Metrics()
    async with open_engine(
        log or MemoryLog(), producers=producers, config=config, observer=metrics, owner=owner, bus=bus
    ) as engine:
        metrics.watch(engine.statistics)
        app = create_app(engine, identity=identity, heartbeat=heartbeat, metrics=metrics)
        handler = websocket_handler(engine, identity=identity, config=socket)
        async with serving(app, handler, drain=engine.drain, config=server) as served:
            yield Penstock(engine, served)
