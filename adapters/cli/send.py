"""``penstock send``: start an answer and follow it to its end."""

from __future__ import annotations

import json
import secrets
import sys

import click

from engine import JSON, Event, GenerationFinished, QueuePaused, QueueResumed, decode

from .client import ClientError, Server, session_path
from .render import ending
from .screen import Screen, url_option

__all__ = ["send"]


def _input(_: click.Context, __: click.Parameter, value: str | None) -> JSON:
    if value is None:
        return None
    try:
        parsed: JSON = json.loads(value)
    except ValueError as error:
        raise click.BadParameter(f"this is no JSON: {error}") from error
    return parsed


@click.command()
@click.argument("session")
@click.argument("text")
@url_option
@click.option("--producer", help="Who answers; else the server's default.")
@click.option(
    "--policy",
    default="supersede",
    show_default=True,
    type=click.Choice(["supersede", "rollback", "queue", "latest", "reject"]),
    help="What to do while an answer is running.",
)
@click.option("--input", "input_", metavar="JSON", callback=_input, help="The producer's input, as JSON.")
def send(session: str, text: str, url: str, producer: str | None, policy: str, input_: JSON) -> None:
    """Say TEXT in SESSION (created if need be) and show the answer as it comes. TEXT '-' is read from stdin.

    An answer that is running in the session is superseded, or as --policy says: taken back as well (rollback),
    waited for (queue; latest: in place of those that wait), or not touched (reject). Ctrl-C leaves the answer
    running, or waiting, on the server. Exit code 0 if the answer was completed, 1 if it ended otherwise.

    \b
    Examples:
      penstock send chat "tell me a story"
      penstock send chat "and after that?" --policy queue
      penstock send chat "slowly, please" --producer echo --input '{"delay": 0.5}'
    """
    if text == "-":
        text = sys.stdin.read()
    body: dict[str, JSON] = {"text": text, "policy": policy}
    if producer is not None:
        body["producer"] = producer
    if input_ is not None:
        body["input"] = input_
    screen = Screen()
    try:
        with Server(url, note=screen.note) as server:
            server.request("PUT", session_path(session), {})
            started = server.request("POST", f"{session_path(session)}/generations", body, key=secrets.token_hex(16))
            if "position" in started:
                screen.note(f"waiting at place {started['position']}")
            end = _follow(server, screen, session, str(started["cursor"]), str(started["generation_id"]))
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except ClientError as error:
        raise click.ClickException(str(error)) from error
    if end is None or end.outcome != "completed":
        raise SystemExit(1)


def _follow(server: Server, screen: Screen, session: str, after: str, generation_id: str) -> GenerationFinished | None:
    """Show that generation's events; its end, or None if there will be none to see."""
    for frame in server.follow(session, after):
        if frame.control == "gap":
            screen.note("the server has lost its place in this session; what came of the answer is not known")
            return None
        if frame.control is not None:
            continue
        event: Event = decode(frame.data.encode())
        if event.generation_id != generation_id and not isinstance(event.data, QueuePaused | QueueResumed):
            continue  # of others; whether the queue is held concerns us while we wait
        if isinstance(event.data, GenerationFinished):
            if event.data.outcome != "completed":
                screen.note(ending(event.data))
            return event.data
        screen.show(event)
    screen.note("the session has ended")
    return None
