from __future__ import annotations

from collections.abc import Iterable, Sequence

import pytest
from attrs import evolve
from hypothesis import assume, given
from hypothesis import strategies as st

from penstock.engine.codec import converter, decode_json, encode_json
from penstock.engine.errors import CallerError, InvalidBody, InvalidCursor, MessageNotFound
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
    GenerationFinished,
    GenerationQueued,
    GenerationStarted,
    GenerationStatus,
    InputAccepted,
    MessageClosed,
    MessageOpened,
    MessageRetracted,
    MessageSnapshot,
    PresenceChanged,
    QueuePaused,
    SessionCreated,
    SessionReset,
    Unknown,
)
from penstock.engine.reducer import (
    Applied,
    BlockView,
    Duplicate,
    Folded,
    Gap,
    GenerationInfo,
    MessageView,
    SessionState,
    Snapshot,
)
from penstock.engine.rules.ending import Ending, closing
from penstock.engine.rules.lifecycle import Draft, OpenGeneration
from penstock.engine.rules.states import Outcome
from penstock.engine.work import at_once
from tests.engine.strategies import EPOCH, SESSION, compact, logs

GENERATION, OTHER = "00000000-0000-7000-8000-00000000000a", "00000000-0000-7000-8000-00000000000b"
MESSAGE, SECOND = "00000000-0000-7000-8000-000000000001", "00000000-0000-7000-8000-000000000002"


def event(
    offset: int | None,
    data: Data,
    message_id: str | None = None,
    index: int | None = None,
    seq: int | None = None,
    *,
    generation_id: str | None = GENERATION,
) -> Event:
    return Event(
        data=data,
        session_id=SESSION,
        offset=offset,
        time="2025-03-01T10:00:00.000Z",
        generation_id=generation_id,
        turn=1 if generation_id else None,
        message_id=message_id,
        block_index=index,
        seq=seq,
    )


STARTED = GenerationStarted(producer="p", policy="supersede")

# An answer in two blocks, the second a tool call.
ANSWER = (
    event(1, SessionCreated(metadata={"title": "t"}), generation_id=None),
    event(2, STARTED),
    event(3, MessageOpened(role="assistant"), MESSAGE),
    event(4, BlockOpened(kind="text"), MESSAGE, 0, 0),
    event(5, BlockDelta(text="Hel"), MESSAGE, 0, 1),
    event(6, BlockOpened(kind="tool_call", tool_call_id="c1", name="find"), MESSAGE, 1, 0),
    event(7, BlockDelta(text="lo"), MESSAGE, 0, 2),
    event(8, BlockDelta(arguments='{"q":'), MESSAGE, 1, 1),
    event(9, BlockClosed(), MESSAGE, 0, 3),
    event(10, BlockDelta(arguments="1}"), MESSAGE, 1, 2),
    event(11, BlockClosed(arguments={"q": 1}), MESSAGE, 1, 3),
    event(12, MessageClosed(status="complete", finish_reason="tool_use", usage={"out": 3}), MESSAGE),
    event(13, GenerationFinished(outcome="completed"), None),
)


def fold(events: Iterable[Event], state: SessionState | None = None) -> SessionState:
    state = state or SessionState(SESSION, EPOCH)
    for each in events:
        assert isinstance(state.apply(each), Applied), each
    return state


def assert_gap(state: SessionState, offending: Event) -> Gap:
    """The event is a gap, and nothing of the state moves."""
    before = state.snapshot()
    folded = state.apply(offending)
    assert isinstance(folded, Gap)
    assert state.snapshot() == before
    return folded


def test_an_answer_folds_to_its_message() -> None:  # R-51 R-52 R-59
    snapshot = fold(ANSWER).snapshot()
    assert snapshot.to_json() == {
        "session_id": SESSION,
        "cursor": "e1-0000000000000013",
        "messages": [
            {
                "message_id": MESSAGE,
                "role": "assistant",
                "status": "complete",
                "blocks": [
                    {"kind": "text", "seq": 3, "text": "Hello"},
                    {"kind": "tool_call", "seq": 3, "arguments": {"q": 1}, "tool_call_id": "c1", "name": "find"},
                ],
                "generation_id": GENERATION,
                "turn": 1,
                "finish_reason": "tool_use",
                "usage": {"out": 3},
                "time": "2025-03-01T10:00:00.000Z",
                "closed": "2025-03-01T10:00:00.000Z",
            }
        ],
        "generations": [
            {
                "generation_id": GENERATION,
                "state": "finished",
                "turn": 1,
                "outcome": "completed",
                "started": {"cursor": "e1-0000000000000002", "time": "2025-03-01T10:00:00.000Z"},
                "finished": {"cursor": "e1-0000000000000013", "time": "2025-03-01T10:00:00.000Z"},
            }
        ],
        "queue": {"paused": False, "items": []},
        "approvals": [],
        "metadata": {"title": "t"},
        "more": False,
    }


#
def test_a_snapshot_in_the_middle_of_an_answer_shows_what_is_open() -> None:
    snapshot = fold(ANSWER[:8]).snapshot().to_json()
    assert snapshot["generation"] == {"generation_id": GENERATION, "turn": 1, "state": "live", "producer": "p"}
    assert snapshot["messages"] == [
        {
            "message_id": MESSAGE,
            "role": "assistant",
            "status": "open",
            "blocks": [
                {"kind": "text", "seq": 2, "open": True, "text": "Hello"},
                {
                    "kind": "tool_call",
                    "seq": 1,
                    "open": True,
                    "arguments": '{"q":',
                    "tool_call_id": "c1",
                    "name": "find",
                },
            ],
            "generation_id": GENERATION,
            "turn": 1,
            "time": "2025-03-01T10:00:00.000Z",
        }
    ]


ENDS: dict[Outcome, str] = {
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


#
@pytest.mark.parametrize(("outcome", "status"), ENDS.items(), ids=ENDS)
def test_a_message_goes_from_open_to_how_its_generation_ended(outcome: Outcome, status: str) -> None:  # R-127 R-152
    """Nothing, then open, then at rest: there is no way back, and no message stays open behind an end."""
    state, structure = fold(ANSWER[:2]), OpenGeneration(GENERATION, 1)

    def write(*drafts: Draft) -> None:
        for draft in drafts:
            seq = structure.place(draft)
            structure.record(draft)
            fold([event(state.offset + 1, draft.data, draft.message_id, draft.block_index, seq)], state)

    assert state.snapshot().messages == ()
    assert state.snapshot().generation is not None
    write(Draft(GenerationStatus(status="thinking")))
    (generation, messages) = (state.snapshot().generation, state.snapshot().messages)
    assert (generation and generation.status, messages) == ("thinking", ()), "a status makes no message"
    write(Draft(MessageOpened(role="assistant"), MESSAGE), Draft(BlockOpened(kind="text"), MESSAGE, 0))
    write(Draft(BlockDelta(text="so far"), MESSAGE, 0))
    (message,) = state.snapshot().messages
    assert (message.status, message.blocks[0].open, message.blocks[0].text) == ("open", True, "so far")
    for draft in closing(structure, Ending(outcome=outcome), new_message_id=lambda: SECOND):
        write(draft)
    (message,) = state.snapshot().messages
    assert (message.status, message.blocks[0].open, message.blocks[0].text) == (status, False, "so far")
    assert state.snapshot().generation is None
    offset = state.offset + 1
    assert_gap(state, event(offset, BlockDelta(text="late"), MESSAGE, 0, 3))
    assert_gap(state, event(offset, BlockOpened(kind="text"), MESSAGE, 1, 0))
    assert_gap(state, event(offset, MessageClosed(status="complete"), MESSAGE))
    assert_gap(state, event(offset, GenerationStatus(status="thinking")))


@pytest.mark.parametrize("late", ["delta", "status", "closed"])
def test_what_one_generation_says_changes_nothing_of_another(late: str) -> None:  # R-149 R-150
    """A status or a piece of an ended generation is a gap, and never goes to "the last message"."""
    started = evolve(event(14, STARTED, generation_id=OTHER), turn=2)
    opened = evolve(event(15, MessageOpened(role="assistant"), SECOND, generation_id=OTHER), turn=2)
    state = fold([*ANSWER, started, opened])
    said = {
        "delta": event(16, BlockDelta(text="late"), MESSAGE, 0, 4),
        "status": event(16, GenerationStatus(status="thinking")),
        "closed": event(16, MessageClosed(status="failed"), SECOND),
    }[late]
    assert_gap(state, said)


def test_a_message_is_never_invented_from_a_delta() -> None:  # R-52 R-53
    assert_gap(fold(ANSWER[:2]), event(3, BlockDelta(text="lo"), MESSAGE, 0, 1))
    assert_gap(fold(ANSWER[:2]), event(3, BlockOpened(kind="text"), MESSAGE, 0, 0))
    assert_gap(fold(ANSWER[:2]), event(3, MessageClosed(status="complete"), MESSAGE))


def test_a_block_is_never_invented_from_a_delta() -> None:
    assert_gap(fold(ANSWER[:3]), event(4, BlockDelta(text="lo"), MESSAGE, 0, 1))
    assert_gap(fold(ANSWER[:3]), event(4, BlockOpened(kind="text"), MESSAGE, 1, 0))
    assert_gap(fold(ANSWER[:3]), event(4, BlockClosed(), MESSAGE, 0, 1))


def test_a_skipped_seq_is_a_gap_that_says_what_was_expected() -> None:  # R-51 R-56
    gap = assert_gap(fold(ANSWER[:5]), event(6, BlockDelta(text="lo"), MESSAGE, 0, 3))
    assert "seq 2" in gap.expected
    assert "seq 3" in gap.got


def test_after_a_gap_the_fold_goes_on_from_its_cursor() -> None:
    state = fold(ANSWER[:5])
    assert_gap(state, ANSWER[8])
    assert fold(ANSWER[state.cursor.offset :], state).snapshot() == fold(ANSWER).snapshot()


def test_nothing_comes_behind_the_end_of_a_block_or_of_a_message() -> None:
    assert_gap(fold(ANSWER[:9]), event(10, BlockDelta(text="!"), MESSAGE, 0, 4))
    assert_gap(fold(ANSWER[:12]), event(13, BlockOpened(kind="text"), MESSAGE, 2, 0))
    assert_gap(fold(ANSWER[:12]), event(13, MessageClosed(status="failed"), MESSAGE))


def test_a_message_does_not_close_before_its_blocks() -> None:
    assert_gap(fold(ANSWER[:9]), event(10, MessageClosed(status="complete"), MESSAGE))


def test_a_generation_does_not_end_before_its_messages() -> None:  # R-91 R-152
    assert_gap(fold(ANSWER[:11]), event(12, GenerationFinished(outcome="completed")))


def test_the_end_of_an_unknown_generation_is_a_gap() -> None:
    assert_gap(fold(ANSWER[:12]), event(13, GenerationFinished(outcome="completed"), generation_id=OTHER))


def test_a_second_live_generation_is_a_gap() -> None:
    assert_gap(fold(ANSWER[:2]), event(3, STARTED, generation_id=OTHER))


def test_a_turn_that_does_not_grow_is_a_gap() -> None:
    assert_gap(fold(ANSWER), event(14, STARTED, generation_id=OTHER))


def test_a_message_of_a_generation_that_is_not_live_is_a_gap() -> None:
    assert_gap(fold(ANSWER[:2]), event(3, MessageOpened(role="assistant"), SECOND, generation_id=OTHER))


def test_an_offset_that_jumps_while_no_message_is_open_is_a_gap() -> None:
    assert_gap(fold(ANSWER[:2]), event(4, App(type="app.x")))
    assert_gap(fold(ANSWER), event(15, Unknown(type="future")))


def test_a_message_whose_blocks_are_all_missing_is_a_gap() -> None:
    assert_gap(fold(ANSWER[:3]), ANSWER[11])


def test_an_event_of_another_session_is_refused() -> None:  # R-5 R-8 R-55
    state = fold(ANSWER[:5])
    before = state.snapshot()
    with pytest.raises(CallerError):
        state.apply(evolve(ANSWER[5], session_id="s-2"))
    assert state.snapshot() == before


@pytest.mark.parametrize(
    ("index", "missing"), [(4, "message_id"), (4, "block_index"), (4, "seq"), (1, "turn"), (1, "generation_id")]
)
def test_an_event_without_its_stamp_is_refused(index: int, missing: str) -> None:
    state = fold(ANSWER[:index])
    before = state.snapshot()
    with pytest.raises(InvalidBody):
        state.apply(evolve(ANSWER[index], **{missing: None}))  # type: ignore[arg-type]
    assert state.snapshot() == before


def test_an_ephemeral_event_moves_nothing() -> None:
    state = fold(ANSWER[:5])
    before = state.snapshot()
    presence = event(None, PresenceChanged(actor_id="a", device_id="d"), generation_id=None)
    assert isinstance(state.apply(presence), Applied)
    assert state.snapshot() == before


def test_unknown_and_app_events_move_the_cursor_and_nothing_else() -> None:
    state = fold(ANSWER)
    before = state.snapshot()
    fold([event(14, Unknown(type="generation.new")), event(15, App(type="app.x", value={"a": 1}))], state)
    assert state.snapshot() == evolve(before, cursor=evolve(before.cursor, offset=15))


def test_a_seq_that_is_known_changes_no_content_even_under_a_new_offset() -> None:  # R-51 R-54
    state = fold(ANSWER[:7])
    before = state.snapshot()
    assert isinstance(state.apply(event(8, BlockDelta(text="lo"), MESSAGE, 0, 2)), Duplicate)
    assert state.snapshot().messages == before.messages
    assert state.cursor.offset == 8


def test_a_reset_clears_messages_queue_and_approvals_and_keeps_the_turn() -> None:
    state = fold([*ANSWER, event(14, SessionReset(), generation_id=None)])
    snapshot = state.snapshot()
    assert (snapshot.messages, snapshot.approvals, snapshot.queue.items) == ((), (), ())
    assert (state.turn, snapshot.metadata) == (1, {"title": "t"})


QUEUED = GenerationQueued(producer="p", policy="queue", position=1, text="and then?")


def waiting(offset: int, generation_id: str = OTHER) -> Event:
    return evolve(event(offset, QUEUED, generation_id=generation_id), turn=None)


def test_the_queue_is_in_the_snapshot_in_its_order() -> None:
    state = fold([*ANSWER, waiting(14), waiting(15, SECOND), event(16, QueuePaused(), generation_id=None)])
    assert state.snapshot().to_json()["queue"] == {
        "paused": True,
        "items": [
            {"generation_id": OTHER, "producer": "p", "policy": "queue", "text": "and then?"},
            {"generation_id": SECOND, "producer": "p", "policy": "queue", "text": "and then?"},
        ],
    }
    assert_gap(state, waiting(17))


def test_a_generation_leaves_the_queue_when_it_starts_or_ends() -> None:
    queue = [*ANSWER, waiting(14)]
    started = evolve(event(15, STARTED, generation_id=OTHER), turn=2)
    ended = evolve(event(15, GenerationFinished(outcome="stopped"), generation_id=OTHER), turn=None)
    for last in (started, ended, event(15, SessionReset(), generation_id=None)):
        assert fold([*queue, last]).snapshot().queue.items == ()


def test_an_open_approval_is_in_the_snapshot_and_holds_the_end_of_its_generation() -> None:
    asked = ApprovalRequested(approval_id="a1", tool_call_id="c1", name="rm", arguments={"path": "/"})
    state = fold([*ANSWER[:2], event(3, asked)])
    assert state.snapshot().to_json()["approvals"] == [
        {
            "approval_id": "a1",
            "generation_id": GENERATION,
            "tool_call_id": "c1",
            "name": "rm",
            "arguments": {"path": "/"},
        }
    ]
    assert_gap(state, event(4, GenerationFinished(outcome="completed")))
    assert_gap(state, event(4, ApprovalResolved(approval_id="a2", approved=True)))
    fold([event(4, ApprovalResolved(approval_id="a1", approved=False))], state)
    assert state.snapshot().approvals == ()


def test_a_reset_while_a_generation_is_live_is_a_gap() -> None:
    assert_gap(fold(ANSWER[:2]), event(3, SessionReset(), generation_id=None))


def test_a_retracted_message_leaves_the_transcript() -> None:
    retracted = event(14, MessageRetracted(), MESSAGE, generation_id=None)
    assert fold([*ANSWER, retracted]).snapshot().messages == ()
    assert_gap(fold([*ANSWER, retracted]), evolve(retracted, offset=15))


def test_an_input_that_waits_is_in_the_snapshot_of_its_generation() -> None:
    accepted = InputAccepted(input_id="i1", kind="steer", extra={"text": "shorter"})
    state = fold([*ANSWER[:2], event(3, accepted)])
    generation = state.snapshot().to_json()["generation"]
    assert isinstance(generation, dict)
    assert generation["inputs"] == [{"input_id": "i1", "kind": "steer", "content": {"text": "shorter"}}]
    assert_gap(state, event(4, GenerationFinished(outcome="completed")))


WHOLE = MessageSnapshot(
    role="assistant",
    status="complete",
    blocks=(
        BlockSnapshot(kind="text", seq=3, text="Hello"),
        BlockSnapshot(kind="tool_call", seq=3, arguments={"q": 1}, tool_call_id="c1", name="find"),
    ),
)


@pytest.mark.parametrize("seen", range(3, 11))
def test_a_message_snapshot_takes_the_place_of_the_events_that_compaction_removed(seen: int) -> None:
    state = fold([*ANSWER[:seen], event(11, WHOLE, MESSAGE)])
    assert state.snapshot() == fold(ANSWER[:11]).snapshot()
    assert fold(ANSWER[11:], state).snapshot() == fold(ANSWER).snapshot()


def test_a_message_snapshot_that_has_less_than_is_known_is_a_gap() -> None:
    first_only = evolve(WHOLE, blocks=WHOLE.blocks[:1])
    assert_gap(fold(ANSWER[:8]), event(9, first_only, MESSAGE))
    shorter = evolve(WHOLE, blocks=(evolve(WHOLE.blocks[0], seq=1), WHOLE.blocks[1]))
    assert_gap(fold(ANSWER[:8]), event(9, shorter, MESSAGE))


def test_no_block_event_follows_a_message_snapshot() -> None:
    state = fold([*ANSWER[:8], event(11, WHOLE, MESSAGE)])
    assert_gap(state, event(12, BlockOpened(kind="text"), MESSAGE, 2, 0))
    assert_gap(state, event(12, BlockDelta(text="!"), MESSAGE, 0, 4))


def test_a_message_snapshot_of_an_unknown_message_makes_it() -> None:
    posted = MessageSnapshot(
        role="user", status="complete", blocks=(BlockSnapshot(kind="text", seq=1, text="hi"),), metadata={"a": 1}
    )
    snapshot = fold([ANSWER[0], event(2, posted, SECOND, generation_id=None)]).snapshot()
    assert snapshot.messages[0].blocks == (BlockView(kind="text", seq=1, text="hi"),)
    assert (snapshot.messages[0].status, snapshot.messages[0].metadata) == ("complete", {"a": 1})


def post(offset: int) -> Event:
    message_id = f"00000000-0000-7000-8000-{offset:012x}"
    return event(offset, MessageSnapshot(role="user", status="complete", blocks=()), message_id, generation_id=None)


def test_snapshots_page_backwards() -> None:
    posts = [post(offset) for offset in range(2, 12)]
    state = fold([ANSWER[0], *posts])
    fold([event(12, MessageRetracted(), posts[6].message_id, generation_id=None), post(13)], state)
    ids = [each.message_id for each in [*posts, post(13)] if each.offset != 8]
    page = state.snapshot(limit=4)
    assert ([m.message_id for m in page.messages], page.more) == (ids[-4:], True)
    page = state.snapshot(limit=4, before=ids[-4])
    assert ([m.message_id for m in page.messages], page.more) == (ids[-8:-4], True)
    page = state.snapshot(limit=4, before=ids[-8])
    assert ([m.message_id for m in page.messages], page.more) == (ids[:-8], False)
    page = state.snapshot(before=ids[-1])
    assert ([m.message_id for m in page.messages], page.more) == (ids[:-1], False)
    assert (state.snapshot(limit=0).messages, state.snapshot(limit=0).more) == ((), True)


def test_a_page_before_an_unknown_message_is_refused() -> None:
    with pytest.raises(MessageNotFound):
        fold(ANSWER).snapshot(before=SECOND)
    with pytest.raises(InvalidBody):
        fold(ANSWER).snapshot(limit=-1)


def test_a_page_makes_views_of_the_messages_it_returns_only() -> None:
    state = fold([ANSWER[0], *(post(offset) for offset in range(2, 1002))])
    first, second = state.snapshot(limit=3), state.snapshot(limit=3)
    assert all(a is b for a, b in zip(first.messages, second.messages, strict=True))
    assert sum(m.kept is not None for m in state._transcript._held.values()) == 3


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"cursor": "nowhere"}, InvalidCursor),
        ({"cursor": 3}, InvalidBody),
        ({"messages": None}, InvalidBody),
        ({"messages": [{"message_id": 1}]}, InvalidBody),
        ({"queue": {"paused": "no", "items": []}}, InvalidBody),
    ],
)
def test_a_snapshot_of_the_wrong_shape_is_refused(change: dict[str, object], error: type[Exception]) -> None:
    good = fold(ANSWER).snapshot().to_json()
    assert Snapshot.from_json(good).to_json() == good
    with pytest.raises(error):
        Snapshot.from_json({**good, **change})  # type: ignore[dict-item]


def test_a_message_of_very_many_deltas_keeps_its_pieces_until_somebody_looks() -> None:  # R-56 R-67
    state = fold(ANSWER[:4])
    deltas = 200_000
    for n in range(1, deltas + 1):
        state.apply(event(4 + n, BlockDelta(text="ab"), MESSAGE, 0, n))
    text = state._transcript.open[MESSAGE].blocks[0].text
    assert len(text) == deltas
    assert state.snapshot().messages[0].blocks[0].text == "ab" * deltas
    assert len(text) == 1


def results(state: SessionState, events: Iterable[Event]) -> list[Folded]:
    return [state.apply(each) for each in events]


@given(logs())
def test_every_event_of_a_valid_log_applies(log: list[Event]) -> None:
    assert fold(log).cursor.offset == len(log)


@given(logs())
def test_folding_twice_equals_once(log: list[Event]) -> None:  # R-51 R-54
    state = fold(log)
    before = state.snapshot()
    assert all(isinstance(folded, Duplicate) for folded in results(state, log))
    assert state.snapshot() == before


@given(logs(), st.data())
def test_replays_of_any_part_at_any_time_change_nothing(log: list[Event], data: st.DataObject) -> None:  # R-54 R-56
    state = SessionState(SESSION, EPOCH)
    for position, each in enumerate(log):
        fold([each], state)
        if data.draw(st.integers(0, 3)) == 0:
            again = data.draw(st.lists(st.sampled_from(log[: position + 1]), max_size=4))
            assert all(isinstance(folded, Duplicate) for folded in results(state, again))
    assert state.snapshot() == fold(log).snapshot()


@given(logs(), st.data())
def test_any_prefix_may_be_replayed_any_number_of_times(log: list[Event], data: st.DataObject) -> None:  # R-54 R-70
    state = SessionState(SESSION, EPOCH)
    for cut in sorted(data.draw(st.lists(st.integers(0, len(log)), max_size=5))):
        results(state, log[:cut])
        assert state.snapshot() == fold(log[:cut]).snapshot()
    results(state, log)
    assert state.snapshot() == fold(log).snapshot()


@given(logs(), st.data())
def test_a_fold_goes_on_from_the_snapshot_of_any_cut(log: list[Event], data: st.DataObject) -> None:  # R-68 R-143
    cut = data.draw(st.integers(0, len(log)))
    snapshot = fold(log[:cut]).snapshot()
    whole = fold(log).snapshot()
    assert SessionState.from_snapshot(snapshot).snapshot() == snapshot
    assert fold(log[cut:], SessionState.from_snapshot(snapshot)).snapshot() == whole
    read_back = Snapshot.from_json(snapshot.to_json())
    assert read_back.to_json() == snapshot.to_json()
    assert fold(log[cut:], SessionState.from_snapshot(read_back)).snapshot().to_json() == whole.to_json()


@given(logs(), st.data())
def test_pages_have_every_message_once_within_their_bounds(log: list[Event], data: st.DataObject) -> None:
    """Whatever the bounds: following ``next`` until there is no ``more`` gives the whole, and each page is its JSON."""
    state = fold(log)
    whole = state.snapshot()
    before: str | None = None
    messages: tuple[MessageView, ...] = ()
    while True:
        limit, most = data.draw(st.integers(1, 4)), data.draw(st.integers(0, 600))
        page, body = at_once(state.encoding_snapshot(limit, before, most, with_open=False))
        assert decode_json(body) == page.to_json()
        assert Snapshot.from_json(decode_json(body)).to_json() == page.to_json()
        assert len(page.messages) <= limit
        sizes = [len(encode_json(converter.unstructure(message))) for message in page.messages]
        assert sum(sizes) <= most or len(sizes) <= 1
        messages = page.messages + messages
        assert page.more == (messages != whole.messages)
        if not page.more:
            break
        assert page.next == messages[0].message_id
        before = page.next
    assert messages == whole.messages


@given(logs(), st.data())
def test_a_fold_goes_on_from_a_part_that_has_all_that_is_open(log: list[Event], data: st.DataObject) -> None:
    """What was left out is passed over, whatever becomes of it; all else is as in the whole."""
    cut = data.draw(st.integers(0, len(log)))
    limit, most = data.draw(st.integers(1, 3)), data.draw(st.integers(0, 400))
    before = fold(log[:cut])
    part, body = at_once(before.encoding_snapshot(limit, None, most, with_open=True))
    assert decode_json(body) == part.to_json()
    shown = {message.message_id for message in part.messages}
    all_ = before.snapshot()
    assert shown.issuperset(message.message_id for message in all_.messages if message.status == "open")
    left_out = {message.message_id for message in all_.messages} - shown
    state, whole = SessionState.from_snapshot(part), fold(log)
    for event in log[cut:]:
        assert not isinstance(state.apply(event), Gap)
    kept = tuple(message for message in whole.snapshot().messages if message.message_id not in left_out)
    assert state.snapshot().messages == kept
    rest = evolve(state.snapshot(), messages=(), generations=(), more=False, next=None)
    assert rest == evolve(whole.snapshot(), messages=(), generations=())
    assert_generations_of_messages(state.snapshot(), whole.snapshot())


@given(logs(), st.data())
def test_a_part_and_pages_that_are_read_later_make_the_whole(log: list[Event], data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(log)))
    later = data.draw(st.integers(cut, len(log)))
    part, _ = at_once(fold(log[:cut]).encoding_snapshot(data.draw(st.integers(1, 3)), None, 10**6, with_open=True))
    at_later = fold(log[:later])
    assume(part.next in at_later.message_ids())
    older, _ = at_once(at_later.encoding_snapshot(1000, part.next, 10**6, with_open=False))
    known = {message.message_id: message for message in part.messages}
    merged = {message.message_id: known.get(message.message_id, message) for message in older.messages} | known
    ends = {each.generation_id: each for each in (*older.generations, *part.generations) if begin(each) <= cut}
    completed = evolve(part, messages=tuple(merged.values()), generations=tuple(ends.values()), more=False, next=None)
    state = SessionState.from_snapshot(completed, older_seen_at=later)
    for event in log[cut:]:
        assert not isinstance(state.apply(event), Gap)
    assert evolve(state.snapshot(), generations=()) == evolve(fold(log).snapshot(), generations=())
    assert_generations_of_messages(state.snapshot(), fold(log).snapshot())


def begin(generation: GenerationInfo) -> int:
    first = generation.started or generation.finished
    return 0 if first is None else first.cursor.offset


def assert_generations_of_messages(part: Snapshot, whole: Snapshot) -> None:
    """Of the messages that it has, a part tells how their generations stand as the whole does.

    Of one that wrote none it may not know what that stands behind: it was left out.
    """
    found = {generation.generation_id: generation for generation in part.generations}
    wrote = {message.generation_id for message in part.messages}
    for generation in whole.generations:
        if generation.generation_id in wrote:
            assert found[generation.generation_id] == generation


@given(logs(), st.data())
def test_a_snapshot_does_not_change_when_the_fold_goes_on(log: list[Event], data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(log)))
    state = fold(log[:cut])
    snapshot = state.snapshot()
    fold(log[cut:], state)
    assert snapshot == fold(log[:cut]).snapshot()


@given(logs(closed=True).filter(lambda log: any(each.seq is not None for each in log)), st.data())
def test_a_block_event_that_is_missing_is_always_noticed(log: list[Event], data: st.DataObject) -> None:
    missing = data.draw(st.sampled_from([at for at, each in enumerate(log) if each.seq is not None]))
    state = fold(log[:missing])
    assert first_gap(state, log[missing + 1 :]) is not None


@given(logs(closed=True).filter(lambda log: len(log) > 1), st.data())
def test_any_event_that_is_missing_while_no_message_is_open_is_noticed(log: list[Event], data: st.DataObject) -> None:
    missing = data.draw(st.integers(0, len(log) - 2))
    state = fold(log[:missing])
    assume(all(message.status != "open" for message in state.snapshot().messages))
    assert first_gap(state, log[missing + 1 :]) is not None


def first_gap(state: SessionState, events: Sequence[Event]) -> Gap | None:
    for each in events:
        before = state.snapshot()
        folded = state.apply(each)
        if isinstance(folded, Gap):
            assert state.snapshot() == before
            return folded
    return None


@given(logs(), st.data())
def test_a_reader_of_a_compacted_log_comes_to_the_same_state(log: list[Event], data: st.DataObject) -> None:
    compacted = compact(log, data.draw(messages_of(log)))
    whole = fold(log).snapshot()
    assert fold(compacted).snapshot() == whole
    cut = data.draw(st.integers(0, len(log)))  # compaction ran while the reader was away
    rest = [each for each in compacted if each.offset is not None and each.offset > cut]
    assert fold(rest, fold(log[:cut])).snapshot() == whole
    resumed = SessionState.from_snapshot(Snapshot.from_json(fold(log[:cut]).snapshot().to_json()))
    assert fold(rest, resumed).snapshot().to_json() == whole.to_json()


@given(logs(), st.data())
def test_outside_of_compacted_ranges_every_cursor_shows_the_same_state(log: list[Event], data: st.DataObject) -> None:
    chosen = data.draw(messages_of(log))
    compacted = compact(log, chosen)
    kept = {each.offset for each in compacted}
    inside: set[int] = set()
    for message_id in chosen:
        blocks = [each.offset or 0 for each in log if each.message_id == message_id and each.seq is not None]
        if blocks and blocks[0] not in kept:
            inside.update(range(blocks[0], blocks[-1]))
    state, uncut = SessionState(SESSION, EPOCH), SessionState(SESSION, EPOCH)
    for each in log:
        fold([each], uncut)
        if each.offset in kept:
            fold([compacted.pop(0)], state)
        if each.offset not in inside:
            assert evolve(state.snapshot(), cursor=uncut.cursor) == uncut.snapshot()


def messages_of(log: Sequence[Event]) -> st.SearchStrategy[set[str]]:
    opened = sorted({each.message_id for each in log if isinstance(each.data, MessageOpened) and each.message_id})
    return st.sets(st.sampled_from(opened)) if opened else st.just(set())
