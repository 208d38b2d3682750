"""The table of codes against the protocol and the engine's errors, and what a problem answer may tell."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from penstock.adapters.problems import TABLE, MethodNotAllowed, NotFound, answer, close_code, problem
from penstock.engine import (
    CapacityError,
    CorruptDatabase,
    Draining,
    Overloaded,
    PenstockError,
    ProducerError,
    SequenceGap,
    SessionNotFound,
    TimedOut,
    WriteFailed,
    decode_json,
)

# The protocol's own table.
STATUSES = {
    400: "INVALID_BODY INVALID_CURSOR INVALID_ID",
    401: "UNAUTHENTICATED",
    403: "FORBIDDEN ORIGIN_REFUSED",
    404: "NOT_FOUND SESSION_NOT_FOUND GENERATION_NOT_FOUND MESSAGE_NOT_FOUND PRODUCER_NOT_FOUND APPROVAL_NOT_FOUND",
    405: "METHOD_NOT_ALLOWED",
    409: "GENERATION_ACTIVE GENERATION_MISMATCH STALE_GENERATION STALE_PRODUCER SEQUENCE_GAP ID_IN_USE "
    "IDEMPOTENCY_CONFLICT",
    410: "SESSION_DELETED",
    413: "BODY_TOO_LARGE",
    429: "RATE_LIMITED QUEUE_FULL TOO_MANY_STRAGGLERS",
    500: "WRITE_FAILED FINISH_FAILED CORRUPT_SESSION INTERNAL",
    503: "DRAINING OVERLOADED SESSION_MOVED STORE_AWAY",
    504: "TIMEOUT",
}
RETRYABLE = {*["RATE_LIMITED", "QUEUE_FULL", "TOO_MANY_STRAGGLERS", "WRITE_FAILED", "FINISH_FAILED"]} | {
    *["DRAINING", "OVERLOADED", "SESSION_MOVED", "STORE_AWAY", "TIMEOUT"]
}


def subclasses(kind: type[PenstockError]) -> Iterator[type[PenstockError]]:
    for child in kind.__subclasses__():
        yield child
        yield from subclasses(child)


#
def test_the_table_is_the_protocols() -> None:
    assert {code: row.status for code, row in TABLE.items()} == {
        code: status for status, codes in STATUSES.items() for code in codes.split()
    }
    assert {code for code, row in TABLE.items() if row.retryable} == RETRYABLE


#
@pytest.mark.parametrize("kind", list(subclasses(PenstockError)), ids=lambda kind: kind.__name__)
def test_every_error_of_the_engine_has_a_row_that_agrees(kind: type[PenstockError]) -> None:
    if kind.__subclasses__() and kind.code == "INTERNAL":
        return  # a group of errors, never raised itself
    if kind is ProducerError:
        return  # ends a generation and stands in its last event; no caller gets it
    if kind.__module__.startswith("penstock.adapters.client"):
        return  # what a client finds; no server says it
    assert TABLE[kind.code].retryable == kind.retryable


#
def test_a_problem_names_what_it_is_about_and_nothing_is_null() -> None:
    made = problem(SessionNotFound("no such session", session_id="s"), generation_id="g", message_id=None)
    assert made == {
        "type": "urn:penstock:problem:SESSION_NOT_FOUND",
        "title": TABLE["SESSION_NOT_FOUND"].title,
        "status": 404,
        "code": "SESSION_NOT_FOUND",
        "detail": "no such session",
        "retryable": False,
        "session_id": "s",
        "generation_id": "g",
    }
    assert problem(SequenceGap("a hole", expected=3))["expected"] == 3


@pytest.mark.parametrize(
    "error", [ValueError("/secret"), CorruptDatabase("/secret"), WriteFailed("/secret"), OSError()]
)
def test_what_is_inside_stays_inside(error: BaseException) -> None:
    assert b"secret" not in answer(error).body


@pytest.mark.parametrize(
    ("error", "seconds"),
    [(Overloaded("full"), "1"), (Draining("bye"), "1"), (NotFound("no"), None), (TimedOut("late"), None)],
)
def test_retry_after_stands_where_it_helps(error: PenstockError, seconds: str | None) -> None:
    assert dict(answer(error).headers).get("Retry-After") == seconds


@pytest.mark.parametrize("kind", list(subclasses(CapacityError)), ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("asked", [0.0, 0.1, 1.0, 2.1, 300.0])
def test_a_problem_says_when_to_come_back_as_its_header_does(kind: type[CapacityError], asked: float) -> None:
    error = kind("full")
    error.retry_after = asked
    said = problem(error).get("retry_after")
    assert dict(answer(error).headers).get("Retry-After") == (None if said is None else str(said))
    assert (said is not None) == (TABLE[kind.code].status in (429, 503))


def test_retry_after_is_rounded_up() -> None:
    error: CapacityError = Overloaded("full")
    error.retry_after = 2.1
    assert dict(answer(error).headers)["Retry-After"] == "3"


def test_a_method_that_is_not_allowed_names_those_that_are() -> None:
    told = answer(MethodNotAllowed("no", allowed=("GET", "PUT")))
    assert dict(told.headers)["Allow"] == "GET, PUT"
    assert decode_json(told.body)


def test_close_codes_tell_a_client_whether_to_come_back() -> None:
    assert close_code(Draining("")) == 1001
    assert close_code(TimedOut("")) == 4408
    assert close_code(Overloaded("")) == 4429
    assert close_code(ValueError()) == 1011
    assert close_code(NotFound("")) == 1008
