"""A producer in another process: begun by its first chunk, written under the same rules as any, ended by its finish."""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable
from typing import Final

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from penstock.engine import (
    Config,
    Draining,
    Engine,
    FinishFailed,
    Generation,
    GenerationActive,
    GenerationMismatch,
    GenerationNotFound,
    IdInUse,
    InvalidBody,
    InvalidId,
    MemoryLog,
    PenstockError,
    ProducerNotFound,
    ProducerStamp,
    Queued,
    QueueFull,
    SequenceGap,
    Session,
    SessionDeleted,
    StaleGeneration,
    StaleProducer,
    Started,
    TimedOut,
    WriteFailed,
    new_generation_id,
    new_message_id,
    open_engine,
)
from penstock.engine.log import Append, Write
from tests.engine.faulty import Fail, FaultyLog, Hold
from tests.engine.living import begin, data_of, end_of, finished, of_generation
from tests.engine.producers import saying
from tests.engine.remotes import Remote, body, texts_of, types_of
from tests.engine.rules import assert_rules, events_of
from tests.engine.slow import SlowLog

GID = new_generation_id()
MID = new_message_id()


async def tail(session: Session) -> int:
    await wait_all_tasks_blocked()
    return (await session.cursor()).offset


#
async def test_the_first_chunk_begins_a_generation_and_opens_what_it_needs(
    log: MemoryLog, autojump_clock: MockClock
) -> None:
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        first = await session.chunks([body(GID.upper(), "a", job_id="job")])
        assert (first.generation_id, first.accepted, first.duplicates, first.turn) == (GID, 1, 0, 1)
        assert first.message_id is not None
        second = await session.chunks([body(GID, "b"), body(GID, "c", message_id=first.message_id)])
        assert (second.message_id, second.accepted, second.cursor.offset) == (first.message_id, 2, 7)
        assert (await session.generation(GID)).state == "live"
        done = await session.finish(GID, usage={"tokens": 3})
        assert (done.generation_id, done.repeated, done.cursor) == (GID, False, await session.cursor())
        assert (await session.generation(GID)).outcome == "completed"
    events = await events_of(log, "s")
    assert types_of(events) == [
        "session.created",
        "generation.started",
        "message.opened",
        "block.opened",
        *["block.delta"] * 3,
        "block.closed",
        "message.closed",
        "generation.finished",
    ]
    assert data_of(events, "generation.started") == [{"producer": "remote", "policy": "reject"}]
    assert data_of(events, "message.closed") == [{"status": "complete", "finish_reason": "completed"}]
    assert data_of(events, "generation.finished") == [{"outcome": "completed", "usage": {"tokens": 3}}]
    assert {event.job_id for event in events[1:]} == {"job"}
    assert texts_of(events) == {first.message_id: "abc"}


#
async def test_a_first_request_that_is_refused_begins_nothing(log: MemoryLog, autojump_clock: MockClock) -> None:
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        with pytest.raises(InvalidBody) as refused:
            await session.chunks([body(GID, "a"), body(GID, "b", block_index=3)], stamp=ProducerStamp("p", 0, 0))
        assert (refused.value.session_id, refused.value.generation_id) == ("s", GID)
        with pytest.raises(GenerationNotFound):
            await session.generation(GID)
        assert await tail(session) == 1
        assert (await session.chunks([body(GID, "a")], stamp=ProducerStamp("p", 0, 0))).turn == 1


#
async def test_a_first_request_is_one_append(autojump_clock: MockClock) -> None:
    log = FaultyLog(MemoryLog())
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        log.writes.clear()
        await Remote(GID).say(session, "a", "b")
        [write] = log.writes
        assert isinstance(write, Append)
        assert len(write.events) == 5
        assert {"open", "producer/p", "session/turn", f"generation/{GID}"} < write.records.keys()


# three mismatches, each without a write
@pytest.mark.parametrize("case", ["another is live", "its producer is in the server", "message of another"])
async def test_a_chunk_of_another_generation_is_a_mismatch_and_writes_nothing(
    case: str, log: MemoryLog, autojump_clock: MockClock
) -> None:
    async with open_engine(log, producers={"wait": saying("x", pause=50)}) as engine:
        session = await engine.create_session("s")
        if case == "message of another":
            await session.chunks([body(new_generation_id(), "x", message_id=MID)])
            await session.stop()
            await session.chunks([body(GID, "x")])
            chunk = body(GID, "y", message_id=MID)
        else:
            started = await session.start("wait")
            chunk = body(GID if case == "another is live" else started.generation_id, "y", message_id=MID)
        before = await tail(session)
        with pytest.raises(GenerationMismatch) as mismatch:
            await session.chunks([body(chunk.generation_id, "fine"), chunk])
        assert (mismatch.value.session_id, mismatch.value.message_id) == ("s", MID)
        assert mismatch.value.generation_id == chunk.generation_id
        assert await tail(session) == before


async def test_a_generation_that_waits_takes_no_chunks_until_it_has_started(
    log: MemoryLog, autojump_clock: MockClock
) -> None:
    async with open_engine(log, producers={"wait": saying("x", pause=5)}) as engine:
        session = await engine.create_session("s")
        await session.start("wait")
        queued = await session.start("remote", policy="queue", generation_id=GID, text="hello", job_id="j")
        assert queued.generation_id == GID
        for attempt in (session.chunks([body(GID, "a")]), session.finish(GID), session.wait_fenced(GID)):
            with pytest.raises(GenerationMismatch):
                await attempt
        await trio.sleep(10)
        assert (await session.chunks([body(GID, "a", job_id="j")])).turn == 2
        with pytest.raises(GenerationMismatch):
            await session.chunks([body(GID, "a", job_id="another")])
        await session.finish(GID)


#
async def test_ids_of_the_producers_own_making_are_taken_once(log: MemoryLog, autojump_clock: MockClock) -> None:
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        posted = await session.post("hello", message_id=new_message_id())
        assert (await session.chunks([body(GID, "a", message_id=MID.upper())])).message_id == MID
        with pytest.raises(IdInUse):
            await session.chunks([body(GID, "a", message_id=posted.message_id)])
        with pytest.raises(IdInUse):
            await session.post("other", message_id=MID)
        with pytest.raises(IdInUse):
            await session.start("remote", generation_id=GID)
        await session.finish(GID)
        with pytest.raises(IdInUse):
            await session.start("remote", generation_id=GID)


async def test_an_id_is_taken_before_it_is_stored(autojump_clock: MockClock) -> None:
    log = FaultyLog(MemoryLog())
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        refused: list[str] = []

        async def post() -> None:
            with pytest.raises(IdInUse):
                await session.post("other", message_id=MID)
            refused.append("post")

        hold = Hold()
        log.schedule = lambda _, __: hold
        async with trio.open_nursery() as nursery:
            nursery.start_soon(session.chunks, [body(GID, "a", message_id=MID)])
            await wait_all_tasks_blocked()
            nursery.start_soon(post)
            await wait_all_tasks_blocked()
            assert refused == []
            log.schedule = None
            hold.release()
        await session.finish(GID)


@pytest.mark.parametrize("count", [0, 4])
async def test_a_batch_has_its_bounds(count: int, log: MemoryLog, autojump_clock: MockClock) -> None:
    async with open_engine(log, config=Config(batch_chunks=3)) as engine:
        session = await engine.create_session("s")
        with pytest.raises(InvalidBody):
            await session.chunks([body(GID, "a")] * count)
        with pytest.raises(InvalidId):
            await session.chunks([body("x", "a")])
        assert (await session.chunks([body(GID, "a")] * 3)).accepted == 3


async def test_a_batch_is_written_whole_or_not_at_all(log: MemoryLog, autojump_clock: MockClock) -> None:
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        await session.chunks([body(GID, "a", message_id=MID)])
        before = await tail(session)
        for last in (
            body(GID, "x", block_index=9, message_id=MID),
            body(GID, "\ud800", message_id=MID),
            body(GID, "x", message_id=MID, seq=9),
        ):
            with pytest.raises(PenstockError):
                await session.chunks([body(GID, "b", message_id=MID), body(GID, type="message.opened"), last])
        assert await tail(session) == before
        assert (await session.chunks([body(GID, "b", message_id=MID, seq=2)])).accepted == 1


# --- ends from outside


#
@pytest.mark.parametrize("how", ["superseded", "stopped", "reset", "finished"])
async def test_a_generation_that_is_over_takes_nothing_and_its_finish_ends_no_other(
    how: str, log: MemoryLog, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "penstock.session")
    async with open_engine(log, producers={"wait": saying("x", pause=50)}) as engine:
        session = await engine.create_session("s")
        remote = Remote(GID)
        await remote.say(session, "a", message_id=MID)
        if how == "finished":
            await remote.finish(session)
        elif how == "reset":
            await session.reset()
        elif how == "stopped":
            assert (await session.stop()).state == "stopped"
        newer = await session.start("wait")
        before = await tail(session)
        for attempt in (remote.say(session, "b", message_id=MID), session.finish(GID, outcome="failed")):
            with pytest.raises(StaleGeneration) as stale:
                await attempt
            assert (stale.value.session_id, stale.value.generation_id) == ("s", GID)
        assert await tail(session) == before
        assert (await session.generation(newer.generation_id)).state == "live"
        assert "ignored" in caplog.text
        # What was taken before it ended is taken, whoever asks when.
        remote.next -= 1
        assert (await remote.say(session, "a", message_id=MID)).duplicates == 1


#
async def test_reset_and_delete_leave_nothing_of_a_generation(log: MemoryLog, autojump_clock: MockClock) -> None:
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        await Remote(GID).say(session, "a", message_id=MID)
        await session.reset()
        assert (await session.generation(GID)).outcome == "reset"
        fresh = Remote(new_generation_id())
        fresh.next = 1
        await fresh.say(session, "b")
        await session.delete()
        with pytest.raises(SessionDeleted):
            await fresh.say(session, "c")
        session = await engine.create_session("s")
        # A life of its own: neither generation, message nor producer of the former one is known.
        assert (await Remote(GID).say(session, "a", message_id=MID, seq=1)).accepted == 1
        await session.finish(GID)


async def test_supersede_and_stop_are_told_at_once_and_at_the_next_call(
    log: MemoryLog, autojump_clock: MockClock
) -> None:
    told: list[PenstockError] = []

    async def wait(session: Session, generation_id: str) -> None:
        told.append(await session.wait_fenced(generation_id))

    async with open_engine(log, producers={"say": saying("x")}) as engine:
        session = await engine.create_session("s")
        async with trio.open_nursery() as nursery:
            await session.chunks([body(GID, "a")])
            nursery.start_soon(wait, session, GID)
            await wait_all_tasks_blocked()
            assert told == []
            started = await session.start("say")
            assert started.superseded is not None
            assert (started.superseded.generation_id, started.superseded.cleanup) == (GID, "clean")
        assert isinstance(told[0], StaleGeneration)
        assert (told[0].session_id, told[0].generation_id) == ("s", GID)
        assert isinstance(await session.wait_fenced(GID), StaleGeneration)
        with pytest.raises(StaleGeneration):
            await session.chunks([body(GID, "b")])
        with pytest.raises(GenerationNotFound):
            await session.wait_fenced(new_generation_id())


async def test_a_stop_that_came_first_lets_the_generation_begin_and_end(
    log: MemoryLog, autojump_clock: MockClock
) -> None:
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        assert (await session.stop(GID)).state == "pending"
        remote = Remote(GID)
        for _ in range(2):
            with pytest.raises(StaleGeneration):
                await remote.say(session, "a")
        assert types_of(await events_of(log, "s")) == ["session.created", "generation.started", "generation.finished"]
        # The number was not used up.
        other = Remote(new_generation_id())
        assert (await other.say(session, "a")).accepted == 1
        assert (await session.generation(GID)).outcome == "stopped"


async def test_a_stop_reaches_a_first_chunk_that_still_waits(autojump_clock: MockClock) -> None:
    log = FaultyLog(MemoryLog())
    outcomes: list[str] = []

    async def first(session: Session) -> None:
        with pytest.raises(StaleGeneration):
            await session.chunks([body(GID, "a")])
        outcomes.append("stale")

    async def stop(session: Session) -> None:
        outcomes.append((await session.stop()).state)

    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        hold = Hold()
        log.schedule = lambda _, write: hold if isinstance(write, Append) else None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(session.post, "holds up the flush")
            await wait_all_tasks_blocked()
            nursery.start_soon(first, session)
            await wait_all_tasks_blocked()
            nursery.start_soon(stop, session)
            await wait_all_tasks_blocked()
            hold.release()
        assert sorted(outcomes) == ["stale", "stopped"]
        assert (await session.generation(GID)).outcome == "stopped"
    await assert_rules(log, closed=True)


async def test_a_remote_that_falls_silent_is_stalled_and_one_with_a_tool_at_work_is_not_yet(
    log: MemoryLog, autojump_clock: MockClock
) -> None:
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        await session.chunks([body(GID, "a")])
        await trio.sleep(119)
        await session.chunks([body(GID, "b")])
        await trio.sleep(119)
        assert (await session.generation(GID)).state == "live"
        await trio.sleep(2)
        assert (await session.generation(GID)).outcome == "stalled"
        other = new_generation_id()
        call = {"tool_call_id": "c", "name": "look"}
        await session.chunks(
            [body(other, type="block.opened", kind="tool_call", data=call), body(other, type="block.closed")]
        )
        await trio.sleep(3000)
        assert (await session.generation(other)).state == "live"
        await trio.sleep(1000)
        assert (await session.generation(other)).outcome == "stalled"


async def test_a_remote_is_stopped_when_nobody_is_connected_if_it_was_asked_so(
    log: MemoryLog, autojump_clock: MockClock
) -> None:
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        await session.start("remote", generation_id=GID, on_last_disconnect=3)
        await session.chunks([body(GID, "a")])
        await trio.sleep(4)
        assert (await session.generation(GID)).outcome == "stopped"


# --- starting one without a chunk


async def test_a_start_opens_one_that_chunks_drive(log: MemoryLog, autojump_clock: MockClock) -> None:
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        started = await session.start("remote", text="hi", metadata={"k": 1}, idempotency_key="key")
        assert isinstance(started, Started)
        again = await session.start("remote", text="hi", metadata={"k": 1}, idempotency_key="key")
        assert (again.generation_id, again.repeated) == (started.generation_id, True)
        with pytest.raises(GenerationActive):
            await session.start("remote", policy="reject")
        await session.chunks([body(started.generation_id, "a")])
        await session.finish(started.generation_id)
        with pytest.raises(InvalidBody):
            await session.start("remote", input={"n": 1})
    assert data_of(await events_of(log, "s"), "generation.started") == [
        {"producer": "remote", "policy": "supersede", "metadata": {"k": 1}}
    ]


async def test_remote_is_no_name_for_a_producer_in_the_server(log: MemoryLog, autojump_clock: MockClock) -> None:
    with pytest.raises(InvalidBody):
        async with open_engine(log, producers={"remote": saying("x")}):
            pass

    async def hands_off(generation: Generation) -> None:
        with pytest.raises(ProducerNotFound):
            await generation.hand_off("remote")

    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        assert await end_of(session, await begin(session, hands_off)) == "completed"


async def test_the_next_of_the_queue_starts_when_a_remote_finishes(log: MemoryLog, autojump_clock: MockClock) -> None:
    async with open_engine(log, producers={"say": saying("x")}) as engine:
        session = await engine.create_session("s")
        await session.chunks([body(GID, "a")])
        queued = await session.start("say", policy="queue")
        await session.finish(GID)
        assert await end_of(session, queued.generation_id) == "completed"


# --- what people answer and send


async def test_an_approval_of_a_remote_is_answered_in_its_events(log: MemoryLog, autojump_clock: MockClock) -> None:
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        ask = body(GID, type="approval.requested", data={"approval_id": "a", "name": "rm", "arguments": {"path": "/"}})
        assert (await session.chunks([ask])).accepted == 1
        assert (await session.chunks([ask])).duplicates == 1
        await trio.sleep(1000)  # a person is waited for: nothing stalls
        await session.input(GID, "approval", {"approval_id": "a", "approved": True}, by="ada")
        await session.chunks([body(GID, type="approval.requested", data={"name": "dd"})])
        await trio.sleep(3601)
        await session.finish(GID)
    events = await of_generation(log, GID)
    assert [
        (data["approved"], data.get("reason"), data.get("by")) for data in data_of(events, "approval.resolved")
    ] == [
        (True, None, "ada"),
        (False, "expired", None),
    ]
    assert all(data["expires_at"] for data in data_of(events, "approval.requested"))


async def test_inputs_of_a_remote_are_bounded_until_it_applies_them(log: MemoryLog, autojump_clock: MockClock) -> None:
    async with open_engine(log, config=Config(inputs=1)) as engine:
        session = await engine.create_session("s")
        await session.chunks([body(GID, "a")])
        await session.input(GID, "steer", {"n": 1}, input_id="one")
        with pytest.raises(QueueFull):
            await session.input(GID, "steer", {"n": 2}, input_id="two")
        applied = body(GID, type="input.applied", data={"input_id": "one"})
        assert (await session.chunks([applied, applied])).duplicates == 1
        await session.input(GID, "steer", {"n": 2}, input_id="two")
        with pytest.raises(QueueFull):
            await session.input(GID, "steer", {"n": 3}, input_id="three")
        await session.finish(GID)
    assert data_of(await of_generation(log, GID), "input.returned") == [{"input_id": "two"}]


# --- exactly once


async def test_a_request_counts_once_whatever_becomes_of_its_generation(
    log: MemoryLog, autojump_clock: MockClock
) -> None:
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        remote = Remote(GID)
        first = await remote.say(session, "a", "b", message_id=MID)
        before = await tail(session)
        again = await session.chunks([body(GID, "a"), body(GID, "b", message_id=MID)], stamp=ProducerStamp("p", 0, 0))
        assert (again.accepted, again.duplicates, again.message_id, again.turn) == (0, 2, MID, 1)
        assert again.cursor == first.cursor
        assert await tail(session) == before
        with pytest.raises(SequenceGap) as gap:
            await session.chunks([body(GID, "x")], stamp=ProducerStamp("p", 0, 2))
        assert gap.value.expected == 1
        with pytest.raises(SequenceGap):
            await session.chunks([body(GID, "x")], stamp=ProducerStamp("p", 1, 1))
        restarted = Remote(GID, epoch=1)
        await restarted.say(session, "c", message_id=MID, seq=3)
        with pytest.raises(StaleProducer) as stale:
            await remote.say(session, "d")
        assert (stale.value.epoch, stale.value.session_id, stale.value.generation_id) == (1, "s", GID)
        await restarted.finish(session)
        restarted.next -= 1
        assert (await restarted.finish(session)).repeated
        restarted.next -= 2
        assert (await restarted.say(session, "c", message_id=MID, seq=3)).duplicates == 1
    assert texts_of(await events_of(log, "s")) == {MID: "abc"}


async def test_a_request_of_nothing_but_duplicates_uses_its_number_durably(autojump_clock: MockClock) -> None:
    log = FaultyLog(MemoryLog())
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        await session.chunks([body(GID, "a", message_id=MID, seq=1)])
        hold = Hold()
        log.schedule = lambda _, __: hold
        answered = trio.Event()

        async def repeat() -> None:
            await Remote(GID).say(session, "a", message_id=MID, seq=1)
            answered.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(repeat)
            await wait_all_tasks_blocked()
            assert not answered.is_set()
            log.schedule = None
            hold.release()
        assert await log.record("s", (await session.cursor()).epoch, "producer/p") is not None
        await session.finish(GID)


async def test_a_repetition_that_overtakes_waits_for_the_first_ones_commit(autojump_clock: MockClock) -> None:
    log = FaultyLog(MemoryLog())
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        await session.chunks([body(GID, "a", message_id=MID)])
        hold = Hold()
        log.schedule = lambda _, __: hold
        answers: list[tuple[int, int]] = []

        async def send() -> None:
            answer = await session.chunks([body(GID, "b", message_id=MID)], stamp=ProducerStamp("p", 0, 0))
            answers.append((answer.accepted, answer.duplicates))

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(send)
            await wait_all_tasks_blocked()
            assert answers == []
            log.schedule = None
            hold.release()
        assert sorted(answers) == [(0, 1), (0, 1), (1, 0)]
        await session.finish(GID)
    assert texts_of(await events_of(log, "s")) == {MID: "ab"}


async def test_of_many_that_are_the_same_request_one_is_written(autojump_clock: MockClock) -> None:
    """Also where each must ask the log first whose the message is, and the others are written meanwhile."""
    log = SlowLog()
    log.turns.extend([1, 0, 2])
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        for number, message_id in enumerate([MID, new_message_id()]):
            answers: list[tuple[int, int]] = []

            async def send(number: int, message_id: str, answers: list[tuple[int, int]]) -> None:
                chunk = body(GID, "a", message_id=message_id)
                answer = await session.chunks([chunk], stamp=ProducerStamp("p", 0, number))
                answers.append((answer.accepted, answer.duplicates))

            async with trio.open_nursery() as nursery:
                for _ in range(4):
                    nursery.start_soon(send, number, message_id, answers)
            assert sorted(answers) == [(0, 1), (0, 1), (0, 1), (1, 0)]
        await session.finish(GID)
    assert set(texts_of(await events_of(log, "s")).values()) == {"a"}
    await assert_rules(log, closed=True)


async def test_two_requests_that_open_the_same_message_at_once_both_write_to_it(
    log: MemoryLog, autojump_clock: MockClock
) -> None:
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        await session.chunks([body(GID, "a")])
        async with trio.open_nursery() as nursery:
            for text in "bc":
                nursery.start_soon(session.chunks, [body(GID, text, message_id=MID)])
        await session.finish(GID)
    assert sorted(texts_of(await events_of(log, "s"))[MID]) == ["b", "c"]


#
async def test_numbers_begin_anew_with_every_message_and_generation(log: MemoryLog, autojump_clock: MockClock) -> None:
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        for _ in range(2):
            gid, mid = new_generation_id(), new_message_id()
            for number, text in enumerate("abc", 1):
                await session.chunks([body(gid, text, message_id=mid, seq=number)])
            await session.finish(gid)
            with pytest.raises(StaleGeneration):
                await session.chunks([body(gid, "d", message_id=mid, seq=4)])


# --- finish


#
async def test_a_finish_waits_for_all_that_came_before_and_closes_what_is_open(autojump_clock: MockClock) -> None:
    log = FaultyLog(MemoryLog())
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        await session.chunks([body(GID, "a", message_id=MID)])
        hold = Hold()
        log.schedule = lambda _, __: hold
        order: list[str] = []

        async def send() -> None:
            await session.chunks([body(GID, "b", message_id=MID)])
            order.append("chunk")

        async def finish() -> None:
            await session.finish(GID)
            order.append("finish")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            await wait_all_tasks_blocked()
            nursery.start_soon(finish)
            await wait_all_tasks_blocked()
            assert order == []
            log.schedule = None
            hold.release()
        assert sorted(order) == ["chunk", "finish"]
    assert types_of(await of_generation(log.inner, GID))[-4:] == [  # type: ignore[arg-type]
        "block.delta",
        "block.closed",
        "message.closed",
        "generation.finished",
    ]


async def test_a_finish_is_repeated_by_its_own_producer_only(log: MemoryLog, autojump_clock: MockClock) -> None:
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        remote = Remote(GID)
        await remote.say(session, "a")
        await remote.finish(session)
        before = await tail(session)
        assert (await remote.finish(session)).repeated  # a new request, and it counts
        assert (await remote.finish(session)).repeated
        for attempt in (
            remote.finish(session, "failed"),
            session.finish(GID),
            Remote(GID, producer_id="other").finish(session),
        ):
            with pytest.raises(StaleGeneration):
                await attempt
        assert await tail(session) == before
        other = new_generation_id()
        await session.chunks([body(other, "a")])
        assert not (await session.finish(other, outcome="failed", code="MODEL_GONE", message="It broke.")).repeated
        assert (await session.finish(other, outcome="failed")).repeated
        end = finished(await of_generation(log, other))
        assert (end.outcome, end.code, end.message) == ("failed", "MODEL_GONE", "It broke.")


async def test_a_finish_with_a_code_of_the_engines_own_is_repeated_as_any(
    log: MemoryLog, autojump_clock: MockClock
) -> None:
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        await session.chunks([body(GID, "a")])
        assert not (await session.finish(GID, outcome="failed", code="WRITE_FAILED")).repeated
        assert (await session.finish(GID, outcome="failed", code="WRITE_FAILED")).repeated
        with pytest.raises(StaleGeneration):
            await session.finish(GID)
        with pytest.raises(StaleGeneration):
            await Remote(GID).finish(session, "failed")


async def test_a_finish_of_what_is_not_there_says_so(log: MemoryLog, autojump_clock: MockClock) -> None:
    async with open_engine(log, producers={"wait": saying("x", pause=9)}) as engine:
        session = await engine.create_session("s")
        with pytest.raises(GenerationNotFound):
            await session.finish(GID)
        started = await session.start("wait")
        with pytest.raises(GenerationMismatch):
            await session.finish(GID)
        with pytest.raises(GenerationMismatch):
            await session.finish(started.generation_id)
        for refused in (
            session.finish(GID, outcome="stopped"),  # type: ignore[arg-type]
            session.finish(GID, code="X"),
            session.finish(GID, usage={"x": math.nan}),
            session.finish(GID, outcome="failed", message="\ud800"),
        ):
            with pytest.raises(InvalidBody):
                await refused
        assert (await session.generation(started.generation_id)).state == "live"


# --- storage trouble


#
async def test_what_could_not_be_stored_fails_the_finish(autojump_clock: MockClock) -> None:
    log = FaultyLog(MemoryLog())
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        remote = Remote(GID)
        await remote.say(session, "a", message_id=MID)
        log.schedule = lambda _, __: Fail()
        with pytest.raises(WriteFailed):
            await remote.say(session, "b", message_id=MID)
        with pytest.raises(FinishFailed) as failed:
            await remote.finish(session)
        assert failed.value.retryable
        assert (failed.value.session_id, failed.value.generation_id) == ("s", GID)
        with pytest.raises(WriteFailed):
            await remote.say(session, "b", message_id=MID)
        log.schedule = None
        await trio.sleep(10)
        assert (await session.generation(GID)).outcome == "failed"
        for _ in range(2):
            with pytest.raises(FinishFailed):
                await remote.finish(session)
        with pytest.raises(StaleGeneration):
            await remote.say(session, "b", message_id=MID)
        # The refused request took its number back, and the session is whole again.
        other = Remote(new_generation_id())
        other.next = 1
        await other.say(session, "c")
        await other.finish(session)
    assert texts_of(await events_of(log, "s"))[MID] == "a"
    await assert_rules(log, closed=True)


#
async def test_an_end_that_could_not_be_stored_is_no_finish(autojump_clock: MockClock) -> None:
    log = FaultyLog(MemoryLog())
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        remote = Remote(GID)
        await remote.say(session, "a")
        log.schedule = lambda _, write: Fail() if _ends(write) else None
        with pytest.raises(FinishFailed):
            await remote.finish(session)
        log.schedule = None
        await trio.sleep(10)
        assert (await session.generation(GID)).outcome == "failed"
        with pytest.raises(FinishFailed):
            await remote.finish(session)
    await assert_rules(log, closed=True)


def _ends(write: Write) -> bool:
    return isinstance(write, Append) and any(b'"generation.finished"' in event for event in write.events)


async def test_a_first_chunk_that_was_not_stored_began_nothing(autojump_clock: MockClock) -> None:
    log = FaultyLog(MemoryLog())
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        told: list[PenstockError] = []
        log.schedule = lambda _, __: Fail()
        with pytest.raises(WriteFailed):
            await Remote(GID).say(session, "a", message_id=MID)
        log.schedule = None
        await trio.sleep(10)
        with pytest.raises(GenerationNotFound):
            told.append(await session.wait_fenced(GID))
        assert (await Remote(GID).say(session, "a", message_id=MID, seq=1)).turn == 1
        await session.finish(GID)
    await assert_rules(log, closed=True)


async def test_a_write_that_hangs_may_be_asked_for_again(autojump_clock: MockClock) -> None:
    log = FaultyLog(MemoryLog())
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        hold = Hold()
        log.schedule = lambda _, __: hold
        remote = Remote(GID)
        with pytest.raises(TimedOut):
            await remote.say(session, "a", message_id=MID)
        with pytest.raises(TimedOut):
            await remote.say(session, "a", message_id=MID)
        with pytest.raises(TimedOut):
            await session.start("remote", generation_id=GID)
        log.schedule = None
        hold.release()
        answer = await remote.say(session, "a", message_id=MID)
        assert (answer.accepted, answer.duplicates) == (0, 1)
        with pytest.raises(IdInUse):
            await session.start("remote", generation_id=GID)
        await remote.finish(session)
    assert texts_of(await events_of(log, "s")) == {MID: "a"}
    await assert_rules(log, closed=True)


async def test_a_generation_is_told_of_once_its_start_is_stored(autojump_clock: MockClock) -> None:
    log = FaultyLog(MemoryLog())
    async with open_engine(log) as engine, trio.open_nursery() as nursery:
        session = await engine.create_session("s")
        hold = Hold()
        log.schedule = lambda _, __: hold
        nursery.start_soon(session.chunks, [body(GID, "a")])
        await wait_all_tasks_blocked()
        assert len(hold) == 1
        with pytest.raises(GenerationNotFound):
            await session.generation(GID)
        hold.release()
        await wait_all_tasks_blocked()
        assert (await session.generation(GID)).state == "live"


async def test_a_start_joins_once_what_it_joins_is_stored(autojump_clock: MockClock) -> None:
    log = FaultyLog(MemoryLog())
    joined: list[Started | Queued] = []
    async with open_engine(log, producers={"say": saying("x")}) as engine, trio.open_nursery() as nursery:
        session = await engine.create_session("s")
        hold = Hold()
        log.schedule = lambda _, __: hold

        async def join() -> None:
            joined.append(await session.start("say", policy="join"))

        nursery.start_soon(session.chunks, [body(GID, "a")])
        await wait_all_tasks_blocked()
        nursery.start_soon(join)
        await wait_all_tasks_blocked()
        assert joined == []
        hold.release()
        await wait_all_tasks_blocked()
        assert [answer.generation_id for answer in joined] == [GID]


async def test_a_write_that_is_held_up_past_a_delete_brings_nothing_back(autojump_clock: MockClock) -> None:
    log = FaultyLog(MemoryLog())
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        await session.chunks([body(GID, "a")])
        errors: list[PenstockError] = []

        async def send() -> None:
            try:
                await session.chunks([body(GID, "b")])
            except PenstockError as error:
                errors.append(error)

        hold = Hold()
        log.schedule = lambda number, _: hold
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            await wait_all_tasks_blocked()
            nursery.start_soon(session.delete)
            await wait_all_tasks_blocked()
            log.schedule = None
            hold.release()
        assert errors == []  # it stood before the delete
        with pytest.raises(SessionDeleted):
            await session.chunks([body(GID, "c")])
        assert engine.statistics().pending_events == 0
        assert await log.heads() == []


async def test_a_full_log_makes_a_remote_wait_and_not_for_ever(autojump_clock: MockClock) -> None:
    log = FaultyLog(MemoryLog())
    async with open_engine(log, config=Config(session_pending=2)) as engine:
        session = await engine.create_session("s")
        await session.chunks([body(GID, "a", message_id=MID)])
        hold = Hold()
        log.schedule = lambda _, __: hold

        async def fill() -> None:
            with pytest.raises(TimedOut):
                await session.chunks([body(GID, "b", message_id=MID)] * 2)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(fill)
            await wait_all_tasks_blocked()
            with pytest.raises(TimedOut):
                await Remote(GID).say(session, "never", message_id=MID)
        log.schedule = None
        hold.release()
        assert (await Remote(GID).say(session, "c", message_id=MID)).accepted == 1
        await session.finish(GID)
    assert texts_of(await events_of(log, "s")) == {MID: "abbc"}


# --- shutdown


async def test_a_first_chunk_that_waits_when_the_engine_drains_begins_nothing(autojump_clock: MockClock) -> None:
    log = FaultyLog(MemoryLog())
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        hold = Hold()
        log.schedule = lambda _, __: hold
        refused = trio.Event()

        async def first() -> None:
            with pytest.raises(Draining):
                await Remote(GID).say(session, "a")
            refused.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(session.post, "holds up the flush")
            await wait_all_tasks_blocked()
            nursery.start_soon(first)
            await wait_all_tasks_blocked()
            nursery.start_soon(engine.drain)
            await wait_all_tasks_blocked()
            assert not refused.is_set()
            hold.release()
    assert types_of(await events_of(log, "s")) == ["session.created", "message.snapshot"]


async def test_a_drain_leaves_a_remote_open_and_says_so(autojump_clock: MockClock) -> None:
    log = MemoryLog()
    told: list[PenstockError] = []

    async def wait(session: Session) -> None:
        told.append(await session.wait_fenced(GID))

    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        await session.chunks([body(GID, "a")])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait, session)
            await wait_all_tasks_blocked()
            await engine.drain()
        assert isinstance(told[0], Draining)
        for attempt in (session.chunks([body(GID, "b")]), session.finish(GID)):
            with pytest.raises(Draining):
                await attempt
    assert types_of(await events_of(log, "s"))[-1] == "block.delta"
    assert [sid for sid, _ in await log.holders("open")] == ["s"]
    await assert_rules(log, closed=False)


ENDS: Final[dict[str, Callable[[Engine, Session], Awaitable[object]]]] = {
    "stop": lambda _, session: session.stop(),
    "stop of it": lambda _, session: session.stop(GID),
    "delete": lambda _, session: session.delete(),
    "delete by id": lambda engine, _: engine.delete_session("s"),
    "reset": lambda _, session: session.reset(),
    "supersede": lambda _, session: session.start(saying("x"), text="x"),
    "finish": lambda _, session: session.finish(GID),
    "retract": lambda _, session: session.retract(MID),
    "post": lambda _, session: session.post("x"),
    "fork": lambda _, session: session.fork(),
    "update": lambda _, session: session.update({"a": 1}),
}


@pytest.mark.parametrize("asked", ENDS)
async def test_what_was_left_for_the_next_process_nobody_ends_and_no_answer_says_that_it_has_ended(
    asked: str, autojump_clock: MockClock
) -> None:
    log = MemoryLog()
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        await session.chunks([body(GID, "a")])
        await engine.drain()
        before = await events_of(log, "s")
        with pytest.raises(Draining):
            await ENDS[asked](engine, session)
    assert await events_of(log, "s") == before
    async with open_engine(log) as engine:
        session = await engine.session("s")
        await session.chunks([body(GID, "b")])
        await session.finish(GID)
    await assert_rules(log, closed=True)
