"""The README's section on performance: written from a run's JSON, between two markers, and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from engine import JSON
from tests.benchmarks.rules import judge
from tests.benchmarks.samples import Cell, Run
from tests.benchmarks.table import figure

__all__ = ["BEGIN", "END", "section", "update"]

BEGIN: Final = "<!-- performance: written by python -m tests.benchmarks --readme -->"
END: Final = "<!-- /performance -->"

# Bench, metric, what it is, its unit, and the peers that are told of.
_ROWS: Final = (
    (
        "B1",
        "events_per_s[1]",
        "durable events, 1 producer",
        "/s",
        ("raw-sqlite", "durable-streams-files", "redis-always"),
    ),
    ("B1", "events_per_s[100]", "durable events, 100 producers", "/s", ("raw-sqlite", "durable-streams-files")),
    ("B1", "events_per_s[1000]", "durable events, 1000 producers", "/s", ("raw-sqlite", "durable-streams-files")),
    ("B2", "sse.deliveries_per_s", "delivered to 100 viewers, SSE", "/s", ("sse-starlette", "raw-trio")),
    ("B3", "sessions", "sessions of 30 events/s held", "", ("sse-starlette",)),
    (
        "B4",
        "idle.p99_ms",
        "written to received, p99",
        " ms",
        ("sse-starlette", "durable-streams-files", "redis-always"),
    ),
    ("B5", "sse.events_per_s", "replay over SSE", "/s", ("durable-streams-files", "redis-everysec")),
    ("B6", "idle.p99_ms", "a new answer takes over, p99", " ms", ()),
    ("B7", "viewer_bytes", "memory of a viewer", " bytes", ("sse-starlette",)),
    ("B8", "events_per_s[batch 1, 64 connections]", "chunks over HTTP", "/s", ("durable-streams-files",)),
    ("B8", "events_per_s[batch 50, 64 connections]", "chunks over HTTP in batches", "/s", ("durable-streams-files",)),
)


def section(run: Run, plot: str | None) -> Iterator[str]:
    """Line by line. ``plot`` is the picture's path as the README links it."""
    told = run.machine
    versions = told.get("versions")
    named = versions if isinstance(versions, dict) else {}
    yield (
        f"{told.get('cpu')}, {told.get('cores')} cores, {told.get('file_system')}, {_day(told.get('date'))}; median of "
        f"{told.get('rounds')} interleaved rounds (range). Peers store nothing (sse-starlette, raw-trio), or what "
        "their names say."
    )
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
    judged = judge(run)
    held = {kind: [v for v in judged if v.rule.kind == kind and v.held] for kind in ("floor", "aim")}
    asked = {kind: [v for v in judged if v.rule.kind == kind and v.held is not None] for kind in ("floor", "aim")}
    yield ""
    yield (
        f"Of the rules that were fixed beforehand, {len(held['floor'])} of {len(asked['floor'])} floors and "
        f"{len(held['aim'])} of {len(asked['aim'])} aims are met."
    )
    if plot is not None:
        yield ""
        yield f"![Figures beside those of the peers, and how the cost grows]({plot})"
    yield ""
    yield f"Versions: {', '.join(f'{name} {number}' for name, number in sorted(named.items()))}."


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
