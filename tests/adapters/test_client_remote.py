"""Remote producers over a real server: the engine's own producers, run in another place."""

# ruff: noqa: PT012, SIM117  # a production is a block, and what is tested is how it is left

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from penstock.adapters.client import Client, RemoteSession, connect
from penstock.engine import (
    Approval,
    Engine,
    Generation,
    GenerationActive,
    GenerationFinished,
    GenerationMismatch,
    Input,
    InvalidBody,
    JSONObject,
    Producer,
    SessionDeleted,
    StaleGeneration,
    TimedOut,
)
from tests.adapters.serving import PATIENCE, penstock


async def poet(generation: Generation) -> AsyncIterator[str]:
    for word in ("water ", "finds ", f"its {generation.input}"):
        yield word


async def agent(generation: Generation) -> None:
    """All that a producer can do."""
    await generation.status("thinking", {"step": 1})
    async with generation.message(metadata={"model": "m"}) as message:
        async with message.reasoning() as thought:
            await thought.write("hm")
        async with message.text() as block:
            await block.write("let me look")
        async with message.tool_call("c1", "look") as call:
            await call.write('{"at":')
            await call.write("1}")
            call.finish(arguments={"at": 1})
        message.finish(reason="tool_use", usage={"tokens": 3})
    async with generation.message(role="tool") as answer, answer.tool_result("c1", name="look") as result:
        await result.put({"found": True})
    await generation.app("app.note", {"a": [1, 2]})
    await generation.flush()
    assert len((await generation.snapshot()).messages) >= 2
    async with generation.message() as second:
        await generation.hand_off(poet, "way", into=second)
    generation.report_usage({"cost": 1})


@asynccontextmanager
async def servers() -> AsyncIterator[tuple[Engine, Client]]:
    producers: dict[str, Producer] = {"poet": poet, "agent": agent}
    async with penstock(producers=producers) as server, connect(server.url) as client:
        with trio.fail_after(PATIENCE):
            yield server.engine, client


async def shape(engine: Engine, session_id: str) -> list[tuple[object, ...]]:
    """All events but for what differs from run to run."""
    made: list[tuple[object, ...]] = []
    async with (await engine.session(session_id)).subscribe(live=False) as events:
        async for event in events:
            data = event.data
            if event.type == "generation.started":
                continue
            made.append((event.type, event.turn, event.block_index, event.seq, data))
    return made


async def wait_outcome(session: RemoteSession, generation_id: str) -> str:
    async with session.events() as events:
        async for event in events:
            if event.generation_id == generation_id and isinstance(event.data, GenerationFinished):
                return event.data.outcome
    raise AssertionError("the session has ended")


async def test_a_producer_written_for_the_engine_runs_unchanged_elsewhere() -> None:
    async with servers() as (engine, client):
        here, there = await client.create_session("here"), await client.create_session("there")
        started = await here.start("agent", text="go", input="x")
        await there.run(agent, text="go", input="x")
        assert await wait_outcome(here, started.generation_id) == "completed"
        assert await shape(engine, "here") == await shape(engine, "there")
        await client.session("there").run(poet, input="way")
        texts = [block.text for message in (await there.snapshot()).messages for block in message.blocks]
        assert texts[-1] == "water finds its way"


#
async def test_the_first_chunk_opens_the_generation() -> None:
    async with servers() as (engine, client):
        session = await client.create_session("s")
        async with session.produce(job_id="j") as generation:
            assert generation.turn == 0
            async with generation.message() as message, message.text() as block:
                await block.write("hello")
                await generation.flush()
                assert generation.turn == 1
                info = await session.generation(generation.generation_id)
                assert (info.state, info.turn) == ("live", 1)
        assert await wait_outcome(session, generation.generation_id) == "completed"
        assert {line[1] for line in (await shape(engine, "s"))[1:]} == {1}


async def test_a_session_that_does_not_exist_is_made_by_its_first_chunk() -> None:
    async with servers() as (_, client):
        async with client.session("new").produce() as generation:
            await generation.status("working")
        assert await wait_outcome(client.session("new"), generation.generation_id) == "completed"


#
async def test_a_generation_beside_a_live_one_is_refused() -> None:
    async with servers() as (_, client):
        session = await client.create_session("s")
        async with session.produce() as first:
            await first.status("working")
            await first.flush()
            with pytest.raises(GenerationMismatch):
                async with session.produce() as second:
                    await second.status("working")
                    await second.flush()
            with pytest.raises(GenerationActive):
                async with session.produce(policy="reject"):
                    pass
        assert await wait_outcome(session, first.generation_id) == "completed"


async def test_a_stop_from_anywhere_cancels_a_producer_that_waits() -> None:
    async with servers() as (engine, client):
        session = await client.create_session("s")
        with pytest.raises(StaleGeneration):
            async with session.produce() as generation:
                async with generation.message() as message, message.text() as block:
                    await block.write("so far")
                    await generation.flush()
                    began = trio.current_time()
                    await (await engine.session("s")).stop()
                    await trio.sleep_forever()
        assert trio.current_time() - began < 1
        snapshot = await session.snapshot()
        assert snapshot.messages[0].blocks[0].text == "so far"
        assert snapshot.messages[0].status == "cancelled"
        assert await wait_outcome(session, generation.generation_id) == "stopped"


async def test_a_start_supersedes_a_remote_generation() -> None:
    async with servers() as (_, client):
        session = await client.create_session("s")
        with pytest.raises(StaleGeneration):
            async with session.produce() as generation:
                await generation.status("working")
                await generation.flush()
                await session.run(poet, input="way")
                await trio.sleep_forever()
        assert await wait_outcome(session, generation.generation_id) == "superseded"


#
async def test_a_cancelled_producer_stops_its_generation() -> None:
    async with servers() as (_, client):
        session = await client.create_session("s")
        with trio.CancelScope() as scope:
            async with session.produce() as generation:
                await generation.status("working")
                await generation.flush()
                scope.cancel()
                await trio.sleep_forever()
        assert await wait_outcome(session, generation.generation_id) == "stopped"


async def test_a_producer_that_fails_is_told_as_failed() -> None:
    async with servers() as (_, client):
        session = await client.create_session("s")
        with pytest.raises(KeyError):
            async with session.produce() as generation:
                async with generation.message() as message, message.text() as block:
                    await block.write("so far")
                    raise KeyError("secret")
        assert await wait_outcome(session, generation.generation_id) == "failed"
        assert (await session.snapshot()).messages[0].status == "failed"


async def test_a_deleted_session_ends_its_producer() -> None:
    async with servers() as (_, client):
        session = await client.create_session("s")
        with pytest.raises((SessionDeleted, StaleGeneration)):
            async with session.produce() as generation:
                await generation.status("working")
                await generation.flush()
                await session.delete()
                await trio.sleep_forever()


# R-111 R-112
async def test_approvals_and_inputs_reach_a_remote_producer() -> None:
    heard: list[Approval | Input] = []

    async def answer(session: RemoteSession, generation: Generation) -> None:
        async with session.events() as events:
            async for event in events:
                if event.type == "approval.requested":
                    (approval,) = (await session.snapshot()).approvals
                    given: JSONObject = {
                        "approval_id": approval.approval_id,
                        "approved": True,
                        "arguments": {"path": "b"},
                    }
                    await session.input(generation.generation_id, "approval", given)
                    await session.input(generation.generation_id, "steer", {"text": "left"}, input_id="i")
                    return

    async with servers() as (_, client):
        session = await client.create_session("s")
        async with trio.open_nursery() as nursery:
            async with session.produce(policy="supersede") as generation:
                nursery.start_soon(answer, session, generation)
                heard.append(await generation.approve("rm", arguments={"path": "a"}))
                taken = await generation.receive_input()
                heard.append(taken)
                await generation.apply(taken)
        approval, steer = heard
        assert isinstance(approval, Approval)
        assert (approval.approved, approval.arguments) == (True, {"path": "b"})
        assert steer == Input(input_id="i", kind="steer", content={"text": "left"})
        types = []
        async with session.events() as events:
            async for event in events:
                types.append(event.type)
                if event.type == "generation.finished":
                    break
        assert types[-2:] == ["input.applied", "generation.finished"]


async def test_a_producer_says_how_long_it_may_write_nothing() -> None:
    async with servers() as (_, client):
        session = await client.create_session("s")
        async with session.produce() as generation:
            assert generation.idle_limit == 120
        async with session.produce(idle_limit=math.inf) as generation:
            assert generation.idle_limit == math.inf
        with pytest.raises((TimedOut, StaleGeneration)):
            async with session.produce(idle_limit=0.2) as generation:
                await generation.status("working")
                await trio.sleep_forever()


async def test_an_approval_that_is_not_waited_for_any_more_is_refused() -> None:
    async with servers() as (_, client):
        session = await client.create_session("s")
        async with session.produce() as generation:
            with trio.move_on_after(0.2):
                await generation.approve("rm")
            async with session.events() as events:
                async for event in events:
                    if event.type == "approval.resolved":
                        break


async def test_a_remote_generation_may_wait_in_the_queue() -> None:
    async with servers() as (_, client):
        session = await client.create_session("s")

        async def first() -> None:
            with pytest.raises(StaleGeneration):
                async with session.produce(policy="supersede") as generation:
                    await generation.status("working")
                    await trio.sleep_forever()

        async def second() -> None:
            async with session.produce(policy="queue") as generation:
                assert generation.turn == 2
                await generation.status("working")
            assert await wait_outcome(session, generation.generation_id) == "completed"

        async with trio.open_nursery() as nursery:
            nursery.start_soon(first)
            async with session.transcript() as transcript:
                await transcript.wait_for(lambda state: state.generation is not None)
                nursery.start_soon(second)
                await transcript.wait_for(lambda state: bool(state.snapshot(0).queue.items))
            await session.stop(queue="continue")


async def test_a_producer_that_is_stopped_while_it_waits_never_begins() -> None:
    async with servers() as (_, client):
        session = await client.create_session("s")

        async def first() -> None:
            async with session.produce(policy="supersede") as generation:
                await generation.status("working")
                await done.wait()

        async def second() -> None:
            with pytest.raises(StaleGeneration):
                async with session.produce(policy="queue"):
                    pytest.fail("it began")
            done.set()

        done = trio.Event()
        async with trio.open_nursery() as nursery, session.transcript() as transcript:
            nursery.start_soon(first)
            await transcript.wait_for(lambda state: state.generation is not None)
            nursery.start_soon(second)
            state = await transcript.wait_for(lambda state: bool(state.snapshot(0).queue.items))
            await session.dequeue(state.snapshot(0).queue.items[0].generation_id)


async def test_a_producer_that_is_cancelled_while_it_waits_leaves_the_queue() -> None:
    async with servers() as (_, client):
        session = await client.create_session("s")
        async with session.produce(policy="supersede") as generation:
            await generation.status("working")
            with trio.move_on_after(0.3):
                async with session.produce(policy="queue"):
                    pytest.fail("it began")
            assert (await session.snapshot()).queue.items == ()


async def test_a_generation_is_its_producers_own() -> None:
    async with servers() as (_, client):
        session = await client.create_session("s")
        for given in ({"policy": "join"}, {"policy": "queue", "listen": False}):
            with pytest.raises(InvalidBody):
                async with session.produce(**given):
                    pass
