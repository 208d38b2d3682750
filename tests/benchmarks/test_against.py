"""Two checkouts measured in turns: what is told of their figures, and whose turn it is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.benchmarks import against
from tests.benchmarks.against import interval, lines
from tests.benchmarks.children import ROOT
from tests.benchmarks.samples import Cell

CELL = Cell("B4", "penstock", "idle.p50_ms")


def test_the_interval_is_students_over_the_logarithms() -> None:
    # By hand: logarithms 0, log 2, log 4; mean log 2, deviation log 2, reach 4.30 * log 2 / sqrt 3.
    middle, low, high = interval([1.0, 2.0, 4.0])
    assert middle == pytest.approx(2.0)
    assert (low, high) == pytest.approx((2 / 2**2.4826, 2 * 2**2.4826), rel=1e-3)
    assert interval([3.0, 3.0]) == pytest.approx((3.0, 3.0, 3.0))


def test_a_figure_has_a_star_where_its_interval_does_not_hold_1() -> None:
    other = {CELL: {0: 1.0, 1: 1.1, 2: 0.9}, Cell("B4", "penstock", "gone"): {0: 1.0, 1: 1.0}}
    same = lines(other, {CELL: {0: 1.1, 1: 1.0, 2: 0.9}})
    worse = lines(other, {CELL: {0: 2.0, 1: 2.2, 2: 1.8}})
    assert [len(same), len(worse)] == [2, 2]
    assert "B4 idle.p50_ms" in same[1]
    assert not same[1].endswith("*")
    assert worse[1].endswith("2.000 (2.000 to 2.000) *")


def test_a_figure_of_one_round_or_of_0_tells_nothing() -> None:
    assert len(lines({CELL: {0: 1.0}}, {CELL: {0: 1.0}})) == 1
    assert len(lines({CELL: {0: 1.0, 1: 0.0}}, {CELL: {0: 1.0, 1: 1.0}})) == 1


def test_the_checkouts_take_turns_and_what_was_measured_is_told_when_it_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, str]] = []

    def measured(checkout: Path, bench: str, _: Path, quick: bool) -> Mapping[Cell, Mapping[int, float]]:
        assert quick
        if len(asked) == 9:
            raise KeyboardInterrupt
        asked.append((bench, "this" if checkout == ROOT else "other"))
        return {Cell(bench, "penstock", "x"): {0: 2.0 if checkout == ROOT else 1.0}}

    monkeypatch.setattr(against, "_measured", measured)
    told = CliRunner().invoke(against.main, [str(tmp_path), "--only", "B1,b4", "--rounds", "4", "--quick"])
    assert [side for bench, side in asked if bench == "B1"] == ["other", "this", "this", "other", "other"]
    assert [line.split()[:2] for line in told.output.splitlines() if line.endswith("*")] == [["B1", "x"], ["B4", "x"]]
