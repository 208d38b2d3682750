"""The lease of a producer in another process: its silence is told, its death is noticed, at their exact times."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock

from penstock.engine import (
    Chunk,
    GenerationFinished,
    GenerationMismatch,
    GenerationNotFound,
    GenerationStatus,
    InvalidBody,
    MemoryLog,
    ProducerStamp,
    SequenceGap,
    Session,
    StaleGeneration,
    new_generation_id,
    new_message_id,
    open_engine,
)
from tests.engine.producers import Steered
from tests.engine.rules import events_of

#


def chunk(generation_id: str, text: str = "x", message_id: str | None = None) -> Chunk:
    return Chunk(generation_id=generation_id, message_id=message_id, data={"text": text})


async def begin(session: Session, lease: float | None = 10.0) -> str:
    gid = new_generation_id()
    await session.chunks([chunk(gid)], lease=lease)
    return gid


async def told(log: MemoryLog) -> list[str]:
    """Statuses and outcomes, in their order."""
    return [
        event.data.status if isinstance(event.data, GenerationStatus) else event.data.outcome
        for event in await events_of(log, "s")
        if isinstance(event.data, GenerationStatus | GenerationFinished)
    ]


# R-146 R-151
async def test_silence_is_told_and_then_the_generation_is_lost(log: MemoryLog, autojump_clock: MockClock) -> None:
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        gid = await begin(session)
        await trio.sleep(9.99)
        assert await told(log) == []
        await trio.sleep(0.02)
        assert await told(log) == ["producer-silent"]
        await trio.sleep(9.97)
        assert (await session.generation(gid)).state == "live"
        await trio.sleep(0.03)
        assert await told(log) == ["producer-silent", "lost"]
        (message,) = (await session.snapshot()).messages
        assert (message.status, message.blocks[0].text) == ("failed", "x")
        with pytest.raises(StaleGeneration):
            await session.chunks([chunk(gid)])
        with pytest.raises(StaleGeneration):
            await session.keep(gid)


#
@pytest.mark.parametrize("how", ["chunk", "keep", "keep what is live", "repeated", "refused"])
async def test_any_request_is_a_sign_of_life(how: str, log: MemoryLog, autojump_clock: MockClock) -> None:
    """Far past the idle limit, which a lease stands in place of."""
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        gid, mid = new_generation_id(), new_message_id()
        stamp = ProducerStamp("p", 0, 0)
        await session.chunks([chunk(gid, message_id=mid)], stamp=stamp, lease=10)
        for _ in range(100):
            await trio.sleep(9.9)
            match how:
                case "chunk":
                    await session.chunks([chunk(gid)])
                case "keep":
                    await session.keep(gid)
                case "keep what is live":
                    await session.keep()
                case "repeated":
                    assert (await session.chunks([chunk(gid, message_id=mid)], stamp=stamp)).accepted == 0
                case _:
                    with pytest.raises(SequenceGap):
                        await session.chunks([chunk(gid)], stamp=ProducerStamp("p", 0, 7))
        assert await told(log) == []
        await session.finish(gid)
        assert await told(log) == ["completed"]


#
@pytest.mark.parametrize("how", ["chunk", "keep"])
async def test_who_is_heard_again_is_said_to_work(how: str, log: MemoryLog, autojump_clock: MockClock) -> None:
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        gid = await begin(session)
        for _ in range(3):
            await trio.sleep(15)
            await (session.chunks([chunk(gid)]) if how == "chunk" else session.keep(gid))
        assert await told(log) == ["producer-silent", "working"] * 3
        await trio.sleep(100)
        assert await told(log) == [*["producer-silent", "working"] * 3, "producer-silent", "lost"]


#
async def test_without_a_lease_the_idle_limit_stays(log: MemoryLog, autojump_clock: MockClock) -> None:
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        gid = await begin(session, None)
        with pytest.raises(InvalidBody):
            await session.keep(gid)
        await trio.sleep(119.9)
        assert await told(log) == []
        await trio.sleep(0.2)
        assert await told(log) == ["stalled"]


async def test_a_lease_may_become_shorter_and_longer(log: MemoryLog, autojump_clock: MockClock) -> None:
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        gid = await begin(session, 1000)
        await session.keep(gid, lease=5)
        await trio.sleep(5.01)
        assert await told(log) == ["producer-silent"]
        await session.chunks([chunk(gid)], lease=1000)
        await trio.sleep(999)
        assert await told(log) == ["producer-silent", "working"]


async def test_an_open_approval_does_not_keep_a_dead_producer(log: MemoryLog, autojump_clock: MockClock) -> None:
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        gid = await begin(session)
        ask = Chunk(generation_id=gid, type="approval.requested", data={"approval_id": "a", "name": "rm"})
        await session.chunks([ask])
        await trio.sleep(25)
        assert await told(log) == ["producer-silent", "lost"]


async def test_a_restart_forgets_the_lease_and_the_next_request_brings_it(autojump_clock: MockClock) -> None:
    log = MemoryLog()
    async with open_engine(log) as engine:
        gid = await begin(await engine.create_session("s"))
    async with open_engine(log) as engine:
        session = await engine.session("s")
        await trio.sleep(60)
        assert await told(log) == []
        await session.keep(gid, lease=10)
        await trio.sleep(20.1)
        assert await told(log) == ["producer-silent", "lost"]


async def test_a_sign_of_life_counts_like_a_request(log: MemoryLog, autojump_clock: MockClock) -> None:
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        gid = new_generation_id()
        await session.chunks([chunk(gid)], stamp=ProducerStamp("p", 0, 0), lease=10)
        for _ in range(2):  # the second is a repetition
            kept = await session.keep(gid, stamp=ProducerStamp("p", 0, 1))
            assert (kept.generation_id, kept.accepted) == (gid, 0)
        await session.chunks([chunk(gid)], stamp=ProducerStamp("p", 0, 2))
        with pytest.raises(SequenceGap):
            await session.keep(gid, stamp=ProducerStamp("p", 0, 9))


async def test_nobody_keeps_what_is_not_theirs(log: MemoryLog, autojump_clock: MockClock) -> None:
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        with pytest.raises(InvalidBody):
            await session.keep()
        with pytest.raises(GenerationNotFound):
            await session.keep(new_generation_id(), lease=10)
        started = await session.start(Steered())
        with pytest.raises(GenerationNotFound):
            await session.keep(lease=10)
        with pytest.raises(GenerationMismatch):
            await session.keep(started.generation_id, lease=10)
        first = await session.start("remote")
        await session.keep(first.generation_id, lease=10)
        await session.start("remote")
        with pytest.raises(StaleGeneration):
            await session.keep(first.generation_id)


WRONG: list[Any] = [0, -1, float("nan"), float("inf"), 86_401, "10", True, [10], 10**400]


@pytest.mark.parametrize("lease", WRONG, ids=repr)
async def test_what_is_no_time_is_no_lease(lease: Any, log: MemoryLog, autojump_clock: MockClock) -> None:
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        gid = new_generation_id()
        with pytest.raises(InvalidBody):
            await session.chunks([chunk(gid)], lease=lease)
        with pytest.raises(GenerationNotFound):
            await session.generation(gid)
        await session.chunks([chunk(gid)])
        with pytest.raises(InvalidBody):
            await session.keep(gid, lease=lease)
