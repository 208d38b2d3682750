"""The one table from an error's code to how HTTP and WebSocket say it, and the problem answer made from it.

Nothing else in the edge knows a status number or a close code. What the engine did not raise on purpose
becomes ``INTERNAL``, and no inner text of it leaves the process.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import Final, final

from attrs import frozen

from penstock.engine import (
    JSON,
    CallerError,
    CapacityError,
    CorruptSession,
    InvalidId,
    PenstockError,
    SequenceGap,
    StaleProducer,
    StorageError,
    check_session_id,
    encode_json,
    is_uuid,
)

from .isolation import ISOLATION
from .watching.traffic import traffic

__all__ = [
    "IDS",
    "PROBLEM_JSON",
    "TABLE",
    "Answer",
    "BodyTooLarge",
    "Forbidden",
    "MethodNotAllowed",
    "NotFound",
    "OriginRefused",
    "RateLimited",
    "Row",
    "SlowRequest",
    "Unauthenticated",
    "answer",
    "brief",
    "close_code",
    "ids_in",
    "is_failure",
    "logged",
    "problem",
]

PROBLEM_JSON: Final = "application/problem+json"

# What an error may be about.
IDS: Final = ("session_id", "generation_id", "message_id")


@final
@frozen(kw_only=True)
class Row:
    """How one code is said. ``close`` is the WebSocket close code where the error ends the whole connection."""

    status: int
    title: str
    retryable: bool = False
    close: int | None = None


def _rows() -> dict[str, Row]:
    return {
        "INVALID_BODY": Row(status=400, title="The request is not valid", close=1008),
        "INVALID_CURSOR": Row(status=400, title="The cursor is not valid"),
        "INVALID_ID": Row(status=400, title="The id is not valid"),
        "UNAUTHENTICATED": Row(status=401, title="Authentication is needed", close=4401),
        "FORBIDDEN": Row(status=403, title="This is not allowed", close=4403),
        "ORIGIN_REFUSED": Row(status=403, title="Requests from this origin are refused", close=4403),
        "NOT_FOUND": Row(status=404, title="There is nothing here"),
        "SESSION_NOT_FOUND": Row(status=404, title="The session does not exist"),
        "GENERATION_NOT_FOUND": Row(status=404, title="The generation does not exist"),
        "MESSAGE_NOT_FOUND": Row(status=404, title="The message does not exist"),
        "PRODUCER_NOT_FOUND": Row(status=404, title="The producer does not exist"),
        "APPROVAL_NOT_FOUND": Row(status=404, title="The approval does not exist"),
        "METHOD_NOT_ALLOWED": Row(status=405, title="The method is not allowed here"),
        "GENERATION_ACTIVE": Row(status=409, title="A generation is live"),
        "GENERATION_MISMATCH": Row(status=409, title="Another generation is live"),
        "STALE_GENERATION": Row(status=409, title="The generation has ended"),
        "STALE_PRODUCER": Row(status=409, title="A newer producer has taken over"),
        "SEQUENCE_GAP": Row(status=409, title="A number was skipped"),
        "ID_IN_USE": Row(status=409, title="The id names something else"),
        "IDEMPOTENCY_CONFLICT": Row(status=409, title="The key was used with another request"),
        "SESSION_DELETED": Row(status=410, title="The session was deleted"),
        "BODY_TOO_LARGE": Row(status=413, title="The request is too large", close=1009),
        "RATE_LIMITED": Row(status=429, title="Too many requests", retryable=True, close=4429),
        "QUEUE_FULL": Row(status=429, title="The queue is full", retryable=True),
        "TOO_MANY_STRAGGLERS": Row(status=429, title="Too many clean-ups are still running", retryable=True),
        "WRITE_FAILED": Row(status=500, title="Nothing could be stored", retryable=True),
        "FINISH_FAILED": Row(status=500, title="The end could not be stored", retryable=True),
        "CORRUPT_SESSION": Row(status=500, title="The session cannot be read"),
        "INTERNAL": Row(status=500, title="Something went wrong in the server", close=1011),
        "DRAINING": Row(status=503, title="The server is shutting down", retryable=True, close=1001),
        "SESSION_MOVED": Row(status=503, title="Another server has the session", retryable=True),
        "STORE_AWAY": Row(status=503, title="The store does not answer", retryable=True),
        "OVERLOADED": Row(status=503, title="The server is at a limit", retryable=True, close=4429),
        "TIMEOUT": Row(status=504, title="It took too long", retryable=True, close=4408),
    }


TABLE: Final[Mapping[str, Row]] = MappingProxyType(_rows())

# Answers that a client should repeat later say when; the others say nothing.
_WITH_RETRY_AFTER = frozenset({429, 503})

# What may stand in `detail` where the error's own text could tell of the inside: a file's path, an SQL error.
_INTERNAL = "The server's log has the details."
_STORAGE = "This could not be stored; try again."
_CORRUPT = "What is stored of the session cannot be read. Deleting it works; creating it then begins a new life."

# The same for all who are not known: what is wrong with a token helps who tries some.
_UNKNOWN = (
    "This takes a token that this server accepts: in the header 'Authorization: Bearer <token>', or on a WebSocket "
    'in a first frame {"op": "auth", "token": "…"}; or what the application that runs this server knows people by. '
    "The server's log has the reason."
)

# Of a text that may quote what a client sent: enough to see what is meant. It is told back and logged, and a mebibyte
# of it would be several by then.
_BRIEF: Final = 1000


@final
class NotFound(CallerError):
    """No resource has this path."""

    code = "NOT_FOUND"


@final
class MethodNotAllowed(CallerError):
    """The resource does not know this method; ``allowed`` names those it knows."""

    code = "METHOD_NOT_ALLOWED"

    def __init__(self, detail: str, *, allowed: tuple[str, ...] = ()) -> None:
        super().__init__(detail)
        self.allowed = allowed


@final
class BodyTooLarge(CallerError):
    """The request is larger than the server's limit."""

    code = "BODY_TOO_LARGE"


@final
class Unauthenticated(CallerError):
    """Nobody knows who asks: there is no token, or it is not valid any more.

    Why, the log tells, in ``reason`` with one word and in ``detail`` with more; who asks is not told.
    """

    code = "UNAUTHENTICATED"

    def __init__(self, detail: str, *, reason: str = "refused") -> None:
        super().__init__(detail)
        self.reason = reason


@final
class Forbidden(CallerError):
    """Who asks is known and may not do this. The text is the same for what exists and for what does not."""

    code = "FORBIDDEN"


@final
class OriginRefused(CallerError):
    """A browser sent this for a page of another origin."""

    code = "ORIGIN_REFUSED"


@final
class RateLimited(CapacityError):
    """One client took more than its part; others are served on."""

    code = "RATE_LIMITED"

    def __init__(self, detail: str, *, retry_after: float = 1.0) -> None:
        super().__init__(detail)
        self.retry_after = retry_after


@final
class SlowRequest(CapacityError):
    """The request did not arrive in time."""

    code = "TIMEOUT"


@final
@frozen(kw_only=True)
class Answer:
    """A whole problem answer."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def head(self) -> list[tuple[bytes, bytes]]:
        """The headers as ASGI has them, with the body's length."""
        named = [(name.lower().encode(), value.encode()) for name, value in self.headers]
        return [*named, (b"content-length", b"%d" % len(self.body))]


def _row(error: BaseException) -> tuple[str, Row]:
    code = error.code if isinstance(error, PenstockError) else "INTERNAL"
    row = TABLE.get(code)
    return ("INTERNAL", TABLE["INTERNAL"]) if row is None else (code, row)


def brief(text: str) -> str:
    """The text, or its beginning where it is long."""
    return text if len(text) <= _BRIEF else f"{text[:_BRIEF]}…"


def _seconds(error: BaseException, row: Row) -> int | None:
    """When to come back, where that is said."""
    if row.status not in _WITH_RETRY_AFTER:
        return None
    return max(1, math.ceil(error.retry_after if isinstance(error, CapacityError) else 1.0))


def problem(error: BaseException, **ids: str | None) -> dict[str, JSON]:
    """The problem object (RFC 9457) of ``error``, to be told now: it is counted.

    ``ids`` fill in what the error does not name itself.
    """
    code, row = _row(error)
    traffic.problems[code] += 1
    if code == "INTERNAL" or not isinstance(error, PenstockError):
        detail = _INTERNAL
    elif isinstance(error, CorruptSession):
        detail = _CORRUPT
    elif isinstance(error, StorageError):
        detail = _STORAGE
    elif isinstance(error, Unauthenticated):
        detail = _UNKNOWN
    else:
        detail = brief(error.detail)
    made: dict[str, JSON] = {
        "type": f"urn:penstock:problem:{code}",
        "title": row.title,
        "status": row.status,
        "code": code,
        "detail": detail,
        "retryable": row.retryable,
    }
    seconds = _seconds(error, row)
    if seconds is not None:
        made["retry_after"] = seconds  # on a WebSocket there is no header to say it in
    if isinstance(error, SequenceGap):
        made["expected"] = error.expected
    if isinstance(error, StaleProducer):
        made["epoch"] = error.epoch
    return made | _about(error, ids)


def _about(error: BaseException, ids: Mapping[str, str | None]) -> dict[str, str]:
    named = {name: getattr(error, name, None) or ids.get(name) for name in IDS}
    return {name: value for name, value in named.items() if value is not None}


def ids_in(asked: Mapping[str, JSON]) -> dict[str, str]:
    """What a request is about, by its path or its frame; what is no id is not told back as one."""
    ids: dict[str, str] = {}
    for name in IDS:
        value = asked.get(name)
        if not isinstance(value, str):
            continue
        if name == "session_id":
            with suppress(InvalidId):
                ids[name] = check_session_id(value)
        elif is_uuid(value):
            ids[name] = value.lower()
    return ids


def answer(error: BaseException, **ids: str | None) -> Answer:
    """The HTTP answer to ``error``."""
    _, row = _row(error)
    headers = [("Content-Type", PROBLEM_JSON), ("Cache-Control", "no-store"), *ISOLATION]
    seconds = _seconds(error, row)
    if seconds is not None:
        headers.append(("Retry-After", str(seconds)))
    if isinstance(error, Unauthenticated):
        headers.append(("WWW-Authenticate", "Bearer"))
    if isinstance(error, MethodNotAllowed) and error.allowed:
        headers.append(("Allow", ", ".join(error.allowed)))
    return Answer(status=row.status, headers=tuple(headers), body=encode_json(problem(error, **ids)))


def is_failure(error: BaseException) -> bool:
    """Whether the server could not do what it was asked, and the request need not be at fault: 500 and above."""
    _, row = _row(error)
    return row.status >= 500


def logged(error: PenstockError, ids: Mapping[str, str | None]) -> dict[str, object]:
    """What the log tells of a refusal. ``ids`` fill in what the error does not name itself."""
    fields: dict[str, object] = {**_about(error, ids), "code": error.code, "detail": brief(str(error))}
    if isinstance(error, Unauthenticated):
        fields["reason"] = error.reason
    if error.__cause__ is not None and is_failure(error):
        fields["cause"] = repr(error.__cause__)
    return fields


def close_code(error: BaseException) -> int:
    """The WebSocket close code of an error that ends the connection."""
    _, row = _row(error)
    return 1008 if row.close is None else row.close
