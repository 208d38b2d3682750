"""The beginning of a fork: what a new session's log says of the messages that it starts from.

Owns how messages are carried over: each whole, under its id, without the stamp of the generation that made it, but with
how that ended, and how one did that began behind it and wrote nothing. A message that was open is cancelled. Nothing
else is carried.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import final

from attrs import frozen

from ..codec import converter, encode, encode_json, encode_with, encoding_blocks
from ..events import Cursor, Event, ForkedGeneration, JSONObject, MessageSnapshot, SessionForked
from ..reducer import BlockView, GenerationInfo, MessageView
from ..work import Work
from .lifecycle import Said, first_words
from .listing import Listed, begun, saying
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
    messages: Sequence[MessageView],
    generations: Sequence[GenerationInfo],
    *,
    session_id: str,
    source: str,
    cursor: Cursor,
    metadata: JSONObject,
    time: str,
) -> Work[Beginning]:
    """What the fork ``session_id`` of ``source`` begins with, message by message. Raises `InvalidBody`.

    ``generations`` are those that a snapshot with these messages shows.
    """
    ends: dict[str, ForkedGeneration | None] = {}
    silent: dict[str | None, ForkedGeneration | None] = {}
    for generation in generations:
        ends[generation.generation_id] = _end(generation)
        if generation.silent:
            silent[generation.behind] = _end(generation)
        yield
    forked = SessionForked(source_session_id=source, source_cursor=str(cursor), metadata=metadata)
    events = [encode(Event(data=forked, session_id=session_id, time=time, offset=1))]
    records: dict[str, bytes | None] = {}
    listed = begun(time)
    for number, message in enumerate(messages, 2):
        whole = _whole(message)
        said = yield from encoding_blocks(whole, map(BlockView.whole, message.blocks))
        # As of a message that was posted: repeated with the same content, it is the same.
        record = MessageRecord(digest=(yield from _digesting(said)))
        data = _with_source(said, message, ends.get(message.generation_id or ""), silent.get(message.message_id))
        event = Event(data=whole, session_id=session_id, time=time, offset=number, message_id=message.message_id)
        events.append(encode_with(event, data))
        records[message_key(message.message_id)] = to_record(record)
        listed = saying(listed, _said(message))
        yield
    return Beginning(events=events, records=records, listed=listed)


def _digesting(data: bytes) -> Work[str]:
    """`parts.digest` of what these bytes say."""
    made, size = sha256(), 64 * 1024
    for start in range(0, len(data), size):
        made.update(data[start : start + size])
        yield
    return made.hexdigest()


def _end(generation: GenerationInfo) -> ForkedGeneration | None:
    """How it ended; None of one that is live, which is not carried."""
    if generation.outcome is None or generation.turn is None:
        return None
    return ForkedGeneration(
        generation_id=generation.generation_id,
        turn=generation.turn,
        outcome=generation.outcome,
        code=generation.code,
        message=generation.message,
    )


def _with_source(
    said: bytes, message: MessageView, end: ForkedGeneration | None, silent: ForkedGeneration | None
) -> bytes:
    """What the message says, and whose it was: its last fields, as `encode` puts them."""
    given = {
        "author": message.author,
        "continues": message.continues,
        "generation": None if end is None else converter.unstructure(end),
        "silent": None if silent is None else converter.unstructure(silent),
    }
    more = {name: value for name, value in given.items() if value is not None}
    return b"%b,%b" % (said[:-1], encode_json(more)[1:]) if more else said


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
