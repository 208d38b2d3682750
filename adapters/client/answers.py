"""Success answers as the engine's results."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, cast, get_args

from penstock.engine import GenerationInfo, Outcome, Queued, Started, StateName, Stopped, StopState, Superseded

from .fields import Fields
from .refusals import BadAnswer

__all__ = ["read_generation", "read_started", "read_stopped"]

_STATES: Final[Mapping[str, StopState]] = {
    "stopped": "stopped",
    "stopping": "stopping",
    "already_done": "already_done",
    "nothing_active": "nothing_active",
    "pending": "pending",
}
_GENERATION_STATES: Final = get_args(StateName)
_OUTCOMES: Final = get_args(Outcome)


def read_started(answer: Fields, status: int, *, own_key: bool, joins: bool) -> Started | Queued:
    """With ``own_key``, a key that we made ourselves, a repetition's answer is the first one, to the caller."""
    again = status == 200 and not own_key
    if "position" in answer:
        return Queued(
            generation_id=answer.text("generation_id"),
            position=answer.number("position"),
            cursor=answer.cursor(),
            repeated=again,
        )
    superseded = None
    if "superseded" in answer:
        told = answer.object("superseded")
        superseded = Superseded(
            generation_id=told.text("generation_id"), cleanup=told.text("cleanup"), seconds=told.seconds("seconds")
        )
    return Started(
        generation_id=answer.text("generation_id"),
        turn=answer.number("turn"),
        cursor=answer.cursor(),
        message_id=answer.text_if_any("message_id"),
        superseded=superseded,
        joined=status == 200 and joins,
        repeated=again and not joins,
    )


def read_stopped(answer: Fields) -> Stopped:
    state = _STATES.get(answer.text("state"))
    if state is None:
        raise BadAnswer(f"a stop's state is none of {', '.join(_STATES)}")
    return Stopped(state=state, generation_id=answer.text_if_any("generation_id"))


def read_generation(answer: Fields) -> GenerationInfo:
    state, outcome = answer.text("state"), answer.text_if_any("outcome")
    if state not in _GENERATION_STATES:
        raise BadAnswer(f"a generation's state is none of {', '.join(_GENERATION_STATES)}")
    if outcome not in (None, *_OUTCOMES):
        raise BadAnswer(f"a generation's outcome is none of {', '.join(_OUTCOMES)}")
    return GenerationInfo(
        generation_id=answer.text("generation_id"),
        state=cast("StateName", state),
        turn=answer.number("turn") if "turn" in answer else None,
        outcome=cast("Outcome | None", outcome),
    )
