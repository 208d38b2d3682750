"""A store that has lost what it acknowledged: no cursor ever names another event, and everybody is told."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from penstock.engine import (
    Cursor,
    Drained,
    Engine,
    Gap,
    GenerationFinished,
    LocalBus,
    MemoryLog,
    Moved,
    Session,
    WriteFailed,
    open_engine,
)
from penstock.engine.facts import Fact, Observer, StoreWentBack
from penstock.engine.log.port import life_of
from tests.engine.losing import LosingStore, Traveller
from tests.engine.producers import Steered
from tests.engine.rules import assert_rules, events_of


class Notes:
    def __init__(self) -> None:
        self.facts: list[Fact] = []

    def observe(self, fact: Fact, /) -> None:
        self.facts.append(fact)

    @property
    def went_back(self) -> list[str]:
        return [fact.session_id for fact in self.facts if isinstance(fact, StoreWentBack)]


@asynccontextmanager
async def engines(store: LosingStore, *names: str, observer: Observer | None = None) -> AsyncIterator[list[Engine]]:
    """Engines that share the store; one without a name has it alone."""
    bus = LocalBus()
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(
                open_engine(store.way(), owner=name, bus=bus, observer=observer)
                if name
                else open_engine(store.way(), observer=observer)
            )
            for name in names
        ]
    await assert_rules(store.log, closed=False)


async def posted(session: Session, *texts: str) -> Cursor:
    for text in texts:
        await session.post(text)
    return await session.cursor()


async def texts_of(session: Session) -> list[str]:
    snapshot = await session.snapshot()
    return [str(block.text) for message in snapshot.messages for block in message.blocks]


NAMES = pytest.mark.parametrize("names", [("",), ("a",), ("a", "b")], ids=["alone", "one", "two"])


@NAMES
async def test_a_reader_that_comes_back_is_told_and_never_gets_another_event(
    names: tuple[str, ...], autojump_clock: MockClock
) -> None:
    store = LosingStore()
    reader = Traveller()
    async with engines(store, *names) as all_:
        session = await all_[0].create_session("s")
        await posted(session, "1", "2")
        store.keep()
        before = await posted(session, "3", "4")
        await reader.read(session)
        assert reader.cursor == before
        store.go_back()
        session = await all_[-1].session("s")
        assert await posted(session, "5", "6", "7", "8") != before
        assert await texts_of(session) == ["1", "2", "5", "6", "7", "8"]
        await reader.read(session)
        assert reader.gaps == ["unknown_epoch"]
        assert reader.cursor is not None
        assert life_of(reader.cursor.epoch) == life_of(before.epoch)
        assert len([place for place in reader.got if place.epoch == reader.cursor.epoch]) == 7


@NAMES
async def test_nothing_changes_where_nothing_was_lost(names: tuple[str, ...], autojump_clock: MockClock) -> None:
    store = LosingStore()
    reader = Traveller()
    async with engines(store, *names) as all_, trio.open_nursery() as nursery:
        session = await all_[0].create_session("s")
        before = await posted(session, "1", "2")
        async with session.subscribe() as stays:
            nursery.start_soon(drained, stays, reader)
            await wait_all_tasks_blocked()
            store.keep()
            store.go_back()
            await trio.sleep(30)  # longer than between two looks
            after = await posted(await all_[-1].session("s"), "3")
            assert after == Cursor(before.epoch, before.offset + 1)
            await wait_all_tasks_blocked()
            assert reader.cursor == after
            assert reader.gaps == []
            assert all_[0].statistics().log.went_back == 0
            nursery.cancel_scope.cancel()


async def drained(subscription: object, reader: Traveller) -> str:
    """Read until the end; why it was drained."""
    why = ""
    try:
        while True:
            delivery = await subscription.receive()  # type: ignore[attr-defined]
            reader.take(delivery)
            why = delivery.reason if isinstance(delivery, Drained) else why
    except trio.EndOfChannel:
        return why


@NAMES
async def test_a_generation_that_was_live_is_lost_and_its_producer_fenced(
    names: tuple[str, ...], autojump_clock: MockClock
) -> None:
    store = LosingStore()
    producer = Steered()
    notes = Notes()
    reader = Traveller()
    async with engines(store, *names, observer=notes) as opened:
        session = await opened[0].create_session("s")
        started = await session.start(producer)
        await producer.started.wait()
        store.keep()
        await session.post("lost")
        async with (await opened[-1].session("s")).subscribe() as subscription:
            for _ in range(20):
                delivery = subscription.receive_ready() or await subscription.receive()
                reader.take(delivery)
                if reader.cursor == await session.cursor():
                    break
            store.go_back()
            assert await drained(subscription, reader) == "went-back"
        await producer.over.wait()
        assert isinstance(producer.errors[0], Exception)
        await wait_all_tasks_blocked()
        assert notes.went_back == ["s"]
        assert (await session.generation(started.generation_id)).state == "finished"
        await reader.read(await opened[-1].session("s"))
        assert reader.gaps == ["unknown_epoch"]
        ended = [
            each.data.outcome for each in await events_of(store.log, "s") if isinstance(each.data, GenerationFinished)
        ]
        assert ended == ["lost"]
        await session.post("goes on")
        assert (await texts_of(session))[-1] == "goes on"


async def test_a_cursor_past_the_end_puts_its_session_in_doubt_once_for_each_start_of_the_store(
    autojump_clock: MockClock,
) -> None:
    """Nobody who writes knows of the loss: all of them were started since."""
    log = MemoryLog()
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        other = await posted(await engine.create_session("other"), "1")
        await posted(session, "1")
        go_back = log.copied()
        await posted(session, "2", "3")
        reader = Traveller()
        await reader.read(session)
        old = reader.cursor
        assert old is not None
    log = again(log, go_back)
    async with open_engine(log) as engine:
        session = await engine.session("s")
        await reader.read(session)
        assert reader.gaps == ["past_tail"]
        await wait_all_tasks_blocked()
        now = await posted(session, "4", "5", "6")
        assert now.epoch != old.epoch
        await reader.read(session)
        assert reader.gaps == ["past_tail", "unknown_epoch"]
        # Somebody says the same of the new epoch: it counts once, or whoever has a cursor could do it for ever.
        async with session.subscribe(Cursor(now.epoch, 99), live=False) as subscription:
            assert any([isinstance(await subscription.receive(), Gap) for _ in range(3)])
        await wait_all_tasks_blocked()
        assert (await posted(session, "7")).epoch == now.epoch
        assert await posted(await engine.session("other"), "2") == Cursor(other.epoch, other.offset + 1)


def again(log: MemoryLog, go_back: object) -> MemoryLog:
    """The log of the next process, whose store is a copy."""
    go_back()  # type: ignore[operator]
    made = MemoryLog()
    made._lives = log._lives
    return made


async def test_an_engine_that_only_reads_finds_it_by_what_it_has_heard(autojump_clock: MockClock) -> None:
    store = LosingStore()
    reader = Traveller()
    async with engines(store, "a", "b") as (a, b):
        session = await a.create_session("s")
        await posted(session, "1")
        store.keep()
        before = await posted(session, "2", "3")
        there = await b.session("s")
        async with there.subscribe() as stays, trio.open_nursery() as nursery:
            reasons: list[str] = []

            async def read() -> None:
                reasons.append(await drained(stays, reader))

            nursery.start_soon(read)
            await wait_all_tasks_blocked()
            assert reader.cursor == before
            store.ways[0].answered = 0  # the writer was started anew since: it knows of nothing
            store.go_back()
            assert b.statistics().log.went_back == 0
            await trio.sleep(6)  # the next look
            assert reasons == ["went-back"]
        assert b.statistics().log.went_back == 1
        await posted(there, "4", "5", "6", "7")
        await reader.read(there)
        assert reader.gaps == ["unknown_epoch"]


async def test_who_is_reading_pages_that_are_gone_is_sent_back_and_the_session_is_not_set_aside(
    autojump_clock: MockClock,
) -> None:
    store = LosingStore()
    async with engines(store, "") as (engine,):
        session = await engine.create_session("s")
        await posted(session, "1")
        store.keep()
        await posted(session, "2", "3")
        store.ways[0].answered = 0
        store.go_back()
        reader = Traveller()
        async with session.subscribe() as subscription:
            assert await drained(subscription, reader) == "went-back"
        await wait_all_tasks_blocked()
        assert engine.statistics().set_aside == 0
        await reader.read(await engine.session("s"))
        assert await texts_of(await engine.session("s")) == ["1"]


async def test_a_snapshot_of_what_is_gone_is_not_given(autojump_clock: MockClock) -> None:
    store = LosingStore()
    async with engines(store, "a") as (engine,):
        session = await engine.create_session("s")
        await posted(session, "1")
        store.keep()
        await posted(session, "2")
        assert await texts_of(session) == ["1", "2"]
        store.ways[0].answered = 0
        store.go_back()
        assert await texts_of(session) == ["1"]
        assert (await session.post("3")).cursor.epoch == (await session.cursor()).epoch


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("post"), st.integers(0, 1), st.integers(1, 4)),
        st.tuples(st.just("read"), st.integers(0, 1), st.integers(0, 2)),
        st.tuples(st.just("keep"), st.just(0), st.just(0)),
        st.tuples(st.just("go back"), st.just(0), st.integers(0, 3)),
        st.tuples(st.just("start"), st.integers(0, 1), st.just(0)),
        st.tuples(st.just("look"), st.just(0), st.just(0)),
    ),
    min_size=6,
    max_size=24,
)


async def wandering(steps: list[tuple[str, int, int]], names: tuple[str, ...]) -> None:
    """Three readers over engines whose store loses some of what it had: `Traveller` tells of another event."""
    store = LosingStore()
    readers = [Traveller() for _ in range(3)]
    async with engines(store, *names) as all_, trio.open_nursery() as nursery:
        await all_[0].create_session("s")
        store.keep()
        for what, where, number in steps:
            engine = all_[where % len(all_)]
            match what:
                case "post":
                    with suppress(Moved, WriteFailed):  # said honestly: it was lost on the way, or another has it
                        await posted(await engine.session("s"), *map(str, range(number)))
                case "read":
                    await readers[number].read(await engine.session("s"))
                case "keep":
                    store.keep()
                case "go back":
                    store.go_back(number)
                case "start":
                    with_session = await engine.session("s")
                    nursery.start_soon(started, with_session)
                    await wait_all_tasks_blocked()
                case _:
                    await trio.sleep(6)
        for _ in range(2):  # what was live is ended meanwhile
            await wait_all_tasks_blocked()
            for reader in readers:
                await reader.read(await all_[0].session("s"))
        tail = await (await all_[0].session("s")).cursor()
        assert {reader.cursor for reader in readers} == {tail}
        nursery.cancel_scope.cancel()


async def started(session: Session) -> None:
    with suppress(Moved, WriteFailed):
        await session.start(Steered(), policy="supersede")


@pytest.mark.parametrize("names", [("",), ("a", "b")], ids=["alone", "two"])
@settings(max_examples=15)
@given(steps=STEPS)
def test_no_reader_ever_gets_another_event_where_it_had_one(
    steps: list[tuple[str, int, int]], names: tuple[str, ...]
) -> None:
    trio.run(wandering, steps, names, clock=MockClock(autojump_threshold=0))
