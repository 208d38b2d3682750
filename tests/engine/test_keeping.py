"""What a session costs while it is only kept: no task of its own, and nothing that turns round."""

from __future__ import annotations

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from penstock.engine import Config, Generation, MemoryLog, open_engine
from tests.engine.producers import Steered, saying


async def silent(generation: Generation) -> None:
    await trio.sleep_forever()


async def tasks() -> int:
    await wait_all_tasks_blocked()
    return trio.lowlevel.current_statistics().tasks_living


async def test_a_session_at_rest_has_no_task_and_a_live_one_has_its_producers(log: MemoryLog) -> None:
    async with open_engine(log) as engine:
        before = await tasks()
        sessions = [await engine.create_session(f"s{number}") for number in range(10)]
        assert await tasks() == before
        for session in sessions:
            await session.start(silent)
        assert await tasks() == before + 2 * len(sessions) + 1  # its own, its producer's, and one watchdog for all
        for session in sessions:
            await session.stop()
        assert await tasks() == before


async def test_sessions_leave_one_by_one_each_after_its_own_last_step(
    log: MemoryLog, autojump_clock: MockClock
) -> None:
    async with open_engine(log, config=Config(idle_session=10)) as engine:
        await engine.create_session("first")
        await trio.sleep(4)
        second = await engine.create_session("second")
        await trio.sleep(4)
        await second.update({"n": 1})
        await trio.sleep(1.9)
        assert engine.statistics().sessions == 2
        await trio.sleep(0.2)
        assert engine.statistics().sessions == 1
        await trio.sleep(7.8)
        assert engine.statistics().sessions == 1
        await trio.sleep(0.2)
        assert engine.statistics().sessions == 0


async def test_a_queue_that_a_drain_leaves_waiting_is_not_tried_again_and_again(
    log: MemoryLog, autojump_clock: MockClock
) -> None:
    """It stays for the next process; this one must not turn round and round until it has closed."""
    stubborn = Steered(shield=2)
    async with open_engine(log, producers={"later": saying("x")}) as engine:
        session = await engine.create_session("s")
        await session.start(stubborn)
        await session.start("later", policy="queue")
        await engine.drain()
        before = await tasks()  # comes back only when nothing runs
        assert await tasks() == before
    async with open_engine(log, producers={"later": saying("x")}) as engine:
        session = await engine.session("s")
        await wait_all_tasks_blocked()
        assert (await session.snapshot()).messages[-1].blocks[0].text == "x"


async def test_all_who_wait_for_one_generation_hear_of_it(log: MemoryLog, autojump_clock: MockClock) -> None:
    async with open_engine(log) as engine, trio.open_nursery() as nursery:
        session = await engine.create_session("s")
        started = await session.start("remote")
        live = (await engine.resident(session.session_id)).core.live
        assert live is not None
        told: list[str] = []

        async def wait_fenced() -> None:
            told.append((await session.wait_fenced(started.generation_id)).code)

        async def wait_done() -> None:
            await live.wait_done()
            told.append("done")

        for wait in (wait_fenced, wait_fenced, wait_done, wait_done):
            nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        assert not told
        await session.stop()
        await wait_all_tasks_blocked()
        assert sorted(told) == ["STALE_GENERATION"] * 2 + ["done"] * 2
