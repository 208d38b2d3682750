"""What providers say in an event: JSON objects, of which other servers leave out what they do not have. Pure.

What is absent or null is as if it were empty. What is of another type than it should be raises `ModelFailure` with the
code ``MODEL_GARBLED``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Final, TypeVar

from penstock.engine import JSON, InvalidBody, JSONObject, decode_json

from .failures import ModelFailure

__all__ = ["DONE", "garbled", "number", "objects", "parse", "part", "text"]

_T = TypeVar("_T")

# OpenAI's last event, which is no JSON.
DONE: Final = "[DONE]"

# Larger numbers are not exact for everybody who reads JSON, and those of a thousand bits nobody stores.
_COUNTED: Final = 2**53

# The escape of half a surrogate pair.
_HALF: Final = re.compile(r"\\u[dD][89a-fA-F]")


def garbled(why: str) -> ModelFailure:
    """What came is not what the protocol says."""
    return ModelFailure("MODEL_GARBLED", why)


def parse(data: str) -> JSONObject:
    """An event's data, which is an object."""
    try:
        value = decode_json(data.encode())
    except InvalidBody as error:
        value = _with_halves(data, error)
    if not isinstance(value, dict):
        raise garbled(f"an object was expected, and {type(value).__name__} came")
    return value


def _with_halves(data: str, refusal: InvalidBody) -> JSON:
    """The JSON, if all that is wrong with it is half a character in an escape: the other half may be in the next event.

    Of the readers of JSON that we have, the standard library's alone takes it.
    """
    if _HALF.search(data) is None:
        raise garbled(refusal.detail) from refusal
    try:
        value: JSON = json.loads(data, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise garbled(refusal.detail) from refusal
    return value


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _field(value: JSONObject, name: str, kind: type[_T], empty: _T) -> _T:
    found = value.get(name)
    if found is None:
        return empty
    if type(found) is not kind:
        raise garbled(f"{name} must be {kind.__name__}, not {type(found).__name__}")
    return found


def text(value: JSONObject, name: str) -> str:
    """A field that is text."""
    return _field(value, name, str, "")


def number(value: JSONObject, name: str) -> int:
    """A field that is a count."""
    found = _field(value, name, int, 0)
    if not 0 <= found < _COUNTED:
        raise garbled(f"{name} must be a count")
    return found


def part(value: JSONObject, name: str) -> JSONObject:
    """A field that is an object."""
    return _field(value, name, dict, {})


def objects(value: JSONObject, name: str) -> Sequence[JSONObject]:
    """A field that is an array of objects."""
    found = _field(value, name, list, [])
    if any(type(each) is not dict for each in found):
        raise garbled(f"{name} must hold objects")
    return found
