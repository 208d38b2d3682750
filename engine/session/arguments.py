"""What applications give a session's operations, checked: what could not be written later is refused now.

Everything here raises `InvalidBody`, whatever it is given: nothing is converted, and nothing that was given wrongly is
taken for something else. What is kept until its turn comes is a copy. What depends on where the session stands is
refused by its steps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, Literal, TypeVar, cast

from ..codec import own_json, structure
from ..errors import InvalidBody
from ..events import BlockSnapshot, Cursor, JSONObject, MessageSnapshot, check_uuid, is_uuid
from ..rules.attachments import clean_filename
from ..rules.ending import Ending, own_usage
from ..rules.lifecycle import ROLES, TOOL_KINDS, check_kind
from ..rules.merging import own_metadata
from ..rules.policy import Policy
from ..shapes import check_object, check_text, checked_text, shown
from .transaction import user_message

__all__ = [
    "checked_choice",
    "checked_count",
    "checked_cursor",
    "checked_ending",
    "checked_filename",
    "checked_flag",
    "checked_fork_point",
    "checked_instance",
    "checked_limit",
    "checked_message",
    "checked_page",
    "checked_policy",
    "checked_principal",
    "checked_question",
    "checked_seconds",
    "checked_ttl",
]

T = TypeVar("T")
Word = TypeVar("Word", bound=str)

_POLICIES: Final = tuple(policy.value for policy in Policy)

_DAY: Final = 86_400.0  # seconds

# From here on not every reader of JSON tells whole numbers apart: a page's JavaScript does not.
_SAFE: Final = 2**53


def checked_choice(given: object, choices: Sequence[Word], what: str) -> Word:
    """One of a few words."""
    for choice in choices:
        if type(given) is str and given == choice:
            return choice
    raise InvalidBody(f"{what} must be one of {', '.join(choices)}, not {shown(given)}")


def checked_instance(given: object, kind: type[T], what: str) -> T:
    """An object of this class."""
    if not isinstance(given, kind):
        raise InvalidBody(f"{what} must be a {kind.__name__}, not {type(given).__name__}")
    return given


def checked_count(given: object, what: str) -> int:
    """How many of something."""
    if type(given) is not int or not 0 <= given < _SAFE:
        raise InvalidBody(f"{what} is a whole number, 0 or more")
    return given


def checked_flag(given: object, what: str) -> bool:
    """Yes or no, and nothing that merely counts as one of them."""
    if type(given) is not bool:
        raise InvalidBody(f"{what} must be bool, not {type(given).__name__}")
    return given


def checked_policy(name: object) -> Policy:
    """What a start does to a busy session, by its name."""
    return Policy(checked_choice(name, _POLICIES, "policy"))


def checked_principal(given: object) -> str:
    """Whose idempotency key it is. A NUL would let one pass for another with a longer key."""
    principal = check_text(given, "principal")
    if "\0" in principal:
        raise InvalidBody("principal holds a NUL character")
    return principal


def checked_seconds(given: object) -> float | None:
    """A bounded wait."""
    if given is None:
        return None
    seconds = _seconds(given, "on_last_disconnect")
    if not 0 <= seconds < math.inf:
        raise InvalidBody("on_last_disconnect is a number of seconds, 0 or more")
    return seconds


def checked_ttl(given: object) -> float:
    """How long something volatile is remembered."""
    seconds = _seconds(given, "ttl")
    if not 0 < seconds <= _DAY:
        raise InvalidBody("ttl is a number of seconds above 0, a day at most")
    return seconds


def checked_limit(given: object) -> float | None:
    """How long a generation may write nothing, as it is stored: 0 where it may for ever, for JSON has no infinity."""
    if given is None:
        return None
    seconds = _seconds(given, "idle_limit")
    if not seconds > 0:
        raise InvalidBody("idle_limit is a number of seconds above 0, or infinite where there is no limit")
    return 0.0 if seconds == math.inf else seconds


def _seconds(given: object, what: str) -> float:
    """A number, infinite if it is larger than any."""
    if type(given) is not int and type(given) is not float:
        raise InvalidBody(f"{what} is a number of seconds, not {type(given).__name__}")
    try:
        return float(given)
    except OverflowError:
        return math.inf if given > 0 else -math.inf


def checked_cursor(given: object) -> Cursor:
    """A cursor, or its text. Raises `InvalidCursor` for a text that is none."""
    if isinstance(given, Cursor):
        check_text(given.epoch, "the epoch of a cursor")
        checked_count(given.offset, "the offset of a cursor")
        return given
    return Cursor.parse(check_text(given, "a cursor"))


def checked_page(limit: int | None, before: str | None) -> tuple[int | None, str | None]:
    """Which messages of a snapshot: so many, before the message of this id. Raises `InvalidBody`, `InvalidId`."""
    if limit is not None:
        checked_count(limit, "limit")
    return limit, None if before is None else check_uuid(before, "message_id")


def checked_fork_point(given: object) -> Cursor | str | None:
    """Up to where a fork takes messages: a cursor, or a message's id. Raises `InvalidCursor`."""
    if given is None:
        return None
    if type(given) is str and is_uuid(given):
        return check_uuid(given, "message_id")
    return checked_cursor(given)


def checked_ending(outcome: object, code: object, message: object, usage: object) -> Ending:
    """How a remote producer ends its generation."""
    ends_as: Literal["completed", "failed"] = checked_choice(outcome, ("completed", "failed"), "outcome")
    code, message = checked_text(code, "code"), checked_text(message, "message")
    if ends_as == "completed" and (code is not None or message is not None):
        raise InvalidBody("code and message tell why a generation failed")
    spent = None if usage is None else own_usage(usage)
    if ends_as == "failed" and code is None:
        code = "PRODUCER_FAILED"
    return Ending(outcome=ends_as, code=code, message=message, usage=spent)


def checked_message(
    text: object, blocks: object, role: object, metadata: object, author: str | None = None
) -> MessageSnapshot:
    """A message that is posted whole: of one text, or of blocks. What a tool answered is not the user's to say."""
    role = checked_choice(role, ROLES, "role")
    if (text is None) == (blocks is None):
        raise InvalidBody("a message has either text or blocks")
    metadata = own_metadata(metadata)
    if text is not None:
        made = user_message(check_text(text, "text")).blocks
        return MessageSnapshot(role=role, status="complete", blocks=made, metadata=metadata, author=author)
    return MessageSnapshot(
        role=role, status="complete", blocks=_checked_blocks(blocks, role), metadata=metadata, author=author
    )


def checked_question(given: object, author: str | None) -> tuple[MessageSnapshot, str | None]:
    """The user's message that a start brings, ``{blocks, message_id?, metadata?}``; and its id, if it has one."""
    said = dict(check_object(given, "message"))
    blocks, message_id, metadata = (said.pop(name, None) for name in ("blocks", "message_id", "metadata"))
    if said:
        raise InvalidBody(f"message has no field {next(iter(said))!r:.80}; it has blocks, message_id, metadata")
    if message_id is not None:
        message_id = check_uuid(check_text(message_id, "message_id of message"), "message_id")
    return checked_message(None, blocks, "user", metadata, author), message_id


def _checked_blocks(blocks: object, role: str) -> tuple[BlockSnapshot, ...]:
    if not isinstance(blocks, list | tuple):
        raise InvalidBody(f"blocks must be a list of objects, not {type(blocks).__name__}")
    numbered = [{"seq": 0, **check_object(block, f"blocks[{at}]")} for at, block in enumerate(blocks)]
    parsed = tuple(
        structure(block, BlockSnapshot) for block in cast("Sequence[JSONObject]", own_json(numbered, "blocks"))
    )
    for block in parsed:
        check_kind(block)
        if role == "user" and block.kind in TOOL_KINDS:
            raise InvalidBody(f"a message of role user holds no {block.kind} block")
        if not 0 <= block.seq < _SAFE:
            raise InvalidBody("seq of a block is a whole number from 0, and below 2 to the power of 53")
    return parsed


def checked_filename(given: object) -> str | None:
    """What a file is called, without what deceives; None where it has no name, or one that says nothing."""
    return None if given is None else clean_filename(check_text(given, "filename"))
