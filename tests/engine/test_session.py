"""One session's generations: start, supersede, stop, refuse, fail; posts and deletion."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from penstock.engine import (
    CaughtUp,
    Chunk,
    Config,
    Engine,
    Event,
    Generation,
    GenerationActive,
    GenerationCancelling,
    GenerationFinished,
    GenerationNotFound,
    IdInUse,
    InvalidBody,
    MemoryLog,
    ProducerError,
    ProducerNotFound,
    Session,
    SessionDeleted,
    SessionNotFound,
    StaleGeneration,
    Started,
    Stopped,
    TooManyStragglers,
    new_generation_id,
    new_message_id,
    open_engine,
)
from tests.engine.actors import ACTORS
from tests.engine.faulty import FaultyLog, Hold
from tests.engine.producers import Steered, failing, saying, shielding
from tests.engine.rules import events_of


async def finished(session: Session, generation_id: str) -> Event:
    """The end of this generation, once it is there."""
    async with session.subscribe() as events:
        async for event in events:
            if event.generation_id == generation_id and isinstance(event.data, GenerationFinished):
                return event
    raise AssertionError("the stream ended first")


def outcome(event: Event) -> str:
    assert isinstance(event.data, GenerationFinished)
    return event.data.outcome


def types(events: list[Event], generation_id: str | None = None) -> list[str]:
    return [event.type for event in events if generation_id in (None, event.generation_id)]


# R-4 R-14 R-58
async def test_every_event_bears_its_full_stamp(
    log: MemoryLog, autojump_clock: MockClock
) -> None:  # R-1 R-2 R-3 R-9 R-10
    async with open_engine(log) as engine:
        session = await engine.create_session("s", metadata={"title": "t"})
        started = await session.start(saying("a", "b"), text="hello", job_id="job-7", metadata={"m": 1})
        await finished(session, started.generation_id)
    events = await events_of(log, "s")
    assert [event.offset for event in events] == list(range(1, len(events) + 1))
    assert {event.session_id for event in events} == {"s"}
    of_generation = [event for event in events if event.generation_id is not None]
    assert types(of_generation) == [
        "generation.started",
        "message.opened",
        "block.opened",
        "block.delta",
        "block.delta",
        "block.closed",
        "message.closed",
        "generation.finished",
    ]
    assert {event.generation_id for event in of_generation} == {started.generation_id}
    assert {event.turn for event in of_generation} == {1}
    assert {event.job_id for event in of_generation} == {"job-7"}
    assert [event.seq for event in of_generation if event.block_index is not None] == [0, 1, 2, 3]
    assert types(events[:2]) == ["session.created", "message.snapshot"]
    assert events[1].message_id == started.message_id


#
async def test_a_message_ends_when_it_ends_and_not_with_its_generation(
    log: MemoryLog, autojump_clock: MockClock
) -> None:
    async def producer(generation: Generation) -> None:
        for text in ("first", "second"):
            async with generation.message() as message, message.text() as block:
                await block.write(text)
                message.finish(reason=f"the {text}")
            await trio.sleep(10)

    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        started = await session.start(producer)
        for said in (["the first"], ["the first", "the second"]):
            await trio.sleep(5)
            assert types(await events_of(log, "s"))[-1] == "message.closed"
            snapshot = await session.snapshot()
            assert snapshot.generation is not None
            assert [message.status for message in snapshot.messages] == ["complete"] * len(said)
            assert [message.finish_reason for message in snapshot.messages] == said
            await trio.sleep(5)
        await finished(session, started.generation_id)


#
async def test_supersede_is_written_in_order(log: MemoryLog, autojump_clock: MockClock) -> None:  # R-20 R-21 R-24
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        producer = Steered()
        first = await session.start(producer)
        await producer.started.wait()
        second = await session.start(saying("new"), text="again")
        assert second.superseded is not None
        assert (second.superseded.generation_id, second.superseded.cleanup) == (first.generation_id, "clean")
        await finished(session, second.generation_id)
    events = await events_of(log, "s")
    begin = types(events).index("generation.cancelling")
    assert types(events)[begin : begin + 6] == [
        "generation.cancelling",
        "block.closed",
        "message.closed",
        "generation.finished",
        "message.snapshot",
        "generation.started",
    ]
    end = events[begin + 3].data
    assert isinstance(end, GenerationFinished)
    assert (end.outcome, end.superseded_by, end.cleanup) == ("superseded", second.generation_id, "clean")
    assert (first.turn, second.turn) == (1, 2)


# R-40 R-42 R-44
async def test_cooperative_producer_costs_no_timeout(log: MemoryLog, autojump_clock: MockClock) -> None:
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        await session.start(Steered())
        begun = trio.current_time()
        await session.start(saying("x"))
        assert trio.current_time() - begun < 0.1


# R-16 R-18 R-37 R-39
async def test_overrunning_cleanup_costs_the_timeout_and_is_fenced(
    log: MemoryLog, autojump_clock: MockClock
) -> None:  # R-23 R-30
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        stubborn = shielding(60)
        first = await session.start(stubborn)
        await stubborn.started.wait()
        begun = trio.current_time()
        second = await session.start(saying("new"))
        assert trio.current_time() - begun == pytest.approx(2.0, abs=0.01)
        assert second.superseded is not None
        assert second.superseded.cleanup == "overran"
        assert engine.statistics().stragglers == 1
        await stubborn.over.wait()
        assert [type(error) for error in stubborn.errors] == [StaleGeneration]
        await trio.testing.wait_all_tasks_blocked()
        assert engine.statistics().stragglers == 0
    events = await events_of(log, "s")
    last = max(event.offset or 0 for event in events if event.generation_id == first.generation_id)
    assert events[last - 1].type == "generation.finished"
    assert all("late" not in str(event.data) for event in events)


async def test_stragglers_are_capped(log: MemoryLog, autojump_clock: MockClock) -> None:
    async with open_engine(log, config=Config(max_stragglers=2, cleanup_timeout=0.1)) as engine:
        session = await engine.create_session("s")
        for _ in range(3):
            stubborn = shielding(30)
            await session.start(stubborn)
            await stubborn.started.wait()
        await trio.testing.wait_all_tasks_blocked()
        before = await session.cursor()
        with pytest.raises(TooManyStragglers):
            await session.start(saying("x"))
        assert await session.cursor() == before
        assert engine.statistics().live_generations == 1
        await session.stop()
        before = await session.cursor()
        with pytest.raises(TooManyStragglers):
            await session.chunks([Chunk(generation_id=new_generation_id(), data={"text": "x"})])
        assert await session.cursor() == before


# R-22 R-27 R-31
async def test_twenty_concurrent_starts_end_in_one_completed(
    log: MemoryLog, autojump_clock: MockClock
) -> None:  # R-28 R-131
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        answers: list[Started] = []

        async def start() -> None:
            answers.append(await session.start(saying("a", "b", pause=0.01), text="go"))

        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(start)
        assert sorted(answer.turn for answer in answers) == list(range(1, 21))
        last = max(answers, key=lambda answer: answer.turn)
        assert outcome(await finished(session, last.generation_id)) == "completed"
    ends = [outcome(event) for event in await events_of(log, "s") if event.type == "generation.finished"]
    assert sorted(ends) == ["completed"] + 19 * ["superseded"]


async def test_reject_refuses_and_changes_nothing(log: MemoryLog, autojump_clock: MockClock) -> None:
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        producer = Steered()
        first = await session.start(producer)
        await producer.started.wait()
        await trio.testing.wait_all_tasks_blocked()
        before = await session.cursor()
        with pytest.raises(GenerationActive) as refused:
            await session.start(saying("x"), text="no", policy="reject")
        assert refused.value.generation_id == first.generation_id
        assert await session.cursor() == before
        producer.finish.set()
        assert outcome(await finished(session, first.generation_id)) == "completed"


async def test_join_answers_with_the_live_one(log: MemoryLog, autojump_clock: MockClock) -> None:
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        first = await session.start(Steered())
        joined = await session.start(saying("x"), policy="join")
        assert (joined.generation_id, joined.turn) == (first.generation_id, 1)
        with pytest.raises(InvalidBody):
            await session.start(saying("x"), policy="join", text="hello")


async def test_rollback_retracts_what_the_old_one_said(log: MemoryLog, autojump_clock: MockClock) -> None:
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        producer = Steered()
        await session.start(producer)
        await producer.started.wait()
        second = await session.start(saying("new"), policy="rollback")
        await finished(session, second.generation_id)
        snapshot = await session.snapshot()
        assert [message.generation_id for message in snapshot.messages] == [second.generation_id]


async def test_start_whose_caller_leaves_still_happens(log: MemoryLog, autojump_clock: MockClock) -> None:
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        stubborn = shielding(60)
        await session.start(stubborn)
        await stubborn.started.wait()
        with trio.move_on_after(0.5):
            await session.start(saying("new"), generation_id=(wanted := new_generation_id()))
        assert outcome(await finished(session, wanted)) == "completed"


# R-22 R-50
async def test_producer_that_raises_ends_its_generation_and_nothing_else(
    log: MemoryLog, autojump_clock: MockClock
) -> None:
    async with open_engine(log) as engine:
        other = await engine.create_session("other")
        going_on = Steered()
        kept = await other.start(going_on)
        session = await engine.create_session("s")
        secret = "password=hunter2"
        group = ExceptionGroup("several", [ValueError(secret), KeyError(secret)])
        for error in (RuntimeError(secret), group):
            started = await session.start(failing(error))
            end = (await finished(session, started.generation_id)).data
            assert isinstance(end, GenerationFinished)
            assert (end.outcome, end.code) == ("failed", "PRODUCER_FAILED")
            assert secret not in repr(end)
        going_on.finish.set()
        assert outcome(await finished(other, kept.generation_id)) == "completed"
    closed = [event.data for event in await events_of(log, "s") if event.type == "message.closed"]
    assert [getattr(data, "status", None) for data in closed] == ["failed", "failed"]


async def test_producer_error_is_shown_as_it_says(log: MemoryLog, autojump_clock: MockClock) -> None:
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        started = await session.start(failing(ProducerError("The model is busy.", reason="MODEL_BUSY")))
        end = (await finished(session, started.generation_id)).data
        assert isinstance(end, GenerationFinished)
        assert (end.code, end.message) == ("MODEL_BUSY", "The model is busy.")


#
async def test_failing_cleanup_ends_as_failed_and_the_new_one_runs(
    log: MemoryLog, autojump_clock: MockClock
) -> None:
    async def bad(generation: Generation) -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("clean-up")

    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        first = await session.start(bad)
        await trio.testing.wait_all_tasks_blocked()
        second = await session.start(saying("x"))
        end = (await finished(session, first.generation_id)).data
        assert isinstance(end, GenerationFinished)
        assert (end.outcome, end.superseded_by) == ("failed", second.generation_id)
        assert outcome(await finished(session, second.generation_id)) == "completed"


async def test_async_iterable_is_the_shortest_producer(log: MemoryLog, autojump_clock: MockClock) -> None:
    closed = trio.Event()

    async def words(generation: Generation):  # type: ignore[no-untyped-def]  # as an application would write it
        try:
            for word in ("one ", "two "):
                yield word
            await trio.sleep_forever()
        finally:
            with generation.cleanup():
                await trio.sleep(0.5)
                closed.set()

    async with open_engine(log, producers={"words": words}) as engine:
        session = await engine.create_session("s")
        await session.start("words")
        await trio.sleep(1)
        assert (await session.stop()).state == "stopped"
        assert closed.is_set()
        assert (await session.snapshot()).messages[0].blocks[0].text == "one two "


#
async def test_stop_tells_the_truth_in_every_moment(log: MemoryLog, autojump_clock: MockClock) -> None:
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        assert await session.stop() == Stopped(state="nothing_active")
        first = await session.start(Steered())
        assert await session.stop(first.generation_id) == Stopped(state="stopped", generation_id=first.generation_id)
        assert (await session.stop(first.generation_id)).state == "already_done"
        stubborn = shielding(60)
        second = await session.start(stubborn)
        await stubborn.started.wait()
        assert await session.stop() == Stopped(state="stopping", generation_id=second.generation_id)
        assert (await session.generation(second.generation_id)).outcome == "stopped"
        assert (await session.stop()).state == "nothing_active"


@pytest.mark.parametrize("name", sorted(ACTORS))
async def test_a_stop_says_what_the_log_says(name: str, log: MemoryLog, autojump_clock: MockClock) -> None:
    """Whatever the producer does, and whatever it does when it is cancelled."""
    async with open_engine(log, producers=ACTORS) as engine:
        session = await engine.create_session("s")
        started = await session.start(name)
        await trio.testing.wait_all_tasks_blocked()
        stopped = await session.stop(started.generation_id)
        assert stopped.generation_id == started.generation_id
        (end,) = [event.data for event in await events_of(log, "s") if isinstance(event.data, GenerationFinished)]
        if end.outcome == "stopped":
            assert stopped.state == {"clean": "stopped", "overran": "stopping"}[end.cleanup or ""]
        else:
            assert stopped.state == "already_done"


async def test_stop_before_the_start_is_remembered(log: MemoryLog, autojump_clock: MockClock) -> None:
    called = trio.Event()

    async def producer(generation: Generation) -> None:
        called.set()

    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        wanted = new_generation_id()
        assert await session.stop(wanted) == Stopped(state="pending", generation_id=wanted)
        await session.start(producer, generation_id=wanted)
        assert outcome(await finished(session, wanted)) == "stopped"
        later = new_generation_id()
        assert (await session.stop(later)).state == "pending"
        await trio.sleep(61)
        await session.start(producer, generation_id=later)
        assert outcome(await finished(session, later)) == "completed"
    assert called.is_set()


async def test_stop_reaches_a_start_that_waits(log: MemoryLog, autojump_clock: MockClock) -> None:
    called = trio.Event()

    async def producer(generation: Generation) -> None:
        called.set()

    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        stubborn = shielding(60)
        first = await session.start(stubborn)
        await stubborn.started.wait()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(session.start, producer)
            await trio.sleep(0.1)
            stopped = await session.stop()
        assert stopped.state == "stopped"
        assert stopped.generation_id is not None
        assert outcome(await finished(session, stopped.generation_id)) == "stopped"
        assert outcome(await finished(session, first.generation_id)) == "superseded"
    assert not called.is_set()


# R-11 R-61
async def test_ids_are_used_once(log: MemoryLog, autojump_clock: MockClock) -> None:
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        wanted = new_generation_id()
        await session.start(saying("x"), generation_id=wanted)
        await finished(session, wanted)
        with pytest.raises(IdInUse):
            await session.start(saying("x"), generation_id=wanted)
        mid = new_message_id()
        assert (await session.post("hi", message_id=mid)).created
        assert not (await session.post("hi", message_id=mid)).created
        with pytest.raises(IdInUse):
            await session.post("ho", message_id=mid)
        assert len((await session.snapshot()).messages) == 2


async def test_repeated_posts_at_once_make_one_message(log: MemoryLog, autojump_clock: MockClock) -> None:
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        mid = new_message_id()
        made: list[bool] = []

        async def post() -> None:
            made.append((await session.post("hi", message_id=mid)).created)

        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(post)
        assert sorted(made) == 9 * [False] + [True]


#
async def test_deleted_session_ends_everything_and_begins_anew(
    log: MemoryLog, autojump_clock: MockClock
) -> None:  # R-36 R-102
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        before = await session.cursor()
        producer = Steered()
        await session.start(producer)
        await producer.started.wait()
        async with session.subscribe() as subscription:
            while not isinstance(await subscription.receive(), CaughtUp):
                pass
            await session.delete()
            seen = [event async for event in subscription]
        assert seen[-1].type == "generation.finished"
        assert outcome(seen[-1]) == "deleted"
        for call in (session.start(saying("x")), session.post("x"), session.stop(), session.snapshot()):
            with pytest.raises(SessionDeleted):
                await call
        again = await engine.create_session("s")
        assert again.created
        assert (await again.cursor()).epoch != before.epoch
        started = await again.start(saying("x"))
        assert started.turn == 1
    assert types(await events_of(log, "s"))[0] == "session.created"


async def test_unknown_names_are_told(log: MemoryLog, autojump_clock: MockClock) -> None:
    async with open_engine(log, producers={"a": saying("x"), "b": saying("y")}) as engine:
        with pytest.raises(SessionNotFound):
            await engine.session("nobody")
        session = await engine.create_session("s")
        with pytest.raises(ProducerNotFound):
            await session.start()
        with pytest.raises(ProducerNotFound):
            await session.start("c")
        with pytest.raises(GenerationNotFound):
            await session.generation(new_generation_id())
        with pytest.raises(InvalidBody):
            await session.start("a", policy="whatever")  # type: ignore[call-overload]
        assert (await session.cursor()).offset == 1


async def test_text_that_is_no_unicode_is_refused_and_leaves_no_hole(log: MemoryLog, autojump_clock: MockClock) -> None:
    async def producer(generation: Generation) -> None:
        async with generation.message() as message, message.text() as block:
            await block.write("before")
            with pytest.raises(InvalidBody):
                await block.write("\ud83d")
            await block.write("after")

    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        with pytest.raises(InvalidBody):
            await session.start(producer, text="\ud83d")
        started = await session.start(producer)
        assert outcome(await finished(session, started.generation_id)) == "completed"


async def test_leaving_the_engine_ends_what_is_live(log: MemoryLog, autojump_clock: MockClock) -> None:
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        producer = Steered()
        await session.start(producer)
        await producer.started.wait()
        async with session.subscribe() as subscription:
            engine_ends = await drain_and_collect(engine, session)
            assert outcome(engine_ends[-1]) == "shutdown"
            seen = [event async for event in subscription]
            assert seen == engine_ends
    assert [outcome(e) for e in await events_of(log, "s") if e.type == "generation.finished"] == ["shutdown"]


async def drain_and_collect(engine: Engine, session: Session) -> list[Event]:
    async with session.subscribe() as subscription:
        await engine.drain()
        return [event async for event in subscription]


async def test_idle_sessions_leave_memory_and_come_back(log: MemoryLog, autojump_clock: MockClock) -> None:
    async with open_engine(log, config=Config(idle_session=10)) as engine:
        session = await engine.create_session("s")
        started = await session.start(saying("x"))
        await finished(session, started.generation_id)
        await trio.sleep(25)
        assert engine.statistics().sessions == 0
        assert (await session.generation(started.generation_id)).outcome == "completed"
        assert engine.statistics().sessions == 1
        again = await session.start(saying("y"))
        assert again.turn == 2


async def test_two_sessions_never_mix(log: MemoryLog, autojump_clock: MockClock) -> None:  # R-5 R-7 R-8 R-138
    async with open_engine(log) as engine:
        seen: dict[str, list[Event]] = {"a": [], "b": []}

        async def watch(name: str, job: str) -> None:
            session = await engine.create_session(name)
            async with session.subscribe() as events:
                await session.start(saying(*(f"{name}{i} " for i in range(50)), pause=0.001), job_id=job)
                async for event in events:
                    seen[name].append(event)
                    if event.type == "generation.finished":
                        return

        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch, "a", "job-a")
            nursery.start_soon(watch, "b", "job-b")
        for name, job in (("a", "job-a"), ("b", "job-b")):
            assert {event.session_id for event in seen[name]} == {name}
            assert {event.job_id for event in seen[name] if event.generation_id} == {job}
            assert seen[name] == await events_of(log, name)


# R-25 R-26
async def test_a_stop_is_in_the_log_with_its_reason(log: MemoryLog, autojump_clock: MockClock) -> None:
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        for reason in (None, "the user left"):
            producer = Steered()
            await session.start(producer)
            await producer.started.wait()
            await (session.stop() if reason is None else session.stop(reason=reason))
    reasons = [event.data.reason for event in await events_of(log, "s") if isinstance(event.data, GenerationCancelling)]
    assert reasons == ["stopped", "the user left"]


#
async def test_a_stop_is_told_before_the_producer_cleans_up_and_answered_when_it_is_stored(
    log: MemoryLog, autojump_clock: MockClock
) -> None:
    faulty, hold, told = FaultyLog(log), Hold(), list[str]()

    async def producer(generation: Generation) -> None:
        try:
            await trio.sleep_forever()
        finally:
            with generation.cleanup():
                await trio.sleep(0.1)
                for event in await events_of(log, "s"):
                    if isinstance(event.data, GenerationCancelling):
                        told.append(event.data.reason)
                faulty.schedule = lambda *_: None if hold.released else hold

    async def stop() -> None:
        told.append((await session.stop(reason="the user left")).state)

    async with open_engine(faulty) as engine:
        session = await engine.create_session("s")
        await session.start(producer)
        async with trio.open_nursery() as nursery:
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(stop)
            await trio.sleep(3)
            assert told == ["the user left"]
            hold.release()
    assert told == ["the user left", "stopped"]


# R-64 R-66
async def test_a_write_is_told_where_it_stands_and_waits_for_no_generation(
    log: MemoryLog, autojump_clock: MockClock
) -> None:
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        stubborn = shielding(60)
        await session.start(stubborn)
        await stubborn.started.wait()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(session.stop)
            await trio.testing.wait_all_tasks_blocked()
            begun = trio.current_time()
            posted = await session.post("meanwhile")
            assert trio.current_time() - begun < 0.1
        stored = (await events_of(log, "s"))[posted.cursor.offset - 1]
        assert (stored.message_id, stored.type) == (posted.message_id, "message.snapshot")


#
async def test_a_stale_stop_never_touches_the_newer_generation(log: MemoryLog, autojump_clock: MockClock) -> None:
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        old = await session.start(saying("old"))
        await finished(session, old.generation_id)
        producer = Steered()
        new = await session.start(producer)
        assert (await session.stop(old.generation_id)).state == "already_done"
        producer.finish.set()
        assert outcome(await finished(session, new.generation_id)) == "completed"


async def test_the_order_is_that_of_the_log_whatever_the_clock_says(
    log: MemoryLog, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock that is set back, and moments that are the same, put nothing out of its order."""
    wall = [1_700_000_000 * 10**9]
    async with open_engine(log, producers={"say": saying("an answer")}) as engine:
        session = await engine.create_session("s")
        monkeypatch.setattr("time.time_ns", lambda: wall[0])
        for number in range(3):
            wall[0] -= number * 3600 * 10**9
            started = await session.start("say", text=f"question {number}")
            await finished(session, started.generation_id)
        told = [message.blocks[0].text for message in (await session.snapshot()).messages]
        assert told == ["question 0", "an answer", "question 1", "an answer", "question 2", "an answer"]
    events = await events_of(log, "s")
    assert [event.offset for event in events] == list(range(1, len(events) + 1))
    times = [event.time for event in events if event.type == "message.snapshot"]
    assert times == sorted(times, reverse=True)
    assert len(set(times)) == 3
