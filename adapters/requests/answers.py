"""Success answers: what routes and commands make, the description describes, and the Python client reads.

A field with None as its default is there only where it applies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence  # noqa: F401  # what `JSON` is made of, resolved by name in here
from typing import TYPE_CHECKING, Literal, Self, final

from attrs import asdict, frozen

from penstock.engine import (
    JSON,
    Cursor,
    GenerationInfo,
    JSONObject,
    MessageView,
    Moment,
    Present,
    StateName,
    StopState,
    Version,
    converter,
)

if TYPE_CHECKING:
    from attrs import AttrsInstance

__all__ = [
    "ChunksAnswer",
    "DeleteAnswer",
    "DequeueAnswer",
    "FileAnswer",
    "FinishAnswer",
    "ForkAnswer",
    "GenerationAnswer",
    "Health",
    "InputAnswer",
    "LastWords",
    "ListedGeneration",
    "ListedProducer",
    "ListedSession",
    "PostAnswer",
    "PresenceAnswer",
    "PresentAnswer",
    "ProducersAnswer",
    "PutAnswer",
    "QueueAnswer",
    "QueuedAnswer",
    "ResetAnswer",
    "RestoreAnswer",
    "RetractAnswer",
    "SessionList",
    "StartAnswer",
    "StopAnswer",
    "SupersededAnswer",
    "TicketAnswer",
    "UpdateAnswer",
    "VersionsAnswer",
    "as_json",
]


def as_json(answer: AttrsInstance) -> dict[str, JSON]:
    """What is sent of an answer."""
    made: dict[str, JSON] = converter.unstructure(answer)
    return made


@final
@frozen(kw_only=True)
class PutAnswer:
    """``created``: it was made by this request."""

    session_id: str
    cursor: Cursor
    created: bool


@final
@frozen(kw_only=True)
class UpdateAnswer:
    """``metadata``: all of them, as they are now."""

    session_id: str
    cursor: Cursor
    metadata: JSONObject


@final
@frozen(kw_only=True)
class DeleteAnswer:
    session_id: str


@final
@frozen(kw_only=True)
class ResetAnswer:
    session_id: str
    cursor: Cursor


@final
@frozen(kw_only=True)
class ForkAnswer:
    """The new session, and where its log stands."""

    session_id: str
    cursor: Cursor


@final
@frozen(kw_only=True)
class ListedGeneration:
    """The live one."""

    generation_id: str


@final
@frozen(kw_only=True)
class LastWords:
    """How the last message that is done begins, of a user or of an assistant: at most 100 characters, in one line."""

    role: str
    text: str


@final
@frozen(kw_only=True)
class ListedSession:
    """``corrupt`` is there, and true, when what is stored of the session cannot be read: then the rest says nothing.

    ``title`` is the metadata's, or how the first message of a user begins. ``updated``: when a turn last began or
    ended, a message was posted, the metadata changed, or an approval was asked for or answered. ``approvals`` says how
    many are open.
    """

    session_id: str
    cursor: Cursor
    metadata: JSONObject
    running: bool | None = None
    approvals: int | None = None
    corrupt: bool | None = None
    generation: ListedGeneration | None = None
    created: str | None = None
    updated: str | None = None
    title: str | None = None
    last: LastWords | None = None


@final
@frozen(kw_only=True)
class SessionList:
    """``next`` is there when there may be more: the next page's ``after``, in the same order."""

    sessions: tuple[ListedSession, ...]
    next: str | None = None


@final
@frozen(kw_only=True)
class PostAnswer:
    session_id: str
    message_id: str
    cursor: Cursor


@final
@frozen(kw_only=True)
class FileAnswer:
    """The file is kept, under this id and this name."""

    session_id: str
    file_id: str
    media_type: str
    size: int
    filename: str | None = None


@final
@frozen(kw_only=True)
class RetractAnswer:
    session_id: str
    message_id: str
    cursor: Cursor


@final
@frozen(kw_only=True)
class VersionsAnswer:
    """The oldest first; ``more``: others are behind the last one, whose number is the next page's ``after``."""

    session_id: str
    message_id: str
    versions: tuple[MessageView, ...]
    more: bool


@final
@frozen(kw_only=True)
class RestoreAnswer:
    """``message_ids``: what stands there now, in order: the version itself, and what followed it."""

    session_id: str
    message_id: str
    message_ids: list[str]
    cursor: Cursor


@final
@frozen(kw_only=True)
class SupersededAnswer:
    """What this start put an end to, and how long its clean-up took."""

    generation_id: str
    cleanup: str
    seconds: float


@final
@frozen(kw_only=True)
class StartAnswer:
    """It runs. ``message_id``: the user's message that came with it."""

    session_id: str
    generation_id: str
    turn: int
    cursor: Cursor
    message_id: str | None = None
    superseded: SupersededAnswer | None = None


@final
@frozen(kw_only=True)
class QueuedAnswer:
    """It waits; ``position`` is its place, from 1."""

    session_id: str
    generation_id: str
    position: int
    cursor: Cursor


@final
@frozen(kw_only=True)
class GenerationAnswer:
    """As it stands among the snapshot's ``generations``."""

    session_id: str
    generation_id: str
    state: StateName
    turn: int | None = None
    outcome: str | None = None
    code: str | None = None
    message: str | None = None
    retryable: bool | None = None
    usage: JSONObject | None = None
    author: str | None = None
    started: Moment | None = None
    finished: Moment | None = None
    silent: bool = False
    behind: str | None = None
    version: Version | None = None

    @classmethod
    def of(cls, session_id: str, info: GenerationInfo) -> Self:
        return cls(session_id=session_id, **asdict(info, recurse=False))

    @property
    def info(self) -> GenerationInfo:
        """Without the session."""
        return GenerationInfo(**asdict(self, recurse=False, filter=lambda field, _: field.name != "session_id"))


@final
@frozen(kw_only=True)
class StopAnswer:
    """stopped: it ran and has ended. stopping: its end is written, its clean-up is still running. already_done: it
    had ended before, or failed while it was being stopped. nothing_active: nothing ran. pending: nobody has seen
    this id yet; its start will be stopped.
    """

    session_id: str
    state: StopState
    generation_id: str | None = None


@final
@frozen(kw_only=True)
class QueueAnswer:
    """``generation_id``: the one that started now, if one did."""

    session_id: str
    cursor: Cursor
    generation_id: str | None = None


@final
@frozen(kw_only=True)
class DequeueAnswer:
    session_id: str
    generation_id: str


@final
@frozen(kw_only=True)
class InputAnswer:
    session_id: str
    generation_id: str
    input_id: str


@final
@frozen(kw_only=True)
class ChunksAnswer:
    """``accepted``: written now. ``duplicates``: there before. ``message_id``: of the last chunk that has one."""

    session_id: str
    generation_id: str
    cursor: Cursor
    accepted: int
    duplicates: int
    turn: int | None = None
    message_id: str | None = None


@final
@frozen(kw_only=True)
class FinishAnswer:
    session_id: str
    generation_id: str
    cursor: Cursor


@final
@frozen(kw_only=True)
class PresentAnswer:
    """``device_id``, unless it was about all of the actor's."""

    session_id: str
    actor_id: str
    device_id: str | None = None


@final
@frozen(kw_only=True)
class PresenceAnswer:
    """All who are here, in the order in which they came."""

    session_id: str
    presence: tuple[Present, ...]


@final
@frozen(kw_only=True)
class ListedProducer:
    """``input_schema``: a JSON schema of the ``input`` that it takes."""

    name: str
    description: str | None = None
    input_schema: JSONObject | None = None


@final
@frozen(kw_only=True)
class ProducersAnswer:
    """In order of their names; ``default`` is the one that a start without a name gets, if there is one."""

    producers: tuple[ListedProducer, ...]
    default: str | None = None


@final
@frozen(kw_only=True)
class TicketAnswer:
    """``ticket`` goes into the query, as ``?ticket=``."""

    ticket: str
    expires_at: str


@final
@frozen(kw_only=True)
class Health:
    status: Literal["ok", "draining", "degraded"]
    failing: tuple[str, ...] = ()
