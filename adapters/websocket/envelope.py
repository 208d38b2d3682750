"""A client's frame as such: one JSON object with its ``op`` and its ``id``, whatever it asks for.

A frame is read twice: first what says whom it is for, then, when it is carried out, all of it. What waits for its turn
is text, for a value takes many times as much: ``[[],[],…]`` twenty times.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, final

import msgspec
from msgspec import UNSET

from penstock.engine import JSON, InvalidBody, decode_json

__all__ = ["ENVELOPE", "parse_frame", "read_envelope", "request_id_of"]

# What of a frame belongs to the frame and not to the body that it carries.
ENVELOPE: Final = frozenset({"op", "id", "session_id"})

# A UUID or a counter fits many times over; it is told back, and kept until then.
_ID_LENGTH: Final = 128


@final
class _Envelope(msgspec.Struct):
    """What decides where a frame goes and whether it may. The rest is read over."""

    op: Any = UNSET
    id: Any = UNSET
    session_id: Any = UNSET
    generation_id: Any = UNSET
    role: Any = UNSET


_decode: Final = msgspec.json.Decoder(_Envelope).decode


def read_envelope(text: bytes) -> Mapping[str, JSON]:
    """Those of an object's fields that its command is judged by. Raises `InvalidBody`."""
    try:
        found = _decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidBody(f"a frame is a JSON object: {error}") from error
    return {name: value for name, value in msgspec.structs.asdict(found).items() if value is not UNSET}


def parse_frame(text: bytes) -> Mapping[str, JSON]:
    """The object in one frame. Raises `InvalidBody`."""
    value = decode_json(text)
    if not isinstance(value, dict):
        raise InvalidBody("a frame is a JSON object")
    return value


def request_id_of(value: Mapping[str, JSON]) -> JSON:
    """What the answer will name. Raises `InvalidBody`."""
    request_id = value.get("id")
    if request_id is None:
        return None
    if not isinstance(request_id, str) and type(request_id) is not int:
        raise InvalidBody("id must be a string or a whole number")
    if len(str(request_id)) > _ID_LENGTH:
        raise InvalidBody(f"id must be at most {_ID_LENGTH} characters")
    return request_id
