"""What is left out of a conversation that its model cannot read whole: turns, the oldest first, never the newest."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from penstock.adapters.models import chat, claude
from penstock.adapters.models.model import Offer, Request
from penstock.adapters.models.shortening import fitted, halved
from penstock.adapters.models.transcript import (
    AnswerTurn,
    Call,
    Result,
    ResultsTurn,
    Said,
    SystemTurn,
    Turn,
    UserTurn,
    transcript,
)
from penstock.engine import MessageView
from tests.adapters.test_models_transcript import check_chat, check_claude, messages

NOTE = "[Older messages of this conversation are left out.]"


def talk(exchanges: int, size: int = 300) -> list[Turn]:
    """So many questions, each answered, and a last one."""
    turns: list[Turn] = []
    for number in range(exchanges):
        turns += [UserTurn(f"Question {number}. {'x' * size}"), AnswerTurn((Said(f"Answer {number}."),))]
    return [*turns, UserTurn("The last one.")]


def test_what_fits_is_asked_as_it_is() -> None:
    whole = Request(turns=talk(3), system="Be brief.")
    assert fitted(whole, 4096) is whole
    alone = Request(turns=[UserTurn("x" * 100_000)])
    assert fitted(alone, 1) is alone, "what the user has just said is never left out"
    assert halved(alone) is alone


def test_the_oldest_turns_are_left_out_and_the_first_that_is_not_says_so() -> None:
    whole = Request(turns=[SystemTurn("S"), *talk(9)], system="Be brief.")
    shorter = fitted(whole, 600)  # 1350 bytes: three exchanges of 300 and a little each
    assert shorter.turns == (SystemTurn("S"), UserTurn(f"{NOTE}\n\n{talk(9)[12].text}"), *talk(9)[13:])  # type: ignore[union-attr]
    assert shorter.left_out == 6
    assert shorter.system == "Be brief."


def test_calls_go_with_their_results() -> None:
    call, result = AnswerTurn((Call("a", "look_up", {"n": 1}),)), ResultsTurn((Result("a", "x" * 900),))
    answer = AnswerTurn((Said("So it is."),))
    old = Request(turns=[UserTurn("first"), call, result, answer, UserTurn("second")])
    assert halved(old).turns == (UserTurn(f"{NOTE}\n\nsecond"),)
    new = Request(turns=[UserTurn("x" * 900), answer, UserTurn("second"), call, result])
    assert halved(new).turns == (UserTurn(f"{NOTE}\n\nsecond"), call, result)


def test_tools_and_the_system_prompt_take_their_room() -> None:
    turns = talk(9)
    plain = fitted(Request(turns=turns), 1000)
    long_system = fitted(Request(turns=turns, system="x" * 1000), 1000)
    tool = Offer(name="t", description="x" * 1000, parameters={"type": "object"})
    long_tools = fitted(Request(turns=turns, tools=[tool]), 1000)
    assert plain.left_out < long_system.left_out
    assert plain.left_out < long_tools.left_out
    assert plain.left_out < fitted(Request(turns=[SystemTurn("x" * 1000), *turns]), 1000).left_out


def test_halving_comes_to_the_last_turn_and_no_further() -> None:
    request = Request(turns=talk(50))
    sizes: list[int] = []
    while (shorter := halved(request)) is not request:
        assert shorter.left_out > request.left_out
        assert str(shorter.turns).count(NOTE) == 1
        request = shorter
        sizes.append(len(request.turns))
    assert request.left_out == 50
    assert request.turns == (UserTurn(f"{NOTE}\n\nThe last one."),)
    assert len(sizes) < 8


def asked(turns: Sequence[Turn]) -> int:
    return sum(isinstance(turn, UserTurn) for turn in turns)


@given(st.lists(messages, max_size=12), st.integers(1, 100))
def test_whatever_is_left_out_providers_take_the_rest(session: list[MessageView], tokens: int) -> None:
    turns = transcript(session, "g")
    whole = Request(turns=turns, system="Be brief.")
    for shorter in (fitted(whole, tokens), halved(whole), halved(halved(whole))):
        assert asked(turns) - asked(shorter.turns) == shorter.left_out
        assert [turn for turn in shorter.turns if isinstance(turn, SystemTurn)] == [
            turn for turn in turns if isinstance(turn, SystemTurn)
        ]
        spoken = [turn for turn in turns if not isinstance(turn, SystemTurn)]
        kept = [turn for turn in shorter.turns if not isinstance(turn, SystemTurn)]
        assert kept[1:] == spoken[len(spoken) - len(kept) + 1 :]
        if kept:
            assert isinstance(kept[0], UserTurn)
            check_chat(chat.messages(shorter.turns, None))
            check_claude(claude.messages(shorter.turns))
