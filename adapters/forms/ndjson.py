"""A session's deliveries as newline-delimited JSON.

Owns the bytes of the form ``application/x-ndjson``: one event per line as it is stored, control frames as
objects with ``control``, a blank line as the sign of life.
"""

from __future__ import annotations

from typing import Final

from penstock.engine import JSON, Batch, Cursor, Delivery, Ephemeral, Opened, SnapshotPage, SnapshotTaken, encode_json

from .controls import fields_of

__all__ = ["HEARTBEAT", "MEDIA_TYPE", "frame", "frame_batch", "frame_list", "frame_snapshot"]

MEDIA_TYPE: Final = "application/x-ndjson"

HEARTBEAT: Final = b"\n"


def frame_batch(batch: Batch) -> bytes:
    """All events of the batch; for `Batch.framed`, so that it is done once for all readers."""
    return b"\n".join([entry.body for entry in batch.entries]) + b"\n"


def frame_snapshot(page: SnapshotPage) -> bytes:
    """For `SnapshotTaken.framed`, as above."""
    return b'{"control":"snapshot",%b\n' % page.body[1:]


def frame_list(name: str, body: bytes, cursor: Cursor) -> bytes:
    """A frame about the list of sessions, of the JSON that it says; behind it, the reader stands at ``cursor``."""
    return b'{"control":"%b","list_cursor":"%b",%b\n' % (name.encode(), str(cursor).encode(), body[1:])


def frame(delivery: Delivery) -> bytes:
    """The bytes to write for one delivery."""
    match delivery:
        case Batch():
            return delivery.framed(frame_batch)
        case Opened(cursor=cursor):
            return _control("open", {"epoch": cursor.epoch, "cursor": str(cursor)})
        case SnapshotTaken():
            return delivery.framed(frame_snapshot)
        case Ephemeral(body=body):
            return body + b"\n"
        case _:
            return _control(*fields_of(delivery))


def _control(control: str, value: dict[str, JSON]) -> bytes:
    return encode_json({"control": control, **value}) + b"\n"
