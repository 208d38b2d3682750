"""A conversation that has grown longer than its model can read goes on, and everybody sees what was left out."""

from __future__ import annotations

import json

import pytest

from tests.adapters.providers import WIRES, Answer, Provider, Wire, chat, error, provider, whole
from tests.adapters.talking import Talk, model_of, talking

every_wire = pytest.mark.parametrize("wire", WIRES, ids=[wire.kind for wire in WIRES])

TOO_LONG = error(400, "prompt is too long: 210 tokens > 200 maximum")


async def converse(talk: Talk, server: Provider, wire: Wire, exchanges: int) -> None:
    for number in range(exchanges):
        server.then(whole(wire, f"Answer {number}."))
        assert (await talk.say(f"Question {number}.")).outcome == "completed"


def shown(server: Provider) -> str:
    """What the model was asked last."""
    return json.dumps(server.seen[-1].body)


@every_wire
async def test_what_is_too_long_is_asked_again_without_its_oldest_turns(wire: Wire) -> None:
    async with provider() as server, talking(model_of(wire, server), system="Be brief.") as talk:
        await converse(talk, server, wire, 6)
        server.then(TOO_LONG, whole(wire, "Answer 6."))
        assert (await talk.say("Question 6.")).outcome == "completed"
        assert "Be brief." in shown(server)
        assert "Question 6." in shown(server)
        assert "Question 5." in shown(server)
        assert "Question 0." not in shown(server)
        last = await talk.last()
        assert last.metadata is not None
        left_out = last.metadata["left_out"]
        assert last.metadata == {"model": "small", "left_out": left_out}
        assert 0 < sum(f"Question {number}." not in shown(server) for number in range(6)) == left_out
        assert (await talk.statuses())[-4:] == [
            ("thinking", None),
            ("retrying", {"code": "MODEL_CONTEXT_TOO_LONG", "attempt": 1, "seconds": 0.0}),
            ("thinking", None),
            ("shortened", {"left_out": left_out}),
        ]
        assert len(await talk.messages()) == 14, "nothing is taken out of the session"


@every_wire
async def test_it_is_shortened_until_it_is_taken_or_only_the_question_is_left(wire: Wire) -> None:
    async with provider() as server, talking(model_of(wire, server)) as talk:
        await converse(talk, server, wire, 6)
        server.then(*[TOO_LONG] * 9)
        end = await talk.say("Question 6.")
        assert (end.outcome, end.code) == ("failed", "MODEL_CONTEXT_TOO_LONG")
        asked = len(server.seen) - 6
        assert 2 <= asked <= 5
        assert "Question 5." not in shown(server)
        server.script.clear()
        server.then(whole(wire, "Here."))
        assert (await talk.say("Question 7.")).outcome == "completed", "the conversation does not die of it"


async def test_a_question_that_is_too_long_by_itself_is_asked_once() -> None:
    async with provider(*[TOO_LONG] * 3) as server, talking(model_of(chat, server)) as talk:
        assert (await talk.say("x")).code == "MODEL_CONTEXT_TOO_LONG"
        assert len(server.seen) == 1


@every_wire
async def test_what_a_provider_says_in_its_stream_counts_too(wire: Wire) -> None:
    code = "request_too_large" if wire.kind == "anthropic" else "context_length_exceeded"
    async with provider() as server, talking(model_of(wire, server)) as talk:
        await converse(talk, server, wire, 4)
        server.then(Answer(pieces=[*wire.say("x")[:1], wire.broken(code)]), whole(wire, "Answer 4."))
        assert (await talk.say("Question 4.")).outcome == "completed"
        assert "Question 0." not in shown(server)


@every_wire
async def test_where_the_context_is_known_nothing_too_long_is_asked(wire: Wire) -> None:
    async with provider() as server, talking(model_of(wire, server), context_tokens=100) as talk:
        await converse(talk, server, wire, 9)
        assert len(server.seen) == 9
        assert "Question 8." in shown(server)
        assert "Question 0." not in shown(server)
        last = await talk.last()
        assert last.metadata is not None
        assert (await talk.statuses())[-1] == ("shortened", {"left_out": last.metadata["left_out"]})
        first = (await talk.messages())[1]
        assert first.metadata == {"model": "small"}
