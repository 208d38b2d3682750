"""Where a connection comes from: peers and their part, proxies, a root path. Over real loopback sockets."""

from __future__ import annotations

import ipaddress
import json
import socket
import struct
from contextlib import AsyncExitStack

import pytest
import trio
import trio_websocket
from quart import request
from quart_trio import QuartTrio

from penstock.adapters.problems import RateLimited
from penstock.adapters.server.accept import ServerConfig
from penstock.adapters.server.head import Head
from penstock.adapters.server.limits import CONNECTION, Limits, LimitsConfig
from penstock.adapters.server.proxies import TrustedProxies
from tests.adapters.serving import PATIENCE, Served, problem, read_until, serving
from tests.adapters.test_server import HANDSHAKE, World, echo_socket

LOOPBACK = TrustedProxies([ipaddress.ip_network("127.0.0.0/8")])


def mirror() -> QuartTrio:
    """An application that says what it was asked."""
    app = QuartTrio("mirror", static_folder=None)

    @app.route("/hello", methods=["GET", "POST"])
    async def hello() -> dict[str, object]:
        names = ("X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "Forwarded")
        return {
            "client": request.remote_addr,
            "scheme": request.scheme,
            "host": request.headers.get("Host"),
            "root": request.root_path,
            "left": [name for name in names if name in request.headers],
        }

    return app


async def mirror_socket(asked: trio_websocket.WebSocketRequest, head: Head, drained: trio.Event) -> None:
    connection = CONNECTION.get()
    assert connection is not None
    ws = await asked.accept()
    await ws.send_message(json.dumps({"client": connection.client, "host": head.get("host"), "path": head.path}))


async def ask(served: Served, path: str = "/hello", *headers: str) -> dict[str, object]:
    lines = [f"GET {path} HTTP/1.1", "Host: inner:80", "Connection: close", *headers, "", ""]
    answer = await served.exchange("\r\n".join(lines).encode())
    assert answer.startswith(b"HTTP/1.1 200"), answer
    made = json.loads(answer.partition(b"\r\n\r\n")[2])
    assert isinstance(made, dict)
    return made


SAID = (
    "X-Forwarded-For: 6.6.6.6, 192.0.2.9",
    "X-Forwarded-Proto: https",
    "X-Forwarded-Host: chat.example",
    "Forwarded: for=192.0.2.77",
)


async def test_a_stranger_may_say_what_it_likes() -> None:
    async with serving(mirror(), mirror_socket) as served:
        assert await ask(served, "/hello", *SAID) == {
            "client": "127.0.0.1",
            "scheme": "http",
            "host": "inner:80",
            "root": "",
            "left": [],
        }


async def test_a_trusted_proxy_says_who_asked_and_how() -> None:
    async with serving(mirror(), mirror_socket, config=ServerConfig(trusted_proxies=LOOPBACK)) as served:
        assert await ask(served, "/hello", *SAID) == {
            "client": "192.0.2.9",
            "scheme": "https",
            "host": "chat.example",
            "root": "",
            "left": [],
        }


@pytest.mark.parametrize("host", ["a..b", "xn--" + "a" * 9000, "[", "chat.example:x", "a" * 64, "evil@chat.example"])
async def test_what_a_trusted_proxy_passes_on_as_a_host_is_one(host: str) -> None:
    config = ServerConfig(trusted_proxies=LOOPBACK)
    async with serving(mirror(), mirror_socket, config=config) as served:
        for lines in ("GET /hello HTTP/1.1\r\nHost: inner\r\n", (HANDSHAKE % b"/v1/ws").decode()[:-2]):
            status, made = problem(await served.exchange(f"{lines}X-Forwarded-Host: {host}\r\n\r\n".encode()))
            assert (status, made["code"]) == (400, "INVALID_BODY")


async def test_a_kept_connection_of_a_proxy_serves_one_client_after_the_other() -> None:
    async with (
        serving(mirror(), mirror_socket, config=ServerConfig(trusted_proxies=LOOPBACK)) as served,
        await served.connect() as stream,
    ):
        for said, client, scheme in (
            ("X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: https\r\n", "192.0.2.1", "https"),
            ("X-Forwarded-For: 192.0.2.2\r\n", "192.0.2.2", "http"),
            ("", "127.0.0.1", "http"),
        ):
            await stream.send_all(f"GET /hello HTTP/1.1\r\nHost: x\r\n{said}\r\n".encode())
            answer = await read_until(stream, b'"scheme":"' + scheme.encode())
            assert f'"client":"{client}"'.encode() in answer


async def test_a_handshake_through_a_proxy_is_the_clients() -> None:
    config = ServerConfig(trusted_proxies=LOOPBACK, root_path="/chat")
    async with serving(mirror(), mirror_socket, config=config) as served, await served.connect() as stream:
        said = b"".join(line.encode() + b"\r\n" for line in SAID)
        await stream.send_all((HANDSHAKE % b"/v1/ws").replace(b"Connection:", said + b"Connection:"))
        answer = await read_until(stream, b'"path"')
    assert b'"client": "192.0.2.9"' in answer
    assert b'"host": "chat.example"' in answer


@pytest.mark.parametrize("path", ["/hello", "/chat/v1/hello"])
async def test_a_root_path_may_be_there_or_left_away(path: str) -> None:
    async with serving(mirror(), echo_socket, config=ServerConfig(root_path="/chat/v1")) as served:
        assert (await ask(served, path))["root"] == "/chat/v1"
        assert (await ask(served, path + "?a=/chat/v1"))["root"] == "/chat/v1"
        for strange in ("/chat/v1hello", "/chat/v1", "/chat/v1/", "/chat/v1/chat/v1/hello", "/chat/hello"):
            assert (await served.get(strange)).startswith(b"HTTP/1.1 404"), strange


@pytest.mark.parametrize("path", [b"/v1/ws", b"/chat/v1/ws", b"/chat/v1/ws?a=b"])
async def test_a_websocket_below_a_root_path(path: bytes) -> None:
    async with (
        serving(mirror(), echo_socket, config=ServerConfig(root_path="/chat")) as served,
        await served.connect() as stream,
    ):
        await stream.send_all(HANDSHAKE % path)
        assert (await read_until(stream, b"\r\n\r\n")).startswith(b"HTTP/1.1 101")


@pytest.mark.parametrize("root", ["chat", "/chat/", "/", "/a b", "/a?b", "/ä", "//a"])
def test_a_root_path_that_is_none_is_refused(root: str) -> None:
    with pytest.raises(ValueError):
        ServerConfig(root_path=root)


async def test_one_address_may_not_take_all_connections() -> None:
    config = ServerConfig(peer_connections=2, max_connections=10)
    async with serving(World().app(), echo_socket, config=config) as served, AsyncExitStack() as stack:
        for _ in range(2):
            stream = await stack.enter_async_context(await served.connect())
            await stream.send_all(b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n")
            await read_until(stream, b"hello")
        refused = await served.get("/hello")
        status, made = problem(refused)
        assert (status, made["code"], made["retryable"]) == (429, "RATE_LIMITED", True)
        assert refused.startswith(b"HTTP/1.1 429 Too Many Requests\r\n")
        assert b"\r\nRetry-After: 1\r\n" in refused
        async with trio.open_nursery() as nursery:  # another address of this machine
            sock = trio.socket.socket()
            await sock.bind(("127.0.0.2", 0))
            await sock.connect(("127.0.0.1", served.port))
            async with trio.SocketStream(sock) as other:
                await other.send_all(b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n")
                await read_until(other, b"hello")
            nursery.cancel_scope.cancel()
        await stack.aclose()
        with trio.fail_after(PATIENCE):
            while not (await served.get("/hello")).endswith(b"hello"):
                pass


async def test_one_address_may_not_come_and_go_in_a_loop() -> None:
    async with serving(World().app(), echo_socket, config=ServerConfig(peer_rate=0.3)) as served:
        answers = [await served.get("/hello") for _ in range(6)]
        assert [answer.endswith(b"hello") for answer in answers] == [True] * 3 + [False] * 3
        status, made = problem(answers[-1])
        assert (status, made["code"]) == (429, "RATE_LIMITED")
    config = ServerConfig(peer_rate=0.3, trusted_proxies=LOOPBACK)
    async with serving(World().app(), echo_socket, config=config) as served:
        for _ in range(6):
            assert (await served.get("/hello")).endswith(b"hello")


# Reset while it waits to be accepted: nothing is made for it, and nobody else waits for that.
async def test_who_has_left_before_being_accepted_costs_nothing() -> None:
    config = ServerConfig(max_connections=1, peer_rate=0.1)
    async with serving(World().app(), echo_socket, config=config) as served:
        for _ in range(50):  # faster than the server's task gets its turn
            sock = socket.socket()
            sock.connect(("127.0.0.1", served.port))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.close()
        assert (await served.get("/hello")).endswith(b"hello")


async def test_a_trusted_proxys_connections_are_not_counted_as_one_peers() -> None:
    config = ServerConfig(peer_connections=1, trusted_proxies=LOOPBACK)
    async with serving(World().app(), echo_socket, config=config) as served, AsyncExitStack() as stack:
        for _ in range(5):
            stream = await stack.enter_async_context(await served.connect())
            await stream.send_all(b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n")
            await read_until(stream, b"hello")


# One principal's connections at work, as the guard counts them; a connection that waits for its next request is
# nobody's, and so is one that has ended.
async def test_connections_count_for_a_principal_while_they_work_for_it() -> None:
    limits = Limits(LimitsConfig(connections=1))
    world = World()
    app = world.app()

    @app.before_request
    async def admit() -> tuple[str, int] | None:
        try:
            limits.admit(request.args.get("who"))
        except RateLimited:
            return "too many", 429
        return None

    async with serving(app, echo_socket) as served:
        async with await served.connect() as stream:
            await stream.send_all(b"GET /stream?who=ann HTTP/1.1\r\nHost: x\r\n\r\n")
            await read_until(stream, b": open")
            assert (await served.get("/hello?who=ann")).startswith(b"HTTP/1.1 429")
            assert (await served.get("/hello?who=bob")).endswith(b"hello")
            world.stream_end.set()
            await read_until(stream, b"0\r\n\r\n")
            with trio.fail_after(PATIENCE):
                while not (await served.get("/hello?who=ann")).endswith(b"hello"):
                    pass
            world.stream_end = trio.Event()
            await stream.send_all(b"GET /stream?who=ann HTTP/1.1\r\nHost: x\r\n\r\n")
            await read_until(stream, b": open")
            assert (await served.get("/hello?who=ann")).startswith(b"HTTP/1.1 429")
        with trio.fail_after(PATIENCE):
            while not (await served.get("/hello?who=ann")).endswith(b"hello"):
                pass
