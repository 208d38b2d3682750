"""A client that has asked and sends nothing more: it gets its whole answer, unless that has no end of its own."""

from __future__ import annotations

import re

import pytest
import trio
import trio.testing

from penstock.adapters.server.accept import ServerConfig
from tests.adapters.serving import PATIENCE, Served, penstock, read_to_end, read_until, serving
from tests.adapters.test_server import World, echo_socket
from tests.engine.producers import saying

MID = "0198c0de-7a12-7abc-8def-0123456789ab"
GID = "0198c0de-7a11-7abc-8def-0123456789ab"
S = "/v1/sessions/s"

# Each way that an answer is made: at once, after a commit, from files, in pieces, past the framework.
ASKED = (
    ("GET", "/healthz", ""),
    ("GET", "/metrics", ""),
    ("GET", "/", ""),
    ("GET", "/penstock.js", ""),
    ("GET", "/openapi.json", ""),
    ("GET", "/nothing", ""),
    ("HEAD", S, ""),
    ("HEAD", f"{S}/events", ""),
    ("OPTIONS", S, ""),
    ("GET", "/v1/sessions", ""),
    ("GET", S, ""),
    ("GET", f"{S}/events?live=false", ""),
    ("GET", f"{S}/events?live=false&snapshot=true", ""),
    ("PUT", S, ""),
    ("PUT", "/v1/sessions/new", '{"metadata":{"a":1}}'),
    ("PATCH", S, '{"metadata":{"b":1}}'),
    ("POST", f"{S}/messages", f'{{"message_id":"{MID}","text":"x"}}'),
    ("POST", f"{S}/messages", '{"text":5}'),
    ("POST", f"{S}/generations", '{"producer":"tale","text":"x"}'),
    ("POST", f"{S}/chunks", f'{{"generation_id":"{GID}","data":{{"text":"x"}}}}'),
    ("POST", f"{S}/stop", ""),
    ("DELETE", S, ""),
)


async def exchange(served: Served, method: str, path: str, body: str, *, version: str, half: bool) -> bytes:
    head = f"{method} {path} HTTP/{version}\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
    head += "\r\n" if half else "Connection: close\r\n\r\n"
    async with await served.connect() as stream:
        with trio.fail_after(PATIENCE):
            await stream.send_all((head + body).encode())
            if half:
                await stream.send_eof()
            return await read_to_end(stream)


def without_what_changes(answer: bytes) -> bytes:
    answer = re.sub(rb"(?mi)^(date|x-request-id|connection):[^\r]*\r\n", b"", answer)
    answer = re.sub(rb"[0-9a-f]{16}-(?=\d{16})", b"epoch-", answer)
    answer = re.sub(rb"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f-]{21}", b"id", answer)
    return re.sub(rb"\d{4}-\d\d-\d\dT[\d:.]+Z", b"time", answer)


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize(("method", "path", "body"), ASKED)
async def test_an_answer_with_an_end_comes_whole(method: str, path: str, body: str, version: str) -> None:
    answers = []
    for half in (False, True):
        async with penstock(producers={"tale": saying("once")}) as world:
            session = await world.engine.create_session("s")
            for number in range(30):
                await session.post("x" * 5000 + str(number))
            answers.append(await exchange(world.served, method, path, body, version=version, half=half))
    plain, halved = map(without_what_changes, answers)
    assert halved.startswith(b"HTTP/1.1 ")
    assert (len(halved), halved) == (len(plain), plain) or path == "/metrics"
    if "events" in path and method == "GET":
        assert halved.count(b"x" * 5000) == 30
        assert halved.endswith(b"0\r\n\r\n" if version == "1.1" else b"\n\n")


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("at_once", [True, False])
async def test_who_closes_a_live_stream_has_left_it(version: str, at_once: bool) -> None:
    async with penstock() as world, await world.served.connect() as stream:
        await world.engine.create_session("s")
        await stream.send_all(f"GET {S}/events HTTP/{version}\r\nHost: localhost\r\n\r\n".encode())
        if not at_once:
            await read_until(stream, b"caught-up")
        await stream.send_eof()
        with trio.fail_after(PATIENCE):
            assert not (await read_to_end(stream)).endswith(b"0\r\n\r\n")
            await trio.testing.wait_all_tasks_blocked()
        assert world.engine.statistics().subscribers == 0


async def test_an_application_of_somebody_elses_is_left_with_its_stream() -> None:
    world = World()
    async with serving(world.app(), echo_socket) as served, await served.connect() as stream:
        await stream.send_all(b"GET /stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await read_until(stream, b": open")
        await stream.send_eof()
        with trio.fail_after(PATIENCE):
            await world.stream_left.wait()


async def test_requests_sent_at_once_are_all_answered() -> None:
    async with serving(World().app(), echo_socket) as served, await served.connect() as stream:
        post = b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\n"
        await stream.send_all(post + b"one" + post + b"two")
        await stream.send_eof()
        with trio.fail_after(PATIENCE):
            answer = await read_to_end(stream)
        assert [part[:3] for part in answer.split(b"\r\n\r\n")[1:]] == [b"one", b"two"]


async def test_half_a_request_gets_no_answer_but_a_refusal() -> None:
    async with penstock() as world, await world.served.connect() as stream:
        await stream.send_all(f"PUT {S} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\n{{".encode())
        await stream.send_eof()
        with trio.fail_after(PATIENCE):
            assert (await read_to_end(stream)).startswith(b"HTTP/1.1 400")
        assert not await world.engine.sessions()


async def test_an_answer_that_does_not_begin_is_not_waited_for_for_ever() -> None:
    begun, left = trio.Event(), trio.Event()
    app = World().app()

    @app.get("/long")
    async def long() -> str:
        begun.set()
        try:
            await trio.sleep_forever()
        finally:
            left.set()

    async with (
        serving(app, echo_socket, config=ServerConfig(send_timeout=0.2)) as served,
        await served.connect() as stream,
    ):
        await stream.send_all(b"GET /long HTTP/1.1\r\nHost: localhost\r\n\r\n")
        with trio.fail_after(PATIENCE):
            await begun.wait()
            await stream.send_eof()
            await left.wait()
            assert await read_to_end(stream) == b""
