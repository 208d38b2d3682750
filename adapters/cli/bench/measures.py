"""What ``penstock bench`` measures: the engine alone, and event streams from a server in a process of its own."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, final

import trio
from attrs import frozen

from penstock.engine import Config, Engine, Generation, open_engine

from .serving import Bench, serving
from .viewing import Delays, Viewed, Viewer, view

__all__ = ["Figure", "Written", "figures", "write_events"]

# About what a model sends at a time.
_TEXT: Final = "a few words of an answer "

_PATIENCE: Final = 60.0

# Events a second of one answer, as a fast model makes them.
_PACE: Final = 50

CAUGHT_UP: Final = b"event: caught-up"


@final
@frozen
class Figure:
    """One line of the report."""

    name: str
    value: float
    unit: str
    note: str = ""


@final
@frozen(kw_only=True)
class Written:
    """What came of `write_events`."""

    seconds: float  # from the first write until all is durable
    events_per_commit: float
    flushes: tuple[int, ...]  # nanoseconds


async def write_events(
    engine: Engine, sessions: int, count: int, text: str = _TEXT, *, flush_every: int | None = None
) -> Written:
    """Let ``sessions`` producers write ``count`` events each, all at once.

    Each flushes behind its last one, and with ``flush_every`` more often. The clock runs from when all of them stand
    ready.
    """
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
            for number in range(1, count + 1):
                await block.write(text)
                if number == count or (flush_every and number % flush_every == 0):
                    begun = time.monotonic_ns()
                    await generation.flush()
                    flushes.append(time.monotonic_ns() - begun)
            left -= 1
            if not left:
                done.set()
            await done.wait()  # what ends an answer is not what is measured

    handles = [await engine.create_session() for _ in range(sessions)]
    async with trio.open_nursery() as nursery:
        for handle in handles:
            nursery.start_soon(handle.start, writer)
    await ready.wait()
    before, begun = engine.statistics().log, time.perf_counter()
    go.set()
    await done.wait()
    seconds, after = time.perf_counter() - begun, engine.statistics().log
    per_commit = (after.events - before.events) / max(1, after.commits - before.commits)
    return Written(seconds=seconds, events_per_commit=per_commit, flushes=tuple(flushes))


def figures(folder: Path, events: int, viewers: int) -> Iterator[Figure]:
    """Measure one after the other, with files in ``folder``. Raises `BenchError`, `DatabaseError`, `TimeoutError`."""
    for sessions in (1, 100):
        seconds = trio.run(_written, folder / f"engine-{sessions}.db", sessions, events)
        yield Figure(f"durable events, {sessions} producers", events // sessions * sessions / seconds, "events/s")
    with serving(folder) as bench:
        idle = _delays(bench, events=200)
        yield Figure("written to received, SSE, half of all", idle.p50 * 1000, "ms")
        yield Figure("written to received, SSE, 99 of 100", idle.p99 * 1000, "ms")
        burst = _burst(bench, events, viewers)
        note = "the load client was the bound" if burst.cpu > 0.9 else ""
        rate = burst.received / max(burst.since_due, 1e-9)
        yield Figure(f"delivered to {viewers} viewers, SSE", rate, "events/s", note)


async def _written(db: Path, sessions: int, events: int) -> float:
    async with open_engine(db, config=Config()) as engine:
        return (await write_events(engine, sessions, events // sessions)).seconds


def _delays(bench: Bench, events: int) -> Delays:
    bench.create("delays")
    source = {"count": events, "rate": _PACE}
    return _viewed(bench, "delays", source, 1, events, stamps=True).transits


def _burst(bench: Bench, events: int, viewers: int) -> Viewed:
    bench.create("burst")
    return _viewed(bench, "burst", {"count": events}, viewers, events, stamps=False)


def _viewed(bench: Bench, session: str, source: dict[str, int], viewers: int, events: int, *, stamps: bool) -> Viewed:
    viewer = Viewer(sends=(bench.request(session),), expected=events, ready=CAUGHT_UP)
    viewed = view(
        bench.address,
        [viewer] * viewers,
        seconds=_PATIENCE,
        stamps=stamps,
        on_ready=lambda: bench.start(session, dict(source)),
    )
    if viewed.received < viewed.expected or viewed.extra:
        raise TimeoutError(f"{viewed.received} of {viewed.expected} events came, and {viewed.extra} too many")
    return viewed
