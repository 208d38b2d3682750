"""A path leads where it says on the wire, whatever server the application stands behind, and below any root."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import unquote

import pytest
import trio
from hypercorn.typing import ASGIReceiveEvent, ASGISendEvent, HTTPScope
from hypothesis import given
from hypothesis import strategies as st

from penstock.adapters.http import create_app, mount
from penstock.adapters.http.paths import with_path
from penstock.engine import MemoryLog, open_engine

_PARTS = st.lists(
    st.sampled_from(["v1", "sessions", "a%2Fb", "a%2fb", "%2F", "", ".", "%2e", "%25", "%252F", "é"]),
    min_size=1,
    max_size=5,
)


def scope_of(raw: str, *, root: str = "", method: str = "GET", headers: Any = ((b"host", b"localhost"),)) -> HTTPScope:
    """As ASGI has it: the path with its escapes resolved."""
    made: Any = {
        "type": "http",
        "asgi": {},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "query_string": b"",
    }
    made |= {"path": unquote(raw), "raw_path": raw.encode(), "root_path": root, "headers": list(headers)}
    made |= {"client": ("127.0.0.1", 1), "server": ("127.0.0.1", 2), "extensions": {}, "state": {}}
    scope: HTTPScope = made
    return scope


@given(_PARTS, st.sampled_from(["", "/chat", "/a/b"]))
def test_no_escape_makes_a_part_and_no_part_is_lost(parts: list[str], root: str) -> None:
    raw = "/".join([root, *parts]) or "/"
    path = with_path(scope_of(raw, root=root))["path"]
    assert path.startswith(root)
    below = path[len(root) :]
    assert not below.startswith("//")
    if not "/".join(["", *parts]).startswith("//"):
        assert [part.replace("%2F", "/") for part in below.split("/")] == [
            "",
            *(unquote(part).replace("%2F", "/") for part in parts),
        ]


async def ask(app: Any, scope: HTTPScope, body: bytes = b"") -> tuple[int, dict[str, Any]]:
    """What an ASGI server that checks nothing gets."""
    told: list[Any] = []
    sent = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> ASGIReceiveEvent:
        if not sent:
            await trio.sleep_forever()
        event: Any = sent.pop()
        return event  # type: ignore[no-any-return]

    async def send(event: ASGISendEvent) -> None:
        told.append(event)

    await app(scope, receive, send)
    return told[0]["status"], json.loads(b"".join(event["body"] for event in told[1:]) or b"{}")


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        ("/v1/sessions", 200),
        ("//v1/sessions", 404),
        ("///v1/sessions", 404),
        ("/v1%2fsessions", 404),
        ("/v1%2Fsessions", 404),
        ("/%2Fv1/sessions", 404),
        ("/v1/sessions/a%2Freset", 400),
        ("/v1/sessions/a%252Freset", 400),
    ],
)
@pytest.mark.parametrize("root", ["", "/chat"])
async def test_a_path_is_what_it_is_on_the_wire_below_any_root(raw: str, status: int, root: str) -> None:
    async with open_engine(MemoryLog()) as engine:
        app = create_app(engine)
        assert (await ask(app, scope_of(root + raw, root=root)))[0] == status
        site = mount(create_app(engine), "/chat", app)
        assert (await ask(site, scope_of("/chat" + raw)))[0] == status
        assert (await ask(site, scope_of("/chat%2F" + raw[1:])))[0] == 404


@pytest.mark.parametrize("host", [b"a..b", b"xn--" + b"a" * 15_000, b"[", b"localhost:99999", b"\xff", b"a" * 64])
@pytest.mark.parametrize("raw", ["/v1/sessions", "/v1/sessions/s/chunks?", "/nothing"])
async def test_a_host_that_is_none_reaches_no_route_behind_any_server(host: bytes, raw: str) -> None:
    async with open_engine(MemoryLog()) as engine:
        status, made = await ask(create_app(engine), scope_of(raw, headers=[(b"host", host)]))
        assert (status, made["code"]) == (400, "INVALID_BODY")


@pytest.mark.parametrize("name", [b"host", b"origin"])
async def test_two_hosts_or_origins_are_none_on_either_way_to_chunks(name: bytes) -> None:
    values = {b"host": (b"localhost", b"evil"), b"origin": (b"http://localhost", b"http://evil")}[name]
    headers = [(b"content-length", b"2"), *((name, value) for value in values)]
    if name == b"origin":
        headers.append((b"host", b"localhost"))
    async with open_engine(MemoryLog()) as engine:
        app = create_app(engine)
        for raw in ("/v1/sessions/s/chunks", "/v1/sessions/s/messages"):
            status, made = await ask(app, scope_of(raw, method="POST", headers=headers), b"{}")
            assert (status, made["code"]) == (400, "INVALID_BODY")
