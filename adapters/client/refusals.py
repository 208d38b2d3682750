"""Errors as clients raise them: the engine's own, found by their code, and what only a client can meet.

Owns the one table from codes to classes. Nothing here looks at an error's text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final, final

from penstock.engine import (
    JSON,
    ApprovalNotFound,
    CapacityError,
    CorruptSession,
    Draining,
    FinishFailed,
    GenerationActive,
    GenerationMismatch,
    GenerationNotFound,
    IdempotencyConflict,
    IdInUse,
    InvalidBody,
    InvalidCursor,
    InvalidId,
    JSONObject,
    MessageNotFound,
    Moved,
    Overloaded,
    PenstockError,
    ProducerNotFound,
    QueueFull,
    RemoteError,
    SequenceGap,
    SessionDeleted,
    SessionNotFound,
    StaleGeneration,
    StaleProducer,
    StoreAway,
    TimedOut,
    TooManyStragglers,
    WriteFailed,
    decode_json,
)

from ..problems import (
    IDS,
    BodyTooLarge,
    Forbidden,
    MethodNotAllowed,
    NotFound,
    OriginRefused,
    RateLimited,
    Unauthenticated,
)

__all__ = [
    "CLASSES",
    "BadAnswer",
    "Refused",
    "Unreachable",
    "from_answer",
    "from_problem",
    "repeatable_status",
    "retry_after",
]

# What of a text from the other side goes into ours.
_LONGEST_DETAIL: Final = 300


@final
class Unreachable(RemoteError):
    """No answer came: no connection, one that broke, or one that was silent for too long. It may have been done."""

    code = "UNREACHABLE"
    retryable = True


@final
class BadAnswer(RemoteError):
    """What answers is no penstock server, or one of a version that this client cannot read."""

    code = "BAD_ANSWER"


@final
class Refused(RemoteError):
    """A refusal with a code that this version does not know, or with none. ``status`` is 0 on a WebSocket."""

    def __init__(
        self,
        detail: str,
        *,
        code: str,
        status: int = 0,
        retryable: bool = False,
        session_id: str | None = None,
        generation_id: str | None = None,
        message_id: str | None = None,
    ) -> None:
        super().__init__(detail, session_id=session_id, generation_id=generation_id, message_id=message_id)
        # They belong to the class where the class knows; here only the one that came does.
        vars(self).update(code=code, retryable=retryable)
        self.status = status


def _classes() -> dict[str, Callable[[str], PenstockError]]:
    simple: tuple[type[PenstockError], ...] = (
        ApprovalNotFound,
        BodyTooLarge,
        CorruptSession,
        Draining,
        FinishFailed,
        Forbidden,
        GenerationActive,
        GenerationMismatch,
        GenerationNotFound,
        IdInUse,
        IdempotencyConflict,
        InvalidBody,
        InvalidCursor,
        InvalidId,
        MessageNotFound,
        MethodNotAllowed,
        Moved,
        NotFound,
        OriginRefused,
        Overloaded,
        ProducerNotFound,
        QueueFull,
        RateLimited,
        SessionDeleted,
        SessionNotFound,
        StaleGeneration,
        StoreAway,
        TimedOut,
        TooManyStragglers,
        Unauthenticated,
        WriteFailed,
    )
    return {kind.code: kind for kind in simple}


# SEQUENCE_GAP and STALE_PRODUCER carry a number each and are made apart.
CLASSES: Final[Mapping[str, Callable[[str], PenstockError]]] = MappingProxyType(_classes())


def from_problem(problem: JSONObject, *, status: int = 0) -> PenstockError:
    """The error that a problem object tells of."""
    code, told = problem.get("code"), problem.get("detail") or problem.get("title")
    detail = (told if isinstance(told, str) else "the server refused")[:_LONGEST_DETAIL]
    if not isinstance(code, str):
        return _without_code(detail, status)
    if code == SequenceGap.code:
        error: PenstockError = SequenceGap(detail, expected=_number(problem.get("expected")))
    elif code == StaleProducer.code:
        error = StaleProducer(detail, epoch=_number(problem.get("epoch")))
    elif code in CLASSES:
        error = CLASSES[code](detail)
    else:
        error = Refused(detail, code=code, status=status, retryable=problem.get("retryable") is True)
    after = _seconds(problem.get("retry_after"))
    if isinstance(error, CapacityError) and after is not None:
        error.retry_after = after
    for name in IDS:
        value = problem.get(name)
        if isinstance(value, str):
            setattr(error, name, value)
    return error


def from_answer(status: int, body: bytes, after: str | None = None) -> PenstockError:
    """The error of an HTTP answer that is no success. ``after``: its Retry-After."""
    try:
        problem = decode_json(body)
    except InvalidBody:
        problem = None
    if isinstance(problem, dict):
        error = from_problem(problem, status=status)
    else:
        error = _without_code(f"the answer has the status {status} and is no problem of penstock's", status)
    seconds = retry_after(after)
    if isinstance(error, CapacityError) and seconds is not None:
        error.retry_after = seconds
    return error


def repeatable_status(status: int) -> bool:
    """Whether the same request may succeed later: too slow, too early, too many, or the server's own trouble."""
    return status in (408, 425, 429) or status >= 500


def retry_after(header: str | None) -> float | None:
    """The seconds in a Retry-After. A date is not read: our server sends none."""
    if header is None or not header.isascii() or not header.strip().isdigit():
        return None
    return float(header.strip()[:9])


def _without_code(detail: str, status: int) -> Refused:
    """A proxy's answer, most often."""
    return Refused(detail, code=f"HTTP_{status}", status=status, retryable=repeatable_status(status))


def _seconds(value: JSON) -> float | None:
    """As long as a header may say."""
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e9:
        return float(value)
    return None


def _number(value: JSON) -> int:
    return value if type(value) is int else 0
