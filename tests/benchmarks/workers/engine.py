"""The engine embedded, in a process of its own: what it writes, replays and holds, without a server around it.

Each task is a function that returns figures.
"""

from __future__ import annotations

import ctypes
import gc
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import trio

from penstock.engine import Batch, Compactor, Config, Generation, Session, open_engine
from penstock.engine.log import open_log
from tests.benchmarks.children import perform, resident_bytes
from tests.benchmarks.samples import Delays
from tests.benchmarks.sources import source

__all__: list[str] = []

_T = TypeVar("_T")
_R = TypeVar("_R")


async def write(db: str, events: int, sessions: int, size: int, flush_every: int = 0) -> dict[str, float]:
    """Let ``sessions`` producers write ``events`` in all, all at once, each as many as the others.

    Each flushes behind its last one, and with ``flush_every`` more often. The clock runs from when all of them stand
    ready.
    """
    each, text = events // sessions, "x" * size
    ready, go, done = trio.Event(), trio.Event(), trio.Event()
    waiting = left = sessions
    flushes: list[int] = []

    async def writer(generation: Generation) -> None:
        nonlocal waiting, left
        async with generation.message() as message, message.text() as block:
            await generation.flush()
            waiting -= 1
            if not waiting:
                ready.set()
            await go.wait()
            for number in range(1, each + 1):
                await block.write(text)
                if number == each or (flush_every and number % flush_every == 0):
                    begun = time.monotonic_ns()
                    await generation.flush()
                    flushes.append(time.monotonic_ns() - begun)
            left -= 1
            if not left:
                done.set()
            await done.wait()  # what ends an answer is not what is measured

    async with open_engine(db) as engine:
        handles = [await engine.create_session() for _ in range(sessions)]
        async with trio.open_nursery() as nursery:
            for handle in handles:
                nursery.start_soon(handle.start, writer)
        await ready.wait()
        before, begun = engine.statistics().log, time.perf_counter()
        go.set()
        await done.wait()
        seconds, after = time.perf_counter() - begun, engine.statistics().log
    return {
        "events_per_s": each * sessions / seconds,
        "events_per_commit": (after.events - before.events) / max(1, after.commits - before.commits),
        "flush_p99": Delays.of(flushes).p99,
    }


async def compact(db: str) -> dict[str, float]:
    """Compact all that is closed; the messages of which something went, and the seconds."""
    log = await open_log(db)
    try:
        begun = time.perf_counter()
        done = await Compactor(log, Config(compact_after=0)).compact_all()
        return {"messages": done.messages, "seconds": time.perf_counter() - begun}
    finally:
        await log.aclose()


async def fill(db: str, lengths: list[int], size: int) -> dict[str, float]:
    """One session for each length, with so many events of one answer; the seconds it took to append them."""
    found: dict[str, float] = {}
    async with open_engine(db, producers={"source": source}) as engine:
        for length in lengths:
            session = await engine.create_session(f"log-{length}")
            begun = time.perf_counter()
            async with session.subscribe("now") as reader:
                await session.start("source", input={"count": length, "size": size})
                await _finished(reader.receive)
            found[f"append_s[{length}]"] = time.perf_counter() - begun
    return found


async def _finished(receive: Callable[[], Awaitable[object]]) -> None:
    while True:
        delivery = await receive()
        if isinstance(delivery, Batch) and b"generation.finished" in delivery.entries[-1].body:
            return


async def replay(db: str, session_id: str) -> dict[str, float]:
    """Read a stored session from its start: as stored, and as events."""
    async with open_engine(db) as engine:
        session = await engine.session(session_id)
        begun, count = time.perf_counter(), 0
        async with session.subscribe(live=False) as reader:
            try:
                while True:
                    delivery = await reader.receive()
                    count += len(delivery) if isinstance(delivery, Batch) else 0
            except trio.EndOfChannel:
                pass
        stored = time.perf_counter() - begun
        begun, decoded = time.perf_counter(), 0
        async with session.subscribe(live=False) as reader:
            async for _ in reader:
                decoded += 1
        events = time.perf_counter() - begun
    if count != decoded:
        raise AssertionError(f"{count} events as stored, {decoded} decoded")
    return {"stored_per_s": count / stored, "events_per_s": decoded / events}


async def live(db: str, sessions: int) -> dict[str, float]:
    """Bytes per session in memory: with nothing running, and with a generation that is live and says nothing."""

    async def silent(_: Generation) -> None:
        await trio.sleep_forever()

    async def start(session: Session) -> None:
        await session.start(silent)

    names = [f"session-{number}" for number in range(sessions)]
    async with open_engine(db, config=Config(idle_limit=3600.0, idle_session=3600.0)) as engine:
        for number in range(min(100, sessions)):  # what is made once is made before
            await start(await engine.create_session(f"first-{number}"))
        before = _resident()
        made = await _each(names, engine.create_session)
        idle = _resident()
        await _each(made, start)
        started = _resident()
    return {"idle_bytes": (idle - before) / sessions, "live_bytes": (started - before) / sessions}


async def _each(given: Sequence[_T], work: Callable[[_T], Awaitable[_R]]) -> list[_R]:
    """What ``work`` makes of each, 64 at a time."""
    found: list[_R] = []
    limit = trio.CapacityLimiter(64)

    async def one(item: _T) -> None:
        async with limit:
            found.append(await work(item))

    async with trio.open_nursery() as nursery:
        for item in given:
            nursery.start_soon(one, item)
    return found


async def evicted(db: str, sessions: int) -> dict[str, float]:
    """Bytes per session that has left memory: of the last two fifths, when all caches have what they keep.

    SQLite's page cache, 16 MiB, is full behind some 60 000 sessions; what it takes until then is not a session's.
    """
    fifth = sessions // 5
    sizes: list[int] = []
    async with open_engine(db, config=Config(idle_session=0.01)) as engine:
        for part in range(5):
            await _each([f"session-{part}-{number}" for number in range(fifth)], engine.create_session)
            with trio.fail_after(60):
                while engine.statistics().sessions:  # noqa: ASYNC110  nobody tells of it
                    await trio.sleep(0.02)
            sizes.append(_resident())
    return {"evicted_bytes": (sizes[-1] - sizes[-3]) / (2 * fifth)}


def _resident() -> int:
    """The memory that this process holds, without what is garbage."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return resident_bytes(os.getpid())


if __name__ == "__main__":
    perform(write, compact, fill, replay, live, evicted)
