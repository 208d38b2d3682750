"""B4: from an event's being written to its being received, with nothing else going on and at half of what is held."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack

from tests.benchmarks.bench import Bench, Context, Incomplete, Measuring
from tests.benchmarks.children import work
from tests.benchmarks.measures.b3_paced import RATE
from tests.benchmarks.measures.reading import MILLI, complete, paced
from tests.benchmarks.peers.install import Peers
from tests.benchmarks.samples import Cell
from tests.benchmarks.systems.base import Open, Server
from tests.benchmarks.systems.peers import durable_streams, raw_trio, redis_streams, uvicorn
from tests.benchmarks.systems.penstock import Penstock, open_penstock
from tests.benchmarks.viewers import Viewed, watch
from tests.benchmarks.writers import Order, writer

__all__ = ["b4"]

# Without B3 in the same run: what half of a small server's load is, in steps.
_HALF = 4

# The load goes on behind the last probe: it takes the probes so long to begin.
_SPARE = 4.0


def _transits(viewed: Viewed, name: str) -> dict[str, float]:
    complete(viewed)
    return {f"{name}.p50_ms": viewed.transits.p50 * MILLI, f"{name}.p99_ms": viewed.transits.p99 * MILLI}


def _probe(context: Context, server: Server, name: str) -> dict[str, float]:
    viewed = paced(context, server, [name], rate=context.sizes.probe_rate, count=context.sizes.probes)
    return _transits(viewed, name)


def _loaded(context: Context, system: str, server: Server) -> dict[str, float]:
    """The same beside half as many paced sessions as B3 found that the system holds."""
    sizes = context.sizes
    most = context.run.spread(Cell("B3", system, "sessions"))
    load = round(most.median / 2) if most and most.median else _HALF * sizes.step
    seconds = sizes.settling + sizes.probes / sizes.probe_rate + _SPARE
    found: list[Viewed] = []
    failed: list[Exception] = []
    folder = context.folder / "load"
    folder.mkdir()

    def run() -> None:
        names = [f"load-{number}" for number in range(load)]
        try:
            found.append(paced(context.within(folder), server, names, rate=RATE, count=round(RATE * seconds)))
        except Exception as error:  # noqa: BLE001  # told in the other thread
            failed.append(error)

    background = threading.Thread(target=run)
    background.start()
    time.sleep(sizes.settling + 1.0 + 0.006 * load)
    try:
        probes = _probe(context, server, "half")
    finally:
        background.join()
    if failed:
        raise Incomplete(f"the load beside the probes failed: {failed[0]}")
    return {**probes, "half.sessions": float(load), "half.load_p99_ms": found[0].delays.p99 * MILLI}


def _chunks(context: Context, server: Penstock) -> dict[str, float]:
    """Written by a producer in another process, one request an event: what Durable Streams' figure is, too."""
    server.create(["chunks"])
    count, rate = context.sizes.probes, context.sizes.probe_rate
    order = Order(
        kind="penstock",
        address=server.address,
        streams=("chunks",),
        connections=1,
        batch=1,
        size=context.sizes.text,
        count=count,
        rate=rate,
    )
    with ExitStack() as stack:
        viewed = watch(
            context.folder,
            server.address,
            [server.viewer("chunks", count)],
            seconds=30 + count / rate,
            stamps=True,
            on_ready=lambda: stack.enter_context(writer(context.folder, order)),
        )
    return _transits(viewed, "chunks")


def _measure(system: str, opened: Open, *, loaded: bool) -> Measuring:
    def measure(context: Context) -> dict[str, float]:
        with opened(context.folder) as server:
            found = _probe(context, server, "idle")
            if isinstance(server, Penstock):
                found |= _chunks(context, server)
        if loaded:
            for database in context.folder.glob("bench.db*"):
                database.unlink()
            with opened(context.folder) as server:
                found |= _loaded(context, system, server)
        return found

    return measure


def _disk(context: Context) -> dict[str, float]:
    """At the pace of the probes, for the rules; and back to back."""
    probes, rate = context.sizes.probes, context.sizes.probe_rate
    figures = work("raw_sqlite", "sync", context.folder, folder=str(context.folder), count=probes, rate=rate)
    return {
        **{f"fdatasync.{part}_ms": figures[part] * MILLI for part in ("p50", "p99")},
        **{f"fdatasync_rushed.{part}_ms": figures[f"rushed_{part}"] * MILLI for part in ("p50", "p99")},
    }


def b4(peers: Peers) -> Bench:
    systems: dict[str, Measuring] = {
        "penstock": _measure("penstock", open_penstock, loaded=True),
        "sse-starlette": _measure("sse-starlette", uvicorn(peers, "sse-starlette"), loaded=True),
        "raw-trio": _measure("raw-trio", raw_trio, loaded=False),
        "disk": _disk,
        "durable-streams-files": _measure("", durable_streams(peers, files=True), loaded=False),
        "durable-streams-memory": _measure("", durable_streams(peers, files=False), loaded=False),
        "redis-always": _measure("", redis_streams(peers, "always"), loaded=False),
        "redis-everysec": _measure("", redis_streams(peers, "everysec"), loaded=False),
    }
    return Bench("B4", "From written to received, in ms", systems)
