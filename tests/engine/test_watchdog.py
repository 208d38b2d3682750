"""The limits of a generation, at their exact times: idle, total, nobody connected."""

from __future__ import annotations

import asyncio
import math

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from penstock.engine import (
    Config,
    Engine,
    Generation,
    GenerationFinished,
    InvalidBody,
    MemoryLog,
    Queued,
    Session,
    StaleGeneration,
    new_message_id,
    open_engine,
)
from penstock.engine.generation.run import Run
from tests.engine.faulty import FaultyLog, Hold
from tests.engine.living import begin, data_of, end_of, finished, of_generation
from tests.engine.producers import Steered, saying
from tests.engine.rules import events_of

FOREVER = trio.sleep_forever


async def assert_ends_at(session: Session, generation_id: str, moment: float, outcome: str) -> None:
    """It is live just before ``moment``, by the trio clock, and has ended just behind it."""
    await trio.sleep_until(moment - 0.001)
    assert await end_of(session, generation_id) is None
    await trio.sleep_until(moment + 0.001)
    assert await end_of(session, generation_id) == outcome


async def silent(generation: Generation) -> None:
    """Opens a message and says nothing more."""
    async with generation.message() as message, message.text() as block:
        await block.write("begun")
        await FOREVER()


#
async def test_a_silent_generation_is_stalled(log: MemoryLog, autojump_clock: MockClock) -> None:
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        begun = trio.current_time()
        gid = await begin(session, silent)
        await assert_ends_at(session, gid, begun + 120, "stalled")
        # The next one starts as if nothing had been.
        assert await end_of(session, await begin(session, saying("x"))) == "completed"
    events = await of_generation(log, gid)
    assert [event.type for event in events[-4:]] == [
        "generation.cancelling",
        "block.closed",
        "message.closed",
        "generation.finished",
    ]
    assert data_of(events, "generation.cancelling") == [{"reason": "stalled"}]
    assert data_of(events, "message.closed")[0]["status"] == "failed"
    end = finished(events)
    assert (end.outcome, end.code, end.cleanup) == ("stalled", "STALLED", "clean")
    assert end.message == "Ended because nothing came for 120 s."


async def test_every_event_sets_the_idle_clock_back(log: MemoryLog, autojump_clock: MockClock) -> None:
    async def producer(generation: Generation) -> None:
        async with generation.message() as message, message.text() as block:
            for _ in range(5):
                await block.write("x")
                await trio.sleep(9)
            await generation.status("thinking")
            await FOREVER()

    async with open_engine(log, config=Config(idle_limit=10)) as engine:
        session = await engine.create_session("s")
        begun = trio.current_time()
        gid = await begin(session, producer)
        await assert_ends_at(session, gid, begun + 45 + 10, "stalled")


async def test_posts_of_others_are_no_sign_of_life(log: MemoryLog, autojump_clock: MockClock) -> None:
    async with open_engine(log, config=Config(idle_limit=10)) as engine:
        session = await engine.create_session("s")
        begun = trio.current_time()
        gid = await begin(session, silent)
        await trio.sleep_until(begun + 9)
        await session.post("still there?")
        await assert_ends_at(session, gid, begun + 10, "stalled")


async def test_the_idle_clock_stands_still_while_an_approval_is_open(log: MemoryLog, autojump_clock: MockClock) -> None:
    async def producer(generation: Generation) -> None:
        await trio.sleep(3)
        await generation.approve("x")
        await FOREVER()

    async with open_engine(log, config=Config(idle_limit=10)) as engine:
        session = await engine.create_session("s")
        begun = trio.current_time()
        gid = await begin(session, producer)
        await trio.sleep_until(begun + 1234.5)
        assert await end_of(session, gid) is None
        (approval,) = (await session.snapshot()).approvals
        await session.input(gid, "approval", {"approval_id": approval.approval_id, "approved": True})
        await assert_ends_at(session, gid, begun + 1244.5, "stalled")


async def test_the_idle_clock_runs_on_when_an_approval_has_expired(log: MemoryLog, autojump_clock: MockClock) -> None:
    async def producer(generation: Generation) -> None:
        answer = await generation.approve("x")
        assert answer.reason == "expired"
        await FOREVER()

    async with open_engine(log, config=Config(idle_limit=10, approval_timeout=100)) as engine:
        session = await engine.create_session("s")
        begun = trio.current_time()
        gid = await begin(session, producer)
        await assert_ends_at(session, gid, begun + 110, "stalled")


async def test_the_idle_clock_stands_still_while_a_tool_is_at_work(log: MemoryLog, autojump_clock: MockClock) -> None:
    async def producer(generation: Generation) -> None:
        async with generation.message() as message:
            for name in ("a", "b"):
                async with message.tool_call(name, "search") as call:
                    await call.write("{}")
        await trio.sleep(500)
        async with generation.message(role="tool") as message:
            async with message.tool_result("a") as result:
                await result.write("1")
            await trio.sleep(500)
            async with message.tool_result("b") as result:
                await result.write("2")
        await FOREVER()

    async with open_engine(log, config=Config(idle_limit=10)) as engine:
        session = await engine.create_session("s")
        begun = trio.current_time()
        gid = await begin(session, producer)
        await assert_ends_at(session, gid, begun + 1010, "stalled")


async def test_a_call_that_is_still_being_written_does_not_stop_the_idle_clock(
    log: MemoryLog, autojump_clock: MockClock
) -> None:
    async def producer(generation: Generation) -> None:
        async with generation.message() as message, message.tool_call("a", "search") as call:
            await call.write('{"q": "')
            await FOREVER()

    async with open_engine(log, config=Config(idle_limit=10)) as engine:
        session = await engine.create_session("s")
        begun = trio.current_time()
        gid = await begin(session, producer)
        await assert_ends_at(session, gid, begun + 10, "stalled")


async def test_a_generation_at_work_expires_at_the_total_limit(log: MemoryLog, autojump_clock: MockClock) -> None:
    async def producer(generation: Generation) -> None:
        async with generation.message() as message, message.text() as block:
            while True:
                await block.write("x")
                await trio.sleep(7)

    async with open_engine(log, config=Config(idle_limit=10, total_limit=60)) as engine:
        session = await engine.create_session("s")
        await trio.sleep(5)
        begun = trio.current_time()
        gid = await begin(session, producer)
        await assert_ends_at(session, gid, begun + 60, "expired")
    end = finished(await of_generation(log, gid))
    assert (end.code, end.message) == ("EXPIRED", "It took too long.")


async def test_the_total_limit_does_not_wait_for_people(log: MemoryLog, autojump_clock: MockClock) -> None:
    async def producer(generation: Generation) -> None:
        await generation.approve("x")

    async with open_engine(log, config=Config(total_limit=60)) as engine:
        session = await engine.create_session("s")
        begun = trio.current_time()
        gid = await begin(session, producer)
        await assert_ends_at(session, gid, begun + 60, "expired")
    (resolved,) = data_of(await of_generation(log, gid), "approval.resolved")
    assert (resolved["approved"], resolved["reason"]) == (False, "expired")


async def test_without_limits_a_generation_goes_on(log: MemoryLog, autojump_clock: MockClock) -> None:
    async with open_engine(log, config=Config(idle_limit=math.inf)) as engine:
        session = await engine.create_session("s")
        gid = await begin(session, silent)
        await trio.sleep(24 * 3600)
        assert await end_of(session, gid) is None


async def test_a_producer_may_have_an_idle_limit_of_its_own(log: MemoryLog, autojump_clock: MockClock) -> None:
    limits = {"slow": 50.0, "endless": math.inf}
    producers = dict.fromkeys(("slow", "endless", "other"), silent)
    async with open_engine(log, producers=producers, config=Config(idle_limit=10, idle_limits=limits)) as engine:
        session = await engine.create_session("s")
        for name, seconds in (("slow", 50), ("other", 10)):
            begun = trio.current_time()
            await assert_ends_at(session, await begin(session, name), begun + seconds, "stalled")
        gid = await begin(session, "endless")
        await trio.sleep(24 * 3600)
        assert await end_of(session, gid) is None
        assert await end_of(session, await begin(session, saying("x"))) == "completed"
    for wrong in (0, -1, math.nan):
        with pytest.raises(ValueError, match="idle_limits"):
            Config(idle_limits={"slow": wrong})


async def test_a_start_may_have_an_idle_limit_of_its_own(log: MemoryLog, autojump_clock: MockClock) -> None:
    seen: list[float] = []

    async def producer(generation: Generation) -> None:
        seen.append(generation.idle_limit)
        await silent(generation)

    config = Config(idle_limit=10, idle_limits={"p": 20})
    async with open_engine(log, producers={"p": producer}, config=config) as engine:
        session = await engine.create_session("s")
        begun = trio.current_time()
        gid = await begin(session, "p", idle_limit=2.5)
        await assert_ends_at(session, gid, begun + 2.5, "stalled")
        assert finished(await of_generation(log, gid)).message == "Ended because nothing came for 2.5 s."
        endless = await begin(session, "p", idle_limit=math.inf)
        await trio.sleep(24 * 3600)
        assert await end_of(session, endless) is None
        begun = trio.current_time()
        await assert_ends_at(session, await begin(session, "p"), begun + 20, "stalled")
        assert seen == [2.5, math.inf, 20]
        for wrong in (0, -1, math.nan, -math.inf, -(10**400)):
            with pytest.raises(InvalidBody):
                await session.start("p", idle_limit=wrong)


async def test_a_start_that_waits_keeps_its_idle_limit_over_a_restart(
    log: MemoryLog, autojump_clock: MockClock
) -> None:
    async with open_engine(log, producers={"p": silent}) as engine:
        session = await engine.create_session("s")
        await begin(session, "p")
        first = await session.start("p", policy="queue", idle_limit=3)
        second = await session.start("p", policy="queue", idle_limit=math.inf)
    begun = trio.current_time()
    async with open_engine(log, producers={"p": silent}) as engine:
        session = await engine.session("s")
        await assert_ends_at(session, first.generation_id, begun + 3, "stalled")
        await trio.sleep(24 * 3600)
        assert (await session.generation(second.generation_id)).state == "live"


async def test_a_clean_up_that_overruns_a_limit_is_fenced(log: MemoryLog, autojump_clock: MockClock) -> None:
    stubborn = Steered(shield=60)
    async with open_engine(log, config=Config(idle_limit=10)) as engine:
        session = await engine.create_session("s")
        begun = trio.current_time()
        gid = await begin(session, stubborn)
        await assert_ends_at(session, gid, begun + 10 + 2, "stalled")
        assert finished(await of_generation(log, gid)).cleanup == "overran"
        assert engine.statistics().stragglers == 1
        await stubborn.over.wait()
    assert [type(error) for error in stubborn.errors] == [StaleGeneration]


async def test_a_generation_that_ends_at_its_limit_ends_once(log: MemoryLog, autojump_clock: MockClock) -> None:
    async def producer(generation: Generation) -> None:
        await trio.sleep(10)

    async with open_engine(log, config=Config(idle_limit=10, total_limit=10)) as engine:
        session = await engine.create_session("s")
        for _ in range(20):
            gid = await begin(session, producer)
            await trio.sleep(10)
            assert await end_of(session, gid) in ("completed", "expired")


async def test_a_limit_that_comes_behind_the_end_changes_nothing(
    log: MemoryLog, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    faulty = FaultyLog(log)
    async with open_engine(faulty, config=Config(idle_limit=10)) as engine:
        session = await engine.create_session("s")
        begun = trio.current_time()
        gid = await begin(session, silent)
        await trio.sleep_until(begun + 9)
        hold = Hold()
        faulty.schedule = lambda number, write: hold
        producer = Steered()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(session.update, {"n": 1})
            await wait_all_tasks_blocked()
            nursery.start_soon(session.stop)
            await wait_all_tasks_blocked()
            nursery.start_soon(session.start, producer)
            # The limit is reached while all of them wait, and finds another generation in its turn.
            await trio.sleep_until(begun + 11)
            assert (await session.generation(gid)).state == "live"
            hold.release()
            faulty.schedule = None
        await producer.started.wait()
        await trio.sleep(1)
        assert await end_of(session, gid) == "stopped"
        assert engine.statistics().live_generations == 1
        producer.finish.set()
        await wait_all_tasks_blocked()
    ends = [event.data for event in await events_of(log, "s") if event.type == "generation.finished"]
    assert [end.outcome for end in ends if isinstance(end, GenerationFinished)] == ["stopped", "completed"]
    assert caplog.messages == []


async def test_a_limit_reached_behind_the_producers_return_changes_nothing(
    log: MemoryLog, autojump_clock: MockClock
) -> None:
    faulty = FaultyLog(log)
    producer = Steered()
    async with open_engine(faulty, config=Config(idle_limit=3)) as engine:
        session = await engine.create_session("s")
        gid = await begin(session, producer)
        hold = Hold()
        faulty.schedule = lambda number, write: hold
        async with trio.open_nursery() as nursery:
            nursery.start_soon(session.update, {"n": 1})
            await trio.sleep(1)
            producer.finish.set()
            await producer.over.wait()
            await wait_all_tasks_blocked()
            assert watchdogs() == 0
            await trio.sleep(5)
            hold.release()
            faulty.schedule = None
        assert await end_of(session, gid) == "completed"


# --- nobody connected


async def chatting(generation: Generation) -> None:
    """Never idle."""
    while True:
        await generation.status("working")
        await trio.sleep(1)


async def test_disconnect_is_not_stop(log: MemoryLog, autojump_clock: MockClock) -> None:
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        gid = await begin(session, chatting)
        async with session.subscribe() as subscription:
            await subscription.receive()
        await trio.sleep(500)
        assert await end_of(session, gid) is None


#
async def test_with_nobody_there_it_stops_so_long_behind_the_start(log: MemoryLog, autojump_clock: MockClock) -> None:
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        await trio.sleep(100)
        begun = trio.current_time()
        gid = await begin(session, chatting, on_last_disconnect=30)
        await assert_ends_at(session, gid, begun + 30, "stopped")
    events = await of_generation(log, gid)
    assert data_of(events, "generation.cancelling") == [{"reason": "disconnected"}]
    assert finished(events).code == "STOPPED"


async def test_it_stops_so_long_behind_the_last_leave(log: MemoryLog, autojump_clock: MockClock) -> None:
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        async with session.subscribe():
            gid = await begin(session, chatting, on_last_disconnect=30)
            async with session.subscribe():
                await trio.sleep(100)
            await trio.sleep(100)
            assert await end_of(session, gid) is None
        left = trio.current_time()
        await trio.sleep(29)
        async with session.subscribe():
            await trio.sleep(50)
            assert await end_of(session, gid) is None
        left = trio.current_time()
        await assert_ends_at(session, gid, left + 30, "stopped")


#
async def test_who_left_before_the_start_counts_from_the_start(log: MemoryLog, autojump_clock: MockClock) -> None:
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        async with session.subscribe():
            await trio.sleep(1)
        await trio.sleep(25)
        begun = trio.current_time()
        gid = await begin(session, chatting, on_last_disconnect=30)
        await assert_ends_at(session, gid, begun + 30, "stopped")


async def test_zero_seconds_stop_at_the_very_leave(log: MemoryLog, autojump_clock: MockClock) -> None:
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        async with session.subscribe():
            gid = await begin(session, chatting, on_last_disconnect=0)
            await trio.sleep(50.5)
            assert await end_of(session, gid) is None
        assert await end_of(session, gid) == "stopped"
        assert await end_of(session, await begin(session, chatting, on_last_disconnect=0)) == "stopped"
        for wrong in (-1, math.nan, math.inf):
            with pytest.raises(InvalidBody):
                await session.start(chatting, on_last_disconnect=wrong)


async def test_a_stop_for_want_of_readers_pauses_the_queue(log: MemoryLog, autojump_clock: MockClock) -> None:
    async with open_engine(log, producers={"p": saying("x")}) as engine:
        session = await engine.create_session("s")
        gid = await begin(session, chatting, on_last_disconnect=30)
        queued = await session.start("p", policy="queue")
        assert isinstance(queued, Queued)
        await trio.sleep(31)
        assert await end_of(session, gid) == "stopped"
        assert (await session.snapshot()).queue.paused
        assert (await session.generation(queued.generation_id)).state == "queued"


async def test_a_stalled_generation_lets_the_queue_go_on(log: MemoryLog, autojump_clock: MockClock) -> None:
    async with open_engine(log, producers={"p": saying("x")}) as engine:
        session = await engine.create_session("s")
        gid = await begin(session, silent)
        queued = await session.start("p", policy="queue")
        await trio.sleep(121)
        assert await end_of(session, gid) == "stalled"
        assert await end_of(session, queued.generation_id) == "completed"


# --- the watchdog itself


def watchdogs() -> int:
    """How many watchdogs run now."""

    def below(task: trio.lowlevel.Task) -> int:
        children = [child for nursery in task.child_nurseries for child in nursery.child_tasks]
        return task.name.startswith("penstock watchdog") + sum(map(below, children))

    root = trio.lowlevel.current_root_task()
    assert root is not None
    return below(root)


async def test_the_watchdog_goes_with_its_generation(log: MemoryLog, autojump_clock: MockClock) -> None:
    async with open_engine(log, config=Config(idle_session=5)) as engine:
        session = await engine.create_session("s")
        producer = Steered()
        await begin(session, producer)
        assert watchdogs() == 1
        producer.finish.set()
        await wait_all_tasks_blocked()
        assert watchdogs() == 0
        # A straggler has none, nor does it keep one.
        stubborn = Steered(shield=50)
        await begin(session, stubborn)
        await session.stop()
        assert engine.statistics().stragglers == 1
        assert watchdogs() == 0
        await trio.sleep(120)
        assert engine.statistics().sessions == 0


# Whatever it raises, and wherever: the limits of all others hold at their time, its own a little later.
@pytest.mark.parametrize("where", ["attend", "limit_reached"])
@pytest.mark.parametrize(
    "raised",
    [
        ValueError("a bug"),
        ExceptionGroup("some", [KeyError("a"), ValueError("b")]),
        GeneratorExit(),
        asyncio.CancelledError(),
        RecursionError(),
    ],
    ids=repr,
)
async def test_a_look_that_raises_ends_neither_the_watchdog_nor_its_own_limit(
    log: MemoryLog, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, where: str, raised: BaseException
) -> None:
    failures = 3
    original = getattr(Run, where)

    def fail(run: Run, *arguments: object) -> None:
        nonlocal failures
        if run.generation_id == bad and failures:
            failures -= 1
            raise raised
        original(run, *arguments)

    async with open_engine(log) as engine:
        sessions = [await engine.create_session(name) for name in "abc"]
        begun = trio.current_time()
        first, bad, last = [await begin(session, silent) for session in sessions]
        monkeypatch.setattr(Run, where, fail)
        for session, gid in ((sessions[0], first), (sessions[2], last)):
            await trio.sleep_until(begun + 119.999)
            assert await end_of(session, gid) is None
        await trio.sleep_until(begun + 120.001)
        assert [await end_of(sessions[0], first), await end_of(sessions[2], last)] == ["stalled", "stalled"]
        assert await end_of(sessions[1], bad) is None
        await trio.sleep_until(begun + 130)
        assert (failures, await end_of(sessions[1], bad)) == (0, "stalled")
        # and it goes on with what begins later
        assert await end_of(sessions[0], await begin(sessions[0], silent)) is None
        await trio.sleep(121)
        assert (await sessions[0].snapshot()).generation is None


async def test_the_watchdog_keeps_neither_session_nor_engine_from_closing(
    log: MemoryLog, autojump_clock: MockClock
) -> None:
    begun = trio.current_time()
    async with open_engine(log) as engine:
        for name in ("a", "b"):
            await begin(await engine.create_session(name), chatting, on_last_disconnect=1e9)
        await (await engine.session("a")).delete()
        assert watchdogs() == 1
    assert trio.current_time() - begun < 1


async def test_whatever_is_written_keeps_it_alive(log: MemoryLog, autojump_clock: MockClock) -> None:
    async def producer(generation: Generation) -> None:
        mid = new_message_id()
        await trio.sleep(8)
        async with generation.message(message_id=mid):
            await trio.sleep(8)
        await trio.sleep(8)
        given = await generation.receive_input()
        await trio.sleep(8)
        await generation.apply(given)
        await FOREVER()

    async with open_engine(log, config=Config(idle_limit=10)) as engine:
        session = await engine.create_session("s")
        begun = trio.current_time()
        gid = await begin(session, producer)
        await trio.sleep_until(begun + 24)
        await session.input(gid, "steer", {})
        await assert_ends_at(session, gid, begun + 42, "stalled")


async def test_many_limits_in_one_moment_end_each_session_once(log: MemoryLog, autojump_clock: MockClock) -> None:
    async def run(engine: Engine, name: str) -> None:
        session = await engine.create_session(name)
        await session.start(silent)

    async with open_engine(log, config=Config(idle_limit=10)) as engine:
        async with trio.open_nursery() as nursery:
            for i in range(50):
                nursery.start_soon(run, engine, f"s{i}")
        await trio.sleep(11)
    for i in range(50):
        ends = [event.data for event in await events_of(log, f"s{i}") if event.type == "generation.finished"]
        assert [end.outcome for end in ends if isinstance(end, GenerationFinished)] == ["stalled"]
