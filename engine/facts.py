"""What an engine tells of itself to whoever counts or logs: facts in the past tense, each told once.

Owns the facts and who may hear them. Where they come about is the runtime's, what becomes of them the observer's:
`observers.log_lines` makes log lines of them, an application may count them. Current figures (how many sessions, how
many live generations …) are no facts; `Engine.statistics` has them.

`request_id` is not told but carried: see there.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Final, Literal, Protocol, TypeAlias, final

from attrs import frozen

from .errors import PenstockError

__all__ = [
    "CleanupEnded",
    "Committed",
    "Fact",
    "FellBehind",
    "Forwarded",
    "GapMet",
    "GenerationBegan",
    "GenerationCancelled",
    "GenerationEnded",
    "NodeTakenOver",
    "Observer",
    "ProducerDone",
    "SessionClaimed",
    "SessionRepaired",
    "SessionSetAside",
    "SteppedDown",
    "StoreWentBack",
    "StragglerEnded",
    "WriteRefused",
    "request_id",
]

# The id of the request that the current task works for, if it works for one: set it before you call a session. A
# lifecycle step runs under the id of who asked for it, and a producer under that of its start.
request_id: Final[ContextVar[str | None]] = ContextVar("penstock_request_id", default=None)


@final
@frozen
class Committed:
    """The log stored so many events of one session, of ``size`` bytes, ``seconds`` after they were handed over."""

    session_id: str
    events: int
    size: int
    seconds: float


@final
@frozen(kw_only=True)
class WriteRefused:
    """The log refused a write: what was stamped and not stored is dropped, and a repair begins."""

    session_id: str
    error: PenstockError


@final
@frozen(kw_only=True)
class SessionRepaired:
    """After a refused write the session stands on what is stored, and can be written again."""

    session_id: str


@final
@frozen(kw_only=True)
class SessionSetAside:
    """What is stored of a session cannot be read: it is left alone until it is deleted, or the next opening."""

    session_id: str
    error: PenstockError


@final
@frozen(kw_only=True)
class StoreWentBack:
    """The store lost what it had acknowledged. This session goes on as it is stored, in a new epoch."""

    session_id: str
    epoch: str


@final
@frozen(kw_only=True)
class SessionClaimed:
    """This engine has the right to write in the session now; ``former`` had it, which may be itself or nobody ("").

    ``gone``: that one is gone, and had something open in it.
    """

    session_id: str
    former: str
    gone: bool


@final
@frozen(kw_only=True)
class SteppedDown:
    """The engine ``owner`` has the session now, and this one writes nothing more in it."""

    session_id: str
    owner: str


@final
@frozen(kw_only=True)
class NodeTakenOver:
    """The engine ``name`` is gone, and so many sessions were taken over in which it had something open."""

    name: str
    sessions: int


@final
@frozen(kw_only=True)
class GenerationBegan:
    """The start of a generation is stored."""

    session_id: str
    generation_id: str
    turn: int


@final
@frozen(kw_only=True)
class GenerationCancelled:
    """A generation's producer was cancelled; ``reason`` says by what."""

    session_id: str
    generation_id: str
    reason: str


@final
@frozen(kw_only=True)
class CleanupEnded:
    """The wait for a cancelled producer is over after ``seconds``: it is done, or it ``overran`` and is left behind."""

    session_id: str
    generation_id: str
    producer: str
    seconds: float
    overran: bool


@final
@frozen(kw_only=True)
class StragglerEnded:
    """A producer that was left behind is done after all, ``seconds`` after its cancellation."""

    session_id: str
    generation_id: str
    producer: str
    seconds: float


@final
@frozen(kw_only=True)
class ProducerDone:
    """A producer's task is over. ``error`` is what it ``raised``, besides running into its fence."""

    session_id: str
    generation_id: str
    producer: str
    how: Literal["returned", "cancelled", "raised"]
    error: BaseException | None = None


@final
@frozen(kw_only=True)
class GenerationEnded:
    """The end of a generation is stored. ``seconds`` since its start was; None if this life of it saw no start."""

    session_id: str
    generation_id: str
    outcome: str
    seconds: float | None


@final
@frozen(kw_only=True)
class FellBehind:
    """A subscriber did not keep up, and reads on from the log."""

    session_id: str


@final
@frozen(kw_only=True)
class GapMet:
    """A subscriber asked for what cannot be given: ``unknown_epoch`` or ``past_tail``."""

    session_id: str
    reason: str


@final
@frozen
class Forwarded:
    """A command was carried to the engine that has its session, and came back after ``seconds``.

    ``command`` is the name of the method. ``outcome``: ``done``, the code of the error that it came to there,
    ``unreachable`` where that engine was not asked, ``unanswered`` where it may have been, or ``cancelled``.
    """

    command: str
    outcome: str
    seconds: float


Fact: TypeAlias = (
    Committed
    | WriteRefused
    | SessionRepaired
    | SessionSetAside
    | StoreWentBack
    | SessionClaimed
    | SteppedDown
    | NodeTakenOver
    | GenerationBegan
    | GenerationCancelled
    | CleanupEnded
    | StragglerEnded
    | ProducerDone
    | GenerationEnded
    | FellBehind
    | Forwarded
    | GapMet
)


class Observer(Protocol):
    """Hears every fact of one engine, in order, in the engine's own loop."""

    def observe(self, fact: Fact, /) -> None:
        """Take note, at once: nothing else happens meanwhile. Later versions know more facts; pass over those.

        What it raises is logged, and it hears nothing more.
        """
