"""The sessions of B11's logs, each by its number: what is stored of one, and where it stands in the list.

A tenth of all ids begins alike, and so does a tenth of these: what a token with a pattern lets somebody read. The
higher its number, the later a session was last active.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Final

from penstock.adapters.requests.listing import Place
from penstock.engine import (
    Append,
    BlockSnapshot,
    Event,
    MessageSnapshot,
    SessionCreated,
    Summary,
    encode,
    encode_json,
    new_epoch,
    new_message_id,
)
from penstock.engine.rules.lifecycle import Said
from penstock.engine.rules.listing import Listed
from penstock.engine.rules.records import METADATA

__all__ = ["PATTERNS", "append", "page", "place", "rank", "session_id", "updated"]

# Whose list it is, and what their token lets them read.
PATTERNS: Final = {"all": "*", "tenth": "t3-*", "hundredth": "t3-u7-*"}

_BEGIN: Final = datetime(2025, 1, 1, tzinfo=UTC)

_QUESTION: Final = "How does the water of the upper lake come to the mill?"


def session_id(number: int) -> str:
    """Such as ``t3-u7-0000073``."""
    return f"t{number % 10}-u{number // 10 % 10}-{number:07d}"


def updated(number: int) -> str:
    """When it was last active, a second behind the one before, as events have it."""
    return (_BEGIN + timedelta(seconds=number)).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def rank(number: int) -> int:
    """The same in milliseconds since 1970: what the log orders by."""
    return int((_BEGIN.timestamp() + number) * 1000)


def place(number: int) -> str:
    """``after`` for the page behind this one, in the order of activity."""
    return Place(updated(number), session_id(number)).told(openly=True)


def page(whose: str, behind: int, limit: int) -> list[str]:
    """The ids of the page behind session number ``behind``, as long as nobody touches a lower one."""
    prefix = PATTERNS[whose].removesuffix("*")
    ids = map(session_id, range(behind - 1, -1, -1))
    return list(islice((found for found in ids if found.startswith(prefix)), limit))


def append(number: int) -> Append:
    """What makes it: a session with a title, in which a user has asked something."""
    name, time, message_id = session_id(number), updated(number), new_message_id()
    metadata = {"title": f"The upper lake, part {number}"}
    created = Event(data=SessionCreated(metadata=metadata), session_id=name, time=time, offset=1)
    block = BlockSnapshot(kind="text", seq=0, text=_QUESTION)
    asked = MessageSnapshot(role="user", status="complete", blocks=(block,))
    message = Event(data=asked, session_id=name, time=time, offset=2, message_id=message_id)
    said = Said(message_id=message_id, role="user", text=_QUESTION)
    return Append(
        session_id=name,
        epoch=new_epoch(),
        expected_tail=0,
        token=1,
        events=[encode(created), encode(message)],
        records={METADATA: encode_json(metadata)},
        summary=Summary(rank(number), Listed(created=time, updated=time, first=said, last=said).encoded()),
        create=True,
    )
