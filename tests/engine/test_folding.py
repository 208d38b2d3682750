"""The fold of a session in memory: whatever it has let go of, what it shows is the fold of the whole log."""

from __future__ import annotations

import tracemalloc
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from typing import Final, TypeAlias
from unittest.mock import patch

import pytest
import trio
import trio.testing
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

import penstock.engine.reducer.transcript
from penstock.engine import (
    App,
    BlockSnapshot,
    Config,
    CorruptSession,
    Event,
    Gap,
    Generation,
    MemoryLog,
    MessageClosed,
    MessageNotFound,
    MessageOpened,
    MessageRetracted,
    MessageSnapshot,
    Session,
    SessionReset,
    encode,
    new_message_id,
    open_engine,
)
from penstock.engine.log.port import Entry
from penstock.engine.reducer import SessionState
from penstock.engine.reducer.content import Evicted
from penstock.engine.stream.folding import Fold
from penstock.engine.work import at_once
from tests.engine.strategies import EPOCH, SESSION, compact, logs

MIB: Final = 1024 * 1024


@pytest.fixture(scope="module", autouse=True)
def few() -> Iterator[None]:
    """What is evicted is read again a few messages at a time, so that there is more than one time."""
    with patch("penstock.engine.stream.folding._AT_A_TIME", 3):
        yield


class Stored:
    """What is stored of a session, in pages of so many events; what is compacted, and how far it goes, may change."""

    def __init__(self, events: Sequence[Event], page: int) -> None:
        self.events = events
        self.tail = 0
        self.page = page
        self.reads = 0
        self.compacted: set[str] = set()

    async def read(self, after: int, limit: int | None = None, /) -> list[Entry]:
        self.reads += 1
        await trio.lowlevel.checkpoint()
        there = compact(self.events[: self.tail], self.compacted) if self.compacted else self.events[: self.tail]
        found = [Entry(event.offset, encode(event)) for event in there if event.offset and event.offset > after]
        return found[: min(self.page, limit or self.page)]

    def fold(self, config: Config) -> Fold:
        return Fold(SESSION, EPOCH, self.read, lambda: self.tail, config)


def ids_of(events: Sequence[Event]) -> list[str]:
    return sorted({event.message_id for event in events if event.message_id is not None})


def folded(events: Sequence[Event], state: SessionState | None = None) -> SessionState:
    state = state or SessionState(SESSION, EPOCH)
    for event in events:
        state.apply(event)
    return state


@given(logs(), st.data())
def test_what_a_fold_shows_is_the_fold_of_the_whole_whatever_it_has_let_go_of(
    log: list[Event], data: st.DataObject
) -> None:
    """At any tails, with any bounds, for any page, also while events give way to what stands for them.

    Also where the oldest places are kept in columns, in blocks of few.
    """
    config = Config(
        fold_bytes=data.draw(st.sampled_from([1, 2000, 5000, 2 * MIB])),
        snapshot_bytes=data.draw(st.integers(1, 900)),
    )
    stored = Stored(log, data.draw(st.integers(1, 20)))

    async def run() -> None:
        fold = stored.fold(config)
        for tail in sorted(data.draw(st.lists(st.integers(0, len(log)), min_size=1, max_size=4))):
            stored.tail = tail
            if log and (ids := ids_of(log)):
                compacted: set[str] = data.draw(st.sets(st.sampled_from(ids), max_size=3))
                stored.compacted |= compacted
            whole = folded(log[:tail])
            limit, before, with_open = draw_page(data, whole)
            assert await fold.snapshot(limit, before) == whole.snapshot(limit, before)
            count = 1000 if limit is None else limit
            page = await fold.page(count, before, with_open=with_open)
            wanted = at_once(whole.encoding_snapshot(count, before, config.snapshot_bytes, with_open=with_open))
            assert (page.snapshot, page.body) == wanted
            assert await fold.ask(SessionState.message_ids) == whole.message_ids()
            assert await fold.ask(partial(SessionState.message_ids, first=before)) == whole.message_ids(before)
            with pytest.raises(MessageNotFound):
                await fold.snapshot(None, "nobody")

    with patch.object(penstock.engine.reducer.transcript, "BLOCK", data.draw(st.integers(1, 4))):
        trio.run(run)


def draw_page(data: st.DataObject, whole: SessionState) -> tuple[int | None, str | None, bool]:
    limit: int | None = data.draw(st.none() | st.integers(0, 5))
    before: str | None = data.draw(st.sampled_from([None, *whole.message_ids()]))
    return limit, before, data.draw(st.booleans())


@given(logs(max_steps=80), st.sampled_from([1, 2000, 5000]), st.data())
def test_those_closed_last_stay_as_many_as_the_bound_has_room_for_or_one(
    log: list[Event], most: int, data: st.DataObject
) -> None:
    state, whole = SessionState(SESSION, EPOCH), SessionState(SESSION, EPOCH)
    gone: set[str] = set()
    position = 0
    for cut in [*sorted(data.draw(st.lists(st.integers(0, len(log)), max_size=3))), len(log)]:
        folded(log[position:cut], state)
        closed = folded(log[position:cut], whole)._transcript._held
        position = cut
        at_once(state.evicting(most))
        kept = {mid: at_once(message.weighing()) for mid, message in closed.items() if mid not in gone}
        while sum(kept.values()) > most and len(kept) > 1:
            oldest = next(iter(kept))
            gone.add(oldest)
            del kept[oldest]
        assert {mid: message.weight for mid, message in state._transcript._held.items()} == kept
        transcript = state._transcript
        places = [message for message in transcript._by_id.values() if isinstance(message, Evicted)]
        assert {place.message_id for place in places} == gone & closed.keys()
        for place in places:
            message = closed[place.message_id]
            assert (place.first, place.last, place.ordinal) == (message.first, message.last, message.ordinal)


@given(logs(max_steps=60), st.sampled_from([1, 5000]), st.data())
def test_what_is_evicted_may_neither_come_again_nor_end_again_and_leaves_once(
    log: list[Event], most: int, data: st.DataObject
) -> None:
    state = folded(log)
    with patch.object(penstock.engine.reducer.transcript, "BLOCK", data.draw(st.integers(1, 4))):
        at_once(state.evicting(most))
    whole = folded(log)
    again = [event for event in log if isinstance(event.data, MessageOpened | MessageClosed | MessageRetracted)]
    for event in data.draw(st.permutations(again)):
        late = evolve(event, offset=whole.offset + 1)
        assert isinstance(state.apply(late), Gap) == isinstance(whole.apply(late), Gap)
        assert state.message_ids() == whole.message_ids()


def test_a_reset_takes_what_was_evicted_too() -> None:
    state = folded([post(offset) for offset in range(1, 400)])
    at_once(state.evicting(1))
    state.apply(evolve(post(400), data=SessionReset(), message_id=None))
    assert (state.message_ids(), state.snapshot().messages) == ([], ())
    state.apply(post(401))
    assert state.message_ids() == [post(401).message_id]


# --- memory

COUNT: Final = 120
LARGE: Final = "x" * 200_000


async def say(session: Session, producer: Callable[[Generation], Awaitable[None]]) -> None:
    done = trio.Event()

    async def saying(generation: Generation) -> None:
        await producer(generation)
        done.set()

    await session.start(saying)
    await done.wait()
    await trio.testing.wait_all_tasks_blocked()


async def posts(session: Session) -> None:
    for number in range(COUNT):
        await session.post(f"{number} {LARGE}")


async def answers(session: Session) -> None:
    async def producer(generation: Generation) -> None:
        for number in range(COUNT):
            async with generation.message() as message, message.text() as block:
                for _ in range(40):
                    await block.write(f"{number} {LARGE[:5000]}")

    await say(session, producer)


async def values(session: Session) -> None:
    """Of many small parts: in memory they are several times as large as their JSON."""

    async def producer(generation: Generation) -> None:
        for _ in range(COUNT // 2):
            async with generation.message() as message, message.data() as block:
                await block.put([[number] for number in range(5_000)])

    await say(session, producer)


async def newest(session: Session) -> None:
    await session.snapshot(limit=20)


async def every_page(session: Session) -> None:
    before: str | None = None
    while (page := (await session.snapshot_page(before=before)).snapshot).more:
        before = page.next


async def turns(session: Session) -> None:
    async def producer(generation: Generation) -> None:
        assert len((await generation.snapshot(limit=20)).messages) == 20

    for _ in range(5):
        await say(session, producer)


async def retraction(session: Session) -> None:
    with pytest.raises(MessageNotFound):
        await session.retract(new_message_id())


Act: TypeAlias = Callable[[Session], Awaitable[None]]


async def most_memory(content: Act, ask: Act, config: Config) -> int:
    """How many bytes it takes to ask, at most."""
    log = MemoryLog()
    async with open_engine(log, config=config) as engine:
        await content(await engine.create_session(SESSION))
    async with open_engine(log, config=config) as engine:
        session = await engine.session(SESSION)
        await session.cursor()
        tracemalloc.start()
        try:
            await ask(session)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()


@pytest.mark.parametrize("content", [posts, answers, pytest.param(values, marks=pytest.mark.long)])
@pytest.mark.parametrize("ask", [newest, every_page, turns, retraction])
async def test_a_session_in_use_takes_a_bounded_part_of_memory_whatever_it_says(content: Act, ask: Act) -> None:
    config = Config(compact_after=None, page_bytes=64 * 1024, snapshot_bytes=64 * 1024)
    assert await most_memory(content, ask, config) < 16 * MIB
    assert await most_memory(content, ask, evolve(config, fold_bytes=1024 * MIB)) > 22 * MIB, "there is so much of it"


# --- what is read again


async def test_messages_that_are_not_where_they_stood_are_damage_and_not_read_for_ever() -> None:
    events = [post(offset) for offset in range(1, 9)]
    stored = Stored(events, 3)
    stored.tail = len(events)
    fold = stored.fold(Config(fold_bytes=1))
    await fold.go_on()
    stored.events = [*(evolve(event, data=App(type="app.other", value={})) for event in events[:4]), *events[4:]]
    with pytest.raises(CorruptSession):
        await fold.snapshot(None, None)
    assert len((await fold.snapshot(4, None)).messages) == 4, "what is sound is shown"


@patch("penstock.engine.stream.folding._AT_A_TIME", 10)
async def test_what_is_read_again_is_what_was_asked_for_and_no_more() -> None:
    stored = Stored([post(offset) for offset in range(1, 101)], 10)
    stored.tail = 100
    fold = stored.fold(Config(fold_bytes=1))
    await fold.go_on()
    stored.reads = 0
    ids = await fold.ask(SessionState.message_ids)
    page = await fold.page(10, ids[50], with_open=False)
    assert [message.message_id for message in page.snapshot.messages] == ids[40:50]
    assert stored.reads == 1


async def test_cancelled_while_it_reads_again_a_fold_is_as_before() -> None:
    events = [post(offset) for offset in range(1, 41)]
    whole = folded(events).snapshot()
    for turns in range(60):
        stored = Stored(events, 3)
        stored.tail = len(events)
        fold = stored.fold(Config(fold_bytes=2500))
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:

                async def cancel(scope: trio.CancelScope = scope, turns: int = turns) -> None:
                    for _ in range(turns):
                        await trio.lowlevel.checkpoint()
                    scope.cancel()

                nursery.start_soon(cancel)
                await fold.snapshot(None, None)
        assert await fold.snapshot(None, None) == whole
        assert (await fold.page(7, None, with_open=False)).snapshot.messages == whole.messages[-7:]


def post(offset: int) -> Event:
    blocks = (BlockSnapshot(kind="text", seq=0, text=f"text {offset}"),)
    return Event(
        data=MessageSnapshot(role="user", status="complete", blocks=blocks),
        session_id=SESSION,
        offset=offset,
        time="2025-03-01T10:00:00.000Z",
        message_id=f"00000000-0000-7000-8000-{offset:012}",
    )
