"""Compaction over random sessions: what is folded is the same, at any time, for anybody, from anywhere."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final, final

import pytest
import trio
import trio.testing
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.engine import (
    Batch,
    Compactor,
    Config,
    Cursor,
    Event,
    EventLog,
    MemoryLog,
    Progress,
    Session,
    SessionState,
    decode,
    encode,
    open_engine,
)
from penstock.engine.errors import StaleEpoch, StorageError, WriteFailed
from penstock.engine.events import (
    BlockClosed,
    BlockDelta,
    BlockOpened,
    Data,
    GenerationFinished,
    GenerationStarted,
    GenerationStatus,
    MessageClosed,
    MessageOpened,
    MessageSnapshot,
    SessionCreated,
)
from penstock.engine.log import Append, Compact, Delete, Write
from penstock.engine.reducer import Gap, Snapshot
from penstock.engine.rules.compacting import seconds_of
from penstock.engine.rules.records import COMPACTED, DIRTY, OPEN, OpenRecord, dirty, to_record
from penstock.engine.testing import check_log
from tests.engine import strategies
from tests.engine.faulty import Fail, Fault, FaultyLog, Hold
from tests.engine.strategies import EPOCH, SESSION, logs
from tests.extent import examples

# An hour behind all that `logs` writes.
LATER: Final = seconds_of("2025-03-01T11:01:00.000Z")


def config(compact_after: float | None = 3600.0) -> Config:
    return Config(compact_after=compact_after)


@final
class Writing:
    """Appends events with the records that the engine would write with them."""

    def __init__(self, log: EventLog, session_id: str = SESSION) -> None:
        self.log = log
        self.session_id = session_id
        self.tail = 0

    async def append(self, events: Sequence[Event]) -> None:
        records: dict[str, bytes | None] = {}
        for event in events:
            if isinstance(event.data, GenerationStarted):
                assert event.generation_id
                assert event.turn
                assert event.offset
                record = OpenRecord(generation_id=event.generation_id, turn=event.turn, after=event.offset - 1)
                records[OPEN] = to_record(record)
            elif isinstance(event.data, GenerationFinished) and event.turn is not None:
                assert event.generation_id
                records |= {OPEN: None, **dirty(event.generation_id, event.time)}
        write = Append(
            session_id=self.session_id,
            epoch=EPOCH,
            expected_tail=self.tail,
            token=1,
            events=[encode(event) for event in events],
            records=records,
            create=self.tail == 0,
        )
        await self.log.write(write)
        self.tail += len(events)


async def stored(log: EventLog, session_id: str = SESSION, after: int = 0) -> list[Event]:
    entries = await log.read(session_id, EPOCH, after=after, limit=100_000, max_bytes=1 << 30)
    events = [decode(entry.body) for entry in entries]
    assert [event.offset for event in events] == [entry.offset for entry in entries]
    return events


def fold(events: Iterable[Event], state: SessionState | None = None) -> SessionState:
    state = state or SessionState(SESSION, EPOCH)
    for event in events:
        folded = state.apply(event)
        assert not isinstance(folded, Gap), folded
    return state


def whole(events: Iterable[Event]) -> Snapshot:
    return fold(events).snapshot()


def blocks_of(events: Sequence[Event]) -> int:
    return sum(event.seq is not None for event in events)


def compactable(events: Sequence[Event]) -> set[str]:
    """Closed messages of generations that have ended, with something to save."""
    ended = {event.generation_id for event in events if isinstance(event.data, GenerationFinished)}
    return {
        event.message_id
        for event in events
        if isinstance(event.data, MessageClosed) and event.generation_id in ended and event.message_id
        if sum(e.seq is not None and e.message_id == event.message_id for e in events) > 1
    }


def running(work: Callable[[], Awaitable[None]]) -> None:
    """Run an async property, on a clock that jumps over the compactor's rests."""
    trio.run(work, clock=trio.testing.MockClock(autojump_threshold=0))


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that there are many of them."""
    monkeypatch.setattr("penstock.engine.upkeep.compaction._PIECE", 2)
    monkeypatch.setattr("penstock.engine.upkeep.compaction._PAGE", 5)


@settings(max_examples=examples(150))
@given(events=logs(max_steps=60))
def test_compaction_swaps_the_events_of_old_messages_and_nothing_else(events: list[Event]) -> None:
    async def work() -> None:
        log = MemoryLog()
        await Writing(log).append(events)
        done = await Compactor(log, config(), wall=lambda: LATER).compact_all()
        after = await stored(log)
        assert after == strategies.compact(events, compactable(events))
        assert check_log(after, compacted=True) == []
        assert whole(after) == whole(events)
        assert done.events == len(events) - len(after)
        assert await log.record(SESSION, EPOCH, DIRTY) is None
        # There is nothing left to do, and it is known without a look.
        again = FaultyLog(log)
        assert (await Compactor(again, config(), wall=lambda: LATER).compact_all()).events == 0
        assert again.writes == []

    running(work)


@settings(max_examples=examples(150))
@given(events=logs(max_steps=60), data=st.data())
def test_whatever_piece_is_the_last_one_the_log_folds_and_any_cursor_resumes(
    events: list[Event], data: st.DataObject
) -> None:
    async def work() -> None:
        log = FaultyLog(MemoryLog())
        await Writing(log).append(events)
        left = data.draw(st.integers(0, 12), label="pieces until the crash")
        log.schedule = lambda number, write: None if number <= left else Fail(whole=True)
        with contextlib.suppress(WriteFailed):
            await Compactor(log, config(), wall=lambda: LATER).compact_all()
        interrupted = await stored(log)
        assert check_log(interrupted, compacted=True) == []
        for cursor in range(len(events) + 1):
            reader = fold(events[:cursor])
            assert fold(await stored(log, after=cursor), reader).snapshot() == whole(events)
        log.schedule = None
        await Compactor(log, config(), wall=lambda: LATER).compact_all()
        assert await stored(log) == strategies.compact(events, compactable(events))

    running(work)


@settings(max_examples=examples(100))
@given(events=logs(max_steps=80), data=st.data())
def test_writers_and_readers_go_on_while_pieces_are_compacted(events: list[Event], data: st.DataObject) -> None:
    async def work() -> None:
        log = FaultyLog(MemoryLog())
        writing = Writing(log)
        first = data.draw(st.integers(1, len(events)), label="stored before")
        await writing.append(events[:first])
        holds: list[Hold] = []

        def schedule(_: int, write: Write) -> Fault | None:
            if not isinstance(write, Compact):
                return None
            holds.append(Hold())
            return holds[-1]

        log.schedule = schedule
        readers = [SessionState(SESSION, EPOCH) for _ in range(3)]
        compactor = Compactor(log, config(), wall=lambda: LATER)
        over = False

        async def compacting() -> None:
            nonlocal over
            await compactor.compact_all()
            over = True

        async with trio.open_nursery() as nursery:
            nursery.start_soon(compacting)
            while not over:
                await trio.testing.wait_all_tasks_blocked()
                for reader in readers:
                    page = await log.inner.read(
                        SESSION, EPOCH, after=reader.offset, limit=data.draw(st.integers(1, 4)), max_bytes=1 << 20
                    )
                    fold((decode(entry.body) for entry in page), reader)
                more = data.draw(st.integers(0, 3), label="appended meanwhile")
                if more and writing.tail < len(events):
                    # Around the lane of the held piece, as the writer thread would do it.
                    writing.log = log.inner
                    await writing.append(events[writing.tail : writing.tail + more])
                assert check_log(await stored(log.inner), compacted=True) == []
                if holds:
                    holds.pop(0).release()
        log.schedule = None
        writing.log = log
        await writing.append(events[writing.tail :])
        for reader in readers:
            assert fold(await stored(log, after=reader.offset), reader).snapshot() == whole(events)
        await compactor.compact_all()
        assert await stored(log) == strategies.compact(events, compactable(events))

    running(work)


# One session, by hand


def at(second: int) -> str:
    return f"2025-03-01T10:{second // 60:02d}:{second % 60:02d}.000Z"


@final
class Story:
    """A session's events, a second each."""

    def __init__(self, session_id: str = SESSION) -> None:
        self.session_id = session_id
        self.events: list[Event] = []
        self.turn = 0
        self.generation_id: str | None = None
        self.messages = 0
        self.add(SessionCreated(metadata={}))

    def add(self, data: Data, message_id: str | None = None, index: int | None = None, seq: int | None = None) -> None:
        offset = len(self.events) + 1
        self.events.append(
            Event(
                data=data,
                session_id=self.session_id,
                time=at(offset),
                offset=offset,
                generation_id=self.generation_id,
                turn=None if self.generation_id is None else self.turn,
                message_id=message_id,
                block_index=index,
                seq=seq,
            )
        )

    def start(self) -> None:
        self.turn += 1
        self.generation_id = f"00000000-0000-7000-8000-00000001{self.turn:04x}"
        self.add(GenerationStarted(producer="p", policy="supersede"))

    def end(self) -> None:
        self.add(GenerationFinished(outcome="completed"))
        self.generation_id = None

    def message(self, *texts: str, status: str | None = None) -> str:
        """With ``status``, the generation says so behind each piece."""
        self.messages += 1
        message_id = f"00000000-0000-7000-8000-00000002{self.messages:04x}"
        self.add(MessageOpened(role="assistant"), message_id)
        self.add(BlockOpened(kind="text"), message_id, 0, 0)
        for seq, text in enumerate(texts, 1):
            self.add(BlockDelta(text=text), message_id, 0, seq)
            if status is not None:
                self.add(GenerationStatus(status=status))
        self.add(BlockClosed(), message_id, 0, len(texts) + 1)
        self.add(MessageClosed(status="complete", finish_reason="stop"), message_id)
        return message_id

    def answer(self, *texts: str) -> str:
        self.start()
        message_id = self.message(*texts)
        self.end()
        return message_id


@pytest.mark.parametrize("comes_again", [False, True])
@pytest.mark.parametrize("held", range(1, 23))
def test_a_page_that_somebody_holds_is_given_to_nobody_once_its_events_are_rewritten(
    held: int, comes_again: bool
) -> None:
    """The others read while the pieces of messages go, one behind the other, and after; some on several connections.

    What stands between the pieces of a message stays: there a page can end of which the first half is gone.
    """

    async def work() -> None:
        log, story = FaultyLog(MemoryLog()), Story()
        story.start()
        for _ in range(2):
            story.message("one", "two", "three", status="thinking")
        story.end()
        assert len(story.events) == 23
        await Writing(log).append(story.events)
        pieces: list[Hold] = []

        def schedule(_: int, write: Write) -> Fault | None:
            if isinstance(write, Compact):
                pieces.append(Hold())
                return pieces[-1]
            return None

        async with open_engine(log, config=Config(compact_after=None, page_events=4)) as engine:
            session = await engine.session(SESSION)
            epoch = (await session.cursor()).epoch
            async with session.subscribe(Cursor(epoch, held), live=False) as holder:
                while not isinstance(page := await holder.receive(), Batch):
                    pass
                log.schedule = schedule
                done = trio.Event()

                async def compacting() -> None:
                    await Compactor(log, config(), aside=engine._registry, wall=lambda: LATER).compact_all()
                    done.set()

                async with trio.open_nursery() as nursery:
                    nursery.start_soon(compacting)
                    while not done.is_set():
                        await trio.testing.wait_all_tasks_blocked()
                        await read_it(session, epoch, comes_again=comes_again, events=story.events)
                        if pieces:
                            pieces.pop(0).release()
                assert len(await stored(log)) < len(story.events)
                await read_it(session, epoch, comes_again=comes_again, events=story.events)
                assert page.last > held

    running(work)


@pytest.mark.parametrize("enters", ["before", "meanwhile"])
async def test_while_events_are_rewritten_no_page_is_shared(enters: str) -> None:
    log, story = MemoryLog(), Story()
    story.message("one", "two")
    await Writing(log).append(story.events)
    async with open_engine(log) as engine:
        pages = []
        if enters == "before":
            pages.append(await first_page(await engine.session(SESSION)))
        assert bool(pages) is bool(engine._registry.residents)
        with engine._registry.rewriting(SESSION):
            session = await engine.session(SESSION)
            pages += [await first_page(session), await first_page(session)]
        pages.append(await first_page(session))
        assert len(set(map(id, pages))) == len(pages)
        assert await first_page(session) is pages[-1]


async def first_page(session: Session) -> Batch:
    async with session.subscribe(Cursor(EPOCH, 0), live=False) as reader:
        while not isinstance(page := await reader.receive(), Batch):
            pass
        return page


async def read_it(session: Session, epoch: str, *, comes_again: bool, events: Sequence[Event]) -> None:
    """All of it adds up to what the events do, also where every page is read on a new connection."""
    state = SessionState(SESSION, epoch)
    at_end = False
    while not at_end:
        async with session.subscribe(Cursor(epoch, state.offset), live=False) as reader:
            try:
                while True:
                    delivery = await reader.receive()
                    if isinstance(delivery, Batch):
                        fold(delivery.events(), state)
                        if comes_again:
                            break
            except trio.EndOfChannel:
                at_end = True
    assert state.snapshot().messages == whole(events).messages


def types(events: Sequence[Event]) -> list[str]:
    return [event.type for event in events]


async def test_the_snapshot_stands_where_the_last_block_event_stood() -> None:
    log, story = MemoryLog(), Story()
    story.answer("water ", "finds ", "its way")
    await Writing(log).append(story.events)
    await Compactor(log, config(0)).compact_all()
    after = await stored(log)
    assert types(after) == [
        "session.created",
        "generation.started",
        "message.opened",
        "message.snapshot",
        "message.closed",
        "generation.finished",
    ]
    last = story.events[7]
    assert isinstance(last.data, BlockClosed)
    snapshot = after[3].data
    assert isinstance(snapshot, MessageSnapshot)
    assert after[3] == evolve(last, data=snapshot, block_index=None, seq=None)
    assert (snapshot.role, snapshot.status) == ("assistant", "complete")
    assert [(block.kind, block.seq, block.text) for block in snapshot.blocks] == [("text", 4, "water finds its way")]


async def test_only_messages_that_were_closed_long_enough_ago_are_compacted() -> None:
    log, story = MemoryLog(), Story()
    story.answer("a", "b", "c")
    closed = story.events[-2].time
    story.answer("d", "e", "f")
    await Writing(log).append(story.events)
    for wall, left in ((59.999, 10), (60.0, 5), (68.999, 5), (69.0, 0)):
        await Compactor(log, config(60), wall=lambda wall=wall: seconds_of(closed) + wall).compact_all()  # type: ignore[misc]
        assert blocks_of(await stored(log)) == left
        marked = await log.record(SESSION, EPOCH, DIRTY) is not None
        assert marked is (left > 0)


async def test_a_live_generation_keeps_every_event() -> None:
    log, story = MemoryLog(), Story()
    story.answer("a", "b")
    story.start()
    story.message("c", "d")
    await Writing(log).append(story.events)
    compactor = Compactor(log, config(0))
    await compactor.compact_all()
    assert blocks_of(await stored(log)) == 4
    # It will be marked again when it ends.
    assert await log.record(SESSION, EPOCH, DIRTY) is None


async def test_what_was_superseded_is_compacted_once_its_successor_has_ended() -> None:
    log, story = MemoryLog(), Story()
    story.start()
    story.message("a", "b")
    first = len(story.events)
    story.message("c", "d")
    story.end()
    story.start()
    live = len(story.events)
    story.end()
    writing = Writing(log)
    await writing.append(story.events[:live])
    # The end of the one and the start of the other are one part, before which the index says that the other began.
    record = OpenRecord(generation_id=story.events[live - 1].generation_id or "", turn=2, after=first + 2)
    await log.write(
        Append(
            session_id=SESSION, epoch=EPOCH, expected_tail=live, token=1, events=[], records={OPEN: to_record(record)}
        )
    )
    await Compactor(log, config(0)).compact_all()
    assert blocks_of(await stored(log)) == 4
    await writing.append(story.events[live:])
    await Compactor(log, config(0)).compact_all()
    assert blocks_of(await stored(log)) == 0


async def test_switched_off_it_does_nothing() -> None:
    log, story = MemoryLog(), Story()
    story.answer("a", "b")
    await Writing(log).append(story.events)
    compactor = Compactor(log, config(None))
    await compactor.run()
    assert (await compactor.compact_all()).events == 0
    assert await stored(log) == story.events


async def test_what_this_version_does_not_understand_is_left_as_it_is() -> None:
    log, story = MemoryLog(), Story()
    story.answer("a", "b")
    story.answer("c", "d")
    story.events[4] = evolve(story.events[4], data=BlockDelta(text="a", extra={"logprob": -1}))
    await Writing(log).append(story.events)
    await Compactor(log, config(0)).compact_all()
    after = await stored(log)
    assert after[:9] == story.events[:9]
    assert blocks_of(after) == 4


async def test_a_message_with_next_to_nothing_in_it_is_left_as_it_is() -> None:
    log, story = MemoryLog(), Story()
    story.start()
    message_id = "00000000-0000-7000-8000-000000020001"
    story.add(MessageOpened(role="assistant"), message_id)
    story.add(MessageClosed(status="complete"), message_id)
    story.end()
    await Writing(log).append(story.events)
    assert (await Compactor(log, config(0)).compact_all()).messages == 0
    assert await stored(log) == story.events


async def test_an_event_that_cannot_be_read_keeps_only_its_own_session_as_it_is(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log, story, other = MemoryLog(), Story("a"), Story("b")
    for each in (story, other):
        each.answer("a", "b", "c")
        each.answer("d", "e", "f")
        await Writing(log, each.session_id).append(each.events)
    await log.write(Compact(session_id="a", epoch=EPOCH, replace={14: b"nonsense"}))
    with caplog.at_level(logging.WARNING):
        await Compactor(log, config(0)).compact_all()
    assert "session a is not compacted" in caplog.text
    assert len(await log.read("a", EPOCH, after=0, limit=99, max_bytes=9999)) == 15
    assert blocks_of(await stored(log, "b")) == 0


async def test_progress_is_told_up_to_the_end() -> None:
    log = MemoryLog()
    for name in "abc":
        story = Story(name)
        for _ in range(4):
            story.answer("a", "b", "c")
        await Writing(log, name).append(story.events)
    told: list[Progress] = []
    await Compactor(log, config(0)).compact_all(told.append)
    done = [progress.done for progress in told]
    assert done == sorted(done)
    assert {progress.total for progress in told} == {3 * 37}
    assert done[-1] == 3 * 37
    assert len(set(done)) > 10


async def test_an_interrupted_compaction_goes_on_where_it_was() -> None:
    log, story = FaultyLog(MemoryLog()), Story()
    for _ in range(6):
        story.answer("a", "b", "c")
    await Writing(log).append(story.events)
    # Two messages of three pieces each, and one piece of the third.
    log.schedule = lambda number, write: None if number <= 5 else Fail(whole=True)
    with pytest.raises(WriteFailed):
        await Compactor(log, config(0)).compact_all()
    begun = len(log.writes)
    log.schedule = None
    done = await Compactor(log, config(0)).compact_all()
    assert (done.messages, done.events) == (4, 4 * 4 - 2)
    removed = [offset for write in log.writes[begun:] if isinstance(write, Compact) for offset in write.remove]
    assert min(removed) > 19
    assert blocks_of(await stored(log)) == 0


async def test_a_mark_that_was_set_meanwhile_stays() -> None:
    log, story = FaultyLog(MemoryLog()), Story()
    story.answer("a", "b")
    first = len(story.events)
    story.answer("c", "d")
    writing = Writing(log)
    await writing.append(story.events[:first])
    hold = Hold()
    log.schedule = lambda _, write: hold if isinstance(write, Compact) and write.forget else None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Compactor(log, config(0)).compact_all)
        await trio.testing.wait_all_tasks_blocked()
        assert len(hold) == 1
        writing.log = log.inner
        await writing.append(story.events[first:])
        hold.release()
    assert await log.record(SESSION, EPOCH, DIRTY) is not None
    assert blocks_of(await stored(log)) == 4
    await Compactor(log, config(0)).compact_all()
    assert blocks_of(await stored(log)) == 0


async def test_a_session_that_is_deleted_meanwhile_is_left_alone() -> None:
    log, story = FaultyLog(MemoryLog()), Story()
    for _ in range(3):
        story.answer("a", "b", "c")
    await Writing(log).append(story.events)
    hold = Hold()
    log.schedule = lambda number, write: hold if number == 2 else None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Compactor(log, config(0)).compact_all)
        await trio.testing.wait_all_tasks_blocked()
        await log.inner.write(Delete(session_id=SESSION, epoch=EPOCH, token=1))
        hold.release()
    with pytest.raises(StaleEpoch):
        await stored(log)


# In the background

EARLY: Final = seconds_of(at(0))


def in_background(log: EventLog, compact_after: float, work: Callable[[], Awaitable[None]]) -> None:
    """Do ``work`` beside a compactor, from the story's first second on."""

    async def main() -> None:
        begin = trio.current_time()
        async with trio.open_nursery() as nursery:
            compactor = Compactor(log, config(compact_after), wall=lambda: EARLY + trio.current_time() - begin)
            nursery.start_soon(compactor.run)
            await work()
            nursery.cancel_scope.cancel()

    running(main)


def test_in_the_background_messages_are_compacted_when_they_are_due() -> None:
    log, story = MemoryLog(), Story()

    async def work() -> None:
        story.answer("a", "b", "c")
        await trio.sleep(10)
        await Writing(log).append(story.events)
        await trio.sleep(600 - 10)
        assert blocks_of(await stored(log)) == 5
        # Its generation ended at 10 s; looked for every 1 % of the limit.
        await trio.sleep(10 + 6 + 1)
        assert blocks_of(await stored(log)) == 0
        assert await log.holders(DIRTY) == []

    in_background(log, 600, work)


def test_in_a_session_that_goes_on_and_on_old_messages_are_compacted_all_the_same() -> None:
    log, story = MemoryLog(), Story()

    async def work() -> None:
        writing = Writing(log)
        for _ in range(250):
            story.answer("a", "b", "c")
            await trio.sleep(8)
            await writing.append(story.events[writing.tail :])
        # 250 answers of 8 s: all but those of the last 2 x 600 s, and of a pause, must be done.
        assert blocks_of(await stored(log)) <= 5 * (1200 + 16) / 8

    in_background(log, 600, work)


def test_while_the_store_fails_the_compactor_waits_and_goes_on_later(caplog: pytest.LogCaptureFixture) -> None:
    log, story = FaultyLog(MemoryLog()), Story()

    async def work() -> None:
        story.answer("a", "b", "c")
        await Writing(log).append(story.events)
        log.fail_reads = True
        await trio.sleep(10)
        log.fail_reads = False
        log.schedule = lambda *_: Fail(whole=True)
        await trio.sleep(10)
        log.schedule = None
        assert blocks_of(await stored(log)) == 5
        await trio.sleep(10)
        assert blocks_of(await stored(log)) == 0

    in_background(log, 0, work)
    assert "compaction waits for the store" in caplog.text


def test_a_damaged_session_is_told_of_once_and_holds_up_no_other(caplog: pytest.LogCaptureFixture) -> None:
    log, story, other = MemoryLog(), Story(), Story("s-2")

    async def work() -> None:
        story.answer("a", "b", "c")
        await Writing(log).append(story.events)
        await log.write(Compact(session_id=SESSION, epoch=EPOCH, replace={5: b"nonsense"}))
        other.answer("a", "b", "c")
        await Writing(log, "s-2").append(other.events)
        await trio.sleep(100)
        assert [session_id for session_id, _ in await log.holders(DIRTY)] == [SESSION]
        assert await log.record(SESSION, EPOCH, COMPACTED) is None
        assert await log.record("s-2", EPOCH, COMPACTED) is not None

    in_background(log, 0, work)
    assert len(caplog.records) == 1


async def test_what_cannot_be_read_is_told_to_whoever_compacts_by_hand() -> None:
    log = FaultyLog(MemoryLog())
    log.fail_reads = True
    with pytest.raises(StorageError):
        await Compactor(log, config(0)).compact_all()


@pytest.mark.parametrize("bad", [{"compact_after": -1}, {"session_max_age": 0}, {"session_max_age": -1.0}])
def test_ages_that_make_no_sense_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be"):
        Config(**bad)  # type: ignore[arg-type]
