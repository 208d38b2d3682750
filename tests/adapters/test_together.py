"""Two servers over one log: who is here, the list and tickets are the same in both."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from penstock.adapters.access import Identity, JwtTokens, Tickets
from penstock.engine import LocalBus, MemoryLog
from tests.adapters.credentials import SECRET, bearer, token
from tests.adapters.serving import Penstock, penstock
from tests.adapters.test_presence import listing, told
from tests.adapters.test_streams import following
from tests.engine.sharing import OwnBus


@asynccontextmanager
async def two_servers(*, asking: bool = False) -> AsyncIterator[tuple[Penstock, Penstock, OwnBus]]:
    """Over one log, and the way of the second one to what they share; ``asking`` for tokens."""
    log, bus = MemoryLog(), LocalBus()
    own = OwnBus(bus)
    tickets = Tickets(), Tickets()
    tokens = JwtTokens([SECRET], "HS256")
    identities = [Identity(tokens, tickets=each) if asking else Identity() for each in tickets]
    async with (
        penstock(log, owner="one", bus=bus, identity=identities[0]) as one,
        penstock(log, owner="two", bus=own, identity=identities[1]) as two,
    ):
        for server, each in zip((one, two), tickets, strict=True):
            each.share(b"s" * 32, server.engine.redeem)
        yield one, two, own


async def opens(server: Penstock, ticket: str) -> int:
    """What a WebSocket's handshake with this ticket is answered."""
    async with await server.served.connect() as stream:
        head = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        head += "Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n"
        await stream.send_all(f"GET /v1/ws?ticket={ticket} HTTP/1.1\r\nHost: localhost\r\n{head}\r\n".encode())
        return int((await stream.receive_some()).split()[1])


async def test_who_is_here_at_one_server_is_told_at_the_other() -> None:
    async with two_servers() as (one, two, _), one.client() as here, two.client() as there:
        await one.engine.create_session("s")
        await here.put("/v1/sessions/s/presence/ann/phone", json={"name": "Ann"})
        async with following(two, "sse") as reader:
            assert await listing(reader) == [{"actor_id": "ann", "device_id": "phone", "name": "Ann"}]
            await there.put("/v1/sessions/s/presence/bob/desk", json={"status": "typing"})
            assert await told(reader) == {"actor_id": "bob", "device_id": "desk", "status": "typing"}
            await here.delete("/v1/sessions/s/presence/ann")
            assert (await told(reader))["status"] == "gone"
            answer = await here.get("/v1/sessions/s/presence")
            assert [each["actor_id"] for each in answer.json()["presence"]] == ["bob"]


async def test_presence_waits_for_no_store_that_is_away() -> None:
    async with two_servers() as (one, two, own), two.client() as there:
        await one.engine.create_session("s")
        own.volatile.away = True
        for answer in (
            await there.put("/v1/sessions/s/presence/ann/phone", json={}),
            await there.delete("/v1/sessions/s/presence/ann"),
            await there.get("/v1/sessions/s/presence"),
        ):
            assert answer.status_code == 504
            assert answer.json()["retryable"]
        own.volatile.away = False


async def test_a_ticket_that_one_server_made_opens_one_socket_at_either() -> None:
    async with two_servers(asking=True) as (one, two, own), one.client() as here, two.client() as there:
        await one.engine.create_session("a")
        body = {"sessions": ["a"], "scopes": ["read"]}
        for client, server in ((here, two), (there, one), (here, one)):
            made = (await client.post("/v1/tickets", json=body, headers=bearer(token()))).json()["ticket"]
            assert await opens(server, made) == 101
            for again in (one, two):
                assert await opens(again, made) == 401
        made = (await here.post("/v1/tickets", json=body, headers=bearer(token()))).json()["ticket"]
        own.volatile.away = True
        assert await opens(two, made) == 503
        own.volatile.away = False
        assert await opens(two, made) == 101
        made = (await here.post("/v1/tickets", json=body, headers=bearer(token()))).json()["ticket"]
        for _ in range(2):
            assert (await there.get(f"/v1/sessions/a/events?live=false&ticket={made}")).status_code == 200


async def test_the_list_is_followed_on_at_the_other_server_by_its_cursor() -> None:
    async with two_servers() as (one, two, _):
        for name in "ab":
            await one.engine.create_session(name)
        async with one.lines("/v1/events", accept="text/event-stream") as lines:
            text = ""
            with trio.fail_after(10):
                while "event: caught-up" not in text:
                    text += await lines.next() + "\n"
            cursor = next(line for line in reversed(text.splitlines()) if line.startswith("id: "))[4:]
        for name in "cd":
            await one.engine.create_session(name)
        await two.engine.delete_session("a")
        async with two.client() as there:
            answer, missing = "", ["a"]
            with trio.fail_after(10):
                while missing:  # what has changed is noted some times a second
                    answer = (await there.get("/v1/events", params={"after": cursor, "live": "false"})).text
                    missing = [each for each in "acd" if f'"session_id":"{each}"' not in answer]
        assert "event: gap" not in answer
        assert "event: session-gone" in answer
        assert "event: sessions" not in answer
