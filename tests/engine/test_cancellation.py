"""A caller that leaves loses the answer and nothing else: at every point, of every call."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Final

import pytest
import trio
import trio.testing
from attrs import frozen
from trio.testing import MockClock

from penstock.engine import (
    Chunk,
    Config,
    Draining,
    Engine,
    FileNotFound,
    Generation,
    GenerationFinished,
    GenerationNotFound,
    MemoryLog,
    MessageNotFound,
    PenstockError,
    Session,
    SessionDeleted,
    SessionNotFound,
    Started,
    StorageError,
    new_generation_id,
    new_message_id,
    open_engine,
)
from penstock.engine.session.peers import read_answer
from tests.engine.faulty import FaultyLog, Hold
from tests.engine.producers import Steered, saying
from tests.engine.rules import assert_rules, events_of
from tests.engine.slow import SlowLog, turns

# More turns than the longest of the calls below takes; each test checks that it does.
TURNS: Final = 120


@frozen
class Case:
    """A call to be cancelled: what stands before it, the call, and how to ask again."""

    name: str
    call: Callable[[Engine, Session], Awaitable[object]]
    live: bool = False
    shield: float = 0.0

    def __str__(self) -> str:
        return self.name


GID = new_generation_id()
MID = new_message_id()


async def subscribe(engine: Engine, session: Session) -> None:
    async with session.subscribe(live=False, snapshot=True) as events:
        async for _ in events:
            pass


CASES = [
    Case("create", lambda engine, session: engine.create_session("new")),
    Case("start", lambda engine, session: session.start(saying("x"), text="t", generation_id=GID)),
    Case("supersede", lambda engine, session: session.start(saying("x"), text="t", generation_id=GID), live=True),
    Case(
        "supersede what overruns",
        lambda engine, session: session.start(saying("x"), text="t", generation_id=GID),
        live=True,
        shield=9,
    ),
    Case("stop", lambda engine, session: session.stop(), live=True),
    Case("stop what overruns", lambda engine, session: session.stop(), live=True, shield=9),
    Case("post", lambda engine, session: session.post("p", message_id=MID), live=True),
    Case("delete", lambda engine, session: session.delete(), live=True),
    Case("snapshot", lambda engine, session: session.snapshot()),
    Case("snapshot_page", lambda engine, session: session.snapshot_page()),
    Case("find", lambda engine, session: engine.session("s")),
    Case("generation", lambda engine, session: session.generation(GID)),
    Case("subscribe", subscribe, live=True),
    Case("carry_out", lambda engine, session: engine.carry_out("s", "update", b'{"patch":{}}'), live=True),
    Case("drain", lambda engine, session: engine.drain(), live=True),
]


async def cancelled_after(count: int, call: Callable[[], Awaitable[object]]) -> bool:
    """Call and cancel after so many turns of the loop; whether the call was over by then."""
    over = False
    async with trio.open_nursery() as nursery:

        async def run() -> None:
            nonlocal over
            with contextlib.suppress(GenerationNotFound):
                await call()
            over = True
            nursery.cancel_scope.cancel()

        nursery.start_soon(run)
        await turns(count)
        nursery.cancel_scope.cancel()
    return over


async def in_memory_or_not(engine: Engine, clock: MockClock, evicted: bool) -> None:
    if evicted:
        await trio.testing.wait_all_tasks_blocked()
        clock.jump(61)
        await trio.testing.wait_all_tasks_blocked()
        assert engine.statistics().sessions == 0


# A session with a live generation stays in memory.
@pytest.mark.parametrize(
    ("case", "evicted"),
    [(case, evicted) for case in CASES for evicted in (False, True) if not (case.live and evicted)],
    ids=str,
)
def test_a_caller_may_leave_at_any_moment(case: Case, evicted: bool) -> None:
    overs = []
    for count in range(TURNS):
        if count > 30 and count % 7:
            continue  # by then it waits for one thing for long
        clock = MockClock(autojump_threshold=0)
        overs.append(trio.run(leave_after, case, evicted, count, clock, clock=clock))
        if all(overs[-3:]) and len(overs) > 3:
            break
    assert not overs[0] or case.name == "find"
    assert case.shield or overs[-1], "the call takes longer than the test thinks"


async def leave_after(case: Case, evicted: bool, count: int, clock: MockClock) -> bool:
    log = SlowLog()
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        producer = Steered(shield=case.shield)
        await session.post("before")
        if case.live:
            await session.start(producer)
            await producer.started.wait()
        await in_memory_or_not(engine, clock, evicted)
        log.turns = deque([3, 1, 2, 0])
        over = await cancelled_after(count, lambda: case.call(engine, session))
        log.turns = deque([0])
        await trio.sleep(20)
        # Nothing is stuck, and nothing of it is left half done.
        statistics = engine.statistics()
        assert statistics.pending_events == 0
        assert statistics.subscribers == 0
        assert statistics.stragglers == 0
        assert not engine._registry._entering
        await assert_rules(log, closed=False)
        if case.name == "drain":
            assert engine.draining
            await engine.drain()
            ends = [e.data.outcome for e in await events_of(log, "s") if isinstance(e.data, GenerationFinished)]
            assert ends == (["shutdown"] if ends else [])
        else:
            await go_on(engine, log, case)
    assert not await log.holders("open")
    await assert_rules(log, closed=True)
    return over


async def go_on(engine: Engine, log: SlowLog, case: Case) -> None:
    """The same again, as a client would, finds what the first try did or does it now."""
    with trio.fail_after(10):
        if case.name == "create":
            again = await engine.create_session("new")
            assert len(await events_of(log, "new")) == 1
            await again.post("works")
            return
        try:
            session = await engine.session("s")
        except SessionDeleted:
            assert case.name == "delete"
            session = await engine.create_session("s")
        with contextlib.suppress(SessionNotFound):
            posted = await session.post("p", message_id=MID)
            assert posted.created or case.name == "post"
        try:
            info = await session.generation(GID)
        except GenerationNotFound:
            started = await session.start(saying("x"), generation_id=GID)
            assert isinstance(started, Started)
            await trio.sleep(1)
            info = await session.generation(GID)
        assert info.outcome == "completed"
        started = await session.start(saying("y"))
        await trio.sleep(1)
        assert (await session.generation(started.generation_id)).outcome == "completed"
        texts = [e for e in await events_of(log, "s") if e.type == "message.snapshot" and e.message_id == MID]
        assert len(texts) == 1


async def test_a_step_goes_on_when_its_caller_has_left(log: MemoryLog, autojump_clock: MockClock) -> None:
    old = Steered(shield=1)
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        await session.start(old)
        await old.started.wait()
        wanted = new_generation_id()
        with trio.move_on_after(0.5):
            await session.start(saying("x"), generation_id=wanted)
        assert old.cancelled.is_set()
        await trio.sleep(2)
        assert (await session.generation(wanted)).outcome == "completed"


async def test_a_producer_that_gives_up_waiting_loses_nothing(log: MemoryLog, autojump_clock: MockClock) -> None:
    """Flush, write and approve under a producer's own deadlines."""
    hold = Hold()
    faulty = FaultyLog(log)

    async def producer(generation: Generation) -> None:
        async with generation.message() as message, message.text() as block:
            await generation.flush()
            faulty.schedule = lambda number, write: hold
            for n in range(60):
                with trio.move_on_after(0.01):
                    await block.write(f"{n} ")
                with trio.move_on_after(0.01):
                    await generation.flush()
            hold.release()
            await generation.flush()
            with trio.move_on_after(0.01):
                await generation.approve("rm")

    async with open_engine(faulty, config=Config(session_pending=20)) as engine:
        session = await engine.create_session("s")
        started = await session.start(producer)
        await trio.sleep(5)
        assert (await session.generation(started.generation_id)).outcome == "completed"
        assert engine.statistics().pending_events == 0
        text = (await session.snapshot()).messages[0].blocks[0].text
        assert text is not None
        # Those for which there was room, in order, each once.
        assert text.split() == [str(n) for n in range(len(text.split()))]


# --- the application as a whole


def outcomes_of(events: list[object]) -> list[str]:
    return [event.data.outcome for event in events if isinstance(event.data, GenerationFinished)]  # type: ignore[attr-defined]


@pytest.mark.parametrize("shield", [0.0, 1.0, 60.0])
async def test_a_cancelled_application_still_ends_its_generations(
    shield: float, log: MemoryLog, autojump_clock: MockClock
) -> None:
    producer = Steered(shield=shield)
    with trio.move_on_after(1) as scope:
        async with open_engine(log) as engine:
            await (await engine.create_session("s")).start(producer)
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert outcomes_of(list(await events_of(log, "s"))) == ["shutdown"]
    await assert_rules(log, closed=True)


async def test_an_application_cancelled_in_its_drain_still_ends_its_generations(
    log: MemoryLog, autojump_clock: MockClock
) -> None:
    with trio.move_on_after(1) as scope:
        async with open_engine(log) as engine:
            for n in range(3):
                await (await engine.create_session(f"s{n}")).start(Steered(shield=1.5))
            await trio.sleep(0.5)
            await engine.drain()
    assert scope.cancelled_caught
    for n in range(3):
        assert outcomes_of(list(await events_of(log, f"s{n}"))) == ["shutdown"]
    await assert_rules(log, closed=True)


class Odd(BaseException):
    pass


@pytest.mark.parametrize(
    "error",
    [KeyboardInterrupt(), SystemExit(3), Odd(), ValueError("x"), ExceptionGroup("g", [ValueError("x")])],
    ids=lambda error: type(error).__name__,
)
async def test_what_the_application_raises_comes_out_as_it_is(
    error: BaseException, log: MemoryLog, autojump_clock: MockClock
) -> None:
    caught: BaseException | None = None
    try:
        async with open_engine(log) as engine:
            await (await engine.create_session("s")).start(Steered())
            raise error
    except BaseException as raised:  # noqa: BLE001
        caught = raised
    assert caught is error
    assert outcomes_of(list(await events_of(log, "s"))) == ["shutdown"]


async def left_by(error: BaseException | None) -> BaseException | None:
    """What comes out of an engine's block that is left by ``error``."""
    try:
        async with open_engine(":memory:") as engine:
            await (await engine.create_session("s")).start(Steered(shield=1.0))
            await trio.sleep(0.1)
            if error is not None:
                raise error
    except trio.Cancelled:
        raise
    except BaseException as raised:  # noqa: BLE001
        return raised
    return None


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("x"), ExceptionGroup("g", [ValueError("x")]), None])
async def test_when_closing_raises_too_both_come_out(
    error: BaseException | None, log: MemoryLog, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    trouble = StorageError("the disk hangs")

    async def aclose() -> None:
        raise trouble

    monkeypatch.setattr(log, "aclose", aclose)
    monkeypatch.setattr("penstock.engine.log.opening.MemoryLog", lambda: log)  # one that it opens itself, and closes
    out = await left_by(error)
    if error is None:
        assert out is trouble
    else:
        assert isinstance(out, BaseExceptionGroup)
        assert out.exceptions == (error, trouble)
    assert outcomes_of(list(await events_of(log, "s"))) == ["shutdown"]


async def test_an_error_is_not_lost_to_a_cancellation_that_comes_while_the_engine_closes(
    log: MemoryLog, autojump_clock: MockClock
) -> None:
    async def application() -> None:
        async with open_engine(log) as engine:
            await (await engine.create_session("s")).start(Steered(shield=1.0))
            await trio.sleep(0.1)
            raise ValueError("the application's own")

    with trio.move_on_after(0.5) as scope, pytest.raises(ValueError, match="the application's own"):
        await application()
    assert scope.cancel_called
    assert outcomes_of(list(await events_of(log, "s"))) == ["shutdown"]


async def read_all(session: Session, *, snapshot: bool = False) -> None:
    async with session.subscribe(live=False, snapshot=snapshot) as events:
        async for _ in events:
            pass


async def carried_out(engine: Engine) -> None:
    read_answer(await engine.carry_out("s", "update", b'{"patch":{}}'))


CALLS: Final[dict[str, Callable[[Engine, Session], Awaitable[object]]]] = {
    "create_session": lambda engine, session: engine.create_session("new"),
    "create_session that is there": lambda engine, session: engine.create_session("s"),
    "session": lambda engine, session: engine.session("s"),
    "session that is not there": lambda engine, session: engine.session("none"),
    "sessions": lambda engine, session: engine.sessions(),
    "delete_session": lambda engine, session: engine.delete_session("s"),
    "redeem": lambda engine, session: engine.redeem("ticket", 60),
    "carry_out": lambda engine, session: carried_out(engine),
    "take_over": lambda engine, session: engine.take_over("another"),
    "start": lambda engine, session: session.start(saying("x"), text="t"),
    "start remote": lambda engine, session: session.start("remote"),
    "stop": lambda engine, session: session.stop(),
    "queue_next": lambda engine, session: session.queue_next(),
    "dequeue": lambda engine, session: session.dequeue(GID),
    "post": lambda engine, session: session.post("p"),
    "retract": lambda engine, session: session.retract(MID),
    "versions": lambda engine, session: session.versions(MID),
    "restore": lambda engine, session: session.restore(MID),
    "keep_file": lambda engine, session: session.keep_file(b"x", media_type="text/plain"),
    "file": lambda engine, session: session.file("f"),
    "read_file": lambda engine, session: session.read_file("f"),
    "update": lambda engine, session: session.update({"a": 1}),
    "reset": lambda engine, session: session.reset(),
    "fork": lambda engine, session: session.fork("new"),
    "subscribe": lambda engine, session: read_all(session),
    "subscribe with a snapshot": lambda engine, session: read_all(session, snapshot=True),
    "snapshot": lambda engine, session: session.snapshot(),
    "snapshot_page": lambda engine, session: session.snapshot_page(),
    "input": lambda engine, session: session.input(GID, "steer", {}),
    "chunks": lambda engine, session: session.chunks([Chunk(generation_id=GID, data={"text": "a"})]),
    "keep": lambda engine, session: session.keep(GID, lease=5.0),
    "finish": lambda engine, session: session.finish(GID),
    "wait_fenced": lambda engine, session: session.wait_fenced(GID),
    "put_presence": lambda engine, session: session.put_presence("a", "d"),
    "drop_presence": lambda engine, session: session.drop_presence("a"),
    "presence": lambda engine, session: session.presence(),
    "generation": lambda engine, session: session.generation(GID),
    "cursor": lambda engine, session: session.cursor(),
    "delete": lambda engine, session: session.delete(),
}


def test_the_calls_are_all_there_are() -> None:
    public = {
        name
        for kind in (Engine, Session)
        for name, method in vars(kind).items()
        if callable(method) and not name.startswith("_")
    }
    inner = {"resident", "fork_session", "producer", "statistics", "drain"}
    inner |= {"nodes", "find_node"}  # nor do these
    inner.add("watch")  # it does not wait: of an engine that ends it tells so itself
    assert public - inner == {name.split()[0] for name in CALLS}


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
@pytest.mark.parametrize("call", CALLS)
async def test_after_its_end_an_engine_says_draining_whatever_it_is_asked(call: str, kind: str, tmp_path: Path) -> None:
    async with open_engine(":memory:" if kind == "memory" else tmp_path / "x.db") as engine:
        session = await engine.create_session("s")
    with pytest.raises(Draining):
        await CALLS[call](engine, session)


@pytest.mark.parametrize("call", CALLS)
async def test_what_is_asked_while_an_engine_ends_is_done_or_said_to_be_draining(
    call: str, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The call begins before the engine's block is left, and is anywhere in its course when it is."""
    for count in (*range(30), 40, 50, 60):
        log = SlowLog()
        log.turns = deque([2, 1, 3])
        monkeypatch.setattr("penstock.engine.log.opening.MemoryLog", lambda log=log: log)  # one that the engine closes
        async with trio.open_nursery() as nursery:

            async def ask(engine: Engine, session: Session) -> None:
                with contextlib.suppress(Draining, FileNotFound, GenerationNotFound, MessageNotFound, SessionNotFound):
                    await CALLS[call](engine, session)

            async with open_engine(":memory:") as engine:
                session = await engine.create_session("s")
                nursery.start_soon(ask, engine, session)
                await turns(count)


@pytest.mark.parametrize("evicted", [False, True])
@pytest.mark.parametrize("count", range(40))
async def test_what_comes_in_while_the_engine_drains_is_ended_or_refused(
    count: int, evicted: bool, autojump_clock: MockClock
) -> None:
    log = SlowLog()
    producer = Steered()
    async with trio.open_nursery() as nursery, open_engine(log) as engine:
        session = await engine.create_session("s")
        await in_memory_or_not(engine, autojump_clock, evicted)
        log.turns = deque([2, 1, 3])

        async def start() -> None:
            with contextlib.suppress(Draining):
                await session.start(producer)

        nursery.start_soon(start)
        await turns(count)
    assert producer.over.is_set() or not producer.started.is_set()
    assert await log.holders("open") == []
    await assert_rules(log, closed=True)


async def test_a_post_that_waits_keeps_its_session_in_memory(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two of the same session in memory would write past each other."""
    log = MemoryLog()
    get_record = log.record

    async def slow_record(session_id: str, epoch: str, key: str) -> bytes | None:
        found = await get_record(session_id, epoch, key)
        await trio.sleep(100)
        return found

    async with open_engine(log, config=Config(idle_session=10)) as engine:
        session = await engine.create_session("s")
        monkeypatch.setattr(log, "record", slow_record)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: session.post("slow", message_id=new_message_id()))
            await trio.sleep(30)
            assert engine.statistics().sessions == 1
            await session.post("quick")
            monkeypatch.undo()
        await session.post("last")
        assert not engine.degraded
    assert [e.type for e in await events_of(log, "s")] == ["session.created", *3 * ["message.snapshot"]]


async def test_a_post_that_waits_is_refused_when_its_session_is_deleted_meanwhile(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = MemoryLog()
    get_record = log.record

    async def slow_record(session_id: str, epoch: str, key: str) -> bytes | None:
        found = await get_record(session_id, epoch, key)
        await trio.sleep(100)
        return found

    raised: list[PenstockError] = []
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        monkeypatch.setattr(log, "record", slow_record)

        async def post() -> None:
            try:
                await session.post("slow", message_id=new_message_id())
            except PenstockError as error:
                raised.append(error)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(post)
            await trio.testing.wait_all_tasks_blocked()
            await session.delete()
            assert (await engine.create_session("s")).created
        monkeypatch.undo()
    assert [type(error) for error in raised] == [SessionDeleted]
    assert len(await events_of(log, "s")) == 1


async def test_a_stop_that_is_turned_away_stops_nothing(log: MemoryLog, autojump_clock: MockClock) -> None:
    old = Steered(shield=1)
    refused: list[str] = []
    async with open_engine(log, config=Config(max_steps=2)) as engine:
        session = await engine.create_session("s")
        await session.start(old)
        await old.started.wait()
        wanted = [new_generation_id() for _ in range(3)]
        async with trio.open_nursery() as nursery:
            for gid in wanted:
                nursery.start_soon(partial(session.start, saying("x"), generation_id=gid))
                await trio.testing.wait_all_tasks_blocked()
            for call in (session.stop, session.delete):
                with pytest.raises(PenstockError) as turned_away:
                    await call()
                refused.append(turned_away.value.code)
        await trio.sleep(5)
        assert refused == ["OVERLOADED", "OVERLOADED"]
        assert (await session.generation(wanted[-1])).outcome == "completed"
