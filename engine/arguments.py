"""What applications give a session's operations, checked: what could not be written later is refused now.

Everything here raises `InvalidBody`. What depends on where the session stands is refused by its steps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from .closing import Ending
from .codec import check_json, encode_json, structure
from .errors import InvalidBody
from .events import BlockSnapshot, JSONObject, MessageSnapshot
from .parts import user_message
from .policy import Policy

__all__ = ["checked_ending", "checked_message", "checked_metadata", "checked_policy", "checked_seconds"]

# From here on not every reader of JSON tells whole numbers apart: a page's JavaScript does not.
_SAFE: Final = 2**53


def checked_policy(name: str) -> Policy:
    """What a start does to a busy session, by its name."""
    try:
        return Policy(name)
    except ValueError:
        raise InvalidBody(f"policy must be one of {', '.join(p.value for p in Policy)}, not {name!r}") from None


def checked_seconds(given: float | None) -> float | None:
    """A bounded wait."""
    if given is None:
        return None
    try:
        seconds = float(given)
    except OverflowError:
        seconds = math.inf
    if not 0 <= seconds < math.inf:
        raise InvalidBody("on_last_disconnect is a number of seconds, 0 or more")
    return seconds


def checked_ending(outcome: str, code: str | None, message: str | None, usage: JSONObject | None) -> Ending:
    """How a remote producer ends its generation."""
    if outcome not in ("completed", "failed"):
        raise InvalidBody(f"outcome must be completed or failed, not {outcome!r:.80}")
    if outcome == "completed" and (code is not None or message is not None):
        raise InvalidBody("code and message tell why a generation failed")
    for name, given in (("code", code), ("message", message)):
        if given is not None and type(given) is not str:
            raise InvalidBody(f"{name} is text")
    check_json(usage, "usage")
    encode_json([code, message, usage])
    if outcome == "failed" and code is None:
        code = "PRODUCER_FAILED"
    return Ending(outcome=outcome, code=code, message=message, usage=usage)


def checked_metadata(given: object) -> JSONObject | None:
    """What an application knows of a session."""
    if given is not None and not isinstance(given, dict):
        raise InvalidBody(f"metadata is an object, not {type(given).__name__}")
    encode_json(check_json(given, "metadata"))
    return given


def checked_message(
    text: str | None, blocks: Sequence[JSONObject] | None, role: str, metadata: JSONObject | None
) -> MessageSnapshot:
    """A message that is posted whole: of one text, or of blocks."""
    if (text is None) == (blocks is None):
        raise InvalidBody("a message has either text or blocks")
    if metadata is not None:
        check_json(metadata, "metadata")
    if text is not None:
        message = MessageSnapshot(role=role, status="complete", blocks=user_message(text).blocks, metadata=metadata)
    else:
        check_json(blocks, "blocks")
        numbered = [{"seq": 0, **block} for block in blocks or ()]
        parsed = tuple(structure(block, BlockSnapshot) for block in numbered)
        if not all(0 <= block.seq < _SAFE for block in parsed):
            raise InvalidBody("seq of a block is a whole number from 0, and below 2 to the power of 53")
        message = MessageSnapshot(role=role, status="complete", blocks=parsed, metadata=metadata)
    encode_json([text, role])
    return message
