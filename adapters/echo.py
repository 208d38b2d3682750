"""The built-in producer ``echo``: says back what the user said last, word by word, at a human pace, and shows what was
attached to it.

With it every behaviour of the engine can be watched with no model at hand. Its input, all of it optional, is
``{"delay": seconds before each word, "repeat": how often the text is said}``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Final, final

import trio
from attrs import frozen

from penstock.engine import JSON, Block, BlockView, Generation, InvalidBody, Message, MessageView, ProducerError

__all__ = ["Pace", "echo", "pieces"]

# A person reads four to five words a second; twelve a second is brisk and still seen as words.
_DELAY: Final = 0.08

# A minute between two words is more than anyone will watch, and half the engine's idle limit.
_LONGEST_DELAY: Final = 60.0

# Enough for any trial of endurance; a bound, so that a slip of the finger does not fill the disk.
_MOST_REPEATS: Final = 100_000

# Text in scripts without spaces comes in pieces of this many characters, or nothing would be seen to stream.
_LONGEST_PIECE: Final = 24

# Messages that are looked at at a time, from the newest back: what was said last is nearly always among them.
_PAGE: Final = 20

_PIECE = re.compile(rf"\s*\S{{1,{_LONGEST_PIECE}}}|\s+")

_NOTHING_SAID: Final = "There is nothing to echo yet: post a user message, or start with a text, and I say it back."


@final
@frozen(kw_only=True)
class Pace:
    """The input of `echo`, checked."""

    delay: float = _DELAY
    repeat: int = 1

    @classmethod
    def of(cls, value: JSON) -> Pace:
        """Read the input; None stands for all defaults. Nothing is converted. Raises `InvalidBody`."""
        if value is None:
            return cls()
        if not isinstance(value, Mapping):
            raise InvalidBody("the input of echo is an object with 'delay' and 'repeat', both optional")
        unknown = sorted(value.keys() - {"delay", "repeat"})
        if unknown:
            raise InvalidBody(f"the input of echo has no field {unknown[0]!r}; it knows 'delay' and 'repeat'")
        delay, repeat = value.get("delay", _DELAY), value.get("repeat", 1)
        if isinstance(delay, bool) or not isinstance(delay, int | float):
            raise InvalidBody("'delay' is a number: the seconds before each word")
        if not (math.isfinite(delay) and 0 <= delay <= _LONGEST_DELAY):
            raise InvalidBody(f"'delay' lies between 0 and {_LONGEST_DELAY:g} seconds")
        if isinstance(repeat, bool) or not isinstance(repeat, int):
            raise InvalidBody("'repeat' is a whole number: how often the text is said")
        if not 1 <= repeat <= _MOST_REPEATS:
            raise InvalidBody(f"'repeat' lies between 1 and {_MOST_REPEATS}")
        return cls(delay=float(delay), repeat=repeat)


def pieces(text: str) -> Iterator[str]:
    """The text in words, each with the white space before it. Joined they are the text, exactly."""
    return (match[0] for match in _PIECE.finditer(text))


def _text(message: MessageView) -> str:
    return "\n\n".join(filter(None, (block.text for block in message.blocks if block.kind == "text")))


async def _show(message: Message, block: BlockView) -> None:
    """Name what was attached."""
    if block.kind == "source":
        await message.source(url=block.url, file_id=block.file_id, title=block.title)
    elif block.kind in ("image", "file"):
        show = message.image if block.kind == "image" else message.file
        await show(file_id=block.file_id, url=block.url, media_type=block.media_type, filename=block.filename)


async def _asked(generation: Generation) -> MessageView | None:
    """The newest user message; None if there is none."""
    page = await generation.snapshot(limit=_PAGE)
    while True:
        for message in reversed(page.messages):
            if message.role == "user":
                return message
        if not page.more:
            return None
        page = await generation.snapshot(limit=_PAGE, before=page.next)


async def echo(generation: Generation) -> None:
    """Say the session's newest user message back; repetitions are set apart by a line break.

    Ends as failed with ``INVALID_BODY`` if the input is not as the module says.
    """
    try:
        pace = Pace.of(generation.input)
    except InvalidBody as error:
        raise ProducerError(error.detail, reason=error.code) from error
    asked = await _asked(generation)
    blocks = () if asked is None else asked.blocks
    attached = [block for block in blocks if block.kind in ("image", "file", "source")]
    text = (_text(asked) if asked is not None else "") or ("" if attached else _NOTHING_SAID)
    async with generation.message() as message:
        if text:
            async with message.text() as block:
                await _say(block, text, pace)
        for each in attached:
            await _show(message, each)


# Pages make a form of it: see `Engine.producer_infos`.
vars(echo)["input_schema"] = {
    "type": "object",
    "properties": {
        "delay": {
            "description": "Seconds before each word.",
            "type": "number",
            "minimum": 0,
            "maximum": _LONGEST_DELAY,
            "default": _DELAY,
        },
        "repeat": {
            "description": "How often the text is said.",
            "type": "integer",
            "minimum": 1,
            "maximum": _MOST_REPEATS,
            "default": 1,
        },
    },
    "additionalProperties": False,
}


async def _say(block: Block, text: str, pace: Pace) -> None:
    for turn in range(pace.repeat):
        for number, piece in enumerate(pieces(text)):
            if pace.delay:
                await trio.sleep(pace.delay)
            await block.write(f"\n{piece}" if turn and not number else piece)
