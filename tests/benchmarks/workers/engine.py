"""The engine embedded, in a process of its own: what it writes, replays and holds, without a server around it.

Takes ``{"task": …}`` and its arguments as JSON, prints one line of figures.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

import trio

from penstock.adapters.cli.bench.measures import Written, write_events
from penstock.adapters.cli.bench.sources import source
from penstock.adapters.cli.bench.viewing import Delays
from penstock.engine import Batch, Config, Generation, Session, open_engine

__all__: list[str] = []

_FLUSH_EVERY: Final = 100

_T = TypeVar("_T")
_R = TypeVar("_R")


async def _write(given: Mapping[str, Any]) -> dict[str, float]:
    """``events`` over ``sessions`` producers, all at once, through `Block.write`."""
    written = await _written(given, None)
    return {"events_per_s": _total(given) / written.seconds, "events_per_commit": written.events_per_commit}


async def _flush(given: Mapping[str, Any]) -> dict[str, float]:
    """The same, with a flush after every so many events: how long one takes."""
    written = await _written(given, _FLUSH_EVERY)
    return {"events_per_s": _total(given) / written.seconds, "flush_p99": Delays.of(written.flushes).p99}


async def _written(given: Mapping[str, Any], flush_every: int | None) -> Written:
    async with open_engine(given["db"]) as engine:
        each = given["events"] // given["sessions"]
        return await write_events(engine, given["sessions"], each, "x" * given["size"], flush_every=flush_every)


def _total(given: Mapping[str, Any]) -> int:
    """So many as can be shared out evenly."""
    return int(given["events"] // given["sessions"] * given["sessions"])


async def _fill(given: Mapping[str, Any]) -> dict[str, float]:
    """One session per length in ``lengths``, with so many events of one answer; what each event took to append."""
    found: dict[str, float] = {}
    async with open_engine(given["db"], producers={"source": source}) as engine:
        for length in given["lengths"]:
            session = await engine.create_session(f"log-{length}")
            begun = time.perf_counter()
            async with session.subscribe("now") as reader:
                await session.start("source", input={"count": length, "size": given["size"]})
                await _finished(reader.receive)
            found[f"append_s[{length}]"] = time.perf_counter() - begun
            found[f"tail[{length}]"] = (await session.cursor()).offset
    return found


async def _finished(receive: Callable[[], Awaitable[object]]) -> None:
    while True:
        delivery = await receive()
        if isinstance(delivery, Batch) and b"generation.finished" in delivery.entries[-1].body:
            return


async def _replay(given: Mapping[str, Any]) -> dict[str, float]:
    """Read a stored session from its start: as stored, and as events."""
    async with open_engine(given["db"]) as engine:
        session = await engine.session(given["session"])
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


async def _live(given: Mapping[str, Any]) -> dict[str, float]:
    """Bytes per session in memory: with nothing running, and with a generation that is live and says nothing."""

    async def silent(_: Generation) -> None:
        await trio.sleep_forever()

    async def start(session: Session) -> None:
        await session.start(silent)

    names = [f"session-{number}" for number in range(given["sessions"])]
    async with open_engine(given["db"], config=Config(idle_limit=3600.0, idle_session=3600.0)) as engine:
        for number in range(min(100, len(names))):  # what is made once is made before
            await start(await engine.create_session(f"first-{number}"))
        before = _resident()
        sessions = await _each(names, engine.create_session)
        idle = _resident()
        await _each(sessions, start)
        live = _resident()
    return {"idle_bytes": (idle - before) / len(names), "live_bytes": (live - before) / len(names)}


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


async def _evicted(given: Mapping[str, Any]) -> dict[str, float]:
    """Bytes per session that has left memory: of the last two fifths, when all caches have what they keep.

    SQLite's page cache, 16 MiB, is full behind some 60 000 sessions; what it takes until then is not a session's.
    """
    fifth = given["sessions"] // 5
    sizes: list[int] = []
    async with open_engine(given["db"], config=Config(idle_session=0.01)) as engine:
        for part in range(5):
            await _each([f"session-{part}-{number}" for number in range(fifth)], engine.create_session)
            with trio.fail_after(60):
                while engine.statistics().sessions:  # noqa: ASYNC110  nobody tells of it
                    await trio.sleep(0.02)
            sizes.append(_resident())
    return {"evicted_bytes": (sizes[-1] - sizes[-3]) / (2 * fifth)}


def _resident() -> int:
    """The memory that this process holds, without what is garbage."""
    import ctypes
    import gc
    import os

    from tests.benchmarks.children import resident_bytes

    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return resident_bytes(os.getpid())


_TASKS: Final[dict[str, Callable[[Mapping[str, Any]], Awaitable[dict[str, float]]]]] = {
    "write": _write,
    "flush": _flush,
    "fill": _fill,
    "replay": _replay,
    "live": _live,
    "evicted": _evicted,
}


async def _main() -> None:
    given = json.load(sys.stdin)
    print(json.dumps(await _TASKS[given["task"]](given)), flush=True)  # noqa: T201  the pipe to the harness


if __name__ == "__main__":
    trio.run(_main)
