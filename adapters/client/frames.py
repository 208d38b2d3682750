"""What a stream says, from either form: server-sent messages and WebSocket frames to one set of classes.

Pure. Owns the shape of frames; what of them is new to a reader is `place`'s. Control frames are the engine's own
deliveries; events come in bunches, as they came in one piece.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeAlias, final

from attrs import frozen

from penstock.engine import (
    JSON,
    CallerError,
    Cursor,
    Event,
    JSONObject,
    Opened,
    Snapshot,
    SnapshotTaken,
    decode_json,
    from_json,
    structure,
)

from ..forms.controls import Control, read_control
from ..forms.sse_reader import ServerSent
from .refusals import BadAnswer, from_problem

__all__ = ["Bunch", "Frame", "Later", "from_message", "from_socket", "joined"]


@final
@frozen
class Bunch:
    """Events as they came, each with its cursor; None for those that are not in the log."""

    items: tuple[tuple[Cursor | None, Event], ...]


@final
@frozen
class Later:
    """If the connection ends, the next one shall not come before so many seconds."""

    seconds: float


Frame: TypeAlias = Opened | SnapshotTaken | Bunch | Control | Later


def from_message(message: ServerSent) -> list[Frame]:
    """The frames of one server-sent message. Raises `BadAnswer`; what this version does not know is left out."""
    made: list[Frame] = [] if message.retry is None else [Later(message.retry)]
    try:
        if message.data is None:
            if message.id:
                made.append(Opened(Cursor.parse(message.id)))
        elif message.event == "message":
            event = from_json(decode_json(message.data.encode()))
            cursor = None if event.offset is None else Cursor.parse(message.id)
            if cursor is not None and cursor.offset != event.offset:
                raise BadAnswer(f"the event at offset {event.offset} came with the id {cursor}")
            made.append(Bunch(((cursor, event),)))
        else:
            control = _control(message.event, _object(decode_json(message.data.encode())))
            if control is not None:
                made.append(control)
    except CallerError as error:
        raise _unreadable(error) from error
    return made


def joined(frames: Iterable[Frame]) -> list[Frame]:
    """The same with events that stand side by side in one bunch."""
    made: list[Frame] = []
    for frame in frames:
        if isinstance(frame, Bunch) and made and isinstance(made[-1], Bunch):
            made[-1] = Bunch(made[-1].items + frame.items)
        else:
            made.append(frame)
    return made


def from_socket(text: str, session_id: str, request_id: int) -> list[Frame]:
    """The frames of one WebSocket message, to the subscription that was asked for with ``request_id``.

    Raises `BadAnswer`, and what the server refused the subscription with, or ends it with.
    """
    value = _parsed(text)
    op = value.get("op")
    if op == "error":
        problem = value.get("error")
        raise from_problem(problem if isinstance(problem, dict) else {})
    try:
        match op:
            case "reply":
                if value.get("id") != request_id:
                    return []
                return [structure(value.get("result"), Opened)]
            case "events" if value.get("session_id") == session_id:
                epoch = structure(value, Opened).cursor.epoch
                events = value.get("events")
                if not isinstance(events, list):
                    raise BadAnswer("a frame lacks its events")
                return [Bunch(tuple(_placed(epoch, from_json(item)) for item in events))]
            case str() if value.get("session_id") == session_id or op == "drain":
                control = _control(op, {k: v for k, v in value.items() if k != "op"})
                return [] if control is None else [control]
            case _:
                return []
    except CallerError as error:
        raise _unreadable(error) from error


def _parsed(text: str) -> JSONObject:
    try:
        return _object(decode_json(text.encode()))
    except CallerError as error:
        raise _unreadable(error) from error


def _placed(epoch: str, event: Event) -> tuple[Cursor | None, Event]:
    return (None if event.offset is None else Cursor(epoch, event.offset)), event


def _control(name: str, value: JSONObject) -> Frame | None:
    """A frame about the stream; None for one that this version does not know."""
    return SnapshotTaken(Snapshot.from_json(value)) if name == "snapshot" else read_control(name, value)


def _object(value: JSON) -> JSONObject:
    if not isinstance(value, Mapping):
        raise BadAnswer("a frame is no object")
    return value


def _unreadable(error: CallerError) -> BadAnswer:
    return BadAnswer(f"a frame cannot be read: {error.detail}")
