"""A client's frame as such: one JSON object with its ``op`` and its ``id``, whatever it asks for."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Final

from engine import JSON, InvalidBody, InvalidId, check_session_id, decode_json, is_uuid

__all__ = ["ENVELOPE", "frame_ids", "parse_frame", "request_id_of"]

# What of a frame belongs to the frame and not to the body that it carries.
ENVELOPE: Final = frozenset({"op", "id", "session_id"})


def parse_frame(message: str | bytes) -> Mapping[str, JSON]:
    """The object in one frame. Raises `InvalidBody`."""
    if not isinstance(message, str):
        raise InvalidBody("a frame is text, not binary")
    value = decode_json(message.encode())
    if not isinstance(value, dict):
        raise InvalidBody("a frame is a JSON object")
    return value


def frame_ids(session_id: str, value: Mapping[str, JSON]) -> dict[str, str]:
    """What the command was about; what is no id is not told back as one."""
    ids: dict[str, str] = {}
    with suppress(InvalidId):
        ids["session_id"] = check_session_id(session_id)
    generation_id = value.get("generation_id")
    if isinstance(generation_id, str) and is_uuid(generation_id):
        ids["generation_id"] = generation_id.lower()
    return ids


def request_id_of(value: Mapping[str, JSON]) -> JSON:
    """What the answer will name. Raises `InvalidBody`."""
    request_id = value.get("id")
    if request_id is None or isinstance(request_id, str) or type(request_id) is int:
        return request_id
    raise InvalidBody("id must be a string or a whole number")
