"""The small records that the engine keeps beside a session's events, written in the same part as they are.

====================  ====================================================================================
``session/turn``      `SessionRecord`
``open``              `OpenRecord` while a generation is live; the log's index of its holders is what
                      recovery reads
``generation/<id>``   `GenerationRecord`
``message/<id>``      `MessageRecord`
====================  ====================================================================================
"""

from __future__ import annotations

from typing import TypeVar, final

from attrs import frozen

from .codec import converter, decode_json, encode_json, structure

__all__ = [
    "OPEN",
    "SESSION",
    "GenerationRecord",
    "MessageRecord",
    "OpenRecord",
    "SessionRecord",
    "generation_key",
    "message_key",
    "read_record",
    "to_record",
]

SESSION = "session/turn"
OPEN = "open"

T = TypeVar("T")


def generation_key(generation_id: str) -> str:
    return f"generation/{generation_id}"


def message_key(message_id: str) -> str:
    return f"message/{message_id}"


@final
@frozen(kw_only=True)
class SessionRecord:
    turn: int


@final
@frozen(kw_only=True)
class OpenRecord:
    """The live generation; ``after`` is an offset before its first event."""

    generation_id: str
    turn: int
    after: int
    job_id: str | None = None


@final
@frozen(kw_only=True)
class GenerationRecord:
    """A generation that started; ``outcome`` once it has finished."""

    turn: int
    outcome: str | None = None


@final
@frozen(kw_only=True)
class MessageRecord:
    """A message: of a generation, or posted; ``digest`` tells whether a repeated post is the same."""

    generation_id: str | None = None
    digest: str | None = None


def to_record(value: SessionRecord | OpenRecord | GenerationRecord | MessageRecord) -> bytes:
    return encode_json(converter.unstructure(value))


def read_record(body: bytes, kind: type[T]) -> T:
    return structure(decode_json(body), kind)
