"""What is under way when a session is deleted or reset: in its order, whole or not at all, and nothing comes back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from penstock.engine import (
    Config,
    Draining,
    Ended,
    Generation,
    GenerationFinished,
    MemoryLog,
    PenstockError,
    Posted,
    Session,
    SessionDeleted,
    TimedOut,
    WriteFailed,
    open_engine,
)
from penstock.engine.log import Append, Delete, Report, Write
from penstock.engine.testing import KeptLog, check_kept
from tests.engine.faulty import Fail, FaultyLog, Hold
from tests.engine.producers import Steered, saying, shielding
from tests.engine.rules import events_of
from tests.engine.test_rush import objects_of_the_engine

Step = Callable[[Session], Awaitable[object]]

RACERS: dict[str, Step] = {
    "start": lambda session: session.start("say"),
    "queue": lambda session: session.start("say", policy="queue"),
    "stop": lambda session: session.stop(),
    "reset": lambda session: session.reset(),
    "post": lambda session: session.post("hello"),
    "update": lambda session: session.update({"n": 1}),
    "fork": lambda session: session.fork(),
    "delete": lambda session: session.delete(),
}


# R-101 R-139
@pytest.mark.parametrize("live", ["nothing", "cooperative", "straggler"])
@pytest.mark.parametrize("before", list(RACERS))
@pytest.mark.parametrize("after", list(RACERS))
async def test_a_delete_that_is_raced_has_one_place_in_the_order(
    before: str, after: str, live: str, autojump_clock: MockClock
) -> None:
    """Steps asked for before the delete are done, those behind it are told; the life that ends keeps the rules."""
    log = KeptLog(MemoryLog())
    told: dict[str, object] = {}

    async def step(name: str, session: Session) -> None:
        try:
            told[name] = await RACERS[name.split(maxsplit=1)[0]](session)
        except PenstockError as error:
            told[name] = error

    producers = {"say": saying("x", pause=0.1)}
    async with open_engine(log, producers=producers, config=Config(cleanup_timeout=0.5)) as engine:
        session = await engine.create_session("s")
        if live != "nothing":
            producer = Steered() if live == "cooperative" else shielding(2)
            await session.start(producer)
            await producer.started.wait()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(step, f"{before} before", session)
            await wait_all_tasks_blocked()
            nursery.start_soon(step, "delete", session)
            await wait_all_tasks_blocked()
            nursery.start_soon(step, f"{after} after", session)
        if before == "delete":
            assert isinstance(told["delete"], SessionDeleted) or told["delete"] is None
        else:
            assert not isinstance(told[f"{before} before"], SessionDeleted), told
            assert told["delete"] is None
        # A post goes beside the steps: while the delete waits for one before it, the session is there.
        beside = after == "post" and isinstance(told["post after"], Posted)
        assert beside or isinstance(told[f"{after} after"], SessionDeleted), told
        assert await log.head("s") is not None
        again = await engine.create_session("s")
        assert again.created
        assert (await again.cursor()).offset == 1
        await trio.sleep(5)
        assert [event.type for event in await events_of(log, "s")] == ["session.created"]
    assert check_kept(log, []) == []


# R-101 R-139
@pytest.mark.parametrize("name", ["start", "queue", "reset", "post", "update", "fork"])
async def test_what_comes_while_a_delete_is_being_stored_is_told_at_once(
    name: str, log: MemoryLog, autojump_clock: MockClock
) -> None:
    faulty, hold = FaultyLog(log), Hold()
    async with open_engine(faulty, producers={"say": saying("x")}) as engine:
        session = await engine.create_session("s")
        faulty.schedule = lambda _, write: hold if isinstance(write, Delete) else None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(session.delete)
            await wait_all_tasks_blocked()
            begun = trio.current_time()
            with trio.fail_after(1), pytest.raises(SessionDeleted):
                await RACERS[name](session)
            assert trio.current_time() == begun
            hold.release()


# R-101 R-139
@pytest.mark.parametrize("live", ["nothing", "cooperative", "straggler"])
@pytest.mark.parametrize("before", list(RACERS))
async def test_a_drain_that_is_raced_comes_behind_what_was_begun(
    before: str, live: str, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    log = KeptLog(MemoryLog())
    producers = {"say": saying("x", pause=0.1)}
    async with open_engine(log, producers=producers, config=Config(cleanup_timeout=0.5)) as engine:
        session = await engine.create_session("s")
        if live != "nothing":
            producer = Steered() if live == "cooperative" else shielding(2)
            await session.start(producer)
            await producer.started.wait()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(RACERS[before], session)  # begun, so it is carried out
            await wait_all_tasks_blocked()
            nursery.start_soon(engine.drain)
            await wait_all_tasks_blocked()
            with pytest.raises((Draining, SessionDeleted)):
                await session.update({"n": 2})
    assert check_kept(log, [], closed=True) == []
    assert [line.message for line in caplog.records if line.levelname == "ERROR"] == []


# R-89 R-140
@pytest.mark.parametrize("how", ["it hangs", "it is told as failed"])
async def test_a_write_that_fails_after_the_delete_leaves_nothing(
    how: str, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The delete is stored, its caller was told otherwise, a post comes behind it: no entry and no record is left."""
    inner, hold = MemoryLog(), Hold()
    log = FaultyLog(inner)
    submit = log.submit

    def untrue(write: Write, report: Report) -> None:
        lost = WriteFailed("the answer was lost", session_id=write.session_id)
        submit(write, (lambda _: report(lost)) if isinstance(write, Delete) else report)

    async with open_engine(log, config=Config(flush_timeout=1)) as engine:
        session = await engine.create_session("s", metadata={"a": 1})
        producer = Steered()
        await session.start(producer)
        await producer.started.wait()
        async with session.subscribe("now") as reader:
            if how == "it hangs":
                log.schedule = lambda _, write: hold if isinstance(write, Delete) else None
            else:
                monkeypatch.setattr(log, "submit", untrue)
            with pytest.raises(TimedOut if how == "it hangs" else WriteFailed):
                await session.delete()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_refused, session.post, "behind it")
                await wait_all_tasks_blocked()
                hold.release()
            with trio.fail_after(10):
                while not isinstance(await reader.receive(), Ended):
                    pass
        await trio.sleep(10)
        if how == "it hangs":
            assert caplog.messages.count("write_refused") == 0, "that the session is gone is no trouble of the disk"
        with pytest.raises(SessionDeleted):
            await session.post("late")
        assert await inner.heads() == []
        statistics = engine.statistics()
        assert (statistics.sessions, statistics.live_generations, statistics.stragglers) == (0, 0, 0)
        assert statistics.pending_events == 0
        again = await engine.create_session("s")
        assert [event.type for event in await events_of(inner, "s")] == ["session.created"]
        assert dict((await again.snapshot()).metadata) == {}


async def _refused(call: Callable[..., Awaitable[object]], *arguments: object) -> None:
    with pytest.raises((SessionDeleted, WriteFailed)):
        await call(*arguments)


# R-106 R-155
@pytest.mark.parametrize("whole", [False, True])
async def test_a_delete_that_cannot_be_stored_is_told_and_leaves_the_session_whole(
    whole: bool, log: MemoryLog, autojump_clock: MockClock
) -> None:
    faulty = FaultyLog(log)
    async with open_engine(faulty, producers={"say": saying("x")}) as engine:
        session = await engine.create_session("s", metadata={"a": 1})
        await session.post("hello")
        faulty.schedule = lambda _, write: Fail(whole=whole) if isinstance(write, Delete) else None
        async with session.subscribe("now") as reader:
            with pytest.raises(WriteFailed):
                await session.delete()
            faulty.schedule = None
            await trio.sleep(5)
            session = await engine.session("s")
            snapshot = await session.snapshot()
            assert [message.blocks[0].text for message in snapshot.messages] == ["hello"]
            assert dict(snapshot.metadata) == {"a": 1}
            await session.start("say")
            assert (await anext(reader)).type == "generation.started", "nobody was told of an end"
        await trio.sleep(1)
        assert len((await session.snapshot()).messages) == 2
        await session.delete()
        with pytest.raises(SessionDeleted):
            await engine.session("s")


#
async def test_a_delete_whose_flush_fails_is_told_and_deletes_nothing(
    log: MemoryLog, autojump_clock: MockClock
) -> None:
    faulty = FaultyLog(log)
    async with open_engine(faulty) as engine:
        session = await engine.create_session("s")
        await session.post("hello")
        producer = Steered()
        live = await session.start(producer)
        await producer.started.wait()
        faulty.schedule = lambda _, write: Fail() if isinstance(write, Append) else None
        with pytest.raises(WriteFailed):
            await session.delete()
        assert not any(isinstance(write, Delete) for write in faulty.writes)
        faulty.schedule = None
        await trio.sleep(5)
        session = await engine.session("s")
        messages = (await session.snapshot()).messages
        assert [(message.role, message.status) for message in messages] == [
            ("user", "complete"),
            ("assistant", "failed"),
        ]
        assert (await session.generation(live.generation_id)).outcome == "failed"
        await session.post("and on")
        await session.delete()
        with pytest.raises(SessionDeleted):
            await engine.session("s")


#
async def test_a_delete_waits_for_what_was_written_before_it(log: MemoryLog, autojump_clock: MockClock) -> None:
    faulty = FaultyLog(log)
    async with open_engine(faulty) as engine:
        session = await engine.create_session("s")
        hold = Hold()
        faulty.schedule = lambda _, write: hold if isinstance(write, Append) and not hold.released else None
        done: list[str] = []

        async def note(name: str, call: Callable[[], Awaitable[object]]) -> None:
            await call()
            done.append(name)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(note, "in flight", lambda: session.post("in flight"))
            await wait_all_tasks_blocked()
            nursery.start_soon(note, "gathered", lambda: session.post("gathered behind it"))
            await wait_all_tasks_blocked()
            nursery.start_soon(note, "delete", session.delete)
            await trio.sleep(5)
            assert done == []
            hold.release()
        # Both may be told in one turn of the loop, and which of two tasks wakes first is trio's.
        assert (sorted(done[:2]), done[2:]) == (["gathered", "in flight"], ["delete"])


#
@pytest.mark.parametrize("then", ["reset", "post"])
async def test_nothing_overtakes_what_was_written_before_it(
    then: str, log: MemoryLog, autojump_clock: MockClock
) -> None:
    faulty = FaultyLog(log)

    async def producer(generation: Generation) -> None:
        async with generation.message() as message, message.text() as block:
            await block.write("first")
            await go_on.wait()
            await block.write("second")
            written.set()
            await trio.sleep_forever()

    go_on, written = trio.Event(), trio.Event()
    async with open_engine(faulty) as engine:
        session = await engine.create_session("s")
        await session.start(producer)
        await wait_all_tasks_blocked()
        hold = Hold()
        faulty.schedule = lambda *_: None if hold.released else hold
        go_on.set()
        await written.wait()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(session.reset if then == "reset" else session.post, "behind it")
            await trio.sleep(3)
            hold.release()
        types = [event.type for event in await events_of(log, "s")]
        texts = [getattr(event.data, "text", None) for event in await events_of(log, "s")]
        assert texts.index("second") < types.index("session.reset" if then == "reset" else "message.snapshot")


# R-18 R-27 R-37
async def test_a_straggler_that_ends_late_leaves_the_newer_one_in_its_place(
    log: MemoryLog, autojump_clock: MockClock
) -> None:
    async with open_engine(log, config=Config(cleanup_timeout=1)) as engine:
        session = await engine.create_session("s")
        old, newer = shielding(60), Steered()
        first = await session.start(old)
        await old.started.wait()
        second = await session.start(newer)
        await newer.started.wait()
        assert engine.statistics().stragglers == 1
        await old.over.wait()
        await wait_all_tasks_blocked()
        assert engine.statistics().stragglers == 0
        assert not newer.cancelled.is_set()
        assert (await session.generation(second.generation_id)).state == "live"
        newer.finish.set()
        await newer.over.wait()
        await trio.sleep(1)
        ends = [
            (event.generation_id, event.data.outcome)
            for event in await events_of(log, "s")
            if isinstance(event.data, GenerationFinished)
        ]
        assert ends == [(first.generation_id, "superseded"), (second.generation_id, "completed")]


#
@pytest.mark.parametrize("step", ["post", "stop", "start", "update"])
async def test_a_cleanup_that_asks_its_own_session_for_a_step_holds_nobody_up_for_ever(
    step: str, log: MemoryLog, autojump_clock: MockClock
) -> None:
    """The step waits behind the supersede that waits for the clean-up: it costs the clean-up's time and no more."""
    told: list[object] = []

    async def producer(generation: Generation) -> None:
        try:
            await trio.sleep_forever()
        finally:
            with generation.cleanup():
                try:
                    told.append(await RACERS[step](session))
                except PenstockError as error:
                    told.append(error)

    async with open_engine(log, producers={"say": saying("x")}, config=Config(cleanup_timeout=1)) as engine:
        session = await engine.create_session("s")
        await session.start(producer)
        await wait_all_tasks_blocked()
        with trio.fail_after(5):
            await session.start("say")
        await trio.sleep(5)
        assert (await session.snapshot()).generation is None
        assert engine.statistics().stragglers == 0


#
@pytest.mark.long
async def test_sessions_that_come_and_go_leave_nothing_behind(autojump_clock: MockClock) -> None:
    log = MemoryLog()
    async with open_engine(log, producers={"say": saying("x")}, config=Config(compact_after=None)) as engine:
        counts: list[int] = []
        for round_ in range(4):
            for number in range(100):
                # Ids that come again, and ids that never do.
                session = await engine.create_session(f"s-{number % 7}" if number % 2 else f"s-{round_}-{number}")
                await session.start("say", text="hello")
                await session.delete()
            await trio.sleep(100)
            assert engine.statistics().sessions == 0
            assert await log.heads() == []
            await wait_all_tasks_blocked()  # what the engine does each minute is done
            counts.append(objects_of_the_engine())
        assert counts[1:] == counts[:1] * 3, counts
