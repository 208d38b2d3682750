"""Generations of many steps: several messages, one producer handing off to another, and no message forked."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import trio
from trio.testing import MockClock

from penstock.engine import (
    JSON,
    Generation,
    IdInUse,
    InvalidBody,
    MemoryLog,
    MessageOpened,
    ProducerError,
    ProducerNotFound,
    StaleGeneration,
    new_message_id,
    open_engine,
)
from tests.engine.living import begin, data_of, end_of, finished, of_generation
from tests.engine.producers import saying


async def test_a_hand_off_runs_in_the_same_generation(log: MemoryLog, autojump_clock: MockClock) -> None:  # R-38 R-136
    given: list[JSON] = []

    async def second(generation: Generation) -> None:
        given.append(generation.input)
        async with generation.message() as message, message.text() as block:
            await block.write("two")

    async def first(generation: Generation) -> None:
        async with generation.message() as message, message.text() as block:
            await block.write("one")
        await generation.hand_off("second", {"from": "first"})
        assert generation.input is None
        async with generation.message() as message, message.text() as block:
            await block.write("three")

    async with open_engine(log, producers={"first": first, "second": second}, default_producer="first") as engine:
        session = await engine.create_session("s")
        gid = await begin(session, "first")
        assert await end_of(session, gid) == "completed"
        messages = (await session.snapshot()).messages
    assert [message.blocks[0].text for message in messages] == ["one", "two", "three"]
    assert {(message.generation_id, message.turn) for message in messages} == {(gid, 1)}
    assert given == [{"from": "first"}]
    assert [event.type for event in await of_generation(log, gid)].count("generation.finished") == 1


async def test_a_message_goes_on_across_a_hand_off(log: MemoryLog, autojump_clock: MockClock) -> None:  # R-38 R-136
    async def second(generation: Generation) -> None:
        assert isinstance(generation.input, str)
        async with generation.message(message_id=generation.input) as message:
            async with message.text() as block:
                await block.write("two")
            message.finish(reason="done by the second")

    async def first(generation: Generation) -> None:
        async with generation.message() as message:
            async with message.text() as block:
                await block.write("one")
            await generation.hand_off(second, message.message_id)
            async with message.text() as block:
                await block.write("three")

    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        gid = await begin(session, first)
        assert await end_of(session, gid) == "completed"
        (message,) = (await session.snapshot()).messages
    assert [block.text for block in message.blocks] == ["one", "two", "three"]
    assert message.finish_reason == "done by the second"
    events = await of_generation(log, gid)
    kinds = [event.type for event in events]
    assert (kinds.count("message.opened"), kinds.count("message.closed")) == (1, 1)
    # Each block has its own dense seq under the one message id.
    assert [(event.block_index, event.seq) for event in events if event.block_index is not None] == [
        (index, seq) for index in range(3) for seq in range(3)
    ]


async def test_a_producer_that_knows_of_nothing_goes_on_in_the_same_message(
    log: MemoryLog, autojump_clock: MockClock
) -> None:  # R-38 R-136
    async def words(generation: Generation) -> AsyncIterator[str]:
        yield "two "
        yield "three"

    async def tools(generation: Generation) -> None:
        async with generation.message(role="tool") as message, message.tool_result("c") as result:
            await result.write("found")

    async def first(generation: Generation) -> None:
        async with generation.message() as message:
            async with message.text() as block:
                await block.write("one")
            async with message.tool_call("c", "search") as call:
                await call.write("{}")
            await generation.hand_off(tools, into=message)
            await generation.hand_off("words", into=message)
        with pytest.raises(InvalidBody):
            await generation.hand_off("words", into=message)

    async with open_engine(log, producers={"words": words, "first": first}, default_producer="first") as engine:
        session = await engine.create_session("s")
        gid = await begin(session, "first")
        assert await end_of(session, gid) == "completed"
        answer, results = (await session.snapshot()).messages
    assert [(block.kind, block.text) for block in answer.blocks] == [
        ("text", "one"),
        ("tool_call", None),
        ("text", "two three"),
    ]
    assert (results.role, results.blocks[0].text) == ("tool", "found")


@pytest.mark.parametrize("error", [ProducerError("Not now.", reason="BUSY"), ValueError("inside")])
async def test_what_the_other_raises_comes_out_of_the_hand_off(
    error: Exception, log: MemoryLog, autojump_clock: MockClock
) -> None:
    async def failing(generation: Generation) -> None:
        async with generation.message() as message, message.text() as block:
            await block.write("so far")
            raise error

    async def first(generation: Generation) -> None:
        async with generation.message() as message:
            with pytest.raises(type(error)):
                await generation.hand_off(failing)
            async with message.text() as block:
                await block.write("another way")
        await generation.hand_off(failing)

    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        gid = await begin(session, first)
        assert await end_of(session, gid) == "failed"
    events = await of_generation(log, gid)
    assert [data["status"] for data in data_of(events, "message.closed")] == ["failed", "complete", "failed"]
    assert finished(events).code == ("BUSY" if isinstance(error, ProducerError) else "PRODUCER_FAILED")


async def test_a_joined_message_that_fails_is_closed_by_who_opened_it(
    log: MemoryLog, autojump_clock: MockClock
) -> None:
    async def failing(generation: Generation) -> None:
        async with generation.message() as message, message.text() as block:
            await block.write("two")
            raise ValueError

    async def first(generation: Generation) -> None:
        async with generation.message() as message:
            with pytest.raises(ValueError):
                await generation.hand_off(failing, into=message)
            async with message.text() as block:
                await block.write("three")

    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        gid = await begin(session, first)
        assert await end_of(session, gid) == "completed"
        (message,) = (await session.snapshot()).messages
    assert (message.status, [block.text for block in message.blocks]) == ("complete", ["two", "three"])


async def test_unknown_producers_and_wrong_ones_are_told(log: MemoryLog, autojump_clock: MockClock) -> None:
    async def first(generation: Generation) -> None:
        with pytest.raises(ProducerNotFound):
            await generation.hand_off("nobody")
        with pytest.raises(InvalidBody):
            await generation.hand_off(lambda _: 7)  # type: ignore[arg-type, return-value]
        with pytest.raises(InvalidBody):
            await generation.hand_off(saying("x"), {1})  # type: ignore[arg-type]

    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        gid = await begin(session, first)
        assert await end_of(session, gid) == "completed"
    assert [event.type for event in await of_generation(log, gid)] == ["generation.finished"]


async def test_stop_reaches_whoever_runs(log: MemoryLog, autojump_clock: MockClock) -> None:
    closed = trio.Event()

    async def words(generation: Generation) -> AsyncIterator[str]:
        try:
            yield "two"
            await trio.sleep_forever()
        finally:
            with generation.cleanup():
                await trio.sleep(1)
                closed.set()

    async def first(generation: Generation) -> None:
        async with generation.message() as message:
            try:
                await generation.hand_off(words, into=message)
            finally:
                with pytest.raises(StaleGeneration):
                    await generation.hand_off(words)

    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        gid = await begin(session, first)
        assert (await session.stop()).state == "stopped"
        assert closed.is_set()
        (message,) = (await session.snapshot()).messages
    assert (message.status, message.blocks[0].text) == ("cancelled", "two")
    assert finished(await of_generation(log, gid)).cleanup == "clean"


async def test_only_an_open_message_of_the_same_role_is_joined(log: MemoryLog, autojump_clock: MockClock) -> None:
    mid = new_message_id()

    async def producer(generation: Generation) -> None:
        message = generation.message(message_id=mid)
        async with message:
            with pytest.raises(InvalidBody):
                async with generation.message(message_id=mid, role="tool"):
                    pass
            with pytest.raises(InvalidBody):
                async with message:
                    pass
            async with (
                generation.message(message_id=mid) as joined,
                generation.message(message_id=mid) as again,
                joined.text() as one,
                again.text() as other,
            ):
                assert (one.index, other.index) == (0, 1)
        with pytest.raises(IdInUse):
            async with generation.message(message_id=mid):
                pass

    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        gid = await begin(session, producer)
        assert await end_of(session, gid) == "completed"

        async def of_another_generation(generation: Generation) -> None:
            async with generation.message(message_id=mid):
                pass

        with_id = await begin(session, of_another_generation)
        assert await end_of(session, with_id) == "failed"
    assert len(data_of(await of_generation(log, gid), "message.opened")) == 1


async def test_two_that_open_the_same_message_at_once_share_it(log: MemoryLog, autojump_clock: MockClock) -> None:
    mid = new_message_id()
    both = trio.Event()

    async def producer(generation: Generation) -> None:
        entered: list[str] = []

        async def say(text: str) -> None:
            async with generation.message(message_id=mid) as message:
                async with message.text() as block:
                    await block.write(text)
                entered.append(text)
                if len(entered) == 2:
                    both.set()
                await both.wait()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(say, "a")
            nursery.start_soon(say, "b")

    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        gid = await begin(session, producer)
        assert await end_of(session, gid) == "completed"
        (message,) = (await session.snapshot()).messages
    assert sorted(block.text or "" for block in message.blocks) == ["a", "b"]


async def test_parents_tool_calls_and_results_hold_across_messages(log: MemoryLog, autojump_clock: MockClock) -> None:
    ids: list[str] = []

    async def producer(generation: Generation) -> None:
        async with generation.message() as asking:
            for name in ("a", "b"):
                async with asking.tool_call(name, "search") as call:
                    await call.write('{"q": ')
                    await call.write(f'"{name}"}}')
                    call.finish(arguments={"q": name})
        async with generation.message(role="tool", parent_message_id=asking.message_id) as results:
            for name in ("b", "a"):
                async with results.tool_result(name, name="search") as result:
                    await result.write(f"found {name}")
        async with generation.message(parent_message_id=results.message_id) as answer, answer.text() as block:
            await block.write("done")
        ids.extend([asking.message_id, results.message_id, answer.message_id])

    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        gid = await begin(session, producer)
        assert await end_of(session, gid) == "completed"
        messages = (await session.snapshot()).messages
    assert [message.message_id for message in messages] == ids
    assert [message.parent_message_id for message in messages] == [None, ids[0], ids[1]]
    assert [block.arguments for block in messages[0].blocks] == [{"q": "a"}, {"q": "b"}]
    assert [(block.tool_call_id, block.text) for block in messages[1].blocks] == [("b", "found b"), ("a", "found a")]
    # Every call has its result, so the end adds no message.
    opened = [event.data for event in await of_generation(log, gid) if isinstance(event.data, MessageOpened)]
    assert len(opened) == 3
