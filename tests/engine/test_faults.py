"""The disk fails or holds things up, at any write: no hole, no repeat, nothing shown that is not stored, all ended."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest
import trio
import trio.testing
from attrs import frozen
from trio.testing import MockClock

from penstock.engine import (
    Batch,
    CaughtUp,
    Config,
    Degraded,
    Drained,
    Ended,
    Engine,
    Event,
    Generation,
    GenerationFinished,
    GenerationNotFound,
    GenerationStarted,
    Head,
    IdInUse,
    MemoryLog,
    PenstockError,
    SessionDeleted,
    StorageError,
    TimedOut,
    WriteFailed,
    new_generation_id,
    new_message_id,
    open_engine,
)
from penstock.engine.log import Delete, Report, Write
from tests.engine.faulty import Fail, Fault, FaultyLog, Hold
from tests.engine.producers import Steered, saying
from tests.engine.rules import assert_rules, events_of
from tests.engine.watching import Watcher, assert_watched, watch

T = TypeVar("T")

# How many writes `scenario` makes of the two sessions that the faults are for, when nothing fails; checked below.
WRITES = 30


@frozen
class Mode:
    """What befalls the write with the number that a test picks, and for how long those behind it."""

    name: str
    fault: Callable[[], Fail | Hold]
    seconds: float = 0.0
    everybody: bool = False
    behind: bool = False  # the writes behind it, too, while it lasts

    def __str__(self) -> str:
        return self.name


MODES = [
    Mode("fails once", Fail),
    Mode("fails once on the whole", lambda: Fail(whole=True)),
    Mode("fails for a while", Fail, seconds=1.0, behind=True),
    Mode("fails for all for a while", lambda: Fail(whole=True), seconds=3.0, everybody=True, behind=True),
    Mode("is held before", Hold, seconds=1.0),
    Mode("is held behind", lambda: Hold(stored=True), seconds=1.0),
    Mode("is held long", Hold, seconds=30.0),
    Mode("is held long behind", lambda: Hold(stored=True), seconds=30.0),
]


def of_interest(write: Write) -> bool:
    return write.session_id in ("s", "gone")


def trouble(mode: Mode, number: int, nursery: trio.Nursery) -> Callable[[int, Write], Fault | None]:
    """A schedule that lets ``mode`` befall the write ``number`` of the sessions of interest."""
    count = 0
    ends = -1.0
    fault = mode.fault()

    async def release(hold: Hold) -> None:
        await trio.sleep(mode.seconds)
        hold.release()

    def schedule(_: int, write: Write) -> Fault | None:
        nonlocal count, ends
        if of_interest(write):
            count += 1
            if count == number + 1:
                ends = trio.current_time() + mode.seconds
                if isinstance(fault, Hold):
                    nursery.start_soon(release, fault)
                return fault
        elif not mode.everybody:
            return None
        return fault if mode.behind and trio.current_time() < ends else None

    return schedule


async def insist(call: Callable[[], Awaitable[T]]) -> T | None:
    """What a client does: the same request again until it is known to be stored."""
    for _ in range(60):
        try:
            return await call()
        except IdInUse:
            return None
        except (WriteFailed, TimedOut):
            await trio.sleep(0.5)
    raise AssertionError("it never worked again")


def slowly(*pieces: str) -> Callable[[Generation], Awaitable[None]]:
    return saying(*pieces, pause=0.05)  # type: ignore[return-value]


async def scenario(engine: Engine, there: trio.Event | None = None) -> None:
    """Everything a session goes through, each request repeated until it holds."""
    session = await insist(lambda: engine.create_session("s")) or await engine.session("s")
    if there is not None:
        there.set()
    mid = new_message_id()
    posted = await insist(lambda: session.post("before", message_id=mid))
    assert posted is not None
    first, second, third = new_generation_id(), new_generation_id(), new_generation_id()
    await insist(lambda: session.start(slowly(*"abcdef"), text="one", generation_id=first))
    await trio.sleep(0.12)
    await insist(lambda: session.start(slowly(*"ghijkl"), text="two", generation_id=second))
    await trio.sleep(0.12)
    await insist(session.stop)
    await insist(lambda: session.post("between"))
    await insist(lambda: session.start(slowly(*"mn"), text="three", generation_id=third))
    await trio.sleep(0.5)
    gone = await insist(lambda: engine.create_session("gone")) or await engine.session("gone")
    await insist(lambda: gone.start(slowly(*"opq"), text="four"))
    await trio.sleep(0.07)
    with contextlib.suppress(SessionDeleted):
        await insist(gone.delete)
    with pytest.raises(SessionDeleted):
        await gone.post("late")


async def bystander(engine: Engine) -> None:
    session = await engine.session("other")
    for n in range(8):
        await insist(lambda n=n: session.start(saying(*"xyz", pause=0.04), text=f"{n}"))  # type: ignore[misc]
        await trio.sleep(0.3)


def outcomes(events: list[Event]) -> Counter[str]:
    return Counter(event.data.outcome for event in events if isinstance(event.data, GenerationFinished))


async def finish(engine: Engine, log: FaultyLog, *names: str) -> None:
    """Let everything come to rest, then see that it has."""
    log.schedule = None
    await trio.sleep(40)
    statistics = engine.statistics()
    assert statistics.pending_events == 0
    assert statistics.live_generations == 0
    assert statistics.degraded_sessions == 0
    assert statistics.stragglers == 0
    assert not engine.degraded
    for name in names:
        session = await engine.session(name)
        started = await session.start(saying("works again"))
        await trio.sleep(0.1)
        assert (await session.generation(started.generation_id)).outcome == "completed"


async def test_the_scenario_makes_as_many_writes_as_the_tests_fail(autojump_clock: MockClock) -> None:
    log = FaultyLog(MemoryLog())
    async with open_engine(log) as engine:
        await scenario(engine)
        # What gathers into one write depends on the scheduler.
        assert WRITES - 5 <= sum(map(of_interest, log.writes)) <= WRITES + 3
    assert any(isinstance(write, Delete) for write in log.writes)


#
@pytest.mark.parametrize(
    ("mode", "number"),
    [
        pytest.param(mode, number, id=f"{mode}-{number}", marks=[pytest.mark.long] * ((place + number) % 4 > 0))
        for place, mode in enumerate(MODES)
        for number in range(WRITES)
    ],
)
async def test_whatever_befalls_any_write_the_log_and_the_readers_agree(
    mode: Mode, number: int, autojump_clock: MockClock
) -> None:
    memory = MemoryLog()
    log = FaultyLog(memory)
    watchers: list[Watcher] = []

    there = trio.Event()

    async def watch_when_there(nursery: trio.Nursery, engine: Engine) -> None:
        await there.wait()
        watchers.append(await watch(nursery, memory, await engine.session("s")))
        await trio.sleep(0.2)
        watchers.append(await watch(nursery, memory, await engine.session("s")))

    async with trio.open_nursery() as nursery, open_engine(log) as engine:
        watchers.append(await watch(nursery, memory, await engine.create_session("other")))
        log.schedule = trouble(mode, number, nursery)
        async with trio.open_nursery() as work:
            work.start_soon(bystander, engine)
            work.start_soon(watch_when_there, nursery, engine)
            await scenario(engine, there)
        await finish(engine, log, "s", "other")
    await assert_watched(memory, *watchers)
    await assert_rules(memory, closed=True)
    assert log.statistics().waiting == 0
    if not mode.everybody:
        assert set(outcomes(await events_of(memory, "other"))) == {"completed"}
    events = await events_of(memory, "s")
    started = [event.generation_id for event in events if isinstance(event.data, GenerationStarted)]
    assert len(started) == len(set(started))
    texts = [e.data.blocks[0].text for e in events if e.type == "message.snapshot"]  # type: ignore[union-attr]
    assert texts.count("before") == 1


# --- what a client sees meanwhile


# R-87 R-105
async def test_while_nothing_can_be_stored_requests_are_refused_at_once_and_readers_are_told(
    autojump_clock: MockClock,
) -> None:
    memory = MemoryLog()
    log = FaultyLog(memory)
    producer = Steered()
    async with trio.open_nursery() as nursery, open_engine(log) as engine:
        session = await engine.create_session("s")
        watcher = await watch(nursery, memory, session)
        started = await session.start(producer)
        await producer.started.wait()
        log.schedule = lambda number, write: Fail(whole=True)
        with pytest.raises(WriteFailed):
            await session.post("x")
        assert engine.degraded
        assert engine.statistics().degraded_sessions == 1
        await watcher.wait_for(Degraded)
        for call in (
            session.start(saying("x")),
            session.start(saying("x"), generation_id=new_generation_id()),
            session.stop(),
            session.post("x"),
            session.post("x", message_id=new_message_id()),
            session.delete(),
            engine.create_session("new"),
        ):
            begun = trio.current_time()
            with trio.fail_after(0.5), pytest.raises(WriteFailed):
                await call
            assert trio.current_time() == begun
        late = await watch(nursery, memory, session)
        await late.wait_for(Degraded)
        assert producer.cancelled.is_set()
        assert [type(error) for error in producer.errors] == [WriteFailed]
        # What is committed can still be read, and shows no more than that.
        assert (await session.generation(started.generation_id)).outcome is None
        assert (await session.snapshot()).cursor.offset == (await session.cursor()).offset
        await trio.sleep(60)
        assert engine.degraded
        log.schedule = None
        await trio.sleep(10)
        assert engine.statistics().degraded_sessions == 0
        assert (await session.generation(started.generation_id)).outcome == "failed"
        after = await watch(nursery, memory, session)
        await after.wait_for(CaughtUp)
        await trio.sleep(1)  # what there is to be told beside the log comes behind it
        assert not any(isinstance(delivery, Degraded) for delivery in after.deliveries)
        await finish(engine, log, "s")
    await assert_watched(memory, watcher, late, after)


async def test_a_generation_whose_write_was_lost_ends_as_write_failed_and_no_other(autojump_clock: MockClock) -> None:
    memory = MemoryLog()
    log = FaultyLog(memory)
    lost, kept = Steered(), Steered()
    async with open_engine(log) as engine:
        first, second = await engine.create_session("s"), await engine.create_session("other")
        await first.start(lost)
        await second.start(kept)
        await lost.started.wait()
        await kept.started.wait()
        log.schedule = lambda number, write: Fail() if write.session_id == "s" else None
        with pytest.raises(WriteFailed):
            await first.post("x")
        with trio.fail_after(1):
            await second.post("y")
        log.schedule = None
        await trio.sleep(5)
        assert not kept.cancelled.is_set()
        kept.finish.set()
        await trio.sleep(1)
    ends = [e.data for e in await events_of(memory, "s") if isinstance(e.data, GenerationFinished)]
    assert [(end.outcome, end.code) for end in ends] == [("failed", "WRITE_FAILED")]
    assert outcomes(await events_of(memory, "other")) == {"completed": 1}
    await assert_rules(memory, closed=True)


async def test_a_write_says_so_when_what_came_before_it_was_lost(autojump_clock: MockClock) -> None:
    memory = MemoryLog()
    log = FaultyLog(memory)
    raised: list[BaseException] = []

    async def producer(generation: Generation) -> None:
        async with generation.message() as message, message.text() as block:
            await generation.flush()
            log.schedule = lambda number, write: Fail()
            await block.write("lost")
            try:
                with trio.CancelScope(shield=True), trio.fail_after(5):
                    await generation.flush()
            except WriteFailed as error:
                raised.append(error)
            try:
                await block.write("more")
            except WriteFailed as error:
                raised.append(error)
                log.schedule = None
                raise

    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        started = await session.start(producer)
        await trio.sleep(20)
        assert (await session.generation(started.generation_id)).outcome == "failed"
    assert len(raised) == 2
    assert "lost" not in str(await events_of(memory, "s"))
    await assert_rules(memory, closed=True)


# --- a log that never reports


#
async def test_when_the_log_hangs_a_flush_times_out(autojump_clock: MockClock) -> None:
    memory = MemoryLog()
    log = FaultyLog(memory)
    hold = Hold()
    took: list[float] = []

    async def producer(generation: Generation) -> None:
        async with generation.message() as message, message.text() as block:
            await generation.flush()
            log.schedule = lambda number, write: hold
            await block.write("stuck")
            begun = trio.current_time()
            with pytest.raises(TimedOut):
                await generation.flush()
            took.append(trio.current_time() - begun)
            hold.release()
            await generation.flush()

    async with open_engine(log, config=Config(flush_timeout=3)) as engine:
        session = await engine.create_session("s")
        started = await session.start(producer)
        await trio.sleep(20)
        assert (await session.generation(started.generation_id)).outcome == "completed"
        assert engine.statistics().pending_events == 0
    assert took == [pytest.approx(3)]
    await assert_rules(memory, closed=True)


#
async def test_a_start_that_cannot_be_stored_is_told_and_its_generation_does_not_run(autojump_clock: MockClock) -> None:
    memory = MemoryLog()
    log = FaultyLog(memory)
    producer, wanted = Steered(), new_generation_id()
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        log.schedule = lambda number, write: Fail()
        with pytest.raises(WriteFailed):
            await session.start(producer, text="hello", generation_id=wanted)
        log.schedule = None
        await trio.sleep(10)
        assert not producer.started.is_set()
        with pytest.raises(GenerationNotFound):
            await session.generation(wanted)
        await session.start(producer, text="hello", generation_id=wanted)
        await producer.started.wait()
    assert [event.type for event in await events_of(memory, "s")].count("message.snapshot") == 1
    await assert_rules(memory, closed=True)


# R-46 R-105
@pytest.mark.parametrize("in_the_end", ["stored", "failed"])
async def test_a_start_that_hangs_times_out_and_its_generation_does_not_run(
    in_the_end: str, autojump_clock: MockClock
) -> None:
    memory = MemoryLog()
    log = FaultyLog(memory)
    hold = Hold()
    producer = Steered()
    wanted = new_generation_id()
    async with open_engine(log, config=Config(flush_timeout=3)) as engine:
        session = await engine.create_session("s")
        log.schedule = lambda number, write: hold
        for _ in range(3):
            begun = trio.current_time()
            with pytest.raises(TimedOut):
                await session.start(producer, text="hello", generation_id=wanted)
            assert trio.current_time() - begun < 7
        with pytest.raises(TimedOut):
            await session.stop()
        if in_the_end == "failed":
            # The first write is lost; those gathered behind it go with it.
            held, hold._held = hold._held, []
            assert len(held) == 1
            memory._lives["s"].standing = memory._lives["s"].standing._replace(token=2**40)
            held[0]()
            log.schedule = None
        else:
            hold.release()
        await trio.sleep(10)
        assert engine.statistics().pending_events == 0
        assert engine.statistics().live_generations == 0
        if in_the_end == "stored":
            assert (await session.generation(wanted)).outcome == "failed"
            with pytest.raises(IdInUse):
                await session.start(producer, text="hello", generation_id=wanted)
        else:
            await session.start(producer, text="hello", generation_id=wanted)
            await producer.started.wait()
    events = await events_of(memory, "s")
    assert sum(isinstance(event.data, GenerationStarted) for event in events) == 1
    assert sum(event.type == "message.snapshot" for event in events) == 1
    assert producer.started.is_set() == (in_the_end == "failed")
    await assert_rules(memory, closed=True)


@pytest.mark.parametrize("shield", [0.0, 60.0])
async def test_a_start_that_fails_behind_the_cancel_still_ends_the_old_one_as_superseded(
    shield: float, autojump_clock: MockClock
) -> None:
    memory = MemoryLog()
    log = FaultyLog(memory)
    old, new = Steered(shield=shield), Steered()
    async with open_engine(log, config=Config(flush_timeout=3)) as engine:
        session = await engine.create_session("s")
        posted = await session.post("hello")
        started = await session.start(old)
        await old.started.wait()
        await trio.testing.wait_all_tasks_blocked()
        hold = Hold()
        # The start finds its message, cancels the old one, and then cannot look for the message again.
        log.schedule = lambda number, write: hold
        with pytest.raises(TimedOut):
            await session.start(new, replaces=posted.message_id)
        hold.release()
        log.schedule = None
        await trio.sleep(5)
        assert (await session.generation(started.generation_id)).outcome == "superseded"
        assert engine.statistics().live_generations == 0
        assert not new.started.is_set()
    await assert_rules(memory, closed=True)


async def test_a_queued_start_whose_session_cannot_be_read_leaves_the_others_their_turn(
    autojump_clock: MockClock,
) -> None:
    memory = MemoryLog()
    log = FaultyLog(memory)
    producer = Steered()
    async with open_engine(log, producers={"say": saying("hi")}) as engine:
        session = await engine.create_session("s")
        posted = await session.post("hello")
        await session.start(producer)
        await producer.started.wait()
        waiting = await session.start("say", policy="queue", replaces=posted.message_id)
        log.fail_reads = True
        producer.finish.set()
        await trio.sleep(1)
        with trio.fail_after(30):
            with pytest.raises(StorageError):
                await session.queue_next()
            log.fail_reads = False
            await trio.sleep(10)
        assert (await session.generation(waiting.generation_id)).outcome == "completed"
    await assert_rules(memory, closed=True)


#
async def test_a_create_that_hangs_times_out_and_may_be_repeated(autojump_clock: MockClock) -> None:
    memory = MemoryLog()
    hold = Hold()
    log = FaultyLog(memory, lambda number, write: hold)
    async with open_engine(log, config=Config(flush_timeout=3)) as engine:
        for _ in range(2):
            with trio.fail_after(4), pytest.raises(TimedOut):
                await engine.create_session("s")
        hold.release()
        session = await engine.create_session("s")
        await session.post("works")
    assert [event.type for event in await events_of(memory, "s")] == ["session.created", "message.snapshot"]


async def test_creates_behind_one_whose_caller_left_find_the_session(autojump_clock: MockClock) -> None:
    memory = MemoryLog()
    hold = Hold()
    log = FaultyLog(memory, lambda number, write: hold)
    async with open_engine(log) as engine:
        with trio.move_on_after(1):
            await engine.create_session("s", metadata={"n": 1})
        async with trio.open_nursery() as nursery:
            nursery.start_soon(engine.create_session, "s")
            await trio.testing.wait_all_tasks_blocked()
            hold.release()
        assert (await (await engine.session("s")).snapshot()).metadata == {"n": 1}
    assert len(await events_of(memory, "s")) == 1


#
async def test_a_delete_that_hangs_times_out_and_happens_all_the_same(autojump_clock: MockClock) -> None:
    memory = MemoryLog()
    hold = Hold()
    log = FaultyLog(memory)
    async with trio.open_nursery() as nursery, open_engine(log, config=Config(flush_timeout=3)) as engine:
        session = await engine.create_session("s")
        watcher = await watch(nursery, memory, session)
        log.schedule = lambda number, write: hold
        with trio.fail_after(4), pytest.raises(TimedOut):
            await session.delete()
        log.schedule = None
        hold.release()
        await trio.sleep(1)
        assert isinstance(watcher.deliveries[-1], Ended)
        with trio.fail_after(10), pytest.raises((SessionDeleted, WriteFailed)):
            await session.post("x")
        await trio.sleep(1)
        with pytest.raises(SessionDeleted):
            await session.post("x")
        again = await engine.create_session("s")
        assert again.created
    assert [type(delivery).__name__ for delivery in watcher.deliveries][-1] in ("Ended", "Drained")
    await assert_rules(memory, closed=True)


# --- shutting down meanwhile


#
@pytest.mark.parametrize(
    "fault",
    [Fail(), Fail(whole=True), Hold(), Hold(stored=True)],
    ids=["fails", "fails whole", "is held", "is held behind"],
)
@pytest.mark.parametrize("shield", [0.0, 1.0])
async def test_a_drain_while_nothing_can_be_stored_ends_within_its_limit(
    fault: Fault, shield: float, autojump_clock: MockClock
) -> None:
    memory = MemoryLog()
    log = FaultyLog(memory)
    producers = [Steered(shield=shield) for _ in range(3)]
    async with open_engine(log, config=Config(drain_timeout=4)) as engine:
        for n, producer in enumerate(producers):
            await (await engine.create_session(f"s{n}")).start(producer)
            await producer.started.wait()
        log.schedule = lambda number, write: fault
        begun = trio.current_time()
    assert trio.current_time() - begun < 4 + 1
    assert all(producer.over.is_set() for producer in producers)
    await assert_rules(memory, closed=False)
    log.schedule = None
    if isinstance(fault, Hold):
        fault.release()
        await trio.testing.wait_all_tasks_blocked()
    async with open_engine(log):
        pass
    await assert_rules(memory, closed=True)


#
async def test_a_drain_that_meets_a_short_trouble_still_writes_the_ends(autojump_clock: MockClock) -> None:
    memory = MemoryLog()
    log = FaultyLog(memory)
    producer = Steered()
    async with open_engine(log) as engine:
        await (await engine.create_session("s")).start(producer)
        await producer.started.wait()
        until = trio.current_time() + 1
        log.schedule = lambda number, write: Fail() if trio.current_time() < until else None
    await assert_rules(memory, closed=True)


async def test_a_session_whose_repair_fails_for_a_bug_is_opened_anew(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    memory = MemoryLog()
    log = FaultyLog(memory)
    healthy, broken = log.head, True

    async def head(session_id: str) -> Head | None:
        if broken:
            raise RuntimeError("a bug")
        return await healthy(session_id)

    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        await session.post("one")
        monkeypatch.setattr(log, "head", head)
        log.schedule = lambda number, write: Fail()
        async with session.subscribe("now") as reader:
            with pytest.raises(WriteFailed):
                await session.post("lost")
            await trio.sleep(5)
            broken, log.schedule = False, None
            while not isinstance(delivery := await reader.receive(), Drained):
                assert not isinstance(delivery, Batch)
        await session.post("two")
        with trio.fail_after(1):
            await engine.drain()
    assert "a bug" in caplog.text
    texts = [e.data.blocks[0].text for e in await events_of(memory, "s") if e.type == "message.snapshot"]  # type: ignore[union-attr]
    assert texts == ["one", "two"]
    await assert_rules(memory, closed=True)


async def test_a_producer_does_not_outlive_an_engine_whose_log_hangs(autojump_clock: MockClock) -> None:
    memory = MemoryLog()
    hold = Hold()
    log = FaultyLog(memory)
    producer = Steered()
    async with trio.open_nursery() as nursery:
        with trio.fail_after(20):
            async with open_engine(log, config=Config(drain_timeout=2, flush_timeout=60)) as engine:
                session = await engine.create_session("s")
                await session.start(producer)
                await producer.started.wait()
                log.schedule = lambda number, write: hold

                async def ask() -> None:
                    with contextlib.suppress(PenstockError):
                        await session.post("stuck")

                nursery.start_soon(ask)
                await trio.testing.wait_all_tasks_blocked()

                async def stop_another() -> None:
                    with contextlib.suppress(PenstockError):
                        await session.stop(new_generation_id())

                nursery.start_soon(stop_another)
                await trio.testing.wait_all_tasks_blocked()
        assert producer.cancelled.is_set()
        hold.release()
    async with open_engine(log):
        pass
    await assert_rules(memory, closed=True)


# --- a store that is not sure: it reports as failed what it has stored


def unsure(monkeypatch: pytest.MonkeyPatch, log: FaultyLog, doubtful: Callable[[Write], bool]) -> None:
    """Report the writes that are ``doubtful`` as failed; the log inside stores them all the same."""
    submit = log.inner.submit

    def lie(write: Write, report: Report) -> None:
        failed = WriteFailed("nobody can tell", session_id=write.session_id) if doubtful(write) else None
        submit(write, lambda error: report(error or failed))

    monkeypatch.setattr(log.inner, "submit", lie)


@pytest.mark.parametrize("number", range(WRITES))
async def test_a_write_that_was_stored_though_it_was_reported_as_failed_is_lived_with(
    number: int, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = MemoryLog()
    log = FaultyLog(memory)
    count = iter(range(1000))
    unsure(monkeypatch, log, lambda write: of_interest(write) and next(count) == number)
    async with trio.open_nursery() as nursery, open_engine(log) as engine:
        watchers = [await watch(nursery, memory, await engine.create_session("other"))]
        if number:
            watchers.append(await watch(nursery, memory, await engine.create_session("s")))
        await scenario(engine)
        await finish(engine, log, "s", "other")
    await assert_watched(memory, *watchers)
    await assert_rules(memory, closed=True)


async def test_what_is_stored_does_not_fail_with_what_comes_behind_it(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The write behind it may be refused before the caller has heard of its own."""
    memory = MemoryLog()
    handed: list[tuple[Write, Report]] = []
    failed: list[str] = []
    async with open_engine(memory) as engine:
        session = await engine.create_session("s")

        async def post(text: str) -> None:
            try:
                await session.post(text)
            except WriteFailed:
                failed.append(text)

        with monkeypatch.context() as patched:
            patched.setattr(memory, "submit", lambda write, report: handed.append((write, report)))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(post, "fine")
                await trio.testing.wait_all_tasks_blocked()
                nursery.start_soon(post, "doomed")
                await trio.testing.wait_all_tasks_blocked()
                write, report = handed.pop()
                assert memory._write(write) is None
                report(None)
                handed.pop()[1](WriteFailed("doomed"))
                patched.undo()
        assert failed == ["doomed"]
        await trio.sleep(5)
        await session.post("works again")
    assert len(await events_of(memory, "s")) == 3
    await assert_rules(memory, closed=True)
