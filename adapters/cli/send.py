"""``penstock send``: start an answer and follow it to its end."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final, final

import click

from penstock.engine import (
    JSON,
    ApprovalRequested,
    ApprovalResolved,
    Event,
    Gap,
    GenerationFinished,
    InvalidBody,
    PolicyName,
    Queued,
    QueuePaused,
    QueueResumed,
    decode_json,
)

from ..client import Arrived, RemoteSession
from ..tasks import open_tasks
from .asking import Questions, can_ask, demand, how_to_answer
from .client import PATIENCE, Following, connected, run, server_options, token_source
from .render import ending
from .screen import Screen

__all__ = ["send"]


def _input(_: click.Context, __: click.Parameter, value: str | None) -> JSON:
    if value is None:
        return None
    try:
        return decode_json(value.encode())
    except (InvalidBody, UnicodeEncodeError) as error:
        raise click.BadParameter(f"this is {error}") from error


@click.command()
@click.argument("session")
@click.argument("text")
@server_options
@click.option("--producer", help="Who answers; else the server's default.")
@click.option(
    "--policy",
    default="supersede",
    show_default=True,
    type=click.Choice(["supersede", "rollback", "queue", "latest", "reject"]),
    help="What to do while an answer is running.",
)
@click.option("--input", "input_", metavar="JSON", callback=_input, help="The producer's input, as JSON.")
def send(
    session: str,
    text: str,
    url: str,
    token_file: Path | None,
    producer: str | None,
    policy: PolicyName,
    input_: JSON,
) -> None:
    """Say TEXT in SESSION (created if need be) and show the answer as it comes. TEXT '-' is read from stdin.

    An answer that is running in the session is superseded, or as --policy says: taken back as well (rollback),
    waited for (queue; latest: in place of those that wait), or not touched (reject). Ctrl-C leaves the answer
    running, or waiting, on the server. What it asks approval for is asked at the terminal; where there is none, or
    you leave the question with Ctrl-D, 'penstock approve' answers it. Exit code 0 if the answer was completed, 1 if
    it ended otherwise.

    \b
    Examples:
      penstock send chat "tell me a story"
      penstock send chat "and after that?" --policy queue
      penstock send chat "slowly, please" --producer echo --input '{"delay": 0.5}'
    """
    if text == "-":
        text = sys.stdin.read()
    screen, token = Screen(), token_source(token_file)

    async def converse() -> GenerationFinished | None:
        # A server that was never there is an error at once; one that goes away behind this comes back.
        async with connected(url, token) as client:
            await client.create_session(session)
        async with connected(url, token, patience=PATIENCE) as client:
            handle = client.session(session)
            started = await handle.start(producer, text=text, policy=policy, input=input_)
            if isinstance(started, Queued):
                screen.note(f"waiting at place {started.position}")
            approvals = _Approvals(screen, handle, started.generation_id, url)
            async with handle.events(started.cursor) as events, open_tasks() as tasks:
                tasks.start_soon(approvals.questions.run)
                return await _show(Following(events, screen.note), screen, started.generation_id, approvals)

    end = run(converse)
    if end is None or end.outcome != "completed":
        raise SystemExit(1)


@final
class _Approvals:
    """What one answer asks for: asked at the terminal, or told with the way to answer it."""

    def __init__(self, screen: Screen, session: RemoteSession, generation_id: str, url: str) -> None:
        self.questions: Final = Questions(screen, self._reply, self._hint)
        self._screen = screen
        self._session = session
        self._generation_id = generation_id
        self._url = url
        self._asks = can_ask()

    def show(self, event: Event) -> None:
        """Show an event of the answer."""
        if isinstance(event.data, ApprovalRequested) and self._asks:
            self.questions.add(event.data.approval_id, demand(event.data.name, event.data.arguments))
            return
        if isinstance(event.data, ApprovalResolved):
            self.questions.drop(event.data.approval_id)
        self._screen.show(event)
        if isinstance(event.data, ApprovalRequested):
            self._screen.note(self._hint(event.data.approval_id))

    async def _reply(self, approval_id: str, approved: bool) -> None:
        answer: dict[str, JSON] = {"approval_id": approval_id, "approved": approved}
        await self._session.input(self._generation_id, "approval", answer)

    def _hint(self, approval_id: str) -> str:
        return how_to_answer(self._session.session_id, approval_id, self._url)


async def _show(
    following: Following, screen: Screen, generation_id: str, approvals: _Approvals
) -> GenerationFinished | None:
    """Show that generation's events; its end, or None if there will be none to see."""
    async for delivery in following:
        if isinstance(delivery, Gap):
            screen.note("the server has lost its place in this session; what came of the answer is not known")
            return None
        for event in delivery.events if isinstance(delivery, Arrived) else ():
            if event.generation_id != generation_id and not isinstance(event.data, QueuePaused | QueueResumed):
                continue  # of others; whether the queue is held concerns us while we wait
            if isinstance(event.data, GenerationFinished):
                if event.data.outcome != "completed":
                    screen.note(ending(event.data))
                return event.data
            approvals.show(event)
    screen.note("the session has ended")
    return None
