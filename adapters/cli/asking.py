"""Approvals at a terminal: what is asked, in full, and the person's yes or no.

Owns the question. Nothing but a typed ``y`` or ``yes`` is a yes, and only one that was typed after the question had
been shown. Where there is no terminal nobody is asked, and told how to answer instead.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
import termios
from collections.abc import Awaitable, Callable
from typing import Final, final

import trio

from penstock.engine import JSON, PenstockError

from .client import DEFAULT_URL, ClientError
from .render import exact
from .screen import Screen

__all__ = ["Questions", "ask", "can_ask", "demand", "how_to_answer"]

_LINE: Final = 4096  # what a terminal hands over at a time, at most

_ANSWERS: Final = {"y": True, "yes": True, "n": False, "no": False}


def can_ask() -> bool:
    """Whether a person sits at both ends: where the question is shown, and where the answer is typed."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def demand(name: str | None, arguments: JSON) -> str:
    """What is asked for, to the last character: nobody agrees to what was left out, or looks like something else."""
    what = name or "a tool call"
    if arguments is not None:
        what += " " + json.dumps(arguments, ensure_ascii=False, default=dict)
    return exact(what)


def how_to_answer(session: str, approval_id: str, url: str) -> str:
    """The command that answers it from anywhere."""
    options = [] if url == DEFAULT_URL else ["--url", url]
    if session.startswith("-") or approval_id.startswith("-"):
        options.append("--")
    return f"answer with: {shlex.join(['penstock', 'approve', '--yes', *options, session, approval_id])} (or --no)"


async def ask(screen: Screen, what: str) -> bool | None:
    """Ask until there is a yes or a no; None where the terminal is at its end. Cancelled, nothing is answered."""
    source = sys.stdin.fileno()
    termios.tcflush(source, termios.TCIFLUSH)  # what was typed before is no answer to this
    screen.question(f"Allow {what}? [y/n] ")
    typed = False
    try:
        while True:
            await trio.lowlevel.wait_readable(source)
            line = _read(source)
            typed = line.endswith(b"\n")
            if not line:
                return None
            answer = _ANSWERS.get(line.decode(errors="replace").strip().lower())
            if answer is not None:
                return answer
            screen.question("Please type y or n: ")
    finally:
        screen.answered(line_ended=typed)


def _read(source: int) -> bytes:
    try:
        return os.read(source, _LINE)
    except OSError:  # the terminal is gone
        return b""


@final
class Questions:
    """What one answer asks for, put to the person one after the other while the answer is followed.

    ``reply`` carries a yes or a no to the server; what stands in its way is told, and ``hint`` says how else to do it.
    """

    def __init__(
        self, screen: Screen, reply: Callable[[str, bool], Awaitable[None]], hint: Callable[[str], str]
    ) -> None:
        self._screen = screen
        self._reply = reply
        self._hint = hint
        self._open: dict[str, str] = {}  # what is asked for, by approval
        self._more = trio.Event()
        self._asking: tuple[str, trio.CancelScope] | None = None

    def add(self, approval_id: str, what: str) -> None:
        self._open[approval_id] = what
        self._more.set()

    def drop(self, approval_id: str) -> None:
        """It is decided, by whomever."""
        self._open.pop(approval_id, None)
        if self._asking is not None and self._asking[0] == approval_id:
            self._asking[1].cancel(reason="the approval is decided")
            self._screen.answered(line_ended=False)  # at once: what is shown next is no longer in between

    async def run(self) -> None:
        """Ask, for ever."""
        while True:
            while not self._open:
                self._more = trio.Event()
                await self._more.wait()
            approval_id, what = next(iter(self._open.items()))
            answer: bool | None = None
            with trio.CancelScope() as scope:
                self._asking = approval_id, scope
                answer = await ask(self._screen, what)
            self._asking = None
            self._open.pop(approval_id, None)
            if scope.cancelled_caught:
                continue
            if answer is None:
                self._screen.note(self._hint(approval_id))
                continue
            try:
                await self._reply(approval_id, answer)
            except PenstockError as error:
                self._screen.note(f"this did not count: {error.detail} [{error.code}]; {self._hint(approval_id)}")
            except ClientError as error:
                self._screen.note(f"this did not count: {error}; {self._hint(approval_id)}")
