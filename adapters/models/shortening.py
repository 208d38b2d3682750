"""What is left out of a conversation that is longer than its model can read: the oldest turns. Pure.

A turn is what the user said and all that was answered to it, so calls stay with their results. The system prompt and
what the session has of role ``system`` stay, and so does the newest turn, whatever its length. Nothing is taken out of
the session.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from attrs import evolve

from penstock.engine import encode_json

from .model import Offer, Request
from .transcript import AnswerTurn, Attached, Call, ResultsTurn, Said, SystemTurn, Thought, Turn, UserTurn

__all__ = ["fitted", "halved"]

# Bytes of UTF-8 that are taken for a token. English has four and more, other languages and code about three: to take a
# text for longer than it is leaves something out too soon, and never too late.
_TOKEN: Final = 3

# And what marks a message as one, in bytes: its role, and where it begins and ends.
_MARKS: Final = 4 * _TOKEN

# What a picture takes, in the same measure: some 1 600 tokens at most, at any provider's. A page of a document takes
# about as much, and has some tens of kilobytes.
_PICTURE: Final = 1600 * _TOKEN
_PAGES: Final = 10

# The part of the context that is the conversation's; the answer has the rest.
_SHARE: Final = 0.75

_LEFT_OUT: Final = "[Older messages of this conversation are left out.]"


def fitted(request: Request, context_tokens: int) -> Request:
    """The request for a model that reads so many tokens, with those that it answers; itself where it fits."""
    always = [SystemTurn(request.system or ""), *(turn for turn in request.turns if isinstance(turn, SystemTurn))]
    room = int(context_tokens * _SHARE) * _TOKEN - sum(map(_size, always)) - sum(map(_offer_size, request.tools))
    return _leave_out(request, room)


def halved(request: Request) -> Request:
    """The request with at most half of what its turns say; itself where nothing is left that may be left out."""
    return _leave_out(request, _sizes(request.turns) // 2)


def _leave_out(request: Request, most: int) -> Request:
    """Without so many of the oldest turns that the others are at most ``most`` bytes."""
    turns, left, dropped = request.turns, _sizes(request.turns), 0
    begins = [at for at, turn in enumerate(turns) if isinstance(turn, UserTurn)]
    for begin, end in pairwise(begins):
        if left <= most:
            break
        left -= _sizes(turns[begin:end])
        dropped += 1
    if not dropped:
        return request
    cut = begins[dropped]
    first = turns[cut]
    assert isinstance(first, UserTurn)
    kept = (turn for turn in turns[:cut] if isinstance(turn, SystemTurn))
    told = evolve(first, text=f"{_LEFT_OUT}\n\n{first.text}")
    return evolve(request, turns=(*kept, told, *turns[cut + 1 :]), left_out=request.left_out + dropped)


def _sizes(turns: Sequence[Turn]) -> int:
    """In bytes, without what is never left out."""
    return sum(_size(turn) for turn in turns if not isinstance(turn, SystemTurn))


def _size(turn: Turn) -> int:
    match turn:
        case UserTurn(text, attached):
            return _MARKS + len(text.encode()) + sum(map(_attached_size, attached))
        case SystemTurn(text):
            return _MARKS + len(text.encode())
        case AnswerTurn(parts):
            return _MARKS + sum(map(_part_size, parts))
        case ResultsTurn(results):
            return sum(_MARKS + len(result.text.encode()) for result in results)


def _attached_size(attached: Attached) -> int:
    if attached.kind == "image" or attached.content is None:
        return _PICTURE
    return max(_PICTURE, len(attached.content) // _PAGES)


def _part_size(part: Said | Thought | Call) -> int:
    match part:
        case Said(text):
            return len(text.encode())
        case Call(_, name, arguments):
            return _MARKS + len(name) + len(encode_json(arguments))
        case Thought(text, value):
            return len(text.encode()) + len(encode_json(value))


def _offer_size(tool: Offer) -> int:
    return _MARKS + len(tool.name) + len(tool.description.encode()) + len(encode_json(tool.parameters))
