"""Frames about the stream itself: every form has them under the same names, with the same fields. Pure."""

from __future__ import annotations

from typing import TypeAlias, assert_never

from penstock.engine import (
    JSON,
    CaughtUp,
    Degraded,
    Drained,
    Ended,
    Gap,
    JSONObject,
    PresenceListed,
    structure,
)

__all__ = ["Control", "fields_of", "read_control"]

Control: TypeAlias = CaughtUp | PresenceListed | Gap | Degraded | Ended | Drained


def fields_of(control: Control) -> tuple[str, dict[str, JSON]]:
    """The frame's name, and what it says."""
    match control:
        case CaughtUp(cursor=cursor):
            return "caught-up", {"cursor": str(cursor)}
        case PresenceListed():
            return "presence", control.to_json()
        case Gap(reason=reason, asked=asked, resumed=resumed):
            return "gap", {"reason": reason, "asked": asked, "from": str(resumed)}
        case Degraded(code=code):
            return "degraded", {"code": code}
        case Ended(reason=reason):
            return "end", {"reason": reason}
        case Drained(reason=reason):
            return "drain", {"reason": reason}
        case _:
            assert_never(control)


def read_control(name: str, value: JSONObject) -> Control | None:
    """The frame, read back; None for a name that this version does not know. Raises `InvalidBody`."""
    match name:
        case "caught-up":
            return structure(value, CaughtUp)
        case "presence":
            return structure({"present": value.get("presence")}, PresenceListed)
        case "gap":
            return structure({**value, "resumed": value.get("from")}, Gap)
        case "degraded":
            return structure(value, Degraded)
        case "end":
            return structure(value, Ended)
        case "drain":
            return structure(value, Drained)
        case _:
            return None
