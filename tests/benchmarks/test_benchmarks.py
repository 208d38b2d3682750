"""The suite runs: every bench once, tiny, without peers or thresholds. And what it makes of figures is right."""

from __future__ import annotations

import json
import math
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from attrs import evolve
from click.testing import CliRunner

from tests.benchmarks import __main__ as command
from tests.benchmarks import payload
from tests.benchmarks.bench import Bench, Context
from tests.benchmarks.children import ROOT
from tests.benchmarks.machine import describe
from tests.benchmarks.measures.b3_paced import largest
from tests.benchmarks.measures.b9_growth import power
from tests.benchmarks.peers.install import Peers, Unavailable
from tests.benchmarks.plot import plot
from tests.benchmarks.readme import BEGIN, END, page, section, shown, update
from tests.benchmarks.rounds import benches, measure
from tests.benchmarks.rules import RULES, Rule, Verdict, judge, judge_each
from tests.benchmarks.samples import Cell, Delays, Run, Spread
from tests.benchmarks.sizes import FULL, TINY
from tests.benchmarks.table import table, verdicts

# Those that need nothing but what the tests need.
OWN = ("penstock", "raw-sqlite", "raw-trio", "disk")


def no_peers(folder: Path) -> Peers:
    return Peers(folder / "nothing-here")


@pytest.mark.long
@pytest.mark.parametrize("name", [f"B{number}" for number in range(1, 12)])
def test_every_bench_runs(name: str, tmp_path: Path) -> None:
    peers = no_peers(tmp_path)
    (bench,) = (bench for bench in benches(peers) if bench.name == name)
    run = Run(describe(TINY, peers, tmp_path))
    measure([bench], run, sizes=TINY, peers=peers, place=tmp_path, systems=OWN)
    assert run.notes == []
    assert run.skipped == {}
    measured = {cell.system for cell in run.samples}
    assert measured == set(bench.systems) & set(OWN)
    assert all(math.isfinite(value) for rounds in run.samples.values() for value in rounds.values())
    assert list(tmp_path.iterdir()) == []
    # A metric that is renamed in one place only would be judged by nobody. Sizes stand in names as numbers.
    shapes = {(cell.system, shape(cell)) for cell in run.samples}
    asked = {(cell.system, shape(cell)) for cell in wanted() if cell.bench == name and cell.system in OWN}
    assert asked <= shapes


@pytest.mark.long
def test_a_browser_is_measured_where_there_is_one(tmp_path: Path) -> None:
    peers = no_peers(tmp_path)
    (bench,) = (bench for bench in benches(peers) if bench.name == "B11")
    run = Run({})
    measure([bench], run, sizes=TINY, peers=peers, place=tmp_path, systems=["chromium"])
    if run.skipped:
        pytest.skip(run.skipped["chromium"])
    assert run.notes == []
    painted, listed = (
        run.samples[Cell("B11", "chromium", f"opened.{shown}_p50_ms")][0] for shown in ("painted", "listed")
    )
    assert painted > 0
    assert listed > 0


def shape(cell: Cell) -> str:
    """The metric's name, with each of its numbers as n; but for those behind a letter, as in p99."""
    return re.sub(r"\b\d+", "n", cell.metric)


def filled() -> Run:
    """A run of two rounds in which every rule of the full sizes finds what it needs."""
    run = Run({"date": "2026-01-31T09:00:00+00:00", "rounds": 2, "cores": 2, "cpu": "a <fast> one", "versions": {}})
    for cell in wanted():
        run.add(cell.bench, cell.system, 0, {cell.metric: 10.0})
        run.add(cell.bench, cell.system, 1, {cell.metric: 30.0})
    return run


def short_of_sessions() -> Run:
    """The same, but for one floor."""
    run = filled()
    for round_ in (0, 1):
        run.add("B3", "penstock", round_, {"sessions": 4.0})
    return run


class _Asked(dict[Cell, dict[int, float]]):
    """Notes which cells the rules look at."""

    def __init__(self) -> None:
        super().__init__()
        self.cells: set[Cell] = set()

    def get(self, cell: Cell, default: object = None) -> dict[int, float]:
        del default
        self.cells.add(cell)
        return {0: 1.0}


def wanted() -> set[Cell]:
    asked = _Asked()
    run = Run({}, samples=asked)
    for rule in RULES:
        rule.measure(run)
    return asked.cells


def test_rules_look_at_systems_and_sizes_that_there_are(tmp_path: Path) -> None:
    systems = {bench.name: set(bench.systems) for bench in benches(no_peers(tmp_path))}
    for cell in wanted():
        assert cell.system in systems[cell.bench], cell
    assert FULL.sessions == (1, 100, 1000)
    assert (FULL.batches, FULL.connections) == ((1, 50), (1, 64))


def test_rule_holds_of_the_median() -> None:
    rule = Rule("B1", "floor", "a figure", lambda run: run.spread(Cell("B1", "penstock", "x")), ">=", 2)
    run = Run({})
    assert Verdict(rule, rule.measure(run)).held is None
    for round_, value in enumerate((1.0, 2.0, 9.0)):
        run.add("B1", "penstock", round_, {"x": value})
    assert [verdict.held for verdict in judge(run, (rule,))] == [True]
    assert [verdict.held for verdict in judge(run, (evolve(rule, limit=2.1),))] == [False]
    assert [verdict.held for verdict in judge(run, (evolve(rule, bound="<="),))] == [True]
    assert judge(Run({}), (rule,)) == []


def test_ratio_is_taken_round_by_round() -> None:
    run = Run({})
    for round_, (own, other) in enumerate(((10.0, 1.0), (20.0, 2.0), (90.0, 3.0))):
        run.add("B1", "penstock", round_, {"x": own})
        run.add("B1", "peer", round_, {"x": other})
    run.add("B1", "penstock", 3, {"x": 1000.0})
    assert run.ratio(Cell("B1", "penstock", "x"), Cell("B1", "peer", "x")) == Spread(10.0, 10.0, 30.0, 3)


def test_json_brings_back_the_run(tmp_path: Path) -> None:
    run = filled()
    run.skipped["redis-always"] = "redis-server is not installed"
    run.notes.append("B2 round 1: raw-trio: late")
    run.took["B2"] = {0: 12.5}
    run.write(tmp_path / "run.json")
    assert Run.read(tmp_path / "run.json") == run
    assert json.loads((tmp_path / "run.json").read_text())["machine"]["cores"] == 2


def test_picture_is_sound_svg_without_anything_from_outside() -> None:
    run = filled()
    for x in (1, 10, 100):
        run.add("B9", "penstock", 0, {f"sessions[{x}].events_per_s": 1000.0 / x, f"sessions[{x}].p99_ms": 1.0 * x})
    drawn = plot(run)
    root = ET.fromstring(drawn)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert "prefers-color-scheme: dark" in drawn
    assert "a &lt;fast&gt; one" in drawn
    assert "against sessions" in drawn
    assert "nan" not in drawn
    for outside in ("href", "<script", "url("):
        assert outside not in drawn
    ET.fromstring(plot(Run({})))


def test_readme_section_stands_between_its_markers(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    update(readme, section([filled()]))
    text = readme.read_text()
    assert text.startswith(f"before\n{BEGIN}\n")
    assert text.endswith(f"\n{END}\nafter\n")
    assert "old" not in text
    assert "| sessions of 30 events/s held | 20 (10 to 30) | sse-starlette 20 |" in text
    update(readme, section([filled()]))
    assert readme.read_text() == text
    readme.write_text("nothing\n")
    with pytest.raises(ValueError):
        update(readme, section([filled()]))


def test_a_rule_is_met_by_runs_if_each_of_them_meets_it() -> None:
    good, bad = filled(), short_of_sessions()
    text, alone = ("\n".join(section(runs)) for runs in ([good, bad], [good]))
    floors = sum(rule.kind == "floor" for rule in RULES)
    held = [bool(said and said.held) for rule, (said,) in judge_each([good]) if rule.kind == "floor"]
    assert f"{sum(held)} of {floors} floors" in alone
    assert f"{sum(held) - 1} of {floors} floors" in text
    assert "median of 2 and 2 interleaved rounds, 2 runs" in text
    assert "| sessions of 30 events/s held | 7 (4 to 30) | sse-starlette 20 |" in text


def test_page_has_every_rule_and_what_each_run_says_of_it(tmp_path: Path) -> None:
    told = list(page([filled(), short_of_sessions()], benches(no_peers(tmp_path))))
    rule, found = "B3 | floor | paced sessions held, of sse-starlette | ≥ 0.45", "0.267 (0.133 to 0.4): **not met**"
    assert f"| {rule} | 1 (1 to 1): met | {found} |" in told
    assert sum(line.startswith("| B") for line in told) == len(RULES)


def test_a_run_of_some_benches_has_a_column_of_its_own(tmp_path: Path) -> None:
    whole, part = filled(), Run({"date": "2026-02-03T04:05:06", "rounds": 5})
    part.samples.update({cell: rounds for cell, rounds in whole.samples.items() if cell.bench == "B10"})
    told = list(page([whole, part], benches(no_peers(tmp_path))))
    assert any(line.startswith("- Run 2: B10; 5 rounds") and "2026-02-03" in line for line in told)
    assert "| B3 | floor | paced sessions held, of sse-starlette | ≥ 0.45 | 1 (1 to 1): met |  |" in told
    both, alone = (list(section(runs)) for runs in ([whole, part], [whole]))
    assert [line for line in both if line not in alone] == [line for line in both if "in each of their runs" in line]


def test_runs_are_joined_round_by_round() -> None:
    first, second = Run({"date": "1"}), Run({"date": "2"}, notes=["late"])
    first.add("B1", "penstock", 0, {"x": 1.0})
    first.add("B1", "penstock", 1, {"x": 2.0})
    second.add("B1", "penstock", 0, {"x": 3.0})
    second.add("B1", "peer", 0, {"x": 6.0})
    second.took["B1"] = {0: 5.0}
    joined = Run.joined([first, second])
    assert joined.samples == {
        Cell("B1", "penstock", "x"): {0: 1.0, 1: 2.0, 2: 3.0},
        Cell("B1", "peer", "x"): {2: 6.0},
    }
    assert joined.took == {"B1": {2: 5.0}}
    assert (joined.machine, joined.notes) == ({"date": "2"}, ["late"])
    assert Run.joined([first]) == first


def test_what_is_told_is_what_the_runs_say_that_are_kept(tmp_path: Path) -> None:
    folder = ROOT / "tests" / "benchmarks"
    runs = [Run.read(path) for path in sorted((folder / "runs").glob("*.json"))]
    text = (ROOT / "README.md").read_text()
    assert text.count(BEGIN) == text.count(END) == 1
    told = text.partition(f"{BEGIN}\n")[2].partition(f"\n{END}")[0]
    assert told.split("\n") == list(section(runs))
    assert (folder / "RESULTS.md").read_text().splitlines() == list(page(runs, benches(no_peers(tmp_path))))
    assert (folder / "performance.svg").read_text() == plot(Run.joined(shown(runs)))


def test_table_names_what_was_skipped_and_what_failed(tmp_path: Path) -> None:
    run = filled()
    run.skipped["redis-always"] = "redis-server is not installed"
    run.notes.append("B2 round 1: raw-trio: late")
    printed = "\n".join(table(run, benches(no_peers(tmp_path))))
    assert "skipped redis-always: redis-server is not installed" in printed
    assert "failed B2 round 1: raw-trio: late" in printed
    assert "20 (10 to 30)" in printed
    assert len(list(verdicts(judge(run)))) == len(RULES)


def test_peer_that_cannot_be_had_is_skipped_with_its_reason(tmp_path: Path) -> None:
    asked: list[str] = []

    def missing(_: Context) -> dict[str, float]:
        asked.append("missing")
        raise Unavailable("npm is not installed")

    def there(context: Context) -> dict[str, float]:
        asked.append("there")
        (context.folder / "file").touch()
        return {"x": 1.0}

    run = Run({})
    bench = Bench("B1", "", {"there": there, "missing": missing})
    sizes = evolve(TINY, rounds=3)
    measure([bench, bench], run, sizes=sizes, peers=no_peers(tmp_path), place=tmp_path)
    assert run.skipped == {"missing": "npm is not installed"}
    assert asked.count("missing") == 1
    assert len(run.samples[Cell("B1", "there", "x")]) == 3
    assert list(tmp_path.iterdir()) == []


def test_systems_take_turns_in_beginning_a_round(tmp_path: Path) -> None:
    order: list[str] = []

    def system(name: str) -> dict[str, float]:
        order.append(name)
        return {}

    bench = Bench("B1", "", {"a": lambda _: system("a"), "b": lambda _: system("b")})
    run = Run({})
    measure([bench], run, sizes=evolve(TINY, rounds=3), peers=no_peers(tmp_path), place=tmp_path)
    assert order == ["a", "b", "b", "a", "a", "b"]


def test_run_goes_on_with_the_rounds_that_it_has_not(tmp_path: Path) -> None:
    asked: list[str] = []
    broken = True

    def system(name: str) -> dict[str, float]:
        asked.append(name)
        if broken and asked.count("b") == 2:
            raise KeyboardInterrupt
        return {"x": float(len(asked))}

    def go_on(run: Run) -> None:
        bench = Bench("B1", "", {name: lambda _, name=name: system(name) for name in ("a", "b")})  # type: ignore[misc]
        path = tmp_path / "run.json"
        measure(
            [bench],
            run,
            sizes=evolve(TINY, rounds=3),
            peers=no_peers(tmp_path),
            place=tmp_path,
            save=lambda: run.write(path),
        )

    with pytest.raises(KeyboardInterrupt):
        go_on(Run({}))
    assert asked == ["a", "b", "b"]
    run, broken = Run.read(tmp_path / "run.json"), False
    assert run.samples == {Cell("B1", "a", "x"): {0: 1.0}, Cell("B1", "b", "x"): {0: 2.0}}
    go_on(run)
    assert asked == ["a", "b", "b", "b", "a", "a", "b"]  # the round that was not whole is made again
    assert set(run.took["B1"]) == set(run.samples[Cell("B1", "a", "x")]) == {0, 1, 2}
    assert Run.read(tmp_path / "run.json").samples == run.samples
    go_on(run)
    assert len(asked) == 7


def test_resumed_run_is_of_one_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "benches", lambda _: [Bench("B1", "", {"a": lambda _: {"x": 1.0}})])
    path = tmp_path / "run.json"
    arguments = ["--tiny", "--json", str(path), "--folder", str(tmp_path), "--resume"]
    first = CliRunner().invoke(command.main, arguments, catch_exceptions=False)
    assert first.exit_code == 0
    run = Run.read(path)
    assert run.machine["began"]
    assert "resumed" not in run.machine
    assert CliRunner().invoke(command.main, arguments, catch_exceptions=False).exit_code == 0
    assert Run.read(path) == run  # it was whole
    others = CliRunner().invoke(command.main, [*arguments, "--systems", "b"])
    assert others.exit_code == 2
    assert "its systems is all" in others.output
    del run.took["B1"]
    run.write(path)
    assert CliRunner().invoke(command.main, arguments, catch_exceptions=False).exit_code == 0
    run = Run.read(path)
    assert len(list(run.machine["resumed"])) == 1  # type: ignore[arg-type]
    run.machine = {**run.machine, "commit": "another"}
    run.write(path)
    refused = CliRunner().invoke(command.main, arguments)
    assert refused.exit_code == 2
    assert "its commit is another" in refused.output
    assert Run.read(path) == run


@pytest.mark.parametrize("truth", [0, 1, 7, 8, 9, 40, 60])
@pytest.mark.parametrize("guess", [1, 8, 60, 100])
def test_search_finds_the_largest_that_holds(truth: int, guess: int) -> None:
    tried: list[int] = []

    def holds(number: int) -> bool:
        tried.append(number)
        return number <= truth

    assert largest(holds, guess, 60) == truth
    assert len(tried) == len(set(tried))
    assert all(1 <= number <= 60 for number in tried)


def test_power_of_growth() -> None:
    assert power({1: 2.0, 10: 20.0, 100: 200.0}) == pytest.approx(1)
    assert power({1: 3.0, 10: 300.0}) == pytest.approx(2)
    assert power({1: 5.0, 10: 5.0}) == pytest.approx(0)
    assert power({1: 50.0, 10: 50.0, 100: 5000.0}) == pytest.approx(2)


def test_the_stamp_is_found_in_what_peers_send() -> None:
    made = payload.stamped(17, 64)
    assert len(made) == 64
    found = payload.STAMP.match(made.encode())
    assert found is not None
    assert int(found[1]) == 17
    assert found.end() == payload.LONGEST
    body = payload.body("s", 1, made)
    assert json.loads(body)["data"]["text"] == made
    assert body.encode().count(payload.MARK) == 1


def test_delays() -> None:
    assert Delays.of([]) == Delays(p50=0, p99=0, most=0)
    assert Delays.of([n * 10**9 for n in range(1, 101)]) == Delays(p50=51, p99=100, most=100)
