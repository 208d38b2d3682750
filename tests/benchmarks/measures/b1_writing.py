"""B1: durable events a second through `Block.write`, by one producer, and by many at once."""

from __future__ import annotations

from attrs import asdict

from tests.benchmarks.bench import Bench, Context, Measuring
from tests.benchmarks.children import work
from tests.benchmarks.peers.install import Peers
from tests.benchmarks.systems.base import Source, ask
from tests.benchmarks.systems.peers import DurableStreams, durable_streams, redis_streams
from tests.benchmarks.writers import Order, push

__all__ = ["b1"]

# Over HTTP, one event a request is the nearest to a write of one event; so many requests are under way at most.
_CONNECTIONS = 64


def _penstock(context: Context) -> dict[str, float]:
    """In process, as an application embeds it. The database of each stays for raw SQLite to write again."""
    sizes = context.sizes
    found: dict[str, float] = {}
    for sessions in sizes.sessions:
        db = context.keeping / f"b1-{sessions}.db"
        for path in context.keeping.glob(f"b1-{sessions}.db*"):
            path.unlink()
        figures = work(
            "engine", "write", context.folder, db=str(db), events=sizes.written, sessions=sessions, size=sizes.text
        )
        context.kept[f"b1-{sessions}"] = figures["events_per_commit"]
        for metric in ("events_per_s", "events_per_commit"):
            found[f"{metric}[{sessions}]"] = figures[metric]
    return found


def _raw_sqlite(context: Context) -> dict[str, float]:
    found: dict[str, float] = {}
    for sessions in context.sizes.sessions:
        batch = context.kept.get(f"b1-{sessions}")
        if batch is None:
            continue
        source, target = context.keeping / f"b1-{sessions}.db", context.folder / f"raw-{sessions}.db"
        figures = work("raw_sqlite", "rewrite", context.folder, source=str(source), target=str(target), batch=batch)
        found[f"events_per_s[{sessions}]"] = figures["events_per_s"]
    return found


def _durable_streams(peers: Peers, *, files: bool) -> Measuring:
    def measure(context: Context) -> dict[str, float]:
        found: dict[str, float] = {}
        with durable_streams(peers, files=files)(context.folder) as server:
            assert isinstance(server, DurableStreams)
            for sessions in context.sizes.sessions:
                names = tuple(f"s{sessions}-{number}" for number in range(sessions))
                server.create(names)
                order = Order(
                    kind="durable-streams",
                    address=server.address,
                    streams=names,
                    connections=_CONNECTIONS,
                    batch=1,
                    size=context.sizes.text,
                    seconds=context.sizes.pushing,
                )
                figures = push(context.folder, order)
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
                answer = ask(server.address, "POST", "/write", {"streams": list(names), **asdict(source)})
                found[f"events_per_s[{sessions}]"] = each * sessions / float(str(answer["seconds"]))
        return found

    return measure


def b1(peers: Peers) -> Bench:
    systems = {
        "penstock": _penstock,
        "raw-sqlite": _raw_sqlite,
        "durable-streams-files": _durable_streams(peers, files=True),
        "durable-streams-memory": _durable_streams(peers, files=False),
        "redis-always": _redis(peers, "always"),
        "redis-everysec": _redis(peers, "everysec"),
    }
    return Bench("B1", "Durable events a second, by sessions that are written at the same time", systems)
