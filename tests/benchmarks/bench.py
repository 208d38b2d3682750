"""What a benchmark is: a way to measure each of its systems, and what it is given to do so."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeAlias, final

from attrs import Factory, define, evolve, frozen

from tests.benchmarks.peers.install import Peers
from tests.benchmarks.samples import Run
from tests.benchmarks.sizes import Sizes

__all__ = ["Bench", "Context", "Incomplete", "Measuring"]


class Incomplete(Exception):
    """Not everything that was written came, or more than that; the text says how much."""


@final
@define
class Context:
    """One measurement's folder, which is removed behind it, and what goes on from one to the next.

    ``kept`` lasts as long as the run, and so does the folder ``keeping``.
    """

    folder: Path
    keeping: Path
    sizes: Sizes
    peers: Peers
    run: Run
    kept: dict[str, float] = Factory(dict)

    def within(self, folder: Path) -> Context:
        return evolve(self, folder=folder)


# The figures of one system in one round, by metric.
Measuring: TypeAlias = Callable[[Context], Mapping[str, float]]


@final
@frozen
class Bench:
    """``systems`` take turns in each round; the first one begins the first."""

    name: str
    title: str
    systems: Mapping[str, Measuring]
