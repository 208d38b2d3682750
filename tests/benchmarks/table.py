"""A run as text: the figures with their ranges and ratios, and what became of each rule."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tests.benchmarks.bench import Bench
from tests.benchmarks.rules import Verdict
from tests.benchmarks.samples import Cell, Run, Spread

__all__ = ["figure", "spread", "table", "verdicts"]

# A load client that used more of its core than this was itself the bound.
_BOUND = 0.9


def figure(value: float) -> str:
    """A number with as many digits as say something."""
    if abs(value) >= 1e6:
        return f"{value / 1e6:,.2f} M"
    if abs(value) >= 1e4:
        return f"{value / 1e3:,.0f} k"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def spread(found: Spread) -> str:
    """The median, and the ends behind it."""
    return f"{figure(found.median)} ({figure(found.least)} to {figure(found.most)})"


def table(run: Run, benches: Sequence[Bench]) -> Iterator[str]:
    """Line by line: median (least to most) over the rounds, and how many times it is penstock's own."""
    for bench in benches:
        cells = [cell for cell in run.samples if cell.bench == bench.name]
        if not cells:
            continue
        yield f"{bench.name}  {bench.title}"
        yield f"  {'metric':<44}{'system':<24}{'median (range)':<32}{'penstock / it':<24}"
        for metric in dict.fromkeys(cell.metric for cell in cells):
            for cell in (cell for cell in cells if cell.metric == metric):
                found = run.spread(cell)
                if found is None:
                    continue
                ratio = run.ratio(Cell(bench.name, "penstock", metric), cell) if cell.system != "penstock" else None
                beside = spread(ratio) if ratio is not None else ""
                bound = "  the load client was the bound" if _is_client(metric) and found.median > _BOUND else ""
                yield f"  {metric:<44}{cell.system:<24}{spread(found):<32}{beside}{bound}".rstrip()
        yield ""
    for system, reason in run.skipped.items():
        yield f"skipped {system}: {reason}"
    for note in run.notes:
        yield f"failed {note}"


def _is_client(metric: str) -> bool:
    return "client_cores" in metric


def verdicts(judged: Sequence[Verdict]) -> Iterator[str]:
    """Line by line: what each rule wants, and what was found."""
    words = {True: "met", False: "NOT MET", None: "not judged"}
    for verdict in judged:
        rule = verdict.rule
        found = "nothing was measured" if verdict.found is None else spread(verdict.found)
        wanted = f"{rule.text} {rule.bound} {figure(rule.limit)}"
        yield f"{rule.bench}  {rule.kind:<6}{words[verdict.held]:<12}{wanted}: {found}"
