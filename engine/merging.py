"""JSON Merge Patch (RFC 7396): how metadata change."""

from __future__ import annotations

from collections.abc import Mapping

from .events import JSON, JSONObject

__all__ = ["merged"]


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
