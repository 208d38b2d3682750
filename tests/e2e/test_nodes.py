"""Two `penstock serve` over one Redis are one service, whichever of them is asked."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

import httpx
import pytest
import trio

from penstock.adapters.client import Client, connect
from penstock.engine import (
    Event,
    GenerationActive,
    GenerationFinished,
    PresenceChanged,
    Queued,
    SessionDeleted,
    Started,
    Stopped,
)
from penstock.engine.testing import assert_log
from tests.adapters.credentials import SECRET, bearer, token
from tests.e2e.nodes import Node, as_nodes
from tests.e2e.streams import SseReader, call
from tests.engine.redis_server import RedisServer

pytestmark = pytest.mark.long  # each fixture is three processes

WORDS = " ".join(f"word-{number}" for number in range(40))
TTL = 2.0
OVER = pytest.mark.parametrize("over", ["sse", "websocket"])

PRODUCERS = """
async def asking(generation):
    async with generation.message() as message, message.text() as block:
        await block.write("heard: ")
        given = await generation.receive_input()
        await generation.apply(given)
        await block.write(given.content["text"])
        granted = await generation.approve("open_gate")
        await block.write(" granted" if granted.approved else " refused")
"""

Pair = tuple[Node, Node]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("store"))
    server.start()
    yield server
    server.kill()


def two(store: RedisServer, folder: Path, *arguments: str) -> Iterator[Pair]:
    """Both in order at the end, and neither has complained."""
    url = store.url()
    made = []
    for name in ("a", "b"):
        own = folder / name
        own.mkdir()
        (own / "nodes_producers.py").write_text(PRODUCERS)
        producer = ("--producer", "asking=nodes_producers:asking", "--default-producer", "echo")
        made.append(Node(name, own, url, *as_nodes(folder, name, TTL), *producer, *arguments))
    try:
        for node in made:
            node.start()
        yield made[0], made[1]
        for node in made:
            if node.up:
                assert node.stop() == 0, (node.folder / "server.log").read_text()
            assert "Traceback" not in (node.folder / "server.log").read_text()
    finally:
        for node in made:
            node.kill()


@pytest.fixture(scope="module")
def pair(store: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Two for all tests that kill neither."""
    yield from two(store, tmp_path_factory.mktemp("pair"))


@pytest.fixture
def own_pair(store: RedisServer, tmp_path: Path) -> Iterator[Pair]:
    yield from two(store, tmp_path)


@asynccontextmanager
async def clients(pair: Pair) -> AsyncIterator[tuple[Client, Client]]:
    with trio.fail_after(60):
        async with connect(pair[0].url) as a, connect(pair[1].url) as b:
            yield a, b


async def until_finished(
    client: Client, session_id: str, generation_id: str, over: Literal["sse", "websocket"] = "sse"
) -> list[Event]:
    """All events from the first on, up to the end of that generation."""
    heard: list[Event] = []
    async with client.session(session_id).events(over=over) as events:
        async for event in events:
            if event.offset is not None:
                heard.append(event)
            if isinstance(event.data, GenerationFinished) and event.generation_id == generation_id:
                break
    assert [event.offset for event in heard] == list(range(1, len(heard) + 1))
    return heard


def text_of(events: list[Event]) -> str:
    return "".join(getattr(event.data, "text", None) or "" for event in events if event.type == "block.delta")


def outcome(events: list[Event]) -> str:
    assert isinstance(events[-1].data, GenerationFinished)
    return events[-1].data.outcome


@OVER
async def test_an_answer_of_one_node_is_read_live_from_the_other(pair: Pair, over: Literal["sse", "websocket"]) -> None:
    async with clients(pair) as (a, b):
        session = await a.create_session(f"live-{over}")
        started = await session.start("echo", text=WORDS, input={"delay": 0.02})
        told = await until_finished(b, session.session_id, started.generation_id, over)
        assert outcome(told) == "completed"
        assert text_of(told) == WORDS
        assert told == await until_finished(a, session.session_id, started.generation_id, over)


async def test_a_stop_by_the_other_node_ends_the_answer(pair: Pair) -> None:
    async with clients(pair) as (a, b):
        session = await a.create_session("stopped")
        started = await session.start("echo", text=WORDS, input={"delay": 1})
        stopped = await b.session("stopped").stop(started.generation_id)
        assert stopped == Stopped(state="stopped", generation_id=started.generation_id)
        for client in (a, b):
            assert outcome(await until_finished(client, "stopped", started.generation_id)) == "stopped"


async def test_inputs_and_approvals_of_the_other_node_reach_the_producer(pair: Pair) -> None:
    async with clients(pair) as (a, b):
        session = await a.create_session("asking")
        started = await session.start("asking", text="go on")
        far = b.session("asking")
        await far.input(started.generation_id, "steer", {"text": "from afar"})
        async with far.transcript() as transcript:
            state = await transcript.wait_for(lambda state: bool(state.snapshot().approvals))
            approval_id = state.snapshot().approvals[0].approval_id
        await far.input(started.generation_id, "approval", {"approval_id": approval_id, "approved": True})
        assert text_of(await until_finished(a, "asking", started.generation_id)) == "heard: from afar granted"


async def test_chunks_are_taken_by_either_node_once_and_in_order(pair: Pair) -> None:
    path, generation_id, message_id = "/v1/sessions/chunks", str(uuid4()), str(uuid4())
    stamp = {"Producer-Id": "p", "Producer-Epoch": "0"}
    async with clients(pair) as (_, b), httpx.AsyncClient(timeout=10) as http:
        (await http.put(pair[0].url + path)).raise_for_status()
        for number in range(20):
            chunk = {"generation_id": generation_id, "message_id": message_id, "seq": number + 1}
            body = {**chunk, "data": {"text": f"{number} "}}
            for node in (pair[number % 2], pair[(number + 1) % 2])[: 1 + number % 3 // 2]:  # some are sent to both
                taken = await http.post(
                    f"{node.url}{path}/chunks", json=body, headers={**stamp, "Producer-Seq": str(number)}
                )
                assert taken.status_code == 200, taken.text
        finish = f"{path}/generations/{generation_id}/finish"
        (await http.post(pair[1].url + finish, json={}, headers={**stamp, "Producer-Seq": "20"})).raise_for_status()
        told = await until_finished(b, "chunks", generation_id)
        assert text_of(told) == "".join(f"{number} " for number in range(20))


async def test_a_producer_elsewhere_writes_through_the_wrong_node(pair: Pair) -> None:
    async with clients(pair) as (a, b):
        session = await a.create_session("remote")
        started = await session.start("echo", text="first", input={"delay": 60})
        async with b.session("remote").produce(policy="supersede") as generation, generation.message() as message:
            async with message.text() as block:
                for word in WORDS.split():
                    await block.write(f"{word} ")
            await generation.flush()
        told = await until_finished(a, "remote", generation.generation_id)
        assert text_of(told).split() == WORDS.split()
        ends = {each.generation_id: each.data.outcome for each in told if isinstance(each.data, GenerationFinished)}
        assert ends == {started.generation_id: "superseded", generation.generation_id: "completed"}


async def test_who_is_here_is_seen_and_heard_from_everywhere(pair: Pair) -> None:
    async with clients(pair) as (a, b):
        session = await a.create_session("company")
        async with b.session("company").events() as events:
            assert (await anext(events)).type == "session.created"
            await session.put_presence("ann", "phone", name="Ann")
            heard = await anext(events)
            assert isinstance(heard.data, PresenceChanged)
            assert heard.data.actor_id == "ann"
            assert [each.actor_id for each in await b.session("company").presence()] == ["ann"]
            await b.session("company").drop_presence("ann", "phone")
            heard = await anext(events)
            assert isinstance(heard.data, PresenceChanged)
            assert heard.data.status == "gone"
        assert await session.presence() == ()


def test_a_reader_moves_between_nodes_in_the_middle_of_an_answer(pair: Pair) -> None:
    path = "/v1/sessions/moving"
    call(pair[0].url, "PUT", path)
    call(pair[0].url, "POST", f"{path}/generations", {"text": WORDS, "input": {"delay": 0.03}})
    heard: list[dict[str, Any]] = []
    last_id = ""
    moves = 0
    while not heard or heard[-1]["type"] != "generation.finished":
        reader = SseReader(pair[moves % 2].url, f"{path}/events", last_id)
        while len(reader.received) < 3 and not any(b"generation.finished" in body for _, body in reader.received):
            assert reader.read(300)  # cut anywhere
        reader.close()
        assert {name for name, _ in reader.control} <= {"caught-up", "presence"}
        heard += [json.loads(body) for cursor, body in reader.received if cursor]
        last_id = reader.last_id
        moves += 1
    assert [event["offset"] for event in heard] == list(range(1, len(heard) + 1))
    assert moves > 10
    assert "".join(each["data"].get("text", "") for each in heard if each["type"] == "block.delta") == WORDS


@pytest.mark.parametrize("policy", ["reject", "queue", "supersede", "latest"])
async def test_starts_on_both_nodes_at_once_have_one_order_and_their_policies_hold(
    pair: Pair, policy: Literal["reject", "queue", "supersede", "latest"]
) -> None:
    answers: list[Started | Queued | GenerationActive] = []
    session_id = f"both-{policy}"
    async with clients(pair) as (a, b):
        await a.create_session(session_id)

        async def start(client: Client, number: int) -> None:
            try:
                answers.append(
                    await client.session(session_id).start(
                        "echo", text=f"start {number}", input={"delay": 1}, policy=policy
                    )
                )
            except GenerationActive as error:
                answers.append(error)

        async with trio.open_nursery() as nursery:
            for number in range(8):
                nursery.start_soon(start, (a, b)[number % 2], number)
        kinds = Counter(type(answer) for answer in answers)
        match policy:
            case "reject":
                assert kinds == {Started: 1, GenerationActive: 7}
            case "queue":
                assert kinds == {Started: 1, Queued: 7}
                places = [answer.position for answer in answers if isinstance(answer, Queued)]
                assert sorted(places) == list(range(1, 8))
            case "latest":
                assert kinds == {Started: 1, Queued: 7}
            case "supersede":
                assert kinds == {Started: 8}
                turns = [answer.turn for answer in answers if isinstance(answer, Started)]
                assert sorted(turns) == list(range(1, 9))
        state = await b.session(session_id).snapshot()
        assert state.generation is not None
        assert len(state.queue.items) == {"queue": 7, "latest": 1}.get(policy, 0)
        await b.session(session_id).stop(queue="clear")
        told = await until_finished(a, session_id, state.generation.generation_id)
        assert_log(told)
        await b.session(session_id).delete()


async def test_a_session_that_is_deleted_on_the_other_node_is_gone_everywhere(pair: Pair) -> None:
    async with clients(pair) as (a, b):
        session = await a.create_session("deleted")
        await session.start("echo", text=WORDS, input={"delay": 1})
        before = await session.cursor()
        async with session.events() as near, b.session("deleted").events() as far:
            await anext(near)
            await anext(far)
            await b.session("deleted").delete()
            for events in (near, far):
                assert "generation.finished" in [event.type async for event in events]
        for client in (a, b):
            with pytest.raises(SessionDeleted):
                await client.session("deleted").snapshot()
        assert await b.session("deleted").create()
        after = await a.session("deleted").cursor()
        assert after.epoch != before.epoch
        assert after.offset == 1


async def test_answers_of_a_node_that_dies_end_and_the_queue_goes_on(own_pair: Pair) -> None:
    async with clients(own_pair) as (a, b):
        session = await a.create_session("lost")
        first = await session.start("echo", text=WORDS, input={"delay": 1})
        second = await session.start("echo", text="and on", input={"delay": 0}, policy="queue")
        async with b.session("lost").events(first.cursor) as events:
            assert (await anext(events)).offset == first.cursor.offset + 1
            own_pair[0].kill()
            died = trio.current_time()
            ends = {}
            async for event in events:
                if isinstance(event.data, GenerationFinished):
                    ends[event.generation_id] = event.data.outcome
                    if len(ends) == 1:
                        # The lease, the look of the survivor and its claim.
                        assert trio.current_time() - died < TTL + 2
                    else:
                        break
        assert ends == {first.generation_id: "lost", second.generation_id: "completed"}


@pytest.fixture
def guarded(store: RedisServer, tmp_path: Path) -> Iterator[Pair]:
    key = tmp_path / "key"
    key.write_bytes(SECRET)
    yield from two(store, tmp_path, "--jwt-key", str(key))


async def test_a_ticket_of_one_node_opens_a_stream_and_one_socket_at_any(guarded: Pair) -> None:
    headers = bearer(token())
    async with httpx.AsyncClient(timeout=10) as http:
        (await http.put(f"{guarded[0].url}/v1/sessions/s", headers=headers)).raise_for_status()
        asked = {"sessions": ["s"], "scopes": ["read"]}
        made = await http.post(f"{guarded[0].url}/v1/tickets", json=asked, headers=headers)
        for node in guarded:
            events = f"{node.url}/v1/sessions/s/events"
            read = await http.get(events, params={"ticket": made.json()["ticket"], "live": "false"})
            assert read.status_code == 200, read.text
        for first, second in (guarded, guarded[::-1]):
            ticket = (await http.post(f"{guarded[0].url}/v1/tickets", json=asked, headers=headers)).json()["ticket"]
            assert await opens(first, ticket) == 101
            assert await opens(second, ticket) == 401
            assert await opens(first, ticket) == 401


async def opens(node: Node, ticket: str) -> int:
    """The status of a WebSocket's handshake with this ticket."""
    head = (
        f"GET /v1/ws?ticket={ticket} HTTP/1.1\r\nHost: 127.0.0.1:{node.port}\r\nConnection: Upgrade\r\n"
        "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: penstock.v1\r\n"
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    async with await trio.open_tcp_stream("127.0.0.1", node.port) as stream:
        await stream.send_all(head.encode())
        return int((await stream.receive_some()).split()[1])
