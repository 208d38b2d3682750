"""The client against a real server: the engine's names, results and errors, and streams over both forms."""

from __future__ import annotations

import json
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Literal

import httpx
import pytest
import trio
from trio.testing import MockClock

from penstock.adapters.client import BadAnswer, Client, ClientConfig, Lost, RemoteSession, Unreachable, connect
from penstock.engine import (
    CaughtUp,
    Cursor,
    GapError,
    Generation,
    GenerationActive,
    GenerationNotFound,
    IdInUse,
    InvalidBody,
    InvalidCursor,
    InvalidId,
    JSONObject,
    MemoryLog,
    MessageNotFound,
    Producer,
    ProducerNotFound,
    Queued,
    SessionDeleted,
    SessionNotFound,
    SnapshotTaken,
    Started,
    WriteFailed,
    new_generation_id,
    new_message_id,
)
from penstock.engine.log import Delete
from tests.adapters.fake_streams import Stream
from tests.adapters.serving import PATIENCE, Penstock, penstock
from tests.engine.faulty import Fail, FaultyLog

FORMS = pytest.mark.parametrize("over", ["sse", "websocket"])
Over = Literal["sse", "websocket"]


async def story(generation: Generation) -> AsyncIterator[str]:
    for word in ("water ", "finds ", "its ", "way"):
        yield word


async def patient(generation: Generation) -> None:
    async with generation.message() as message, message.text() as block:
        await block.write("wait")
        await trio.sleep_forever()


PRODUCERS: dict[str, Producer] = {"story": story, "patient": patient}


@asynccontextmanager
async def clients() -> AsyncIterator[tuple[Penstock, Client]]:
    async with penstock(producers=PRODUCERS) as server, connect(server.url) as client:
        with trio.fail_after(PATIENCE):
            yield server, client


async def texts(session: RemoteSession) -> list[str | None]:
    return [block.text for message in (await session.snapshot()).messages for block in message.blocks]


async def until_finished(session: RemoteSession, over: Over = "sse") -> None:
    async with session.events(over=over) as events:
        async for event in events:
            if event.type == "generation.finished":
                return


async def test_commands_have_the_names_and_results_of_the_engine() -> None:
    async with clients() as (server, client):
        session = await client.create_session("demo", metadata={"title": "one"})
        assert session.created
        assert not (await client.create_session("demo")).created
        posted = await session.post("hello")
        assert posted.created
        started = await session.start("story", text="go", job_id="j")
        assert isinstance(started, Started)
        assert started.turn == 1
        assert not started.repeated
        await until_finished(session)
        info = await session.generation(started.generation_id)
        assert (info.state, info.outcome, info.turn) == ("finished", "completed", 1)
        assert await texts(session) == ["hello", "go", "water finds its way"]
        updated = await session.update({"title": None, "more": 1})
        assert updated.metadata == {"more": 1}
        engine_side = await (await server.engine.session("demo")).snapshot()
        assert (await session.snapshot()).to_json() == engine_side.to_json()
        assert await session.cursor() == engine_side.cursor
        fork = await session.fork(at=posted.message_id)
        assert await texts(fork) == ["hello"]
        assert {one.session_id for one in await client.sessions()} == {"demo", fork.session_id}
        await session.retract(posted.message_id)
        assert await texts(session) == ["go", "water finds its way"]
        await session.reset("enough")
        assert await texts(session) == []
        await fork.delete()
        with pytest.raises(SessionDeleted):
            await fork.snapshot()


async def test_a_session_that_cannot_be_read_is_listed_as_such() -> None:
    listed: list[JSONObject] = [
        {"session_id": each, "cursor": "e-0000000000000000", "metadata": {}} for each in ("a", "b")
    ]
    answer = {"sessions": [listed[0], {**listed[1], "corrupt": True}]}
    transport = httpx.MockTransport(lambda _: httpx.Response(200, json=answer))
    async with connect("http://fake", transport=transport) as client:
        assert [(one.session_id, one.corrupt) for one in await client.sessions()] == [("a", False), ("b", True)]


#
async def test_a_delete_that_the_server_cannot_store_is_told_and_leaves_the_session() -> None:
    log = FaultyLog(MemoryLog())
    async with penstock(log) as server, connect(server.url) as client:
        session = await client.create_session("demo")
        await session.post("hello")
        log.schedule = lambda _, write: Fail() if isinstance(write, Delete) else None
        with pytest.raises(WriteFailed):
            await session.delete()
        log.schedule = None
        assert await texts(session) == ["hello"]
        await session.delete()
        with pytest.raises(SessionDeleted):
            await session.snapshot()


async def test_a_live_generation_is_stopped_superseded_joined_and_queued_behind() -> None:
    async with clients() as (_, client):
        session = await client.create_session("demo")
        first = await session.start("patient")
        joined = await session.start("patient", policy="join")
        assert isinstance(joined, Started)
        assert joined.joined
        assert joined.generation_id == first.generation_id
        with pytest.raises(GenerationActive) as caught:
            await session.start("patient", policy="reject")
        assert caught.value.session_id == "demo"
        second = await session.start("patient")
        assert isinstance(second, Started)
        assert second.superseded is not None
        assert second.superseded.generation_id == first.generation_id
        queued = await session.start("story", policy="queue")
        assert isinstance(queued, Queued)
        assert queued.position == 1
        gone = await session.start("story", policy="queue")
        await session.dequeue(gone.generation_id)
        with pytest.raises(GenerationNotFound):
            await session.dequeue(gone.generation_id)
        assert (await session.stop(second.generation_id)).state == "stopped"
        assert (await session.stop(second.generation_id)).state == "already_done"
        assert (await session.stop()).state == "nothing_active"
        assert (await session.queue_next()).generation_id == queued.generation_id


async def test_a_start_says_how_long_it_may_write_nothing() -> None:
    async with clients() as (_, client):
        session = await client.create_session("demo")
        endless = await session.start("patient", idle_limit=math.inf)
        assert (await session.generation(endless.generation_id)).state == "live"
        brief = await session.start("patient", idle_limit=0.05)
        async with session.events() as events:
            async for event in events:
                if event.type == "generation.finished" and event.generation_id == brief.generation_id:
                    break
        assert (await session.generation(brief.generation_id)).outcome == "stalled"
        with pytest.raises(InvalidBody):
            await session.start("patient", idle_limit=0)


# R-85 R-113
async def test_refusals_come_as_the_errors_of_the_engine() -> None:
    async with clients() as (_, client):
        with pytest.raises(SessionNotFound) as caught:
            await client.session("nobody").snapshot()
        assert caught.value.session_id == "nobody"
        session = await client.create_session("demo")
        with pytest.raises(ProducerNotFound):
            await session.start("unheard of")
        with pytest.raises(InvalidBody):
            await session.start("story", policy="whatever")  # type: ignore[arg-type]
        with pytest.raises(GenerationNotFound):
            await session.generation(new_generation_id())
        with pytest.raises(MessageNotFound):
            await session.retract(new_message_id())
        mid = new_message_id()
        await session.post("one", message_id=mid)
        assert not (await session.post("one", message_id=mid)).created
        with pytest.raises(IdInUse):
            await session.post("two", message_id=mid)
        with pytest.raises(InvalidId):
            client.session("no/id")
        with pytest.raises(InvalidCursor):
            session.events("no cursor")


async def test_a_start_is_repeated_under_its_key_and_tells_so() -> None:
    async with clients() as (_, client):
        session = await client.create_session("demo")
        for wrong in ("", "a b", "a\nb", "\u00e9"):
            with pytest.raises(InvalidBody):
                await session.start("story", idempotency_key=wrong)
        first = await session.start("story", idempotency_key="k")
        again = await session.start("story", idempotency_key="k")
        assert isinstance(again, Started)
        assert (again.generation_id, again.repeated) == (first.generation_id, True)


class Silent(httpx.AsyncBaseTransport):
    """A server whose first answers are lost: so many, and then it says that the start was carried out."""

    def __init__(self, lost: int) -> None:
        self.lost = lost
        self.asked: list[tuple[float, JSONObject, str]] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        assert isinstance(request.stream, httpx.AsyncByteStream)
        body: JSONObject = json.loads(b"".join([piece async for piece in request.stream]))
        self.asked.append((trio.current_time(), body, request.headers["Idempotency-Key"]))
        if len(self.asked) <= self.lost:
            await trio.sleep_forever()
        ids = {"session_id": "demo", "generation_id": body["generation_id"]}
        return httpx.Response(200, json={**ids, "turn": 1, "cursor": str(Cursor("e", 3))})


# R-43 R-74
async def test_a_start_whose_answer_is_lost_is_asked_for_again_and_is_the_same(autojump_clock: MockClock) -> None:
    server = Silent(2)
    async with connect("http://fake", transport=server) as client:
        started = await client.session("demo").start(text="once")
    assert isinstance(started, Started)
    assert not started.repeated
    times, bodies, keys = zip(*server.asked, strict=True)
    lasted = [later - sooner for sooner, later in pairwise(times)]
    assert lasted == [pytest.approx(6, abs=0.1)] * 2, "no pause behind a silence"
    assert bodies[0] == bodies[1] == bodies[2]
    assert set(keys) == {bodies[0]["generation_id"]} == {started.generation_id}


# R-43 R-74
async def test_a_start_without_any_answer_tells_its_id_and_may_be_asked_for_again(autojump_clock: MockClock) -> None:
    server = Silent(10**6)
    async with connect("http://fake", transport=server) as client:
        session = client.session("demo")
        with pytest.raises(Unreachable) as caught:
            await session.start(text="once")
        assert 30 <= trio.current_time() <= 47
        assert caught.value.session_id == "demo"
        server.lost = 0
        started = await session.start(text="once", generation_id=caught.value.generation_id)
    assert started.generation_id == caught.value.generation_id
    assert len({(json.dumps(body), key) for _, body, key in server.asked}) == 1


async def test_a_slow_line_is_no_dead_one(autojump_clock: MockClock) -> None:
    """A large body takes its time, and so does an answer that has begun."""
    asked: list[float] = []

    async def answer(request: httpx.Request) -> httpx.Response:
        asked.append(trio.current_time())
        await trio.sleep(20)
        body = json.dumps({"session_id": "demo", "message_id": new_message_id(), "cursor": str(Cursor("e", 3))})
        return httpx.Response(201, stream=Stream(body[:9].encode(), 20.0, body[9:].encode()))

    async with connect("http://fake", transport=httpx.MockTransport(answer)) as client:
        posted = await client.session("demo").post("x" * 512 * 1024)
    assert posted.cursor == Cursor("e", 3)
    assert len(asked) == 1


async def test_an_approval_and_an_input_reach_a_generation() -> None:
    taken: list[object] = []

    async def asking(generation: Generation) -> None:
        taken.append(await generation.approve("rm", arguments={"path": "/tmp/x"}))
        taken.append(await generation.receive_input())

    async with penstock(producers={"asking": asking}) as server, connect(server.url) as client:
        with trio.fail_after(PATIENCE):
            session = await client.create_session("demo")
            started = await session.start("asking")
            async with session.events() as events:
                async for event in events:
                    if event.type == "approval.requested":
                        approval = (await session.snapshot()).approvals[0]
                        answer: JSONObject = {"approval_id": approval.approval_id, "approved": True}
                        await session.input(started.generation_id, "approval", answer)
                        assert await session.input(started.generation_id, "steer", {"text": "on"}, input_id="i") == "i"
                    if event.type == "generation.finished":
                        break
    assert len(taken) == 2


#
@FORMS
async def test_events_are_all_there_in_order_and_end_with_the_session(over: Over) -> None:
    async with clients() as (_, client):
        session = await client.create_session("demo")
        await session.start("story", text="go")
        await until_finished(session, over)
        offsets, types = [], []
        async with session.events(over=over) as events:
            async for event in events:
                offsets.append(event.offset)
                types.append(event.type)
                if event.type == "generation.finished":
                    await session.delete()
            assert events.statistics().attempts == 1
    assert offsets == list(range(1, len(offsets) + 1))
    assert types[-3:] == ["block.closed", "message.closed", "generation.finished"]


@FORMS
async def test_a_stream_begins_where_it_is_told(over: Over) -> None:
    async with clients() as (_, client):
        session = await client.create_session("demo")
        first = await session.post("one")
        second = await session.post("two")
        async with session.events(first.cursor, over=over) as events:
            assert (await anext(events)).message_id == second.message_id
            assert events.cursor == second.cursor
        async with session.events("now", over=over) as events:
            while not isinstance(await events.receive(), CaughtUp):
                pass
            third = await session.post("three")
            assert (await anext(events)).message_id == third.message_id
        async with session.events(snapshot=True, over=over) as events:
            delivery = await events.receive()
            assert isinstance(delivery, SnapshotTaken)
            assert len(delivery.snapshot.messages) == 3


@FORMS
async def test_a_cancelled_wait_loses_nothing(over: Over) -> None:
    async with clients() as (_, client):
        session = await client.create_session("demo")
        async with session.events(over=over) as events:
            assert (await anext(events)).type == "session.created"
            for _ in range(3):
                with trio.move_on_after(0.01):
                    await anext(events)
            posted = await session.post("one")
            assert (await anext(events)).message_id == posted.message_id
            assert events.statistics().connections == 1


@FORMS
async def test_a_gap_is_told_as_the_engine_tells_it(over: Over) -> None:
    async with clients() as (_, client):
        session = await client.create_session("demo")
        async with session.events(Cursor("f00", 7), over=over) as events:
            with pytest.raises(GapError) as caught:
                await anext(events)
            assert caught.value.asked == str(Cursor("f00", 7))
            assert (await anext(events)).type == "session.created"
            assert events.statistics().gaps == 1


@FORMS
async def test_what_a_stream_is_refused_with_comes_out_of_the_iteration(over: Over) -> None:
    async with clients() as (_, client), client.session("nobody").events(over=over) as events:
        with pytest.raises(SessionNotFound):
            await anext(events)


@pytest.mark.parametrize("answer", ["{}", "[]", "<html>", '{"session_id": 7}', '{"cursor": "x"}'])
async def test_what_is_no_state_is_the_servers_fault(answer: str) -> None:
    def elsewhere(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, text=answer)

    async with connect("http://127.0.0.1:9", transport=httpx.MockTransport(elsewhere)) as client:
        with pytest.raises(BadAnswer):
            await client.session("demo").snapshot()


async def test_a_password_in_the_url_signs_in_and_is_not_repeated(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    seen: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers["authorization"])
        raise httpx.ConnectError("no")

    config = ClientConfig(patience=0.0)
    url = "http://me:secret@server.test/chat/"
    async with connect(url, transport=httpx.MockTransport(answer), config=config) as client:
        with pytest.raises(Unreachable) as caught:
            await client.create_session("s")
        assert "http://server.test/chat " in str(caught.value)
        async with client.session("s").events() as events:
            assert isinstance(await events.receive(), Lost)
    assert seen == ["Basic bWU6c2VjcmV0"] * 2
    assert "secret" not in str(caught.value) + caplog.text


async def test_a_server_that_is_away_is_waited_for() -> None:
    async with clients() as (_server, client):
        session = await client.create_session("demo")
    config = ClientConfig(first_pause=0.01, longest_pause=0.05, patience=0.1)
    async with connect("http://127.0.0.1:9", config=config) as client:
        with pytest.raises(Unreachable):
            await client.session("demo").snapshot()
        async with client.session("demo").events() as events:
            lost = await events.receive()
            assert isinstance(lost, Lost)
            assert isinstance(lost.error, Unreachable)
            assert isinstance(await events.receive(), Lost)
            assert events.statistics().connections == 0
    assert session.session_id == "demo"


async def test_errors_of_the_block_come_out_as_they_are() -> None:
    async def follow(url: str) -> None:
        async with connect(url) as client, client.session("demo").events():
            raise KeyError("mine")

    async with penstock() as server:
        with pytest.raises(KeyError):
            await follow(server.url)


@FORMS
async def test_a_transcript_is_what_the_server_says(over: Over) -> None:
    async with clients() as (_, client):
        session = await client.create_session("demo")
        await session.post("before")
        async with session.transcript(over=over) as transcript:
            assert [message.role for message in transcript.snapshot().messages] == ["user"]
            await session.start("story", text="go")
            await transcript.wait_for(lambda state: len(state.message_ids()) == 3 and state.generation is None)
            snapshot = await session.snapshot()
            assert transcript.snapshot().to_json() == snapshot.to_json()
            assert transcript.live
            await session.delete()
            with pytest.raises(trio.EndOfChannel):
                await transcript.wait_for(lambda state: False)
            assert transcript.ended == "deleted"


async def test_a_transcript_of_a_session_born_anew_begins_anew() -> None:
    async with clients() as (_, client):
        session = await client.create_session("demo")
        await session.post("old")
        async with session.transcript() as transcript:
            epoch = transcript.cursor.epoch
        await session.delete()
        await session.create()
        async with session.transcript() as transcript:
            assert transcript.cursor.epoch != epoch
            assert transcript.snapshot().messages == ()


async def test_presence_is_put_seen_and_dropped() -> None:
    async with clients() as (_, client):
        session = await client.create_session("demo")
        async with session.transcript() as transcript:
            await session.put_presence("ann", "phone", name="Ann")
            assert [here.actor_id for here in await session.presence()] == ["ann"]
            await wait_until(transcript.wait_changed, lambda: len(transcript.presence) == 1)
            await session.drop_presence("ann")
            await wait_until(transcript.wait_changed, lambda: not transcript.presence)


async def wait_until(changed: Callable[[], Awaitable[None]], found: Callable[[], bool]) -> None:
    while not found():
        await changed()
