"""Every rule is broken once by hand, and the checker names it; what keeps the rules passes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TypeAlias

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from penstock.engine.events import (
    App,
    ApprovalRequested,
    ApprovalResolved,
    BlockClosed,
    BlockDelta,
    BlockOpened,
    BlockSnapshot,
    Data,
    Event,
    GenerationCancelling,
    GenerationFinished,
    GenerationQueued,
    GenerationStarted,
    GenerationStatus,
    InputAccepted,
    InputReturned,
    MessageClosed,
    MessageOpened,
    MessageRetracted,
    MessageSnapshot,
    SessionCreated,
)
from penstock.engine.log.port import Entry
from penstock.engine.testing import Received, Recording, Rule, assert_log, check_deliveries, check_log
from tests.engine.strategies import compact, logs

M1, M2, TOOL = (f"00000000-0000-7000-8000-00000000000{n}" for n in (1, 2, 3))


Step: TypeAlias = (
    tuple[str | None, Data] | tuple[str | None, Data, str | None] | tuple[str | None, Data, str | None, int, int]
)


def one(
    generation: str | None,
    data: Data,
    message_id: str | None = None,
    index: int | None = None,
    seq: int | None = None,
    *,
    offset: int = 1,
) -> Event:
    """A stamped event; g1 is turn 1, g2 is turn 2, every other generation only waits."""
    return Event(
        data=data,
        session_id="s",
        offset=offset,
        time="2025-03-01T10:00:00.000Z",
        generation_id=generation,
        turn={"g1": 1, "g2": 2}.get(generation or ""),
        message_id=message_id,
        block_index=index,
        seq=seq,
    )


def log(*steps: Step) -> list[Event]:
    return [one(*step, offset=offset) for offset, step in enumerate(steps, 1)]


def created() -> tuple[None, Data]:
    return (None, SessionCreated(metadata={}))


STARTED = GenerationStarted(producer="p", policy="supersede")
ASSISTANT = MessageOpened(role="assistant")
TEXT = BlockOpened(kind="text")
CALL = BlockOpened(kind="tool_call", tool_call_id="c1", name="find")
RESULT = BlockOpened(kind="tool_result", tool_call_id="c1")
COMPLETED = GenerationFinished(outcome="completed")
STOPPED = GenerationFinished(outcome="stopped")
CANCELLING = GenerationCancelling(reason="stopped")

# A generation that is stopped with everything open that can be: its end has every part.
STOP = log(
    created(),
    ("g1", STARTED),
    ("g1", ASSISTANT, M1),
    ("g1", TEXT, M1, 0, 0),
    ("g1", CALL, M1, 1, 0),
    ("g1", ASSISTANT, M2),
    ("g1", ApprovalRequested(approval_id="a1")),
    ("g1", InputAccepted(input_id="i1", kind="steer")),
    ("g1", CANCELLING),  # 9
    ("g1", ApprovalResolved(approval_id="a1", approved=False)),
    ("g1", InputReturned(input_id="i1")),
    ("g1", BlockClosed(), M1, 0, 1),
    ("g1", BlockClosed(), M1, 1, 1),
    ("g1", MessageClosed(status="cancelled"), M1),
    ("g1", MessageClosed(status="cancelled"), M2),
    ("g1", MessageOpened(role="tool"), TOOL),  # 16
    ("g1", RESULT, TOOL, 0, 0),
    ("g1", BlockClosed(is_error=True), TOOL, 0, 1),
    ("g1", MessageClosed(status="cancelled"), TOOL),
    ("g1", MessageRetracted(), M1),  # 20
    ("g1", STOPPED),
    ("g2", STARTED),
    ("g2", COMPLETED),
)

ANSWER = log(
    created(),
    ("g1", STARTED),
    ("g1", ASSISTANT, M1),
    ("g1", TEXT, M1, 0, 0),
    ("g1", BlockDelta(text="a"), M1, 0, 1),
    ("g1", BlockClosed(), M1, 0, 2),
    ("g1", MessageClosed(status="complete"), M1),
    ("g1", COMPLETED),
)


def without(events: Sequence[Event], *offsets: int) -> list[Event]:
    """The log as if these events had never been, with dense offsets."""
    kept = [event for event in events if event.offset not in offsets]
    return [evolve(event, offset=offset) for offset, event in enumerate(kept, 1)]


def moved(events: Sequence[Event], offset: int, to: int) -> list[Event]:
    """The log with one event at another place, with dense offsets."""
    order = list(events)
    order.insert(to - 1, order.pop(offset - 1))
    return [evolve(event, offset=position) for position, event in enumerate(order, 1)]


def changed(events: Sequence[Event], at: int, **changes: object) -> list[Event]:
    return [evolve(event, **changes) if event.offset == at else event for event in events]  # type: ignore[arg-type]


def added(events: Sequence[Event], at: int, *more: Event) -> list[Event]:
    order = [*events[: at - 1], *more, *events[at - 1 :]]
    return [evolve(event, offset=position) for position, event in enumerate(order, 1)]


def test_logs_that_keep_the_rules_pass() -> None:
    assert check_log(STOP, closed=True) == []
    assert check_log(ANSWER, closed=True) == []
    assert check_log([]) == []


@given(logs(closed=True))
def test_valid_random_logs_pass(events: list[Event]) -> None:
    assert check_log(events, closed=True) == []


@given(logs())
def test_valid_random_logs_pass_while_something_is_open(events: list[Event]) -> None:
    assert check_log(events) == []


@given(logs(), st.data())
def test_compacted_random_logs_pass(events: list[Event], data: st.DataObject) -> None:
    ids = sorted({event.message_id for event in events if event.message_id})
    chosen = set(data.draw(st.lists(st.sampled_from(ids)))) if ids else set()
    assert check_log(compact(events, chosen), compacted=True) == []


BROKEN: list[tuple[str, Rule, int | None, list[Event]]] = [
    ("a hole", "R1", 6, [event for event in ANSWER if event.offset != 5]),
    ("a repeat", "R1", 4, [*ANSWER[:4], ANSWER[3], *ANSWER[4:]]),
    ("a start past 1", "R1", 2, ANSWER[1:]),
    ("an ephemeral event in the log", "R1", None, changed(ANSWER, 1, offset=None)),
    ("an opened block that is not seq 0", "R2", 4, changed(ANSWER, 4, seq=1)),
    ("a skipped seq", "R2", 5, without(ANSWER, 5)),
    ("a repeated seq", "R2", 5, changed(ANSWER, 5, seq=0)),
    ("a block event behind closed", "R2", 7, added(ANSWER, 7, one("g1", BlockDelta(text="b"), M1, 0, 3))),
    ("a delta of no block", "R2", 4, without(ANSWER, 4)),
    ("a block of no message", "R2", 3, without(ANSWER, 3)),
    ("a block opened twice", "R2", 5, added(ANSWER, 5, ANSWER[3])),
    ("a message closed over an open block", "R2", 6, without(ANSWER, 6)),
    ("a message closed twice", "R2", 8, added(ANSWER, 8, ANSWER[6])),
    ("a message opened twice", "R2", 4, added(ANSWER, 4, ANSWER[2])),
    ("a retraction of nothing", "R2", 9, added(ANSWER, 9, one(None, MessageRetracted(), M2))),
    ("two starts", "R3", 3, added(ANSWER, 3, ANSWER[1])),
    ("two ends", "R3", 9, added(ANSWER, 9, ANSWER[7])),
    ("an end before any start", "R3", 2, log(created(), ("q", COMPLETED))),
    ("a stamp before its start", "R3", 2, moved(ANSWER, 2, 3)),
    ("a stamp behind its end", "R3", 9, added(ANSWER, 9, one("g1", App(type="app.x")))),
    (
        "a stamp of a generation that only waits",
        "R3",
        3,
        log(
            created(),
            ("q", GenerationQueued(producer="p", policy="queue", position=1)),
            ("q", GenerationStatus(status="thinking")),
        ),
    ),
    ("an approval left open", "R4", 20, without(STOP, 10)),
    ("an input left open", "R4", 20, without(STOP, 11)),
    ("a block left open", "R2", 13, without(STOP, 12)),
    ("a message left open", "R4", 20, without(STOP, 15)),
    ("a tool call without a result", "R4", 17, without(STOP, 16, 17, 18, 19)),
    ("an approval behind an input", "R4", 11, moved(STOP, 10, 11)),
    ("an input behind a block", "R4", 12, moved(STOP, 11, 12)),
    ("a block behind a message", "R4", 14, moved(STOP, 15, 13)),
    ("a message behind the tool message", "R4", 19, moved(STOP, 15, 19)),
    ("a retraction before the tool message", "R4", 17, moved(STOP, 20, 16)),
    ("a delta within the end", "R4", 10, added(STOP, 10, one("g1", BlockDelta(text="late"), M1, 0, 1))),
    ("a status within the end", "R4", 10, added(STOP, 10, one("g1", GenerationStatus(status="working")))),
    ("a new answer within the end", "R4", 10, added(STOP, 10, one("g1", ASSISTANT, "m9"))),
    (
        "an approval granted by the end",
        "R4",
        10,
        changed(STOP, 10, data=ApprovalResolved(approval_id="a1", approved=True)),
    ),
    ("an approval settled twice", "R4", 11, added(STOP, 11, STOP[9])),
    ("a message closed with the wrong status", "R4", 14, changed(STOP, 14, data=MessageClosed(status="complete"))),
    ("a result that is no error", "R4", 18, changed(STOP, 18, data=BlockClosed())),
    ("two tool messages", "R4", 20, added(STOP, 20, one("g1", MessageOpened(role="tool"), "m9"))),
    (
        "an input returned before the blocks it should follow",
        "R4",
        10,
        [
            *log(
                created(),
                ("g1", STARTED),
                ("g1", ASSISTANT, M1),
                ("g1", TEXT, M1, 0, 0),
                ("g1", InputAccepted(input_id="i1", kind="steer")),
                ("g1", ApprovalRequested(approval_id="a1")),
                ("g1", BlockClosed(), M1, 0, 1),
                ("g1", MessageClosed(status="failed"), M1),
                ("g1", InputReturned(input_id="i1")),
                ("g1", ApprovalResolved(approval_id="a1", approved=False)),
                ("g1", GenerationFinished(outcome="lost")),
            )
        ],
    ),
    ("a retraction of an open message", "R4", 4, added(ANSWER, 4, one("g1", MessageRetracted(), M1))),
    ("a turn that does not grow", "R5", 22, [*STOP[:21], *(evolve(event, turn=1) for event in STOP[21:])]),
    ("a turn that changes", "R5", 3, changed(ANSWER, 3, turn=2)),
    ("a second live generation", "R5", 3, added(ANSWER, 3, one("g2", STARTED))),
    ("an event of another session", "R8", 5, changed(ANSWER, 5, session_id="t")),
    ("a block event without seq", "stamp", 5, changed(ANSWER, 5, seq=None)),
    ("a block event without its message", "stamp", 5, changed(ANSWER, 5, message_id=None)),
    ("a start without its generation", "stamp", 2, changed(ANSWER, 2, generation_id=None, turn=None)),
    ("a delta without its generation", "stamp", 5, changed(ANSWER, 5, generation_id=None, turn=None)),
    (
        "a job id that is missing on one event",
        "stamp",
        5,
        changed([evolve(e, job_id="j") if e.turn else e for e in ANSWER], 5, job_id=None),
    ),
    ("a time of another form", "stamp", 5, changed(ANSWER, 5, time="2025-03-01T10:00:00Z")),
    (
        "a snapshot of an opened message, never compacted",
        "C",
        4,
        added(ANSWER, 4, one("g1", MessageSnapshot(role="assistant", status="complete", blocks=()), M1)),
    ),
]


# R-14 R-141 R-152
@pytest.mark.parametrize(("rule", "offset", "events"), [row[1:] for row in BROKEN], ids=[row[0] for row in BROKEN])
def test_a_broken_rule_is_named_with_its_offset(rule: Rule, offset: int | None, events: list[Event]) -> None:
    assert (rule, offset) in {(violation.rule, violation.offset) for violation in check_log(events)}


@pytest.mark.parametrize(
    ("events", "offset"),
    [(ANSWER[:2], 2), (ANSWER[:3], 3), (ANSWER[:5], 3)],
    ids=["a live generation", "an open message", "an open block"],
)
def test_what_is_left_open_breaks_r9_in_a_closed_log_only(events: list[Event], offset: int) -> None:
    assert check_log(events) == []
    assert ("R9", offset) in {(violation.rule, violation.offset) for violation in check_log(events, closed=True)}


def test_a_generation_that_only_waits_leaves_a_log_closed() -> None:
    queued = GenerationQueued(producer="p", policy="queue", position=1)
    assert check_log(log(created(), ("q", queued)), closed=True) == []
    assert check_log(log(created(), ("q", queued), ("q", STOPPED)), closed=True) == []


WHOLE = MessageSnapshot(role="assistant", status="complete", blocks=(BlockSnapshot(kind="text", seq=2, text="a"),))
COMPACTED = [*ANSWER[:3], evolve(ANSWER[5], data=WHOLE, block_index=None, seq=None), *ANSWER[6:]]


def test_missing_offsets_are_allowed_where_a_message_was_compacted() -> None:
    assert check_log(COMPACTED, closed=True, compacted=True) == []
    assert {violation.rule for violation in check_log(COMPACTED, closed=True)} == {"R1", "C"}


@pytest.mark.parametrize(
    ("rule", "offset", "events"),
    [
        ("R1", 5, [*ANSWER[:4], *ANSWER[5:]]),
        ("R1", 2, [ANSWER[0], *COMPACTED[2:]]),
        ("C", 6, [*ANSWER[:5], evolve(COMPACTED[3], data=evolve(WHOLE, blocks=())), *ANSWER[6:]]),
        ("C", 7, [*COMPACTED[:4], evolve(ANSWER[4], offset=7), evolve(ANSWER[6], offset=8)]),
        ("C", 8, [*ANSWER[:7], evolve(COMPACTED[3], offset=8)]),
        ("C", None, COMPACTED[:4]),
    ],
    ids=[
        "a hole that no snapshot explains",
        "a hole before the message",
        "a snapshot that says less",
        "a block event behind the snapshot",
        "a snapshot behind the end",
        "a compacted message that is open",
    ],
)
def test_compaction_breaks_its_rule_otherwise(rule: Rule, offset: int | None, events: list[Event]) -> None:
    assert (rule, offset) in {(found.rule, found.offset) for found in check_log(events, compacted=True)}


def test_assert_log_raises_with_everything_it_found() -> None:
    with pytest.raises(AssertionError) as caught:
        assert_log(without(STOP, 10, 11))
    assert "approval a1" in str(caught.value)
    assert "input i1" in str(caught.value)
    assert_log(STOP, closed=True)


def entry(session_id: str, offset: int, text: str = "x") -> Entry:
    return Entry(offset, json.dumps({"type": "app.x", "session_id": session_id, "offset": offset, "t": text}).encode())


COMMITTED = {"a": [entry("a", n) for n in range(1, 6)], "b": [entry("b", n) for n in range(1, 4)]}


def recording(*entries: tuple[str, Entry], after: dict[str, int] | None = None, sessions: str = "ab") -> Recording:
    received = [Received(session_id=session_id, offset=each.offset, body=each.body) for session_id, each in entries]
    return Recording(subscriber="reader", sessions=frozenset(sessions), received=received, after=after or {})


def test_deliveries_that_keep_the_rules_pass() -> None:
    both = [*(("a", each) for each in COMMITTED["a"]), *(("b", each) for each in COMMITTED["b"])]
    assert check_deliveries([recording(*both)], COMMITTED, whole=True) == []
    interleaved = [both[5], both[0], both[1], both[6], both[2]]
    assert check_deliveries([recording(*interleaved)], COMMITTED) == []
    assert check_deliveries([recording(*both[3:5], after={"a": 3}, sessions="a")], COMMITTED, whole=True) == []


def test_deliveries_over_offsets_that_compaction_removed_pass() -> None:
    committed = {"a": [COMMITTED["a"][0], COMMITTED["a"][4]]}
    got = recording(("a", COMMITTED["a"][0]), ("a", COMMITTED["a"][4]), sessions="a")
    assert check_deliveries([got], committed, whole=True) == []


A = COMMITTED["a"]


@pytest.mark.parametrize(
    ("rule", "got"),
    [
        ("R6", recording(*(("a", each) for each in A), ("a", entry("a", 6)))),
        ("R7", recording(("a", entry("a", 1, "other")))),
        ("R7", recording(("a", Entry(1, A[1].body)))),
        ("R7", recording(("a", Entry(1, b"no json")))),
        ("R8", recording(("a", A[0]), ("b", COMMITTED["b"][0]), sessions="a")),
        ("R8", recording(("a", COMMITTED["b"][0]), sessions="a")),
        ("R1", recording(("a", A[0]), ("a", A[2]))),
        ("R1", recording(("a", A[0]), ("a", A[1]), ("a", A[1]))),
        ("R1", recording(("a", A[1]), ("a", A[0]), after={"a": 1})),
    ],
    ids=[
        "never committed",
        "other bytes",
        "another offset",
        "no JSON",
        "not subscribed",
        "another session's stamp",
        "left out",
        "twice",
        "out of order",
    ],
)
def test_a_broken_delivery_is_named(rule: Rule, got: Recording) -> None:  # R-5 R-8 R-55
    assert rule in {violation.rule for violation in check_deliveries([got], COMMITTED)}


def test_an_event_that_came_before_its_commit_is_named() -> None:
    early = Received(session_id="a", offset=2, body=A[1].body, committed=1)
    got = Recording(subscriber="reader", sessions=frozenset({"a"}), received=[early], after={"a": 1})
    assert [violation.rule for violation in check_deliveries([got], COMMITTED)] == ["R6"]


def test_a_reader_that_was_left_behind_is_named() -> None:
    got = recording(("a", A[0]), sessions="a")
    assert check_deliveries([got], COMMITTED) == []
    assert [violation.rule for violation in check_deliveries([got], COMMITTED, whole=True)] == ["R1"]
