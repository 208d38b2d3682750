"""``penstock inspect``: what a database holds, and whether it is sound. Writes nothing, and works beside a server."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Final, final

import click
import trio
from attrs import asdict, define, field

from engine import FileState, Head, PenstockError, SqliteReader, StaleEpoch, StorageError, open_sqlite_reader
from engine.testing import StoredSession, check_session

from .render import clean

__all__ = ["inspect", "size"]

_PAGE: Final = 200


@click.command()
@click.argument("db", type=click.Path(exists=True, dir_okay=False))
@click.option("--session", metavar="ID", help="Look at this session only, and not at the file as a whole.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")
def inspect(db: str, session: str | None, as_json: bool) -> None:
    """Show what the database DB holds and check that it is sound.

    Every session is held against the rules that the engine guarantees, and the file against SQLite's own checks. Nothing
    is written and no lock is taken, so a server may have the database open. The exit code is 1 when something is wrong.

    \b
    Examples:
      penstock inspect penstock.db
      penstock inspect penstock.db --session demo
      penstock inspect penstock.db --json | jq '.sessions[] | select(.live)'
    """
    report = _JsonReport() if as_json else _TextReport()
    try:
        trio.run(_inspect, db, session, report)
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except PenstockError as error:
        raise click.ClickException(error.detail) from error
    if report.wrong:
        raise SystemExit(1)


async def _inspect(db: str, session: str | None, report: _Report) -> None:
    reader = await open_sqlite_reader(db)
    try:
        integrity = await reader.check_integrity() if session is None else None
        report.file(await reader.state(), integrity)
        async with aclosing(_heads(reader, session)) as heads:
            async for head in heads:
                try:
                    report.session(await check_session(reader, head))
                except StaleEpoch:
                    pass  # deleted meanwhile
        report.end()
    finally:
        await reader.aclose()


async def _heads(reader: SqliteReader, session: str | None) -> AsyncIterator[Head]:
    if session is not None:
        head = await reader.head(session)
        if head is None or head.deleted:
            raise StorageError(f"there is no session {session!r} in this database" if head is None else f"{session!r} was deleted")
        yield head
        return
    after = ""
    while heads := await reader.heads(after=after, limit=_PAGE):
        for head in heads:
            yield head
        after = heads[-1].session_id
