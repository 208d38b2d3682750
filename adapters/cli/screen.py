"""The terminal that the commands write to which speak to a server."""

from __future__ import annotations

from typing import final

import click

from penstock.engine import Degraded, Drained, Ended, Event, Gap

from ..client import Delivery
from .render import Transcript, clean

__all__ = ["Screen"]


@final
class Screen:
    """The terminal: what is said in the session goes to stdout, what is to be known about it to stderr."""

    def __init__(self) -> None:
        self._transcript = Transcript()
        self._question: str | None = None

    def show(self, event: Event) -> None:
        if text := self._transcript.render(event):
            self._write(text)

    def control(self, delivery: Delivery) -> None:
        """Tell of what the stream says about itself, if a person needs to know it."""
        match delivery:
            case Gap(reason=reason):
                self.note(f"a gap: {clean(reason)}")
            case Ended(reason=reason):
                self.note(f"the session has ended: {clean(reason)}")
            case Drained(reason=reason):
                self.note(f"the server ends the stream: {clean(reason)}")
            case Degraded():
                self.note("the server cannot store anything right now")
            case _:
                pass

    def note(self, text: str) -> None:
        self._end_line()
        if self._question is not None:
            click.echo(err=True)
        click.echo(click.style(f"[{text}]", dim=True), err=True)
        if self._question is not None:
            click.echo(self._question, nl=False, err=True)

    def question(self, text: str) -> None:
        """Ask on a line that stays the last one until `answered`."""
        self._end_line()
        self._question = text
        click.echo(text, nl=False, err=True)

    def answered(self, *, line_ended: bool) -> None:
        """No question stands any more; ``line_ended`` if the terminal has shown the end of a typed line."""
        if self._question is not None and not line_ended:
            click.echo(err=True)
        self._question = None

    def _write(self, text: str) -> None:
        if self._question is None:
            click.echo(text, nl=False)
            return
        click.echo(err=True)
        click.echo(text, nl=False)
        self._end_line()
        click.echo(self._question, nl=False, err=True)

    def _end_line(self) -> None:
        if line_end := self._transcript.interrupt():
            click.echo(line_end, nl=False)
