"""A session's deliveries as Server-Sent Events.

Owns the bytes of the form ``text/event-stream``; who reads and when is the caller's. A logged event is ``id``
and ``data`` and has no ``event`` line, so that `onmessage` sees it; control frames have one. An event that is not
in the log is ``data`` alone, and leaves a reader's place as it was. Lines end with LF only: some clients split on
nothing else.
"""

from __future__ import annotations

import random
from typing import Final

from penstock.engine import (
    Batch,
    CaughtUp,
    Cursor,
    Degraded,
    Delivery,
    Drained,
    Ephemeral,
    Gap,
    Opened,
    SnapshotPage,
    SnapshotTaken,
    encode_json,
)

from .controls import Control, fields_of

__all__ = ["HEARTBEAT", "MEDIA_TYPE", "frame", "frame_batch", "frame_list", "frame_snapshot"]

MEDIA_TYPE: Final = "text/event-stream"

HEARTBEAT: Final = b": ping\n\n"

# When readers come back after a drain, or after a log that could not be read, in milliseconds: spread out, so that
# a restarted server does not get all of them in its first second.
_RETRY: Final = (1_000, 5_000)


def frame_batch(batch: Batch) -> bytes:
    """All events of the batch; for `Batch.framed`, so that it is done once for all readers."""
    epoch = batch.epoch.encode()
    return b"".join([b"id: %b-%016d\ndata: %b\n\n" % (epoch, offset, body) for offset, body in batch.entries])


def frame_snapshot(page: SnapshotPage) -> bytes:
    """For `SnapshotTaken.framed`, as above."""
    return b"event: snapshot\nid: %b\ndata: %b\n\n" % (str(page.snapshot.cursor).encode(), page.body)


def frame_list(name: str, body: bytes, cursor: Cursor) -> bytes:
    """A frame about the list of sessions, of the JSON that it says; behind it, the reader stands at ``cursor``."""
    return b"event: %b\nid: %b\ndata: %b\n\n" % (name.encode(), str(cursor).encode(), body)


def frame(delivery: Delivery) -> bytes:
    """The bytes to write for one delivery."""
    match delivery:
        case Batch():
            return delivery.framed(frame_batch)
        case Opened(cursor=cursor):
            return b"id: %b\n\n" % str(cursor).encode()
        case SnapshotTaken():
            return delivery.framed(frame_snapshot)
        case Ephemeral(body=body):
            return b"data: %b\n\n" % body
        case _:
            return _control(delivery)


def _control(control: Control) -> bytes:
    """With where the reader stands now, if it says so, or with when to come back."""
    event, fields = fields_of(control)
    lines = [f"event: {event}".encode()]
    if isinstance(control, CaughtUp | Gap):
        lines.append(f"id: {control.cursor if isinstance(control, CaughtUp) else control.resumed}".encode())
    if isinstance(control, Degraded | Drained):
        lines.append(f"retry: {random.randint(*_RETRY)}".encode())
    lines.append(b"data: " + encode_json(fields))
    return b"\n".join(lines) + b"\n\n"
