"""B10: how long the loop is held while one session is large, and how long a loud one's neighbour waits for a commit."""

from __future__ import annotations

from tests.benchmarks.bench import Bench, Context
from tests.benchmarks.children import work
from tests.benchmarks.measures.reading import MILLI

__all__ = ["b10"]

_SHAPES = ("messages", "blocks")


def _penstock(context: Context) -> dict[str, float]:
    sizes, folder = context.sizes, context.folder
    found: dict[str, float] = {}
    for shape in _SHAPES:
        holds = work("holding", "large", folder, db=str(folder / f"{shape}.db"), shape=shape, count=sizes.large)
        found |= {f"{shape}.{deed}_ms": held * MILLI for deed, held in holds.items()}
    delays = work(
        "holding",
        "neighbour",
        folder,
        db=str(folder / "neighbour.db"),
        probes=sizes.probes,
        rate=sizes.probe_rate,
        settling=sizes.settling,
    )
    return {**found, **{f"neighbour.{name}_ms": delay * MILLI for name, delay in delays.items()}}


def b10() -> Bench:
    title = "The longest hold of the loop by one large session, and a neighbour's write to its commit, in ms"
    return Bench("B10", title, {"penstock": _penstock})
