"""Whatever a producer raises ends its generation and nothing else; what ends the process ends the engine in order."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Final

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from penstock.engine import (
    Config,
    Fact,
    Generation,
    MemoryLog,
    Producer,
    ProducerDone,
    Session,
    SessionState,
    open_engine,
)
from tests.engine.living import begin, end_of, finished, of_generation
from tests.engine.rules import assert_rules, events_of
from tests.engine.trouble import EXITS, OWN, Half, cut_short, talk, trouble


async def at_once(_: Generation, kind: str) -> None:
    raise await trouble(kind)


async def in_a_block(generation: Generation, kind: str) -> None:
    async with generation.message() as message, message.text() as block:
        await block.write("so far")
        await trio.sleep(1)
        raise await trouble(kind)


async def in_a_task_of_its_own(generation: Generation, kind: str) -> None:
    async with generation.message() as message, message.text() as block, trio.open_nursery() as nursery:
        nursery.start_soon(at_once, generation, kind)
        while True:
            await block.write(".")
            await trio.sleep(1)


async def with_an_approval_open(generation: Generation, kind: str) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(generation.approve, "rm")
        await trio.sleep(1)
        raise await trouble(kind)


async def handed_off(generation: Generation, kind: str) -> None:
    async def other(generation: Generation) -> None:
        await in_a_block(generation, kind)

    async with generation.message() as message:
        await generation.hand_off(other, into=message)


async def in_a_generator(generation: Generation, kind: str) -> None:
    async def pieces(_: Generation) -> AsyncIterator[str]:
        yield "so "
        yield "far"
        raise await trouble(kind)

    await generation.hand_off(pieces)


PLACES: Final[Mapping[str, Callable[[Generation, str], Awaitable[None]]]] = {
    "at once": at_once,
    "in a block": in_a_block,
    "in a task of its own": in_a_task_of_its_own,
    "with an approval open": with_an_approval_open,
    "handed off": handed_off,
    "in a generator": in_a_generator,
}


def raising(kind: str, place: str) -> Producer:
    async def producer(generation: Generation) -> None:
        await PLACES[place](generation, kind)
        raise AssertionError("nothing was raised")

    return producer


async def completes(session: Session) -> bool:
    """Whether the session can be used as ever."""
    started = await session.start(talk, text="and now?")
    await trio.testing.wait_all_tasks_blocked()
    return (await session.generation(started.generation_id)).outcome == "completed"


async def folds(log: MemoryLog) -> None:
    """The log keeps the rules, tells nothing as completed that is not, and the next engine goes on with it."""
    await assert_rules(log, closed=False)
    async with open_engine(log) as engine:
        for info in await engine.sessions():
            session = await engine.session(info.session_id)
            events = await events_of(log, info.session_id)
            assert cut_short(events) == []
            state = SessionState(info.session_id, info.cursor.epoch)
            for event in events:
                state.apply(event)
            assert state.snapshot() == await session.snapshot()
            assert await completes(session)
    await assert_rules(log, closed=True)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", OWN)
async def test_whatever_a_producer_raises_ends_its_generation_and_nothing_else(
    kind: str, place: str, autojump_clock: MockClock
) -> None:
    log = MemoryLog()
    neighbour = Half()
    async with open_engine(log) as engine:
        near = await engine.create_session("near")
        other = await near.start(neighbour)
        session = await engine.create_session("s")
        started = await session.start(raising(kind, place))
        await trio.sleep(5)
        end = finished(await of_generation(log, started.generation_id))
        assert (end.outcome, end.code, end.message) == (
            "failed",
            "PRODUCER_FAILED",
            "The producer raised an error.",
        )
        assert await completes(session)
        neighbour.go_on.set()
        assert await end_of(near, other.generation_id) == "completed"
    await folds(log)


@pytest.mark.parametrize("kind", OWN)
async def test_what_a_producer_raises_when_it_is_cancelled_is_its_own_too(kind: str, autojump_clock: MockClock) -> None:
    async def cleans_up_badly(generation: Generation) -> None:
        try:
            await trio.sleep_forever()
        finally:
            with generation.cleanup():
                await trio.sleep(0.1)
                raise await trouble(kind)

    log = MemoryLog()
    neighbour = Half()
    async with open_engine(log) as engine:
        near = await engine.create_session("near")
        other = await near.start(neighbour)
        session = await engine.create_session("s")
        started = await session.start(cleans_up_badly)
        await trio.testing.wait_all_tasks_blocked()
        assert await completes(session)  # in its place
        # A bare Cancelled cannot be told from that of the generation's own scope, which is cancelled.
        outcome = "superseded" if kind == "a leaked Cancelled" else "failed"
        assert await end_of(session, started.generation_id) == outcome
        neighbour.go_on.set()
        assert await end_of(near, other.generation_id) == "completed"
    await folds(log)


async def leaves_a_scope_open(_: Generation) -> None:
    trio.CancelScope().__enter__()


async def test_a_producer_that_leaves_a_scope_open_has_failed(autojump_clock: MockClock) -> None:
    """Trio tells of it. Of a nursery that is left open it cannot: see the engine's README."""
    log = MemoryLog()
    neighbour = Half()
    async with open_engine(log) as engine:
        near = await engine.create_session("near")
        other = await near.start(neighbour)
        session = await engine.create_session("s")
        assert await end_of(session, await begin(session, leaves_a_scope_open)) == "failed"
        assert await completes(session)
        neighbour.go_on.set()
        assert await end_of(near, other.generation_id) == "completed"
    await folds(log)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", EXITS)
async def test_what_ends_the_process_comes_out_as_it_is_once_every_generation_has_ended(
    kind: str, place: str, autojump_clock: MockClock
) -> None:
    log = MemoryLog()
    neighbours = {"near": Half(), "deaf": Half(swallows=True)}
    left = trio.Event()

    async def serve() -> None:
        async with open_engine(log) as engine:
            for session_id, neighbour in neighbours.items():
                await (await engine.create_session(session_id)).start(neighbour)
                await neighbour.begun.wait()
            await (await engine.create_session("s")).start(raising(kind, place))
            try:
                await trio.sleep_forever()
            finally:
                left.set()

    with pytest.raises((KeyboardInterrupt, SystemExit)) as raised:
        await serve()
    assert left.is_set()
    if isinstance(raised.value, SystemExit):
        assert raised.value.code == 3
    await assert_rules(log, closed=True)
    assert [finished(await events_of(log, session_id)).outcome for session_id in neighbours] == ["shutdown", "shutdown"]
    has_failed = "group" in kind  # there was something of its own beside
    assert finished(await events_of(log, "s")).outcome == ("failed" if has_failed else "shutdown")
    await folds(log)


@pytest.mark.parametrize("kind", OWN)
async def test_an_observer_that_raises_is_let_go_of(kind: str, autojump_clock: MockClock) -> None:
    raised = await trouble(kind)
    heard: list[Fact] = []

    class Touchy:
        def observe(self, fact: Fact, /) -> None:
            heard.append(fact)
            raise raised

    log = MemoryLog()
    async with open_engine(log, observer=Touchy()) as engine:
        session = await engine.create_session("s")
        assert await completes(session)
        assert await completes(session)
    assert len(heard) == 1
    await folds(log)


@pytest.mark.parametrize("fact", ["GenerationBegan", "Committed", "ProducerDone", "GenerationEnded"])
@pytest.mark.parametrize("kind", EXITS)
async def test_an_observer_can_end_the_process(kind: str, fact: str, autojump_clock: MockClock) -> None:
    raised = await trouble(kind)

    class Leaves:
        def observe(self, told: Fact, /) -> None:
            if type(told).__name__ == fact and getattr(told, "session_id", None) == "s":
                raise raised

    log = MemoryLog()
    neighbour = Half()

    async def serve() -> None:
        async with open_engine(log, observer=Leaves()) as engine:
            await (await engine.create_session("near")).start(neighbour)
            await neighbour.begun.wait()
            await (await engine.create_session("s")).start(talk)
            await trio.sleep_forever()

    with pytest.raises((KeyboardInterrupt, SystemExit)):
        await serve()
    assert finished(await events_of(log, "near")).outcome == "shutdown"
    await folds(log)


async def test_observers_are_told_what_a_producer_raised(autojump_clock: MockClock) -> None:
    done: list[ProducerDone] = []

    class Notes:
        def observe(self, fact: Fact, /) -> None:
            if isinstance(fact, ProducerDone):
                done.append(fact)

    async with open_engine(MemoryLog(), observer=Notes(), config=Config(cleanup_timeout=1)) as engine:
        session = await engine.create_session("s")
        await session.start(raising("a panic", "at once"))
        await trio.testing.wait_all_tasks_blocked()
        await session.start(talk)
        await trio.testing.wait_all_tasks_blocked()
    assert [(fact.how, type(fact.error).__name__) for fact in done] == [("raised", "Panic"), ("returned", "NoneType")]
