"""What an engine tells its observers, and its log lines: each fact once, after it is one."""

from __future__ import annotations

import logging
from typing import TypeVar

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from penstock.engine import (
    CaughtUp,
    CleanupEnded,
    Committed,
    Config,
    Cursor,
    Fact,
    FellBehind,
    GapMet,
    Generation,
    GenerationBegan,
    GenerationCancelled,
    GenerationEnded,
    MemoryLog,
    ProducerDone,
    ProducerError,
    SessionRepaired,
    StragglerEnded,
    WriteRefused,
    open_engine,
    request_id,
)
from penstock.engine.testing import StubbornProducer
from tests.engine.faulty import Fail, FaultyLog
from tests.engine.producers import Steered, failing, saying

F = TypeVar("F")


class Notes:
    """An observer that keeps what it hears."""

    def __init__(self) -> None:
        self.facts: list[Fact] = []

    def observe(self, fact: Fact, /) -> None:
        self.facts.append(fact)

    def of(self, kind: type[F]) -> list[F]:
        return [fact for fact in self.facts if isinstance(fact, kind)]

    def lives(self) -> list[tuple[str, str]]:
        """The facts about generations, in order, with what tells them apart."""
        told = []
        for fact in self.facts:
            match fact:
                case GenerationBegan():
                    told.append((fact.generation_id, "began"))
                case GenerationCancelled():
                    told.append((fact.generation_id, f"cancelled: {fact.reason}"))
                case ProducerDone():
                    told.append((fact.generation_id, fact.how))
                case CleanupEnded():
                    told.append((fact.generation_id, "overran" if fact.overran else "clean"))
                case StragglerEnded():
                    told.append((fact.generation_id, "straggler ended"))
                case GenerationEnded():
                    told.append((fact.generation_id, fact.outcome))
                case _:
                    pass
        return told


async def settled() -> None:
    await trio.testing.wait_all_tasks_blocked()


async def test_a_supersede_is_told_in_its_order(log: MemoryLog, autojump_clock: MockClock) -> None:
    notes, old = Notes(), Steered()
    async with open_engine(log, observer=notes) as engine:
        session = await engine.create_session("s")
        first = await session.start(old)
        await old.started.wait()
        await trio.sleep(3)
        second = await session.start(saying("new"))
        await settled()
    one, two = first.generation_id, second.generation_id
    assert notes.lives() == [
        (one, "began"),
        (one, "cancelled: superseded"),
        (one, "cancelled"),
        (one, "clean"),
        (one, "superseded"),
        (two, "began"),
        (two, "returned"),
        (two, "completed"),
    ]
    ends = {fact.generation_id: fact.seconds for fact in notes.of(GenerationEnded)}
    assert ends == {one: pytest.approx(3), two: pytest.approx(0)}


#
async def test_an_overrun_and_its_late_end_are_told(log: MemoryLog, autojump_clock: MockClock) -> None:
    notes = Notes()
    async with open_engine(log, config=Config(cleanup_timeout=2), observer=notes) as engine:
        session = await engine.create_session("s")
        stubborn = StubbornProducer(60)
        gid = (await session.start(stubborn)).generation_id
        await stubborn.started.wait()
        await session.stop()
        assert [told for _, told in notes.lives()] == ["began", "cancelled: stopped", "overran", "stopped"]
        assert engine.statistics().stragglers == 1
        await stubborn.over.wait()
        await settled()
    (overran,) = notes.of(CleanupEnded)
    assert (overran.generation_id, overran.producer) == (gid, "StubbornProducer")
    assert overran.seconds == pytest.approx(2)
    (ended,) = notes.of(StragglerEnded)
    assert ended.seconds == pytest.approx(60)


async def test_a_producer_that_raises_is_told_with_its_error(log: MemoryLog, autojump_clock: MockClock) -> None:
    notes, error = Notes(), ValueError("inside")
    async with open_engine(log, observer=notes) as engine:
        session = await engine.create_session("s")
        await session.start(failing(error))
        await settled()
    assert [(fact.how, fact.error) for fact in notes.of(ProducerDone)] == [("raised", error)]
    assert [told for _, told in notes.lives()] == ["began", "raised", "failed"]


#
async def test_an_end_is_told_when_it_is_stored_and_once(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """The end that was refused is none; the one that the repair writes is. The log has both, with the session."""
    caplog.set_level(logging.INFO, "penstock.session")
    notes, steered, broken = Notes(), Steered(), [False]
    log = FaultyLog(MemoryLog(), lambda *_: Fail() if broken[0] else None)
    async with open_engine(log, observer=notes) as engine:
        session = await engine.create_session("s")
        await session.start(steered)
        await steered.started.wait()
        broken[0] = True
        steered.finish.set()
        await trio.sleep(1)
        assert notes.of(GenerationEnded) == []
        assert engine.statistics().degraded_sessions == 1
        assert notes.of(WriteRefused)
        assert notes.of(SessionRepaired) == []
        assert {line.message for line in caplog.records if line.levelname == "ERROR"} == {"write_refused"}
        broken[0] = False
        await trio.sleep(10)
        assert [fact.outcome for fact in notes.of(GenerationEnded)] == ["failed"]
        assert len(notes.of(SessionRepaired)) == 1
        assert [line.message for line in caplog.records if line.levelname == "INFO"] == ["session_repaired"]
        told = [vars(line) for line in caplog.records if "event" in vars(line)]
        assert {line["session_id"] for line in told} == {"s"}
        assert {line["code"] for line in told if line["event"] == "write_refused"} == {"WRITE_FAILED"}


async def test_a_generation_of_a_dead_process_ends_without_a_duration(
    log: MemoryLog, autojump_clock: MockClock
) -> None:
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        await session.start(Steered())
        copy = await _copied(log)
    notes = Notes()
    async with open_engine(copy, observer=notes):
        pass
    (ended,) = notes.of(GenerationEnded)
    assert (ended.outcome, ended.seconds) == ("lost", None)


async def _copied(log: MemoryLog) -> MemoryLog:
    """What a process that is killed now leaves."""
    import copy

    await settled()
    made = MemoryLog()
    made._lives = copy.deepcopy(log._lives)
    return made


async def test_a_generation_that_only_waited_has_not_begun(log: MemoryLog, autojump_clock: MockClock) -> None:
    notes, steered = Notes(), Steered()
    async with open_engine(log, producers={"steered": steered}, observer=notes) as engine:
        session = await engine.create_session("s")
        live = (await session.start("steered")).generation_id
        waiting = (await session.start("steered", policy="queue")).generation_id
        assert notes.lives() == [(live, "began")]
        await session.dequeue(waiting)
        assert notes.lives() == [(live, "began"), (waiting, "stopped")]
        assert [fact.seconds for fact in notes.of(GenerationEnded)] == [None]


async def test_commits_tell_all_that_is_stored(log: MemoryLog, autojump_clock: MockClock) -> None:
    notes = Notes()
    async with open_engine(log, observer=notes) as engine:
        session = await engine.create_session("s")
        await session.start(saying(*["piece"] * 40))
        await settled()
        await session.post("a message")
    stored = await log.read("s", (await _head(log)).epoch, after=1, limit=1000, max_bytes=10**9)  # but session.created
    told = notes.of(Committed)
    assert sum(fact.events for fact in told) == len(stored)
    assert sum(fact.size for fact in told) == sum(len(entry.body) for entry in stored)
    assert all(fact.session_id == "s" and fact.events > 0 for fact in told)


async def _head(log: MemoryLog) -> Cursor:
    head = await log.head("s")
    assert head is not None
    return Cursor(head.epoch, head.tail)


async def test_a_reader_that_falls_behind_and_one_that_asks_for_too_much_are_told(
    log: MemoryLog, autojump_clock: MockClock
) -> None:
    notes = Notes()
    async with open_engine(log, config=Config(subscriber_buffer=2), observer=notes) as engine:
        session = await engine.create_session("s")
        async with session.subscribe("now") as slow:
            while not isinstance(await slow.receive(), CaughtUp):
                pass
            for number in range(5):
                await session.post(f"message {number}")
            assert notes.of(FellBehind) == []
            while slow.cursor != await session.cursor():
                await slow.receive()
            assert notes.of(FellBehind) == [FellBehind(session_id="s")]
        async with (
            session.subscribe(Cursor("0123456789abcdef", 3)),
            session.subscribe(Cursor((await session.cursor()).epoch, 99)),
        ):
            pass
    assert [fact.reason for fact in notes.of(GapMet)] == ["unknown_epoch", "past_tail"]


async def test_an_observer_that_raises_hears_nothing_more_and_harms_nobody(
    log: MemoryLog, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(Notes):
        def observe(self, fact: Fact, /) -> None:
            super().observe(fact)
            raise RuntimeError("a bug in there")

    broken = Broken()
    async with open_engine(log, observer=broken) as engine:
        session = await engine.create_session("s")
        for _ in range(3):
            started = await session.start(saying("text"))
            await settled()
            assert (await session.generation(started.generation_id)).outcome == "completed"
    assert len(broken.facts) == 1
    assert caplog.text.count("it is told nothing more") == 1


class Seen:
    """A producer that notes the request that its task works for."""

    def __init__(self) -> None:
        self.requests: list[str | None] = []

    async def __call__(self, generation: Generation) -> None:
        self.requests.append(request_id.get())


async def test_a_step_and_a_producer_work_for_the_request_that_asked(
    log: MemoryLog, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    seen, heard = Seen(), list[tuple[str, str | None]]()

    class Listening:
        def observe(self, fact: Fact, /) -> None:
            if isinstance(fact, GenerationCancelled):
                heard.append((fact.reason, request_id.get()))

    async with open_engine(log, producers={"seen": seen}, observer=Listening()) as engine:
        request_id.set("made")
        session = await engine.create_session("s")
        request_id.set("started")
        await session.start(seen)
        await settled()
        request_id.set(None)
        await session.start(seen)  # not for the request that brought the session into memory
        await settled()
        assert seen.requests == ["started", None]
        live = Steered()
        await session.start(live)
        await live.started.wait()
        request_id.set("queued")
        await session.start("seen", policy="queue")
        request_id.set("stopped")
        await session.stop(queue="continue")
        await settled()
        assert heard == [("stopped", "stopped")]
        assert seen.requests == ["started", None, None], "its turn came by itself"


# What each of the lines is called elsewhere, and here.
LINES = {
    "stream_cancelled": ("generation_cancelled", {"reason"}),
    "prev_stream_finished_cleanly": ("cleanup_finished", {"duration_ms", "producer"}),
    "prev_stream_timeout_on_cancel": ("cleanup_overran", {"timeout_ms", "producer"}),
    "stream_generator_cancelled": ("producer_cancelled", {"producer"}),
    "stream_generator_exit": ("producer_returned", {"producer"}),
    "stream_generator_exception": ("producer_failed", {"producer", "code"}),
    "stream_cleanup": ("straggler_ended", {"duration_ms", "producer"}),
    "stream_end": ("generation_ended", {"outcome", "duration_ms"}),
}


#
async def test_the_life_of_a_generation_is_in_the_log_with_fields(
    log: MemoryLog, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "penstock")
    async with open_engine(log, config=Config(cleanup_timeout=2)) as engine:
        session = await engine.create_session("s")
        await session.start(saying("text"))
        await settled()
        await session.start(failing(ValueError("inside")))
        await settled()
        steered = Steered()
        await session.start(steered)
        await steered.started.wait()
        stubborn = StubbornProducer(60)
        await session.start(stubborn)
        await stubborn.started.wait()
        await session.stop(reason="enough")
        await stubborn.over.wait()
        await settled()
    lines = {record.message: vars(record) for record in caplog.records}
    for event, fields in LINES.values():
        assert event in lines
        assert lines[event]["event"] == event
        assert lines[event]["name"] == "penstock.generation"
        assert fields | {"session_id", "generation_id"} <= lines[event].keys()
    assert lines["generation_cancelled"]["reason"] == "enough"
    assert lines["cleanup_overran"]["timeout_ms"] == pytest.approx(2000)
    assert lines["cleanup_overran"]["levelname"] == "WARNING"
    assert lines["producer_failed"]["levelname"] == "ERROR"
    assert "ValueError: inside" in caplog.text, "with its traceback"


async def test_a_failure_that_is_meant_for_readers_is_no_error_of_the_servers(
    log: MemoryLog, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "penstock")
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        await session.start(failing(ProducerError("the model is busy", reason="MODEL_BUSY")))
        await settled()
    (line,) = [vars(record) for record in caplog.records if record.message == "producer_failed"]
    assert (line["levelname"], line["code"], line["detail"]) == ("INFO", "MODEL_BUSY", "the model is busy")
    assert line["exc_info"] is None
