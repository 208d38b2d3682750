"""The application below a path of another one, under our accept loop and under hypercorn; the WebSocket alone."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import httpx
import hypercorn.config
import hypercorn.trio
import pytest
import trio
import trio.testing
import trio_websocket
from hypercorn.typing import ASGIFramework
from quart_trio import QuartTrio

from penstock.adapters.client import connect
from penstock.adapters.echo import echo
from penstock.adapters.http import create_app, mount
from penstock.adapters.server.accept import ServerConfig, serve
from penstock.adapters.websocket import websocket_handler
from penstock.engine import Engine, GenerationFinished, MemoryLog, open_engine
from tests.adapters.serving import PATIENCE, problem, read_to_end, read_until, serving

PROMPT = "water finds its way"
HANDSHAKE = (
    b"GET /chat/v1/ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


def site() -> tuple[QuartTrio, list[str]]:
    """An application with a life of its own, and what it has seen of that."""
    life: list[str] = []
    app = QuartTrio("site")

    @app.before_serving
    async def begin() -> None:
        life.append("began")

    @app.after_serving
    async def end() -> None:
        life.append("ended")

    @app.get("/")
    async def home() -> str:
        return "home"

    @app.get("/<path:path>")
    async def other(path: str) -> str:
        return f"other: {path}"

    return app, life


Run = Callable[[Engine, ASGIFramework, str], AbstractAsyncContextManager[str]]


@asynccontextmanager
async def under_ours(engine: Engine, app: ASGIFramework, root: str = "") -> AsyncIterator[str]:
    config = ServerConfig(websocket_path="/chat/v1/ws", root_path=root)
    async with serving(app, websocket_handler(engine), drain=engine.drain, config=config) as served:
        yield f"http://127.0.0.1:{served.port}{root}"
        served.shutdown.set()
        await served.finished.wait()


@asynccontextmanager
async def under_hypercorn(engine: Engine, app: ASGIFramework, root: str = "") -> AsyncIterator[str]:
    config = hypercorn.config.Config()
    config.bind = ["127.0.0.1:0"]
    config.root_path = root
    ending = trio.Event()

    async def ended() -> None:
        await ending.wait()
        await engine.drain()

    async def run(task_status: trio.TaskStatus[list[str]]) -> None:
        await hypercorn.trio.serve(app, config, shutdown_trigger=ended, task_status=task_status)

    async with trio.open_nursery() as nursery:
        (url,) = await nursery.start(run)
        yield url + root
        ending.set()


every_server = pytest.mark.parametrize("run", [under_ours, under_hypercorn])


@asynccontextmanager
async def mounted(run: Run, root: str = "") -> AsyncIterator[tuple[str, Engine, list[str]]]:
    app, life = site()
    async with open_engine(MemoryLog(), producers={"echo": echo}) as engine:
        whole = mount(app, "/chat", create_app(engine))
        with trio.fail_after(PATIENCE):
            async with run(engine, whole, root) as url:
                yield url, engine, life


def http(url: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=url, trust_env=False)


@every_server
@pytest.mark.parametrize("root", ["", "/outer"])
async def test_each_path_has_its_application(run: Run, root: str) -> None:
    async with mounted(run, root) as (url, _, _), http(url) as client:
        for path in ("/", "/chatter", "/v1/sessions", "/other/chat/v1/sessions"):
            assert (await client.get(path)).text in ("home", f"other: {path[1:]}")
        led = await client.get("/chat?a=b")
        assert (led.status_code, led.headers["location"]) == (307, f"{root}/chat/?a=b")
        page = await client.get("/chat/")
        assert "<title>" in page.text
        script = await client.get("/chat/penstock.js")
        assert script.headers["content-type"].startswith("text/javascript")
        told = (await client.get("/chat/openapi.json")).json()
        assert told["servers"] == [{"url": f"{root}/chat"}]
        made = await client.put("/chat/v1/sessions/s")
        assert (made.status_code, made.json()["session_id"]) == (201, "s")
        lost = await client.get("/chat/v1/sessions/s/nothing")
        assert (lost.status_code, lost.json()["code"], lost.json()["session_id"]) == (404, "NOT_FOUND", "s")


@every_server
async def test_streams_come_through_and_are_left_with_their_readers(run: Run) -> None:
    async with mounted(run) as (url, engine, _), connect(f"{url}/chat") as client:
        session = await client.create_session("s")
        async with session.events() as events:
            await session.start(text=PROMPT, input={"delay": 0})
            said = ""
            async for event in events:
                said += getattr(event.data, "text", None) or ""
                if isinstance(event.data, GenerationFinished):
                    break
            assert PROMPT in said
            assert engine.statistics().subscribers == 1
        while engine.statistics().subscribers:
            await trio.testing.wait_all_tasks_blocked(0.01)


@every_server
async def test_the_sites_life_is_its_own_and_a_drain_is_told_to_open_streams(run: Run) -> None:
    ends: list[str] = []

    async def follow(stream: trio.SocketStream) -> None:
        async with stream:
            ends.append((await read_until(stream, b"\r\n0\r\n\r\n")).decode())

    async with trio.open_nursery() as nursery:
        async with mounted(run) as (url, engine, life):
            assert life == ["began"]
            await engine.create_session("s")
            stream = await trio.open_tcp_stream("127.0.0.1", httpx.URL(url).port or 0)
            await stream.send_all(b"GET /chat/v1/sessions/s/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
            nursery.start_soon(follow, stream)
            while not engine.statistics().subscribers:
                await trio.testing.wait_all_tasks_blocked(0.01)
        assert life == ["began", "ended"]
    assert "event: drain" in ends[0]


async def test_the_websocket_is_where_our_accept_loop_was_told() -> None:
    async with mounted(under_ours) as (url, _, _), connect(f"{url}/chat") as client:
        session = await client.create_session("s")
        async with session.events(over="websocket") as events:
            await session.start(text=PROMPT, input={"delay": 0})
            async for event in events:
                if isinstance(event.data, GenerationFinished):
                    break


async def test_another_servers_handshake_is_refused_in_order(caplog: pytest.LogCaptureFixture) -> None:
    async with mounted(under_hypercorn) as (url, _, _):
        async with await trio.open_tcp_stream("127.0.0.1", httpx.URL(url).port or 0) as stream:
            await stream.send_all(HANDSHAKE)
            status, told = problem(await read_until(stream, b"}"))
        assert (status, told["code"]) == (404, "NOT_FOUND")
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_a_server_that_cannot_answer_a_handshake_closes() -> None:
    async with open_engine(MemoryLog()) as engine:
        sent: list[object] = []

        async def receive() -> dict[str, str]:
            return {"type": "websocket.connect"}

        async def send(event: dict[str, object]) -> None:
            sent.append(event["type"])

        await create_app(engine)({"type": "websocket", "path": "/v1/ws"}, receive, send)  # type: ignore[arg-type]
        assert sent == ["websocket.close"]


@pytest.mark.parametrize("prefix", ["", "/", "chat", "/chat/", "/a b", "/a//b", "/<x>"])
def test_a_prefix_is_a_plain_path(prefix: str) -> None:
    app, _ = site()
    with pytest.raises(ValueError, match="plain path"):
        mount(app, prefix, app)


async def test_the_websocket_may_stand_alone() -> None:
    async with open_engine(MemoryLog(), producers={"echo": echo}) as engine, trio.open_nursery() as nursery:
        session = await engine.create_session("s")
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listeners[0].socket.getsockname()[1]
        shutdown = trio.Event()

        async def run() -> None:
            await serve(None, websocket_handler(engine), listeners, shutdown=shutdown, drain=engine.drain)

        nursery.start_soon(run)
        with trio.fail_after(PATIENCE):
            async with trio_websocket.open_websocket_url(f"ws://127.0.0.1:{port}/v1/ws") as ws:
                await ws.send_message('{"op": "subscribe", "id": 1, "session_id": "s"}')
                await session.post("hello")
                while "hello" not in await ws.get_message():
                    pass
            async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                await stream.send_all(b"GET /v1/sessions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                status, told = problem(await read_to_end(stream))
            assert (status, told["code"]) == (404, "NOT_FOUND")
            shutdown.set()
