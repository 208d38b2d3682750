"""B8: events a second that producers in other processes write over HTTP, one by one and in batches."""

from __future__ import annotations

from typing import Literal

from tests.benchmarks.bench import Bench, Context, Measuring
from tests.benchmarks.measures.reading import MILLI
from tests.benchmarks.peers.install import Peers
from tests.benchmarks.systems.base import Open
from tests.benchmarks.systems.peers import durable_streams
from tests.benchmarks.systems.penstock import open_penstock
from tests.benchmarks.writers import Order, push

__all__ = ["b8"]


def _pushed(kind: Literal["penstock", "durable-streams"], opened: Open) -> Measuring:
    """Each connection writes into a stream of its own, with one request under way."""

    def measure(context: Context) -> dict[str, float]:
        found: dict[str, float] = {}
        with opened(context.folder) as server:
            for batch in context.sizes.batches:
                for connections in context.sizes.connections:
                    names = tuple(f"b{batch}-c{connections}-{number}" for number in range(connections))
                    server.create(names)
                    order = Order(
                        kind=kind,
                        address=server.address,
                        streams=names,
                        connections=connections,
                        batch=batch,
                        size=context.sizes.text,
                        seconds=context.sizes.pushing,
                    )
                    figures = push(context.folder, order)
                    cell = f"[batch {batch}, {connections} connections]"
                    found[f"events_per_s{cell}"] = figures["events_per_s"]
                    found[f"p99_ms{cell}"] = figures["p99"] * MILLI
                    found[f"client_cores{cell}"] = figures["cpu"]
        return found

    return measure


def b8(peers: Peers) -> Bench:
    systems: dict[str, Measuring] = {
        "penstock": _pushed("penstock", open_penstock),
        "durable-streams-files": _pushed("durable-streams", durable_streams(peers, files=True)),
        "durable-streams-memory": _pushed("durable-streams", durable_streams(peers, files=False)),
    }
    return Bench("B8", "Events a second written over HTTP, by batch and connections", systems)
