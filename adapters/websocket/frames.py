"""The server's WebSocket frames: one JSON object each.

Owns their bytes; who sends them and when is `connection`'s. Events are joined as they are stored, never
encoded again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import assert_never

from engine import (
    JSON,
    Batch,
    CaughtUp,
    Degraded,
    Delivery,
    Drained,
    Ended,
    Gap,
    Opened,
    SnapshotTaken,
    encode_json,
)

from ..problems import problem

__all__ = ["frame", "frame_batch", "frame_error", "frame_reply"]


def frame_batch(batch: Batch) -> bytes:
    """All events of the batch; for `Batch.framed`, so that it is done once for all readers."""
    return b'{"op":"events","session_id":%b,"events":[%b],"cursor":"%b"}' % (
        encode_json(batch.session_id),
        b",".join([entry.body for entry in batch.entries]),
        str(batch.cursor).encode(),
    )


def frame(session_id: str, delivery: Delivery, request_id: JSON = None) -> bytes:
    """The frame for one delivery; `Opened` is the reply to the request that subscribed."""
    match delivery:
        case Batch():
            return delivery.framed(frame_batch)
        case Opened(cursor=cursor):
            return frame_reply(request_id, {"session_id": session_id, "cursor": str(cursor)})
        case SnapshotTaken(snapshot=snapshot):
            return _control("snapshot", session_id, snapshot.to_json())
        case CaughtUp(cursor=cursor):
            return _control("caught-up", session_id, {"cursor": str(cursor)})
        case Gap(reason=reason, asked=asked, resumed=resumed):
            return _control("gap", session_id, {"reason": reason, "asked": asked, "from": str(resumed)})
        case Degraded(code=code):
            return _control("degraded", session_id, {"code": code})
        case Ended(reason=reason):
            return _control("end", session_id, {"reason": reason})
        case Drained(reason=reason):
            return _control("drain", session_id, {"reason": reason})
        case _:
            assert_never(delivery)


def frame_reply(request_id: JSON, result: Mapping[str, JSON]) -> bytes:
    """The answer to the request with this id; without an id where it gave none."""
    return encode_json({"op": "reply", **_id(request_id), "result": result})


def frame_error(request_id: JSON, error: BaseException, **ids: str | None) -> bytes:
    """The refusal of the request with this id; without an id where it gave none."""
    return encode_json({"op": "error", **_id(request_id), "error": problem(error, **ids)})


def _id(request_id: JSON) -> dict[str, JSON]:
    return {} if request_id is None else {"id": request_id}


def _control(op: str, session_id: str, value: Mapping[str, JSON]) -> bytes:
    return encode_json({"op": op, "session_id": session_id, **value})
