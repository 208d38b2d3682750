"""Success answers, read: what is not as the protocol has it is told by name, in a `BadAnswer`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from penstock.engine import InvalidBody, JSONObject, Queued, Started, Superseded, decode_json, structure

from ..requests.answers import QueuedAnswer, StartAnswer
from .refusals import BadAnswer

__all__ = ["parsed", "read", "read_started"]

T = TypeVar("T")


def parsed(body: bytes) -> JSONObject:
    """The object in a body; an empty one where there is none."""
    try:
        value = decode_json(body) if body else {}
    except InvalidBody as error:
        raise BadAnswer(f"the answer cannot be read: {error.detail}") from error
    if not isinstance(value, Mapping):
        raise BadAnswer("the answer is no object")
    return value


def read(kind: type[T], answer: JSONObject) -> T:
    """The answer as one of ``kind``, in which other fields than those are left out."""
    try:
        return structure(answer, kind)
    except InvalidBody as error:
        raise BadAnswer(f"the answer is none that was asked for: {error.detail}") from error


def read_started(answer: JSONObject, status: int, *, own_key: bool, joins: bool) -> Started | Queued:
    """With ``own_key``, a key that we made ourselves, a repetition's answer is the first one, to the caller."""
    again = status == 200 and not own_key
    if "position" in answer:
        waits = read(QueuedAnswer, answer)
        return Queued(generation_id=waits.generation_id, position=waits.position, cursor=waits.cursor, repeated=again)
    runs = read(StartAnswer, answer)
    ended = runs.superseded
    return Started(
        generation_id=runs.generation_id,
        turn=runs.turn,
        cursor=runs.cursor,
        message_id=runs.message_id,
        superseded=None
        if ended is None
        else Superseded(generation_id=ended.generation_id, cleanup=ended.cleanup, seconds=float(ended.seconds)),
        joined=status == 200 and joins,
        repeated=again and not joins,
    )
