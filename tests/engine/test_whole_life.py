"""Reset, fork, retraction, metadata: serialised with everything else, and independent where they must be."""

from __future__ import annotations

from collections import deque

import pytest
import trio
from trio.testing import MockClock

from penstock.engine import (
    Config,
    Cursor,
    Generation,
    GenerationActive,
    GenerationFinished,
    IdInUse,
    InvalidBody,
    InvalidCursor,
    MemoryLog,
    MessageNotFound,
    PenstockError,
    SessionReset,
    TimedOut,
    new_message_id,
    open_engine,
)
from penstock.engine.testing import ScriptedProducer
from tests.engine.faulty import FaultyLog, Hold
from tests.engine.producers import Steered, saying, shielding
from tests.engine.rules import assert_rules, events_of
from tests.engine.slow import SlowLog, turns


async def test_reset_ends_everything_and_empties_the_transcript(  # R-63 R-103
    log: MemoryLog, autojump_clock: MockClock
) -> None:
    async with open_engine(log, producers={"say": saying("x")}) as engine:
        session = await engine.create_session("s", metadata={"a": 1})
        await session.post("hello")
        producer = Steered()
        started = await session.start(producer)
        await producer.started.wait()
        queued = await session.start("say", policy="queue")
        cursor = await session.reset("fresh start")
        events = await events_of(log, "s")
        assert isinstance(events[-1].data, SessionReset)
        assert (events[-1].data.reason, events[-1].offset) == ("fresh start", cursor.offset)
        ends = {e.generation_id: e.data.outcome for e in events if isinstance(e.data, GenerationFinished)}
        assert ends == {started.generation_id: "reset", queued.generation_id: "reset"}
        snapshot = await session.snapshot()
        assert (snapshot.messages, snapshot.queue.items, dict(snapshot.metadata)) == ((), (), {"a": 1})
        again = await session.start("say")
        assert again.cursor.epoch == cursor.epoch
        await trio.sleep(1)
        assert [m.generation_id for m in (await session.snapshot()).messages] == [again.generation_id]


async def test_fork_is_independent_and_restamped(log: MemoryLog, autojump_clock: MockClock) -> None:
    async with open_engine(log, producers={"say": saying("answer")}) as engine:
        session = await engine.create_session("s", metadata={"title": "t"})
        await session.start("say", text="question")
        await trio.sleep(1)
        fork = await session.fork("f")
        assert fork.created
        assert (await fork.cursor()).epoch != (await session.cursor()).epoch
        before = await events_of(log, "f")
        assert [event.type for event in before] == ["session.forked", "message.snapshot", "message.snapshot"]
        assert {event.session_id for event in before} == {"f"}
        assert all(event.generation_id is None for event in before)
        ours, theirs = await session.snapshot(), await fork.snapshot()
        assert [m.message_id for m in ours.messages] == [m.message_id for m in theirs.messages]
        assert [m.blocks for m in ours.messages] == [m.blocks for m in theirs.messages]
        assert dict(theirs.metadata) == {"title": "t"}
        await fork.start("say", text="in the fork")
        await trio.sleep(1)
        assert (await session.snapshot()) == ours
        await session.delete()
        assert len((await fork.snapshot()).messages) == 4
        with pytest.raises(IdInUse):
            await fork.fork("f")


async def test_fork_at_a_message_or_a_cursor(log: MemoryLog, autojump_clock: MockClock) -> None:
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        posted = [await session.post(f"m{i}") for i in range(4)]
        by_message = await session.fork(at=posted[1].message_id)
        by_cursor = await session.fork(at=str(posted[2].cursor), metadata={"own": True})
        assert [m.blocks[0].text for m in (await by_message.snapshot()).messages] == ["m0", "m1"]
        snapshot = await by_cursor.snapshot()
        assert [m.blocks[0].text for m in snapshot.messages] == ["m0", "m1", "m2"]
        assert dict(snapshot.metadata) == {"own": True}
        with pytest.raises(MessageNotFound):
            await session.fork(at=new_message_id())
        for cursor in (Cursor("feed", 1), Cursor(posted[0].cursor.epoch, 99)):
            with pytest.raises(InvalidCursor):
                await session.fork(at=cursor)


async def test_fork_of_a_live_answer_carries_what_it_said_as_cancelled(
    log: MemoryLog, autojump_clock: MockClock
) -> None:
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        producer = Steered()
        await session.start(producer)
        await producer.started.wait()
        fork = await session.fork("f")
        (message,) = (await fork.snapshot()).messages
        assert (message.status, message.blocks[0].text) == ("cancelled", "begun")
        assert (await session.generation((await session.snapshot()).generation.generation_id)).state == "live"  # type: ignore[union-attr]


async def test_retracted_messages_leave_the_transcript(log: MemoryLog, autojump_clock: MockClock) -> None:
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        posted = [await session.post(f"m{i}") for i in range(4)]
        await session.retract(posted[1].message_id)
        assert [m.blocks[0].text for m in (await session.snapshot()).messages] == ["m0", "m2", "m3"]
        await session.retract(posted[2].message_id, and_after=True)
        assert [m.blocks[0].text for m in (await session.snapshot()).messages] == ["m0"]
        with pytest.raises(MessageNotFound):
            await session.retract(posted[1].message_id)
        producer = Steered()
        await session.start(producer)
        await producer.started.wait()
        (message,) = (await session.snapshot()).messages[1:]
        with pytest.raises(GenerationActive):
            await session.retract(message.message_id)


async def test_a_message_that_opens_while_those_before_it_are_retracted_stays(autojump_clock: MockClock) -> None:
    log = SlowLog()
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        go_on = trio.Event()
        producer = ScriptedProducer().wait(go_on).say("mine").sleep(1000)
        await session.start(producer)
        await producer.run()
        posted = [await session.post(f"m{i}") for i in range(2)]
        retracted: list[PenstockError | Cursor] = []

        async def retract() -> None:
            try:
                retracted.append(await session.retract(posted[0].message_id, and_after=True))
            except GenerationActive as error:
                retracted.append(error)

        async with trio.open_nursery() as nursery:
            log.turns = deque([60])
            nursery.start_soon(session.snapshot)
            await turns(10)
            log.turns = deque([0])
            nursery.start_soon(retract)
            await turns(10)
            go_on.set()
        (answer,) = retracted
        snapshot = await session.snapshot()
        assert len(snapshot.messages) == (3 if isinstance(answer, GenerationActive) else 1)
        assert snapshot.messages[-1].status == "open"
    await assert_rules(log, closed=True)


async def test_metadata_are_merged(log: MemoryLog, autojump_clock: MockClock) -> None:
    async with open_engine(log) as engine:
        session = await engine.create_session("s", metadata={"a": 1, "b": {"c": 2, "d": 3}})
        updated = await session.update({"a": None, "b": {"c": 5, "e": [1]}, "f": "x"})
        expected = {"b": {"c": 5, "d": 3, "e": [1]}, "f": "x"}
        assert updated.metadata == expected
        assert dict((await session.snapshot()).metadata) == expected
        (info,) = await engine.sessions()
        assert (info.session_id, info.metadata, info.cursor) == ("s", expected, updated.cursor)


async def test_a_patch_that_is_stored_late_is_not_lost_by_the_next_one(
    log: MemoryLog, autojump_clock: MockClock
) -> None:
    faulty = FaultyLog(log)
    async with open_engine(faulty, config=Config(flush_timeout=1)) as engine:
        session = await engine.create_session("s")
        hold = Hold()
        faulty.schedule = lambda _number, _write: hold
        with pytest.raises(TimedOut):
            await session.update({"first": 1})
        async with trio.open_nursery() as nursery:
            nursery.start_soon(session.update, {"second": 2})
            await trio.sleep(0.5)
            faulty.schedule = None
            hold.release()
        assert dict((await session.snapshot()).metadata) == {"first": 1, "second": 2}


async def test_sessions_are_listed_in_pages_and_not_brought_to_memory(
    log: MemoryLog, autojump_clock: MockClock
) -> None:
    async with open_engine(log, config=Config(idle_session=1)) as engine:
        for i in range(25):
            await engine.create_session(f"s{i:02d}")
        await trio.sleep(5)
        seen: list[str] = []
        while page := await engine.sessions(after=seen[-1] if seen else "", limit=10):
            seen += [info.session_id for info in page]
        assert seen == [f"s{i:02d}" for i in range(25)]
        assert engine.statistics().sessions == 0


#
async def test_steps_of_all_kinds_at_once_keep_one_order(
    log: MemoryLog, autojump_clock: MockClock
) -> None:  # R-101 R-139
    async with open_engine(
        log, producers={"say": saying("x", pause=0.1)}, config=Config(cleanup_timeout=0.5)
    ) as engine:
        session = await engine.create_session("s")
        await session.start(shielding(2))
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(session.start, "say")
                nursery.start_soon(session.reset)
                nursery.start_soon(session.stop)
                nursery.start_soon(session.fork)
                nursery.start_soon(session.update, {"n": 1})
        await session.delete()
        again = await engine.create_session("s")
        assert again.created
        assert (await again.snapshot()).messages == ()


async def test_a_late_write_of_a_deleted_session_creates_nothing(
    log: MemoryLog, autojump_clock: MockClock
) -> None:  # R-89 R-140
    late: list[BaseException] = []

    async def stubborn(generation: Generation) -> None:
        async with generation.message() as message, message.text() as block:
            await block.write("in time")
            try:
                await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True):
                    await trio.sleep(10)
                try:
                    await block.write("ghost")
                except Exception as error:
                    late.append(error)
                    raise

    async with open_engine(log, config=Config(cleanup_timeout=0.5)) as engine:
        session = await engine.create_session("s")
        await session.start(stubborn)
        await trio.sleep(1)
        await session.delete()
        assert engine.statistics().stragglers == 1
        again = await engine.create_session("s")
        await trio.sleep(20)
        assert len(late) == 1
        assert [resident.closed for resident in engine._registry.tasks] == [False], "of the life before nothing is left"
        assert [event.type for event in await events_of(log, "s")] == ["session.created"]
        assert (await again.cursor()).offset == 1
        assert engine.statistics().stragglers == 0


async def test_seconds_that_are_no_time_are_refused(log: MemoryLog, autojump_clock: MockClock) -> None:
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        for seconds in (10**400, float("inf"), float("nan"), -1):
            with pytest.raises(InvalidBody):
                await session.start(saying("x"), on_last_disconnect=seconds)
        assert (await session.cursor()).offset == 1
