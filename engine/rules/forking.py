"""The beginning of a fork: what a new session's log says of the messages that it starts from.

Owns how messages are carried over: each whole, under its id, without the stamp of the generation that made it;
one that was open is cancelled. Nothing else is carried.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import final

from attrs import frozen

from ..codec import encode, encode_with, encoding_blocks
from ..events import BlockSnapshot, Cursor, Event, JSONObject, MessageSnapshot, SessionForked
from ..reducer import BlockView, MessageView
from ..work import Work
from .lifecycle import Said, first_words
from .listing import Listed, begun
from .records import MessageRecord, message_key, to_record

__all__ = ["Beginning", "beginning"]


@final
@frozen(kw_only=True)
class Beginning:
    """The new log's events, from offset 1 on, and the records that go with them."""

    events: Sequence[bytes]
    records: dict[str, bytes | None]
    listed: Listed


def beginning(
    messages: Sequence[MessageView], *, session_id: str, source: str, cursor: Cursor, metadata: JSONObject, time: str
) -> Work[Beginning]:
    """What the fork ``session_id`` of ``source`` begins with, message by message. Raises `InvalidBody`."""
    forked = SessionForked(source_session_id=source, source_cursor=str(cursor), metadata=metadata)
    events = [encode(Event(data=forked, session_id=session_id, time=time, offset=1))]
    records: dict[str, bytes | None] = {}
    for number, message in enumerate(messages, 2):
        whole = _whole(message)
        data = yield from encoding_blocks(whole, map(_block, message.blocks))
        event = Event(data=whole, session_id=session_id, time=time, offset=number, message_id=message.message_id)
        events.append(encode_with(event, data))
        # As of a message that was posted: repeated with the same content, it is the same.
        record = MessageRecord(digest=(yield from _digesting(data)))
        records[message_key(message.message_id)] = to_record(record)
        yield
    return Beginning(events=events, records=records, listed=begun(time, map(_said, messages)))


def _digesting(data: bytes) -> Work[str]:
    """`parts.digest` of what these bytes say."""
    made, size = sha256(), 64 * 1024
    for start in range(0, len(data), size):
        made.update(data[start : start + size])
        yield
    return made.hexdigest()


def _said(message: MessageView) -> Said | None:
    texts = (block.text for block in message.blocks if block.kind == "text")
    return first_words(message.message_id, message.role, texts)


def _whole(message: MessageView) -> MessageSnapshot:
    """But for its blocks, of which there may be any number."""
    return MessageSnapshot(
        role=message.role,
        status="cancelled" if message.status == "open" else message.status,
        blocks=(),
        parent_message_id=message.parent_message_id,
        metadata=message.metadata,
    )


def _block(block: BlockView) -> BlockSnapshot:
    return BlockSnapshot(
        kind=block.kind,
        seq=block.seq,
        text=block.text,
        arguments=block.arguments,
        value=block.value,
        tool_call_id=block.tool_call_id,
        name=block.name,
        is_error=block.is_error,
    )
