"""The picture of a run, as SVG written by hand: bars where systems stand beside each other, lines where a cost grows.

It takes the reader's light or dark from the browser, and has no script and no outside resource.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Final, final
from xml.sax.saxutils import escape

from attrs import frozen

from tests.benchmarks.samples import Cell, Run, Spread
from tests.benchmarks.table import figure

__all__ = ["plot"]

_WIDTH: Final = 880
_ROW: Final = 20
_LABEL: Final = 230
_BARS: Final = 430
_PANEL: Final = 200  # height of a panel of lines
_GAP: Final = 36

_STYLE: Final = """
  text { font: 12px system-ui, sans-serif; fill: #222; }
  .title { font-size: 14px; font-weight: 600; }
  .faint { fill: #666; font-size: 11px; }
  .own { fill: #0b6e99; stroke: #0b6e99; }
  .other { fill: #9aa5ad; stroke: #9aa5ad; }
  .delay { fill: #b3541e; stroke: #b3541e; }
  .range { stroke: #222; stroke-width: 1.5; }
  .axis { stroke: #999; stroke-width: 1; }
  .line { fill: none; stroke-width: 2; }
  .page { fill: #fff; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6e6e6; }
    .faint { fill: #a0a0a0; }
    .own { fill: #4db6e2; stroke: #4db6e2; }
    .other { fill: #6b757c; stroke: #6b757c; }
    .delay { fill: #f0924f; stroke: #f0924f; }
    .range { stroke: #e6e6e6; }
    .page { fill: #14181b; }
  }
"""


@final
@frozen
class _Bars:
    """Metrics of one bench, by system: where penstock's has another name than its peers', both are given."""

    title: str
    bench: str
    metrics: tuple[str, ...]


_CHARTS: Final = (
    _Bars("Durable events a second, 100 sessions (more is better)", "B1", ("events_per_s[100]",)),
    _Bars(
        "Deliveries a second to 100 viewers (more is better)",
        "B2",
        ("sse.deliveries_per_s", "websocket.deliveries_per_s"),
    ),
    _Bars("Sessions of 30 events a second held (more is better)", "B3", ("sessions",)),
    _Bars("From written to received, p99, ms (less is better)", "B4", ("idle.p99_ms",)),
    _Bars("Replay, events a second (more is better)", "B5", ("sse.events_per_s", "python.stored_per_s")),
    _Bars(
        "Written over HTTP, events a second, 64 connections (more is better)",
        "B8",
        ("events_per_s[batch 1, 64 connections]", "events_per_s[batch 50, 64 connections]"),
    ),
)

_GROWTHS: Final = ("sessions", "viewers", "log length", "event size")


def plot(run: Run) -> str:
    """The whole picture; empty panels are left out."""
    body: list[str] = []
    y = 30.0
    for chart in _CHARTS:
        rows = [
            (cell, found)
            for metric in chart.metrics
            for cell in run.samples
            if (cell.bench, cell.metric) == (chart.bench, metric) and (found := run.spread(cell)) is not None
        ]
        if rows:
            body += _bars(chart, rows, y)
            y += _ROW * (len(rows) + 1) + _GAP
    growths = [(what, points) for what in _GROWTHS if len(points := _points(run, what)) > 1]
    for place, (what, points) in enumerate(growths):
        left, down = (place % 2) * (_WIDTH / 2), (place // 2) * (_PANEL + _GAP)
        body += _lines(what, points, left + 20, y + down)
    y += math.ceil(len(growths) / 2) * (_PANEL + _GAP)
    told = run.machine
    where = f"{told.get('cpu')}, {told.get('cores')} cores, {told.get('file_system')}; {told.get('date')}"
    body.append(_text(20, y, f"{where}; bars: median, lines across: range over the rounds", "faint"))
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {y + 20:.0f}" role="img"'
    page = f'<rect class="page" width="{_WIDTH}" height="{y + 20:.0f}"/>'
    label = "<title>How fast penstock is, beside its peers</title>"
    return "\n".join([f"{head}>", label, f"<style>{_STYLE}</style>", page, *body, "</svg>"]) + "\n"


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">{escape(text)}</text>'


def _bars(chart: _Bars, rows: Sequence[tuple[Cell, Spread]], y: float) -> Iterator[str]:
    """Lengths are logarithms: systems differ by factors."""
    yield _text(20, y, f"{chart.bench}  {chart.title}; logarithmic", "title")
    values = [value for _, found in rows for value in (found.least, found.most) if value > 0]
    low = 10 ** (math.floor(math.log10(min(values, default=1))) - 0.3)
    high = max(values, default=1) * 1.05

    def length(value: float) -> float:
        return _BARS * math.log(max(value, low) / low) / math.log(high / low)

    for place, (cell, found) in enumerate(rows, 1):
        top = y + place * _ROW - 10
        name = cell.system if len(chart.metrics) == 1 else f"{cell.system}, {_short(cell.metric)}"
        kind = "own" if cell.system == "penstock" else "other"
        middle = top + _ROW / 2 - 2
        yield _text(_LABEL, top + 12, name, anchor="end")
        yield (
            f'<rect class="{kind}" x="{_LABEL + 8}" y="{top:.1f}" width="{length(found.median):.1f}" '
            f'height="{_ROW - 5}" stroke="none"/>'
        )
        ends = (_LABEL + 8 + length(value) for value in (found.least, found.most))
        yield f'<path class="range" d="M{next(ends):.1f} {middle:.1f}H{next(ends):.1f}"/>'
        yield _text(
            _LABEL + 18 + _BARS, top + 12, f"{figure(found.median)}  ({figure(found.least)} to {figure(found.most)})"
        )


def _short(metric: str) -> str:
    """What tells a metric from the others of its chart."""
    if "[" in metric:
        return metric.partition("[")[2].partition(",")[0].rstrip("]")
    return metric.partition(".")[0]


def _points(run: Run, what: str) -> list[tuple[float, float, float]]:
    """(x, events a second, p99 in ms) of one growth."""
    found = []
    for cell in run.samples:
        name, _, rest = cell.metric.partition("[")
        if cell.bench == "B9" and name == what and rest.endswith("].events_per_s"):
            x = rest.partition("]")[0]
            rate, delay = run.spread(cell), run.spread(Cell("B9", cell.system, f"{what}[{x}].p99_ms"))
            if rate is not None and delay is not None:
                found.append((float(x), rate.median, delay.median))
    return sorted(found)


def _lines(what: str, points: Sequence[tuple[float, float, float]], left: float, top: float) -> Iterator[str]:
    """Events a second above, p99 below, against what grows; all axes are logarithmic."""
    width, height = _WIDTH / 2 - 110, _PANEL - 60
    band = height / 2 - 14
    yield _text(left, top, f"B9  against {what}", "title")
    bottom = top + 20 + height
    yield f'<line class="axis" x1="{left}" x2="{left + width}" y1="{bottom}" y2="{bottom}"/>'

    def across(x: float) -> float:
        return left + width * math.log(x / points[0][0]) / math.log(points[-1][0] / points[0][0])

    for place, kind, unit in ((1, "own", "events/s"), (2, "delay", "p99 ms")):
        values = [max(point[place], 1e-9) for point in points]
        low, high = min(values) / 2, max(values) * 2
        floor = bottom - (height / 2 if place == 1 else 0)
        spots = [
            (across(point[0]), floor - band * math.log(value / low) / math.log(high / low))
            for point, value in zip(points, values, strict=True)
        ]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in spots)
        yield f'<polyline class="line {kind}" style="fill:none" points="{line}"/>'
        for (x, y), value in zip(spots, values, strict=True):
            yield f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>'
            yield _text(x, y - 6, figure(value), "faint", "middle")
        yield _text(left + width + 12, spots[-1][1] + 4, unit, "faint")
    for x, _, _ in points:
        yield _text(across(x), bottom + 14, figure(x), "faint", "middle")
