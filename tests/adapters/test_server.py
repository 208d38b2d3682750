"""The accept loop: bounds, deadlines, supervision and draining, over real loopback sockets."""

from __future__ import annotations

import errno
import logging
import re
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import suppress
from functools import partial
from wsgiref.handlers import format_date_time

import pytest
import trio
import trio_websocket
from attrs import define, field
from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, Scope
from quart import Response, request
from quart_trio import QuartTrio

from penstock.adapters.server.accept import ServerConfig, StartupFailed, serve
from penstock.adapters.server.guarded import Guarded
from penstock.adapters.server.head import Head
from tests.adapters.serving import PATIENCE, problem, read_to_end, read_until, serving


@define
class Flood:
    """An endless answer, and how it ended."""

    begun: trio.Event = field(factory=trio.Event)
    ended: trio.Event = field(factory=trio.Event)
    pieces: int = 0

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._run()

    async def _run(self) -> AsyncIterator[bytes]:
        try:
            while True:
                self.pieces += 1
                yield b"data: " + b"x" * 4096 + b"\n\n"
                self.begun.set()
        finally:
            self.ended.set()


@define
class World:
    """An application with one route for each kind of behaviour, and what it saw."""

    flood: Flood = field(factory=Flood)
    stream_open: trio.Event = field(factory=trio.Event)
    stream_end: trio.Event = field(factory=trio.Event)
    stream_left: trio.Event = field(factory=trio.Event)

    def app(self) -> QuartTrio:
        app = QuartTrio("world", static_folder=None)
        app.config["MAX_CONTENT_LENGTH"] = 1000

        @app.get("/hello")
        async def hello() -> str:
            return "hello"

        @app.post("/echo")
        async def echo() -> bytes:
            body = await request.get_data()
            assert isinstance(body, bytes)
            return body

        @app.get("/flood")
        async def flood() -> Response:
            response = Response(aiter(self.flood), mimetype="text/event-stream")
            response.timeout = None
            return response

        @app.get("/stream")
        async def stream() -> Response:
            async def events() -> AsyncIterator[bytes]:
                try:
                    yield b": open\n\n"
                    self.stream_open.set()
                    await self.stream_end.wait()
                    yield b": end\n\n"
                finally:
                    self.stream_left.set()

            response = Response(events(), mimetype="text/event-stream")
            response.timeout = None
            return response

        @app.get("/broken")
        async def broken() -> Response:
            async def pieces() -> AsyncIterator[bytes]:
                yield b"begun"
                raise ValueError("in the middle of an answer")

            return Response(pieces(), mimetype="text/plain")

        return app


async def echo_socket(asked: trio_websocket.WebSocketRequest, head: Head, drained: trio.Event) -> None:
    ws = await asked.accept()
    try:
        while True:
            await ws.send_message(f"{head.path} {await ws.get_message()!s}")
    except trio_websocket.ConnectionClosed:
        pass


async def stalled_reader(port: int, path: str = "/flood") -> trio.SocketStream:
    """A client that asks and then reads nothing, with a small buffer of its own."""
    sock = trio.socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    await sock.connect(("127.0.0.1", port))
    stream = trio.SocketStream(sock)
    await stream.send_all(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    return stream


# a reader that stops reading is cut, and nobody else notices.
async def test_a_stalled_reader_is_cut_after_the_send_timeout_and_others_do_not_notice() -> None:
    world = World()
    limit = 2.0  # so long that nothing else on a busy machine takes as much
    async with serving(world.app(), echo_socket, config=ServerConfig(send_timeout=limit)) as served:
        async with await stalled_reader(served.port):
            with trio.fail_after(PATIENCE):
                await world.flood.begun.wait()
                begun = trio.current_time()
                others = 0
                while not world.flood.ended.is_set():
                    asked = trio.current_time()
                    assert (await served.get("/hello")).endswith(b"hello")
                    assert trio.current_time() - asked < 0.8 * limit, "another reader waited for the stalled one"
                    others += 1
                assert 0.8 * limit < trio.current_time() - begun < 6 * limit
        assert others > 5
        assert world.flood.pieces * 4096 < 16 * 1024 * 1024, "what waits for a stalled reader is bounded"


@pytest.mark.parametrize("limits", [{"drain_timeout": 0.3}, {"farewell_timeout": 0.3}])
async def test_shutdown_with_a_client_that_never_reads_ends_within_the_drain_limit(limits: dict[str, float]) -> None:
    world = World()
    config = ServerConfig(send_timeout=600.0, **limits)  # type: ignore[arg-type]
    async with serving(world.app(), echo_socket, config=config) as served, await stalled_reader(served.port):
        with trio.fail_after(PATIENCE):
            await world.flood.begun.wait()
        served.shutdown.set()
        with trio.fail_after(2.0):
            await served.finished.wait()
        assert world.flood.ended.is_set()


async def test_a_connection_is_kept_however_many_requests_came_over_it() -> None:
    async with serving(World().app(), echo_socket) as served, await served.connect() as stream:
        for _ in range(1100):  # hypercorn's own bound is 1000
            await stream.send_all(b"GET /hello HTTP/1.1\r\nHost: localhost\r\n\r\n")
            answer = await read_until(stream, b"\r\n\r\nhello")
            assert answer.startswith(b"HTTP/1.1 200 ")
            assert b"connection: close" not in answer.lower()


async def test_an_answer_that_breaks_off_before_its_body_still_has_its_head() -> None:
    async def app(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        assert scope["type"] == "http"
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
        raise ValueError("before the body")

    async with serving(app, echo_socket) as served:
        answer = await served.exchange(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert answer.endswith(b"\r\n\r\n")


async def test_shutdown_lets_streams_end_by_themselves_through_the_drain_hook() -> None:
    world = World()

    async def drain() -> None:
        world.stream_end.set()

    async with serving(world.app(), echo_socket, drain=drain) as served, await served.connect() as stream:
        await stream.send_all(b"GET /stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
        with trio.fail_after(PATIENCE):
            await world.stream_open.wait()
            served.shutdown.set()
            answer = await read_to_end(stream)
            await stream.aclose()
            await served.finished.wait()
    assert b": end\n\n" in answer
    assert answer.endswith(b"0\r\n\r\n"), "the answer is complete, not broken off"


async def test_shutdown_closes_idle_connections_at_once_and_refuses_new_ones() -> None:
    async with (
        serving(World().app(), echo_socket) as served,
        await served.connect() as kept,
        await served.connect() as silent,
    ):
        await kept.send_all(b"GET /hello HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await read_until(kept, b"hello")
        served.shutdown.set()
        with trio.fail_after(2.0):
            assert await read_to_end(kept) == b""
            assert await read_to_end(silent) == b""
        await kept.aclose()
        await silent.aclose()
        with trio.fail_after(2.0):
            await served.finished.wait()
        with pytest.raises(OSError):
            await served.connect()


async def test_a_failing_drain_hook_does_not_keep_the_server(caplog: pytest.LogCaptureFixture) -> None:
    async def drain() -> None:
        raise ValueError("no")

    async with serving(World().app(), echo_socket, drain=drain) as served:
        served.shutdown.set()
        with trio.fail_after(PATIENCE):
            await served.finished.wait()
    assert "draining failed" in caplog.text


async def test_a_drain_hook_that_hangs_is_cut_at_the_limit() -> None:
    config = ServerConfig(drain_timeout=0.2)
    async with serving(World().app(), echo_socket, drain=trio.sleep_forever, config=config) as served:
        served.shutdown.set()
        with trio.fail_after(2.0):
            await served.finished.wait()


async def test_connections_past_the_cap_get_a_clean_refusal_and_room_is_given_back() -> None:
    async with serving(World().app(), echo_socket, config=ServerConfig(max_connections=2)) as served:
        async with await served.connect() as one, await served.connect() as two:
            for stream in (one, two):
                await stream.send_all(b"GET /hello HTTP/1.1\r\nHost: localhost\r\n\r\n")
                await read_until(stream, b"hello")
            refused = await served.get("/hello")
            status, made = problem(refused)
            assert status == 503
            assert made["code"] == "OVERLOADED"
            assert made["retryable"] is True
            assert b"\r\nRetry-After: 1\r\n" in refused
        with trio.fail_after(PATIENCE):
            while not (await served.get("/hello")).endswith(b"hello"):
                pass


async def test_a_head_too_large_is_refused() -> None:
    async with serving(World().app(), echo_socket, config=ServerConfig(head_bytes=2048)) as served:
        status, made = problem(await served.exchange(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"y" * 100_000))
        assert status == 413
        assert made["code"] == "BODY_TOO_LARGE"


@pytest.mark.parametrize("before", ["nothing", "an answer", "an answer, awaited"])
async def test_a_head_too_slow_is_refused(before: str) -> None:
    async with (
        serving(World().app(), echo_socket, config=ServerConfig(head_timeout=0.2)) as served,
        await served.connect() as stream,
    ):
        first = b"" if before == "nothing" else b"GET /hello HTTP/1.1\r\nHost: localhost\r\n\r\n"
        if before == "an answer, awaited":
            await stream.send_all(first)
            await read_until(stream, b"hello")
            first = b""
        await stream.send_all(first + b"GET /hello HTTP/1.1\r\nHo")
        if first:
            await read_until(stream, b"hello")
        with trio.fail_after(PATIENCE):
            status, made = problem(await read_to_end(stream))
        assert status == 504
        assert made["code"] == "TIMEOUT"


async def test_a_silent_connection_is_closed_without_a_word() -> None:
    async with serving(World().app(), echo_socket, config=ServerConfig(head_timeout=0.2)) as served:
        assert await served.exchange(b"") == b""


async def test_an_idle_connection_is_closed_after_the_keep_alive_time() -> None:
    async with serving(World().app(), echo_socket, config=ServerConfig(keep_alive=0.2)) as served:
        answer = await served.exchange(b"GET /hello HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert answer.endswith(b"hello")


async def test_empty_lines_between_requests_begin_none() -> None:
    config = ServerConfig(head_timeout=0.1, keep_alive=0.5)
    async with serving(World().app(), echo_socket, config=config) as served, await served.connect() as stream:
        asked = b"GET /hello HTTP/1.1\r\nHost: localhost\r\n\r\n"
        await stream.send_all(asked + b"\r\n")
        await read_until(stream, b"hello")
        await stream.send_all(b"\r\n")
        with trio.fail_after(PATIENCE):
            assert await read_to_end(stream) == b"", "it is idle, and no request that is slow"


async def test_every_answer_says_when_it_was_made(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = [0.0, 0.9, 1.0, 86_400.0, 1.5]
    async with serving(World().app(), echo_socket) as served:
        said = []
        asked = b"GET /hello HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        for second in seconds:
            monkeypatch.setattr("penstock.adapters.server.connection.time", lambda: second)  # noqa: B023
            monkeypatch.setattr("hypercorn.config.time", lambda: second)  # noqa: B023
            said.append(re.findall(rb"\r\ndate: (.*)\r\n", (await served.exchange(asked)).lower()))
    assert said == [[format_date_time(second).lower().encode()] for second in seconds]


# hypercorn's own loop leaves such a connection open under Quart-Trio.
async def test_a_connection_that_asks_to_be_closed_is_closed_with_the_answer() -> None:
    async with serving(World().app(), echo_socket) as served:
        for _ in range(10):
            assert (await served.get("/hello")).endswith(b"hello")


async def test_requests_on_one_connection_are_answered_in_order_also_when_pipelined() -> None:
    async with serving(World().app(), echo_socket) as served:
        one = b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\none"
        two = b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\nConnection: close\r\n\r\ntwo"
        answer = await served.exchange(one + two)
        assert [part[:3] for part in answer.split(b"\r\n\r\n")[1:]] == [b"one", b"two"]


async def test_an_answer_given_before_the_whole_body_came_reaches_the_client() -> None:
    async with serving(World().app(), echo_socket) as served, await served.connect() as stream:
        answer = b""

        async def upload() -> None:
            try:
                for _ in range(100):
                    await stream.send_all(b"z" * 10_000)
            except trio.BrokenResourceError:
                pass

        await stream.send_all(b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n")
        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(upload)
                answer = await read_until(stream, b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 413")
        assert b"\r\nconnection: close\r\n" in answer.lower(), "or the next request would be sent into the close"


#
@pytest.mark.parametrize("when", ["before", "while"])
async def test_a_peer_that_resets_its_connection_harms_nobody(when: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    world = World()
    async with serving(world.app(), echo_socket) as served:
        for _ in range(20):
            stream = await served.connect()
            if when == "while":
                await stream.send_all(b"GET /stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
                await read_until(stream, b": open")
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            await stream.aclose()
        assert (await served.get("/hello")).endswith(b"hello")
        if when == "while":
            with trio.fail_after(PATIENCE):
                await world.stream_left.wait()
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_a_failing_application_breaks_one_answer_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async with serving(World().app(), echo_socket) as served:
        answer = await served.get("/broken")
        assert b"begun" in answer
        assert not answer.endswith(b"0\r\n\r\n"), "a broken answer must not look complete"
        assert (await served.get("/hello")).endswith(b"hello")
    assert "in the middle of an answer" in caplog.text


async def test_websocket_and_http_share_the_port() -> None:
    async with serving(World().app(), echo_socket) as served:
        url = f"ws://127.0.0.1:{served.port}/v1/ws?a=b"
        with trio.fail_after(PATIENCE):
            async with trio_websocket.open_websocket_url(url) as ws:
                await ws.send_message("hi")
                assert await ws.get_message() == "/v1/ws hi"
                assert (await served.get("/hello")).endswith(b"hello")


HANDSHAKE = (
    b"GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n"
)


# A proxy may send a handshake over a connection that it has used for requests before.
async def test_a_kept_connection_may_turn_into_a_websocket() -> None:
    async with serving(World().app(), echo_socket) as served, await served.connect() as stream:
        await stream.send_all(b"GET /hello HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await read_until(stream, b"hello")
        await stream.send_all(HANDSHAKE % b"/v1/ws")
        assert (await read_until(stream, b"\r\n\r\n")).startswith(b"HTTP/1.1 101")
        await stream.send_all(b"\x89\x80\x00\x00\x00\x00")
        assert await read_until(stream, b"\x8a\x00")


async def test_a_handshake_for_another_path_is_a_request_like_any_other() -> None:
    async with serving(World().app(), echo_socket) as served, await served.connect() as stream:
        await stream.send_all(HANDSHAKE % b"/hello")
        assert (await read_until(stream, b"hello")).startswith(b"HTTP/1.1 200")


async def test_half_a_handshake_is_a_request_like_any_other() -> None:
    async with serving(World().app(), echo_socket) as served, await served.connect() as stream:
        await stream.send_all((HANDSHAKE % b"/v1/ws").replace(b"Version: 13", b"Version: 8"))
        assert (await read_until(stream, b"\r\n\r\n")).startswith(b"HTTP/1.1 404")


@pytest.mark.parametrize("host", [b"\xff\xfe", b"a" * 70 + b".com", b""])
async def test_a_handshake_with_a_strange_host_harms_nobody(host: bytes) -> None:
    async with serving(World().app(), echo_socket) as served:
        with trio.fail_after(PATIENCE):
            async with await served.connect() as stream:
                await stream.send_all((HANDSHAKE % b"/v1/ws").replace(b"Host: localhost", b"Host: " + host))
                await stream.receive_some()
        assert (await served.get("/hello")).endswith(b"hello")


async def test_a_failing_websocket_handler_takes_nobody_down(caplog: pytest.LogCaptureFixture) -> None:
    async def failing(asked: trio_websocket.WebSocketRequest, head: Head, drained: trio.Event) -> None:
        await asked.accept()
        raise ValueError("the handler is broken")

    async with serving(World().app(), failing) as served:
        async with await served.connect() as stream:
            await stream.send_all(HANDSHAKE % b"/v1/ws")
            with trio.fail_after(PATIENCE), suppress(trio.BrokenResourceError):  # closed or reset
                await read_to_end(stream)
        assert (await served.get("/hello")).endswith(b"hello")
    assert "the handler is broken" in caplog.text


@pytest.mark.parametrize("error", [trio_websocket.ConnectionClosed(None), ValueError("the handler is broken")])
async def test_a_websocket_handler_that_fails_when_it_is_cancelled_does_not_fail_the_server(error: Exception) -> None:
    async def failing(asked: trio_websocket.WebSocketRequest, head: Head, drained: trio.Event) -> None:
        await asked.accept()
        try:
            await trio.sleep_forever()
        finally:
            raise error

    config = ServerConfig(drain_timeout=0.1)
    async with serving(World().app(), failing, config=config) as served, await served.connect() as stream:
        await stream.send_all(HANDSHAKE % b"/v1/ws")
        await read_until(stream, b"\r\n\r\n")
        served.shutdown.set()
        with trio.fail_after(PATIENCE):
            await served.finished.wait()  # that `serve` returns


async def test_garbage_on_a_websocket_takes_nobody_down(caplog: pytest.LogCaptureFixture) -> None:
    async with serving(World().app(), echo_socket) as served:
        async with await served.connect() as stream:
            await stream.send_all(HANDSHAKE % b"/v1/ws")
            assert (await read_until(stream, b"\r\n\r\n")).startswith(b"HTTP/1.1 101")
            await stream.send_all(b"\xff" * 64)
            with trio.fail_after(PATIENCE):
                await read_to_end(stream)
        assert (await served.get("/hello")).endswith(b"hello")
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_no_http_2_is_spoken() -> None:
    async with serving(World().app(), echo_socket) as served:
        upgrade = b"GET /hello HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade, HTTP2-Settings, close\r\n"
        answer = await served.exchange(upgrade + b"Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 200")
        status, made = problem(await served.exchange(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"))
        assert status == 400
        assert made["code"] == "INVALID_BODY"


async def test_a_websocket_learns_when_everything_is_drained() -> None:
    async def until_drained(asked: trio_websocket.WebSocketRequest, head: Head, drained: trio.Event) -> None:
        ws = await asked.accept()
        await drained.wait()
        await ws.aclose(1001)

    async with serving(World().app(), until_drained) as served:
        async with await served.connect() as stream:
            await stream.send_all(HANDSHAKE % b"/v1/ws")
            await read_until(stream, b"\r\n\r\n")
            served.shutdown.set()
            await read_until(stream, b"\x88\x02" + (1001).to_bytes(2))
        with trio.fail_after(PATIENCE):
            await served.finished.wait()


async def test_what_is_not_http_gets_a_problem_answer() -> None:
    async with serving(World().app(), echo_socket) as served:
        status, made = problem(await served.exchange(b"\x16\x03\x01\x02\x00\x01\x00 what\r\n\r\n"))
        assert status == 400
        assert made["code"] == "INVALID_BODY"


@pytest.mark.parametrize("line", [b"GET ?a", b"GET a/b", b"CONNECT a:443"])
async def test_a_target_that_is_no_path_gets_a_problem_answer(line: bytes) -> None:
    async with serving(World().app(), echo_socket) as served:
        status, made = problem(await served.exchange(line + b" HTTP/1.1\r\nHost: localhost\r\n\r\n"))
        assert (status, made["code"]) == (400, "INVALID_BODY")


async def test_the_server_does_not_tell_what_it_is_made_of() -> None:
    async with serving(World().app(), echo_socket) as served:
        head = (await served.get("/hello")).partition(b"\r\n\r\n")[0].lower()
        assert b"\r\nserver:" not in head
        assert b"\r\ndate:" in head


async def test_accepting_goes_on_after_descriptors_ran_out(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    failures = [OSError(errno.EMFILE, "too many open files"), OSError(errno.ENOMEM, "no memory")]
    accept = trio.SocketListener.accept

    async def accept_or_fail(self: trio.SocketListener) -> trio.SocketStream:
        if failures:
            raise failures.pop()
        return await accept(self)

    monkeypatch.setattr(trio.SocketListener, "accept", accept_or_fail)
    async with serving(World().app(), echo_socket) as served:
        assert (await served.get("/hello")).endswith(b"hello")
    assert failures == []
    assert caplog.text.count("cannot accept connections") == 1


async def test_an_application_that_cannot_start_is_a_clear_error() -> None:
    app = World().app()

    @app.before_serving
    async def fail() -> None:
        raise ValueError("the model's key is missing")

    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    with pytest.raises(StartupFailed, match="the model's key is missing"), trio.fail_after(PATIENCE):
        await serve(app, echo_socket, listeners, shutdown=trio.Event())
    for listener in listeners:
        await listener.aclose()


async def test_the_application_is_started_before_and_stopped_after_it_serves() -> None:
    app = World().app()
    steps: list[str] = []
    app.before_serving(partial(_note, steps, "started"))
    app.after_serving(partial(_note, steps, "stopped"))
    async with serving(app, echo_socket) as served:
        assert steps == ["started"]
        served.shutdown.set()
        with trio.fail_after(PATIENCE):
            await served.finished.wait()
    assert steps == ["started", "stopped"]


async def _note(steps: list[str], step: str) -> None:
    steps.append(step)


async def _pair() -> tuple[trio.SocketStream, trio.SocketStream]:
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        near = await trio.open_tcp_stream("127.0.0.1", listener.socket.getsockname()[1])
        return near, await listener.accept()


async def test_a_send_deadline_fires_inside_a_shield() -> None:
    near, far = await _pair()
    guarded = Guarded(near, send_timeout=0.2)
    async with far:
        with trio.fail_after(PATIENCE), trio.CancelScope(shield=True), pytest.raises(trio.BrokenResourceError):
            await guarded.send_all(b"x" * 50_000_000)
        assert guarded.closed


async def test_a_slow_reader_that_makes_progress_is_not_cut() -> None:
    near, far = await _pair()
    guarded = Guarded(near, send_timeout=0.5)
    begun = trio.current_time()

    async def read_slowly() -> None:
        left = 12_000_000
        while left:
            left -= len(await far.receive_some(200_000))
            await trio.sleep(0.02)  # the reader's pace is what this is about

    async with far, guarded:
        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(read_slowly)
                await guarded.send_all(b"x" * 12_000_000)
        assert trio.current_time() - begun > 0.6, "longer in all than the timeout"


async def test_a_cancelled_send_breaks_the_connection() -> None:
    near, far = await _pair()
    guarded = Guarded(near, send_timeout=60.0)
    async with far:
        with trio.move_on_after(0.05):
            await guarded.send_all(b"x" * 50_000_000)
        assert guarded.closed


async def test_what_is_given_back_is_read_again_first() -> None:
    near, far = await _pair()
    guarded = Guarded(near, send_timeout=60.0)
    async with far, guarded:
        await far.send_all(b"later")
        guarded.give_back(b"first")
        assert await guarded.receive_some(2) == b"fi"
        assert await guarded.receive_some() == b"rst"
        assert await guarded.receive_some() == b"later"
