"""``penstock backup`` and ``penstock restore``: a copy of a database, also of one that is served, and the way back."""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable
from typing import TypeVar

import click
import trio

from penstock.engine import CopyProgress, PenstockError, back_up
from penstock.engine import restore as put_back

from .places import is_url, there
from .report import amount

__all__ = ["backup", "restore"]

_T = TypeVar("_T")


def _file(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    if is_url(value):
        raise click.UsageError(
            "this is for database files: `penstock log copy` copies a log from and into stores, with their URLs"
        )
    return value


def _file_there(context: click.Context, parameter: click.Parameter, value: str) -> str:
    return there(context, parameter, _file(context, parameter, value))


@click.command()
@click.argument("db", callback=_file_there)
@click.argument("file", callback=_file)
def backup(db: str, file: str) -> None:
    """Copy the database DB to FILE, while a server has it open or not.

    FILE must not be there yet. It gets what was stored at one moment, without the room that the database no longer
    needs, and is readable by you only. It has its name once it is whole, checked and on the disk; until then it is
    FILE.part, which Ctrl-C removes.

    \b
    Examples:
      penstock backup penstock.db /backups/penstock-monday.db
      penstock backup penstock.db "backup-$(date +%F).db"
    """
    _carried_out(lambda show: back_up(db, file, progress=show))
    click.echo(f"{db} was copied to {file}: {amount(os.path.getsize(file))}, checked.")


@click.command()
@click.argument("file", callback=_file_there)
@click.argument("db", callback=_file)
def restore(file: str, db: str) -> None:
    """Put a copy of FILE, which `backup` has made, in the place of the database DB. No server may have it open.

    FILE stays as it is. What was at DB is kept beside it, under a name that is printed; remove it once you are sure.

    \b
    Examples:
      penstock restore /backups/penstock-monday.db penstock.db
    """
    kept = _carried_out(lambda show: put_back(file, db, progress=show))
    click.echo(f"{db} holds what {file} does: {amount(os.path.getsize(db))}, checked.")
    if kept is not None:
        click.echo(f"What was there is kept as {kept}")


def _carried_out(work: Callable[[Callable[[CopyProgress], None]], Awaitable[_T]]) -> _T:
    async def run() -> _T:
        with click.progressbar(length=1, label="copying", file=sys.stderr) as bar:

            def show(progress: CopyProgress) -> None:
                bar.label = progress.phase
                bar.length = max(1, progress.total)
                bar.update(min(progress.done, bar.length) - bar.pos)

            return await work(show)

    try:
        return trio.run(run)
    except KeyboardInterrupt:
        click.echo("Interrupted; everything is as it was.", err=True)
        raise SystemExit(130) from None
    except PenstockError as error:
        raise click.ClickException(error.detail) from error
