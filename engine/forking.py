"""The beginning of a fork: what a new session's log says of the messages that it starts from.

Owns how messages are carried over: each whole, under its id, without the stamp of the generation that made it;
one that was open is cancelled. Nothing else is carried.
"""

from __future__ import annotations

from collections.abc import Iterator

from .events import BlockSnapshot, Cursor, Data, JSONObject, MessageSnapshot, SessionForked
from .reducer import BlockView, MessageView

__all__ = ["fork_events"]


def fork_events(
    messages: tuple[MessageView, ...], *, source: str, cursor: Cursor, metadata: JSONObject
) -> Iterator[tuple[Data, str | None]]:
    """The new log's events, each with its message's id."""
    yield SessionForked(source_session_id=source, source_cursor=str(cursor), metadata=metadata), None
    for message in messages:
        snapshot = MessageSnapshot(
            role=message.role,
            status="cancelled" if message.status == "open" else message.status,
            blocks=tuple(_whole(block) for block in message.blocks),
            parent_message_id=message.parent_message_id,
            metadata=message.metadata,
        )
        yield snapshot, message.message_id


def _whole(block: BlockView) -> BlockSnapshot:
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
