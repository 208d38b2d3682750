"""A request's body on its way to Quart: bounded, whatever Quart makes of it."""

from __future__ import annotations

import ast
from collections import deque
from collections.abc import Sequence
from pathlib import Path

import pytest
import trio
from hypercorn.typing import ASGIReceiveEvent
from hypothesis import given
from hypothesis import strategies as st

from penstock import adapters
from penstock.adapters.http.intake import ClientLeft, bounded, whole_body
from penstock.adapters.problems import BodyTooLarge, SlowRequest
from penstock.adapters.server.incoming import Incoming

MOST = 10


async def received(pieces: Sequence[bytes]) -> list[ASGIReceiveEvent]:
    """What comes of a body in these pieces and of the peer's leave."""
    sent: deque[ASGIReceiveEvent] = deque(
        {"type": "http.request", "body": piece, "more_body": place < len(pieces)}
        for place, piece in enumerate(pieces, 1)
    )
    sent.append({"type": "http.disconnect"})

    async def receive() -> ASGIReceiveEvent:
        return sent.popleft()

    taking = bounded(receive, MOST)
    events = [await taking()]
    while events[-1]["type"] != "http.disconnect":
        events.append(await taking())
    assert not sent
    return events


def run(pieces: Sequence[bytes]) -> list[ASGIReceiveEvent]:
    stepped = received(pieces)
    with pytest.raises(StopIteration) as ended:
        stepped.send(None)
    events: list[ASGIReceiveEvent] = ended.value.value
    return events


@given(st.lists(st.binary(max_size=MOST + 2), min_size=1, max_size=8))
def test_a_body_passes_whole_or_ends_with_the_piece_that_is_too_much(pieces: list[bytes]) -> None:
    *parts, last = run(pieces)
    assert last["type"] == "http.disconnect"
    got = [part["body"] for part in parts if part["type"] == "http.request"]
    assert len(got) == len(parts)
    assert got == pieces[: len(got)]
    assert [part.get("more_body") for part in parts] == [True] * (len(parts) - 1) + [False]
    if sum(map(len, pieces)) <= MOST:
        assert got == pieces
    else:
        assert sum(map(len, got)) > MOST >= sum(map(len, got[:-1]))


# and by that every bound on bodies holds on every route.
def test_no_route_reads_a_body_in_a_way_of_its_own() -> None:
    reading = {"get_data", "get_json", "data", "json", "form", "files", "body", "values", "stream"}
    found = {}
    for path in sorted((Path(adapters.__file__).parent / "http").rglob("*.py")):
        used = {
            node.attr
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "request"
        }
        if used & reading:
            found[path.name] = used & reading
    assert found == {"intake.py": {"get_data"}}


@given(
    pieces=st.lists(st.binary(max_size=MOST + 2), min_size=1, max_size=8),
    told=st.booleans(),
    left=st.booleans(),
    ahead=st.none() | st.integers(0, 8),
)
async def test_a_body_is_read_to_its_end_or_its_bound(
    pieces: list[bytes], *, told: bool, left: bool, ahead: int | None
) -> None:
    """``ahead``: how many pieces have come before it is read; None where the server cannot say that any have."""
    whole = b"".join(pieces)
    length = len(whole) if told else None
    events: list[ASGIReceiveEvent] = [
        {"type": "http.request", "body": piece, "more_body": place < len(pieces)}
        for place, piece in enumerate(pieces, 1)
    ]
    if left:
        events[-1] = {"type": "http.disconnect"}
    async with trio.open_nursery() as nursery:
        sending, receiving = trio.open_memory_channel[ASGIReceiveEvent](len(events))
        for event in events[:ahead]:
            sending.send_nowait(event)

        async def send_the_others() -> None:
            for event in events[len(events[:ahead]) :]:
                await trio.lowlevel.checkpoint()
                sending.send_nowait(event)

        nursery.start_soon(send_the_others)
        receive = receiving.receive if ahead is None else Incoming(receiving)
        try:
            assert await whole_body(receive, length=length, most=MOST, seconds=1) == whole
        except BodyTooLarge:
            assert len(whole) > MOST
        except ClientLeft:
            assert left
            assert len(whole) - len(pieces[-1]) <= MOST
        else:
            assert len(whole) <= MOST


async def test_a_body_that_came_with_its_head_is_not_waited_for() -> None:
    sending, receiving = trio.open_memory_channel[ASGIReceiveEvent](1)
    sending.send_nowait({"type": "http.request", "body": b"{}", "more_body": True})
    with trio.CancelScope() as scope:
        scope.cancel()
        assert await whole_body(Incoming(receiving), length=2, most=MOST, seconds=1) == b"{}"
    assert not scope.cancelled_caught


async def test_a_body_that_does_not_come_is_not_waited_for(autojump_clock: object) -> None:
    async def receive() -> ASGIReceiveEvent:
        await trio.sleep(1)
        return {"type": "http.request", "body": b" ", "more_body": True}

    with pytest.raises(SlowRequest):
        await whole_body(receive, length=None, most=MOST, seconds=5)
    assert trio.current_time() == 5
