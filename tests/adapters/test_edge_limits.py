"""What one client may take, and slow or shapeless requests: each refusal through the whole edge."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from uuid import uuid4

import httpx
import pytest
import trio
from quart import Response

from penstock.adapters.access import OPEN, Authorize, Identity, Principal, Scope
from penstock.adapters.http import create_app
from penstock.adapters.server.accept import ServerConfig
from penstock.adapters.server.limits import Limits, LimitsConfig
from penstock.adapters.server.proxies import TrustedProxies
from penstock.adapters.websocket import websocket_handler
from penstock.engine import Config, MemoryLog, SessionDeleted, open_engine
from tests.adapters.serving import PATIENCE, Penstock, problem, read_to_end, read_until, serving
from tests.adapters.test_edge import LOOPBACK

S = "/v1/sessions/s"

# Far more than any test here asks for, unless it says otherwise.
PLENTY = 1000.0


def bounds(
    *, rate: float = PLENTY, burst: float = PLENTY, connections: float = PLENTY, subscriptions: float = PLENTY
) -> LimitsConfig:
    return LimitsConfig(rate=rate, burst=burst, connections=connections, subscriptions=subscriptions)


def believing(authorize: Authorize | None = None) -> Identity:
    """Believes whatever name is given as a token."""
    scopes: frozenset[Scope] = frozenset({"read", "write", "produce", "admin"})
    return Identity(
        lambda token: Principal(subject=token, scopes=scopes, sessions=("*",)),
        authorize=authorize,
    )


@asynccontextmanager
async def limited(
    config: LimitsConfig,
    *,
    identity: Identity = OPEN,
    proxies: TrustedProxies | None = None,
    body_timeout: float | None = None,
) -> AsyncIterator[Penstock]:
    limits = Limits(config)
    async with open_engine(MemoryLog(), config=Config()) as engine:
        app = create_app(engine, identity=identity, limits=limits)
        if body_timeout is not None:
            app.config["BODY_TIMEOUT"] = body_timeout
        handler = websocket_handler(engine, identity=identity, limits=limits)
        server = ServerConfig(trusted_proxies=proxies or TrustedProxies())
        async with serving(app, handler, drain=engine.drain, config=server) as served:
            yield Penstock(engine, served)


def bearer(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {name}"}


def refused(response: httpx.Response) -> None:
    assert response.headers["content-type"] == "application/problem+json"
    assert (response.status_code, response.json()["code"]) == (429, "RATE_LIMITED")
    assert response.json()["retryable"] is True
    assert int(response.headers["retry-after"]) >= 1


async def test_one_principals_requests_are_limited_and_anothers_are_not() -> None:
    config = bounds(rate=0.01, burst=3)
    async with limited(config, identity=believing()) as world, world.client() as client:
        assert (await client.put(S, headers=bearer("ann"))).status_code == 201
        for _ in range(2):
            assert (await client.get(S, headers=bearer("ann"))).status_code == 200
        last = await client.get(S, headers=bearer("ann"))
        refused(last)
        assert last.json()["session_id"] == "s"
        assert 1 < int(last.headers["retry-after"]) <= 100
        assert (await client.get(S, headers=bearer("bob"))).status_code == 200
        assert (await client.get("/healthz")).status_code == 200


async def test_a_refused_request_changes_nothing() -> None:
    async with limited(bounds(rate=0.01, burst=1), identity=believing()) as world, world.client() as client:
        await client.put(S, headers=bearer("ann"))
        refused(await client.post(f"{S}/messages", json={"text": "no"}, headers=bearer("ann")))
        assert (await client.get(S, headers=bearer("bob"))).json()["messages"] == []


async def test_without_tokens_an_address_is_a_client_and_a_trusted_proxy_names_it() -> None:
    config = bounds(rate=0.01, burst=1)
    async with limited(config, proxies=LOOPBACK) as world, world.client() as client:
        for address in ("192.0.2.1", "192.0.2.2", "2001:db8::1"):
            assert (await client.put(S, headers={"X-Forwarded-For": address})).status_code in (200, 201)
            refused(await client.get(S, headers={"X-Forwarded-For": address}))
        refused(await client.get(S, headers={"X-Forwarded-For": "2001:db8::2"}))  # the same customer
    async with limited(config) as world, world.client() as client:
        await client.put(S, headers={"X-Forwarded-For": "192.0.2.1"})
        refused(await client.get(S, headers={"X-Forwarded-For": "192.0.2.2"}))


async def test_commands_on_a_websocket_count_too() -> None:
    config = bounds(rate=0.01, burst=2)
    headers = [(b"Authorization", b"Bearer ann")]
    async with (
        limited(config, identity=believing()) as world,
        world.client() as client,
        world.socket(headers=headers) as socket,
    ):
        assert (await socket.ask(op="ping", id=1))["op"] == "reply"
        assert (await client.put(S, headers=bearer("ann"))).status_code == 201
        answer = await socket.ask(op="post", id=2, session_id="s", text="no")
        assert answer["op"] == "error"
        error = answer["error"]
        assert isinstance(error, Mapping)
        assert (error["code"], error["status"], error["retryable"]) == ("RATE_LIMITED", 429, True)
        refused(await client.get(S, headers=bearer("ann")))
        assert (await client.get(S, headers=bearer("bob"))).json()["messages"] == []


async def test_one_principal_may_not_take_all_connections() -> None:
    config = bounds(connections=2)
    async with limited(config, identity=believing()) as world, world.client() as client:
        await client.put(S, headers=bearer("ann"))
        async with (
            world.lines(f"{S}/events", **bearer("ann")) as stream,
            world.socket(headers=[(b"Authorization", b"Bearer ann")]) as socket,
        ):
            assert stream.status == 200
            assert (await socket.ask(op="ping", id=1))["op"] == "reply"
            refused(await client.get(S, headers=bearer("ann")))
            assert (await client.get(S, headers=bearer("bob"))).status_code == 200
            async with world.socket(headers=[(b"Authorization", b"Bearer ann")]) as third:
                answer = await third.ask(op="ping", id=1)
                assert answer["error"]["code"] == "RATE_LIMITED"  # type: ignore[index]
        with trio.fail_after(PATIENCE):
            while (await client.get(S, headers=bearer("ann"))).status_code != 200:
                pass


async def test_one_principals_subscriptions_are_limited_over_http_and_websocket_together() -> None:
    config = bounds(subscriptions=2)
    async with limited(config, identity=believing()) as world, world.client() as client, AsyncExitStack() as stack:
        for name in ("s", "t", "u"):
            await client.put(f"/v1/sessions/{name}", headers=bearer("ann"))
        first = await stack.enter_async_context(world.lines(f"{S}/events", **bearer("ann")))
        await first.next()
        socket = await stack.enter_async_context(world.socket(headers=[(b"Authorization", b"Bearer ann")]))
        assert (await socket.ask(op="subscribe", id=1, session_id="t"))["op"] == "reply"
        answer = await socket.ask(op="subscribe", id=2, session_id="u")
        assert answer["error"]["code"] == "RATE_LIMITED"  # type: ignore[index]
        refused(await client.get(f"{S}/events", headers=bearer("ann")))
        assert (await client.head(f"{S}/events", headers=bearer("bob"))).status_code == 200
        await socket.ask(op="unsubscribe", id=3, session_id="t")
        assert (await socket.ask(op="subscribe", id=4, session_id="u"))["op"] == "reply"
        await stack.aclose()
        with trio.fail_after(PATIENCE):
            while (await client.get(f"{S}/events?live=false", headers=bearer("ann"))).status_code != 200:
                pass


async def asked(world: Penstock, version: str = "1.1") -> trio.SocketStream:
    """A connection on which a stream has been asked for."""
    stream = await world.served.connect()
    await stream.send_all(
        f"GET {S}/events HTTP/{version}\r\nHost: localhost\r\nAuthorization: Bearer ann\r\n\r\n".encode()
    )
    return stream


async def all_places_are_free(world: Penstock, places: int) -> None:
    """So many streams can be had at the same time, at last: nobody tells when a reader's leaving was seen."""
    with trio.fail_after(PATIENCE):
        while True:
            streams = [await asked(world) for _ in range(places)]
            heads = [await read_until(stream, b"\r\n\r\n") for stream in streams]
            for stream in streams:
                await trio.aclose_forcefully(stream)
            if all(head.startswith(b"HTTP/1.1 200") for head in heads):
                return
            await trio.sleep(0.01)


# 1.0 has no chunks, so its answers go the ordinary way through the framework.
@pytest.mark.parametrize("version", ["1.1", "1.0"])
async def test_of_streams_opened_at_one_moment_as_many_as_may_are_whole_and_the_others_are_refused(
    version: str,
) -> None:
    at_once = 8
    waiting = 0
    all_here = trio.Event()

    async def wait_for_all(_: Principal, action: str, __: str | None) -> bool:
        nonlocal waiting
        if action == "read":
            waiting += 1
            if waiting == at_once:
                all_here.set()
            await all_here.wait()
        return True

    own = believing(wait_for_all)
    async with limited(bounds(subscriptions=3), identity=own) as world, world.client() as client:
        await client.put(S, headers=bearer("ann"))
        for _ in range(5):
            waiting, all_here = 0, trio.Event()
            streams = [await asked(world, version) for _ in range(at_once)]
            heads = [await read_until(stream, b"\r\n\r\n") for stream in streams]
            assert sorted(int(head.split()[1]) for head in heads) == [200] * 3 + [429] * 5
            for head, stream in zip(heads, streams, strict=True):
                if b" 429 " in head:
                    assert b"RATE_LIMITED" in (head if b"}" in head else await read_until(stream, b"}"))
                elif b"caught-up" not in head:
                    await read_until(stream, b"caught-up")  # it is whole: it has begun
            for stream in streams:
                await trio.aclose_forcefully(stream)
            await all_places_are_free(world, 3)


async def test_a_stream_that_is_never_begun_gives_its_place_back() -> None:
    async with limited(bounds(subscriptions=2), identity=believing()) as world, world.client() as client:
        await client.put(S, headers=bearer("ann"))
        for pause in (0.0, 0.001, 0.002, 0.004) * 5:
            stream = await asked(world)
            await trio.sleep(pause)  # the peer's, which leaves at some point on the way to its answer
            await trio.aclose_forcefully(stream)
        for _ in range(3):
            await client.head(f"{S}/events", headers=bearer("ann"))
        await all_places_are_free(world, 2)


async def test_a_hook_that_fails_behind_the_route_takes_no_place() -> None:
    limits = Limits(bounds(subscriptions=1))
    async with open_engine(MemoryLog()) as engine:
        await engine.create_session("s")
        app = create_app(engine, identity=believing(), limits=limits)
        failing = True

        @app.after_request
        async def fail(response: Response) -> Response:
            if failing:
                raise ValueError
            return response

        async with serving(app, websocket_handler(engine), drain=engine.drain) as served:
            world = Penstock(engine, served)
            stream = await asked(world)
            for _ in range(3):
                assert b" 500 " in await read_until(stream, b"\r\n\r\n")
                await stream.send_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            failing = False
            await all_places_are_free(world, 1)
            await stream.aclose()


async def test_a_session_that_is_deleted_while_its_stream_opens_ends_the_stream_in_its_own_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with limited(bounds(), identity=believing()) as world, world.client() as client:
        await client.put(S, headers=bearer("ann"))
        session = await world.engine.session("s")

        class DeletedByNow:
            def __init__(self, *_: object, **__: object) -> None: ...

            async def __aenter__(self) -> None:
                raise SessionDeleted("gone", session_id="s")

            async def __aexit__(self, *_: object) -> None: ...

        monkeypatch.setattr(type(session), "subscribe", DeletedByNow)
        for version in ("1.1", "1.0"):
            async with world.lines(f"{S}/events", version=version, **bearer("ann")) as lines:
                assert (lines.status, await lines.next()) == (200, "event: end")
                assert await lines.next() == 'data: {"reason":"deleted"}'


#
@pytest.mark.parametrize("asked", [f"PUT {S}", f"POST {S}/chunks", f"POST {S}/chunks/batch"])
@pytest.mark.parametrize("framing", ["Content-Length: 50", "Transfer-Encoding: chunked"])
async def test_a_body_too_slow_is_refused_and_cut(framing: str, asked: str) -> None:
    async with limited(bounds(), body_timeout=0.3) as world, await world.served.connect() as stream:
        head = f"{asked} HTTP/1.1\r\nHost: localhost\r\n{framing}\r\n\r\n"
        begun = b"1\r\n{\r\n" if "chunked" in framing else b"{"
        await stream.send_all(head.encode() + begun)
        with trio.fail_after(PATIENCE):
            answer = await read_to_end(stream)  # that this returns is the cut
        status, made = problem(answer)
        assert (status, made["code"], made["session_id"]) == (504, "TIMEOUT", "s")
        assert b"\r\nconnection: close\r\n" in answer.lower()


async def test_a_body_that_trickles_does_not_buy_time() -> None:
    async with limited(bounds(), body_timeout=0.4) as world, await world.served.connect() as stream:
        await stream.send_all(f"PUT {S} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9000\r\n\r\n".encode())

        async def trickle() -> None:
            try:
                while True:
                    await stream.send_all(b" ")
                    await trio.sleep(0.02)  # the peer's pace is what this is about
            except trio.BrokenResourceError:
                pass

        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trickle)
                assert (await read_until(stream, b"\r\n\r\n")).startswith(b"HTTP/1.1 504")
                nursery.cancel_scope.cancel()


@pytest.mark.parametrize("framing", ["Content-Length: 9999999", "Transfer-Encoding: chunked"])
async def test_a_body_too_large_is_refused_without_reading_it_all(framing: str) -> None:
    async with limited(bounds()) as world, await world.served.connect() as stream:
        await stream.send_all(f"PUT {S} HTTP/1.1\r\nHost: localhost\r\n{framing}\r\n\r\n".encode())
        if "chunked" in framing:
            await stream.send_all(b"10000\r\n" + b" " * 65536 + b"\r\n")
            for _ in range(17):
                await stream.send_all(b"10000\r\n" + b" " * 65536 + b"\r\n")
        answer = await read_until(stream, b'"session_id"')
        assert answer.startswith(b"HTTP/1.1 413")
        assert b'"BODY_TOO_LARGE"' in answer


async def test_head_and_options_are_right_on_every_route() -> None:
    async with limited(bounds()) as world, httpx.AsyncClient(base_url=world.url, trust_env=False) as client:
        await client.put(S)
        rules = list(create_app(world.engine).url_map.iter_rules())
        assert len(rules) > 20
        by_path: dict[str, set[str]] = {}
        for rule in rules:
            values = {name: "s" if name == "session_id" else str(uuid4()) for name in rule.arguments}
            if "name" in values:
                values["name"] = "penstock.js"
            path = re.sub(r"<(\w+)>", lambda found, values=values: values[found[1]], rule.rule)  # type: ignore[misc]
            shape = re.sub(r"<\w+>", "<>", rule.rule)
            by_path.setdefault(shape, set()).update(rule.methods or ())
            if "GET" not in (rule.methods or ()):
                continue
            async with client.stream("GET", path) as got:
                head = await client.head(path)
                assert (head.status_code, head.content) == (got.status_code, b""), path
                assert head.headers["content-type"] == got.headers["content-type"], path
        for shape, methods in by_path.items():
            path = shape.replace("/v1/sessions/<>", S).replace("<>", str(uuid4()) if shape != "/<>" else "penstock.js")
            told = await client.options(path)
            assert (told.status_code, told.content) == (204, b""), path
            assert set(told.headers["allow"].split(", ")) >= methods, path


@pytest.mark.parametrize(
    ("method", "path", "status", "ids"),
    [
        ("POST", S, 405, {"session_id": "s"}),
        ("DELETE", "/v1/sessions/a%7Eb/messages", 405, {"session_id": "a~b"}),
        ("PUT", S + "/generations/{}", 405, {"session_id": "s", "generation_id": "{}"}),
        ("PUT", S + "/messages/{}/retract", 405, {"session_id": "s", "message_id": "{}"}),
        ("PUT", S + "/queue/{}", 405, {"session_id": "s", "generation_id": "{}"}),
        ("GET", S + "/nothing", 404, {"session_id": "s"}),
        ("GET", S + "/generations/x/y/z", 404, {"session_id": "s"}),
        ("GET", "/v1/sessions/a%2Fb", 400, {}),
        ("GET", "/v1/sessions/a%2Fb/nothing", 404, {}),
        ("GET", "/v1/sessions/a b/nothing".replace(" ", "%20"), 404, {}),
        ("GET", "/v1/sessions/%C3%A4/nothing", 404, {}),
        ("POST", "/v1/sessions", 405, {}),
        ("GET", "/v2/sessions/s", 404, {}),
    ],
)
async def test_answers_that_no_route_gave_carry_the_ids_of_their_path(
    method: str, path: str, status: int, ids: dict[str, str]
) -> None:
    some = str(uuid4())
    async with limited(bounds()) as world:
        target = path.replace("{}", some)
        raw = f"{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        told, made = problem(await world.served.exchange(raw.encode()))
        assert told == status
        names = ("session_id", "generation_id", "message_id")
        assert {name: made[name] for name in names if name in made} == {
            name: value.replace("{}", some) for name, value in ids.items()
        }
