"""``penstock stop``: end the answer that runs in a session."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

import click

from penstock.engine import Stopped, StopState

from .client import connected, run, server_options, token_source

__all__ = ["stop"]

_WORDS: Final[dict[StopState, str]] = {
    "stopped": "stopped; what was said is kept",
    "stopping": "stopped; its clean-up is still running",
    "already_done": "it had ended already",
    "nothing_active": "nothing was running",
    "pending": "nobody has seen this answer yet; if it starts within a minute, it is stopped at once",
}


@click.command()
@click.argument("session")
@click.argument("generation_id", required=False)
@server_options
@click.option("--reason", metavar="TEXT", default="stopped", show_default=True, help="Why; for those who follow.")
@click.option(
    "--queue",
    default="pause",
    show_default=True,
    type=click.Choice(["pause", "continue", "clear"]),
    help="What becomes of those that wait.",
)
def stop(
    session: str,
    generation_id: str | None,
    url: str,
    token_file: Path | None,
    reason: str,
    queue: Literal["pause", "continue", "clear"],
) -> None:
    """Stop the answer that runs in SESSION, or the one with GENERATION_ID, also while it waits.

    It says what happened. Exit code 0 also where nothing was running.

    \b
    Examples:
      penstock stop chat
      penstock stop chat --queue continue        the next one that waits takes its turn
    """

    async def end() -> Stopped:
        async with connected(url, token_source(token_file)) as client:
            return await client.session(session).stop(generation_id, reason=reason, queue=queue)

    click.echo(_WORDS[run(end).state])
