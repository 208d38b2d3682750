from __future__ import annotations

from typing import Any

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.adapters.cli.render import Transcript, clean
from penstock.engine import (
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
    GenerationStatus,
    InputAccepted,
    InputApplied,
    InputReturned,
    MessageClosed,
    MessageOpened,
    MessageRetracted,
    MessageSnapshot,
    QueuePaused,
    QueueResumed,
    SessionForked,
    SessionReset,
)


def event(data: Data, message_id: str | None = "m", block_index: int | None = 0, turn: int | None = 1) -> Event:
    return Event(
        data=data, session_id="s", time="", offset=1, message_id=message_id, block_index=block_index, turn=turn
    )


def rendered(*events: Event) -> str:
    transcript = Transcript()
    return click.unstyle("".join(transcript.render(each) for each in events))


#
def test_a_turn_reads_as_a_dialogue() -> None:
    question = MessageSnapshot(role="user", status="complete", blocks=(BlockSnapshot(kind="text", seq=0, text="Why?"),))
    assert rendered(
        event(question, "q", None),
        event(MessageOpened(role="assistant"), block_index=None),
        event(BlockOpened(kind="text")),
        event(BlockDelta(text="Be")),
        event(BlockDelta(text="cause.")),
        event(BlockClosed()),
        event(MessageClosed(status="complete"), block_index=None),
        event(MessageOpened(role="assistant"), "n", None),
        event(BlockOpened(kind="text"), "n"),
        event(BlockDelta(text="Or not."), "n"),
        event(BlockClosed(), "n"),
        event(MessageClosed(status="complete"), "n", None),
        event(GenerationFinished(outcome="completed"), None, None),
    ) == ("user> Why?\nassistant> Because.\nassistant> Or not.\n-- turn 1 completed\n")


def test_blocks_that_stream_at_once_take_turns_by_the_line() -> None:
    assert rendered(
        event(MessageOpened(role="assistant"), block_index=None),
        event(BlockOpened(kind="reasoning")),
        event(BlockOpened(kind="tool_call", name="look_up"), block_index=1),
        event(BlockDelta(text="Hm")),
        event(BlockDelta(arguments='{"a":'), block_index=1),
        event(BlockDelta(arguments="1}"), block_index=1),
        event(BlockDelta(text=", yes")),
        event(BlockClosed()),
    ) == ('assistant (reasoning)> Hm\nassistant calls look_up> {"a":1}\nassistant (reasoning)> , yes\n')


@pytest.mark.parametrize(
    ("outcome", "code", "message", "said"),
    [
        ("failed", "PRODUCER_FAILED", "The model is away.", "failed (PRODUCER_FAILED: The model is away.)"),
        ("failed", "PRODUCER_FAILED", None, "failed (PRODUCER_FAILED)"),
        ("stalled", "STALLED", "Nothing came for 120 s.", "stalled (Nothing came for 120 s.)"),
        ("superseded", "SUPERSEDED", "A newer answer took its place.", "superseded (A newer answer took its place.)"),
        ("stopped", "STOPPED", "Stopped before it began.", "stopped (Stopped before it began.)"),
        ("stopped", "STOPPED", "Stopped.", "stopped"),
        ("lost", None, None, "lost"),
        ("lost", None, "\x1b[2J", "lost (\u241b[2J)"),
    ],
)
def test_an_end_that_is_not_complete_says_why(outcome: str, code: str | None, message: str | None, said: str) -> None:
    end = GenerationFinished(outcome=outcome, code=code, message=message)
    assert rendered(event(end, None, None, 3)) == f"-- turn 3 {said}\n"


def test_following_begins_in_the_middle_of_a_message() -> None:
    assert rendered(event(BlockDelta(text="and so on"))) == "message> and so on"


def test_what_happens_beside_the_talk_is_noted() -> None:
    approval = ApprovalRequested(approval_id="a-1", name="rm", arguments={"path": "x"})
    assert rendered(
        event(GenerationQueued(producer="p", policy="queue", position=2, text="and\n then?"), None, None, None),
        event(QueuePaused(reason="stopped"), None, None, None),
        event(QueueResumed(), None, None, None),
        event(approval, None, None),
        event(ApprovalResolved(approval_id="a-1", approved=True, by="ann"), None, None),
        event(ApprovalResolved(approval_id="a-2", approved=False, reason="expired"), None, None),
        event(InputAccepted(input_id="i", kind="steer", extra={"text": "shorter"}), None, None),
        event(InputApplied(input_id="i"), None, None),
        event(InputAccepted(input_id="j", kind="pick", extra={"text": "b", "n": 1}), None, None),
        event(InputReturned(input_id="j"), None, None),
        event(GenerationFinished(outcome="superseded"), None, None, None),
        event(MessageRetracted(), "m", None, None),
        event(SessionReset(), None, None, None),
        event(SessionForked(source_session_id="talk", source_cursor="", metadata={}), None, None, None),
    ).splitlines() == [
        "-- waiting at place 2: and then?",
        "-- the queue is paused (stopped)",
        "-- the queue goes on",
        '-- approval a-1 is asked for rm {"path": "x"}',
        "-- approval a-1 was given by ann",
        "-- approval a-2 was refused (expired)",
        "-- steer: shorter",
        '-- pick: {"text": "b", "n": 1}',
        "-- an input was not used",
        "-- a waiting generation superseded",
        "-- a message was taken back",
        "-- the session was reset",
        "-- forked from talk",
    ]


def test_a_long_note_is_one_line() -> None:
    note = rendered(event(GenerationQueued(producer="p", policy="queue", position=1, text="word " * 99), None, None))
    assert note.count("\n") == 1
    assert len(note) < 110


def test_a_tool_call_shows_its_arguments_once_and_its_result_whether_it_went_well() -> None:
    pieces: tuple[Data, ...] = (
        BlockOpened(kind="tool_call", name="add"),
        BlockDelta(arguments='{"a"'),
        BlockDelta(arguments=":1}"),
    )
    result = BlockOpened(kind="tool_result", tool_call_id="c")
    assert rendered(
        event(MessageOpened(role="assistant"), block_index=None),
        *map(event, pieces),
        event(BlockClosed(arguments={"a": 1})),
        event(BlockOpened(kind="tool_call", name="sub"), block_index=1),
        event(BlockClosed(arguments={"b": 2}), block_index=1),
        event(MessageClosed(status="complete"), block_index=None),
        event(MessageOpened(role="tool"), "t", None),
        event(result, "t"),
        event(BlockClosed(text="no result", is_error=True), "t"),
    ).splitlines() == [
        'assistant calls add> {"a":1}',
        'assistant calls sub> {"b": 2}',
        "tool result> no result (an error)",
    ]


def test_what_a_message_names_is_told_on_one_line() -> None:
    picture: dict[str, Any] = {"kind": "image", "media_type": "image/png", "filename": "a.png", "file_id": "f"}
    source = BlockOpened(kind="source", url="https://example.org/", title="Where\u202e it stands")
    posted = MessageSnapshot(role="user", status="complete", blocks=(BlockSnapshot(seq=0, **picture),))
    assert rendered(
        event(posted, "u", None),
        event(MessageOpened(role="assistant"), block_index=None),
        event(BlockOpened(**picture)),
        event(BlockClosed()),
        event(source, block_index=1),
        event(BlockClosed(), block_index=1),
        event(BlockOpened(kind="file", file_id="g"), block_index=2),
        event(GenerationStatus(status="unseen", detail={"files": ["a.mp4", "b\n.svg"]}), None, None),
    ).splitlines() == [
        "user (image)> a.png (image/png)",
        "assistant (image)> a.png (image/png)",
        "assistant (source)> Where\\u202e it stands https://example.org/",
        "assistant (file)> g",
        "-- turn 1: the model is not shown a.mp4, b .svg",
    ]


def test_of_a_message_that_was_compacted_meanwhile_only_the_rest_is_shown() -> None:
    whole = MessageSnapshot(
        role="assistant",
        status="complete",
        blocks=(
            BlockSnapshot(kind="text", seq=4, text="Because it is so."),
            BlockSnapshot(kind="data", seq=2, value={"k": 1}),
        ),
    )
    begun: tuple[Data, ...] = (MessageOpened(role="assistant"), BlockOpened(kind="text"), BlockDelta(text="Because "))
    ended = event(MessageClosed(status="complete"), block_index=None)
    cut_off = rendered(*map(event, begun), event(whole, block_index=None), ended)
    assert cut_off == 'assistant> Because it is so.\nassistant (data)> {"k": 1}\n'
    from_the_start = rendered(event(begun[0], block_index=None), event(whole, block_index=None), ended)
    assert from_the_start == cut_off


@given(st.text())
def test_no_control_character_reaches_the_terminal(text: str) -> None:
    assert not any(
        ord(character) < 32 or 127 <= ord(character) < 160 for character in clean(text) if character not in "\n\t"
    )


def test_an_escape_sequence_is_shown_and_not_obeyed() -> None:
    assert "\x1b" not in rendered(event(BlockDelta(text="\x1b]0;mine now\x07")))


UNSEEN = (
    "\u202e\u202a\u2066\u200e\u061c\u200b\u2060\u2063\ufeff\u00ad\u180e\u2028\u3164\u115f\u2800\U000e0041\U000e0101"
)


def test_what_is_not_seen_or_turns_the_direction_is_shown_as_its_number() -> None:
    needed = "\u200c\u200d\ufe0f"
    for character in UNSEEN:
        assert character not in clean(f"a{character}b")
        assert f"{ord(character):x}" in clean(f"a{character}b")
    said = "\u0645\u06cc\u200c\u062e\u0648\u0627 👩\u200d💻 ❤\ufe0f \u05e9\u05dc\n\t"
    assert clean(said) == said
    shown = rendered(
        event(MessageOpened(role="assistant"), block_index=None),
        event(BlockOpened(kind="tool_call", tool_call_id="c", name=f"rm\nuser> yes{UNSEEN}{needed}")),
        event(BlockDelta(arguments='{"path":\n "' + UNSEEN + needed + '"}')),
        event(BlockClosed(arguments={"path": UNSEEN})),
        event(BlockOpened(kind="tool_call", tool_call_id="d", name="x"), block_index=1),
        event(BlockClosed(arguments={"path": UNSEEN + needed}), block_index=1),
        event(ApprovalRequested(approval_id="a", name=UNSEEN, arguments={"x": UNSEEN + needed}), None, None),
    )
    assert not set(shown) & set(UNSEEN + needed)
    assert "\nuser>" not in shown
