"""What a session's operations answer with: frozen, and true when they are given."""

from __future__ import annotations

from typing import Literal, TypeAlias, final

from attrs import field, frozen

from .events import JSON, Cursor, JSONObject
from .reducer import GenerationInfo, MessageView

__all__ = [
    "ChunksAccepted",
    "FileInfo",
    "FileKept",
    "Finished",
    "GenerationInfo",
    "LastSaid",
    "Posted",
    "Present",
    "ProducerInfo",
    "QueueNext",
    "Queued",
    "Restored",
    "SessionInfo",
    "Started",
    "StopState",
    "Stopped",
    "Superseded",
    "Updated",
    "Versions",
]

# stopped: it ran and has ended. stopping: it is fenced and its end is written, its clean-up overran.
# already_done: it had ended before, or failed while it was being stopped. nothing_active: nothing ran. pending: not
# seen yet; its start will be stopped.
StopState: TypeAlias = Literal["stopped", "stopping", "already_done", "nothing_active", "pending"]


@final
@frozen(kw_only=True)
class FileInfo:
    """A file that a session keeps. ``size`` in bytes; ``media_type`` is what its sender said it is."""

    file_id: str
    media_type: str
    size: int
    filename: str | None = None


@final
@frozen(kw_only=True)
class FileKept:
    """A file is durable. ``created``: it was not there before, with this content, type and name."""

    file: FileInfo
    created: bool


@final
@frozen(kw_only=True)
class Superseded:
    """The generation that a start put an end to. ``cleanup``: clean or overran; ``seconds``: what it took."""

    generation_id: str
    cleanup: str
    seconds: float


@final
@frozen(kw_only=True)
class Started:
    """A start is durable. ``message_id`` is the user's message that came with it.

    ``joined``: nothing was started, this one was live. ``repeated``: the first answer to the same idempotency key.
    """

    generation_id: str
    turn: int
    cursor: Cursor
    message_id: str | None = None
    superseded: Superseded | None = None
    joined: bool = False
    repeated: bool = False


@final
@frozen(kw_only=True)
class Queued:
    """A start waits, durably. ``position`` is its place, from 1."""

    generation_id: str
    position: int
    cursor: Cursor
    repeated: bool = False


@final
@frozen(kw_only=True)
class QueueNext:
    """The queue goes on. ``generation_id`` is the one that started now, if one did."""

    cursor: Cursor
    generation_id: str | None = None


@final
@frozen(kw_only=True)
class Updated:
    """The session's whole metadata, as they are now."""

    metadata: JSONObject
    cursor: Cursor


@final
@frozen(kw_only=True)
class LastSaid:
    """Whose the last words of a session are, and how they begin: at most 100 characters, in one line."""

    role: str
    text: str


@final
@frozen(kw_only=True)
class SessionInfo:
    """A session in a listing. ``corrupt``: what is stored of it cannot be read, and the rest of this may be made up.

    ``created`` and ``updated`` are times as events have them: of its first event, and of the last that began or ended a
    turn, posted a message, changed the metadata, or had to do with an approval. ``title`` is the metadata's, or how the
    first message of a user begins. ``generation_id`` is the live generation, ``approvals`` the number of its approvals
    that are open. ``last`` is what a user or an assistant said last, of those messages that are done.
    """

    session_id: str
    cursor: Cursor
    metadata: JSONObject
    generation_id: str | None = None
    corrupt: bool = False
    created: str | None = None
    updated: str | None = None
    title: str | None = None
    approvals: int = 0
    last: LastSaid | None = None

    @property
    def running(self) -> bool:
        """Whether a generation is live."""
        return self.generation_id is not None


@final
@frozen(kw_only=True)
class ProducerInfo:
    """A producer that an engine runs, and what it says of itself. ``default``: a start need not name it.

    ``input_schema`` is a JSON schema of the ``input`` that it takes.
    """

    name: str
    default: bool = False
    description: str | None = None
    input_schema: JSONObject | None = None


@final
@frozen(kw_only=True)
class Stopped:
    state: StopState
    generation_id: str | None = None


@final
@frozen(kw_only=True)
class Posted:
    """A message is durable. ``created`` is False when the same message had been posted before."""

    message_id: str
    cursor: Cursor
    created: bool


@final
@frozen(kw_only=True)
class Versions:
    """Versions of one message, the oldest first; ``more`` tells that others are behind the last one.

    ``bodies`` is the JSON of each, in UTF-8.
    """

    versions: tuple[MessageView, ...]
    more: bool
    bodies: tuple[bytes, ...] = field(default=(), eq=False, repr=False)


@final
@frozen(kw_only=True)
class Restored:
    """A version stands in the transcript. ``message_ids``: its messages, in order, from the version itself on.

    ``repeated``: the first answer to the same idempotency key.
    """

    message_ids: tuple[str, ...]
    cursor: Cursor
    repeated: bool = False


@final
@frozen(kw_only=True)
class ChunksAccepted:
    """Chunks are durable: ``accepted`` of them were written now, ``duplicates`` had been before.

    ``message_id`` is the message of the last chunk that has one. ``turn`` is absent when the whole request was a
    repetition that came behind its generation's end.
    """

    generation_id: str
    cursor: Cursor
    accepted: int
    duplicates: int
    message_id: str | None = None
    turn: int | None = None


@final
@frozen(kw_only=True)
class Finished:
    """The end of a remote generation is durable. ``repeated``: it was before, by the same producer."""

    generation_id: str
    cursor: Cursor
    repeated: bool = False


@final
@frozen(kw_only=True)
class Present:
    """An actor who is here, on one of its devices."""

    actor_id: str
    device_id: str
    name: str | None = None
    status: str | None = None

    def to_json(self) -> dict[str, JSON]:
        """As the protocol shows it: what does not apply is absent."""
        shown = {"actor_id": self.actor_id, "device_id": self.device_id, "name": self.name, "status": self.status}
        return {field: value for field, value in shown.items() if value is not None}
