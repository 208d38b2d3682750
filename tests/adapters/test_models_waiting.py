"""A model that takes its time before its first word: it is waited for, readers are told, and it has an end."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Self

import pytest
import trio
from trio.testing import MockClock

from penstock.adapters.models.model import Request
from penstock.adapters.models.pieces import Finished, Piece, Words
from penstock.engine import JSON, Config, GenerationFinished
from tests.adapters.providers import WIRES, Answer, Wire, provider, whole
from tests.adapters.talking import PATIENCE, Talk, model_of, talking

every_wire = pytest.mark.parametrize("wire", WIRES, ids=[wire.kind for wire in WIRES])


class Slow:
    """A model without a provider: it answers after so many seconds, and says each of its pieces after so many more."""

    name = "slow"

    def __init__(self, head: float = 0, *pieces: float) -> None:
        self._head = head
        self._pauses = iter(pieces)
        self.closed = 0

    async def ask(self, _: Request) -> Self:
        await trio.sleep(self._head)
        return self

    async def next(self) -> Sequence[Piece] | None:
        pause = next(self._pauses, None)
        if pause is None:
            return None
        await trio.sleep(pause)
        return [Words("text", "t", "word "), Finished("stop")]

    async def close(self) -> None:
        self.closed += 1

    async def aclose(self) -> None:
        pass


@asynccontextmanager
async def asking(model: Slow, config: Config | None = None) -> AsyncIterator[Talk]:
    async with talking(model, config=config) as talk:
        await talk.session.start("model", text="x")
        yield talk


async def ended_at(talk: Talk) -> tuple[float, GenerationFinished]:
    """When the answer ended, in seconds from the start of the clock, and how. It is waited for a day at most."""
    with trio.fail_after(24 * 3600):
        async with talk.session.subscribe() as events:
            async for event in events:
                if isinstance(event.data, GenerationFinished):
                    return trio.current_time(), event.data
    raise AssertionError("the stream ended")


def waits(*seconds: int) -> list[tuple[str, JSON]]:
    return [("thinking", None), *(("waiting", {"seconds": each}) for each in seconds)]


@pytest.mark.parametrize("model", [Slow(135, 0), Slow(0, 135), Slow(100, 35)], ids=["head", "word", "both"])
async def test_a_first_word_may_take_longer_than_the_idle_limit(model: Slow, autojump_clock: MockClock) -> None:
    async with asking(model) as talk:
        begun = trio.current_time()
        at, end = await ended_at(talk)
        assert (end.outcome, round(at - begun)) == ("completed", 135)
        assert await talk.statuses() == waits(30, 60, 90, 120)
        assert model.closed == 1


async def test_a_model_without_a_first_word_is_given_up_after_ten_minutes(autojump_clock: MockClock) -> None:
    model = Slow(0, math.inf)
    async with asking(model) as talk:
        begun = trio.current_time()
        at, end = await ended_at(talk)
        assert (end.outcome, end.code, round(at - begun)) == ("failed", "MODEL_SILENT", 600)
        assert model.closed == 1


async def test_behind_its_first_word_the_idle_limit_holds(autojump_clock: MockClock) -> None:
    async with asking(Slow(200, 0, math.inf)) as talk:
        begun = trio.current_time()
        at, end = await ended_at(talk)
        assert (end.outcome, round(at - begun)) == ("stalled", 320)
        assert end.message == "Ended because nothing came for 120 s."
        assert (await talk.statuses())[-1] == ("waiting", {"seconds": 180})


@pytest.mark.parametrize("limit", [20, 1800, math.inf])
async def test_the_first_word_has_ten_minutes_or_the_idle_limit(limit: float, autojump_clock: MockClock) -> None:
    config = Config(idle_limit=limit)
    async with asking(Slow(599), config) as talk:
        assert (await ended_at(talk))[1].outcome == "completed"
        if limit == 20:
            assert (await talk.statuses())[1:3] == [("waiting", {"seconds": 10}), ("waiting", {"seconds": 20})]
    async with asking(Slow(1799), config) as talk:
        assert (await ended_at(talk))[1].outcome == ("failed" if limit == 20 else "completed")


@pytest.mark.parametrize("limit", [1e-9, 0.01, 0.05, 0.19, 0.2, 0.5, 2.0])
async def test_however_short_the_limit_is_that_a_start_asks_for_little_is_stored(
    limit: float, autojump_clock: MockClock
) -> None:
    async with talking(Slow(60)) as talk:
        await talk.session.start("model", text="x", idle_limit=limit)
        begun = trio.current_time()
        at, end = await ended_at(talk)
        assert end.outcome == ("stalled" if limit < 0.1 else "completed")
        assert len(await talk.statuses()) <= 10 * (at - begun) + 1


async def test_a_stop_while_it_is_waited_for_is_a_stop(autojump_clock: MockClock) -> None:
    model = Slow(0, math.inf)
    async with asking(model) as talk:
        await trio.sleep(45)
        assert (await talk.session.stop()).state == "stopped"
        assert (await ended_at(talk))[1].outcome == "stopped"
        assert model.closed == 1
        await trio.sleep(100)
        assert await talk.statuses() == waits(30)


@every_wire
@pytest.mark.parametrize("before", ["head", "word"])
async def test_a_providers_silence_before_the_first_word_is_borne(wire: Wire, before: str) -> None:
    pieces = wire.say("Late.")
    late = Answer(pieces=pieces, silent=1.5) if before == "head" else Answer(pieces=[1.5, *pieces])
    async with (
        provider(late) as server,
        talking(model_of(wire, server), config=Config(idle_limit=0.6)) as talk,
    ):
        assert (await talk.say("x")).outcome == "completed"
        assert "waiting" in [status for status, _ in await talk.statuses()]


@every_wire
async def test_a_provider_that_is_given_up_is_left_and_not_asked_again(wire: Wire) -> None:
    async with (
        provider(Answer(end="hang"), whole(wire, "x")) as server,
        talking(model_of(wire, server), first_word=1.5, config=Config(idle_limit=1.0)) as talk,
    ):
        end = await talk.say("x")
        assert (end.outcome, end.code) == ("failed", "MODEL_SILENT")
        with trio.fail_after(PATIENCE):
            await server.seen[0].left.wait()
        assert len(server.seen) == 1
