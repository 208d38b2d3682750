"""What a model's answer becomes in a session, for every wire format, over real sockets."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import pytest
import trio

from penstock.engine import JSON, BlockView, Config, MessageOpened
from tests.adapters.providers import WIRES, Answer, Call, Wire, chat, claude, error, provider, responses, sse, whole
from tests.adapters.talking import PATIENCE, model_of, talking

every_wire = pytest.mark.parametrize("wire", WIRES, ids=[wire.kind for wire in WIRES])


def texts(blocks: tuple[BlockView, ...]) -> list[tuple[str, str | None]]:
    return [(block.kind, block.text) for block in blocks]


@asynccontextmanager
async def answering(*deltas: dict[str, object]) -> AsyncIterator[list[BlockView]]:
    """The calls of an answer that consists of these, in the dialect of chat completions."""
    chunks: list[object] = [{"choices": [{"index": 0, "delta": {"tool_calls": [delta]}}]} for delta in deltas]
    chunks += [{"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}, "[DONE]"]
    answer = Answer(pieces=[sse(chunk) for chunk in chunks])
    async with provider(answer, whole(chat, "Done.")) as server, talking(model_of(chat, server)) as talk:
        assert (await talk.say("x")).outcome == "completed"
        yield [block for message in await talk.messages() for block in message.blocks if block.kind == "tool_call"]


#
@every_wire
async def test_text_and_reasoning_become_blocks_of_one_message(wire: Wire) -> None:
    answer = whole(wire, "water ", "finds ", "its way 水", thoughts=["hm", ", so"])
    async with provider(answer) as server, talking(model_of(wire, server), system="Be brief.") as talk:
        end = await talk.say("Tell me.")
        assert end.outcome == "completed"
        message = await talk.last()
        spoken = [each for each in message.blocks if each.kind != "data"]
        assert [(each.kind, each.text) for each in spoken] == [
            ("reasoning", "hm, so"),
            ("text", "water finds its way 水"),
        ]
        assert (message.status, message.finish_reason) == ("complete", "stop")
        assert message.usage is not None
        assert (message.usage["input_tokens"], message.usage["output_tokens"]) == (10, 5)
        assert (message.usage["cached_tokens"], message.usage["reasoning_tokens"]) == (4, 2)
        assert end.usage == message.usage
        deltas = [event for event in await talk.events() if event.type == "block.delta"]
        assert len(deltas) >= 5  # every piece is an event of its own
        (seen,) = server.seen
        assert seen.path == wire.path
        assert seen.body["model"] == "small"
        assert seen.body["stream"] is True
        assert "Be brief." in json.dumps(seen.body)
        assert seen.headers["authorization"] == "Bearer key"


# R-4 R-157
@every_wire
async def test_what_a_model_makes_bears_its_name(wire: Wire) -> None:
    call = Call("call_1", "look_up", ("{}",))
    async with (
        provider(whole(wire, "Let me see.", calls=[call]), whole(wire, "Done.")) as server,
        talking(model_of(wire, server)) as talk,
    ):
        await talk.say("x")
        opened = [event.data for event in await talk.events() if isinstance(event.data, MessageOpened)]
        made = [data.metadata for data in opened if data.role == "assistant"]
        assert made == [{"model": "small"}] * 2
        assert [data.metadata for data in opened if data.role == "tool"] == [None], "the tool's words, not the model's"
        shown = [each.metadata for each in await talk.messages() if each.role == "assistant"]
        assert shown == made


@every_wire
async def test_tokens_are_seen_as_they_come(wire: Wire) -> None:
    pieces = wire.say("one ", "two")
    slow: list[bytes | float] = []
    for piece in pieces:
        slow += [piece, 0.03]
    async with provider(Answer(pieces=slow)) as server, talking(model_of(wire, server)) as talk:
        await talk.session.start("model", text="x")
        await talk.wait_event("block.delta")
        assert not server.seen[0].sent.is_set()
        assert (await talk.end()).outcome == "completed"


@every_wire
async def test_a_tool_call_is_kept_with_its_streamed_arguments(wire: Wire) -> None:
    call = Call("call_1", "look_up", ('{"wo', 'rd": ', '"sluice"}'))
    async with (
        provider(whole(wire, "Let me see.", calls=[call]), whole(wire, "Done.")) as server,
        talking(model_of(wire, server)) as talk,
    ):
        await talk.say("x")
        first = next(message for message in await talk.messages() if message.role == "assistant")
        block = next(block for block in first.blocks if block.kind == "tool_call")
        assert (block.tool_call_id, block.name) == ("call_1", "look_up")
        assert block.arguments == {"word": "sluice"}
        assert first.finish_reason == "tool_calls"
        pieces = [
            getattr(event.data, "arguments", None) for event in await talk.events() if event.type == "block.delta"
        ]
        assert [piece for piece in pieces if piece is not None] == list(call.pieces)


@every_wire
async def test_calls_without_ids_or_with_the_same_one_are_told_apart(wire: Wire) -> None:
    call = Call("" if wire is not responses else "call_1", "nothing", ("{}",))
    async with (
        provider(whole(wire, calls=[call]), whole(wire, calls=[call]), whole(wire, "Done.")) as server,
        talking(model_of(wire, server)) as talk,
    ):
        assert (await talk.say("x")).outcome == "completed"
        ids = [block.tool_call_id for m in await talk.messages() for block in m.blocks if block.kind == "tool_call"]
        assert len(set(ids)) == 2


@pytest.mark.parametrize("names", [("add", "multiply"), ("add", "add")], ids=["two tools", "one tool"])
@pytest.mark.parametrize("ids", [("a", "b"), ("", "")], ids=["told apart by id", "without ids"])
@pytest.mark.parametrize("numbered", ["all 0", "not at all"])
async def test_calls_that_a_server_numbers_alike_are_told_apart(
    numbered: str, ids: tuple[str, str], names: tuple[str, str]
) -> None:
    """Servers that speak like OpenAI give several calls of one answer the same number, or none, and some no id."""
    number = {"index": 0} if numbered == "all 0" else {}
    wanted: list[tuple[str, str]] = list(zip(names, ('{"n": {}}', '{"n": 2}'), strict=True))
    deltas: list[dict[str, object]] = []
    for call_id, (name, arguments) in zip(ids, wanted, strict=True):
        deltas.append({**number, "id": call_id, "function": {"name": name, "arguments": arguments[:7]}})
        deltas.append({**number, "function": {"arguments": arguments[7:]}})
    async with answering(*deltas) as calls:
        assert [(call.name, call.arguments) for call in calls] == [(name, json.loads(text)) for name, text in wanted]
        assert len({call.tool_call_id for call in calls}) == 2


async def test_a_call_whose_name_comes_with_each_of_its_pieces_is_one() -> None:
    pieces = ("", '{"n": {}', "}")
    async with answering(*({"index": 0, "function": {"name": "add", "arguments": piece}} for piece in pieces)) as calls:
        assert [(call.name, call.arguments) for call in calls] == [("add", {"n": {}})]


@every_wire
async def test_an_answer_at_its_length_limit_is_complete_and_says_so(wire: Wire) -> None:
    answer = Answer(pieces=wire.say("so f", finish="length"))
    async with provider(answer) as server, talking(model_of(wire, server)) as talk:
        assert (await talk.say("x")).outcome == "completed"
        assert (await talk.last()).finish_reason == "length"


@every_wire
async def test_a_refusal_is_told_and_what_was_said_is_kept(wire: Wire) -> None:
    answer = Answer(pieces=wire.say(refusal="I would rather not."))
    async with provider(answer) as server, talking(model_of(wire, server)) as talk:
        end = await talk.say("x")
        assert (end.outcome, end.code) == ("failed", "MODEL_REFUSED")
        message = await talk.last()
        assert (message.status, message.finish_reason) == ("complete", "refusal")
        assert texts(message.blocks) == [("text", "I would rather not.")]


@pytest.mark.parametrize("wire", [chat, responses], ids=["openai", "openai-responses"])
async def test_a_content_filter_ends_an_answer_as_refused(wire: Wire) -> None:
    answer = Answer(pieces=wire.say("The first", finish="content_filter"))
    async with provider(answer) as server, talking(model_of(wire, server)) as talk:
        end = await talk.say("x")
        assert (end.outcome, end.code) == ("failed", "MODEL_REFUSED")
        assert (await talk.last()).finish_reason == "content_filter"


ERRORS: list[tuple[int, dict[str, object], str]] = [
    (400, {"type": "invalid_request_error"}, "MODEL_REJECTED"),
    (400, {"type": "invalid_request_error", "code": "context_length_exceeded"}, "MODEL_CONTEXT_TOO_LONG"),
    (401, {"type": "authentication_error", "code": "invalid_api_key"}, "MODEL_AUTH"),
    (402, {"type": "billing_error"}, "MODEL_QUOTA"),
    (403, {"type": "permission_error"}, "MODEL_AUTH"),
    (404, {"type": "not_found_error"}, "MODEL_NOT_FOUND"),
    (413, {"type": "request_too_large"}, "MODEL_CONTEXT_TOO_LONG"),
    (422, {}, "MODEL_REJECTED"),
]


# Anthropic has no word for a prompt that is too long, only a text.
SAID = [
    (wire, *said)
    for wire in (chat, responses, claude)
    for said in ERRORS
    if wire is not claude or said is not ERRORS[1]
]


@pytest.mark.parametrize(
    ("wire", "status", "told", "code"), SAID, ids=[f"{wire.kind}-{code}-{status}" for wire, status, _, code in SAID]
)
async def test_what_asking_again_cannot_mend_is_told_at_once(
    wire: Wire, status: int, told: dict[str, object], code: str
) -> None:
    refused = error(status, "secret inside: key", **told)
    async with provider(refused) as server, talking(model_of(wire, server)) as talk:
        end = await talk.say("x")
        assert (end.outcome, end.code, end.retryable) == ("failed", code, False)
        assert end.message is not None
        assert "secret" not in end.message
        assert len(server.seen) == 1
        assert [message.role for message in await talk.messages()] == ["user"]


@every_wire
@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 529])
async def test_before_the_first_token_a_passing_error_is_tried_again(wire: Wire, status: int) -> None:
    async with (
        provider(error(status), whole(wire, "Here.")) as server,
        talking(model_of(wire, server)) as talk,
    ):
        assert (await talk.say("x")).outcome == "completed"
        assert len(server.seen) == 2
        assert texts((await talk.last()).blocks) == [("text", "Here.")]
        assert len(await talk.messages()) == 2  # the attempt that failed left no message
        statuses = [getattr(e.data, "status", "") for e in await talk.events() if e.type == "generation.status"]
        assert statuses == ["thinking", "retrying", "thinking"]


@every_wire
async def test_attempts_have_an_end(wire: Wire) -> None:
    async with provider(*[error(503)] * 9) as server, talking(model_of(wire, server)) as talk:
        end = await talk.say("x")
        assert (end.outcome, end.code, end.retryable) == ("failed", "MODEL_UNAVAILABLE", True)
        assert len(server.seen) == 4


@every_wire
async def test_retry_after_is_obeyed_and_one_that_is_too_long_ends_it(wire: Wire) -> None:
    soon = error(429, headers={"retry-after-ms": "150"})
    late = error(429, headers={"retry-after": "3600"})
    async with provider(soon, late, whole(wire, "x")) as server, talking(model_of(wire, server)) as talk:
        begun = trio.current_time()
        end = await talk.say("x")
        assert 0.15 <= trio.current_time() - begun < PATIENCE
        assert (end.outcome, end.code) == ("failed", "MODEL_RATE_LIMITED")
        assert len(server.seen) == 2


async def test_what_would_have_to_wait_past_the_idle_limit_is_told_at_once() -> None:
    busy = error(429, headers={"retry-after": "30"})
    async with provider(busy) as server, talking(model_of(chat, server), config=Config(idle_limit=20)) as talk:
        begun = trio.current_time()
        assert (await talk.say("x")).code == "MODEL_RATE_LIMITED"
        assert trio.current_time() - begun < PATIENCE
        assert len(server.seen) == 1


@every_wire
async def test_credit_that_is_used_up_is_not_asked_for_again(wire: Wire) -> None:
    used_up = error(429, type="billing_error" if wire is claude else "insufficient_quota")
    async with provider(used_up) as server, talking(model_of(wire, server)) as talk:
        assert (await talk.say("x")).code == "MODEL_QUOTA"
        assert len(server.seen) == 1


@every_wire
async def test_a_server_that_is_not_there_is_unavailable(wire: Wire) -> None:
    async with provider() as server:
        gone = model_of(wire, server)
    async with talking(gone) as talk:
        end = await talk.say("x")
        assert (end.outcome, end.code) == ("failed", "MODEL_UNAVAILABLE")


@every_wire
@pytest.mark.parametrize("status", [400, 404])
async def test_in_open_mode_the_provider_says_itself_why_it_refuses_a_request(wire: Wire, status: int) -> None:
    async with (
        provider(error(status, "Unknown parameter: 'temprature'.")) as server,
        talking(model_of(wire, server), show_errors=True) as talk,
    ):
        end = await talk.say("x")
        assert end.message is not None
        assert end.message.endswith("It says: Unknown parameter: 'temprature'.")


def cut_in_the_middle(wire: Wire) -> list[bytes]:
    """Up to and with the first word."""
    pieces = wire.say("The first word")
    until = next(i for i, piece in enumerate(pieces) if b"first word" in piece)
    return pieces[: until + 1]


@every_wire
@pytest.mark.parametrize("end", ["clean", "cut"])
async def test_after_the_first_token_a_broken_answer_is_kept_and_never_asked_for_again(wire: Wire, end: str) -> None:
    broken = Answer(pieces=cut_in_the_middle(wire), end="cut" if end == "cut" else "clean")
    async with provider(broken, whole(wire, "again")) as server, talking(model_of(wire, server)) as talk:
        told = await talk.say("x")
        assert (told.outcome, told.code) == ("failed", "MODEL_INTERRUPTED")
        message = await talk.last()
        assert message.status == "failed"
        assert texts(message.blocks) == [("text", "The first word")]
        assert len(server.seen) == 1


@every_wire
@pytest.mark.parametrize("end", ["clean", "cut"])
async def test_a_stream_that_ends_before_the_first_token_is_asked_for_again(wire: Wire, end: str) -> None:
    broken = Answer(pieces=wire.say("x")[:1], end="cut" if end == "cut" else "clean")
    async with provider(broken, whole(wire, "Here.")) as server, talking(model_of(wire, server)) as talk:
        assert (await talk.say("x")).outcome == "completed"
        assert len(server.seen) == 2


@every_wire
async def test_an_error_told_in_the_stream_counts_as_what_it_says(wire: Wire) -> None:
    busy = {"openai": "rate_limit_exceeded", "openai-responses": "rate_limit_exceeded"}.get(
        wire.kind, "rate_limit_error"
    )
    early = Answer(pieces=[wire.broken(busy)])
    late = Answer(pieces=[*cut_in_the_middle(wire), wire.broken(busy)])
    async with provider(early, late, whole(wire, "again")) as server, talking(model_of(wire, server)) as talk:
        told = await talk.say("x")
        assert (told.outcome, told.code) == ("failed", "MODEL_RATE_LIMITED")
        assert told.message is not None
        assert "secret" not in told.message
        assert len(server.seen) == 2


GARBAGE: list[bytes] = [
    sse("{not json"),
    sse("[]"),
    sse("null"),
    sse("7"),
    b"data: \xff\xfe\n\n",
    sse({"choices": 7, "type": "response.output_text.delta"}),
    sse({"choices": [{"index": 0, "delta": {"content": {"a": 1}}, "finish_reason": None}]}),
    sse({"choices": [7]}),
    sse({"choices": [{"delta": {"tool_calls": [{"index": "0"}]}}]}),
    sse({"choices": [{"delta": {"tool_calls": [{"index": 0, "id": "c", "function": {"arguments": "{}"}}]}}]}),
    sse("[" * 100_000),
]


@pytest.mark.parametrize("garbage", GARBAGE, ids=range(len(GARBAGE)))
async def test_garbage_fails_the_answer_and_nothing_else_chat(garbage: bytes) -> None:
    async with provider(Answer(pieces=[garbage])) as server, talking(model_of(chat, server)) as talk:
        assert (await talk.say("x")).code == "MODEL_GARBLED"
        assert len(server.seen) == 1


@pytest.mark.parametrize(
    "garbage",
    [
        sse("{not json", "response.output_text.delta"),
        sse({"type": "response.output_text.delta", "delta": 7}, "response.output_text.delta"),
        sse({"type": "response.output_item.added", "item": 7}, "response.output_item.added"),
        sse({"type": "response.function_call_arguments.delta", "output_index": 3, "delta": "{"}),
        sse("[]", "response.created"),
        b"event: x\ndata: \xff\xfe\n\n",
    ],
)
async def test_garbage_fails_the_answer_and_nothing_else_responses(garbage: bytes) -> None:
    async with provider(Answer(pieces=[garbage])) as server, talking(model_of(responses, server)) as talk:
        assert (await talk.say("x")).code == "MODEL_GARBLED"


@pytest.mark.parametrize(
    "garbage",
    [
        sse("{not json", "message_start"),
        sse({"type": "message_start", "message": []}, "message_start"),
        sse({"type": "content_block_delta", "index": -1, "delta": {}}, "content_block_delta"),
        sse({"type": "content_block_delta", "delta": {"type": "text_delta", "text": []}}, "content_block_delta"),
        sse(
            {"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta", "partial_json": "{"}},
            "content_block_delta",
        ),
        b"event: x\ndata: \xff\xfe\n\n",
    ],
)
async def test_garbage_fails_the_answer_and_nothing_else_claude(garbage: bytes) -> None:
    async with provider(Answer(pieces=[garbage])) as server, talking(model_of(claude, server)) as talk:
        assert (await talk.say("x")).code == "MODEL_GARBLED"


@every_wire
async def test_html_instead_of_a_stream_is_no_answer(wire: Wire) -> None:
    page = Answer(pieces=[b"<html>hello</html>"], headers={"content-type": "text/html"})
    async with provider(page) as server, talking(model_of(wire, server)) as talk:
        end = await talk.say("x")
        assert (end.outcome, end.code) == ("failed", "MODEL_GARBLED")


async def test_events_of_no_interest_are_passed_over() -> None:
    pieces = claude.say("Here.")
    pieces.insert(1, sse({"type": "of_tomorrow", "index": 9}, "of_tomorrow"))
    search = {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}
    pieces.insert(2, sse({"type": "content_block_start", "index": 7, "content_block": search}, "content_block_start"))
    query = {"type": "input_json_delta", "partial_json": "{}"}
    pieces.insert(3, sse({"type": "content_block_delta", "index": 7, "delta": query}, "content_block_delta"))
    pieces.insert(4, sse({"type": "content_block_stop", "index": 7}, "content_block_stop"))
    async with provider(Answer(pieces=pieces)) as server, talking(model_of(claude, server)) as talk:
        assert (await talk.say("x")).outcome == "completed"
        assert texts((await talk.last()).blocks) == [("text", "Here.")]


async def test_options_are_fields_of_every_request() -> None:
    options = cast(JSON, {"temperature": 0.2, "max_tokens": 77})
    assert isinstance(options, dict)
    for wire in WIRES:
        async with (
            provider(whole(wire, "x")) as server,
            talking(model_of(wire, server, options)) as talk,
        ):
            await talk.say("x")
            assert (server.seen[0].body["temperature"], server.seen[0].body["max_tokens"]) == (0.2, 77)


@every_wire
async def test_a_session_in_which_nobody_asked_anything_is_told_so(wire: Wire) -> None:
    async with provider() as server, talking(model_of(wire, server)) as talk:
        assert (await talk.say(None)).code == "MODEL_NOTHING_ASKED"
        assert not server.seen


@every_wire
async def test_connections_are_used_again(wire: Wire) -> None:
    async with provider(*[whole(wire, "x")] * 3) as server, talking(model_of(wire, server)) as talk:
        for _ in range(3):
            assert (await talk.say("x")).outcome == "completed"
        assert server.connections == 1
