"""The server's WebSocket frames: one JSON object each.

Owns their bytes; who sends them and when is `connection`'s. Events are joined as they are stored, never
encoded again.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from penstock.engine import (
    JSON,
    Batch,
    Cursor,
    Delivery,
    Ephemeral,
    Opened,
    SnapshotPage,
    SnapshotTaken,
    encode_json,
)

from ..problems import problem
from .controls import Control, fields_of

__all__ = [
    "cut",
    "frame",
    "frame_batch",
    "frame_control",
    "frame_error",
    "frame_list",
    "frame_reply",
    "frame_snapshot",
    "on_the_wire",
    "wire_frames",
]

# A frame is applied whole or not at all: on a line that breaks again and again each must get through, other sessions of
# the socket wait for it, and clients commonly refuse one above 1 MiB.
_FRAME_BYTES: Final = 60 * 1024


def on_the_wire(text: bytes) -> bytes:
    """The text as one frame of a server's (RFC 6455, section 5.2): final, not masked."""
    size = len(text)
    if size < 126:
        return b"\x81%c%b" % (size, text)
    if size < 1 << 16:
        return struct.pack("!BBH", 0x81, 126, size) + text
    return struct.pack("!BBQ", 0x81, 127, size) + text


def wire_frames(session_id: str, delivery: Delivery, request_id: JSON = None) -> Sequence[bytes]:
    """The frames for one delivery, on the wire; a large batch is cut into several. Made once for all readers."""
    if isinstance(delivery, Batch):
        return delivery.framed(_wire_batch)
    if isinstance(delivery, SnapshotTaken):
        return delivery.framed(_wire_snapshot)
    return (on_the_wire(frame(session_id, delivery, request_id)),)


def _wire_snapshot(page: SnapshotPage) -> Sequence[bytes]:
    return (on_the_wire(frame_snapshot(page)),)


def _wire_batch(batch: Batch) -> Sequence[bytes]:
    parts = (batch,) if batch.size <= _FRAME_BYTES else cut(batch)
    return [on_the_wire(frame_batch(part)) for part in parts]


def cut(batch: Batch) -> Iterator[Batch]:
    """The batch in parts that fit into frames, or in single events that do not."""
    begin = size = 0
    for at, entry in enumerate(batch.entries):
        if at > begin and size + len(entry.body) > _FRAME_BYTES:
            yield Batch(batch.session_id, batch.epoch, batch.entries[begin:at])
            begin, size = at, 0
        size += len(entry.body)
    yield Batch(batch.session_id, batch.epoch, batch.entries[begin:])


def frame_snapshot(page: SnapshotPage) -> bytes:
    """The page, which says which session it is of."""
    return b'{"op":"snapshot",%b' % page.body[1:]


def frame_batch(batch: Batch) -> bytes:
    """All events of the batch, however many."""
    return _events(batch.session_id, b",".join([entry.body for entry in batch.entries]), batch.cursor)


def _events(session_id: str, bodies: bytes, cursor: Cursor) -> bytes:
    return b'{"op":"events","session_id":%b,"events":[%b],"cursor":"%b"}' % (
        encode_json(session_id),
        bodies,
        str(cursor).encode(),
    )


def frame(session_id: str, delivery: Delivery, request_id: JSON = None) -> bytes:
    """One frame for one delivery; `Opened` is the reply to the request that subscribed."""
    match delivery:
        case Batch():
            return frame_batch(delivery)
        case Opened(cursor=cursor):
            return frame_reply(request_id, {"session_id": session_id, "cursor": str(cursor)})
        case SnapshotTaken():
            return delivery.framed(frame_snapshot)
        case Ephemeral(cursor=cursor, body=body):
            return _events(session_id, body, cursor)
        case _:
            op, fields = fields_of(delivery)
            return encode_json({"op": op, "session_id": session_id, **fields})


def frame_list(name: str, body: bytes, cursor: Cursor) -> bytes:
    """A frame about the list of sessions, of the JSON that it says; behind it, the reader stands at ``cursor``."""
    return b'{"op":"%b","list_cursor":"%b",%b' % (name.encode(), str(cursor).encode(), body[1:])


def frame_control(control: Control) -> bytes:
    """A frame about the stream of the list itself, which is no session's."""
    op, fields = fields_of(control)
    return encode_json({"op": op, **fields})


def frame_reply(request_id: JSON, result: Mapping[str, JSON]) -> bytes:
    """The answer to the request with this id; without an id where it gave none."""
    return encode_json({"op": "reply", **_id(request_id), "result": result})


def frame_error(request_id: JSON, error: BaseException, **ids: str | None) -> bytes:
    """The refusal of the request with this id; without an id where it gave none."""
    return encode_json({"op": "error", **_id(request_id), "error": problem(error, **ids)})


def _id(request_id: JSON) -> dict[str, JSON]:
    return {} if request_id is None else {"id": request_id}
