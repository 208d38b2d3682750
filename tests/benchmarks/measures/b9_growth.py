"""B9: how the cost grows with sessions, viewers, the length of the log and the size of events."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import final

from attrs import frozen

from tests.benchmarks.bench import Bench, Context
from tests.benchmarks.children import work
from tests.benchmarks.measures.b5_replay import first_bytes
from tests.benchmarks.measures.reading import MILLI, burst, complete, paced
from tests.benchmarks.systems.penstock import open_penstock

__all__ = ["b9", "power"]

_RATE = 20.0  # events a second, for the viewers' delays

# Sessions share one amount of events; so do sizes, a tenth of it, for the largest are of tens of KiB.
_SIZES_PART = 10

# Events of a session, behind which it waits until they are durable: how long that takes.
_FLUSH_EVERY = 100


def power(costs: Mapping[float, float]) -> float:
    """The power of x with which the cost grows, in the steepest step from one x to the next.

    No line is fitted through all of them: what is dear at the beginning would hide what grows too fast at the end.
    """
    points = [(math.log(x), math.log(max(cost, 1e-12))) for x, cost in sorted(costs.items())]
    return max((after - before) / (x - last) for (last, before), (x, after) in pairwise(points))


@final
@frozen
class _Step:
    """What was found at one x."""

    events_per_s: float
    p99: float  # seconds
    cost: float


def _figures(what: str, steps: Mapping[int, _Step]) -> dict[str, float]:
    """What is told of one growth, by its x."""
    found: dict[str, float] = {}
    for x, step in steps.items():
        found[f"{what}[{x}].events_per_s"] = step.events_per_s
        found[f"{what}[{x}].p99_ms"] = step.p99 * MILLI
    return {**found, f"{what}.power": power({x: step.cost for x, step in steps.items()})}


def _written(context: Context, sessions: int, events: int, size: int) -> _Step:
    """The cost of so many sessions is that of as many events each; the rate is that of all together."""
    db = context.folder / "written.db"
    figures = work(
        "engine",
        "write",
        context.folder,
        db=str(db),
        events=events,
        sessions=sessions,
        size=size,
        flush_every=_FLUSH_EVERY,
    )
    for path in context.folder.glob(f"{db.name}*"):
        path.unlink()
    return _Step(figures["events_per_s"], figures["flush_p99"], sessions / figures["events_per_s"])


def _sessions(context: Context) -> dict[str, float]:
    sizes = context.sizes
    most = sizes.sessions[-1]
    counts = sorted({1, *(n for n in (10, 100) if n < most), most})
    return _figures("sessions", {n: _written(context, n, sizes.written, sizes.text) for n in counts})


def _event_sizes(context: Context) -> dict[str, float]:
    events, sizes = context.sizes.written // _SIZES_PART, context.sizes.event_sizes
    return _figures("event size", {size: _written(context, 1, events, size) for size in sizes})


def _viewers(context: Context) -> dict[str, float]:
    steps: dict[int, _Step] = {}
    count = round(_RATE * context.sizes.pacing)
    with open_penstock(context.folder) as server:
        for viewers in context.sizes.grown_viewers:
            figures = burst(context, server, max(10, context.sizes.burst // 10), viewers)
            seen = complete(paced(context, server, [f"paced-{viewers}"], rate=_RATE, count=count, viewers=viewers))
            steps[viewers] = _Step(figures["deliveries_per_s"], seen.transits.p99, figures["seconds"])
    return _figures("viewers", steps)


def _log_length(context: Context) -> dict[str, float]:
    """Each length is written anew, so that the cost is that of the whole log; the delay is a resume's first byte."""
    folder, sizes = context.folder / "lengths", context.sizes
    folder.mkdir()
    db, lengths = str(folder / "b.db"), list(sizes.lengths)
    figures = work("engine", "fill", context.folder, db=db, lengths=lengths, size=sizes.text)
    steps: dict[int, _Step] = {}
    with open_penstock(folder, db="b.db") as server:
        for length in lengths:
            seconds = figures[f"append_s[{length}]"]
            steps[length] = _Step(length / seconds, first_bytes(server, length, sizes.resumes).p99, seconds)
    return _figures("log length", steps)


def _penstock(context: Context) -> dict[str, float]:
    return {**_sessions(context), **_viewers(context), **_log_length(context), **_event_sizes(context)}


def b9() -> Bench:
    return Bench("B9", "How the cost grows", {"penstock": _penstock})
