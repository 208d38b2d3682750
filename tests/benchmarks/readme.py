"""What is told of runs, from their JSON alone: the README's section, between two markers; and all of it, on a page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from penstock.engine import JSON
from tests.benchmarks.bench import Bench
from tests.benchmarks.rules import Kind, Verdict, judge_each
from tests.benchmarks.samples import Cell, Run
from tests.benchmarks.table import figure, spread, table

__all__ = ["BEGIN", "END", "PICTURE", "RESULTS", "page", "section", "shown", "update"]

BEGIN: Final = "<!-- performance: written by python -m tests.benchmarks --readme -->"
END: Final = "<!-- /performance -->"

RESULTS: Final = "tests/benchmarks/RESULTS.md"
PICTURE: Final = "performance.svg"  # beside it
_BOUNDS: Final = "tests/benchmarks/README.md#what-bounds-it"

_RAW: Final = "raw-sqlite"
_SSE: Final = "sse-starlette"
_FILES: Final = "durable-streams-files"
_REDIS: Final = "redis-always"

# Bench, metric, what it is, its unit, and the peers that are told of: what a chat asks for most.
_ROWS: Final = (
    ("B1", "events_per_s[1]", "durable events, 1 producer", "/s", (_RAW, _FILES, _REDIS)),
    ("B3", "sessions", "sessions of 30 events/s held", "", (_SSE,)),
    ("B4", "idle.p99_ms", "written to received, p99", " ms", (_SSE, _FILES, _REDIS)),
)


def shown(runs: Sequence[Run]) -> list[Run]:
    """Those that have something for the README's section and the picture beside RESULTS."""
    benches = {row[0] for row in _ROWS}
    return [run for run in runs if any(cell.bench in benches for cell in run.samples)]


def section(runs: Sequence[Run]) -> Iterator[str]:
    """Line by line."""
    told = shown(runs)
    run = Run.joined(told)
    yield f"{_where(run)}; {_rounds(told)} (range). sse-starlette stores nothing, the others what their names say."
    yield ""
    yield "| | penstock | beside it |"
    yield "|---|---|---|"
    for bench, metric, text, unit, peers in _ROWS:
        own = run.spread(Cell(bench, "penstock", metric))
        if own is None:
            continue
        others = ((peer, run.spread(Cell(bench, peer, metric))) for peer in peers)
        beside = ", ".join(f"{peer} {figure(found.median)}{unit}" for peer, found in others if found is not None)
        yield f"| {text} | {figure(own.median)}{unit} ({figure(own.least)} to {figure(own.most)}) | {beside} |"
    yield ""
    yield (
        f"Of the rules that were fixed beforehand, {_met('floor', runs)} and {_met('aim', runs)} are met"
        f"{' in each of their runs' if len(runs) > 1 else ''}: "
        f"[all figures]({RESULTS}), [what bounds the rest]({_BOUNDS})."
    )


def page(runs: Sequence[Run], benches: Sequence[Bench]) -> Iterator[str]:
    """Line by line: each rule and what each run says of it, then all figures."""
    run = Run.joined(runs)
    yield "# Results"
    yield ""
    yield "Written by `python -m tests.benchmarks --readme` from the runs' JSON."
    yield ""
    yield f"![Figures beside those of the peers, and how the cost grows]({PICTURE})"
    yield ""
    yield "## The rules"
    yield ""
    yield "Judged by the median over a run's rounds. [What is measured, and what bounds it](README.md)."
    yield ""
    for number, each in enumerate(runs, 1):
        rounds = f"{each.machine.get('rounds')} rounds"
        yield f"- Run {number}: {_benches(each)}; {rounds}, {_where(each)}. {_versions(each)}"
    yield ""
    yield f"| | | | |{''.join(f' run {number} |' for number in range(1, len(runs) + 1))}"
    yield f"|---|---|---|---|{'---|' * len(runs)}"
    for rule, verdicts in judge_each(runs):
        bound = {">=": "≥", "<=": "≤"}[rule.bound]
        found = " | ".join(map(_said, verdicts))
        yield f"| {rule.bench} | {rule.kind} | {rule.text} | {bound} {figure(rule.limit)} | {found} |"
    yield ""
    yield "## All figures"
    yield ""
    yield f"{_rounds(runs).capitalize()} (range)."
    yield ""
    yield "```text"
    yield from table(run, benches)
    yield "```"


def _said(verdict: Verdict | None) -> str:
    if verdict is None:
        return ""
    if verdict.found is None:
        return "not judged"
    return f"{spread(verdict.found)}: {'met' if verdict.held else '**not met**'}"


def _benches(run: Run) -> str:
    return ", ".join(sorted({cell.bench for cell in run.samples}, key=lambda name: int(name.removeprefix("B"))))


def _met(kind: Kind, runs: Sequence[Run]) -> str:
    """Of the rules that a run says something of: those that are met in each run that does."""
    held = [
        all(verdict.held for verdict in verdicts if verdict is not None)
        for rule, verdicts in judge_each(runs)
        if rule.kind == kind
    ]
    return f"{sum(held)} of {len(held)} {kind}s"


def _where(run: Run) -> str:
    told = run.machine
    return f"{told.get('cpu')}, {told.get('cores')} cores, {told.get('file_system')}, {_day(told.get('date'))}"


def _rounds(runs: Sequence[Run]) -> str:
    counts = [str(run.machine.get("rounds")) for run in runs]
    return f"median of {' and '.join(counts)} interleaved rounds{f', {len(runs)} runs' if len(runs) > 1 else ''}"


def _versions(run: Run) -> str:
    versions = run.machine.get("versions")
    named = versions if isinstance(versions, dict) else {}
    return f"Versions: {', '.join(f'{name} {number}' for name, number in sorted(named.items()))}."


def _day(date: JSON) -> str:
    return str(date).partition("T")[0]


def update(readme: Path, lines: Iterator[str]) -> None:
    """Put the lines between the markers. Raises `ValueError` when there are none."""
    text = readme.read_text()
    before, found, rest = text.partition(BEGIN)
    _, closed, after = rest.partition(END)
    if not found or not closed:
        raise ValueError(f"{readme} has no place for it: put {BEGIN} and {END} there")
    readme.write_text("\n".join([f"{before}{BEGIN}", *lines, f"{END}{after}"]))
