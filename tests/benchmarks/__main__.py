"""``python -m tests.benchmarks``: measure, judge, write what was found. See README.md beside this."""

from __future__ import annotations

import os
import resource
import tempfile
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import attrs
import click

from penstock.engine import JSONObject
from tests.benchmarks.bench import Bench
from tests.benchmarks.children import ROOT
from tests.benchmarks.machine import describe
from tests.benchmarks.peers.install import Peers
from tests.benchmarks.plot import plot
from tests.benchmarks.readme import PICTURE, RESULTS, page, section, shown, update
from tests.benchmarks.rounds import benches, measure
from tests.benchmarks.rules import judge
from tests.benchmarks.samples import Run
from tests.benchmarks.sizes import FULL, QUICK, TINY
from tests.benchmarks.table import table, verdicts

_SIZES = {sizes.name: sizes for sizes in (FULL, QUICK, TINY)}

_CACHE = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "penstock-benchmarks"

_PATH = click.Path(dir_okay=False, path_type=Path)


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--only", metavar="B1,B4", help="These benches.  [default: all]")
@click.option("--systems", metavar="NAME,NAME", help="These systems.  [default: all]")
@click.option("--rounds", type=click.IntRange(1, 50), help="Of each measurement.  [default: 5]")
@click.option("--quick", "sizes", flag_value="quick", help="A look in some minutes; no figures to quote.")
@click.option("--tiny", "sizes", flag_value="tiny", help="Just enough to see that everything runs.")
@click.option("--json", "json_path", type=_PATH, help="Write all figures to this file, round by round.")
@click.option("--resume", is_flag=True, help="Go on with the run in the file of --json, if there is one.")
@click.option("--svg", "svg_path", type=_PATH, help="Write the picture to this file.")
@click.option("--table", "tables", is_flag=True, help="Print all figures, not the rules alone.")
@click.option("--from", "given", type=_PATH, multiple=True, help="Measure nothing: take the figures from these files.")
@click.option("--readme", is_flag=True, help="Write the README's section, RESULTS.md and the picture of both.")
@click.option("--peers", type=click.Path(file_okay=False, path_type=Path), default=_CACHE, show_default=True)
@click.option("--folder", type=click.Path(exists=True, file_okay=False, path_type=Path), help="On the disk to measure.")
@click.option("--strict", is_flag=True, help="Exit with 1 if a floor is not met.")
def main(
    only: str | None,
    systems: str | None,
    rounds: int | None,
    sizes: str | None,
    json_path: Path | None,
    resume: bool,
    svg_path: Path | None,
    tables: bool,
    given: tuple[Path, ...],
    readme: bool,
    peers: Path,
    folder: Path | None,
    strict: bool,
) -> None:
    """Measure penstock and its peers in the same run, in turns, and hold the figures against the rules.

    \b
    Examples:
      python -m tests.benchmarks --json run.json --svg tests/benchmarks/performance.svg --table
      python -m tests.benchmarks --only B1,B4 --rounds 3 --table
      python -m tests.benchmarks --from run1.json --from run2.json --readme
    """
    _raise_descriptors()
    cached = Peers(peers.absolute())
    known = {bench.name: bench for bench in benches(cached)}
    if resume and json_path is None:
        raise click.UsageError("--resume needs --json: the file of the run that is to go on")
    chosen = list(known) if only is None else [name.strip().upper() for name in only.split(",")]
    unknown = [name for name in chosen if name not in known]
    if unknown:
        raise click.BadParameter(f"there is no {unknown[0]}; there are {', '.join(known)}", param_hint="--only")
    if given:
        runs = [_only(chosen, Run.read(path)) for path in given]
    else:
        size = _SIZES[sizes or "full"]
        size = attrs.evolve(size, rounds=rounds or size.rounds)
        place = folder or Path(tempfile.gettempdir())
        told = {**describe(size, cached, place), "systems": systems or "all"}
        run = _begin(told, json_path if resume else None)
        began = time.monotonic()

        def save() -> None:
            now = describe(size, cached, place)
            run.machine = {**run.machine, "date": now["date"], "versions": now["versions"]}  # the peers are there now
            if json_path is not None:
                run.write(json_path)

        try:
            measure(
                [known[name] for name in chosen],
                run,
                sizes=size,
                peers=cached,
                place=place,
                systems=None if systems is None else [name.strip() for name in systems.split(",")],
                tell=lambda text: click.echo(f"{timedelta(seconds=round(time.monotonic() - began))}  {text}", err=True),
                save=save,
            )
        except KeyboardInterrupt:
            if json_path is not None:
                click.echo(
                    f"stopped; {json_path} has the rounds that are whole: --resume goes on behind them", err=True
                )
            raise
        runs = [run]
    found = Run.joined(runs)
    if given and json_path is not None:
        found.write(json_path)
    if svg_path is not None:
        svg_path.write_text(plot(found))
    if readme:
        _tell(runs, list(known.values()))
    for line in table(found, list(known.values())) if tables else ():
        click.echo(line)
    judged = judge(found)
    for line in verdicts(judged):
        click.echo(line)
    if strict and any(v.held is False and v.rule.kind == "floor" for v in judged):
        raise SystemExit(1)


# A run goes on where these are as they were: else its rounds would not be of one thing.
_SAME = ("commit", "sizes", "rounds", "cpu", "cores", "file_system", "systems")


def _begin(told: JSONObject, path: Path | None) -> Run:
    """A new run; or the one in the file, if there is one."""
    if path is None or not path.exists():
        return Run({**told, "began": told["date"]})
    run = Run.read(path)
    for name in _SAME:
        if run.machine.get(name) != told[name]:
            raise click.UsageError(f"{path} cannot go on: its {name} is {run.machine.get(name)}, now {told[name]}")
    resumed = run.machine.get("resumed")
    run.machine = {**run.machine, "resumed": [*(resumed if isinstance(resumed, list) else ()), told["date"]]}
    return run


def _raise_descriptors() -> None:
    """For thousands of connections, here and in every process that is started from here."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _only(names: Sequence[str], run: Run) -> Run:
    return attrs.evolve(run, samples={cell: found for cell, found in run.samples.items() if cell.bench in names})


def _tell(runs: Sequence[Run], known: Sequence[Bench]) -> None:
    """In the README, and in what it links."""
    results = ROOT / RESULTS
    results.with_name(PICTURE).write_text(plot(Run.joined(shown(runs))))
    results.write_text("\n".join(page(runs, known)) + "\n")
    update(ROOT / "README.md", section(runs))


if __name__ == "__main__":
    main()
