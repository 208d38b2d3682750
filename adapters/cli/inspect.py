"""``penstock inspect``: what a log holds, and whether it is sound. Writes nothing, and works beside a server."""

from __future__ import annotations

import contextlib
from typing import Final

import click
import trio

from penstock.engine import EventLog, Head, PenstockError, SessionNotFound, SqliteReader, StaleEpoch
from penstock.engine.testing import check_session

from .places import name_of, open_to_read, there
from .report import JsonReport, Report, TextReport

__all__ = ["inspect"]

_PAGE: Final = 200


@click.command()
@click.argument("db", callback=there)
@click.option("--session", metavar="ID", help="Look at this session only, and not at the file as a whole.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")
def inspect(db: str, session: str | None, as_json: bool) -> None:
    """Show what the database DB holds and check that it is sound.

    Every session is held against the rules that the engine guarantees, and the file against SQLite's own checks.
    Nothing is written and no lock is taken, so a server may have the database open. The exit code is 1 when
    something is wrong.

    DB may be the URL of a store, or env:NAME, a variable that has it. A store that has no log there gets an empty one.

    \b
    Examples:
      penstock inspect penstock.db
      penstock inspect penstock.db --session demo
      penstock inspect penstock.db --json | jq '.sessions[] | select(.live)'
    """
    report: Report = JsonReport() if as_json else TextReport()
    try:
        trio.run(_inspect, db, session, report)
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except PenstockError as error:
        raise click.ClickException(error.detail) from error
    if report.wrong:
        raise SystemExit(1)


async def _inspect(db: str, session: str | None, report: Report) -> None:
    reader = await open_to_read(db)
    try:
        head = None
        if session is not None:
            head = await reader.head(session)
            if head is None or head.deleted:
                gone = "was deleted" if head is not None else "is not in this database"
                raise SessionNotFound(f"the session {session!r} {gone}")
        if isinstance(reader, SqliteReader):
            report.file(await reader.state(), await reader.check_integrity() if head is None else None)
        else:
            report.store(name_of(db))
        if head is not None:
            await _look(reader, head, report)
        else:
            after = ""
            while heads := await reader.heads(after=after, limit=_PAGE):
                for head in heads:
                    await _look(reader, head, report)
                after = heads[-1].session_id
        report.end()
    finally:
        await reader.aclose()


async def _look(reader: EventLog, head: Head, report: Report) -> None:
    with contextlib.suppress(StaleEpoch):  # deleted meanwhile
        report.session(await check_session(reader, head))
