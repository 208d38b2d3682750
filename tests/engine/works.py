"""Whether everything works: a session answers, can be read, followed, forked and compacted, and outlives a restart."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

import trio

from penstock.engine import (
    Compactor,
    Config,
    Engine,
    EventLog,
    Gap,
    Session,
    SessionState,
    Snapshot,
    decode_json,
    encode_json,
    open_engine,
)
from penstock.engine.testing import check_session
from tests.engine.calls import PRODUCERS

__all__ = ["CONFIG", "all_of", "assert_answers", "assert_log_works", "assert_works", "each", "ended", "opened"]

CONFIG = Config(cleanup_timeout=0.5, compact_after=None)

# Sessions that are looked at side by side: enough for a log on a disk to commit them together.
_WIDTH = 24


@asynccontextmanager
async def opened(log: EventLog) -> AsyncIterator[Engine]:
    async with open_engine(log, producers=PRODUCERS, config=CONFIG) as engine:
        yield engine


async def each(work: Callable[[Any], Any], subjects: Any) -> None:
    """All of them, some at a time."""
    limit = trio.CapacityLimiter(_WIDTH)

    async def one(subject: Any) -> None:
        async with limit:
            await work(subject)

    async with trio.open_nursery() as nursery:
        for subject in subjects:
            nursery.start_soon(one, subject)


async def ended(session: Session, generation_id: str) -> str | None:
    async with session.subscribe() as events:
        async for event in events:
            if event.type == "generation.finished" and event.generation_id == generation_id:
                break
    return (await session.generation(generation_id)).outcome


async def assert_answers(engine: Engine, session_id: str) -> None:
    """It goes on in this process, whatever the call left in memory."""
    session = await engine.session(session_id)
    await session.stop(queue="clear")
    started = await session.start("say", text="once more", policy="supersede")
    assert await ended(session, started.generation_id) == "completed"
    assert (await session.snapshot()).messages[-1].blocks[0].text == "said"


async def assert_works(engine: Engine, session_id: str) -> None:
    """It can be read, followed, forked, and answers."""
    session = await engine.session(session_id)
    await session.stop(queue="clear")
    snapshot = await session.snapshot()
    shown = Snapshot.from_json(decode_json(encode_json(snapshot.to_json())))
    assert shown.messages == snapshot.messages
    state = SessionState(session_id, snapshot.cursor.epoch)
    async with session.subscribe(live=False) as events:
        async for event in events:
            assert not isinstance(state.apply(event), Gap)
    assert state.snapshot().messages == snapshot.messages
    assert state.snapshot().metadata == snapshot.metadata
    fork = await session.fork()
    assert len((await fork.snapshot()).messages) == len(snapshot.messages)
    await assert_answers(engine, session_id)


async def assert_log_works(log: EventLog, ids: Iterable[str]) -> None:
    """Of these sessions, what the log says: in the next process, and in the one behind a compaction."""
    async with opened(log) as engine:
        await each(lambda session_id: assert_works(engine, session_id), ids)
    await Compactor(log, Config(compact_after=0.001), wall=lambda: 4e9).compact_all()
    async with opened(log) as engine:
        await each(lambda session_id: assert_works(engine, session_id), ids)
    for session_id in ids:
        head = await log.head(session_id)
        assert head is not None
        assert (await check_session(log, head)).violations == ()


async def all_of(engine: Engine) -> list[str]:
    return [info.session_id for info in await engine.sessions(limit=10_000)]
