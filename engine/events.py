"""The vocabulary: ids, cursors, and the closed union of event data, with the stamp that carries it.

Owns names and grammar. What may follow what is `lifecycle`'s, what the events add up to is `reducer`'s,
and how they look as JSON is `codec`'s. A field that does not apply is None here and absent in JSON.
``extra`` holds fields this version does not know: they survive a round trip.
"""

from __future__ import annotations

import re
import secrets
import time as _time
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar, Final, NewType, Self, TypeAlias, final

from attrs import fields, frozen
from uuid_utils import uuid7

from .errors import InvalidCursor, InvalidId

__all__ = [
    "DATA_TYPES",
    "JSON",
    "App",
    "ApprovalRequested",
    "ApprovalResolved",
    "BlockClosed",
    "BlockDelta",
    "BlockOpened",
    "BlockSnapshot",
    "Cursor",
    "Data",
    "Event",
    "ForkedGeneration",
    "GenerationCancelling",
    "GenerationFinished",
    "GenerationId",
    "GenerationQueued",
    "GenerationStarted",
    "GenerationStatus",
    "InputAccepted",
    "InputApplied",
    "InputReturned",
    "JSONObject",
    "MessageClosed",
    "MessageId",
    "MessageOpened",
    "MessageRetracted",
    "MessageSnapshot",
    "Moment",
    "PresenceChanged",
    "QueuePaused",
    "QueueResumed",
    "SessionCreated",
    "SessionForked",
    "SessionId",
    "SessionReset",
    "SessionUpdated",
    "Unknown",
    "Version",
    "check_job_id",
    "check_path_id",
    "check_session_id",
    "check_uuid",
    "is_uuid",
    "new_epoch",
    "new_generation_id",
    "new_message_id",
    "new_session_id",
    "now",
]

if TYPE_CHECKING:
    JSON: TypeAlias = "bool | int | float | str | Sequence[JSON] | Mapping[str, JSON] | None"
else:

    class JSON:
        """Anything that JSON can say. At run time only a mark by which converters know such a field."""


JSONObject: TypeAlias = Mapping[str, JSON]

_EMPTY: Final[JSONObject] = MappingProxyType({})

SessionId = NewType("SessionId", str)
GenerationId = NewType("GenerationId", str)
MessageId = NewType("MessageId", str)

_PATH_ID = re.compile(r"[A-Za-z0-9._~:-]{1,128}")
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.IGNORECASE)
_CURSOR = re.compile(r"([A-Za-z0-9]{1,32})-([0-9]{16})")
_JOB_ID_LENGTH = 256


def check_path_id(text: str, what: str) -> str:
    """The id, if it fits a URL path segment: 1 to 128 of ``A-Z a-z 0-9 . _ ~ : -``, not ``.`` or ``..``.

    Raises `InvalidId`, naming ``what``.
    """
    if type(text) is not str or not _PATH_ID.fullmatch(text) or text in (".", ".."):
        raise InvalidId(f"{what} is 1 to 128 of A-Z a-z 0-9 . _ ~ : - and neither '.' nor '..'")
    return text


def check_session_id(text: str) -> SessionId:
    """A session's id, in the grammar of ids in paths. Raises `InvalidId`."""
    return SessionId(check_path_id(text, "a session id"))


def check_uuid(text: str, what: str) -> str:
    """The UUID in its canonical form (lower case, with hyphens). Raises `InvalidId`, naming ``what``."""
    if type(text) is not str or not _UUID.fullmatch(text):
        raise InvalidId(f"a {what} is a UUID in the form 01234567-89ab-cdef-0123-456789abcdef")
    return text.lower()


def is_uuid(text: str) -> bool:
    """Whether the text has a UUID's form."""
    return _UUID.fullmatch(text) is not None


def check_job_id(text: str) -> str:
    """The job id: 1 to 256 printable characters. Raises `InvalidId`."""
    if type(text) is not str or not 1 <= len(text) <= _JOB_ID_LENGTH or not text.isprintable():
        raise InvalidId(f"a job id is 1 to {_JOB_ID_LENGTH} printable characters")
    return text


def new_session_id() -> SessionId:
    return SessionId(str(uuid7()))


def new_generation_id() -> GenerationId:
    return GenerationId(str(uuid7()))


def new_message_id() -> MessageId:
    return MessageId(str(uuid7()))


def new_epoch() -> str:
    """A name for a new life of a session's log: 64 random bits, so that no cursor of a former life fits it."""
    return secrets.token_hex(8)


_at: int = -1  # the millisecond that `_now` is the text of
_now: bytes = b""


def now() -> str:
    """The wall clock as RFC 3339 in UTC with milliseconds, as events carry it."""
    return encoded_now().decode()


def encoded_now() -> bytes:
    """`now` in UTF-8. Most events are written within a millisecond of the one before."""
    global _at, _now
    milliseconds = _time.time_ns() // 1_000_000
    if milliseconds != _at:
        seconds, rest = divmod(milliseconds, 1000)
        _now = f"{_time.strftime('%Y-%m-%dT%H:%M:%S', _time.gmtime(seconds))}.{rest:03d}Z".encode()
        _at = milliseconds
    return _now


@final
@frozen
class Cursor:
    """A place in one life of a session's log: behind the event at ``offset``; 0 is the start."""

    epoch: str
    offset: int

    def __str__(self) -> str:
        return f"{self.epoch}-{self.offset:016d}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a cursor's text, exactly. Raises `InvalidCursor`."""
        match = _CURSOR.fullmatch(text) if type(text) is str else None
        if match is None:
            raise InvalidCursor("a cursor is an epoch, a hyphen and an offset of 16 digits, as an event's id showed it")
        return cls(match[1], int(match[2]))


@frozen
class _Brief:
    """Shown without what a field is anyway: most of an event's do not apply to it."""

    def __repr__(self) -> str:
        values = ((field, getattr(self, field.name)) for field in fields(type(self)))
        told = ", ".join(f"{field.name}={value!r}" for field, value in values if value != field.default)
        return f"{type(self).__name__}({told})"


@final
@frozen(kw_only=True)
class Moment:
    """Where in the log something stands, and when it was written: ``time`` as events carry it."""

    cursor: Cursor
    time: str


@final
@frozen(kw_only=True)
class Version:
    """Which of ``count`` versions of one message it is, from 1. ``of``, the id of the first one, names them all."""

    of: str
    index: int
    count: int


@frozen(kw_only=True, repr=False)
class _Known(_Brief):
    """What every known event data has beside its own fields."""

    type: ClassVar[str]
    extra: JSONObject = _EMPTY


@final
@frozen(kw_only=True, repr=False)
class SessionCreated(_Known):
    type: ClassVar[str] = "session.created"
    metadata: JSONObject


@final
@frozen(kw_only=True, repr=False)
class SessionUpdated(_Known):
    """``metadata`` is the whole, merged metadata."""

    type: ClassVar[str] = "session.updated"
    metadata: JSONObject


@final
@frozen(kw_only=True, repr=False)
class SessionForked(_Known):
    type: ClassVar[str] = "session.forked"
    source_session_id: str
    source_cursor: str
    metadata: JSONObject


@final
@frozen(kw_only=True, repr=False)
class SessionReset(_Known):
    type: ClassVar[str] = "session.reset"
    reason: str | None = None


@final
@frozen(kw_only=True, repr=False)
class GenerationQueued(_Known):
    type: ClassVar[str] = "generation.queued"
    producer: str
    policy: str
    position: int
    metadata: JSONObject | None = None
    text: str | None = None
    author: str | None = None


@final
@frozen(kw_only=True, repr=False)
class QueuePaused(_Known):
    type: ClassVar[str] = "queue.paused"
    reason: str | None = None


@final
@frozen(kw_only=True, repr=False)
class QueueResumed(_Known):
    type: ClassVar[str] = "queue.resumed"
    reason: str | None = None


@final
@frozen(kw_only=True, repr=False)
class GenerationStarted(_Known):
    """``version`` is that of the first message that it will open, where it answers anew."""

    type: ClassVar[str] = "generation.started"
    producer: str
    policy: str
    supersedes: str | None = None
    metadata: JSONObject | None = None
    author: str | None = None
    continues: str | None = None
    version: Version | None = None


@final
@frozen(kw_only=True, repr=False)
class GenerationStatus(_Known):
    type: ClassVar[str] = "generation.status"
    status: str
    detail: JSON = None


@final
@frozen(kw_only=True, repr=False)
class GenerationCancelling(_Known):
    type: ClassVar[str] = "generation.cancelling"
    reason: str
    by: str | None = None
    author: str | None = None


@final
@frozen(kw_only=True, repr=False)
class GenerationFinished(_Known):
    """``outcome``: completed, superseded, stopped, failed, stalled, expired, lost, shutdown, deleted or reset.

    ``author`` is who stopped it.
    """

    type: ClassVar[str] = "generation.finished"
    outcome: str
    code: str | None = None
    message: str | None = None
    superseded_by: str | None = None
    cleanup: str | None = None
    usage: JSONObject | None = None
    retryable: bool | None = None
    author: str | None = None


@final
@frozen(kw_only=True, repr=False)
class MessageOpened(_Known):
    type: ClassVar[str] = "message.opened"
    role: str
    parent_message_id: str | None = None
    metadata: JSONObject | None = None
    continues: str | None = None
    version: Version | None = None


@final
@frozen(kw_only=True, repr=False)
class MessageClosed(_Known):
    """``status``: complete, cancelled or failed."""

    type: ClassVar[str] = "message.closed"
    status: str
    finish_reason: str | None = None
    usage: JSONObject | None = None


@final
@frozen(kw_only=True, repr=False)
class BlockSnapshot(_Brief):
    """One block with its whole content; ``seq`` is the last one its events had."""

    kind: str
    seq: int
    text: str | None = None
    arguments: JSON = None
    value: JSON = None
    tool_call_id: str | None = None
    name: str | None = None
    is_error: bool | None = None
    media_type: str | None = None
    file_id: str | None = None
    url: str | None = None
    filename: str | None = None
    title: str | None = None
    extra: JSONObject = _EMPTY


@final
@frozen(kw_only=True, repr=False)
class ForkedGeneration(_Brief):
    """How a generation ended, told by a message that was carried over: from another session, or from further above in
    this one, which alone has the moments of its own log and all that follows them here."""

    generation_id: str
    turn: int
    outcome: str
    code: str | None = None
    message: str | None = None
    started: Moment | None = None
    finished: Moment | None = None
    retryable: bool | None = None
    usage: JSONObject | None = None
    author: str | None = None
    extra: JSONObject = _EMPTY


@final
@frozen(kw_only=True, repr=False)
class MessageSnapshot(_Known):
    """``author`` is who posted it.

    In a fork, and where a version is restored, the message bears no generation's stamp: ``generation`` is the one that
    wrote it, ``silent`` the newest of those that began behind it and wrote none; ``finish_reason`` and ``usage`` are
    those of its end, for it has no `MessageClosed`.
    """

    type: ClassVar[str] = "message.snapshot"
    role: str
    status: str
    blocks: tuple[BlockSnapshot, ...]
    parent_message_id: str | None = None
    metadata: JSONObject | None = None
    finish_reason: str | None = None
    usage: JSONObject | None = None
    author: str | None = None
    continues: str | None = None
    generation: ForkedGeneration | None = None
    silent: ForkedGeneration | None = None
    version: Version | None = None


@final
@frozen(kw_only=True, repr=False)
class MessageRetracted(_Known):
    type: ClassVar[str] = "message.retracted"
    reason: str | None = None


@final
@frozen(kw_only=True, repr=False)
class BlockOpened(_Known):
    """``kind``: text, reasoning, tool_call, tool_result, data, image, file or source.

    What an image, a file or a source is stands at ``file_id``, one of the session's files, or at ``url``.
    """

    type: ClassVar[str] = "block.opened"
    kind: str
    tool_call_id: str | None = None
    name: str | None = None
    media_type: str | None = None
    file_id: str | None = None
    url: str | None = None
    filename: str | None = None
    title: str | None = None


@final
@frozen(kw_only=True, repr=False)
class BlockDelta(_Known):
    """One more piece: ``text``, or ``arguments`` (a piece of a tool call's JSON), or ``value`` (the new value)."""

    type: ClassVar[str] = "block.delta"
    text: str | None = None
    arguments: str | None = None
    value: JSON = None


@final
@frozen(kw_only=True, repr=False)
class BlockClosed(_Known):
    """Final fields, if any; what stands here replaces what the deltas added up to."""

    type: ClassVar[str] = "block.closed"
    text: str | None = None
    arguments: JSON = None
    value: JSON = None
    is_error: bool | None = None


@final
@frozen(kw_only=True, repr=False)
class ApprovalRequested(_Known):
    type: ClassVar[str] = "approval.requested"
    approval_id: str
    tool_call_id: str | None = None
    name: str | None = None
    arguments: JSON = None
    expires_at: str | None = None


@final
@frozen(kw_only=True, repr=False)
class ApprovalResolved(_Known):
    type: ClassVar[str] = "approval.resolved"
    approval_id: str
    approved: bool
    reason: str | None = None
    arguments: JSON = None
    by: str | None = None
    tool_call_id: str | None = None


@final
@frozen(kw_only=True, repr=False)
class InputAccepted(_Known):
    """The input's content stands in ``extra``."""

    type: ClassVar[str] = "input.accepted"
    input_id: str
    kind: str


@final
@frozen(kw_only=True, repr=False)
class InputApplied(_Known):
    type: ClassVar[str] = "input.applied"
    input_id: str


@final
@frozen(kw_only=True, repr=False)
class InputReturned(_Known):
    type: ClassVar[str] = "input.returned"
    input_id: str


@final
@frozen(kw_only=True, repr=False)
class PresenceChanged(_Known):
    """Ephemeral: never in the log, without an offset."""

    type: ClassVar[str] = "presence.changed"
    actor_id: str
    device_id: str
    name: str | None = None
    status: str | None = None


@final
@frozen(kw_only=True, repr=False)
class App(_Brief):
    """The application's own event; its type begins with ``app.``."""

    type: str
    value: JSONObject = _EMPTY


@final
@frozen(kw_only=True, repr=False)
class Unknown(_Brief):
    """A type this version does not know; kept as it came."""

    type: str
    value: JSONObject = _EMPTY


KnownData: TypeAlias = (
    SessionCreated
    | SessionUpdated
    | SessionForked
    | SessionReset
    | GenerationQueued
    | QueuePaused
    | QueueResumed
    | GenerationStarted
    | GenerationStatus
    | GenerationCancelling
    | GenerationFinished
    | MessageOpened
    | MessageClosed
    | MessageSnapshot
    | MessageRetracted
    | BlockOpened
    | BlockDelta
    | BlockClosed
    | ApprovalRequested
    | ApprovalResolved
    | InputAccepted
    | InputApplied
    | InputReturned
    | PresenceChanged
)
Data: TypeAlias = KnownData | App | Unknown

DATA_TYPES: Final[Mapping[str, type[KnownData]]] = {
    cls.type: cls
    for cls in (
        SessionCreated,
        SessionUpdated,
        SessionForked,
        SessionReset,
        GenerationQueued,
        QueuePaused,
        QueueResumed,
        GenerationStarted,
        GenerationStatus,
        GenerationCancelling,
        GenerationFinished,
        MessageOpened,
        MessageClosed,
        MessageSnapshot,
        MessageRetracted,
        BlockOpened,
        BlockDelta,
        BlockClosed,
        ApprovalRequested,
        ApprovalResolved,
        InputAccepted,
        InputApplied,
        InputReturned,
        PresenceChanged,
    )
}


@final
@frozen(kw_only=True, repr=False)
class Event(_Brief):
    """One stamped, immutable fact in a session's log.

    ``offset`` is None on ephemeral events only. ``turn`` is None before the generation started. ``seq`` is
    dense per message and block.
    """

    data: Data
    session_id: str
    time: str
    offset: int | None = None
    generation_id: str | None = None
    turn: int | None = None
    job_id: str | None = None
    message_id: str | None = None
    block_index: int | None = None
    seq: int | None = None
    extra: JSONObject = _EMPTY

    @property
    def type(self) -> str:
        return self.data.type
