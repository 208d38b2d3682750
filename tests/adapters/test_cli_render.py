from __future__ import annotations

import click
from hypothesis import given
from hypothesis import strategies as st

from adapters.cli.render import Transcript, clean
from engine import (
    BlockClosed,
    BlockDelta,
    BlockOpened,
    BlockSnapshot,
    Data,
    Event,
    GenerationFinished,
    MessageOpened,
    MessageSnapshot,
)


def event(data: Data, message_id: str | None = "m", block_index: int | None = 0, turn: int | None = 1) -> Event:
    return Event(
        data=data, session_id="s", time="", offset=1, message_id=message_id, block_index=block_index, turn=turn
    )


def rendered(*events: Event) -> str:
    transcript = Transcript()
    return click.unstyle("".join(transcript.render(each) for each in events))


def test_a_turn_reads_as_a_dialogue() -> None:
    question = MessageSnapshot(role="user", status="complete", blocks=(BlockSnapshot(kind="text", seq=0, text="Why?"),))
    assert rendered(
        event(question, "q", None),
        event(MessageOpened(role="assistant"), block_index=None),
        event(BlockOpened(kind="text")),
        event(BlockDelta(text="Be")),
        event(BlockDelta(text="cause.")),
        event(BlockClosed()),
        event(GenerationFinished(outcome="completed"), None, None),
    ) == ("user> Why?\nassistant> Because.\n-- turn 1 completed\n")


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


def test_an_end_that_is_not_complete_says_why() -> None:
    end = GenerationFinished(outcome="failed", code="PRODUCER_FAILED", message="The model is away.")
    assert rendered(event(end, None, None, 3)) == "-- turn 3 failed (PRODUCER_FAILED: The model is away.)\n"


def test_following_begins_in_the_middle_of_a_message() -> None:
    assert rendered(event(BlockDelta(text="and so on"))) == "message> and so on"


@given(st.text())
def test_no_control_character_reaches_the_terminal(text: str) -> None:
    assert not any(
        ord(character) < 32 or 127 <= ord(character) < 160 for character in clean(text) if character not in "\n\t"
    )


def test_an_escape_sequence_is_shown_and_not_obeyed() -> None:
    assert "\x1b" not in rendered(event(BlockDelta(text="\x1b]0;mine now\x07")))
