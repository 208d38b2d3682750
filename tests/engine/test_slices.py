"""The loop is never held: what is large is done in slices, and what others do meanwhile neither waits nor harms it."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from types import FrameType
from typing import Final, final

import pytest
import trio
import trio.testing
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from penstock.engine import (
    App,
    Batch,
    Compactor,
    Config,
    Event,
    Generation,
    GenerationActive,
    InvalidBody,
    MessageRetracted,
    MessageSnapshot,
    Session,
    SessionState,
    WriteFailed,
    codec,
    decode,
    encode,
    new_generation_id,
    new_message_id,
    open_engine,
)
from penstock.engine.codec import Unstamped, converter, decoding, encode_json, encode_with, encoding_blocks
from penstock.engine.generation.stamper import LongPart, Records, stamp
from penstock.engine.log import Append, MemoryLog
from penstock.engine.rules.lifecycle import Draft
from penstock.engine.stream.journal import Mark
from penstock.engine.stream.slices import SLICE, in_slices
from penstock.engine.testing import check_log
from penstock.engine.work import Work, at_once
from tests.engine.faulty import Fail, FaultyLog
from tests.engine.remotes import body
from tests.engine.rules import events_of
from tests.engine.strategies import SESSION, logs

# Most of what messages say is evicted, in a small session as in a large one.
CONFIG: Final = Config(compact_after=None, idle_session=3600, subscriber_buffer=128, fold_bytes=64 * 1024)
# The longest step may be longer for a session that is four times as large by no more than this: what a slice happens to
# begin and end with.
ALLOWANCE: Final = 1.3


# --- how long the loop is held, counted in calls


@final
class Steps(trio.abc.Instrument):
    """Counts the calls between two of a task's checkpoints; those of the log's own reports are left out."""

    def __init__(self) -> None:
        self.longest = 0
        self._calls = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._calls = 0

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if "run_sync_soon" not in task.name:
            self.longest = max(self.longest, self._calls)

    def count(self, _frame: FrameType, _event: str, _argument: object) -> None:
        self._calls += 1


async def longest_step(work: Awaitable[object]) -> int:
    steps = Steps()
    trio.lowlevel.add_instrument(steps)
    sys.setprofile(steps.count)
    try:
        await work
    finally:
        sys.setprofile(None)
        trio.lowlevel.remove_instrument(steps)
    return steps.longest


async def said(session: Session, count: int, *, remote: bool = False) -> list[str]:
    """A generation of so many messages; of a remote one, which stays live, their ids."""
    if remote:
        gid = new_generation_id()
        for _ in range(count):
            mid = new_message_id()
            await session.chunks([body(gid, "x", message_id=mid), body(gid, type="message.closed", message_id=mid)])
        return [gid]
    done = trio.Event()

    async def producer(generation: Generation) -> None:
        for number in range(count):
            async with generation.message() as message, message.text() as block:
                await block.write(f"{number}")
        done.set()

    await session.start(producer)
    await done.wait()
    await trio.testing.wait_all_tasks_blocked()
    return [message.message_id for message in (await session.snapshot()).messages]


async def answered(session: Session, count: int) -> None:
    """So many generations of one message each."""

    async def producer(generation: Generation) -> None:
        async with generation.message() as message, message.text() as block:
            await block.write("here")

    for _ in range(count):
        await session.start(producer)
        await trio.testing.wait_all_tasks_blocked()


async def in_blocks(session: Session, count: int) -> None:
    """A generation of one message with so many blocks."""
    done = trio.Event()

    async def producer(generation: Generation) -> None:
        async with generation.message() as message:
            for number in range(count):
                async with message.text() as block:
                    await block.write(f"{number}")
        done.set()

    await session.start(producer)
    await done.wait()
    await trio.testing.wait_all_tasks_blocked()


async def answer(generation: Generation) -> None:
    await generation.status("here")


@asynccontextmanager
async def opened(log: MemoryLog) -> AsyncIterator[Session]:
    async with open_engine(log, config=CONFIG) as engine:
        yield await engine.create_session("s")


async def snapshot_of_messages(count: int) -> int:
    log = MemoryLog()
    async with opened(log) as session:
        await said(session, count)
    async with opened(log) as session:
        return await longest_step(session.snapshot())


async def snapshot_of_blocks(count: int) -> int:
    log = MemoryLog()
    async with opened(log) as session:
        await in_blocks(session, count)
    async with opened(log) as session:
        return await longest_step(session.snapshot())


async def snapshot_of_turns(count: int) -> int:
    log = MemoryLog()
    async with opened(log) as session:
        await answered(session, count)
    async with opened(log) as session:
        return await longest_step(session.snapshot())


async def fork_of_turns(count: int) -> int:
    async with opened(MemoryLog()) as session:
        await answered(session, count)
        return await longest_step(session.fork())


async def fork_of_messages(count: int) -> int:
    async with opened(MemoryLog()) as session:
        await said(session, count)
        return await longest_step(session.fork())


async def fork_of_blocks(count: int) -> int:
    async with opened(MemoryLog()) as session:
        await in_blocks(session, count)
        return await longest_step(session.fork())


async def snapshot_of_a_fork_of_blocks(count: int) -> int:
    """Its message is one event, with all of them."""
    log = MemoryLog()
    async with opened(log) as session:
        await in_blocks(session, count)
        await session.fork("fork")
    async with open_engine(log, config=CONFIG) as engine:
        fork = await engine.session("fork")
        return await longest_step(fork.snapshot())


async def compaction_beside_a_fork_of_blocks(count: int) -> int:
    log = MemoryLog()
    async with opened(log) as session:
        await in_blocks(session, count)
        await said(session, 3)
        await session.fork("fork")
    return await compaction(log)


async def replacement(count: int) -> int:
    async with opened(MemoryLog()) as session:
        first = (await said(session, count))[0]
        return await longest_step(session.start(answer, replaces=first))


async def restored(session: Session) -> int:
    first = (await session.snapshot(limit=None)).messages[0].message_id
    await session.start(answer, replaces=first)
    await trio.testing.wait_all_tasks_blocked()
    await session.restore(first)
    anew = (await session.snapshot(limit=None)).messages[0].message_id
    await session.start(answer, replaces=anew)
    await trio.testing.wait_all_tasks_blocked()
    return await longest_step(session.restore(anew))


async def restoring_of_messages(count: int) -> int:
    async with opened(MemoryLog()) as session:
        await said(session, count)
        return await restored(session)


async def restoring_of_blocks(count: int) -> int:
    async with opened(MemoryLog()) as session:
        await in_blocks(session, count)
        return await restored(session)


async def restoring_of_turns(count: int) -> int:
    async with opened(MemoryLog()) as session:
        await answered(session, count)
        return await restored(session)


async def replacement_beside_a_live_one(count: int) -> int:
    async with opened(MemoryLog()) as session:
        first = (await said(session, count))[0]
        await said(session, count, remote=True)
        return await longest_step(session.start(answer, text="again", replaces=first))


async def rollback(count: int) -> int:
    async with opened(MemoryLog()) as session:
        await said(session, count, remote=True)
        return await longest_step(session.start(answer, policy="rollback"))


async def retraction(count: int) -> int:
    async with opened(MemoryLog()) as session:
        first = (await said(session, count))[0]
        return await longest_step(session.retract(first, and_after=True))


async def opening_of_a_remote_generation(count: int) -> int:
    log = MemoryLog()
    async with opened(log) as session:
        await said(session, count, remote=True)

    async def open_again() -> None:
        async with opened(log):
            pass

    return await longest_step(open_again())


async def compaction(log: MemoryLog) -> int:
    compactor = Compactor(log, Config(compact_after=0))
    steps = await longest_step(compactor.compact_all())
    assert compactor.statistics().messages > 0
    return steps


async def compaction_of_messages(count: int) -> int:
    log = MemoryLog()
    async with opened(log) as session:
        await said(session, count)
    return await compaction(log)


async def compaction_of_blocks(count: int) -> int:
    log = MemoryLog()
    async with opened(log) as session:
        await in_blocks(session, count // 2)  # of one that is small enough to be compacted
    return await compaction(log)


@pytest.mark.parametrize(
    "operation",
    [
        snapshot_of_messages,
        snapshot_of_blocks,
        snapshot_of_turns,
        fork_of_turns,
        fork_of_messages,
        fork_of_blocks,
        snapshot_of_a_fork_of_blocks,
        compaction_beside_a_fork_of_blocks,
        replacement,
        replacement_beside_a_live_one,
        restoring_of_messages,
        restoring_of_blocks,
        restoring_of_turns,
        rollback,
        retraction,
        opening_of_a_remote_generation,
        compaction_of_messages,
        compaction_of_blocks,
    ],
)
async def test_the_loop_is_held_no_longer_for_a_larger_session(
    operation: Callable[[int], Awaitable[int]], autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(codec, "_LARGE", 1024)
    small, large = await operation(400), await operation(1600)
    assert large < ALLOWANCE * small, (small, large)


async def test_a_large_session_leaves_memory_in_slices(autojump_clock: MockClock) -> None:
    steps: Counter[str] = Counter()

    class Counting(trio.abc.Instrument):
        def after_task_step(self, task: trio.lowlevel.Task) -> None:
            steps[task.name] += 1

    config = Config(compact_after=None, idle_session=1)
    async with open_engine(MemoryLog(), config=config) as engine:
        session = await engine.create_session("s")
        ids = await said(session, 1000)
        trio.lowlevel.add_instrument(Counting())
        await trio.sleep(3)
        assert engine.statistics().sessions == 0
        assert steps["penstock release s"] >= 1000 // SLICE
        assert [message.message_id for message in (await session.snapshot()).messages] == ids


async def test_what_is_short_goes_without_a_turn_and_what_is_cut_off_is_closed() -> None:
    closed: list[int] = []

    def work(bits: int) -> Work[int]:
        try:
            for _ in range(bits):
                yield
            return bits
        finally:
            closed.append(bits)

    with trio.testing.assert_no_checkpoints():
        assert await in_slices(work(SLICE - 1)) == SLICE - 1
    with trio.testing.assert_checkpoints():
        assert await in_slices(work(SLICE + 1)) == SLICE + 1 == at_once(work(SLICE + 1))
    with trio.CancelScope() as scope:
        scope.cancel()
        await in_slices(work(10 * SLICE))
    assert scope.cancelled_caught
    assert closed == [SLICE - 1, SLICE + 1, SLICE + 1, 10 * SLICE]


# --- the same bytes


@given(logs(max_steps=30), st.integers(1, 2**40))
def test_an_event_encoded_in_parts_is_the_event_encoded_at_once(events: list[Event], offset: int) -> None:
    for event in events:
        event = evolve(event, extra={})
        unstamped = Unstamped.of(evolve(event, offset=1, time=""))
        assert unstamped.at(offset, event.time.encode()) == encode(evolve(event, offset=offset))
        if isinstance(event.data, MessageSnapshot):
            assert encode_with(event, at_once(encoding_blocks(event.data, event.data.blocks))) == encode(event)
            assert at_once(encoding_blocks(event.data, event.data.blocks)) == encode_json(
                converter.unstructure(event.data)
            )


@given(logs(max_steps=30), st.data())
def test_an_event_read_in_bits_is_the_event_read_at_once(events: list[Event], data: st.DataObject) -> None:
    """Or is refused for the same reason, whatever became of its bytes; and folds to the same."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(codec, "_LARGE", 0)
        at_a_time, in_bits = SessionState(SESSION, "e"), SessionState(SESSION, "e")
        for event in events:
            body = encode(event)
            assert at_once(decoding(body)) == decode(body) == event
            assert at_once(in_bits.applying(event)) == at_a_time.apply(event)
            if data.draw(st.integers(0, 3)) == 0:
                place = data.draw(st.integers(0, len(body) - 1))
                broken = body[:place] + data.draw(st.binary(max_size=3)) + body[place + data.draw(st.integers(0, 3)) :]
                assert refusal(lambda: at_once(decoding(broken))) == refusal(lambda: decode(broken))  # noqa: B023
        assert in_bits.snapshot() == at_a_time.snapshot()


def refusal(read: Callable[[], Event]) -> object:
    try:
        return read()
    except InvalidBody as error:
        return str(error)


# --- beside others


def of_parts(log: FaultyLog) -> list[list[Event]]:
    return [[decode(each) for each in write.events] for write in log.writes if isinstance(write, Append)]


async def test_what_is_written_beside_a_long_step_stands_before_or_behind_it(autojump_clock: MockClock) -> None:
    """Posts, and the producer of a generation that stays live, at every turn of the loop, while messages go."""
    log = FaultyLog(MemoryLog())
    over = False

    async def producer(generation: Generation) -> None:
        async with generation.message() as message, message.text() as block:
            while not over:
                await block.write("piece")
                await trio.lowlevel.checkpoint()

    async with open_engine(log, config=CONFIG) as engine:
        session = await engine.create_session("s")
        ids = await said(session, 300)
        async with session.subscribe("now") as reader, trio.open_nursery() as nursery:
            await session.start(producer)

            async def post() -> None:
                while not over:
                    await session.post("beside")

            nursery.start_soon(post)
            await session.retract(ids[0], and_after=False)
            await session.retract(ids[1], and_after=False)
            with pytest.raises(GenerationActive):
                await session.retract(ids[2], and_after=True)
            await session.stop()
            over = True
            await trio.testing.wait_all_tasks_blocked()
        started = await session.start(answer, replaces=ids[2])
        await trio.testing.wait_all_tasks_blocked()
        del reader
    events = await events_of(log, "s")
    assert not check_log(events, closed=True)
    # All of the start is one append: what it retracts, and itself, with nothing of anybody's between.
    (part,) = [
        part
        for part in of_parts(log)
        if any((each.type, each.generation_id) == ("generation.started", started.generation_id) for each in part)
    ]
    retracted = [each.message_id for each in part if isinstance(each.data, MessageRetracted)]
    assert retracted[: len(ids) - 2] == ids[2:]
    first_at = next(at for at, each in enumerate(part) if isinstance(each.data, MessageRetracted))
    assert all(isinstance(each.data, MessageRetracted) for each in part[first_at : first_at + len(retracted)])


@pytest.mark.parametrize("refused", ["a write before it", "its own"])
async def test_a_write_refused_beneath_a_long_step_leaves_nothing_of_it_and_the_session_goes_on(
    refused: str, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Another event of the session is on its way when the step gets its place, and a third comes behind it."""
    log = FaultyLog(MemoryLog())
    place, note = LongPart.stamp, Draft(App(type="app.note", value={}))

    def place_between(part: LongPart, records: Records | None = None) -> Mark:
        stamp(part._journal, [(None, note)])
        mark = place(part, records)
        stamp(part._journal, [(None, note)])
        return mark

    async with open_engine(log, config=CONFIG) as engine:
        session = await engine.create_session("s")
        ids = await said(session, 600)
        before = len(log.writes)
        log.schedule = lambda number, _: Fail() if number == before + (refused == "its own") else None
        with monkeypatch.context() as patch:
            patch.setattr(LongPart, "stamp", place_between)
            with pytest.raises(WriteFailed):
                await session.start(answer, replaces=ids[0])
        await trio.sleep(1)  # it is repaired
        assert [message.message_id for message in (await session.snapshot()).messages] == ids
        again = await session.start(answer, replaces=ids[300])
        await trio.testing.wait_all_tasks_blocked()
        assert (await session.generation(again.generation_id)).outcome == "completed"
        assert [message.message_id for message in (await session.snapshot()).messages] == ids[:300]
    events = await events_of(log, "s")
    assert not check_log(events, closed=True)
    assert sum(event.type == "app.note" for event in events) == (refused == "its own")
    assert [record.message for record in caplog.records if "leaves memory" in record.message] == []


async def test_what_is_stamped_while_a_long_step_is_written_waits_behind_it(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = FaultyLog(MemoryLog())
    place, note = LongPart.stamp, Draft(App(type="app.note", value={}))

    def place_between(part: LongPart, records: Records | None = None) -> Mark:
        stamp(part._journal, [(None, note)])
        mark = place(part, records)
        for _ in range(3):
            stamp(part._journal, [(None, note)])
        return mark

    async with open_engine(log, config=CONFIG) as engine:
        session = await engine.create_session("s")
        ids = await said(session, 600)
        monkeypatch.setattr(LongPart, "stamp", place_between)
        before = len(log.writes)
        await session.start(answer, replaces=ids[0])
    first, second, *_ = [[event.type for event in part] for part in of_parts(log)[before:]]
    assert first == ["app.note"]
    assert second == ["message.retracted"] * 600 + ["generation.started"] + ["app.note"] * 3
    assert not check_log(await events_of(log, "s"), closed=True)


async def test_readers_take_a_long_append_in_pages(autojump_clock: MockClock) -> None:
    async with open_engine(MemoryLog(), config=CONFIG) as engine:
        session = await engine.create_session("s")
        ids = await said(session, 1000)
        async with session.subscribe("now") as reader:
            started = await session.start(answer, replaces=ids[0])
            seen: list[Event] = []
            while not any(each.generation_id == started.generation_id for each in seen):
                delivery = await reader.receive()
                if isinstance(delivery, Batch):
                    assert len(delivery) <= CONFIG.page_events
                    seen += delivery.events()
        assert [each.message_id for each in seen if isinstance(each.data, MessageRetracted)] == ids
