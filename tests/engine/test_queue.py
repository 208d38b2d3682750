"""Generations that wait: order, bound, pause, stop, restart; and what a start replaces or repeats."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from attrs import evolve
from trio.testing import MockClock

from penstock.engine import (
    Event,
    Generation,
    GenerationFinished,
    GenerationNotFound,
    IdempotencyConflict,
    InvalidBody,
    MemoryLog,
    MessageNotFound,
    Producer,
    Queued,
    QueueFull,
    Session,
    Started,
    Stopped,
    new_generation_id,
    new_message_id,
    open_engine,
)
from tests.engine.producers import Steered, saying
from tests.engine.rules import events_of

PRODUCERS: dict[str, Producer] = {"say": saying("hello")}


async def settle() -> None:
    """Let everything happen that can without time going by."""
    await trio.testing.wait_all_tasks_blocked()


def turns(events: list[Event]) -> list[tuple[str, str | None]]:
    """What became of the generations, in order."""
    told = {"generation.queued", "generation.started", "generation.finished", "queue.paused", "queue.resumed"}
    return [(event.type, event.generation_id) for event in events if event.type in told]


def outcomes(events: list[Event]) -> dict[str, str]:
    return {
        event.generation_id or "": event.data.outcome for event in events if isinstance(event.data, GenerationFinished)
    }


async def queue(
    session: Session, text: str, *, generation_id: str | None = None, idempotency_key: str | None = None
) -> Queued:
    queued = await session.start(
        "say", text=text, policy="queue", generation_id=generation_id, idempotency_key=idempotency_key
    )
    assert isinstance(queued, Queued)
    return queued


async def live(session: Session) -> tuple[Steered, str]:
    producer = Steered()
    started = await session.start(producer)
    await producer.started.wait()
    return producer, started.generation_id


def texts(events: list[Event]) -> list[str]:
    return [block.text or "" for e in events if e.type == "message.snapshot" for block in e.data.blocks]  # type: ignore[union-attr]


async def test_queued_generations_start_in_order(log: MemoryLog, autojump_clock: MockClock) -> None:
    async with open_engine(log, producers=PRODUCERS) as engine:
        session = await engine.create_session("s")
        producer, first = await live(session)
        waiting = [await queue(session, f"t{i}") for i in range(3)]
        assert [queued.position for queued in waiting] == [1, 2, 3]
        snapshot = await session.snapshot()
        assert [item.generation_id for item in snapshot.queue.items] == [q.generation_id for q in waiting]
        assert (await session.generation(waiting[1].generation_id)).state == "queued"
        producer.finish.set()
        await settle()
        await trio.sleep(1)
        events = await events_of(log, "s")
        order = [gid for kind, gid in turns(events) if kind == "generation.started"]
        assert order == [first, *(q.generation_id for q in waiting)]
        assert set(outcomes(events).values()) == {"completed"}
        assert texts(events) == ["t0", "t1", "t2"]
        assert (await session.snapshot()).queue.items == ()


async def test_the_queue_is_bounded(log: MemoryLog, autojump_clock: MockClock) -> None:
    async with open_engine(log, producers=PRODUCERS) as engine:
        session = await engine.create_session("s")
        await live(session)
        for i in range(16):
            await queue(session, f"t{i}")
        before = await session.cursor()
        with pytest.raises(QueueFull):
            await queue(session, "one too many")
        assert await session.cursor() == before
        with pytest.raises(InvalidBody):
            await session.start(saying("not registered"), policy="queue")


async def test_latest_keeps_only_the_newest(log: MemoryLog, autojump_clock: MockClock) -> None:
    async with open_engine(log, producers=PRODUCERS) as engine:
        session = await engine.create_session("s")
        producer, _ = await live(session)
        waiting = [await session.start("say", text=f"t{i}", policy="latest") for i in range(3)]
        producer.finish.set()
        await trio.sleep(1)
        ends = outcomes(await events_of(log, "s"))
        assert [ends[q.generation_id] for q in waiting] == ["superseded", "superseded", "completed"]


async def test_latest_on_a_paused_queue_waits_as_those_did_whose_place_it_takes(
    log: MemoryLog, autojump_clock: MockClock
) -> None:
    async with open_engine(log, producers=PRODUCERS) as engine:
        session = await engine.create_session("s")
        await live(session)
        await queue(session, "old")
        await session.stop()
        newest = await session.start("say", text="new", policy="latest")
        await trio.sleep(1)
        snapshot = await session.snapshot()
        assert snapshot.queue.paused
        assert [item.generation_id for item in snapshot.queue.items] == [newest.generation_id]
        assert (await session.queue_next()).generation_id == newest.generation_id


async def test_stop_pauses_the_queue_and_next_goes_on(log: MemoryLog, autojump_clock: MockClock) -> None:
    async with open_engine(log, producers=PRODUCERS) as engine:
        session = await engine.create_session("s")
        _, first = await live(session)
        a, b = await queue(session, "a"), await queue(session, "b")
        assert await session.stop() == Stopped(state="stopped", generation_id=first)
        await trio.sleep(1)
        assert (await session.snapshot()).queue.paused
        assert (await session.generation(a.generation_id)).state == "queued"
        again = await queue(session, "c")
        assert again.position == 3
        assert (await session.queue_next()).generation_id == a.generation_id
        await trio.sleep(1)
        ends = outcomes(await events_of(log, "s"))
        assert [ends[q.generation_id] for q in (a, b, again)] == ["completed"] * 3
        assert not (await session.snapshot()).queue.paused


@pytest.mark.parametrize(("choice", "expected"), [("continue", "completed"), ("clear", "stopped")])
async def test_stop_may_go_on_or_clear(choice: str, expected: str, log: MemoryLog, autojump_clock: MockClock) -> None:
    async with open_engine(log, producers=PRODUCERS) as engine:
        session = await engine.create_session("s")
        await live(session)
        waiting = [await queue(session, text) for text in "ab"]
        await session.stop(queue=choice)  # type: ignore[arg-type]
        await trio.sleep(1)
        ends = outcomes(await events_of(log, "s"))
        assert [ends[q.generation_id] for q in waiting] == [expected] * 2


async def test_a_waiting_generation_can_be_stopped_or_taken_out(log: MemoryLog, autojump_clock: MockClock) -> None:
    async with open_engine(log, producers=PRODUCERS) as engine:
        session = await engine.create_session("s")
        producer, first = await live(session)
        a, b, c = [await queue(session, text) for text in "abc"]
        assert await session.stop(b.generation_id) == Stopped(state="stopped", generation_id=b.generation_id)
        await session.dequeue(a.generation_id)
        with pytest.raises(GenerationNotFound):
            await session.dequeue(a.generation_id)
        with pytest.raises(GenerationNotFound):
            await session.dequeue(first)
        assert (await session.stop(b.generation_id)).state == "already_done"
        producer.finish.set()
        await trio.sleep(1)
        ends = outcomes(await events_of(log, "s"))
        assert [ends[q.generation_id] for q in (a, b, c)] == ["stopped", "stopped", "completed"]


async def test_supersede_leaves_the_queue_as_it_is(log: MemoryLog, autojump_clock: MockClock) -> None:
    async with open_engine(log, producers=PRODUCERS) as engine:
        session = await engine.create_session("s")
        await live(session)
        waiting = await queue(session, "a")
        newer = Steered()
        await session.start(newer)
        await newer.started.wait()
        assert (await session.generation(waiting.generation_id)).state == "queued"
        newer.finish.set()
        await trio.sleep(1)
        assert (await session.generation(waiting.generation_id)).outcome == "completed"


async def test_a_stop_that_came_first_reaches_the_queue(log: MemoryLog, autojump_clock: MockClock) -> None:
    async with open_engine(log, producers=PRODUCERS) as engine:
        session = await engine.create_session("s")
        await live(session)
        wanted = new_generation_id()
        assert (await session.stop(wanted)).state == "pending"
        queued = await queue(session, "a", generation_id=wanted)
        assert queued.generation_id == wanted
        assert (await session.generation(wanted)).outcome == "stopped"
        assert (await session.snapshot()).queue.items == ()


async def test_the_queue_survives_a_restart_in_order(log: MemoryLog, autojump_clock: MockClock) -> None:
    async with open_engine(log, producers=PRODUCERS) as engine:
        session = await engine.create_session("s")
        await live(session)
        waiting = [await queue(session, text) for text in "abc"]
    assert outcomes(await events_of(log, "s")).get(waiting[0].generation_id) is None
    async with open_engine(log, producers=PRODUCERS) as engine:
        session = await engine.session("s")
        await trio.sleep(1)
        events = await events_of(log, "s")
        started = [gid for kind, gid in turns(events) if kind == "generation.started"]
        assert started[1:] == [q.generation_id for q in waiting]
        assert texts(events) == ["a", "b", "c"]
        assert (await session.snapshot()).queue.items == ()


async def test_a_paused_queue_stays_paused_over_a_restart(log: MemoryLog, autojump_clock: MockClock) -> None:
    async with open_engine(log, producers=PRODUCERS) as engine:
        session = await engine.create_session("s")
        await live(session)
        waiting = await queue(session, "a")
        await session.stop()
    async with open_engine(log, producers=PRODUCERS) as engine:
        session = await engine.session("s")
        await trio.sleep(1)
        assert (await session.snapshot()).queue.paused
        assert (await session.queue_next()).generation_id == waiting.generation_id


async def test_a_producer_that_is_no_longer_there_ends_its_place(log: MemoryLog, autojump_clock: MockClock) -> None:
    async with open_engine(log, producers={"gone": saying("x"), "say": saying("y")}) as engine:
        session = await engine.create_session("s")
        await live(session)
        gone = await session.start("gone", policy="queue")
        there = await queue(session, "b")
    async with open_engine(log, producers=PRODUCERS) as engine:
        session = await engine.session("s")
        await trio.sleep(1)
        assert (await session.generation(gone.generation_id)).outcome == "failed"
        assert (await session.generation(there.generation_id)).outcome == "completed"


async def test_repeated_starts_get_the_first_answer(log: MemoryLog, autojump_clock: MockClock) -> None:
    called = 0

    async def producer(generation: Generation) -> None:
        nonlocal called
        called += 1

    async with open_engine(log, producers={"p": producer, **PRODUCERS}) as engine:
        session = await engine.create_session("s")
        first = await session.start("p", text="hi", idempotency_key="k")
        assert isinstance(first, Started)
        again = await session.start("p", text="hi", idempotency_key="k")
        assert isinstance(again, Started)
        assert again.repeated
        assert (again.generation_id, again.turn, again.cursor, again.message_id) == (
            first.generation_id,
            first.turn,
            first.cursor,
            first.message_id,
        )
        with pytest.raises(IdempotencyConflict):
            await session.start("p", text="ho", idempotency_key="k")
        with pytest.raises(IdempotencyConflict):
            await session.start("p", text="hi", idempotency_key="k", idle_limit=60)
        other = await session.start("p", text="ho", idempotency_key="k", principal="somebody else")
        assert other.generation_id != first.generation_id
        _, _ = await live(session)
        queued = await queue(session, "q", idempotency_key="kq")
        repeated = await queue(session, "q", idempotency_key="kq")
        assert (repeated.generation_id, repeated.position, repeated.repeated) == (queued.generation_id, 1, True)
    async with open_engine(log, producers={"p": producer, **PRODUCERS}) as engine:
        session = await engine.session("s")
        after_restart = await session.start("p", text="hi", idempotency_key="k")
        assert after_restart.generation_id == first.generation_id
    assert called == 2


@pytest.mark.parametrize("ending", ["nothing", "stop", "finish", "restart", "another", "reset"])
async def test_a_repeated_join_gets_the_first_answer_whatever_became_of_what_it_joined(
    ending: str, log: MemoryLog, autojump_clock: MockClock
) -> None:
    async with open_engine(log, producers=PRODUCERS) as engine:
        session = await engine.create_session("s")
        old = await session.start("remote")
        first = await session.start("say", policy="join", idempotency_key="k")
        assert (first.generation_id, first.turn, first.joined, first.repeated) == (old.generation_id, 1, True, False)
        match ending:
            case "stop":
                await session.stop()
            case "finish":
                await session.finish(old.generation_id)
            case "another":
                await session.start("say")
            case "reset":
                await session.reset()
            case _:
                pass
        if ending != "restart":
            again = await session.start("say", policy="join", idempotency_key="k")
            assert again == evolve(first, repeated=True)
    async with open_engine(log, producers=PRODUCERS) as engine:
        await trio.sleep(1000)
        session = await engine.session("s")
        assert (await session.generation(old.generation_id)).outcome in (
            "lost",
            "stopped",
            "completed",
            "superseded",
            "reset",
        )
        again = await session.start("say", policy="join", idempotency_key="k")
        assert again == evolve(first, repeated=True)
    types = [event.type for event in await events_of(log, "s")]
    assert types.count("generation.started") == (2 if ending == "another" else 1)


async def test_a_key_that_is_used_again_after_its_time_is_kept_anew(
    log: MemoryLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    wall = 1_800_000_000.0
    monkeypatch.setattr("penstock.engine.session.idempotency.time.time", lambda: wall)
    async with open_engine(log, producers=PRODUCERS) as engine:
        session = await engine.create_session("s")
        old = await session.start("say", text="hi", idempotency_key="k")
        wall += 25 * 3600
        new = await session.start("say", text="hi", idempotency_key="k")
        assert new.generation_id != old.generation_id
        await session.start("say", text="ho", idempotency_key="other")
        again = await session.start("say", text="hi", idempotency_key="k")
        assert (again.generation_id, again.repeated) == (new.generation_id, True)


async def test_twenty_repetitions_at_once_start_one(log: MemoryLog, autojump_clock: MockClock) -> None:  # R-74 R-132
    async with open_engine(log, producers=PRODUCERS) as engine:
        session = await engine.create_session("s")
        answers: list[str] = []

        async def start() -> None:
            answers.append((await session.start("say", text="hi", idempotency_key="k")).generation_id)

        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(start)
        assert len(set(answers)) == 1
    assert texts(await events_of(log, "s")) == ["hi"]


async def test_replaces_takes_the_message_out_with_all_that_follows(log: MemoryLog, autojump_clock: MockClock) -> None:
    async with open_engine(log, producers=PRODUCERS) as engine:
        session = await engine.create_session("s")
        kept = await session.post("kept")
        started = await session.start("say", text="first")
        assert isinstance(started, Started)
        await trio.sleep(1)
        edited = await session.start("say", text="edited", replaces=started.message_id)
        await trio.sleep(1)
        snapshot = await session.snapshot()
        assert snapshot.messages[0].message_id == kept.message_id
        assert [m.blocks[0].text for m in snapshot.messages] == ["kept", "edited", "hello"]
        again = await session.start("say", replaces=snapshot.messages[-1].message_id)
        await trio.sleep(1)
        snapshot = await session.snapshot()
        assert [m.blocks[0].text for m in snapshot.messages] == ["kept", "edited", "hello"]
        assert snapshot.messages[-1].generation_id == again.generation_id != edited.generation_id
        with pytest.raises(MessageNotFound):
            await session.start("say", replaces=new_message_id())


async def test_replacing_a_live_answer_leaves_nothing_of_it(log: MemoryLog, autojump_clock: MockClock) -> None:
    async def calls_a_tool(generation: Generation) -> None:
        async with generation.message() as message, message.tool_call("call-1", "search") as block:
            await block.write("{}")
        await trio.sleep_forever()

    for policy in ("supersede", "rollback"):
        async with open_engine(log, producers=PRODUCERS) as engine:
            session = await engine.create_session(policy)
            started = await session.start(calls_a_tool, text="first")
            assert isinstance(started, Started)
            await trio.sleep(1)
            await session.start("say", text="again", policy=policy, replaces=started.message_id)
            await trio.sleep(1)
            assert [m.blocks[0].text for m in (await session.snapshot()).messages] == ["again", "hello"]
