"""What a dead process left open is ended by the next one, and nothing else is touched."""

from __future__ import annotations

import contextlib
import copy
import shutil
from pathlib import Path

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from penstock.engine import (
    ApprovalResolved,
    CaughtUp,
    Config,
    Engine,
    Entry,
    Event,
    Generation,
    GenerationFinished,
    GenerationStarted,
    Head,
    MemoryLog,
    PenstockError,
    StorageError,
    TimedOut,
    WriteFailed,
    decode,
    new_message_id,
    open_engine,
)
from penstock.engine.log import Append, Report, Write
from penstock.engine.rules.records import OPEN
from penstock.engine.testing import assert_log, check_log
from tests.engine.faulty import Fail, FaultyLog, Hold
from tests.engine.living import copied
from tests.engine.producers import Steered, saying
from tests.engine.rules import assert_rules, events_of


async def elaborate(generation: Generation) -> None:
    """Everything that can be open, and some that is closed."""
    async with generation.message() as first:
        async with first.reasoning() as thought:
            await thought.write("hm")
        async with first.tool_call("answered", "search") as call:
            await call.write("{}")
        async with generation.message(role="tool") as results, results.tool_result("answered") as result:
            await result.write("found")
        await generation.flush()
        async with trio.open_nursery() as nursery, first.tool_call("unanswered", "search") as call:
            await call.write('{"q"')
            nursery.start_soon(ask, generation)
            async with generation.message() as second, second.text() as text, second.data() as data:
                for piece in "abcdef":
                    await text.write(piece)
                    await data.put({"piece": piece})
                    await trio.sleep(0.01)
            await generation.status("waiting")
            await trio.sleep(0.1)
            nursery.cancel_scope.cancel()


async def ask(generation: Generation) -> None:
    await generation.approve("rm", arguments={"path": "/"})


async def whole_life(engine: Engine) -> None:
    session = await engine.create_session("s")
    await session.post("hello")
    first = await session.start(elaborate, text="one", job_id="job")
    await trio.sleep(0.03)
    with contextlib.suppress(PenstockError):
        await session.input(first.generation_id, "steer", {"text": "shorter"})
    await trio.sleep(0.1)
    await session.start(elaborate, text="two")
    await trio.sleep(0.05)
    await session.stop()
    await session.start(saying("x", "y"), text="three")
    await trio.sleep(0.1)
    await session.start(elaborate, text="four", policy="rollback")


async def crashes(clock: MockClock) -> list[MemoryLog]:
    """What each moment of a long life would have left behind, had the process died there: one for every commit."""
    log = MemoryLog()
    left: list[MemoryLog] = []
    submit = log.submit

    def submit_and_keep(write: Write, report: Report) -> None:
        def reported(error: PenstockError | None) -> None:
            kept = MemoryLog()
            kept._lives = copy.deepcopy(log._lives)
            left.append(kept)
            report(error)

        submit(write, reported)

    log.submit = submit_and_keep  # type: ignore[method-assign]
    async with open_engine(log) as engine:
        await whole_life(engine)
        await trio.sleep(0.05)
    return left


def finishes(events: list[Event]) -> list[GenerationFinished]:
    return [event.data for event in events if isinstance(event.data, GenerationFinished)]


async def test_after_a_crash_at_any_commit_everything_is_ended_and_goes_on(autojump_clock: MockClock) -> None:
    left = await crashes(autojump_clock)
    assert len(left) > 30
    outcomes = set()
    for log in left:
        before = await events_of(log, "s")
        head = await log.head("s")
        assert head is not None
        was_open = bool([v for v in check_log(before, closed=True) if v.rule in ("R3", "R4", "R9")])
        async with open_engine(log) as engine:
            recovered = await events_of(log, "s")
            assert recovered[: len(before)] == before
            assert_log(recovered, closed=True)
            added = finishes(recovered[len(before) :])
            if was_open:
                assert [end.outcome for end in added] == ["lost"]
                assert added[0].code == "LOST"
            else:
                assert recovered == before
            outcomes.add(len(added))
            session = await engine.session("s")
            assert (await session.cursor()).epoch == head.epoch
            turn = max((event.turn or 0 for event in before), default=0)
            started = await session.start(saying("on"))
            assert started.turn == turn + 1
            await trio.sleep(1)
            assert (await session.generation(started.generation_id)).outcome == "completed"
        again = await events_of(log, "s")
        assert_log(again, closed=True)
        assert [event.offset for event in again] == list(range(1, len(again) + 1))
    assert outcomes == {0, 1}


async def test_a_lost_generation_leaves_nothing_open_behind_it(autojump_clock: MockClock) -> None:
    log = MemoryLog()
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        await session.start(elaborate)
        await trio.sleep(0.08)
        left = await copied(log)
    before = len(await events_of(left, "s"))
    async with open_engine(left) as engine:
        snapshot = await (await engine.session("s")).snapshot()
        assert snapshot.generation is None
        assert snapshot.approvals == ()
        assert {message.status for message in snapshot.messages} <= {"complete", "failed"}
    end = (await events_of(left, "s"))[before:]
    assert [e.data.approved for e in end if isinstance(e.data, ApprovalResolved)] == [False]
    assert [e.data.tool_call_id for e in end if e.type == "block.opened"] == ["unanswered"]  # type: ignore[union-attr]


# --- what recovery costs


async def test_recovery_reads_only_what_is_open(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    log = MemoryLog()
    async with open_engine(log, config=Config(page_events=8)) as engine:
        for n in range(20):
            session = await engine.create_session(f"quiet-{n}")
            await session.start(saying(*"abc"), text="hi")
        long = await engine.create_session("open")
        for _ in range(20):
            await long.post("something before")
        await long.start(Steered())
        await trio.sleep(1)
        left = await copied(log)
    heads = {head.session_id: head for head in await left.heads()}
    read: list[tuple[str, int]] = []
    asked: set[str] = set()
    get_page, get_record, get_head = left.read, left.record, left.head

    async def reading(session_id: str, epoch: str, *, after: int, limit: int, max_bytes: int) -> list[Entry]:
        read.append((session_id, after))
        return await get_page(session_id, epoch, after=after, limit=limit, max_bytes=max_bytes)

    monkeypatch.setattr(left, "read", reading)

    async def asking(session_id: str, epoch: str, key: str) -> bytes | None:
        asked.add(session_id)
        return await get_record(session_id, epoch, key)

    async def asking_head(session_id: str) -> Head | None:
        asked.add(session_id)
        return await get_head(session_id)

    monkeypatch.setattr(left, "record", asking)
    monkeypatch.setattr(left, "head", asking_head)
    async with open_engine(left) as engine:
        assert asked == {"open"}
        assert read
        assert all(session_id == "open" and after >= 20 for session_id, after in read)
        assert engine.statistics().sessions == 1
        after = {head.session_id: head for head in await left.heads()}
        assert {name for name, head in after.items() if head != heads[name]} == {"open"}
    await assert_rules(left, closed=True)


async def test_many_open_sessions_are_all_ended(autojump_clock: MockClock) -> None:
    log = MemoryLog()
    async with open_engine(log) as engine:
        for n in range(100):
            await (await engine.create_session(f"s{n}")).start(Steered())
        await trio.testing.wait_all_tasks_blocked()
        left = await copied(log)
    async with open_engine(left):
        for n in range(100):
            assert [end.outcome for end in finishes(await events_of(left, f"s{n}"))] == ["lost"]
    await assert_rules(left, closed=True)


async def test_ids_of_a_dead_process_are_still_in_use(autojump_clock: MockClock) -> None:
    log = MemoryLog()
    mid = new_message_id()
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        await session.post("hello", message_id=mid)
        started = await session.start(Steered())
        await trio.testing.wait_all_tasks_blocked()
        left = await copied(log)
    async with open_engine(left) as engine:
        session = await engine.session("s")
        assert not (await session.post("hello", message_id=mid)).created
        info = await session.generation(started.generation_id)
        assert (info.state, info.turn, info.outcome) == ("finished", 1, "lost")
        with pytest.raises(PenstockError) as refused:
            await session.start(saying("x"), generation_id=started.generation_id)
        assert refused.value.code == "ID_IN_USE"
        assert (await session.stop(started.generation_id)).state == "already_done"


# --- trouble meanwhile


async def left_open(count: int = 3) -> MemoryLog:
    log = MemoryLog()
    async with open_engine(log) as engine:
        for n in range(count):
            await (await engine.create_session(f"s{n}")).start(Steered())
        await trio.testing.wait_all_tasks_blocked()
        return await copied(log)


@pytest.mark.parametrize("number", range(3))
async def test_recovery_that_cannot_write_says_so_and_leaves_a_usable_log(
    number: int, autojump_clock: MockClock
) -> None:
    memory = await left_open()
    log = FaultyLog(memory, lambda n, write: Fail(whole=True) if n >= number else None)
    with pytest.raises(WriteFailed):
        async with open_engine(log):
            raise AssertionError("it opened")
    await assert_rules(memory, closed=False)
    log.schedule = None
    async with open_engine(log):
        await assert_rules(memory, closed=True)
    assert log.statistics().waiting == 0


@pytest.mark.parametrize("deletes", [False, True])
async def test_one_session_whose_end_cannot_be_stored_keeps_no_other_from_being_opened(
    deletes: bool, autojump_clock: MockClock
) -> None:
    memory = await left_open()
    log = FaultyLog(memory, lambda n, write: Fail() if write.session_id == "s1" and isinstance(write, Append) else None)
    async with open_engine(log) as engine:
        assert [session_id for session_id, _ in await log.holders(OPEN)] == ["s1"]
        await (await engine.session("s0")).post("works")
        with pytest.raises(WriteFailed):
            await engine.session("s1")
        if deletes:
            await (await engine.session("s0")).delete()
            await engine.delete_session("s1")
        log.schedule = None
        if deletes:
            assert (await engine.create_session("s1")).created
        else:
            session = await engine.session("s1")  # it is tried again whenever somebody asks for it
            assert (await session.snapshot()).generation is None
    await assert_rules(memory, closed=True)


async def test_recovery_that_cannot_read_says_so(autojump_clock: MockClock) -> None:
    log = FaultyLog(await left_open())
    log.fail_reads = True
    with pytest.raises(StorageError):
        async with open_engine(log):
            raise AssertionError("it opened")
    log.fail_reads = False
    async with open_engine(log):
        await assert_rules(log, closed=True)


@pytest.mark.parametrize("patience", [5, 100])
async def test_recovery_that_hangs_can_be_given_up_and_gives_up_itself(
    patience: float, autojump_clock: MockClock
) -> None:
    memory = await left_open()
    hold = Hold()
    log = FaultyLog(memory, lambda number, write: hold)
    begun = trio.current_time()
    with trio.move_on_after(patience) as scope:
        with pytest.raises(TimedOut):
            async with open_engine(log):
                raise AssertionError("it opened")
    assert scope.cancelled_caught == (patience == 5)
    assert trio.current_time() - begun < 50
    hold.release()
    await trio.testing.wait_all_tasks_blocked()
    async with open_engine(log):
        await assert_rules(memory, closed=True)


# --- a file


async def test_a_database_copied_while_it_is_written_to_is_recovered(tmp_path: Path) -> None:
    """What kill -9 leaves: the file and its write-ahead log, at any moment."""
    path, left = tmp_path / "chat.db", tmp_path / "left.db"
    watched: list[bytes] = []
    async with open_engine(path) as engine:
        session = await engine.create_session("s")
        other = await engine.create_session("quiet")
        await other.start(saying("x"), text="hi")
        async with session.subscribe() as subscription:
            await session.start(saying(*(f"{n} " for n in range(200)), pause=0.0005), text="go")
            with trio.fail_after(10):
                while len(watched) < 60:
                    delivery = await subscription.receive()
                    if not isinstance(delivery, CaughtUp) and hasattr(delivery, "entries"):
                        watched.extend(entry.body for entry in delivery.entries)
            seen = list(watched)
            for suffix in ("", "-wal"):
                shutil.copyfile(f"{path}{suffix}", f"{left}{suffix}")
    async with open_engine(left) as engine:
        session = await engine.session("s")
        async with session.subscribe(live=False) as events:
            stored = [event async for event in events]
        assert stored[: len(seen)] == [decode(body) for body in seen]
        assert_log(stored, closed=True)
        assert [end.outcome for end in finishes(stored)] == ["lost"]
        started = await session.start(saying("on"))
        assert started.turn == 2
        async with (await engine.session("quiet")).subscribe(live=False) as events:
            assert [end.outcome for end in finishes([event async for event in events])] == ["completed"]
    assert any(isinstance(event.data, GenerationStarted) for event in stored)
