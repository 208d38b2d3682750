"""B1: durable events a second through `Block.write`, by one producer, and by many at once."""

from __future__ import annotations

from penstock.engine import JSONObject
from tests.benchmarks.bench import Bench, Context
from tests.benchmarks.children import work
from tests.benchmarks.measures import writing_peers
from tests.benchmarks.peers.install import Peers

__all__ = ["b1"]

_PATIENCE = 300.0


def _penstock(context: Context) -> dict[str, float]:
    """In process, as an application embeds it. The database of each stays for raw SQLite to write again."""
    found: dict[str, float] = {}
    for sessions in context.sizes.sessions:
        db = context.keeping / f"b1-{sessions}.db"
        for path in context.keeping.glob(f"b1-{sessions}.db*"):
            path.unlink()
        spec: JSONObject = {
            "task": "write",
            "db": str(db),
            "events": context.sizes.written,
            "sessions": sessions,
            "size": context.sizes.text,
        }
        figures = work("workers.engine", spec, context.folder, seconds=_PATIENCE)
        context.kept[f"b1-{sessions}"] = figures["events_per_commit"]
        found |= {f"{metric}[{sessions}]": value for metric, value in figures.items()}
    return found


def _raw_sqlite(context: Context) -> dict[str, float]:
    found: dict[str, float] = {}
    for sessions in context.sizes.sessions:
        batch = context.kept.get(f"b1-{sessions}")
        if batch is None:
            continue
        raw: JSONObject = {
            "task": "rewrite",
            "source": str(context.keeping / f"b1-{sessions}.db"),
            "target": str(context.folder / f"raw-{sessions}.db"),
            "batch": batch,
        }
        figures = work("workers.raw_sqlite", raw, context.folder, seconds=_PATIENCE)
        found[f"events_per_s[{sessions}]"] = figures["events_per_s"]
    return found


def b1(peers: Peers) -> Bench:
    systems = {"penstock": _penstock, "raw-sqlite": _raw_sqlite, **writing_peers.systems(peers)}
    return Bench("B1", "Durable events a second, by sessions that are written at the same time", systems)
