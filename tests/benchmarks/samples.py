"""What a run has found: one figure per system, metric and round; medians, ranges and ratios of them; the JSON.

And what many delays are told as, which is three figures.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import final

from attrs import Factory, asdict, define, frozen

from penstock.engine import JSONObject

__all__ = ["Cell", "Delays", "Run", "Spread"]


@final
@frozen
class Cell:
    """A place in the table, such as B2, penstock, ``sse.deliveries_per_s``."""

    bench: str
    system: str
    metric: str

    def __str__(self) -> str:
        return f"{self.bench}/{self.system}/{self.metric}"


@final
@frozen
class Spread:
    """The middle of some rounds, and their ends."""

    median: float
    least: float
    most: float
    rounds: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(statistics.median(values), min(values), max(values), len(values))


@final
@frozen(kw_only=True)
class Delays:
    """Seconds."""

    p50: float
    p99: float
    most: float

    @classmethod
    def of(cls, nanoseconds: Sequence[int]) -> Delays:
        ordered = sorted(nanoseconds) or [0]
        p99 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
        return cls(p50=ordered[len(ordered) // 2] / 1e9, p99=p99 / 1e9, most=ordered[-1] / 1e9)


@final
@define
class Run:
    """All figures of one run. ``machine`` says where and when; ``skipped`` what could not be had, and why.

    ``took`` has the seconds of each round that is whole, by bench: what is not in it is still to be measured.
    """

    machine: JSONObject
    samples: dict[Cell, dict[int, float]] = Factory(dict)
    skipped: dict[str, str] = Factory(dict)
    notes: list[str] = Factory(list)
    took: dict[str, dict[int, float]] = Factory(dict)

    def add(self, bench: str, system: str, round_: int, figures: Mapping[str, float]) -> None:
        for metric, value in figures.items():
            self.samples.setdefault(Cell(bench, system, metric), {})[round_] = value

    def spread(self, cell: Cell) -> Spread | None:
        """None if nothing was found there."""
        rounds = self.samples.get(cell)
        return Spread.of(list(rounds.values())) if rounds else None

    def ratio(self, cell: Cell, to: Cell) -> Spread | None:
        """Round by round, so that what slowed down all of a round is in both."""
        above, below = self.samples.get(cell, {}), self.samples.get(to, {})
        ratios = [above[r] / below[r] for r in above if below.get(r)]
        return Spread.of(ratios) if ratios else None

    @classmethod
    def joined(cls, runs: Sequence[Run]) -> Run:
        """The rounds of several runs, numbered on, as those of one. Where and when is told as of the last."""
        joined = cls({**runs[-1].machine})
        before = 0
        for run in runs:
            for cell, rounds in run.samples.items():
                joined.samples.setdefault(cell, {}).update({before + n: value for n, value in rounds.items()})
            for bench, seconds in run.took.items():
                joined.took.setdefault(bench, {}).update({before + n: value for n, value in seconds.items()})
            joined.skipped.update(run.skipped)
            joined.notes += run.notes
            before += 1 + max((n for rounds in run.samples.values() for n in rounds), default=-1)
        return joined

    def write(self, path: Path) -> None:
        """As JSON. A file that is there is replaced as a whole."""
        made = {
            "machine": self.machine,
            "skipped": self.skipped,
            "notes": self.notes,
            "took": {bench: {n: round(taken, 1) for n, taken in rounds.items()} for bench, rounds in self.took.items()},
            "cells": [{**asdict(cell), "rounds": rounds} for cell, rounds in self.samples.items()],
        }
        beside = path.with_name(f"{path.name}.part")
        beside.write_text(json.dumps(made, indent=1) + "\n")
        beside.replace(path)

    @classmethod
    def read(cls, path: Path) -> Run:
        found = json.loads(path.read_text())
        run = cls(found["machine"], skipped=found["skipped"], notes=found["notes"])
        for cell in found["cells"]:
            rounds = {int(number): float(value) for number, value in cell["rounds"].items()}
            run.samples[Cell(cell["bench"], cell["system"], cell["metric"])] = rounds
        for bench, seconds in found["took"].items():
            run.took[bench] = {int(number): float(value) for number, value in seconds.items()}
        return run
