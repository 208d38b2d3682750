"""A generation's states: the table of what leads where, and what each outcome makes of the messages left open."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final, Literal, TypeAlias

from ..errors import InvalidBody
from ..events import GenerationCancelling, GenerationFinished, GenerationQueued, GenerationStarted

__all__ = ["OUTCOMES", "GenerationState", "Outcome", "StateName", "next_state"]

# How a generation ended, and where one stands: the names that events and answers have for it.
Outcome: TypeAlias = Literal[
    "completed", "superseded", "stopped", "reset", "deleted", "shutdown", "failed", "stalled", "expired", "lost"
]
StateName: TypeAlias = Literal["queued", "live", "cancelling", "finished"]

# Outcome of a generation, and the status that messages left open get from it.
OUTCOMES: Final[Mapping[Outcome, str]] = {
    "completed": "complete",
    "superseded": "cancelled",
    "stopped": "cancelled",
    "reset": "cancelled",
    "deleted": "cancelled",
    "shutdown": "cancelled",
    "failed": "failed",
    "stalled": "failed",
    "expired": "failed",
    "lost": "failed",
}


class GenerationState(enum.Enum):
    QUEUED = "queued"
    LIVE = "live"
    CANCELLING = "cancelling"
    FINISHED = "finished"


# (state before, event) → state after. What is not here does not happen.
_TRANSITIONS: Final[Mapping[tuple[GenerationState | None, type], GenerationState]] = {
    (None, GenerationQueued): GenerationState.QUEUED,
    (None, GenerationStarted): GenerationState.LIVE,
    (GenerationState.QUEUED, GenerationStarted): GenerationState.LIVE,
    (GenerationState.QUEUED, GenerationFinished): GenerationState.FINISHED,
    (GenerationState.LIVE, GenerationCancelling): GenerationState.CANCELLING,
    (GenerationState.LIVE, GenerationFinished): GenerationState.FINISHED,
    (GenerationState.CANCELLING, GenerationFinished): GenerationState.FINISHED,
}


def next_state(state: GenerationState | None, kind: type) -> GenerationState:
    """The state behind an event of this class. Raises `InvalidBody` where the table has no such step."""
    after = _TRANSITIONS.get((state, kind))
    if after is None:
        before = "new" if state is None else state.value
        raise InvalidBody(f"a {before} generation takes no {getattr(kind, 'type', kind.__name__)}")
    return after
