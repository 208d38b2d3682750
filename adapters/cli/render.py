"""A session as text in a terminal: events in, text out.

Owns the look. Keeps no messages: only what is needed to know whose line the next words belong to.
"""

from __future__ import annotations

import json
from typing import Final, final

import click

from engine import (
    JSON,
    ApprovalRequested,
    BlockClosed,
    BlockDelta,
    BlockOpened,
    Event,
    GenerationFinished,
    GenerationStatus,
    MessageClosed,
    MessageOpened,
    MessageRetracted,
    MessageSnapshot,
    SessionReset,
)

__all__ = ["Transcript", "clean", "ending"]

# What a stranger writes must not move our cursor or set our window's title: control characters are shown,
# not obeyed. Line breaks and tabs stay.
_VISIBLE: Final = {
    **{code: chr(0x2400 + code) for code in range(0x20) if chr(code) not in "\n\t"},
    0x7F: "\u2421",
    **dict.fromkeys(range(0x80, 0xA0), "\ufffd"),
}

_COLOURS: Final = {"user": "cyan", "assistant": "green", "tool": "yellow", "system": "magenta"}


def clean(text: str) -> str:
    """The text with its control characters made visible."""
    return text.translate(_VISIBLE)


def ending(end: GenerationFinished) -> str:
    """How a generation ended, in words."""
    reason = ": ".join(part for part in (end.code, end.message) if part)
    return f"failed ({clean(reason)})" if reason and end.outcome == "failed" else clean(end.outcome)


@final
class Transcript:
    """Renders one session's events in their order; parts that stream at once take turns, line by line."""

    def __init__(self) -> None:
        self._roles: dict[str, str] = {}
        self._labels: dict[tuple[str, int], str] = {}
        self._at: tuple[str, int] | None = None  # the block whose line the cursor is on
        self._mid_line = False

    def render(self, event: Event) -> str:
        """The text to write for this event; often empty."""
        message = event.message_id or ""
        key = (message, event.block_index or 0)
        match event.data:
            case MessageOpened(role=role):
                self._roles[message] = role
            case BlockOpened(kind=kind, name=name):
                self._labels[key] = self._label(message, kind, name)
            case BlockDelta(text=text, arguments=arguments, value=value):
                return self._write(key, _content(text, arguments, value))
            case BlockClosed():
                self._labels.pop(key, None)
                return self._new_line() if self._at == key else ""
            case MessageClosed():
                self._roles.pop(message, None)
            case MessageSnapshot():
                return self._whole(message, event.data)
            case GenerationStatus(status=status):
                return self._note(f"turn {event.turn}: {clean(status)}")
            case GenerationFinished():
                turn = "a waiting generation" if event.turn is None else f"turn {event.turn}"
                return self._note(f"{turn} {ending(event.data)}")
            case MessageRetracted():
                return self._note("a message was taken back")
            case SessionReset():
                return self._note("the session was reset")
            case ApprovalRequested(name=name, approval_id=approval_id):
                return self._note(f"approval {clean(approval_id)} is asked for {clean(name or 'a tool call')}")
            case _:
                pass
        return ""

    def interrupt(self) -> str:
        """What to write before something else is shown: ends the line, and the next words name their speaker."""
        return self._new_line()

    def _label(self, message: str, kind: str, name: str | None = None) -> str:
        role = clean(self._roles.get(message, "message"))
        what = {"text": "", "tool_call": f" calls {clean(name or 'a tool')}", "tool_result": " result"}
        return click.style(f"{role}{what.get(kind, f' ({clean(kind)})')}> ", fg=_COLOURS.get(role), bold=True)

    def _whole(self, message: str, data: MessageSnapshot) -> str:
        self._roles[message] = data.role
        written = ""
        for index, block in enumerate(data.blocks):
            self._labels[message, index] = self._label(message, block.kind, block.name)
            written += self._write((message, index), _content(block.text, block.arguments, block.value))
            written += self._new_line()
            del self._labels[message, index]
        del self._roles[message]
        return written

    def _write(self, key: tuple[str, int], text: str) -> str:
        head = ""
        if self._at != key:
            head = self._new_line() + self._labels.get(key, self._label(key[0], "text"))
            self._at = key
        self._mid_line = True
        return head + clean(text)

    def _new_line(self) -> str:
        self._at = None
        ended, self._mid_line = self._mid_line, False
        return "\n" if ended else ""

    def _note(self, text: str) -> str:
        return self._new_line() + click.style(f"-- {text}\n", dim=True)


def _content(text: str | None, arguments: JSON, value: JSON) -> str:
    if text is not None:
        return text
    if isinstance(arguments, str):
        return arguments  # a piece of a call's JSON
    return json.dumps(value if arguments is None else arguments, ensure_ascii=False, default=dict)
