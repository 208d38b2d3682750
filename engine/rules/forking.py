"""The beginning of a fork: what a new session's log says of the messages that it starts from.

Owns how messages are carried over: each whole, without the stamp of the generation that made it, but with how that
ended. In a fork it keeps its id, and says how one ended that began behind it and wrote nothing; a message that was open
is cancelled. Nothing else is carried. Versions that are restored are carried over within their session (`versions`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from hashlib import sha256
from itertools import chain
from typing import final

from attrs import frozen

from ..codec import converter, encode, encode_json, encode_with, encoding_blocks
from ..events import JSON, Cursor, Event, ForkedGeneration, JSONObject, MessageSnapshot, SessionForked, Version
from ..reducer import BlockView, GenerationInfo, MessageView
from ..work import Work, emptying
from .listing import Listed, begun, said_in, saying, words_of
from .records import GenerationRecord, MessageRecord, generation_key, message_key, to_record

__all__ = ["Beginning", "beginning", "carrying", "digesting", "end_of", "telling"]


@final
@frozen(kw_only=True)
class Beginning:
    """The new log's events, from offset 1 on, the records that go with them, and which files its messages name."""

    events: Sequence[bytes]
    records: dict[str, bytes | None]
    file_ids: list[str]
    listed: Listed


def beginning(
    messages: deque[MessageView],
    generations: deque[GenerationInfo],
    *,
    session_id: str,
    source: str,
    cursor: Cursor,
    metadata: JSONObject,
    time: str,
) -> Work[Beginning]:
    """What the fork ``session_id`` of ``source`` begins with, message by message.

    ``generations`` are those that a snapshot with these messages shows. Each is taken out of ``messages`` and
    ``generations``. Raises `InvalidBody`.
    """
    ends: dict[str, ForkedGeneration] = {}
    silent: dict[str | None, ForkedGeneration] = {}
    records: dict[str, bytes | None] = {}
    while generations:
        generation = generations.popleft()
        end = end_of(generation)
        if end is not None:
            ends[generation.generation_id] = end
            if generation.silent:
                silent[generation.behind] = end
        yield
    forked = SessionForked(source_session_id=source, source_cursor=str(cursor), metadata=metadata)
    events = [encode(Event(data=forked, session_id=session_id, time=time, offset=1))]
    named: dict[str, None] = {}
    listed = begun(time)
    while messages:
        message = messages.popleft()
        number = len(events) + 1
        whole, said = yield from carrying(message)
        # As of a message that was posted: repeated with the same content, it is the same.
        record = MessageRecord(digest=(yield from digesting(said)))
        writer, behind = ends.get(message.generation_id or ""), silent.get(message.message_id)
        data = telling(said, author=message.author, continues=message.continues, generation=writer, silent=behind)
        event = Event(data=whole, session_id=session_id, time=time, offset=number, message_id=message.message_id)
        events.append(encode_with(event, data))
        records[message_key(message.message_id)] = to_record(record)
        for end in filter(None, (writer, behind)):  # the id is taken here, too; the turn was one of the source's
            records[generation_key(end.generation_id)] = to_record(GenerationRecord(outcome=end.outcome, code=end.code))
        listed = saying(listed, said_in(message.message_id, message))
        named.update((block.file_id, None) for block in message.blocks if block.file_id is not None)
        yield
    yield from emptying(ends)
    return Beginning(events=events, records=records, file_ids=list(named), listed=listed)


def digesting(data: bytes) -> Work[str]:
    """`transaction.digest` of what these bytes say."""
    made, size = sha256(), 64 * 1024
    for start in range(0, len(data), size):
        made.update(data[start : start + size])
        yield
    return made.hexdigest()


def end_of(generation: GenerationInfo) -> ForkedGeneration | None:
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


def carrying(message: MessageView) -> Work[tuple[MessageSnapshot, bytes]]:
    """What a message that is carried over says, block by block: with its first words alone, and as JSON with all."""
    texts = (block for block in message.blocks if block.kind == "text" and block.text)
    names = (block for block in message.blocks if block.kind != "text" and any(words_of((block,))))
    said = next(chain(texts, names), None)
    whole = MessageSnapshot(
        role=message.role,
        status="cancelled" if message.status == "open" else message.status,
        blocks=() if said is None else (said.whole(),),
        parent_message_id=message.parent_message_id,
        metadata=message.metadata,
        finish_reason=message.finish_reason,
        usage=message.usage,
    )
    return whole, (yield from encoding_blocks(whole, map(BlockView.whole, message.blocks)))


def telling(
    said: bytes,
    *,
    author: str | None,
    continues: str | None,
    generation: ForkedGeneration | None,
    silent: ForkedGeneration | None = None,
    version: Version | None = None,
) -> bytes:
    """What the message says, and whose it was: its last fields, as `encode` puts them."""
    given: dict[str, JSON] = {"author": author, "continues": continues}
    for name, what in (("generation", generation), ("silent", silent), ("version", version)):
        given[name] = None if what is None else converter.unstructure(what)
    more = {name: value for name, value in given.items() if value is not None}
    return b"%b,%b" % (said[:-1], encode_json(more)[1:]) if more else said
