"""``penstock bench``: how fast the engine is on this machine, and its event streams.

A look, not a proof: one run of a few seconds. The suite that compares, over several rounds, is ``tests/benchmarks``
in the source.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import click

from penstock.engine import PenstockError

__all__ = ["bench"]


@click.command()
@click.option("--events", default=20_000, show_default=True, type=click.IntRange(min=100, max=1_000_000))
@click.option("--viewers", default=100, show_default=True, type=click.IntRange(min=1, max=900))
@click.option(
    "--folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="On the disk that is to be measured; what is made there is removed.  [default: the system's temporary one]",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")
def bench(events: int, viewers: int, folder: Path | None, as_json: bool) -> None:
    """Measure how fast this machine writes events durably, and delivers them.

    Starts a server of its own on a free port of this machine, with a database of its own, and ends it. Takes some
    seconds. What else the machine does shows in the figures.

    \b
    Examples:
      penstock bench
      penstock bench --folder /var/lib/chat --json
    """
    from .measures import Figure, figures  # noqa: PLC0415  so that other commands start without its weight
    from .serving import BenchError  # noqa: PLC0415

    found: list[Figure] = []
    try:
        with tempfile.TemporaryDirectory(prefix="penstock-bench-", dir=folder) as made:
            for figure in figures(Path(made), events, viewers):
                found.append(figure)
                if not as_json:
                    note = f"  ({figure.note})" if figure.note else ""
                    click.echo(
                        f"{figure.name:<42}{figure.value:>14,.{3 if figure.value < 100 else 0}f} {figure.unit}{note}"
                    )
    except PenstockError as error:
        raise click.ClickException(error.detail) from error
    except (BenchError, OSError) as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        made_of = [{"name": f.name, "value": f.value, "unit": f.unit, "note": f.note} for f in found]
        click.echo(json.dumps({"figures": made_of}, indent=2))
