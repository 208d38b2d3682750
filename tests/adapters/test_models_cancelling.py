"""A stop, a supersede, a clean-up: the provider sees the end of the connection at once, and nothing is left behind."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

import pytest
import trio

from penstock.adapters.models import Assistant
from penstock.engine import Config, open_engine
from tests.adapters.providers import WIRES, Answer, Call, Provider, Wire, claude, provider, whole
from tests.adapters.talking import PATIENCE, QUICK, Talk, model_of, talking

every_wire = pytest.mark.parametrize("wire", WIRES, ids=[wire.kind for wire in WIRES])

# What a provider may see at most between a stop and the end of the connection.
AT_ONCE = 1.0  # on a busy machine, too; nobody would close it for another reason within a minute


def falling_silent(wire: Wire, *, thoughts: Sequence[str] = ()) -> Answer:
    """An answer that goes no further than its first word, and does not end."""
    pieces = wire.say("The first word", " and more", thoughts=thoughts)
    cut = next(i for i, piece in enumerate(pieces) if b"first word" in piece) + 1
    return Answer(pieces=pieces[:cut], end="hang")


@asynccontextmanager
async def in_the_middle(wire: Wire, end_of: str = "word") -> AsyncIterator[tuple[Talk, Provider]]:
    """An answer has begun, and its provider is silent."""
    silent = falling_silent(wire, thoughts=["hm"]) if end_of == "word" else Answer(end="hang")
    async with provider(silent, whole(wire, "The next.")) as server, talking(model_of(wire, server)) as talk:
        await talk.session.start("model", text="x")
        if end_of == "word":
            await talk.until("first word")
        else:
            await (await server.wait_request()).sent.wait()
        yield talk, server


@every_wire
@pytest.mark.parametrize("end_of", ["head", "word"])
async def test_a_stop_closes_the_providers_connection_at_once(wire: Wire, end_of: str) -> None:
    async with in_the_middle(wire, end_of) as (talk, server):
        asked = trio.current_time()
        stopped = await talk.session.stop()
        assert stopped.state == "stopped"
        with trio.fail_after(PATIENCE):
            await server.seen[0].left.wait()
        assert server.seen[0].left_at is not None
        assert server.seen[0].left_at - asked < AT_ONCE
        assert (await talk.end()).outcome == "stopped"
        if end_of == "word":
            last = await talk.last()
            assert (last.role, last.status, last.blocks[-1].text) == ("assistant", "cancelled", "The first word")


@every_wire
async def test_the_price_of_a_stopped_answer_is_said_to_be_a_part_of_it(wire: Wire) -> None:
    call = Call("call_1", "look_up", ("{}",))
    async with (
        provider(falling_silent(wire), whole(wire, calls=[call]), falling_silent(wire)) as server,
        talking(model_of(wire, server)) as talk,
    ):
        # What is read, Anthropic says at once; what is written, nobody does before the end.
        begun = {"input_tokens": 10, "cached_tokens": 4, "partial": True} if wire is claude else None
        await talk.session.start("model", text="x")
        await talk.until("first word")
        await talk.session.stop()
        assert (await talk.end()).usage == begun
        await talk.session.start("model", text="and now")
        await (await server.wait_request(3)).sent.wait()
        await talk.until("first word")
        await talk.session.stop()
        usage = (await talk.end()).usage
        assert usage is not None
        assert usage["partial"] is True
        assert (usage["input_tokens"], usage["output_tokens"]) == (20 if wire is claude else 10, 5)


@every_wire
async def test_a_stop_before_the_provider_answers_at_all_closes_the_connection(wire: Wire) -> None:
    async def silence(stream: trio.SocketStream) -> None:
        assert await stream.receive_some()
        asked.set()
        with suppress(trio.BrokenResourceError):
            while await stream.receive_some():
                pass
        left.append(trio.current_time())
        gone.set()

    asked, gone, left = trio.Event(), trio.Event(), list[float]()
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, silence, 0)
        server = Provider(f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}")
        async with talking(model_of(wire, server)) as talk:
            await talk.session.start("model", text="x")
            await asked.wait()
            begun = trio.current_time()
            await talk.session.stop()
            with trio.fail_after(PATIENCE):
                await gone.wait()
            assert left[0] - begun < AT_ONCE
        nursery.cancel_scope.cancel()


@every_wire
async def test_a_superseding_prompt_ends_one_request_and_makes_the_next(wire: Wire) -> None:
    async with in_the_middle(wire) as (talk, server):
        begun = trio.current_time()
        started = await talk.session.start("model", text="No, this instead.")
        assert started.superseded is not None
        assert started.superseded.cleanup == "clean"
        assert (await talk.end()).outcome == "completed"
        assert server.seen[0].left_at is not None
        assert server.seen[0].left_at - begun < AT_ONCE
        shown = str(server.seen[1].body)
        assert "The first word" in shown
        assert "interrupted by the user and is incomplete" in shown


@every_wire
async def test_a_fast_stream_that_is_stopped_in_the_middle_leaves_nothing_behind(wire: Wire) -> None:
    """Much lies read and not yet written when the stop comes: the HTTP library's generators are in mid-air."""
    pieces = wire.say(*[f"w{number} " for number in range(3000)])[:-8]
    endless = Answer(pieces=pieces, end="hang")
    async with provider(*[endless] * 3) as server, talking(model_of(wire, server)) as talk:
        for number in (1, 2, 3):
            await talk.session.start("model", text="x")
            await talk.wait_event("block.opened", number)
            asked = trio.current_time()
            await talk.session.stop()
            with trio.fail_after(PATIENCE):
                await server.seen[-1].left.wait()
            assert trio.current_time() - asked < AT_ONCE
        gc.collect()  # what was dropped unclosed warns here, and warnings are errors
        await trio.testing.wait_all_tasks_blocked()


@every_wire
async def test_a_stop_in_the_middle_of_an_error_closes_the_connection_at_once(wire: Wire) -> None:
    slow = Answer(status=503, pieces=[b'{"err'], end="hang")
    async with provider(slow) as server, talking(model_of(wire, server)) as talk:
        await talk.session.start("model", text="x")
        await (await server.wait_request()).sent.wait()
        await trio.testing.wait_all_tasks_blocked(0.02)
        asked = trio.current_time()
        await talk.session.stop()
        with trio.fail_after(PATIENCE):
            await server.seen[0].left.wait()
        assert trio.current_time() - asked < AT_ONCE
        assert (await talk.end()).outcome == "stopped"
        gc.collect()
        await trio.testing.wait_all_tasks_blocked()


async def test_a_stop_while_it_waits_to_ask_again_is_a_stop() -> None:
    busy = Answer(status=429, headers={"retry-after": "30"})
    async with provider(busy) as server, talking(model_of(claude, server)) as talk:
        await talk.session.start("model", text="x")
        await talk.wait_event("generation.status", 2)
        begun = trio.current_time()
        await talk.session.stop()
        assert (await talk.end()).outcome == "stopped"
        assert trio.current_time() - begun < 1
        assert len(server.seen) == 1


@every_wire
async def test_a_provider_that_falls_silent_is_stalled_and_left(wire: Wire) -> None:
    async with provider(falling_silent(wire)) as server:
        assistant = Assistant(model_of(wire, server), retries=QUICK)
        config = Config(idle_limit=0.3)
        async with open_engine(":memory:", producers={"model": assistant}, config=config) as engine:
            session = await engine.create_session("s")
            await session.start("model", text="x")
            with trio.fail_after(PATIENCE):
                await (await server.wait_request()).left.wait()
            async with session.subscribe() as events:
                async for event in events:
                    if event.type == "generation.finished":
                        assert getattr(event.data, "outcome", None) == "stalled"
                        break
        await assistant.aclose()


@every_wire
async def test_a_provider_that_does_not_end_its_body_holds_nothing_up(wire: Wire) -> None:
    lazy = Answer(pieces=wire.say("Here."), end="hang")
    async with provider(lazy) as server, talking(model_of(wire, server)) as talk:
        begun = trio.current_time()
        assert (await talk.say("x")).outcome == "completed"
        assert trio.current_time() - begun < 2
        with trio.fail_after(PATIENCE):
            await server.seen[0].left.wait()
