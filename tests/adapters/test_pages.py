"""What is asked for comes in pages that are bounded in bytes, over every way, and is made once for all who ask."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from typing import Any, Final, Literal, TypeAlias

import pytest
import trio
from httpx import AsyncClient

from penstock.adapters.client import connect
from penstock.engine import Config, Generation, JSONObject, Session
from penstock.engine.reducer import SessionState
from tests.adapters.credentials import bearer, identity, token
from tests.adapters.serving import PATIENCE, Penstock, penstock

Over: TypeAlias = Literal["sse", "websocket"]
S: Final = "/v1/sessions/s"

# Two messages of 1000 characters, with what is beside those; or ten of hardly any.
BOUND: Final = 2500
CONFIG: Final = Config(snapshot_bytes=BOUND)


async def patient(generation: Generation) -> None:
    async with generation.message() as message, message.text() as block:
        await block.write("begun " + "y" * 3000)
        await trio.sleep_forever()


async def filled(world: Penstock, *, count: int = 9) -> list[str]:
    """So many messages of 1000 characters, the last but two larger than a page."""
    session = await world.engine.create_session("s")
    ids = []
    for number in range(count):
        size = 4 * BOUND if number == count - 3 else 1000
        ids.append((await session.post(f"{number} " + "x" * size)).message_id)
    return ids


def ids_of(page: JSONObject) -> list[str]:
    messages: Any = page["messages"]
    return [message["message_id"] for message in messages]


def assert_bounded(page: JSONObject) -> None:
    messages: Any = page["messages"]
    size = sum(len(json.dumps(message, separators=(",", ":"))) for message in messages)
    assert size <= BOUND or len(messages) == 1


async def by_get(world: Penstock, client: AsyncClient) -> JSONObject:
    return dict((await client.get(S)).json())


async def by_sse(world: Penstock, client: AsyncClient) -> JSONObject:
    async with world.lines(f"{S}/events?snapshot=true") as lines:
        while await lines.next() != "event: snapshot":
            pass
        at = await lines.next()
        page: JSONObject = json.loads((await lines.next()).removeprefix("data: "))
        assert at == f"id: {page['cursor']}"
        return page


async def by_ndjson(world: Penstock, client: AsyncClient) -> JSONObject:
    async with world.lines(f"{S}/events?snapshot=true", Accept="application/x-ndjson") as lines:
        while (page := json.loads(await lines.next())).pop("control") != "snapshot":
            pass
        return dict(page)


async def by_websocket(world: Penstock, client: AsyncClient) -> JSONObject:
    async with world.socket() as socket:
        await socket.send(op="subscribe", session_id="s", snapshot=True, id="1")
        _, page = await socket.until("snapshot")
        page.pop("op")
        return page  # type: ignore[return-value]


WAYS: Final = {"GET": by_get, "SSE": by_sse, "NDJSON": by_ndjson, "WebSocket": by_websocket}


@pytest.mark.parametrize("way", WAYS)
async def test_a_snapshot_is_bounded_in_bytes_and_the_rest_comes_by_pages(way: str) -> None:
    async with penstock(config=CONFIG) as world, world.client() as client:
        ids = await filled(world)
        page = await WAYS[way](world, client)
        assert_bounded(page)
        seen = ids_of(page)
        assert seen == ids[-2:]
        while page["more"]:
            assert page["next"] == seen[0]
            page = (await client.get(S, params={"before": str(page["next"])})).json()
            assert_bounded(page)
            seen = ids_of(page) + seen
        assert seen == ids
        assert "next" not in page


@pytest.mark.parametrize("way", WAYS)
async def test_a_snapshot_has_at_most_so_many_messages(way: str) -> None:
    config = Config(snapshot_messages=3)
    async with penstock(config=config) as world, world.client() as client:
        ids = await filled(world)
        page = await WAYS[way](world, client)
        assert (ids_of(page), page["more"], page["next"]) == (ids[-3:], True, ids[-3])


@pytest.mark.parametrize("way", ["SSE", "NDJSON", "WebSocket"])
async def test_what_is_open_is_there_whole_however_much_comes_behind_it(way: str) -> None:
    async with penstock(config=CONFIG, producers={"patient": patient}) as world, world.client() as client:
        before = await filled(world, count=3)
        session = await world.engine.session("s")
        await session.start("patient")
        async with session.subscribe() as events:
            async for event in events:
                if event.type == "block.delta":
                    break
        (live,) = [message for message in (await session.snapshot()).messages if message.status == "open"]
        behind = [(await session.post(f"{number} " + "x" * 1000)).message_id for number in range(4)]
        page = await WAYS[way](world, client)
        messages: Any = page["messages"]
        assert ids_of(page) == [live.message_id, *behind[-2:]]
        assert messages[0]["blocks"][0]["text"].startswith("begun")
        assert page["next"] == behind[-2]
        older = (await client.get(S, params={"before": str(page["next"]), "limit": 1000})).json()
        assert ids_of(older) == behind[:2]
        rest = (await client.get(S, params={"before": older["next"]})).json()
        assert ids_of(rest) == [live.message_id]
        assert ids_of((await client.get(S, params={"before": rest["next"]})).json()) == before[-2:]


async def test_the_list_of_sessions_is_bounded_in_bytes() -> None:
    async with penstock(config=CONFIG) as world, world.client() as client:
        for number in range(9):
            size = 4 * BOUND if number == 4 else 1000
            await world.engine.create_session(f"s{number}", metadata={"x": "x" * size})
        seen: list[str] = []
        query: dict[str, str] = {"limit": "1000"}
        pages = 0
        while True:
            answer = await client.get("/v1/sessions", params=query)
            page = answer.json()
            assert len(answer.content) <= BOUND + 100 or len(page["sessions"]) == 1
            seen += [each["session_id"] for each in page["sessions"]]
            pages += 1
            if "next" not in page:
                break
            query["after"] = page["next"]
        assert seen == [f"s{number}" for number in range(9)]
        assert pages >= 5


async def test_a_session_larger_than_a_page_hides_none_that_another_pattern_matches() -> None:
    async with penstock(config=CONFIG, identity=identity()) as world, world.client() as client:
        for name, size in (("a", 4 * BOUND), ("b", 1)):
            await world.engine.create_session(name, metadata={"x": "x" * size})
        headers = bearer(token(["a", "b"], ["read"]))
        page = (await client.get("/v1/sessions", headers=headers)).json()
        assert ([each["session_id"] for each in page["sessions"]], page["next"]) == (["a"], "a")
        page = (await client.get("/v1/sessions", params={"after": "a"}, headers=headers)).json()
        assert ([each["session_id"] for each in page["sessions"]], "next" in page) == (["b"], False)


async def test_a_snapshot_is_encoded_once_for_all_who_ask_at_the_same_cursor(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    encoding: Callable[..., Any] = SessionState.encoding_snapshot

    def counting(state: SessionState, *given: Any, **named: Any) -> Any:
        made.append(state.offset)
        return encoding(state, *given, **named)

    monkeypatch.setattr(SessionState, "encoding_snapshot", counting)
    async with penstock(config=CONFIG) as world:
        await filled(world)
        session = await world.engine.session("s")
        pages = []

        async def ask(session: Session) -> None:
            pages.append(await session.snapshot_page(100))

        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(ask, session)
        assert len(made) == 1
        assert all(page is pages[0] for page in pages)
        await session.post("another")
        await ask(session)
        assert len(made) == 2
        assert pages[-1].snapshot.cursor.offset == pages[0].snapshot.cursor.offset + 1


@pytest.mark.parametrize("over", ["sse", "ndjson", "websocket"])
async def test_a_stream_begins_with_as_many_messages_as_are_asked_for(over: str) -> None:
    config = Config(snapshot_messages=5)
    async with penstock(config=config) as world:
        ids = await filled(world)
        for limit, given in ((1, 1), (3, 3), (900, 5)):
            page = await first_page(world, over, limit)
            assert (ids_of(page), page["more"], page["next"]) == (ids[-given:], True, ids[-given])


async def first_page(world: Penstock, over: str, limit: int) -> JSONObject:
    if over == "websocket":
        async with world.socket() as socket:
            await socket.send(op="subscribe", session_id="s", snapshot=True, limit=limit, id="1")
            _, told = await socket.until("snapshot")
            return told  # type: ignore[return-value]
    accept = "application/x-ndjson" if over == "ndjson" else "text/event-stream"
    async with world.lines(f"{S}/events?snapshot=true&limit={limit}", Accept=accept) as lines:
        while '"messages"' not in (line := await lines.next()):
            pass
        page: JSONObject = json.loads(line.removeprefix("data: "))
        return page


async def test_what_a_stream_is_asked_for_is_a_number() -> None:
    async with penstock() as world, world.client() as client:
        await client.put(S)
        for query in ("limit=0", "limit=1001", "limit=x", "heartbeat=0", "heartbeat=1.5", "heartbeat=3601"):
            answer = await client.get(f"{S}/events?live=false&snapshot=true&{query}")
            assert (answer.status_code, answer.json()["code"]) == (400, "INVALID_BODY"), query
        assert (await client.get(f"{S}/events?live=false&snapshot=true&limit=7&heartbeat=60")).status_code == 200
        async with world.socket() as socket:
            for number, limit in enumerate((0, -1, 1.5, "3")):
                await socket.send(op="subscribe", session_id="s", snapshot=True, limit=limit, id=number)
                _, told = await socket.until("error")
                assert told["error"]["code"] == "INVALID_BODY"  # type: ignore[index]


NUMBERS: Final = ("1", "5", "1000")
NO_NUMBERS: Final = (
    *("0", "-1", "+5", "1001", "000001000999", "01", "1_0", " 5", "5 ", "5\n", "1.0", "1e2", "0x5", "", "x", "²", "٣"),
    "9" * 5000,
    "1" + "0" * 4000,
)


@pytest.mark.parametrize("path", [S, "/v1/sessions"])
@pytest.mark.parametrize("limit", [*NUMBERS, *NO_NUMBERS], ids=lambda limit: repr(limit[:12]))
async def test_a_number_in_a_query_is_read_as_it_is_written_and_in_no_other_way(path: str, limit: str) -> None:
    async with penstock() as world, world.client() as client:
        await client.put(S)
        answer = await client.get(path, params={"limit": limit})
        assert answer.status_code == (200 if limit in NUMBERS else 400)
        if limit not in NUMBERS:
            assert answer.json()["code"] == "INVALID_BODY"
        assert (await client.get(f"{path}?limit=5&limit=5")).status_code == 400


@pytest.mark.parametrize("over", ["sse", "websocket"])
async def test_a_client_has_the_newest_messages_and_older_ones_when_it_asks(over: Over) -> None:
    async def story(generation: Generation) -> AsyncIterator[str]:
        for word in ("water ", "finds ", "its ", "way"):
            yield word

    async with penstock(config=CONFIG, producers={"story": story}) as world, connect(world.url) as client:
        ids = await filled(world)
        session = client.session("s")
        with trio.fail_after(PATIENCE):
            assert [message.message_id for message in (await session.snapshot()).messages] == ids
            async with session.transcript(over=over, limit=1) as transcript:
                assert transcript.state.message_ids() == ids[-1:]
                await session.post("meanwhile")  # what comes does not move what is older
                seen = [len(transcript.state.message_ids())]
                while await transcript.older(3):
                    assert transcript.more
                    seen.append(len(transcript.state.message_ids()))
                assert len(seen) >= 3
                assert seen == sorted(set(seen)), "each page brings something"
                ids.append((await session.snapshot(1)).messages[0].message_id)
                await transcript.wait_for(lambda state: state.message_ids() == ids)
                assert not transcript.snapshot().more
                await session.retract(ids[0])
                await session.start("story")
                await transcript.wait_for(
                    lambda state: state.generation is None and state.turn == 1 and len(state.message_ids()) == len(ids)
                )
                told = transcript.snapshot()
                engine_side = await (await world.engine.session("s")).snapshot()
                assert told.to_json() == engine_side.to_json() == (await session.snapshot()).to_json()
                assert transcript.snapshots == 1
