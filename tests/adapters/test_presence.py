"""Who is here, over HTTP, over a WebSocket, and in the streams of every form."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
import trio

from penstock.adapters.access import Identity, Principal, Scope
from penstock.adapters.http import create_app
from penstock.adapters.websocket import websocket_handler
from penstock.engine import Config, Engine, MemoryLog, open_engine
from tests.adapters.serving import Penstock, Served, penstock, serving
from tests.adapters.test_streams import Reader, each_form, following

HERE = "/v1/sessions/s/presence"


async def told(reader: Reader) -> dict[str, object]:
    """The next event that is not in the log, as who, where, and what of it."""
    while True:
        item = await reader.next()
        if item.kind == "event" and item.value["type"] == "presence.changed":
            assert item.cursor is None
            assert "offset" not in item.value
            data = item.value["data"]
            assert isinstance(data, dict)
            return data


async def listing(reader: Reader) -> object:
    while (item := await reader.next()).kind != "caught-up":
        pass
    item = await reader.next()
    assert item.kind == "presence"
    assert item.cursor is None
    return item.value["presence"]


#
@each_form
async def test_readers_get_the_list_behind_caught_up_and_then_each_change(form: str) -> None:
    async with penstock() as world, world.client() as client:
        session = await world.engine.create_session("s")
        assert (await client.put(f"{HERE}/ann/phone", json={"name": "Ann"})).status_code == 200
        async with following(world, form) as reader:
            assert await listing(reader) == [{"actor_id": "ann", "device_id": "phone", "name": "Ann"}]
            await client.put(f"{HERE}/ann/phone", json={"name": "Ann"})
            await client.put(f"{HERE}/bob/desk", json={"status": "typing"})
            assert await told(reader) == {"actor_id": "bob", "device_id": "desk", "status": "typing"}
            await client.delete(f"{HERE}/ann")
            gone = {"actor_id": "ann", "device_id": "phone", "name": "Ann", "status": "gone"}
            assert await told(reader) == gone
            await session.post("and on")
            item = await reader.next()
            assert item.value["offset"] == 2
            assert item.cursor == str(await session.cursor())


@each_form
async def test_a_reader_resumes_by_its_cursor_whatever_was_said_aside(form: str) -> None:
    async with penstock() as world:
        session = await world.engine.create_session("s")
        async with following(world, form) as reader:
            assert await listing(reader) == []
            await session.post("one")
            cursor = (await reader.next()).cursor
            await session.put_presence("ann", "phone")
            await told(reader)
        await session.post("two")
        async with following(world, form, after=cursor) as reader:
            assert (await reader.next()).kind == "open"
            assert (await reader.next()).value["offset"] == 3
            assert await listing(reader) == [{"actor_id": "ann", "device_id": "phone"}]


async def test_the_cursor_of_a_websocket_frame_stays_where_it_was() -> None:
    async with penstock() as world, world.socket() as socket:
        session = await world.engine.create_session("s")
        await socket.ask(op="subscribe", id=1, session_id="s")
        await socket.until("presence")
        await session.put_presence("ann", "phone")
        frame = await socket.receive()
        assert (frame["op"], frame["cursor"]) == ("events", str(await session.cursor()))


# R-13 R-119: every answer says whom it is about, and in which session.
async def test_the_routes_put_list_and_remove() -> None:
    async with penstock() as world, world.client() as client:
        await world.engine.create_session("s")
        assert (await client.get(HERE)).json() == {"session_id": "s", "presence": []}
        for path, body in (("ann/phone", {"name": "Ann"}), ("ann/desk", None), ("bob/desk", {"status": "away"})):
            response = await client.put(f"{HERE}/{path}", json=body) if body else await client.put(f"{HERE}/{path}")
            actor, device = path.split("/")
            said = {"session_id": "s", "actor_id": actor, "device_id": device}
            assert (response.status_code, response.json()) == (200, said)
        assert (await client.get(HERE)).json()["presence"] == [
            {"actor_id": "ann", "device_id": "phone", "name": "Ann"},
            {"actor_id": "ann", "device_id": "desk"},
            {"actor_id": "bob", "device_id": "desk", "status": "away"},
        ]
        assert (await client.delete(f"{HERE}/ann/desk")).status_code == 200
        assert (await client.delete(f"{HERE}/ann/desk")).status_code == 200, "gone is gone"
        assert [one["device_id"] for one in (await client.get(HERE)).json()["presence"]] == ["phone", "desk"]
        assert (await client.delete(f"{HERE}/ann")).json() == {"session_id": "s", "actor_id": "ann"}
        assert [one["actor_id"] for one in (await client.get(HERE)).json()["presence"]] == ["bob"]


# what is refused is refused by name, and the log has it.
@pytest.mark.parametrize(
    ("path", "body", "code"),
    [
        ("ann/phone", b"{", "INVALID_BODY"),
        ("ann/phone", b"[]", "INVALID_BODY"),
        ("ann/phone", b'{"nme": "Ann"}', "INVALID_BODY"),
        ("ann/phone", b'{"name": 1}', "INVALID_BODY"),
        ("ann/phone", b'{"name": null}', "INVALID_BODY"),
        ("ann/phone", b'{"name": ""}', "INVALID_BODY"),
        ("ann/phone", b'{"status": "gone"}', "INVALID_BODY"),
        ("ann/a%20b", b"", "INVALID_ID"),
        ("ann/" + "x" * 129, b"", "INVALID_ID"),
        ("0198c0de-7a11-7abc-8def-0123456789ab/a%20b", b"", "INVALID_ID"),
    ],
)
async def test_a_bad_put_is_refused_and_logged(
    path: str, body: bytes, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with penstock() as world, world.client() as client:
        await world.engine.create_session("s")
        caplog.clear()
        caplog.set_level("DEBUG", "penstock")
        response = await client.put(f"{HERE}/{path}", content=body)
        assert (response.status_code, response.json()["code"], response.json()["session_id"]) == (400, code, "s")
        assert code in caplog.text or any(code in str(vars(record)) for record in caplog.records)
        assert (await client.get(HERE)).json()["presence"] == []


async def test_as_many_as_may_be_are_here_then_it_is_overloaded() -> None:
    async with penstock(config=Config(presence_limit=1)) as world, world.client() as client, world.socket() as socket:
        await world.engine.create_session("s")
        await client.put(f"{HERE}/ann/phone")
        response = await client.put(f"{HERE}/bob/phone")
        assert (response.status_code, response.json()["code"]) == (503, "OVERLOADED")
        assert "Retry-After" in response.headers
        answer = await socket.ask(op="presence", id=1, session_id="s", actor_id="bob", device_id="phone")
        assert answer["error"]["code"] == "OVERLOADED"  # type: ignore[index]


@pytest.mark.parametrize(
    ("method", "path"), [("GET", ""), ("PUT", "/ann/phone"), ("DELETE", "/ann/phone"), ("DELETE", "/ann")]
)
async def test_there_is_nobody_in_a_session_that_is_not_there(method: str, path: str) -> None:
    async with penstock() as world, world.client() as client:
        response = await client.request(method, HERE + path)
        assert (response.status_code, response.json()["code"]) == (404, "SESSION_NOT_FOUND")
        session = await world.engine.create_session("s")
        await session.delete()
        response = await client.request(method, HERE + path)
        assert (response.status_code, response.json()["code"]) == (410, "SESSION_DELETED")


#
async def test_a_websocket_puts_and_removes() -> None:
    async with penstock() as world, world.socket() as socket:
        session = await world.engine.create_session("s")
        device = {"op": "presence", "session_id": "s", "actor_id": "ann", "device_id": "phone"}
        ids = {"session_id": "s", "actor_id": "ann"}
        done = {"op": "reply", "result": {**ids, "device_id": "phone"}}
        assert await socket.ask(id=1, **device, name="Ann", status="typing") == {**done, "id": 1}
        assert [one.to_json() for one in await session.presence()] == [
            {"actor_id": "ann", "device_id": "phone", "name": "Ann", "status": "typing"}
        ]
        assert await socket.ask(id=2, **device, gone=True) == {**done, "id": 2}
        assert await session.presence() == ()
        await session.put_presence("ann", "phone")
        await session.put_presence("ann", "desk")
        assert await socket.ask(id=3, op="presence", session_id="s", actor_id="ann", gone=True) == {
            **done,
            "result": ids,
            "id": 3,
        }
        assert await session.presence() == ()


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({}, "INVALID_BODY"),
        ({"actor_id": "ann"}, "INVALID_BODY"),
        ({"device_id": "phone"}, "INVALID_BODY"),
        ({"actor_id": 1, "device_id": "phone"}, "INVALID_BODY"),
        ({"actor_id": "ann", "device_id": "phone", "gone": "yes"}, "INVALID_BODY"),
        ({"actor_id": "ann", "device_id": "phone", "gone": True, "name": "Ann"}, "INVALID_BODY"),
        ({"actor_id": "ann", "device_id": "phone", "status": "gone"}, "INVALID_BODY"),
        ({"actor_id": "ann", "device_id": "phone", "nme": "Ann"}, "INVALID_BODY"),
        ({"actor_id": "a b", "device_id": "phone"}, "INVALID_ID"),
        ({"actor_id": "ann", "device_id": ""}, "INVALID_ID"),
        ({"actor_id": "ann", "device_id": "phone", "session_id": "t"}, "SESSION_NOT_FOUND"),
    ],
)
async def test_a_bad_frame_is_refused(fields: dict[str, object], code: str) -> None:
    async with penstock() as world, world.socket() as socket:
        session = await world.engine.create_session("s")
        answer = await socket.ask(**{"op": "presence", "id": 1, "session_id": "s", **fields})
        assert answer["op"] == "error"
        assert answer["error"]["code"] == code  # type: ignore[index]
        assert await session.presence() == ()


# --- who may say it of whom


def bearer(token: str) -> Principal:
    """A token is its subject, its scopes and its session."""
    subject, scopes, session = token.split("/")
    granted: list[Scope] = [scope for scope in ("read", "write", "produce", "admin") if scope in scopes]
    return Principal(subject=subject, scopes=frozenset(granted), sessions=(session,))


@asynccontextmanager
async def guarded() -> AsyncIterator[tuple[Engine, Penstock]]:
    identity = Identity(bearer)
    async with open_engine(MemoryLog()) as engine:
        app, handler = create_app(engine, identity=identity), websocket_handler(engine, identity=identity)
        served: Served
        async with serving(app, handler, drain=engine.drain) as served:
            await engine.create_session("s")
            yield engine, Penstock(engine, served)


ALLOWED = [
    ("ann/write/s", True),
    ("ann/write/*", True),
    ("bob/write+produce/s", True),
    ("bob/admin/s", True),
    ("bob/write/s", False),
    ("ann/read/s", False),
    ("ann/produce/s", False),
    ("ann/write/t", False),
]


@pytest.mark.parametrize(("token", "allowed"), ALLOWED)
async def test_people_say_where_they_are_themselves_and_nobody_else_does(token: str, allowed: bool) -> None:
    async with guarded() as (engine, world), world.client() as client:
        session = await engine.session("s")
        expected = 200 if allowed else 403
        headers = {"Authorization": f"Bearer {token}"}

        async def ask(method: str, path: str) -> httpx.Response:
            return await client.request(method, HERE + path, headers=headers)

        assert (await ask("PUT", "/ann/phone")).status_code == expected
        assert len(await session.presence()) == allowed
        for path in ("/ann/phone", "/ann"):
            await session.put_presence("ann", "phone")
            assert (await ask("DELETE", path)).status_code == expected
            assert len(await session.presence()) == (not allowed)
        reads = "read" in token or "admin" in token
        assert (await ask("GET", "")).status_code == (200 if reads else 403)
        missing = await client.put("/v1/sessions/t/presence/ann/phone", headers=headers)
        assert missing.status_code == (404 if token in ("ann/write/*", "ann/write/t") else 403)


@pytest.mark.parametrize(("token", "allowed"), ALLOWED)
async def test_the_same_holds_on_a_websocket(token: str, allowed: bool) -> None:
    async with guarded() as (engine, world):
        session = await engine.session("s")
        async with world.socket(headers=[(b"Authorization", f"Bearer {token}".encode())]) as socket:
            device = {"op": "presence", "session_id": "s", "actor_id": "ann", "device_id": "phone"}
            with trio.fail_after(10):
                answer = await socket.ask(id=1, **device)
                assert answer["op"] == ("reply" if allowed else "error"), answer
                assert len(await session.presence()) == allowed
                await session.put_presence("ann", "phone")
                answer = await socket.ask(id=2, **device, gone=True)
                assert answer["op"] == ("reply" if allowed else "error"), answer
                assert len(await session.presence()) == (not allowed)
