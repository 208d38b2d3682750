"""What the engine does by itself: old answers are compacted, sessions past their age are deleted."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from penstock.engine import Config, Engine, MemoryLog, SessionDeleted, SessionState, open_engine
from penstock.engine.testing import assert_log
from tests.engine.producers import Steered, saying
from tests.engine.rules import events_of


async def test_old_answers_are_compacted_while_the_engine_runs(autojump_clock: MockClock) -> None:
    log = MemoryLog()
    async with open_engine(log, config=Config(compact_after=0)) as engine:
        session = await engine.create_session("s")
        await session.start(saying(*"abcdefgh"), text="go")
        before = (await session.snapshot()).cursor
        await trio.sleep(200)
        events = await events_of(log, "s")
        assert not [event for event in events if event.type.startswith("block.")]
        assert_log(events, compacted=True, closed=True)
        state = SessionState("s", before.epoch)
        for event in events:
            state.apply(event)
        assert state.snapshot() == await session.snapshot()
        assert [message.blocks[0].text for message in state.snapshot().messages] == ["go", "abcdefgh"]
        async with session.subscribe(before, live=False) as subscription:
            late = [event async for event in subscription]
        assert [event.type for event in late][-3:] == ["message.snapshot", "message.closed", "generation.finished"]


async def used_until_it_is_gone(engine: Engine) -> None:
    while True:
        await engine.session("old")
        await trio.sleep(0.01)


#
async def test_sessions_past_their_age_are_deleted_unless_they_are_in_use(autojump_clock: MockClock) -> None:
    async with open_engine(MemoryLog(), config=Config(session_max_age=0.001)) as engine:
        busy = await engine.create_session("busy")
        producer = Steered()
        await busy.start(producer)
        await engine.create_session("old")
        with trio.fail_after(3600), pytest.raises(SessionDeleted):
            await used_until_it_is_gone(engine)
        assert (await busy.stop()).state == "stopped"
