"""Failed authentications are counted by address on every way in, and never held against who has a good token."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from penstock.adapters.http import create_app
from penstock.adapters.server.accept import ServerConfig
from penstock.adapters.server.limits import Limits, LimitsConfig
from penstock.adapters.server.proxies import TrustedProxies
from penstock.adapters.websocket import websocket_handler
from penstock.engine import MemoryLog, open_engine
from tests.adapters.credentials import identity, token
from tests.adapters.serving import PATIENCE, Penstock, Socket, problem, serving
from tests.adapters.test_edge import LOOPBACK

GOOD = token(subject="ann")
GID = "0198c0de-7a11-7abc-8def-0123456789ab"

# What a way in answers: a code, and when to come back if it says so. None: it lets in.
Told = tuple[str, float | None] | None


def told(status: int, made: Mapping[str, Any], headers: Mapping[str, str]) -> Told:
    if status < 400:
        return None
    assert (made.get("retry_after") is not None) == ("retry-after" in headers)
    if "retry-after" in headers:
        assert made["retry_after"] == int(headers["retry-after"])
    assert made["status"] == status
    return str(made["code"]), made.get("retry_after")


async def raw(world: Penstock, head: str, body: bytes = b"") -> Told:
    answer = await world.served.exchange(
        f"{head}Host: localhost\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    )
    lines = answer.partition(b"\r\n\r\n")[0].decode().split("\r\n")[1:]
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    status = int(answer.split()[1])
    return None if status < 400 else told(status, problem(answer)[1], headers)


Way = Callable[[Penstock, str, str], Awaitable[Told]]


async def by_request(world: Penstock, shown: str, address: str) -> Told:
    return await raw(world, f"GET /v1/sessions/s HTTP/1.1\r\nX-Forwarded-For: {address}\r\n{header(shown)}")


async def by_chunk(world: Penstock, shown: str, address: str) -> Told:
    head = f"POST /v1/sessions/s/chunks HTTP/1.1\r\nX-Forwarded-For: {address}\r\n{header(shown)}"
    return await raw(world, head, json.dumps({"generation_id": GID, "data": {"text": "x"}}).encode())


async def by_ticket(world: Penstock, shown: str, address: str) -> Told:
    if shown == GOOD:
        return await by_request(world, shown, address)
    path = f"/v1/sessions/s/events?live=false&ticket={shown or 'x'}"
    return await raw(world, f"GET {path} HTTP/1.1\r\nX-Forwarded-For: {address}\r\n")


async def by_handshake(world: Penstock, shown: str, address: str) -> Told:
    return await _handshake(world, "/v1/ws", header(shown or "x"), address)


async def by_socket_ticket(world: Penstock, shown: str, address: str) -> Told:
    if shown == GOOD:
        return await by_handshake(world, shown, address)
    return await _handshake(world, f"/v1/ws?ticket={shown or 'x'}", "", address)


async def _handshake(world: Penstock, path: str, extra: str, address: str) -> Told:
    head = (
        f"GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{extra}"
        f"X-Forwarded-For: {address}\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    async with await world.served.connect() as stream:
        await stream.send_all(head.encode())
        answer = b""
        with trio.fail_after(PATIENCE):
            while b"\r\n\r\n" not in answer or (b" 101 " not in answer and not answer.endswith(b"}")):
                answer += await stream.receive_some()
    if b" 101 " in answer:
        return None
    lines = answer.partition(b"\r\n\r\n")[0].decode().split("\r\n")[1:]
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    return told(int(answer.split()[1]), problem(answer)[1], headers)


async def by_first_frame(world: Penstock, shown: str, address: str) -> Told:
    first = {"op": "auth", "token": shown} if shown else {"op": "subscribe", "session_id": "s"}
    async with opened(world, address) as socket:
        answer = await socket.ask(**first, id=1)
        found = of_frame(answer)
        if found is not None:
            assert await socket.closed() == {"UNAUTHENTICATED": 4401, "RATE_LIMITED": 4429}[found[0]]
        return found


async def by_later_frame(world: Penstock, shown: str, address: str) -> Told:
    async with opened(world, address) as socket:
        assert of_frame(await socket.ask(op="auth", id=1, token=GOOD)) is None
        found = of_frame(await socket.ask(op="auth", id=2, token=shown))
        assert of_frame(await socket.ask(op="ping", id=3)) is None
        return found


@asynccontextmanager
async def opened(world: Penstock, address: str) -> AsyncIterator[Socket]:
    async with world.socket(headers=[(b"X-Forwarded-For", address.encode())]) as socket:
        yield socket


def of_frame(answer: Mapping[str, Any]) -> Told:
    if answer["op"] == "reply":
        return None
    made = answer["error"]
    assert (made["status"] == 429) == ("retry_after" in made)
    return str(made["code"]), made.get("retry_after")


def header(shown: str) -> str:
    return f"Authorization: Bearer {shown}\r\n" if shown else ""


WAYS = [by_request, by_chunk, by_ticket, by_handshake, by_socket_ticket, by_first_frame, by_later_frame]

BAD = {
    "missing": "",
    "garbage": "x.y.z",
    "expired": token(ttl=-100),
    "another key": token(key=b"another secret that has 32 bytes at least"),
}


@asynccontextmanager
async def guarded(config: LimitsConfig, proxies: TrustedProxies = LOOPBACK) -> AsyncIterator[Penstock]:
    limits, own = Limits(config), identity()
    async with open_engine(MemoryLog()) as engine:
        await engine.create_session("s")
        app = create_app(engine, identity=own, limits=limits)
        handler = websocket_handler(engine, identity=own, limits=limits)
        async with serving(app, handler, drain=engine.drain, config=ServerConfig(trusted_proxies=proxies)) as served:
            yield Penstock(engine, served)


FEW = LimitsConfig(failures=0.01, failures_at_once=3)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
@pytest.mark.parametrize("shown", BAD.values(), ids=BAD.keys())
async def test_after_some_failures_an_address_is_told_to_wait_and_a_good_token_is_let_in(way: Way, shown: str) -> None:
    async with guarded(FEW) as world:
        for _ in range(3):
            found = await way(world, shown, "192.0.2.1")
            assert found == ("UNAUTHENTICATED", None)
        for _ in range(2):
            found = await way(world, shown, "192.0.2.1")
            assert found is not None
            code, seconds = found
            assert code == "RATE_LIMITED"
            assert seconds is not None
            assert 1 < seconds <= 100
            assert await way(world, GOOD, "192.0.2.1") is None
        assert await way(world, shown, "192.0.2.2") == ("UNAUTHENTICATED", None)


async def test_all_ways_in_count_together_and_ipv6_by_customer() -> None:
    async with guarded(FEW) as world:
        for number, way in enumerate((by_request, by_first_frame, by_handshake)):
            assert await way(world, "x.y.z", f"2001:db8::{number}") == ("UNAUTHENTICATED", None)
        for way in WAYS:
            found = await way(world, "x.y.z", "2001:db8::9")
            assert found is not None
            assert found[0] == "RATE_LIMITED"
        assert await by_request(world, "x.y.z", "2001:db8:0:1::9") == ("UNAUTHENTICATED", None)


async def test_an_address_that_nobody_trusted_has_named_is_none() -> None:
    async with guarded(FEW, TrustedProxies()) as world:
        found = [await by_request(world, "x.y.z", f"192.0.2.{number}") for number in range(4)]
        assert [each[0] for each in found if each] == ["UNAUTHENTICATED"] * 3 + ["RATE_LIMITED"]
