"""What pages of other origins get: nothing without tokens, and from every answer the word that it is not for them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import trio
from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, Scope
from hypothesis import given
from hypothesis import strategies as st
from quart_trio import QuartTrio

from penstock.adapters.access import OPEN, Identity
from penstock.adapters.access.origins import check_site
from penstock.adapters.http import create_app, mount
from penstock.adapters.isolation import ISOLATION
from penstock.adapters.problems import OriginRefused
from penstock.adapters.server.accept import ServerConfig, serve
from penstock.adapters.websocket import websocket_handler
from penstock.engine import MemoryLog, open_engine
from tests.adapters.credentials import bearer, identity, token
from tests.adapters.serving import PATIENCE, Served, penstock, serving
from tests.adapters.test_server import echo_socket

FRIEND = "https://chat.example"
GID = "0198c0de-7a11-7abc-8def-0123456789ab"

# A browser's four words on who asks, and whether that is an own page, a person, or a program that says nothing.
SITES = [(None, True), ("same-origin", True), ("none", True), ("same-site", False), ("cross-site", False)]

# How else it is asked: as what, and whether a navigation to a page like that is let in.
AS = {
    "a fetch": ({"Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty"}, False),
    "an opaque fetch": ({"Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "empty"}, False),
    "an image": ({"Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}, False),
    "a script": ({"Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "script"}, False),
    "a frame": ({"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"}, False),
    "an object": ({"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "object"}, False),
    "a tab": ({"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document", "Sec-Fetch-User": "?1"}, True),
    "nothing known": ({}, False),
}

PAGES = ["/", "/docs", "/index.html", "/playground.js", "/icon.svg"]
READS = [
    "/v1/sessions",
    "/v1/sessions/s",
    "/v1/sessions/s/events?live=false",
    "/v1/sessions/none",
    "/v1/sessions/s/presence",
    "/healthz",
    "/readyz",
    "/metrics",
    "/openapi.json",
    "/nothing/here",
]


@pytest.mark.parametrize(("site", "own"), SITES)
@pytest.mark.parametrize(("headers", "tab"), AS.values(), ids=AS.keys())
async def test_without_tokens_only_own_pages_people_and_programs_get_an_answer(
    site: str | None, own: bool, headers: dict[str, str], tab: bool
) -> None:
    asked = headers if site is None else {**headers, "Sec-Fetch-Site": site}
    async with penstock() as world, world.client() as client:
        await client.put("/v1/sessions/s")
        for path in PAGES + READS:
            for method in ("GET", "HEAD"):
                answer = await client.request(method, path, headers=asked)
                let_in = own or (tab and path in PAGES)
                assert (answer.status_code == 403) != let_in, (method, path, answer.status_code)
                if not let_in and method == "GET":
                    assert answer.json()["code"] == "ORIGIN_REFUSED"
        chunk = {"generation_id": GID, "data": {"text": "x"}}
        for method, path, body in (("PUT", "/v1/sessions/t", None), ("POST", "/v1/sessions/s/chunks", chunk)):
            answer = await client.request(method, path, json=body, headers=asked)
            assert (answer.status_code == 403) != own
        assert (await client.options("/v1/sessions/s", headers=asked)).status_code == 204, "how it asks whether it may"


@pytest.mark.parametrize("site", ["same-site", "cross-site"])
async def test_an_origin_that_is_allowed_may_read(site: str) -> None:
    async with open_engine(MemoryLog()) as engine:
        await engine.create_session("s")
        client = create_app(engine, allowed_origins=[FRIEND]).test_client()
        for origin, status in ((FRIEND, 200), ("https://evil.example", 403), (None, 403)):
            headers = {"Host": "localhost", "Sec-Fetch-Site": site, "Sec-Fetch-Mode": "cors"}
            headers |= {} if origin is None else {"Origin": origin}
            answer = await client.get("/v1/sessions/s", headers=headers)
            assert answer.status_code == status
            assert ("Access-Control-Allow-Origin" in answer.headers) == (origin == FRIEND)


@pytest.mark.parametrize("site", ["same-site", "cross-site"])
async def test_with_tokens_a_page_has_to_have_one(site: str) -> None:
    async with penstock(identity=identity()) as world, world.client() as client:
        headers = {"Sec-Fetch-Site": site, **bearer(token())}
        assert (await client.put("/v1/sessions/s", headers=headers)).status_code == 201
        assert (await client.get("/v1/sessions/s", headers=headers)).status_code == 200
        assert (await client.get("/", headers={"Sec-Fetch-Site": site})).status_code == 200


@given(
    st.lists(st.sampled_from(["same-origin", "none", "same-site", "cross-site", "", "x", "SAME-ORIGIN"]), max_size=3)
)
def test_several_words_are_as_good_as_the_worst(words: list[str]) -> None:
    own = all(word in ("same-origin", "none") for word in words)
    for headers in (words, [", ".join(words)] if len(words) > 1 else words):
        try:
            check_site(headers, None)
            assert own
        except OriginRefused:
            assert not own or headers != words


# --- what every answer says

WANTED = {name.lower() for name, _ in ISOLATION}


def check(answer: bytes) -> int:
    """Hold the head of an answer against what all of them say; its status."""
    lines = answer.partition(b"\r\n\r\n")[0].decode().split("\r\n")
    headers: dict[str, str] = {}
    for line in lines[1:]:
        name, _, value = line.partition(":")
        assert name.lower() not in headers or name.lower() not in WANTED, f"{name} twice"
        headers[name.lower()] = value.strip()
    assert headers["cross-origin-resource-policy"] == "same-origin", lines
    assert "frame-ancestors 'none'" in headers["content-security-policy"], lines
    assert headers["x-content-type-options"] == "nosniff", lines
    return int(lines[0].split()[1])


def request(method: str, path: str, *headers: str, body: str = "", host: str = "localhost") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", "Connection: close", *headers]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", body]).encode()


CHUNK = f'{{"generation_id": "{GID}", "data": {{"text": "x"}}}}'
UPGRADE = ("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13")
KEY = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="

ANSWERS: dict[str, tuple[bytes, int]] = {
    "made": (request("PUT", "/v1/sessions/new"), 201),
    "a snapshot": (request("GET", "/v1/sessions/s"), 200),
    "HEAD": (request("HEAD", "/v1/sessions/s"), 200),
    "server-sent events": (request("GET", "/v1/sessions/s/events?live=false"), 200),
    "NDJSON": (request("GET", "/v1/sessions/s/events?live=false", "Accept: application/x-ndjson"), 200),
    "HEAD of a stream": (request("HEAD", "/v1/sessions/s/events"), 200),
    "a stream over 1.0": (b"GET /v1/sessions/s/events?live=false HTTP/1.0\r\nHost: localhost\r\n\r\n", 200),
    "a chunk": (request("POST", "/v1/sessions/s/chunks", body=CHUNK), 200),
    "a bad chunk": (request("POST", "/v1/sessions/s/chunks", body="{"), 400),
    "a chunk, the long way": (request("POST", "/v1/sessions/s/chunks?&", body=CHUNK), 200),
    "the page": (request("GET", "/"), 200),
    "a script": (request("GET", "/penstock.js"), 200),
    "not modified": (request("GET", "/penstock.js", "If-None-Match: *"), 304),
    "health": (request("GET", "/healthz"), 200),
    "metrics": (request("GET", "/metrics"), 200),
    "the API": (request("GET", "/openapi.json"), 200),
    "a preflight": (request("OPTIONS", "/v1/sessions/s"), 204),
    "no such path": (request("GET", "/nothing"), 404),
    "no such session": (request("GET", "/v1/sessions/none"), 404),
    "no such method": (request("DELETE", "/healthz"), 405),
    "not JSON": (request("POST", "/v1/sessions/s/messages", body="{"), 400),
    "another origin": (request("PUT", "/v1/sessions/s", "Origin: https://evil.example"), 403),
    "another site": (request("GET", "/", "Sec-Fetch-Site: cross-site"), 403),
    "another name": (request("GET", "/", host="evil.example"), 403),
    "a host that is none": (request("GET", "/", host="a b"), 400),
    "a body too large": (request("PUT", "/v1/sessions/s", "Content-Length: 99999999"), 413),
    "not HTTP": (b"\x16\x03\x01nonsense\r\n\r\n", 400),
    "another version": (b"GET / HTTP/2.0\r\nHost: localhost\r\n\r\n", 400),
    "a head too large": (request("GET", "/", f"X: {'x' * 20_000}"), 413),
    "a target that is none": (b"GET nothing HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
    "a refused handshake": (request("GET", "/v1/ws", *UPGRADE, KEY, "Origin: https://evil.example"), 403),
    "no handshake": (request("GET", "/v1/ws"), 404),
}


async def exchange(served: Served, raw: bytes) -> bytes:
    """Send, and read the whole head and what comes with it."""
    async with await served.connect() as stream:
        await stream.send_all(raw)
        answer = b""
        with trio.fail_after(PATIENCE):
            while b"\r\n\r\n" not in answer and (piece := await stream.receive_some()):
                answer += piece
        return answer


@pytest.mark.parametrize("name", ANSWERS)
async def test_every_answer_says_that_it_is_for_no_other_origin_s_page(name: str) -> None:
    raw, status = ANSWERS[name]
    async with penstock() as world:
        await world.engine.create_session("s")
        found = check(await exchange(world.served, raw))
        assert found == status or (status == 404 and found in (400, 404, 426))


@pytest.mark.parametrize("own", [OPEN, identity()], ids=["open", "tokens"])
async def test_a_bug_says_it_too(own: Identity, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise ValueError

    async with penstock(identity=own) as world:
        await world.engine.create_session("s")
        monkeypatch.setattr(type(world.engine), "session", fail)
        shown = f"Authorization: Bearer {token()}"
        for raw in (
            request("GET", "/v1/sessions/s", shown),
            request("POST", "/v1/sessions/s/chunks", shown, body=CHUNK),
        ):
            assert check(await exchange(world.served, raw)) == 500


async def test_what_is_answered_below_every_application_says_it_too() -> None:
    async def failing(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        if scope["type"] == "lifespan":
            raise NotImplementedError
        raise ValueError("before it has answered")

    async with serving(failing, echo_socket) as served:
        answer = await exchange(served, request("GET", "/"))
        assert check(answer) == 500
        assert b'"code":"INTERNAL"' in answer
    full = ServerConfig(max_connections=1)
    async with serving(failing, echo_socket, config=full) as served, await served.connect():
        assert check(await exchange(served, b"")) == 503
    async with serving(failing, echo_socket, config=ServerConfig(head_timeout=0.1)) as served:
        assert check(await exchange(served, b"GET / HTTP/1.1\r\n")) == 504


async def test_a_websocket_alone_says_it_too() -> None:
    async with open_engine(MemoryLog()) as engine, trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        served = Served(listeners[0].socket.getsockname()[1], trio.Event(), trio.Event())

        async def run(task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
            handler = websocket_handler(engine)
            await serve(None, handler, listeners, shutdown=served.shutdown, task_status=task_status)

        await nursery.start(run)
        assert check(await exchange(served, request("GET", "/"))) == 404
        served.shutdown.set()


async def test_below_a_path_of_another_site_only_ours_say_it() -> None:
    site = QuartTrio("site", static_folder=None)

    @site.get("/")
    async def home() -> str:
        return "in a frame, if the site likes that"

    async with (
        open_engine(MemoryLog()) as engine,
        serving(mount(site, "/chat", create_app(engine)), echo_socket) as served,
    ):
        assert check(await exchange(served, request("GET", "/chat"))) == 307
        assert check(await exchange(served, request("GET", "/chat/"))) == 200
        assert b"content-security-policy" not in (await exchange(served, request("GET", "/"))).lower()


def test_nothing_is_answered_that_is_not_in_this_table() -> None:
    """A new way to begin an answer has to be looked at: these are the places that do."""
    folder = Path(__file__).parents[2] / "adapters"
    begins = re.compile(r'"(?:websocket\.)?http\.response\.start"|h11\.Response\(|HTTP/1\.1 \{|\.reject\(')
    found: dict[str, int] = {}
    for path in sorted(folder.rglob("*.py")):
        if "client" not in path.parts and (count := len(begins.findall(path.read_text()))):
            found[str(path.relative_to(folder))] = count
    assert found == {
        "http/app.py": 2,
        "http/mounting.py": 1,
        "http/pushing.py": 1,
        "nodes/answering.py": 3,  # to other nodes alone, which sign what they ask
        "server/accept.py": 2,
        "server/apps.py": 1,
        "server/connection.py": 1,
        "server/handover.py": 1,
        "websocket/handshake.py": 1,
    }
