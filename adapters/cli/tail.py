"""``penstock tail``: follow a session in a terminal."""

from __future__ import annotations

from pathlib import Path

import click

from penstock.engine import encode

from ..client import Arrived
from .client import Following, connected, run, server_options, token_source
from .screen import Screen

__all__ = ["tail"]


@click.command()
@click.argument("session")
@server_options
@click.option("--after", metavar="CURSOR", help="Begin behind this cursor ('now': the tail); else from the start.")
@click.option("--json", "as_json", is_flag=True, help="Print each event as one line of JSON.")
def tail(session: str, url: str, token_file: Path | None, after: str | None, as_json: bool) -> None:
    """Follow SESSION and show what is said in it, from its start, until Ctrl-C.

    A connection that breaks is taken up where it broke off: nothing is missed, nothing comes twice.

    \b
    Examples:
      penstock tail chat
      penstock tail chat --after now --json | jq .type
    """
    screen = Screen()

    async def follow() -> None:
        async with (
            connected(url, token_source(token_file)) as client,
            client.session(session).events(after) as events,
        ):
            async for delivery in Following(events, screen.note):
                if not isinstance(delivery, Arrived):
                    screen.control(delivery)
                    continue
                for event in delivery.events:
                    if as_json:
                        click.echo(encode(event))
                    else:
                        screen.show(event)

    run(follow)
