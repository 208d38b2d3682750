"""A session as text in a terminal: events in, text out.

Owns the look. Keeps no messages: only what is needed to know whose line the next words belong to.
"""

from __future__ import annotations

import json
import unicodedata
from typing import Final, final

import click

from penstock.engine import (
    JSON,
    ApprovalRequested,
    ApprovalResolved,
    BlockClosed,
    BlockDelta,
    BlockOpened,
    BlockSnapshot,
    Event,
    GenerationFinished,
    GenerationQueued,
    GenerationStatus,
    InputAccepted,
    InputReturned,
    JSONObject,
    MessageClosed,
    MessageOpened,
    MessageRetracted,
    MessageSnapshot,
    QueuePaused,
    QueueResumed,
    SessionForked,
    SessionReset,
)

__all__ = ["Transcript", "clean", "ending", "exact"]

# Characters that are not seen, or that change how the text around them looks: controls, those that turn the writing's
# direction, and letters and marks that leave no ink (https://www.unicode.org/reports/tr36/).
_UNSEEN: Final = frozenset({"Cc", "Cf", "Zl", "Zp", "Co", "Cs", "Cn"})
_WITHOUT_INK: Final = frozenset({0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x2800, 0x3164, 0xFFA0}) | frozenset(
    (*range(0x180B, 0x1810), *range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0))
)

# In what is said they stay, as languages and emoji need them: joiners and the choice of an emoji's look.
_NEEDED: Final = frozenset("\u200c\u200d\ufe0e\ufe0f")

# What waits, is asked for or is sent in, is shown on one line.
_LONGEST_NOTE: Final = 72

_COLOURS: Final = {"user": "cyan", "assistant": "green", "tool": "yellow", "system": "magenta"}


def clean(text: str) -> str:
    """A text that somebody wrote: it can not move our cursor, set our window's title or turn its neighbours around.

    Controls are shown as their pictures, what else is not seen as its number; line breaks and tabs stay.
    """
    return text if text.isascii() and text.isprintable() else "".join(map(_cleaned, text))


def exact(text: str) -> str:
    """A tool's name or arguments on one line, to the last character: nobody agrees to what looks like another."""
    return text if text.isascii() and text.isprintable() else "".join(map(_exact, text))


def _cleaned(character: str) -> str:
    code = ord(character)
    if code < 0x20:
        return character if character in "\n\t" else chr(0x2400 + code)
    if code < 0xA0:
        return {0x7F: "\u2421"}.get(code, character if code < 0x7F else "\ufffd")
    return character if character in _NEEDED else _exact(character)


def _exact(character: str) -> str:
    code = ord(character)
    if not (unicodedata.category(character) in _UNSEEN or code in _WITHOUT_INK):
        return character
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def ending(end: GenerationFinished) -> str:
    """How a generation ended, in words: why too, unless the reason says no more than the outcome does."""
    code = None if end.code == end.outcome.upper() else end.code
    reason = ": ".join(part for part in (code, end.message) if part)
    if reason.rstrip(".").casefold() in {"", end.outcome.casefold()}:
        return clean(end.outcome)
    return f"{clean(end.outcome)} ({clean(reason)})"


@final
class Transcript:
    """Renders one session's events in their order; parts that stream at once take turns, line by line."""

    def __init__(self) -> None:
        self._roles: dict[str, str] = {}
        self._labels: dict[tuple[str, int], str] = {}
        self._shown: dict[tuple[str, int], int] = {}  # characters of each block of the open messages
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
                if named := _named(event.data):
                    return self._write(key, named, exactly=True)
            case BlockDelta(text=text, arguments=arguments, value=value):
                return self._write(key, _content(text, arguments, value), exactly=text is None)
            case BlockClosed():
                return self._close_block(key, event.data)
            case MessageClosed():
                self._forget(message)
            case MessageSnapshot():
                return self._whole(message, event.data)
            case _:
                note = _note(event)
                return "" if note is None else self._new_line() + click.style(f"-- {note}\n", dim=True)
        return ""

    def interrupt(self) -> str:
        """What to write before something else is shown: ends the line, and the next words name their speaker."""
        return self._new_line()

    def _label(self, message: str, kind: str, name: str | None = None) -> str:
        role = clean(self._roles.get(message, "message"))
        what = {"text": "", "tool_call": f" calls {exact(name or 'a tool')}", "tool_result": " result"}
        return click.style(f"{role}{what.get(kind, f' ({clean(kind)})')}> ", fg=_COLOURS.get(role), bold=True)

    def _close_block(self, key: tuple[str, int], data: BlockClosed) -> str:
        """The end of a block, and what only its end says: the whole of it, if no piece came before."""
        written = ""
        final = _content(data.text, data.arguments, data.value)
        if final and not self._shown.get(key):
            written += self._write(key, final, exactly=data.text is None)
        if data.is_error:
            written += self._write(key, " (an error)")
        self._labels.pop(key, None)
        return written + (self._new_line() if self._at == key else "")

    def _whole(self, message: str, data: MessageSnapshot) -> str:
        """A whole message; of one that was compacted while we were away, what we had not shown yet."""
        opened = message in self._roles
        self._roles[message] = data.role
        written = ""
        for index, block in enumerate(data.blocks):
            key = (message, index)
            self._labels[key] = self._label(message, block.kind, block.name)
            known = self._shown.get(key, 0) if opened else 0  # one that we met in the middle we have no count of
            rest = _content_of(block)[known:]
            if rest or not known:
                written += self._write(key, rest, exactly=block.text is None)
            written += self._new_line() if self._at == key else ""
            del self._labels[key]
        if not opened:
            self._forget(message)
        return written

    def _forget(self, message: str) -> None:
        """Nothing more comes of this message."""
        self._roles.pop(message, None)
        for key in [key for key in self._shown if key[0] == message]:
            del self._shown[key]

    def _write(self, key: tuple[str, int], text: str, *, exactly: bool = False) -> str:
        head = ""
        if self._at != key:
            head = self._new_line() + self._labels.get(key, self._label(key[0], "text"))
            self._at = key
        self._mid_line = True
        self._shown[key] = self._shown.get(key, 0) + len(text)
        return head + ("\n".join(map(exact, text.split("\n"))) if exactly else clean(text))

    def _new_line(self) -> str:
        self._at = None
        ended, self._mid_line = self._mid_line, False
        return "\n" if ended else ""


def _note(event: Event) -> str | None:
    """What is to be known beside what is said."""
    turn = "a waiting generation" if event.turn is None else f"turn {event.turn}"
    match event.data:
        case GenerationQueued(text=text, position=position):
            return f"waiting at place {position}" + ("" if text is None else f": {_short(text)}")
        case QueuePaused(reason=reason):
            return "the queue is paused" + ("" if reason is None else f" ({clean(reason)})")
        case QueueResumed():
            return "the queue goes on"
        case GenerationStatus(status="unseen", detail={"files": [*files]}):
            return f"{turn}: the model is not shown {_short(', '.join(map(str, files)))}"
        case GenerationStatus(status=status):
            return f"{turn}: {clean(status)}"
        case GenerationFinished():
            return f"{turn} {ending(event.data)}"
        case MessageRetracted():
            return "a message was taken back"
        case SessionReset():
            return "the session was reset"
        case SessionForked(source_session_id=source):
            return f"forked from {clean(source)}"
        case ApprovalRequested(name=name, approval_id=approval_id, arguments=arguments):
            what = "" if arguments is None else f" {_short(exact(_content(None, None, arguments)))}"
            return f"approval {clean(approval_id)} is asked for {exact(name or 'a tool call')}{what}"
        case ApprovalResolved(approval_id=approval_id, approved=approved, reason=reason, by=by):
            who = "" if by is None else f" by {clean(by)}"
            why = "" if reason is None else f" ({clean(reason)})"
            return f"approval {clean(approval_id)} was {'given' if approved else 'refused'}{who}{why}"
        case InputAccepted(kind=kind, extra=content):
            return f"{clean(kind)}: {_said(content)}" if content else clean(kind)
        case InputReturned():
            return "an input was not used"
        case _:
            return None


def _said(content: JSONObject) -> str:
    """An input's text, or all that it holds."""
    text = content.get("text")
    return _short(text if isinstance(text, str) and len(content) == 1 else _content(None, None, content))


def _short(text: str) -> str:
    """One line of it."""
    line = clean(" ".join(text.split()))
    return line if len(line) <= _LONGEST_NOTE else f"{line[:_LONGEST_NOTE]}…"


def _content_of(block: BlockSnapshot) -> str:
    return _named(block) or _content(block.text, block.arguments, block.value)


def _named(block: BlockOpened | BlockSnapshot) -> str:
    """What an image, a file or a source names."""
    told = (block.title, block.filename, block.media_type and f"({block.media_type})", block.url)
    return " ".join(filter(None, told)) or block.file_id or ""


def _content(text: str | None, arguments: JSON, value: JSON) -> str:
    if text is not None:
        return text
    if isinstance(arguments, str):
        return arguments  # a piece of a call's JSON
    whole = value if arguments is None else arguments
    return "" if whole is None else json.dumps(whole, ensure_ascii=False, default=dict)
