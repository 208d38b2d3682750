"""What `tail` and `send` share: the option that names the server, and the terminal they write to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar, final

import click

from engine import Event

from .render import Transcript, clean

__all__ = ["Screen", "url_option"]

_Command = TypeVar("_Command", bound=Callable[..., object])

_NOTES: Final = {
    "gap": "a gap: {}",
    "end": "the session has ended: {}",
    "drain": "the server is shutting down",
    "degraded": "the server cannot store anything right now",
}


def url_option(command: _Command) -> _Command:
    """Adds ``--url``."""
    return click.option(
        "--url",
        default="http://127.0.0.1:8420",
        show_default=True,
        envvar="PENSTOCK_URL",
        show_envvar=True,
        help="The server.",
    )(command)


@final
class Screen:
    """The terminal: what is said in the session goes to stdout, what is to be known about it to stderr."""

    def __init__(self) -> None:
        self._transcript = Transcript()

    def show(self, event: Event) -> None:
        if text := self._transcript.render(event):
            click.echo(text, nl=False)

    def control(self, name: str, data: str) -> None:
        """Tell of a control frame, if a person needs to know it."""
        if name in _NOTES:
            self.note(_NOTES[name].format(clean(data)))

    def note(self, text: str) -> None:
        if line_end := self._transcript.interrupt():
            click.echo(line_end, nl=False)
        click.echo(click.style(f"[{text}]", dim=True), err=True)
