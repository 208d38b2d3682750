"""B2: one session, many viewers, a burst of events for all of them."""

from __future__ import annotations

from functools import partial

from tests.benchmarks.bench import Bench, Context, Measuring
from tests.benchmarks.measures.reading import burst
from tests.benchmarks.peers.install import Peers
from tests.benchmarks.systems.base import Open
from tests.benchmarks.systems.peers import durable_streams, raw_trio, redis_streams, uvicorn
from tests.benchmarks.systems.penstock import open_penstock

__all__ = ["b2"]


def _fan_out(**forms: Open) -> Measuring:
    def measure(context: Context) -> dict[str, float]:
        found: dict[str, float] = {}
        for form, opened in forms.items():
            with opened(context.folder) as server:
                figures = burst(context, server, context.sizes.burst, context.sizes.viewers)
            found |= {f"{form}.{metric}": value for metric, value in figures.items()}
            for database in context.folder.glob("bench.db*"):
                database.unlink()
        return found

    return measure


def b2(peers: Peers) -> Bench:
    systems = {
        "penstock": _fan_out(sse=open_penstock, websocket=partial(open_penstock, websocket=True)),
        "sse-starlette": _fan_out(sse=uvicorn(peers, "sse-starlette")),
        "starlette": _fan_out(sse=uvicorn(peers, "starlette")),
        "raw-trio": _fan_out(sse=raw_trio),
        "durable-streams-files": _fan_out(sse=durable_streams(peers, files=True)),
        "durable-streams-memory": _fan_out(sse=durable_streams(peers, files=False)),
        "redis-everysec": _fan_out(sse=redis_streams(peers, "everysec")),
    }
    return Bench("B2", "Deliveries a second of a burst to many viewers", systems)
