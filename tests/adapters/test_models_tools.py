"""The tool loop: what is called is asked for, run and told, and the model is asked again with what came of it."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
import trio

from penstock.adapters.models import Tool, ToolError
from penstock.engine import JSON, ApprovalRequested, JSONObject, MessageView
from tests.adapters.providers import WIRES, Answer, Call, Provider, Wire, claude, provider, responses, whole
from tests.adapters.talking import PATIENCE, Talk, model_of, talking

every_wire = pytest.mark.parametrize("wire", WIRES, ids=[wire.kind for wire in WIRES])

SCHEMA: JSONObject = {"type": "object", "properties": {"word": {"type": "string"}}, "required": ["word"]}


class Book:
    """A tool that keeps what it was asked."""

    def __init__(self, answer: JSON | Exception = "a gate") -> None:
        self.asked: list[JSONObject] = []
        self.answer = answer

    async def look_up(self, arguments: JSONObject) -> JSON:
        self.asked.append(arguments)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def tool(self, *, approval: bool | Callable[[JSONObject], bool] = False) -> Tool:
        return Tool(
            name="look_up", description="Look a word up.", parameters=SCHEMA, run=self.look_up, approval=approval
        )


def asks(wire: Wire, *words: str, name: str = "look_up", number: int = 1) -> Answer:
    """The model says nothing and calls the tool for each word."""
    calls = [Call(f"call_{number}{i}", name, ('{"word": ', json.dumps(word), "}")) for i, word in enumerate(words)]
    return whole(wire, calls=calls, thoughts=["hm"])


def told(server: Provider, number: int) -> str:
    """What the model was shown in the request with this number."""
    return json.dumps(server.seen[number - 1].body, ensure_ascii=False)


async def results(talk: Talk) -> list[tuple[JSON, bool | None]]:
    shown = [each for message in await talk.messages() if message.role == "tool" for each in message.blocks]
    return [(each.value if each.text is None else each.text, each.is_error) for each in shown]


@every_wire
async def test_a_tool_is_offered_run_and_its_result_told(wire: Wire) -> None:
    book = Book({"meaning": "a gate 水"})
    async with (
        provider(asks(wire, "sluice"), whole(wire, "It is a gate.")) as server,
        talking(model_of(wire, server), tools=[book.tool()]) as talk,
    ):
        end = await talk.say("What is a sluice?")
        assert end.outcome == "completed"
        assert book.asked == [{"word": "sluice"}]
        assert [message.role for message in await talk.messages()] == ["user", "assistant", "tool", "assistant"]
        assert "Look a word up." in told(server, 1)
        shown = told(server, 2)
        assert "a gate 水" in shown.replace("\\", "")
        assert "call_10" in shown
        assert end.usage is not None
        assert (end.usage["input_tokens"], end.usage["output_tokens"]) == (20, 10)  # of both answers


@every_wire
async def test_several_calls_run_in_order_and_each_has_its_result(wire: Wire) -> None:
    book = Book()
    async with (
        provider(asks(wire, "sluice", "weir"), whole(wire, "Gates.")) as server,
        talking(model_of(wire, server), tools=[book.tool()]) as talk,
    ):
        assert (await talk.say("x")).outcome == "completed"
        assert book.asked == [{"word": "sluice"}, {"word": "weir"}]
        assert await results(talk) == [("a gate", None)] * 2


async def resolve(
    talk: Talk, *, approved: bool, reason: str | None = None, arguments: JSON = None
) -> ApprovalRequested:
    event = await talk.wait_event("approval.requested")
    assert isinstance(event.data, ApprovalRequested)
    assert event.generation_id is not None
    content: dict[str, JSON] = {"approval_id": event.data.approval_id, "approved": approved}
    content |= {} if reason is None else {"reason": reason}
    content |= {} if arguments is None else {"arguments": arguments}
    await talk.session.input(event.generation_id, "approval", content)
    return event.data


@every_wire
async def test_nothing_runs_before_a_person_said_yes(wire: Wire) -> None:
    book = Book()
    async with (
        provider(asks(wire, "sluice"), whole(wire, "A gate.")) as server,
        talking(model_of(wire, server), tools=[book.tool(approval=True)]) as talk,
    ):
        await talk.session.start("model", text="x")
        await talk.wait_event("approval.requested")
        await trio.testing.wait_all_tasks_blocked()
        assert book.asked == []
        asked = await resolve(talk, approved=True)
        assert (asked.name, asked.tool_call_id, asked.arguments) == ("look_up", "call_10", {"word": "sluice"})
        assert (await talk.end()).outcome == "completed"
        assert book.asked == [{"word": "sluice"}]


async def test_a_no_is_told_to_the_model_and_nothing_runs() -> None:
    book = Book()
    async with (
        provider(asks(claude, "sluice"), whole(claude, "As you like.")) as server,
        talking(model_of(claude, server), tools=[book.tool(approval=True)]) as talk,
    ):
        await talk.session.start("model", text="x")
        await resolve(talk, approved=False, reason="not now")
        assert (await talk.end()).outcome == "completed"
        assert book.asked == []
        ((text, is_error),) = await results(talk)
        assert is_error
        assert "refused" in str(text)
        assert "not now" in told(server, 2)


async def test_a_yes_with_other_arguments_runs_these_and_the_model_learns_of_it() -> None:
    book = Book()
    async with (
        provider(asks(claude, "sluice"), whole(claude, "A gate.")) as server,
        talking(model_of(claude, server), tools=[book.tool(approval=lambda arguments: bool(arguments))]) as talk,
    ):
        await talk.session.start("model", text="x")
        await resolve(talk, approved=True, arguments={"word": "weir"})
        assert (await talk.end()).outcome == "completed"
        assert book.asked == [{"word": "weir"}]
        ((value, _),) = await results(talk)
        assert value == {"note": 'Run with arguments that the user changed to {"word":"weir"}.', "result": "a gate"}


@pytest.mark.parametrize(
    ("failure", "text"),
    [
        (ToolError("There is no such word."), "There is no such word."),
        (ZeroDivisionError("secret inside"), "The tool failed."),
    ],
)
async def test_a_tool_that_fails_is_a_result_and_not_the_end(
    failure: Exception, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        provider(asks(claude, "sluice"), whole(claude, "Sorry.")) as server,
        talking(model_of(claude, server), tools=[Book(failure).tool()]) as talk,
    ):
        assert (await talk.say("x")).outcome == "completed"
        assert await results(talk) == [(text, True)]
        assert ("secret" in caplog.text) is (text == "The tool failed.")


@every_wire
async def test_calls_of_no_tool_and_arguments_of_no_shape_are_told_to_the_model(wire: Wire) -> None:
    book = Book()
    cut = Call("call_1", "look_up", ('{"wo',))
    async with (
        provider(asks(wire, "x", name="unheard_of", number=2), whole(wire, calls=[cut]), whole(wire, "Oh.")) as server,
        talking(model_of(wire, server), tools=[book.tool()]) as talk,
    ):
        assert (await talk.say("x")).outcome == "completed"
        assert book.asked == []
        assert [is_error for _, is_error in await results(talk)] == [True, True]
        assert "INVALID_JSON" in told(server, 3)


async def test_a_model_that_calls_in_a_circle_comes_to_an_end() -> None:
    circle = [asks(claude, "sluice", number=number) for number in range(1, 9)]
    async with (
        provider(*circle) as server,
        talking(model_of(claude, server), tools=[Book().tool()], rounds=3) as talk,
    ):
        end = await talk.say("x")
        assert (end.outcome, end.code) == ("failed", "MODEL_TOO_MANY_ROUNDS")
        assert len(server.seen) == 3


#
async def test_a_stop_during_a_tool_leaves_no_call_without_a_result() -> None:
    async def wait(_: JSONObject) -> JSON:
        running.set()
        await trio.sleep_forever()

    running = trio.Event()
    tool = Tool(name="look_up", description="", run=wait, approval=False)
    async with (
        provider(asks(claude, "sluice"), whole(claude, "Next.")) as server,
        talking(model_of(claude, server), tools=[tool]) as talk,
    ):
        await talk.session.start("model", text="x")
        with trio.fail_after(PATIENCE):
            await running.wait()
        await talk.session.stop()
        assert (await talk.say("y")).outcome == "completed"
        assert "No result: the answer ended as stopped." in told(server, 2)


async def test_steering_is_heard_before_the_model_is_asked_again() -> None:
    async def slowly(_: JSONObject) -> JSON:
        generation_id = (await talk.wait_event("generation.started")).generation_id
        assert generation_id is not None
        await talk.session.input(generation_id, "steer", {"text": "In French, please."})
        await talk.session.input(generation_id, "weather", {"text": "rain"})
        return None

    tool = Tool(name="look_up", description="", run=slowly, approval=False)
    async with (
        provider(asks(claude, "sluice"), whole(claude, "Une vanne.")) as server,
        talking(model_of(claude, server), tools=[tool]) as talk,
    ):
        assert (await talk.say("x")).outcome == "completed"
        assert "In French, please." in told(server, 2)
        assert "rain" not in told(server, 2)
        types = [event.type for event in await talk.events()]
        assert (types.count("input.applied"), types.count("input.returned")) == (1, 1)


@pytest.mark.parametrize("wire", [claude, responses], ids=["anthropic", "openai-responses"])
async def test_signed_reasoning_goes_back_with_the_result_and_not_later(wire: Wire) -> None:
    sign = {"anthropic": "signed", "openai-responses": "sealed"}[wire.kind]
    async with (
        provider(asks(wire, "sluice"), whole(wire, "A gate."), whole(wire, "Bye.")) as server,
        talking(model_of(wire, server), tools=[Book().tool()]) as talk,
    ):
        await talk.say("x")
        await talk.say("y")
        assert sign in told(server, 2)
        assert sign not in told(server, 3)


async def test_a_transcript_with_calls_is_shown_to_a_model_without_tools() -> None:
    async with (
        provider(asks(claude, "sluice"), whole(claude, "A gate.")) as server,
        talking(model_of(claude, server)) as talk,
    ):
        await talk.say("x")
        body = server.seen[1].body
        assert body["tool_choice"] == {"type": "none"}
        assert [tool["name"] for tool in body["tools"]] == ["look_up"]  # type: ignore[attr-defined]


async def test_every_result_is_stored_before_the_model_hears_of_it() -> None:
    async def look_up(_: JSONObject) -> JSON:
        return "a gate"

    def stored(messages: list[MessageView]) -> list[str]:
        return [message.role for message in messages]

    tool = Tool(name="look_up", description="", run=look_up, approval=False)
    slow = Answer(pieces=[0.1, *claude.say("A gate.")])
    async with (
        provider(asks(claude, "sluice"), slow) as server,
        talking(model_of(claude, server), tools=[tool]) as talk,
    ):
        await talk.session.start("model", text="x")
        with trio.fail_after(PATIENCE):
            await server.wait_request(2)
        assert stored(await talk.messages())[:3] == ["user", "assistant", "tool"]
        await talk.end()


def test_tools_with_bad_names_and_two_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError):
        Tool(name="look up", description="", run=Book().look_up)
    from penstock.adapters.models.tools import toolbox

    with pytest.raises(ValueError):
        toolbox([Book().tool(), Book().tool()])
    assert Book().tool(approval=True).needs_approval({})
    assert Tool(name="x", description="", run=Book().look_up).needs_approval({})  # no is the default
