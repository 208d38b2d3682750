"""Success answers and the frames of streams as types, for the description alone.

The routes make their answers as plain objects; that they are what stands here is checked on every answer that the
tests get. A field with None as its default is there only where it applies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence  # noqa: F401  # what `JSON` is made of, resolved by name in here
from typing import Literal, final

from attrs import frozen

from penstock.engine import JSONObject, Present, StopState

__all__ = [
    "ChunksAnswer",
    "DeleteAnswer",
    "DequeueAnswer",
    "FinishAnswer",
    "ForkAnswer",
    "GenerationAnswer",
    "Health",
    "InputAnswer",
    "ListedGeneration",
    "ListedSession",
    "PostAnswer",
    "PresenceAnswer",
    "PresentAnswer",
    "PutAnswer",
    "QueueAnswer",
    "QueuedAnswer",
    "ResetAnswer",
    "RetractAnswer",
    "SessionList",
    "StartAnswer",
    "StopAnswer",
    "SupersededAnswer",
    "TicketAnswer",
    "UpdateAnswer",
]


@final
@frozen(kw_only=True)
class PutAnswer:
    """``created``: it was made by this request."""

    session_id: str
    cursor: str
    created: bool


@final
@frozen(kw_only=True)
class UpdateAnswer:
    """``metadata``: all of them, as they are now."""

    session_id: str
    cursor: str
    metadata: JSONObject


@final
@frozen(kw_only=True)
class DeleteAnswer:
    session_id: str


@final
@frozen(kw_only=True)
class ResetAnswer:
    session_id: str
    cursor: str


@final
@frozen(kw_only=True)
class ForkAnswer:
    """The new session, and where its log stands."""

    session_id: str
    cursor: str


@final
@frozen(kw_only=True)
class ListedGeneration:
    """The live one."""

    generation_id: str


@final
@frozen(kw_only=True)
class ListedSession:
    """``corrupt`` is there, and true, when what is stored of the session cannot be read: then the rest says nothing."""

    session_id: str
    cursor: str
    metadata: JSONObject
    generation: ListedGeneration | None = None
    corrupt: bool | None = None


@final
@frozen(kw_only=True)
class SessionList:
    """``next`` is there when there are more: the next page's ``after``."""

    sessions: tuple[ListedSession, ...]
    next: str | None = None


@final
@frozen(kw_only=True)
class PostAnswer:
    session_id: str
    message_id: str
    cursor: str


@final
@frozen(kw_only=True)
class RetractAnswer:
    session_id: str
    message_id: str
    cursor: str


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
    cursor: str
    message_id: str | None = None
    superseded: SupersededAnswer | None = None


@final
@frozen(kw_only=True)
class QueuedAnswer:
    """It waits; ``position`` is its place, from 1."""

    session_id: str
    generation_id: str
    position: int
    cursor: str


@final
@frozen(kw_only=True)
class GenerationAnswer:
    """``turn`` once it has started, ``outcome`` once it has finished."""

    session_id: str
    generation_id: str
    state: Literal["queued", "live", "cancelling", "finished"]
    turn: int | None = None
    outcome: str | None = None


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
    cursor: str
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
    cursor: str
    accepted: int
    duplicates: int
    turn: int | None = None
    message_id: str | None = None


@final
@frozen(kw_only=True)
class FinishAnswer:
    session_id: str
    generation_id: str
    cursor: str


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
class TicketAnswer:
    """``ticket`` goes into the query, as ``?ticket=``."""

    ticket: str
    expires_at: str


@final
@frozen(kw_only=True)
class Health:
    status: Literal["ok", "draining", "degraded"]
