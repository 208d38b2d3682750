"""What one socket may have under way: bytes as well as commands, judged before they wait, answered in few words."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from penstock.adapters.websocket import SocketConfig
from penstock.adapters.websocket.lanes import Room
from penstock.engine import JSON, Config, Generation, Producer
from tests.adapters.credentials import identity, token
from tests.adapters.serving import PATIENCE, Penstock, Socket, penstock
from tests.adapters.test_websocket import code, result
from tests.engine.producers import saying

MIB = 1024 * 1024

UNKNOWN = "7d3f0c1e-52a4-4b6f-9e0d-1c2b3a495867"  # of no generation; it stands in the names of tests

# As a list of lists it takes some twenty times as much as its text.
LARGE = b"[" + b"[]," * 340_000 + b"[]]"


# --- the room alone


async def test_room_is_given_in_number_and_in_bytes() -> None:
    for number, size, each in ((3, 100, 1), (100, 30, 10)):
        room = Room(number, size)
        with trio.move_on_after(0.1) as limit:
            for _ in range(3):
                await room.enter(each)
            limit.deadline = trio.current_time() + 0.1
            await room.enter(each)
            pytest.fail("there was no room")
        room.leave(each)
        with trio.fail_after(PATIENCE):
            await room.enter(each)


async def test_what_is_larger_than_the_room_gets_in_alone() -> None:
    room = Room(10, 100)
    with trio.fail_after(PATIENCE):
        await room.enter(500)
    with trio.move_on_after(0.1):
        await room.enter(1)
        pytest.fail("it was not alone")
    room.leave(500)
    with trio.fail_after(PATIENCE):
        await room.enter(1)


@given(st.integers(1, 6), st.integers(1, 100), st.lists(st.integers(0, 130), min_size=1, max_size=40))
def test_the_room_is_never_overfull_and_everybody_gets_in(number: int, size: int, asked: list[int]) -> None:
    async def run() -> None:
        room = Room(number, size)
        inside: list[int] = []

        async def leave_all(task_status: trio.TaskStatus[None]) -> None:
            task_status.started()
            while True:
                await trio.testing.wait_all_tasks_blocked()
                if inside:
                    room.leave(inside.pop(0))

        async with trio.open_nursery() as nursery:
            await nursery.start(leave_all)
            for each in asked:
                await room.enter(each)
                inside.append(each)
                assert len(inside) <= number
                assert sum(inside) <= size or len(inside) == 1
            nursery.cancel_scope.cancel()

    trio.run(run)


# --- through a socket


@asynccontextmanager
async def stuck(
    scopes: tuple[str, ...], *, socket: SocketConfig | None = None
) -> AsyncIterator[tuple[Penstock, Socket]]:
    """A socket whose first command of the session ``s`` is under way for long, by a token with these scopes."""
    started, over = trio.Event(), trio.Event()

    async def stubborn(_: Generation) -> None:
        started.set()
        with trio.CancelScope(shield=True):
            await over.wait()

    producers: dict[str, Producer] = {"stubborn": stubborn, "says": saying("a")}
    config = Config(cleanup_timeout=PATIENCE)
    async with penstock(producers=producers, config=config, identity=identity(), socket=socket) as world:
        await (await world.engine.create_session("s")).start("stubborn")
        await started.wait()
        headers = [(b"Authorization", f"Bearer {token(['s'], scopes)}".encode())]
        try:
            async with world.socket(headers=headers) as opened:
                await opened.send(op="start", id="stuck", session_id="s", producer="says")
                yield world, opened
        finally:
            over.set()


@pytest.mark.parametrize(
    "frame",
    [
        {"op": "subscribe", "session_id": "s"},
        {"op": "subscribe", "session_id": "other"},
        {"op": "start", "session_id": "other", "input": "x" * 900_000},
        {"op": "stop", "session_id": "other"},
        {"op": "post", "session_id": "s", "role": "assistant", "text": "x"},
        {"op": "post", "session_id": "s", "role": ["user"], "text": "x"},
        {"op": "post", "session_id": "s", "role": None, "text": "x"},
        {"op": "chunks", "session_id": "s", "chunks": []},
        {"op": "finish", "session_id": "s", "generation_id": UNKNOWN},
        {"op": "input", "session_id": "other", "generation_id": UNKNOWN, "kind": "steer"},
        {"op": "presence", "session_id": "other", "actor_id": "ann", "device_id": "d"},
    ],
)
async def test_what_the_token_does_not_allow_is_refused_before_its_turn(frame: dict[str, JSON]) -> None:
    async with stuck(("write",)) as (_, socket):
        assert code(await socket.ask(**frame, id="no")) == "FORBIDDEN"  # and `stuck` is not answered yet


async def test_what_waits_takes_no_more_than_its_text_and_is_bounded_in_bytes() -> None:
    async with stuck(("write",)) as (_, socket):
        await socket.ask(op="ping", id="all is there")
        text = b'{"op": "start", "session_id": "s", "producer": "nope", "input": %b}' % LARGE
        frame = b"\x81\xff" + len(text).to_bytes(8) + bytes(4) + text  # masked with zeros
        tracemalloc.start()
        try:
            blocked = False
            for _ in range(40):
                with trio.move_on_after(2.0) as limit:
                    await socket.stream.send_all(frame)
                blocked = blocked or limit.cancelled_caught
                if blocked:
                    break
            current, _peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert blocked
        assert current < 12 * MIB


async def test_commands_wait_for_room_and_all_are_carried_out() -> None:
    bounds = SocketConfig(max_command_bytes=1000)
    async with penstock(socket=bounds) as world, world.socket() as socket:
        await world.engine.create_session("s")
        for number in range(60):
            await socket.send(op="post", id=number, session_id="s", text="x" * (number * 37 % 1500))
        answers = [await socket.receive() for _ in range(60)]
        assert [(answer["id"], answer["op"]) for answer in answers] == [(number, "reply") for number in range(60)]


@pytest.mark.parametrize(
    ("given", "fine"),
    [
        ("x" * 128, True),
        ("\N{GRINNING FACE}" * 128, True),
        ("", True),
        (2**63, True),
        (-(10**126), True),
        ("x" * 129, False),
        ("x" * 900_000, False),
        ("\x00" * 129, False),
        (10**128, False),
        (-(10**127), False),
    ],
)
async def test_an_id_is_told_back_whole_or_refused(given: str | int, fine: bool) -> None:
    async with penstock() as world, world.socket() as socket:
        await socket.send(op="ping", id=given)
        answer = await socket.receive()
        if fine:
            assert (result(answer), answer["id"]) == ({}, given)
        else:
            assert code(answer) == "INVALID_BODY"
            assert "id" not in answer


LONG = ("x" * 900_000, "\x00" * 150_000, '"' * 400_000, "\N{GRINNING FACE}" * 200_000)

PLACES: list[dict[Any, Any]] = [
    {"op": ...},
    {"op": "ping", ...: 1},
    {"op": "ping", "session_id": ...},
    {"op": "subscribe", "session_id": ...},
    {"op": "unsubscribe", "session_id": ...},
    {"op": "subscribe", "session_id": "s", "after": ...},
    {"op": "subscribe", "session_id": "s", "snapshot": ...},
    {"op": "start", "session_id": "s", "producer": ...},
    {"op": "start", "session_id": "s", "policy": ...},
    {"op": "start", "session_id": "s", "generation_id": ...},
    {"op": "start", "session_id": "s", "replaces": ...},
    {"op": "start", "session_id": "s", "continues": ...},
    {"op": "start", "session_id": "s", "job_id": ...},
    {"op": "start", "session_id": "s", "idempotency_key": ...},
    {"op": "start", "session_id": "s", "on_last_disconnect": ...},
    {"op": "start", "session_id": "s", "idle_limit": ...},
    {"op": "start", "session_id": "s", ...: 1},
    {"op": "stop", "session_id": "s", "queue": ...},
    {"op": "stop", "session_id": "s", "generation_id": ...},
    {"op": "post", "session_id": "s", "role": ...},
    {"op": "post", "session_id": "s", "blocks": ...},
    {"op": "post", "session_id": "s", "blocks": [{"kind": ...}]},
    {"op": "post", "session_id": "s", "message_id": ...},
    {"op": "input", "session_id": "s", "generation_id": ..., "kind": "steer"},
    {"op": "input", "session_id": "s", "generation_id": UNKNOWN, "kind": ...},
    {"op": "chunks", "session_id": "s", "chunks": ...},
    {"op": "chunks", "session_id": "s", "chunks": [{"generation_id": ...}]},
    {"op": "chunks", "session_id": "s", "chunks": [{"generation_id": UNKNOWN, "type": ...}]},
    {"op": "chunks", "session_id": "s", "chunks": [{"generation_id": UNKNOWN, ...: 1}]},
    {"op": "chunks", "session_id": "s", "chunks": [], "producer_id": ...},
    {"op": "finish", "session_id": "s", "generation_id": UNKNOWN, "outcome": ...},
    {"op": "finish", "session_id": "s", "generation_id": ...},
    {"op": "presence", "session_id": "s", "actor_id": ..., "device_id": "d"},
    {"op": "presence", "session_id": "s", "actor_id": "ann", "device_id": "d", "status": ...},
]


def filled(value: object, text: str) -> object:
    """The value, with ``text`` wherever an ellipsis stands."""
    if value is ...:
        return text
    if isinstance(value, dict):
        return {filled(name, text): filled(item, text) for name, item in value.items()}
    return [filled(item, text) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize("place", PLACES, ids=str)
async def test_an_answer_and_its_line_are_short_whatever_was_sent(
    place: dict[Any, Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "penstock")
    async with penstock(producers={"says": saying("a")}) as world, world.socket() as socket:
        await world.engine.create_session("s")
        for text in LONG:
            await socket.ws.send_message(json.dumps(filled(place, text), ensure_ascii=False))
            with trio.fail_after(PATIENCE):
                answer = await socket.ws.get_message()
            assert len(answer) < 8000
    assert all(len(str(vars(record))) < 8000 for record in caplog.records)
