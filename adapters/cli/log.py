"""``penstock log``: what is done to a log as a whole, whichever store it is in."""

from __future__ import annotations

import sys
from functools import partial

import click
import trio

from penstock.engine import Copied, PenstockError, Progress, copy_log, open_log, rebase_log

from .places import name_of, open_to_read, place, there
from .render import clean

__all__ = ["log"]


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def log() -> None:
    """Copy a log from one store into another, or have it go on behind a backup."""


@log.command()
@click.argument("source", callback=there)
@click.argument("destination", callback=place)
@click.option("--allow-weak-store", is_flag=True, help="DESTINATION may be a store that loses what it acknowledged.")
def copy(source: str, destination: str, allow_weak_store: bool) -> None:
    """Copy all sessions of SOURCE into DESTINATION, which must be empty, and compare what is there then.

    Each is a database file (FILE or sqlite:FILE), a Redis or a Postgres by its URL, or env:NAME, a variable that has
    one of these, so that no password stands in the list of processes. Clients go on with their cursors.

    Stop the server of SOURCE first, if DESTINATION is to take its place. Beside one, each session is copied as it was
    at some moment, and an answer that was under way ends there, as lost. What is interrupted leaves a DESTINATION that
    no server opens; remove it, and copy again. The exit code is 1 when a session cannot be read and was left out.

    \b
    Examples:
      penstock log copy penstock.db redis://127.0.0.1:6379/0
      penstock log copy redis://127.0.0.1:6379/0 'postgres://127.0.0.1/chat?schema=penstock'
      penstock log copy env:PENSTOCK_LOG /backups/monday.db
    """
    if source == destination:
        raise click.UsageError("SOURCE and DESTINATION are one place")
    try:
        copied = trio.run(_copy, source, destination, allow_weak_store)
    except KeyboardInterrupt:
        click.echo(f"Interrupted. What is in {name_of(destination)} is not whole; remove it.", err=True)
        raise SystemExit(130) from None
    except PenstockError as error:
        raise click.ClickException(error.detail) from error
    for session_id, why in copied.left_out.items():
        click.echo(f"session {clean(session_id)} was left out: {clean(why)}", err=True)
    click.echo(
        f"{name_of(source)} was copied to {name_of(destination)}: "
        f"{copied.sessions} sessions, {copied.events} events, compared."
    )
    if copied.left_out:
        raise SystemExit(1)


@log.command()
@click.argument("place", metavar="LOG", callback=there)
def rebase(place: str) -> None:
    """Have every session of LOG go on in a new epoch: after its store was restored from a backup.

    Clients may have seen what the backup does not have: whoever resumes gets a gap, and all of the session anew. LOG
    is named as for `penstock log copy`. Servers of a store may be at work; a file must not be in use.

    \b
    Examples:
      penstock log rebase env:PENSTOCK_LOG
    """
    try:
        trio.run(partial(rebase_log, place, allow_weak_store=True))
    except KeyboardInterrupt:
        click.echo("Interrupted; do it again.", err=True)
        raise SystemExit(130) from None
    except PenstockError as error:
        raise click.ClickException(error.detail) from error
    click.echo(f"Every session of {name_of(place)} goes on in a new epoch.")


async def _copy(source: str, destination: str, allow_weak_store: bool) -> Copied:
    read = await open_to_read(source)
    try:
        written = await open_log(destination, allow_weak_store=allow_weak_store)
        try:
            with click.progressbar(length=1, label="copying", file=sys.stderr) as bar:

                def show(progress: Progress) -> None:
                    bar.length = max(1, progress.total)
                    bar.update(progress.done - bar.pos)

                return await copy_log(read, written, progress=show)
        finally:
            await written.aclose()
    finally:
        await read.aclose()
