"""What types leave open: how ids look, which words there are, which fields are numbers from 0.

One name means one thing wherever it stands, so most of it is by the field's name. A word of which later versions,
or applications, may have more (an outcome, a status) is listed where the server says it, too: a new one is a change
to the protocol.
"""

from __future__ import annotations

from typing import Final

from .schemas import Grammar, Schema, reference

__all__ = ["GRAMMAR", "KIND", "SHARED", "WORD"]

_ROLES: Final = ["user", "assistant", "tool", "system"]
_POLICIES: Final = ["supersede", "rollback", "queue", "latest", "reject", "join"]
_KINDS: Final = ["text", "reasoning", "tool_call", "tool_result", "data", "image", "file", "source"]
_CHUNKS: Final = [
    "message.opened",
    "message.closed",
    "block.opened",
    "block.delta",
    "block.closed",
    "generation.status",
    "approval.requested",
    "input.applied",
]

_SEGMENT: Final[Schema] = {
    "type": "string",
    "pattern": "^[A-Za-z0-9._~:-]{1,128}$",
    "not": {"enum": [".", ".."]},
}
# What Python calls printable: no control or format characters, and of separators only the space.
_PRINTABLE: Final = r"^[\p{L}\p{M}\p{N}\p{P}\p{S} ]+$"
WORD: Final[Schema] = {"type": "string", "pattern": _PRINTABLE, "minLength": 1, "maxLength": 128}

# Up to where every reader of JSON tells whole numbers apart.
_COUNT: Final[Schema] = {"type": "integer", "minimum": 0, "maximum": 2**53 - 1}
_ORDINAL: Final[Schema] = {"type": "integer", "minimum": 1}

# The schemas that are no type's.
SHARED: Final[dict[str, Schema]] = {
    "Json": {
        "description": "Any JSON but null: what does not apply is left out.",
        "type": ["string", "number", "boolean", "object", "array"],
    },
    "SessionId": {"description": "Fits one segment of a path.", **_SEGMENT},
    "PresenceId": {"description": "Names an actor or a device; fits one segment of a path.", **_SEGMENT},
    "Uuid": {
        "description": "Version 7 where the server makes it. Read in either case, told in lower case.",
        "type": "string",
        "format": "uuid",
        "pattern": "^[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12}$",
    },
    "Cursor": {
        "description": "A place in one life of a session's log: the epoch, and the offset of the event before it.",
        "type": "string",
        "pattern": "^[A-Za-z0-9]{1,32}-[0-9]{16}$",
        "examples": ["3f2a9c0d1b7e4a58-0000000000000009"],
    },
    "FileId": {"description": "Names one of a session's files; fits one segment of a path.", **_SEGMENT},
    "Url": {
        "description": "http or https. The server never asks there.",
        "type": "string",
        "pattern": "^[Hh][Tt][Tt][Pp][Ss]?://[^ \\\\]+$",
        "maxLength": 8192,
    },
    "MediaType": {
        "description": "In lower case, without parameters.",
        "type": "string",
        "pattern": "^[a-z0-9][a-z0-9!#$&^_.+-]{0,62}/[a-z0-9][a-z0-9!#$&^_.+-]{0,62}$",
        "examples": ["image/png"],
    },
    "JobId": {
        "description": "Printable characters; every event of the generation carries it.",
        "type": "string",
        "pattern": _PRINTABLE,
        "minLength": 1,
        "maxLength": 256,
    },
    "InputId": {"description": "Printable characters.", **WORD},
    "Time": {
        "description": "UTC, to the millisecond.",
        "type": "string",
        "format": "date-time",
        "examples": ["2026-01-31T09:26:53.589Z"],
    },
}

_NAMED: Final[dict[str, Schema]] = {
    "session_id": reference("SessionId"),
    "source_session_id": reference("SessionId"),
    "generation_id": reference("Uuid"),
    "supersedes": reference("Uuid"),
    "superseded_by": reference("Uuid"),
    "message_id": reference("Uuid"),
    "parent_message_id": reference("Uuid"),
    "replaces": reference("Uuid"),
    "continues": reference("Uuid"),
    "behind": reference("Uuid"),
    "cursor": reference("Cursor"),
    "source_cursor": reference("Cursor"),
    "job_id": reference("JobId"),
    "input_id": reference("InputId"),
    "actor_id": reference("PresenceId"),
    "device_id": reference("PresenceId"),
    "file_id": reference("FileId"),
    "media_type": reference("MediaType"),
    "url": reference("Url"),
    "time": reference("Time"),
    "closed": reference("Time"),
    "expires_at": reference("Time"),
    "offset": _ORDINAL,
    "turn": _ORDINAL,
    "position": _ORDINAL,
    "block_index": _COUNT,
    "seq": _COUNT,
    "accepted": _COUNT,
    "duplicates": _COUNT,
    "role": {"type": "string", "enum": _ROLES},
    "policy": {"type": "string", "enum": _POLICIES},
    "cleanup": {"type": "string", "enum": ["clean", "overran"]},
    "outcome": {
        "type": "string",
        "enum": [
            "completed",
            "superseded",
            "stopped",
            "failed",
            "stalled",
            "expired",
            "lost",
            "shutdown",
            "deleted",
            "reset",
        ],
    },
}

_CLOSED: Final[Schema] = {"type": "string", "enum": ["complete", "cancelled", "failed"]}
KIND: Final[Schema] = {"type": "string", "enum": _KINDS}
# A message that was posted may have blocks of kinds that only the application knows.
_ANY_KIND: Final[Schema] = {"type": "string", "description": f"{', '.join(_KINDS)}, or the poster's own."}
_PATIENCE: Final[Schema] = {
    "description": "What happens with nobody subscribed: it goes on, or is stopped after so many seconds.",
    "anyOf": [{"const": "continue"}, {"type": "number", "minimum": 0}],
    "default": "continue",
}
# What a start cannot bring together.
_TOGETHER: Final[Schema] = {
    "anyOf": [
        {"required": ["continues", "text"]},
        {"required": ["continues", "message"]},
        {"required": ["continues", "replaces"]},
        {"required": ["text", "message"]},
        {"required": ["continues", "policy"], "properties": {"policy": {"const": "join"}}},
    ]
}
_SILENCE: Final[Schema] = {
    "description": "How many seconds it may write nothing before it ends as `stalled`, in place of the limit of its "
    "producer or of the server; null: for ever.",
    "anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "null"}],
}

GRAMMAR: Final = Grammar(
    named=_NAMED,
    own={
        "MessageView": {"status": {"type": "string", "enum": ["open", "complete", "cancelled", "failed"]}},
        "BlockView": {"kind": _ANY_KIND},
        "Version": {"of": reference("Uuid"), "index": _ORDINAL, "count": _ORDINAL},
        "RestoreAnswer": {"message_ids": {"type": "array", "items": reference("Uuid")}},
        "BlockSnapshot": {"kind": _ANY_KIND},
        "GenerationCancelling": {"by": reference("Uuid")},
        "MessageClosed": {"status": _CLOSED},
        "MessageSnapshot": {"status": _CLOSED},
        "BlockOpened": {"kind": KIND},
        "InputAccepted": {"kind": WORD},
        "InputView": {"kind": WORD},
        "InputHead": {"kind": WORD},
        "MessageBody": {
            "blocks": {"type": "array", "items": {"$ref": "#/components/schemas/PostedBlock"}},
        },
        "QuestionBody": {"blocks": {"type": "array", "items": {"$ref": "#/components/schemas/PostedBlock"}}},
        "StartBody": {"on_last_disconnect": _PATIENCE, "idle_limit": _SILENCE, "message": reference("QuestionBody")},
        "StopBody": {"queue": {"type": "string", "enum": ["pause", "continue", "clear"], "default": "pause"}},
        "ForkBody": {"at": {"anyOf": [reference("Cursor"), reference("Uuid")]}},
        "Chunk": {
            "kind": KIND,
            "type": {
                "anyOf": [{"type": "string", "enum": _CHUNKS}, {"type": "string", "pattern": r"^app\."}],
                "default": "block.delta",
            },
        },
        "FinishBody": {"outcome": {"type": "string", "enum": ["completed", "failed"], "default": "completed"}},
        "PresenceBody": {
            "name": {"type": "string", "minLength": 1, "maxLength": 256},
            "status": {
                "description": "The server itself says `gone` of those who have left.",
                "type": "string",
                "minLength": 1,
                "maxLength": 256,
                "not": {"const": "gone"},
            },
        },
        "TicketBody": {
            "scopes": {
                "type": "array",
                "items": {"type": "string", "enum": ["read", "write", "produce", "admin"]},
                "minItems": 1,
            },
            "sessions": {
                "description": "Ids, in which * may stand for any characters.",
                "type": "array",
                "items": {"type": "string", "pattern": "^[A-Za-z0-9._~:*-]{1,128}$"},
                "minItems": 1,
                "maxItems": 100,
            },
            "ttl": {"description": "Seconds.", "type": "integer", "minimum": 1, "maximum": 3600},
        },
        "Snapshot": {"next": reference("Uuid")},
    },
    also={
        "MessageBody": {"oneOf": [{"required": ["text"]}, {"required": ["blocks"]}]},
        "StartBody": {"not": _TOGETHER},
    },
    absent={"Snapshot": ("turn",), "Event": ("data",)},
    required={"Snapshot": ("more", "generations"), "ListedSession": ("running", "approvals")},
    told={
        "Snapshot": "The state after all events up to `cursor`. `messages` are in order, the oldest first; `more` "
        "tells that older ones were left out, which are before the message `next`: the next page's `before`. "
        "`generation` is there while one is live. `generations` are those of the messages, the last one that started, "
        "and the newest that ended and wrote no message: the oldest first.",
        "BlockSnapshot": "One block with its whole content; `seq` is the last one its events had.",
    },
)
