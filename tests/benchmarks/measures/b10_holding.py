"""B10: how long the loop is held while one session is large, and how long a loud one's neighbour waits for a commit."""

from __future__ import annotations

from penstock.engine import JSONObject
from tests.benchmarks.bench import Bench, Context
from tests.benchmarks.children import work
from tests.benchmarks.measures.reading import MILLI

__all__ = ["b10"]

_PATIENCE = 900.0

_SHAPES = ("messages", "blocks")


def _penstock(context: Context) -> dict[str, float]:
    sizes = context.sizes
    found: dict[str, float] = {}
    for shape in _SHAPES:
        spec: JSONObject = {
            "task": "large",
            "shape": shape,
            "count": sizes.large,
            "db": str(context.folder / f"{shape}.db"),
        }
        holds = work("workers.holding", spec, context.folder, seconds=_PATIENCE)
        found |= {f"{shape}.{deed}_ms": held * MILLI for deed, held in holds.items()}
    spec = {
        "task": "neighbour",
        "db": str(context.folder / "neighbour.db"),
        "probes": sizes.probes,
        "rate": sizes.probe_rate,
        "settling": sizes.settling,
    }
    delays = work("workers.holding", spec, context.folder, seconds=_PATIENCE)
    return {**found, **{f"neighbour.{name}_ms": delay * MILLI for name, delay in delays.items()}}


def b10() -> Bench:
    title = "The longest hold of the loop by one large session, and a neighbour's write to its commit, in ms"
    return Bench("B10", title, {"penstock": _penstock})
