"""How long the engine holds its loop while one session is large, and what its neighbours feel; in a process of its own.

What a hold is, `holds` says.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import trio

from penstock.adapters.cli.process import tune_collector
from penstock.engine import Compactor, Config, Engine, Generation, Session, open_engine, open_sqlite
from tests.benchmarks.children import perform
from tests.benchmarks.holds import Holds
from tests.benchmarks.samples import Delays

__all__: list[str] = []

# Compaction makes a commit of every message: it is watched for so long, and holds no longer for all of them.
_COMPACTING: Final = 5.0

_VALUE: Final = "x" * (1024 * 1024)


async def _messages(generation: Generation, count: int) -> None:
    for _ in range(count):
        async with generation.message() as message, message.text() as block:
            await block.write("a word")


async def _blocks(generation: Generation, count: int) -> None:
    async with generation.message() as message:
        for _ in range(count):
            async with message.text() as block:
                await block.write("a word")


_SHAPES: Final = {"messages": _messages, "blocks": _blocks}


async def _answer(generation: Generation) -> None:
    await generation.status("here")


@asynccontextmanager
async def _opened(path: str) -> AsyncIterator[Engine]:
    """Without compaction, which is measured by itself."""
    async with open_engine(path, config=Config(compact_after=None, idle_session=3600, flush_timeout=600)) as engine:
        yield engine


async def large(shape: str, count: int, db: str) -> dict[str, float]:
    """One session of so many messages, or of a message with so many blocks: each of what may be done with all of it."""
    tune_collector()
    done = trio.Event()

    async def fill(generation: Generation) -> None:
        await _SHAPES[shape](generation, count)
        done.set()

    async with _opened(db) as engine:
        await (await engine.create_session("large")).start(fill)
        await done.wait()
    found: dict[str, float] = {}
    holds = Holds()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(holds.run)
        async with _opened(db) as engine:
            session = await engine.session("large")
            found["snapshotted"] = await holds.during(session.snapshot)
            found["paged"] = await holds.during(session.snapshot_page)
            found["forked"] = await holds.during(session.fork)
            first = (await session.snapshot()).messages[0].message_id
            found["replaced"] = await holds.during(lambda: session.start(_answer, replaces=first))
            found["read_behind"] = await holds.during(session.snapshot)
        found["compacted"] = await holds.during(lambda: _compact(db))
        nursery.cancel_scope.cancel()
    return found


async def _compact(path: str) -> None:
    log = await open_sqlite(path)
    try:
        with trio.move_on_after(_COMPACTING):
            await Compactor(log, Config(compact_after=0)).compact_all()
    finally:
        await log.aclose()


async def neighbour(db: str, probes: int, rate: float, settling: float) -> dict[str, float]:
    """From a session's write to its commit: alone, beside one that writes all the time, and beside 1 MiB values."""

    async def firehose(generation: Generation) -> None:
        async with generation.message() as message, message.text() as block:
            while True:
                await block.write("a few words of an answer ")

    async def values(generation: Generation) -> None:
        async with generation.message() as message, message.data() as data:
            while True:
                await data.put(_VALUE)

    tune_collector()
    found: dict[str, float] = {}
    for name, beside in (("alone", None), ("firehose", firehose), ("values", values)):
        async with _opened(f"{db}-{name}") as engine:
            loud = await engine.create_session("loud")
            if beside is not None:
                await loud.start(beside)
                await trio.sleep(settling)
            delays = Delays.of(await _probes(await engine.create_session("quiet"), probes, rate))
            found |= {f"{name}.p50": delays.p50, f"{name}.p99": delays.p99}
            await loud.stop()
    return found


async def _probes(session: Session, count: int, rate: float) -> list[int]:
    """Nanoseconds from a word's write to its being durable."""
    taken: list[int] = []
    done = trio.Event()

    async def probing(generation: Generation) -> None:
        async with generation.message() as message, message.text() as block:
            for _ in range(count):
                await trio.sleep(1 / rate)
                begun = time.monotonic_ns()
                await block.write("a word")
                await generation.flush()
                taken.append(time.monotonic_ns() - begun)
        done.set()

    await session.start(probing)
    await done.wait()
    return taken


if __name__ == "__main__":
    perform(large, neighbour)
