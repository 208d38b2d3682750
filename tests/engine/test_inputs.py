"""What people send into a live generation: accepted, applied, returned; nothing swallowed, nothing taken twice."""

from __future__ import annotations

import math

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from penstock.engine import (
    Config,
    Draining,
    Generation,
    GenerationMismatch,
    GenerationNotFound,
    IdInUse,
    Input,
    InvalidBody,
    InvalidId,
    JSONObject,
    MemoryLog,
    Queued,
    QueueFull,
    StaleGeneration,
    WriteFailed,
    new_generation_id,
    open_engine,
)
from tests.engine.faulty import Fail, FaultyLog, Hold
from tests.engine.living import begin, copied, data_of, end_of, finished, of_generation
from tests.engine.producers import Steered, saying
from tests.engine.rules import assert_rules


class Taking:
    """Takes ``count`` inputs and applies those whose kind is none of ``unused``."""

    def __init__(self, count: int, *, unused: str = "") -> None:
        self.taken: list[Input] = []
        self._count = count
        self._unused = unused

    async def __call__(self, generation: Generation) -> None:
        async for given in generation.inputs():
            self.taken.append(given)
            if given.kind != self._unused:
                await generation.apply(given)
            if len(self.taken) == self._count:
                return


async def waiting(generation: Generation) -> None:
    """Takes nothing."""
    await trio.sleep_forever()


async def test_an_input_is_accepted_handed_over_and_applied(log: MemoryLog, autojump_clock: MockClock) -> None:
    producer = Taking(2)
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        gid = await begin(session, producer)
        first = await session.input(gid, "steer", {"text": "shorter", "deep": {"n": [1, None]}})
        second = await session.input(gid, "app.mood", {}, input_id="mine", by="ada")
        assert second == "mine"
        assert await end_of(session, gid) == "completed"
    assert [(given.input_id, given.kind) for given in producer.taken] == [(first, "steer"), ("mine", "app.mood")]
    assert producer.taken[0].content == {"text": "shorter", "deep": {"n": [1, None]}}
    events = await of_generation(log, gid)
    assert [event.type for event in events] == [*["input.accepted", "input.applied"] * 2, "generation.finished"]
    assert data_of(events, "input.accepted") == [
        {"input_id": first, "kind": "steer", "text": "shorter", "deep": {"n": [1, None]}},
        {"input_id": "mine", "kind": "app.mood"},
    ]


async def test_an_input_is_seen_in_the_snapshot_until_it_is_settled(log: MemoryLog, autojump_clock: MockClock) -> None:
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        gid = await begin(session, waiting)
        await session.input(gid, "steer", {"text": "x"}, input_id="i")
        generation = (await session.snapshot()).generation
        assert generation is not None
        assert [(view.input_id, view.content) for view in generation.inputs] == [("i", {"text": "x"})]
        await session.stop()
        assert (await session.snapshot()).generation is None


async def test_what_was_not_applied_is_returned(log: MemoryLog, autojump_clock: MockClock) -> None:
    go = trio.Event()

    async def producer(generation: Generation) -> None:
        used = await generation.receive_input()
        await generation.receive_input()
        await go.wait()
        await generation.apply(used)

    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        gid = await begin(session, waiting)
        for name in "abc":
            await session.input(gid, "steer", {"text": name}, input_id=name)
        await session.stop()
        assert [data["input_id"] for data in data_of(await of_generation(log, gid), "input.returned")] == [
            "a",
            "b",
            "c",
        ]

        gid = await begin(session, producer)
        for name in "abc":
            await session.input(gid, "steer", {"text": name}, input_id=name)
        go.set()
        assert await end_of(session, gid) == "completed"
        events = await of_generation(log, gid)
        assert [data["input_id"] for data in data_of(events, "input.applied")] == ["a"]
        assert [data["input_id"] for data in data_of(events, "input.returned")] == ["b", "c"]


async def test_a_full_channel_refuses_and_writes_nothing(log: MemoryLog, autojump_clock: MockClock) -> None:
    producer = Taking(4)
    go = trio.Event()

    async def later(generation: Generation) -> None:
        await go.wait()
        await producer(generation)

    async with open_engine(log, config=Config(inputs=3)) as engine:
        session = await engine.create_session("s")
        gid = await begin(session, later)
        for i in range(3):
            await session.input(gid, "steer", {"n": i}, input_id=str(i))
        before = await session.cursor()
        with pytest.raises(QueueFull) as refused:
            await session.input(gid, "steer", {"n": 3}, input_id="3")
        assert (refused.value.session_id, refused.value.generation_id) == ("s", gid)
        # What was taken in before may still be repeated.
        assert await session.input(gid, "steer", {"n": 2}, input_id="2") == "2"
        assert await session.cursor() == before
        go.set()
        await wait_all_tasks_blocked()
        # The refused one may be sent again as soon as there is room.
        await session.input(gid, "steer", {"n": 3}, input_id="3")
        assert await end_of(session, gid) == "completed"
    assert [given.content["n"] for given in producer.taken] == [0, 1, 2, 3]


async def test_a_repeated_input_is_taken_once(log: MemoryLog, autojump_clock: MockClock) -> None:
    producer = Taking(2)
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        gid = await begin(session, producer)
        answers: list[str] = []

        async def send() -> None:
            answers.append(await session.input(gid, "steer", {"text": "x"}, input_id="i"))

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(send)
        assert answers == ["i"] * 5
        with pytest.raises(IdInUse):
            await session.input(gid, "steer", {"text": "y"}, input_id="i")
        with pytest.raises(IdInUse):
            await session.input(gid, "other", {"text": "x"}, input_id="i")
        await session.input(gid, "steer", {"text": "x"})
        assert await end_of(session, gid) == "completed"
    assert len(producer.taken) == 2
    assert len(data_of(await of_generation(log, gid), "input.accepted")) == 2


async def test_bad_inputs_are_refused_before_anything_is_written(log: MemoryLog, autojump_clock: MockClock) -> None:
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        gid = await begin(session, waiting)
        before = await session.cursor()
        contents: list[object] = [
            {"kind": "x"},
            {"input_id": "x"},
            {"n": math.nan},
            {"n": {1}},
            {1: "n"},
            {"text": "\ud83d"},
            ["text"],
            "text",
            None,
        ]
        for content in contents:
            with pytest.raises(InvalidBody):
                await session.input(gid, "steer", content)  # type: ignore[arg-type]
        for kind in ("", "k" * 129, "a\nb", 7):
            with pytest.raises(InvalidBody):
                await session.input(gid, kind, {})  # type: ignore[arg-type]
        for input_id in ("", "i" * 129, "\ud83d"):
            with pytest.raises(InvalidId):
                await session.input(gid, "steer", {}, input_id=input_id)
        with pytest.raises(InvalidId):
            await session.input("no uuid", "steer", {})
        assert await session.cursor() == before


async def test_an_input_says_why_nobody_takes_it(log: MemoryLog, autojump_clock: MockClock) -> None:
    async with open_engine(log, producers={"p": saying("x")}) as engine:
        session = await engine.create_session("s")
        with pytest.raises(GenerationNotFound):
            await session.input(new_generation_id(), "steer", {})
        gid = await begin(session, waiting)
        queued = await session.start("p", policy="queue")
        assert isinstance(queued, Queued)
        with pytest.raises(GenerationMismatch):
            await session.input(queued.generation_id, "steer", {})
        await session.stop()
        with pytest.raises(StaleGeneration):
            await session.input(gid, "steer", {})
        await engine.drain()
        with pytest.raises(Draining):
            await session.input(gid, "steer", {})


async def test_an_input_is_taken_by_one_that_begins_while_it_is_looked_for(
    log: MemoryLog, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked, begun = trio.Event(), trio.Event()
    first, second = Steered(), Steered()
    async with open_engine(log, producers={"first": first, "second": second}) as engine, trio.open_nursery() as nursery:
        session = await engine.create_session("s")
        await begin(session, "first")
        queued = await session.start("second", policy="queue")
        record = log.record

        async def slowly(session_id: str, epoch: str, key: str) -> bytes | None:
            if queued.generation_id in key:
                looked.set()
                await begun.wait()
            return await record(session_id, epoch, key)

        monkeypatch.setattr(log, "record", slowly)
        nursery.start_soon(session.input, queued.generation_id, "steer", {})
        await looked.wait()
        first.finish.set()
        await second.started.wait()
        begun.set()
        await wait_all_tasks_blocked()
        assert [event.type for event in await of_generation(log, queued.generation_id)][-1] == "input.accepted"


async def test_behind_the_fence_nothing_is_taken_in(log: MemoryLog, autojump_clock: MockClock) -> None:
    stubborn = Steered(shield=60)
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        gid = await begin(session, stubborn)
        await session.input(gid, "steer", {}, input_id="i")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(session.stop)
            await stubborn.cancelled.wait()
            assert (await session.generation(gid)).state == "cancelling"
            with pytest.raises(StaleGeneration):
                await session.input(gid, "steer", {})
            with pytest.raises(StaleGeneration):
                await session.input(gid, "steer", {}, input_id="i")
        await stubborn.over.wait()


async def test_a_producer_that_is_done_takes_nothing_in(log: MemoryLog, autojump_clock: MockClock) -> None:
    faulty = FaultyLog(log)
    producer = Steered()
    async with open_engine(faulty) as engine:
        session = await engine.create_session("s")
        gid = await begin(session, producer)
        hold = Hold()
        faulty.schedule = lambda number, write: hold
        async with trio.open_nursery() as nursery:
            # A step that waits for the disk stands between the producer's return and the written end.
            nursery.start_soon(session.update, {"n": 1})
            await wait_all_tasks_blocked()
            producer.finish.set()
            await producer.over.wait()
            await wait_all_tasks_blocked()
            assert (await session.generation(gid)).state == "live"
            with pytest.raises(StaleGeneration):
                await session.input(gid, "steer", {})
            hold.release()
            faulty.schedule = None
        assert await end_of(session, gid) == "completed"


@pytest.mark.parametrize("shielded", [False, True])
async def test_who_waits_for_an_input_learns_of_the_end(
    shielded: bool, log: MemoryLog, autojump_clock: MockClock
) -> None:
    caught: list[type[BaseException]] = []

    async def producer(generation: Generation) -> None:
        try:
            with trio.CancelScope(shield=shielded):
                await generation.receive_input()
        except BaseException as error:
            caught.append(type(error))
            with pytest.raises(StaleGeneration):
                generation.receive_input_nowait()
            raise

    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        await begin(session, producer)
        begun = trio.current_time()
        await session.stop()
        assert trio.current_time() - begun < 0.1
    assert caught == [StaleGeneration if shielded else trio.Cancelled]


async def test_an_input_survives_the_cancelling_of_who_waits_for_it(log: MemoryLog, autojump_clock: MockClock) -> None:
    taken: list[Input] = []

    async def producer(generation: Generation) -> None:
        with pytest.raises(trio.WouldBlock):
            generation.receive_input_nowait()
        for _ in range(3):
            with trio.move_on_after(1):
                await generation.receive_input()
        await trio.sleep(1)
        taken.append(generation.receive_input_nowait())
        await generation.apply(taken[0])
        with pytest.raises(InvalidBody):
            await generation.apply(taken[0])

    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        gid = await begin(session, producer)
        await trio.sleep(3.5)
        await session.input(gid, "steer", {"text": "x"})
        await trio.sleep(1)
        assert await end_of(session, gid) == "completed"
    assert taken[0].content == {"text": "x"}


async def test_an_input_whose_caller_left_is_still_taken(log: MemoryLog, autojump_clock: MockClock) -> None:
    producer = Taking(1)
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        gid = await begin(session, producer)
        with trio.CancelScope() as scope:
            scope.cancel()
            await session.input(gid, "steer", {"text": "x"})
        assert await end_of(session, gid) == "completed"
    assert len(producer.taken) == 1


async def test_the_content_cannot_be_changed_behind_the_engines_back(log: MemoryLog, autojump_clock: MockClock) -> None:
    producer = Taking(1)
    content: dict[str, str] = {"text": "x"}
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        gid = await begin(session, producer)
        await session.input(gid, "steer", content)
        content["text"] = "y"
        assert await end_of(session, gid) == "completed"
    assert producer.taken[0].content == {"text": "x"}


async def test_an_answer_waits_for_the_commit(log: MemoryLog, autojump_clock: MockClock) -> None:
    faulty = FaultyLog(log)
    async with open_engine(faulty) as engine:
        session = await engine.create_session("s")
        gid = await begin(session, waiting)
        hold = Hold()
        faulty.schedule = lambda number, write: hold
        answers: list[str] = []

        async def send() -> None:
            answers.append(await session.input(gid, "steer", {}, input_id="i"))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            nursery.start_soon(send)
            await trio.sleep(1)
            assert answers == []
            hold.release()
            faulty.schedule = None
        assert answers == ["i", "i"]
        assert len(data_of(await of_generation(log, gid), "input.accepted")) == 1


async def test_what_could_not_be_stored_was_not_taken(log: MemoryLog, autojump_clock: MockClock) -> None:
    faulty = FaultyLog(log)
    async with open_engine(faulty) as engine:
        session = await engine.create_session("s")
        gid = await begin(session, waiting)
        faulty.schedule = lambda number, write: Fail()
        with pytest.raises(WriteFailed):
            await session.input(gid, "steer", {}, input_id="i")
        with pytest.raises(WriteFailed):
            await session.input(gid, "steer", {}, input_id="i")
        faulty.schedule = None
        await trio.sleep(1)
        assert await end_of(session, gid) == "failed"
        with pytest.raises(StaleGeneration):
            await session.input(gid, "steer", {}, input_id="i")
    assert [event.type for event in await of_generation(log, gid)] == ["generation.finished"]


def expected_end(status: str) -> list[tuple[str, str | None]]:
    return [
        ("approval.resolved", None),
        ("input.returned", None),
        ("input.returned", None),
        ("block.closed", None),
        ("message.closed", status),
        ("message.opened", "tool"),
        ("block.opened", "closed-call"),
        ("block.closed", None),
        ("block.opened", "open-call"),
        ("block.closed", None),
        ("message.closed", status),
    ]


async def everything_open(generation: Generation) -> None:
    """A call in a closed message, one in an open message, an approval, an input that was taken and not applied."""
    async with generation.message() as message, message.tool_call("closed-call", "search") as call:
        await call.write("{}")
    async with generation.message() as message:
        async with message.tool_call("answered", "search") as call:
            await call.write("{}")
        async with (
            generation.message(role="tool", parent_message_id=message.message_id) as results,
            results.tool_result("answered") as result,
        ):
            await result.write("found")
        async with message.tool_call("open-call", "search") as call:
            await call.write('{"q": ')
            await generation.receive_input()
            await generation.approve("search")


@pytest.mark.parametrize(
    ("way", "outcome", "status"), [("stop", "stopped", "cancelled"), ("lost", "lost", "failed"), ("rollback", "", "")]
)
async def test_the_end_closes_everything_in_its_order(
    way: str, outcome: str, status: str, log: MemoryLog, autojump_clock: MockClock
) -> None:  # R-59 R-144
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        gid = await begin(session, everything_open)
        for name in "ab":
            await session.input(gid, "steer", {"text": name})
        await wait_all_tasks_blocked()
        left = await copied(log)
        before = len(await of_generation(log, gid))
        if way == "rollback":
            await session.start(saying("x"), policy="rollback")
        else:
            await session.stop()
    if way == "lost":
        async with open_engine(left):
            pass
        log = left
    events = (await of_generation(log, gid))[before:]
    if events[0].type == "generation.cancelling":
        events = events[1:]
    await assert_rules(log, closed=True)
    described: list[tuple[str, object]] = []
    for event in events[:-1]:
        (data,) = data_of([event], event.type)
        described.append((event.type, data.get("role") or data.get("tool_call_id") or data.get("status")))
    if way == "rollback":
        assert described == [*expected_end("cancelled"), *[("message.retracted", None)] * 4]
        assert finished(events).outcome == "superseded"
    else:
        assert described == expected_end(status)
        assert finished(events).outcome == outcome
    results: list[JSONObject] = [data for data in data_of(events, "block.closed") if data]
    assert [data["is_error"] for data in results] == [True, True]
