"""``penstock tail``: follow a session in a terminal."""

from __future__ import annotations

import click

from engine import decode

from .client import ClientError, Server
from .screen import Screen, url_option

__all__ = ["tail"]


@click.command()
@click.argument("session")
@url_option
@click.option("--after", metavar="CURSOR", help="Begin behind this cursor ('now': the tail); else from the start.")
@click.option("--json", "as_json", is_flag=True, help="Print each event as one line of JSON, as it came.")
def tail(session: str, url: str, after: str | None, as_json: bool) -> None:
    """Follow SESSION and show what is said in it, from its start, until Ctrl-C.

    A connection that breaks is taken up where it broke off: nothing is missed, nothing comes twice.

    \b
    Examples:
      penstock tail chat
      penstock tail chat --after now --json | jq .type
    """
    screen = Screen()
    try:
        with Server(url, note=screen.note) as server:
            for frame in server.follow(session, after):
                if frame.control is not None:
                    screen.control(frame.control, frame.data)
                elif as_json:
                    click.echo(frame.data)
                else:
                    screen.show(decode(frame.data.encode()))
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except ClientError as error:
        raise click.ClickException(str(error)) from error
