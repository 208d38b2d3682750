"""This checkout against another one: the same benches, in turns, and whether the figures differ.

    python -m tests.benchmarks.against ../before --only B4,B6 --rounds 9

The other checkout has an environment of its own in ``.venv``, and measures with this folder: lay it over the other's
first. Each figure is told as the ratio of this one's to the other's, round by round, with the interval in which the
true ratio lies with a probability of 95 %. Where that does not hold 1, the figure has changed, for better or worse.
"""

from __future__ import annotations

import math
import statistics
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import click

from tests.benchmarks.children import ROOT
from tests.benchmarks.samples import Cell, Run

__all__ = ["interval", "lines", "main"]

# Student's t for 95 %, two-sided, by degrees of freedom from 1 on; from there on as for the last.
_T: Final = (12.71, 4.3, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23, 2.2, 2.18, 2.16, 2.14, 2.13, 2.12, 2.11, 2.1)


def interval(ratios: Sequence[float]) -> tuple[float, float, float]:
    """The geometric mean of two ratios or more, and the ends of its 95 % interval."""
    logs = [math.log(ratio) for ratio in ratios]
    middle = statistics.mean(logs)
    reach = _T[min(len(logs) - 1, len(_T)) - 1] * statistics.stdev(logs) / math.sqrt(len(logs))
    return math.exp(middle), math.exp(middle - reach), math.exp(middle + reach)


def lines(other: Mapping[Cell, Mapping[int, float]], this: Mapping[Cell, Mapping[int, float]]) -> list[str]:
    """A line for each figure that both have in two rounds or more; one that has changed bears a star."""
    told = [f"{'figure':<52} {'other':>12} {'this':>12}  ratio"]
    for cell, values in this.items():
        before = other.get(cell, {})
        rounds = [number for number, value in values.items() if value > 0 and before.get(number, 0.0) > 0]
        if len(rounds) < 2:
            continue
        middle, low, high = interval([values[number] / before[number] for number in rounds])
        medians = (statistics.median(found[number] for number in rounds) for found in (before, values))
        then, now = (f"{median:>12.5g}" for median in medians)
        star = "" if low <= 1 <= high else " *"
        told.append(f"{f'{cell.bench} {cell.metric}':<52} {then} {now}  {middle:.3f} ({low:.3f} to {high:.3f}){star}")
    return told


def _measured(checkout: Path, bench: str, path: Path, quick: bool) -> Mapping[Cell, Mapping[int, float]]:
    command = [str(checkout / ".venv" / "bin" / "python"), "-m", "tests.benchmarks", "--only", bench]
    command += ["--systems", "penstock", "--rounds", "1", "--json", str(path), *(["--quick"] if quick else [])]
    subprocess.run(command, cwd=checkout, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return Run.read(path).samples


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.argument("checkout", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--only", metavar="B1,B4", required=True, help="These benches.")
@click.option("--rounds", type=click.IntRange(2, 50), default=9, show_default=True, help="Of each bench, on each side.")
@click.option("--quick", is_flag=True, help="Measure less in each round, as the benches themselves do with this.")
def main(checkout: Path, only: str, rounds: int, quick: bool) -> None:
    """Measure this checkout and CHECKOUT in turns. Stopped, it tells what it has."""
    sides = {"other": checkout.resolve(), "this": ROOT}
    found: dict[str, dict[Cell, dict[int, float]]] = {side: {} for side in sides}
    try:
        with tempfile.TemporaryDirectory() as folder:
            for number in range(rounds):
                for bench in only.upper().split(","):
                    for side in sorted(sides, reverse=number % 2 == 1):
                        click.echo(f"round {number + 1} of {rounds}: {bench}, {side}", err=True)
                        path = Path(folder) / f"{number}-{bench}-{side}.json"
                        samples = _measured(sides[side], bench, path, quick)
                        for cell, values in samples.items():
                            found[side].setdefault(cell, {})[number] = values[0]
    finally:
        for line in lines(found["other"], found["this"]):
            click.echo(line)


if __name__ == "__main__":
    main()
