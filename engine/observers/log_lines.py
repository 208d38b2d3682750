"""The facts of an engine as log lines: a name that stays, and fields.

Owns the names and levels of ``penstock.session``'s and ``penstock.generation``'s events. The message is the event's
name; the fields stand in the record itself (``extra``), so a formatter writes them as it likes. What happens with
every commit, and with readers that are merely slow, makes no line: it is counted, not told.
"""

from __future__ import annotations

import logging
from typing import final

from ..errors import ProducerError
from ..facts import (
    CleanupEnded,
    Committed,
    Fact,
    GapMet,
    GenerationBegan,
    GenerationCancelled,
    GenerationEnded,
    NodeTakenOver,
    ProducerDone,
    SessionRepaired,
    SessionSetAside,
    SteppedDown,
    StoreWentBack,
    StragglerEnded,
    WriteRefused,
)

__all__ = ["LogLines"]

sessions = logging.getLogger("penstock.session")
generations = logging.getLogger("penstock.generation")


@final
class LogLines:
    """The observer that every engine has."""

    def observe(self, fact: Fact, /) -> None:
        match fact:
            case Committed():  # most of all facts
                pass
            case GenerationBegan():
                _say(generations, logging.INFO, "generation_started", fact, turn=fact.turn)
            case GenerationCancelled():
                _say(generations, logging.INFO, "generation_cancelled", fact, reason=fact.reason)
            case CleanupEnded(overran=False):
                _say(generations, logging.INFO, "cleanup_finished", fact, duration_ms=_ms(fact.seconds))
            case CleanupEnded():
                _say(generations, logging.WARNING, "cleanup_overran", fact, timeout_ms=_ms(fact.seconds))
            case StragglerEnded():
                _say(generations, logging.INFO, "straggler_ended", fact, duration_ms=_ms(fact.seconds))
            case ProducerDone():
                _say_done(fact)
            case GenerationEnded():
                fields: dict[str, object] = {"outcome": fact.outcome}
                if fact.seconds is not None:
                    fields["duration_ms"] = _ms(fact.seconds)
                _say(generations, logging.INFO, "generation_ended", fact, **fields)
            case WriteRefused():
                detail = f"{type(fact.error).__name__}: {fact.error}"
                _say(sessions, logging.ERROR, "write_refused", fact, code=fact.error.code, detail=detail)
            case SessionSetAside():
                _say(sessions, logging.ERROR, "session_set_aside", fact, code=fact.error.code, detail=str(fact.error))
            case SessionRepaired():
                _say(sessions, logging.INFO, "session_repaired", fact)
            case StoreWentBack():
                _say(sessions, logging.WARNING, "store_went_back", fact, epoch=fact.epoch)
            case SteppedDown():
                _say(sessions, logging.WARNING, "session_moved", fact, owner=fact.owner)
            case NodeTakenOver():
                _say(sessions, logging.WARNING, "node_taken_over", fact, node=fact.name, sessions=fact.sessions)
            case GapMet():
                _say(sessions, logging.INFO, "gap_met", fact, reason=fact.reason)
            case _:
                pass


def _say_done(fact: ProducerDone) -> None:
    match fact.error:
        case None:
            _say(generations, logging.INFO, f"producer_{fact.how}", fact)
        case ProducerError(reason=reason, detail=detail):  # raised on purpose, for readers to see
            _say(generations, logging.INFO, "producer_failed", fact, code=reason, detail=detail)
        case error:
            _say(generations, logging.ERROR, "producer_failed", fact, error, code="PRODUCER_FAILED")


def _say(
    logger: logging.Logger, level: int, event: str, fact: Fact, error: BaseException | None = None, /, **fields: object
) -> None:
    if not logger.isEnabledFor(level):
        return
    for name in ("session_id", "generation_id", "producer"):
        if (value := getattr(fact, name, None)) is not None:
            fields[name] = value
    logger.log(level, event, exc_info=error, extra={"event": event, **fields})


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 1)
