"""A session's metadata while it is used: checked like a start's, seen by what runs and by what starts next."""

from __future__ import annotations

import re
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from penstock.engine import (
    Config,
    Generation,
    GenerationFinished,
    InvalidBody,
    MemoryLog,
    SessionUpdated,
    new_generation_id,
    open_engine,
)
from penstock.engine.session.stops import PendingStops
from tests.engine.producers import saying
from tests.engine.rules import events_of


#
async def test_an_update_reaches_what_runs_and_what_starts_next(log: MemoryLog, autojump_clock: MockClock) -> None:
    heard: list[object] = []
    changed = trio.Event()

    async def producer(generation: Generation) -> None:
        heard.append(dict((await generation.snapshot()).metadata))
        async with generation.message() as message, message.text() as block:
            await block.write("begun")
            await changed.wait()
        heard.append(dict((await generation.snapshot()).metadata))

    async with open_engine(log) as engine:
        session = await engine.create_session("s", metadata={"mode": "plan", "model": "m"})
        async with session.subscribe("now") as readers:
            await session.start(producer)
            await wait_all_tasks_blocked()
            await session.update({"mode": "build"})
            changed.set()
            await trio.sleep(1)
            await session.start(producer)
            await trio.sleep(1)
            assert heard == [{"mode": mode, "model": "m"} for mode in ("plan", "build", "build", "build")]
            async for event in readers:  # how a producer in another process hears of it
                if isinstance(event.data, SessionUpdated):
                    assert event.data.metadata == {"mode": "build", "model": "m"}
                    break


WRONG: list[Any] = [5, "x", [1], None, {"k": float("nan")}, {"k": object()}, {1: 2}, {"k": "\ud800"}]


#
@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: re.sub(" at 0x[0-9a-f]+", "", repr(wrong)))
async def test_an_update_is_checked_like_a_start(wrong: Any, log: MemoryLog, autojump_clock: MockClock) -> None:
    async with open_engine(log, producers={"say": saying("x")}) as engine:
        session = await engine.create_session("s", metadata={"a": 1})
        before = await session.cursor()
        with pytest.raises(InvalidBody):
            await session.update(wrong)
        if wrong is not None:
            with pytest.raises(InvalidBody):
                await session.start("say", metadata=wrong)
        assert await session.cursor() == before
        assert dict((await session.snapshot()).metadata) == {"a": 1}


#
async def test_stops_of_what_never_comes_are_bounded_and_forgotten(log: MemoryLog, autojump_clock: MockClock) -> None:
    stops = PendingStops(60.0)
    for _ in range(1000):
        stops.add(new_generation_id())
    assert 0 < len(stops) <= 64
    await trio.sleep(61)
    assert len(stops) == 0
    for waits, counts in ((59, True), (61, False)):
        gid = new_generation_id()
        stops.add(gid)
        await trio.sleep(waits)
        assert stops.take(gid) is counts
        assert not stops.take(gid), "it is told once"
    async with open_engine(log, config=Config(idle_session=1), producers={"say": saying("x")}) as engine:
        session = await engine.create_session("s")
        gid = new_generation_id()
        assert (await session.stop(gid)).state == "pending"
        await trio.sleep(300)
        assert engine.statistics().sessions == 0, "a stop that waits keeps no session in memory for ever"
        await session.start("say", generation_id=gid)
        await trio.sleep(1)
        assert (await session.generation(gid)).outcome == "completed"


class Died(BaseException):
    """What no producer raises on purpose."""


#
@pytest.mark.parametrize("error", [RuntimeError("gone"), Died()], ids=["an error", "a base exception"])
async def test_a_producer_that_dies_without_a_word_ends_at_once(
    error: BaseException, log: MemoryLog, autojump_clock: MockClock
) -> None:
    async def producer(generation: Generation) -> None:
        async with generation.message() as message, message.text() as block:
            await block.write("so far")
            await trio.sleep(1)
            raise error

    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        begun, outcome = trio.current_time(), None
        async with session.subscribe() as readers:
            await session.start(producer)
            async for event in readers:
                if isinstance(event.data, GenerationFinished):
                    outcome = event.data.outcome
                    break
        assert trio.current_time() == begun + 1
        assert outcome == "failed"
        types = [event.type for event in await events_of(log, "s")]
        assert types[-3:] == ["block.closed", "message.closed", "generation.finished"]
