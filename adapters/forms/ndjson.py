"""A session's deliveries as newline-delimited JSON.

Owns the bytes of the form ``application/x-ndjson``: one event per line as it is stored, control frames as
objects with ``control``, a blank line as the sign of life.
"""

from __future__ import annotations

from typing import Final, assert_never

from penstock.engine import (
    JSON,
    Batch,
    CaughtUp,
    Degraded,
    Delivery,
    Drained,
    Ended,
    Ephemeral,
    Gap,
    Opened,
    PresenceListed,
    SnapshotPage,
    SnapshotTaken,
    encode_json,
)

__all__ = ["HEARTBEAT", "MEDIA_TYPE", "frame", "frame_batch", "frame_snapshot"]

MEDIA_TYPE: Final = "application/x-ndjson"

HEARTBEAT: Final = b"\n"


def frame_batch(batch: Batch) -> bytes:
    """All events of the batch; for `Batch.framed`, so that it is done once for all readers."""
    return b"\n".join([entry.body for entry in batch.entries]) + b"\n"


def frame_snapshot(page: SnapshotPage) -> bytes:
    """For `SnapshotTaken.framed`, as above."""
    return b'{"control":"snapshot",%b\n' % page.body[1:]


def frame(delivery: Delivery) -> bytes:
    """The bytes to write for one delivery."""
    match delivery:
        case Batch():
            return delivery.framed(frame_batch)
        case Opened(cursor=cursor):
            return _control("open", {"epoch": cursor.epoch, "cursor": str(cursor)})
        case SnapshotTaken():
            return delivery.framed(frame_snapshot)
        case CaughtUp(cursor=cursor):
            return _control("caught-up", {"cursor": str(cursor)})
        case PresenceListed():
            return _control("presence", delivery.to_json())
        case Ephemeral(body=body):
            return body + b"\n"
        case Gap(reason=reason, asked=asked, resumed=resumed):
            return _control("gap", {"reason": reason, "asked": asked, "from": str(resumed)})
        case Degraded(code=code):
            return _control("degraded", {"code": code})
        case Ended(reason=reason):
            return _control("end", {"reason": reason})
        case Drained(reason=reason):
            return _control("drain", {"reason": reason})
        case _:
            assert_never(delivery)


def _control(control: str, value: dict[str, JSON]) -> bytes:
    return encode_json({"control": control, **value}) + b"\n"
