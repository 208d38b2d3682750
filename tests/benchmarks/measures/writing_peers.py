"""How the peers write what B1's producers write: over HTTP, or by XADD."""

from __future__ import annotations

from collections.abc import Mapping

from tests.benchmarks.bench import Context, Measuring
from tests.benchmarks.peers.install import Peers
from tests.benchmarks.systems.base import Source, ask
from tests.benchmarks.systems.peers import DurableStreams, durable_streams, redis_streams
from tests.benchmarks.writers import Order, push

__all__ = ["systems"]

# One event a request is the nearest to a write of one event; so many requests are under way at most.
_CONNECTIONS = 64


def _durable_streams(peers: Peers, *, files: bool) -> Measuring:
    def measure(context: Context) -> dict[str, float]:
        found: dict[str, float] = {}
        with durable_streams(peers, files=files)(context.folder) as server:
            assert isinstance(server, DurableStreams)
            for sessions in context.sizes.sessions:
                names = tuple(f"s{sessions}-{number}" for number in range(sessions))
                server.create(names)
                figures = push(
                    context.folder,
                    Order(
                        kind="durable-streams",
                        address=server.address,
                        streams=names,
                        connections=_CONNECTIONS,
                        batch=1,
                        size=context.sizes.text,
                        seconds=context.sizes.pushing,
                    ),
                )
                found[f"events_per_s[{sessions}]"] = figures["events_per_s"]
                found[f"client_cores[{sessions}]"] = figures["cpu"]
        return found

    return measure


def _redis(peers: Peers, appendfsync: str) -> Measuring:
    def measure(context: Context) -> dict[str, float]:
        found: dict[str, float] = {}
        with redis_streams(peers, appendfsync)(context.folder) as server:
            for sessions in context.sizes.sessions:
                names = [f"s{sessions}-{number}" for number in range(sessions)]
                each = context.sizes.written // sessions
                source = Source(count=each, size=context.sizes.text)
                answer = ask(server.address, "POST", "/write", {"streams": list(names), **source.to_json()})
                found[f"events_per_s[{sessions}]"] = each * sessions / float(str(answer["seconds"]))
        return found

    return measure


def systems(peers: Peers) -> Mapping[str, Measuring]:
    return {
        "durable-streams-files": _durable_streams(peers, files=True),
        "durable-streams-memory": _durable_streams(peers, files=False),
        "redis-always": _redis(peers, "always"),
        "redis-everysec": _redis(peers, "everysec"),
    }
