"""One id, one message: whoever proposes it, and however their calls cross."""

from __future__ import annotations

import contextlib
from collections import Counter, deque
from random import Random

import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from penstock.engine import (
    Config,
    Generation,
    IdInUse,
    InvalidBody,
    MemoryLog,
    Session,
    new_message_id,
    open_engine,
)
from tests.engine.rules import assert_rules, events_of
from tests.engine.slow import SlowLog, turns
from tests.extent import examples

IDS = [new_message_id() for _ in range(2)]


async def made_of(log: SlowLog) -> Counter[str | None]:
    kinds = ("message.opened", "message.snapshot")
    return Counter(event.message_id for event in await events_of(log, "s") if event.type in kinds)


# R-11 R-61
@settings(max_examples=examples(150), deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 2**32))
def test_an_id_names_one_message_however_calls_cross(seed: int) -> None:
    random = Random(seed)
    answers: list[bool] = []

    async def post(session: Session, message_id: str, text: str) -> None:
        await turns(random.randrange(12))
        with contextlib.suppress(IdInUse):
            answers.append((await session.post(text, message_id=message_id)).created)

    async def producer(generation: Generation) -> None:
        for message_id in (*IDS, *IDS):
            await turns(random.randrange(8))
            with contextlib.suppress(IdInUse, InvalidBody):
                async with generation.message(message_id=message_id) as message, message.text() as block:
                    await block.write("x")

    async def run() -> None:
        log = SlowLog()
        async with open_engine(log, config=Config()) as engine:
            session = await engine.create_session("s")
            log.turns = deque(random.randrange(7) for _ in range(random.randrange(1, 9)))
            async with trio.open_nursery() as nursery:
                if random.random() < 0.7:
                    nursery.start_soon(session.start, producer)
                for _ in range(random.randrange(1, 8)):
                    nursery.start_soon(post, session, random.choice([*IDS, new_message_id()]), random.choice("aab"))
            await trio.sleep(1)
        log.turns = deque([0])
        made = await made_of(log)
        assert set(made.values()) == {1}, made
        await assert_rules(log, closed=True)

    trio.run(run, clock=MockClock(autojump_threshold=0))


# R-11 R-61
async def test_a_slow_look_for_an_id_does_not_miss_who_took_it_meanwhile(autojump_clock: MockClock) -> None:
    log = MemoryLog()
    get_record = log.record
    slow = True

    async def record(session_id: str, epoch: str, key: str) -> bytes | None:
        nonlocal slow
        held, slow = slow, False
        found = await get_record(session_id, epoch, key)
        if held:
            await trio.sleep(10)
        return found

    answers: list[bool] = []
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        log.record = record  # type: ignore[method-assign]

        async def post() -> None:
            answers.append((await session.post("hello", message_id=IDS[0])).created)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(post)
            await trio.sleep(1)
            await post()
            await session.post("another")
            await session.post("a third")
    assert answers == [True, False]
    await assert_rules(log, closed=True)
