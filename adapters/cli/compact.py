"""``penstock compact``: compaction by hand, of a database that no server has open, or of a store."""

from __future__ import annotations

import os
import sys

import click
import trio

from penstock.engine import (
    CompactionStatistics,
    Compactor,
    Config,
    EventLog,
    PenstockError,
    Progress,
    open_log,
    open_sqlite,
    open_sqlite_reader,
)

from .places import is_url, there
from .report import amount

__all__ = ["compact"]


@click.command()
@click.argument("db", callback=there)
@click.option(
    "--older-than",
    metavar="SECONDS",
    default=Config().compact_after,
    show_default=True,
    type=click.FloatRange(min=0),
    help="Only messages that were closed so long ago; 0: all of them.",
)
def compact(db: str, older_than: float) -> None:
    """Make the database DB smaller: of messages that are closed, keep what they say and not every piece it came in.

    A server does this by itself, an hour after a message was closed. Stop it first: one database has one process. It
    may be interrupted at any time and goes on where it was. The file keeps its size, and uses the room again.

    DB may be the URL of a store, or env:NAME, a variable that has it. Servers with names may go on there meanwhile.

    \b
    Examples:
      penstock compact penstock.db
      penstock compact penstock.db --older-than 0
    """
    try:
        done = trio.run(_compact, db, older_than)
        room = "" if is_url(db) else f"; {amount(trio.run(_free, db))} of {amount(os.path.getsize(db))} are free now"
    except KeyboardInterrupt:
        click.echo("Interrupted; what was done stays done.", err=True)
        raise SystemExit(130) from None
    except PenstockError as error:
        raise click.ClickException(error.detail) from error
    click.echo(f"{done.messages} messages compacted, {done.events} events removed{room}.")


async def _compact(db: str, older_than: float) -> CompactionStatistics:
    log: EventLog
    if is_url(db):
        log = await open_log(db, allow_weak_store=True)  # that was decided by who writes to it
    else:
        log = await open_sqlite(db, progress=_show_upgrade)
    try:
        compactor = Compactor(log, Config(compact_after=older_than))
        with click.progressbar(length=1, label="compacting", file=sys.stderr) as bar:

            def show(progress: Progress) -> None:
                bar.length = progress.total
                bar.update(progress.done - bar.pos)

            return await compactor.compact_all(show)
    finally:
        await log.aclose()


def _show_upgrade(done: int, total: int) -> None:
    end = "\n" if done == total else "\r"
    click.echo(f"bringing it up to date: {done} of {total} rows{end}", err=True, nl=False)


async def _free(db: str) -> int:
    reader = await open_sqlite_reader(db)
    try:
        return (await reader.state()).free
    finally:
        await reader.aclose()
