"""B9: how the cost grows with sessions, viewers, the length of the log and the size of events."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

from penstock.adapters.cli.bench.serving import serving
from penstock.engine import JSON, JSONObject
from tests.benchmarks.bench import Bench, Context
from tests.benchmarks.children import work
from tests.benchmarks.measures.b5_replay import first_bytes
from tests.benchmarks.measures.reading import MILLI, burst, complete, paced
from tests.benchmarks.systems.penstock import open_penstock

__all__ = ["b9", "power"]

_PATIENCE = 600.0
_RATE = 20.0  # events a second, for the viewers' delays

# Sessions share one amount of events; so do sizes, a tenth of it, for the largest are of tens of KiB.
_SIZES_PART = 10


def power(costs: Mapping[float, float]) -> float:
    """The power of x with which the cost grows, in the steepest step from one x to the next.

    No line is fitted through all of them: what is dear at the beginning would hide what grows too fast at the end.
    """
    points = [(math.log(x), math.log(max(cost, 1e-12))) for x, cost in sorted(costs.items())]
    return max((after - before) / (x - last) for (last, before), (x, after) in pairwise(points))


def _written(context: Context, name: str, sessions: int, events: int, size: int) -> dict[str, float]:
    db = context.folder / f"{name}.db"
    spec: JSONObject = {"task": "flush", "db": str(db), "sessions": sessions, "events": events, "size": size}
    figures = work("workers.engine", spec, context.folder, seconds=_PATIENCE)
    for path in context.folder.glob(f"{name}.db*"):
        path.unlink()
    return figures


def _sessions(context: Context) -> dict[str, float]:
    """The cost of so many sessions is that of as many events each; the rate is that of all together."""
    found: dict[str, float] = {}
    costs: dict[float, float] = {}
    most = context.sizes.sessions[-1]
    for sessions in sorted({1, *(n for n in (10, 100) if n < most), most}):
        figures = _written(context, f"sessions-{sessions}", sessions, context.sizes.written, context.sizes.text)
        found[f"sessions[{sessions}].events_per_s"] = figures["events_per_s"]
        found[f"sessions[{sessions}].p99_ms"] = figures["flush_p99"] * MILLI
        costs[sessions] = sessions / figures["events_per_s"]
    return {**found, "sessions.power": power(costs)}


def _event_sizes(context: Context) -> dict[str, float]:
    found: dict[str, float] = {}
    costs: dict[float, float] = {}
    for size in context.sizes.event_sizes:
        figures = _written(context, f"size-{size}", 1, context.sizes.written // _SIZES_PART, size)
        found[f"event size[{size}].events_per_s"] = figures["events_per_s"]
        found[f"event size[{size}].p99_ms"] = figures["flush_p99"] * MILLI
        costs[size] = 1 / figures["events_per_s"]
    return {**found, "event size.power": power(costs)}


def _viewers(context: Context) -> dict[str, float]:
    found: dict[str, float] = {}
    costs: dict[float, float] = {}
    with open_penstock(context.folder) as server:
        for viewers in context.sizes.grown_viewers:
            figures = burst(context, server, max(10, context.sizes.burst // 10), viewers)
            names = [f"paced-{viewers}"]
            count = round(_RATE * context.sizes.pacing)
            delays = complete(paced(context, server, names, rate=_RATE, count=count, viewers=viewers)).transits
            found[f"viewers[{viewers}].events_per_s"] = figures["deliveries_per_s"]
            found[f"viewers[{viewers}].p99_ms"] = delays.p99 * MILLI
            costs[viewers] = figures["seconds"]
    return {**found, "viewers.power": power(costs)}


def _log_length(context: Context) -> dict[str, float]:
    """Each length is written anew, so that the cost is that of the whole log; the delay is a resume's first byte."""
    found: dict[str, float] = {}
    costs: dict[float, float] = {}
    folder: Path = context.folder / "lengths"
    folder.mkdir()
    lengths: list[JSON] = list(context.sizes.lengths)
    spec: JSONObject = {"task": "fill", "db": str(folder / "b.db"), "lengths": lengths, "size": context.sizes.text}
    figures = work("workers.engine", spec, context.folder, seconds=_PATIENCE)
    with serving(folder, db="b.db") as served:
        for length in context.sizes.lengths:
            seconds = figures[f"append_s[{length}]"]
            found[f"log length[{length}].events_per_s"] = length / seconds
            found[f"log length[{length}].p99_ms"] = first_bytes(served, length, context.sizes.resumes).p99 * MILLI
            costs[length] = seconds
    return {**found, "log length.power": power(costs)}


def _penstock(context: Context) -> dict[str, float]:
    return {**_sessions(context), **_viewers(context), **_log_length(context), **_event_sizes(context)}


def b9() -> Bench:
    return Bench("B9", "How the cost grows", {"penstock": _penstock})
