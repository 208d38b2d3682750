"""Pages of other origins, and names that are not this machine's."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from quart import typing as quart_typing

from penstock.adapters.access import OPEN, Identity
from penstock.adapters.access.origins import check_host, check_origin, cross_origin, is_origin
from penstock.adapters.http import create_app
from penstock.adapters.problems import OriginRefused
from penstock.engine import MemoryLog, open_engine
from tests.adapters.credentials import bearer, identity, token
from tests.adapters.serving import penstock

FRIEND = "https://chat.example"


@pytest.mark.parametrize(
    "host",
    [
        None,
        "",
        "localhost",
        "localhost:8420",
        "LOCALHOST:1",
        "app.localhost:8420",
        "localhost.",
        "127.0.0.1",
        "127.9.9.9:80",
        "[::1]",
        "[::1]:8420",
        "chat.example:9",
    ],
)
def test_a_machine_s_own_names_are_asked(host: str | None) -> None:
    check_host(host, ["chat.example"])


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8420",
        "localhost.evil.example",
        "evillocalhost",
        "127.0.0.1.evil.example",
        "192.168.0.1",
        "0.0.0.0",
        "[::]",
        "[::ffff:192.0.2.1]",
        "localhost@evil.example",
        "evil.example#localhost",
        "2130706433",
        "[",
        "a]b",
        "x.chat.example",
    ],
)
def test_another_name_is_refused(host: str) -> None:
    with pytest.raises(OriginRefused):
        check_host(host, ["chat.example"])


def test_any_name_can_be_allowed() -> None:
    check_host("evil.example", ["*"])


@pytest.mark.parametrize("origin", [FRIEND, "http://localhost:3000", "http://[::1]:3000"])
def test_an_origin_is_what_browsers_write(origin: str) -> None:
    assert is_origin(origin)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "*",
        "null",
        "chat.example",
        f"{FRIEND}/",
        f"{FRIEND}:443",
        "https://CHAT.example",
        "ftp://x",
        "https://u@x",
        "https://",
    ],
)
def test_nothing_else_is_an_origin(text: str) -> None:
    assert not is_origin(text)


def test_only_an_allowed_origin_is_told_that_it_is() -> None:
    for origin in (None, "null", "https://evil.example", f"{FRIEND}.evil.example", f"{FRIEND}/"):
        assert cross_origin(origin, {FRIEND}, preflight=True) == {}
    assert cross_origin(FRIEND, {FRIEND}, preflight=False)["Access-Control-Allow-Origin"] == FRIEND
    with pytest.raises(OriginRefused):
        check_origin("null", "localhost")


@asynccontextmanager
async def client(own: Identity = OPEN) -> AsyncIterator[quart_typing.TestClientProtocol]:
    async with open_engine(MemoryLog()) as engine:
        await engine.create_session("a")
        yield create_app(engine, identity=own, allowed_origins=[FRIEND]).test_client()


async def test_a_page_that_is_allowed_may_ask_and_read() -> None:
    async with client() as asked:
        headers = {"Origin": FRIEND, "Access-Control-Request-Method": "PUT", "Host": "localhost"}
        preflight = await asked.options("/v1/sessions/a", headers=headers)
        assert preflight.status_code == 204
        assert preflight.headers["Access-Control-Allow-Origin"] == FRIEND
        assert "PUT" in preflight.headers["Access-Control-Allow-Methods"]
        for name in ("Authorization", "Idempotency-Key", "Last-Event-ID", "Producer-Id", "Content-Type"):
            assert name in preflight.headers["Access-Control-Allow-Headers"]
        assert "Access-Control-Allow-Credentials" not in preflight.headers
        own = {"Origin": FRIEND, "Host": "localhost"}
        made, missing = await asked.put("/v1/sessions/a", headers=own), await asked.get("/v1/sessions/b", headers=own)
        assert (made.status_code, missing.status_code) == (200, 404)
        for answer in (made, missing):
            assert answer.headers["Access-Control-Allow-Origin"] == FRIEND
            assert "Retry-After" in answer.headers["Access-Control-Expose-Headers"]
            assert "Origin" in answer.headers["Vary"]


async def test_a_page_that_is_not_gets_nothing_to_read_and_changes_nothing() -> None:
    async with client() as asked:
        headers = {"Origin": "https://evil.example", "Access-Control-Request-Method": "PUT", "Host": "localhost"}
        preflight = await asked.options("/v1/sessions/a", headers=headers)
        assert "Access-Control-Allow-Origin" not in preflight.headers
        assert "Origin" in preflight.headers["Vary"]
        assert (await asked.put("/v1/sessions/x", headers=headers)).status_code == 403
        read = await asked.get("/v1/sessions/a", headers=headers)
        assert "Access-Control-Allow-Origin" not in read.headers


async def test_what_is_refused_can_be_read_by_a_page_that_is_allowed() -> None:
    async with client(identity()) as asked:
        answer = await asked.get("/v1/sessions/a", headers={"Origin": FRIEND})
        assert answer.status_code == 401
        assert answer.headers["Access-Control-Allow-Origin"] == FRIEND
        # A preflight carries no token.
        headers = {"Origin": FRIEND, "Access-Control-Request-Method": "GET"}
        assert (await asked.options("/v1/sessions/a", headers=headers)).status_code == 204


@pytest.mark.parametrize("path", ["/", "/v1/sessions", "/v1/sessions/a/events", "/healthz", "/nothing"])
async def test_without_tokens_another_name_gets_nothing_at_all(path: str) -> None:
    async with client() as asked:
        answer = await asked.get(path, headers={"Host": "evil.example"})
        assert answer.status_code == 403
        assert (await answer.get_json(force=True))["code"] == "ORIGIN_REFUSED"


async def test_with_tokens_the_name_does_not_matter() -> None:
    async with client(identity()) as asked:
        headers = {"Host": "evil.example", **bearer(token())}
        assert (await asked.get("/v1/sessions/a", headers=headers)).status_code == 200


async def test_a_handshake_is_held_to_the_same_names() -> None:
    head = (
        "GET /v1/ws HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    async with penstock() as served:
        for host, status in (("localhost", 101), ("127.0.0.1:80", 101), ("evil.example", 403)):
            async with await served.served.connect() as stream:
                await stream.send_all(head.format(host).encode())
                assert int((await stream.receive_some()).split()[1]) == status


async def test_a_request_without_a_host_comes_from_no_browser() -> None:
    async with penstock() as served:
        answer = await served.served.exchange(b"GET /healthz HTTP/1.0\r\n\r\n")
        assert answer.split()[1] == b"200"
