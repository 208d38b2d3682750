"""The schemas of what the server says by itself: events, the frames of streams, problems.

An event's data is the attrs type that the codec reads and writes; which part of the stamp an event bears goes by
its family. What is not listed may come all the same, from a later version: clients ignore it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, cast

from penstock.engine import DATA_TYPES, JSON, Event, Present, Snapshot

from ...problems import TABLE
from ...requests.answers import ListedSession, SessionList
from .schemas import Schema, Schemas, reference

__all__ = ["add_events", "add_frames", "add_problem"]

# What events of a family bear beside session_id, time and data.
_STAMPS: Final[Mapping[str, tuple[str, ...]]] = {
    "session": (),
    "queue": (),
    "generation": ("generation_id",),
    "message": ("message_id",),
    "block": ("generation_id", "turn", "message_id", "block_index", "seq"),
    "approval": ("generation_id", "turn"),
    "input": ("generation_id", "turn"),
    "presence": (),
}
_EPHEMERAL: Final = frozenset({"presence.changed"})

_REASON: Final[Schema] = {"type": "string"}


def add_events(schemas: Schemas) -> None:
    """``Event`` and one schema for each type of event."""
    schemas.of(Event)
    properties = cast(Schema, schemas.made.pop("Event")["properties"])
    kinds: list[JSON] = []
    for kind, data in DATA_TYPES.items():
        bears = _STAMPS[kind.partition(".")[0]]
        logged = () if kind in _EPHEMERAL else ("offset",)
        required: list[JSON] = ["type", "session_id", *logged, "time", *bears, "data"]
        fields = {name: schema for name, schema in properties.items() if name != "offset" or logged}
        made: Schema = {
            "type": "object",
            "properties": {"type": {"const": kind}, **fields, "data": schemas.of(data)},
            "required": required,
        }
        kinds.append(schemas.add(f"{data.__name__}Event", made))
    app: Schema = {
        "description": "The application's own; its data is free.",
        "type": "object",
        "properties": {
            "type": {"type": "string", "pattern": r"^app\."},
            **properties,
            "data": {"type": "object"},
        },
        "required": ["type", "session_id", "offset", "time", "data"],
    }
    kinds.append(schemas.add("AppEvent", app))
    schemas.add(
        "Event",
        {
            "description": "One stamped, immutable fact in a session's log. Ignore types and fields that you do not "
            "know: later versions add some.",
            "oneOf": kinds,
        },
    )


def add_frames(schemas: Schemas) -> None:
    """``StreamLine``: what a line of NDJSON is, and a frame of server-sent events but for its name."""
    schemas.of(Snapshot)
    whole = schemas.made["Snapshot"]
    cursor = reference("Cursor")
    present: Schema = {"type": "array", "items": schemas.of(Present)}
    frames: dict[str, tuple[str, Schema]] = {
        "open": ("The first line of NDJSON.", {"epoch": {"type": "string"}, "cursor": cursor}),
        "caught-up": ("The replay has reached the tail; from here it is live.", {"cursor": cursor}),
        "gap": (
            "What was asked for cannot be served; what follows begins at `from`.",
            {"reason": _REASON, "asked": {"type": "string"}, "from": cursor},
        ),
        "presence": ("All who are here; after each caught-up.", {"presence": present}),
        "degraded": ("Nothing can be stored, or read, at present.", {"code": {"type": "string"}}),
        "end": ("Nothing will ever follow.", {"reason": _REASON}),
        "drain": ("Come back.", {"reason": _REASON}),
    }
    lines: list[JSON] = [reference("Event")]
    for name, (told, fields) in frames.items():
        made: Schema = {
            "description": told,
            "type": "object",
            "properties": {"control": {"const": name}, **fields},
            "required": ["control", *fields],
        }
        lines.append(schemas.add("".join(part.title() for part in name.split("-")) + "Frame", made))
    framed: Schema = {
        **whole,
        "description": "The state; what follows continues from its cursor.",
        "properties": {"control": {"const": "snapshot"}, **cast(Schema, whole["properties"])},
        "required": ["control", *cast("list[JSON]", whole["required"])],
    }
    lines.append(schemas.add("SnapshotFrame", framed))
    schemas.add("StreamLine", {"description": "An event, or a frame about the stream itself.", "anyOf": lines})
    _add_list_frames(schemas, cursor)


def _add_list_frames(schemas: Schemas, cursor: Schema) -> None:
    """``ListLine``: the same of the stream of the list."""
    for kind in (SessionList, ListedSession):
        schemas.of(kind)
    gone: Schema = {"properties": {"session_id": reference("SessionId")}, "required": ["session_id"]}
    frames = {
        "sessions": ("A page of the list, the last active first.", schemas.made["SessionList"]),
        "session": (
            "One that was made, or has changed: it takes the place of what was listed.",
            schemas.made["ListedSession"],
        ),
        "session-gone": ("It was deleted.", gone),
    }
    lines: list[JSON] = []
    for name, (told, shape) in frames.items():
        made: Schema = {
            "description": told,
            "type": "object",
            "properties": {"control": {"const": name}, "list_cursor": cursor, **cast(Schema, shape["properties"])},
            "required": ["control", "list_cursor", *cast("list[JSON]", shape["required"])],
        }
        lines.append(schemas.add("".join(part.title() for part in name.split("-")) + "Frame", made))
    lines += [reference(f"{name}Frame") for name in ("Open", "CaughtUp", "Gap", "Degraded", "End", "Drain")]
    schemas.add("ListLine", {"description": "A frame of the stream of the list.", "anyOf": lines})


def add_problem(schemas: Schemas) -> None:
    """``Problem`` (RFC 9457), with the codes of the one table."""
    made: Schema = {
        "description": "Decide by `code`: the other texts are for people and may change.",
        "type": "object",
        "properties": {
            "type": {"type": "string", "format": "uri", "pattern": "^urn:penstock:problem:"},
            "title": {"type": "string"},
            "status": {"type": "integer", "enum": sorted({row.status for row in TABLE.values()})},
            "code": {"type": "string", "enum": list(TABLE)},
            "detail": {"type": "string"},
            "retryable": {"description": "The same request may succeed later.", "type": "boolean"},
            "retry_after": {
                "description": "With 429 and 503: seconds, as in Retry-After.",
                "type": "integer",
                "minimum": 1,
            },
            "expected": {"description": "Of a SEQUENCE_GAP: the number that must come next.", "type": "integer"},
            "epoch": {"description": "Of a STALE_PRODUCER: the epoch that has taken over.", "type": "integer"},
            "session_id": reference("SessionId"),
            "generation_id": reference("Uuid"),
            "message_id": reference("Uuid"),
        },
        "required": ["type", "title", "status", "code", "detail", "retryable"],
    }
    schemas.add("Problem", made)
