"""A request's body on its way to Quart: bounded, whatever Quart makes of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import pytest
from hypercorn.typing import ASGIReceiveEvent
from hypothesis import given
from hypothesis import strategies as st

from adapters.http.intake import bounded

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
