"""What a start does to a busy session: the table of start policies as one decision.

Owns the decision, all of it made before anything is cancelled or written; carrying it out is `session`'s. Where
nothing is live and nothing waits, every policy starts at once.
"""

from __future__ import annotations

import enum
from typing import Literal, TypeAlias, assert_never, final

from attrs import frozen

__all__ = ["Decision", "Enqueue", "Join", "Policy", "PolicyName", "Refuse", "Situation", "Start", "Supersede", "decide"]

# By these names bodies and events, and calls, mean one of `Policy`.
PolicyName: TypeAlias = Literal["supersede", "rollback", "queue", "latest", "reject", "join"]


class Policy(enum.Enum):
    """What a start asks for when a generation is live. The values are the names that bodies and events carry."""

    SUPERSEDE = "supersede"
    ROLLBACK = "rollback"
    QUEUE = "queue"
    LATEST = "latest"
    REJECT = "reject"
    JOIN = "join"


@final
@frozen(kw_only=True)
class Situation:
    """What the decision depends on.

    ``live`` is the live generation, ``queued`` those that wait, in order, at most ``queue_limit``. Of the request:
    whether it can wait (``queueable``: a registered producer with JSON input), whether it brings text or input.
    """

    live: str | None = None
    queued: tuple[str, ...] = ()
    queue_limit: int = 16  # a person waits behind a few answers; more than this is a client in a loop
    queueable: bool = True
    brings_content: bool = False


@final
@frozen
class Start:
    """Nothing stands in the way."""


@final
@frozen
class Supersede:
    """End ``generation_id`` as superseded, then start; with ``retract`` its messages leave the transcript."""

    generation_id: str
    retract: bool


@final
@frozen
class Enqueue:
    """Wait at ``position`` (from 1), after those in ``pushed_out`` ended as superseded."""

    position: int
    pushed_out: tuple[str, ...] = ()


@final
@frozen
class Join:
    """Start nothing; answer with ``generation_id``."""

    generation_id: str


@final
@frozen
class Refuse:
    """Change nothing; answer with the error of this code."""

    code: Literal["GENERATION_ACTIVE", "QUEUE_FULL", "INVALID_BODY"]


Decision: TypeAlias = Start | Supersede | Enqueue | Join | Refuse


def decide(policy: Policy, now: Situation) -> Decision:
    """The one decision. ``queue`` and ``latest`` also wait behind a queue that is paused while nothing is live."""
    live = now.live
    if policy is Policy.QUEUE or policy is Policy.LATEST:
        if live is None and not now.queued:
            return Start()
        return _wait(now, pushed_out=() if policy is Policy.QUEUE else now.queued)
    if live is None:
        return Start()
    match policy:
        case Policy.SUPERSEDE:
            return Supersede(live, retract=False)
        case Policy.ROLLBACK:
            return Supersede(live, retract=True)
        case Policy.REJECT:
            return Refuse("GENERATION_ACTIVE")
        case Policy.JOIN:
            return Refuse("INVALID_BODY") if now.brings_content else Join(live)
        case _:
            assert_never(policy)


def _wait(now: Situation, *, pushed_out: tuple[str, ...]) -> Decision:
    if not now.queueable:
        return Refuse("INVALID_BODY")
    kept = len(now.queued) - len(pushed_out)
    return Refuse("QUEUE_FULL") if kept >= now.queue_limit else Enqueue(kept + 1, pushed_out)
