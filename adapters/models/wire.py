"""The answers of all providers as they come over the wire: server-sent events with JSON in them. Pure.

What is absent or null is as if it were empty: other servers leave out what a provider's own would tell. What is of
another type than it should be raises `GarbledError`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Final, final

from penstock.engine import JSON, InvalidBody, JSONObject, decode_json

from ..forms.sse_reader import EventStream

__all__ = ["DONE", "EventReader", "GarbledError", "number", "objects", "parse", "part", "text"]

# OpenAI's last event, which is no JSON.
DONE: Final = b"[DONE]"

# The escape of half a surrogate pair.
_HALF: Final = re.compile(rb"\\u[dD][89a-fA-F]")

# An event is a few bytes, and one that tells a whole answer is as long as that. This is longer than any model writes.
_LONGEST: Final = 16 * 1024 * 1024


@final
class GarbledError(Exception):
    """What came is not what the protocol says."""


@final
class EventReader:
    """Bytes, cut in any way, to the data of the events in them. Names and ids of events are passed over."""

    def __init__(self) -> None:
        self._stream: Final = EventStream(_LONGEST)

    def feed(self, piece: bytes) -> list[bytes]:
        """The data of the events that are whole now."""
        try:
            return [event.data.encode() for event in self._stream.feed(piece) if event.data is not None]
        except ValueError as error:
            raise GarbledError(str(error)) from error


def parse(data: bytes) -> JSONObject:
    """An event's data, which is an object."""
    try:
        value = decode_json(data)
    except InvalidBody as error:
        value = _with_halves(data, error)
    if not isinstance(value, dict):
        raise GarbledError(f"an object was expected, and {type(value).__name__} came")
    return value


def _with_halves(data: bytes, refusal: InvalidBody) -> JSON:
    """The JSON, if all that is wrong with it is half a character in an escape: the other half may be in the next event.

    Of the readers of JSON that we have, the standard library's alone takes it.
    """
    if _HALF.search(data) is None:
        raise GarbledError(refusal.detail) from refusal
    try:
        value: JSON = json.loads(data.decode(), parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise GarbledError(refusal.detail) from refusal
    return value


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def text(value: JSONObject, name: str) -> str:
    """A field that is text; empty if it is absent or null."""
    found = value.get(name)
    if found is None:
        return ""
    if type(found) is not str:
        raise GarbledError(f"{name} must be text, not {type(found).__name__}")
    return found


def number(value: JSONObject, name: str) -> int:
    """A field that is a count; 0 if it is absent or null."""
    found = value.get(name)
    if found is None:
        return 0
    if type(found) is not int or found < 0:
        raise GarbledError(f"{name} must be a count")
    return found


def part(value: JSONObject, name: str) -> JSONObject:
    """A field that is an object; empty if it is absent or null."""
    found = value.get(name)
    if found is None:
        return {}
    if not isinstance(found, Mapping):
        raise GarbledError(f"{name} must be an object, not {type(found).__name__}")
    return found


def objects(value: JSONObject, name: str) -> Sequence[JSONObject]:
    """A field that is an array of objects; empty if it is absent or null."""
    found: JSON = value.get(name)
    if found is None:
        return ()
    if not isinstance(found, list):
        raise GarbledError(f"{name} must be an array, not {type(found).__name__}")
    made: list[JSONObject] = []
    for each in found:
        if not isinstance(each, Mapping):
            raise GarbledError(f"{name} must hold objects, not {type(each).__name__}")
        made.append(each)
    return made
