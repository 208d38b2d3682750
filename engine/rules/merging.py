"""Metadata: how they change (JSON Merge Patch, RFC 7396), and how much of them there may be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, cast

from ..codec import encode_json, own_json
from ..errors import InvalidBody
from ..events import JSON, JSONObject
from ..shapes import check_object

__all__ = ["LARGEST_METADATA", "merged", "own_metadata", "updated"]

# Bytes of JSON. Metadata come whole with every change of them, with every page of a list and with every snapshot: what
# is larger is content, and belongs into a message.
LARGEST_METADATA: Final = 64 * 1024


def own_metadata(given: object, what: str = "metadata") -> JSONObject | None:
    """A copy that nobody else can change. Raises `InvalidBody` for what is no JSON object, or too large."""
    if given is None:
        return None
    made = cast("JSONObject", own_json(check_object(given, what), what))
    _check_size(made, what)
    return made


def updated(before: JSONObject, patch: JSONObject) -> dict[str, JSON]:
    """`merged`, unless that becomes too large. What is larger from of old may still become smaller.

    Raises `InvalidBody`.
    """
    after = merged(before, patch)
    _check_size(after, "metadata, merged,", before)
    return after


def merged(target: JSONObject, patch: JSONObject) -> dict[str, JSON]:
    """``target`` with ``patch`` applied: null removes a member, objects merge, everything else replaces."""
    result = dict(target)
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        elif isinstance(value, Mapping):
            before = result.get(name)
            result[name] = merged(before if isinstance(before, Mapping) else {}, value)
        else:
            result[name] = value
    return result


def _check_size(metadata: JSONObject, what: str, before: JSONObject | None = None) -> None:
    size = len(encode_json(metadata))
    if size > LARGEST_METADATA and (before is None or size >= len(encode_json(before))):
        raise InvalidBody(f"{what} take {size} bytes as JSON; at most {LARGEST_METADATA} may be")
