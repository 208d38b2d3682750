"""One session that cannot be read is set aside, whatever became of what is stored of it, and all others go on."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Final, final

import pytest
import trio
import trio.testing
from hypothesis import HealthCheck, Phase, event, given, note, settings
from hypothesis import strategies as st

from penstock.engine import (
    JSON,
    Batch,
    Config,
    CorruptSession,
    Delivery,
    Ended,
    Engine,
    Entry,
    EventLog,
    GenerationFinished,
    MemoryLog,
    PenstockError,
    Session,
    SessionDeleted,
    SessionNotFound,
    WriteFailed,
    decode,
    new_generation_id,
    open_engine,
)
from penstock.engine.testing import check_session
from tests.engine.damage import (
    CRASHED,
    KINDS,
    PRODUCERS,
    Damage,
    answer,
    damage_file,
    damage_memory,
    damages,
    stored_file,
    stored_memory,
)
from tests.engine.exploring import explore, exploring, quiet  # noqa: F401  a fixture
from tests.engine.faulty import Fail, FaultyLog
from tests.engine.living import copied
from tests.engine.producers import Steered

CONFIG: Final = Config(compact_after=None, page_events=7, idle_limit=1e9)

# What may be said of a session that was damaged: that it is, or something that another value would have led to.
FINE: Final = {
    "SESSION_NOT_FOUND",
    "SESSION_DELETED",
    "GENERATION_NOT_FOUND",
    "GENERATION_MISMATCH",
    "STALE_GENERATION",
    "MESSAGE_NOT_FOUND",
    "IDEMPOTENCY_CONFLICT",
    "ID_IN_USE",
    "INVALID_CURSOR",
}

Folds = Mapping[str, JSON]


@final
class Reader:
    """Follows a session to the end of all. What it gets is JSON."""

    def __init__(self) -> None:
        self.ready = trio.Event()
        self.over = trio.Event()
        self.last: Delivery | None = None

    async def follow(self, session: Session, *, snapshot: bool) -> None:
        try:
            async with session.subscribe(snapshot=snapshot) as subscription:
                self.ready.set()
                while True:
                    self.last = await subscription.receive()
                    if isinstance(self.last, Batch):
                        for entry in self.last.entries:
                            assert isinstance(json.loads(entry.body), dict)
        except (trio.EndOfChannel, PenstockError):
            self.ready.set()
            self.over.set()


async def folds_of(engine: Engine, but: str) -> Folds:
    """What all sessions come to, but for this one, and for the one that was left open."""
    found: dict[str, JSON] = {}
    for session_id in KINDS:
        if session_id in (but, CRASHED, "deleted"):
            continue
        found[session_id] = (await (await engine.session(session_id)).snapshot()).to_json()
    return found


async def use(engine: Engine, session: Session, done: Counter[str]) -> bool:
    """Ask for everything; whether it is set aside. Nothing else is wrong then, and nothing is half done."""
    aside = False
    wrong: list[str] = []
    started: list[str] = []

    async def start() -> None:
        started.append((await session.start("say", text="new")).generation_id)

    async def page() -> None:
        await engine.sessions(order="updated")
        for info in await engine.sessions():
            if info.session_id == session.session_id and info.corrupt:
                raise CorruptSession("the list says so")

    calls: list[tuple[str, Callable[[], Awaitable[object]]]] = [
        ("list", page),
        ("cursor", session.cursor),
        ("post", lambda: session.post("a word")),
        ("input", lambda: session.input(new_generation_id(), "steer", {})),
        ("repeat", lambda: session.start("say", text="hi", idempotency_key="k")),
        ("snapshot", session.snapshot),
        ("snapshot_page", session.snapshot_page),
        ("fork", lambda: session.fork(f"of-{session.session_id}")),
        ("stop", session.stop),
        ("next", session.queue_next),
        ("start", start),
        ("update", lambda: session.update({"x": 1})),
        ("again", session.snapshot),
        ("reset", session.reset),
        ("last", session.snapshot),
    ]
    for name, call in calls:
        try:
            with trio.fail_after(30):
                await call()
        except CorruptSession:
            if not aside:
                done[f"found by {name}"] += 1
            aside = True
        except PenstockError as error:
            wrong += [] if error.code in FINE and not aside else [f"{name}: {error!r}"]
        else:
            wrong += [f"{name} works"] if aside else []
    assert not wrong, wrong
    return aside


async def lives(engine: Engine, session_id: str) -> None:
    """It can be used from its first event on."""
    session = await engine.session(session_id)
    with trio.fail_after(30):
        await answer(session)
    assert len((await session.snapshot()).messages) == 2


async def examine(store: EventLog | Path, damage: Damage, healthy: Folds, watched: bool) -> Counter[str]:
    """Open what was damaged, and see what is promised."""
    done: Counter[str] = Counter()
    victim = damage.session
    expected = {session_id: fold for session_id, fold in healthy.items() if session_id != victim}
    epoch = ""
    async with open_engine(store, producers=PRODUCERS, config=CONFIG) as engine, trio.open_nursery() as nursery:
        try:
            session = await engine.session(victim)
        except (SessionNotFound, SessionDeleted) as error:
            done[error.code] += 1
            session = Session(engine._registry, victim)  # type: ignore[arg-type]
        readers = [Reader(), Reader()] if watched else []
        for number, reader in enumerate(readers):
            nursery.start_soon(partial(reader.follow, session, snapshot=bool(number)))
            await reader.ready.wait()
        aside = await use(engine, session, done)
        assert await folds_of(engine, victim) == expected
        statistics = engine.statistics()
        assert statistics.set_aside == aside
        if aside:
            done["set aside"] += 1
            await check_aside(engine, session, readers)
        with_id = {info.session_id for info in await engine.sessions(limit=1000)}
        assert with_id >= expected.keys()
        for deleted in (victim, f"of-{victim}"):
            try:
                await engine.delete_session(deleted)
            except (SessionNotFound, SessionDeleted):
                done["was gone"] += 1
        assert engine.statistics().set_aside == 0
        with contextlib.suppress(SessionDeleted, SessionNotFound):
            raise AssertionError(f"{await engine.session(victim)} is still there")
        made = await engine.create_session(victim)
        assert made.created
        epoch = (await made.cursor()).epoch
        await lives(engine, victim)
        nursery.cancel_scope.cancel()
    async with open_engine(store, producers=PRODUCERS, config=CONFIG) as engine:
        assert (await (await engine.session(victim)).cursor()).epoch == epoch
        assert len((await (await engine.session(victim)).snapshot()).messages) == 2
        await lives_on(engine, victim)
        assert await folds_of(engine, victim) == expected
        assert engine.statistics().set_aside == 0
    return done


async def lives_on(engine: Engine, session_id: str) -> None:
    session = await engine.session(session_id)
    await session.post("and on")
    assert len((await session.snapshot()).messages) == 3


async def read_all(session: Session) -> None:
    async with session.subscribe(live=False) as events:
        async for _ in events:
            pass


async def check_aside(engine: Engine, session: Session, readers: list[Reader]) -> None:
    """What is promised of a session that is set aside."""
    victim = session.session_id
    for reader in readers:
        with trio.fail_after(30):
            await reader.over.wait()
        assert reader.last in (None, Ended("corrupt"))
    other, handle = await engine.session("plain" if victim != "plain" else "forked"), await engine.session(victim)
    for call in (partial(engine.create_session, victim), partial(other.fork, victim), partial(read_all, handle)):
        with contextlib.suppress(CorruptSession):
            raise AssertionError(f"{await call()}")
    listed = [info for info in await engine.sessions(limit=1000) if info.session_id == victim]
    assert all(info.corrupt for info in listed)  # none of a life that was over


# --- in memory


@pytest.fixture(scope="module")
def memory() -> tuple[MemoryLog, Folds]:
    async def make() -> tuple[MemoryLog, Folds]:
        log = await stored_memory()
        async with open_engine(await copied(log), producers=PRODUCERS, config=CONFIG) as engine:
            return log, await folds_of(engine, "")

    return trio.run(make, clock=trio.testing.MockClock(autojump_threshold=0))


@pytest.mark.usefixtures("quiet")
@exploring(250)
@given(damage=damages(), watched=st.booleans())
def test_damage_in_memory_is_the_trouble_of_one_session(
    memory: tuple[MemoryLog, Folds], damage: Damage, watched: bool
) -> None:
    log, healthy = memory
    note(str(damage))

    async def one() -> Counter[str]:
        damaged = await copied(log)
        if not damage_memory(damaged, damage):
            return Counter()
        return await examine(damaged, damage, healthy, watched)

    explore(one)


# --- in a file


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Folds]:
    path = tmp_path_factory.mktemp("stored") / "healthy.db"

    async def make() -> Folds:
        await stored_file(path)
        again = path.with_suffix(".again")
        again.write_bytes(path.read_bytes())
        async with open_engine(again, producers=PRODUCERS, config=CONFIG) as engine:
            return await folds_of(engine, "")

    return path, trio.run(make)


@pytest.mark.usefixtures("quiet")
# What fails is one damage, which is small as it is: there is nothing to shrink, or to explain.
@settings(exploring(100), suppress_health_check=[*HealthCheck], phases=[Phase.reuse, Phase.generate])
@given(damage=damages(("events", "records", "sessions", "summaries")), watched=st.booleans())
def test_damage_in_a_file_is_the_trouble_of_one_session(
    file: tuple[Path, Folds], tmp_path_factory: pytest.TempPathFactory, damage: Damage, watched: bool
) -> None:
    path, healthy = file
    note(str(damage))
    damaged = tmp_path_factory.mktemp("damaged") / "x.db"
    if damage_file(path, damaged, damage):
        for what in trio.run(examine, damaged, damage, healthy, watched):
            event(what)


# --- what else is promised


def spoil(log: MemoryLog, session_id: str, offset: int = 1) -> None:
    """Have one event be no event."""
    log._lives[session_id].entries[offset - 1] = Entry(offset, b"nonsense")


async def test_what_is_live_in_a_session_that_is_set_aside_ends(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    log, producer = MemoryLog(), Steered(shield=1.0)
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        started = await session.start(producer)
        await producer.started.wait()
        spoil(log, "s")
        for _ in range(3):
            with pytest.raises(CorruptSession):
                await session.snapshot()
        with pytest.raises(CorruptSession):  # at once, not when the clean-up is over
            await session.post("x")
        await producer.over.wait()
        await trio.testing.wait_all_tasks_blocked()
        end = decode(log._lives["s"].entries[-1].body)
        assert isinstance(end.data, GenerationFinished)
        assert (end.generation_id, end.data.outcome, end.data.code) == (
            started.generation_id,
            "failed",
            "CORRUPT_SESSION",
        )
        assert (engine.statistics().sessions, engine.statistics().live_generations) == (0, 0)
        with pytest.raises(CorruptSession):
            await session.cursor()
    told = [record for record in caplog.records if record.message == "session_set_aside"]
    assert [vars(record)["session_id"] for record in told] == ["s"]
    assert "offset 1" in vars(told[0])["detail"]


@pytest.mark.parametrize("step", ["post", "start", "stop", "delete", "nothing"])
async def test_one_that_is_deleted_while_it_is_being_set_aside_leaves_nothing_behind(
    step: str, autojump_clock: trio.testing.MockClock
) -> None:
    log, producer = MemoryLog(), Steered(shield=1.0)
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        await session.start(producer)
        await producer.started.wait()
        spoil(log, "s")
        with pytest.raises(CorruptSession):
            await session.snapshot()
        async with trio.open_nursery() as nursery:
            if step == "delete":
                nursery.start_soon(gone, session)
            elif step != "nothing":
                calls: dict[str, Callable[[], Awaitable[object]]] = {
                    "post": lambda: session.post("x"),
                    "start": lambda: session.start(producer),
                    "stop": session.stop,
                }
                nursery.start_soon(refused, calls[step])
            await gone(session)
        with pytest.raises(SessionDeleted):
            await session.cursor()
        made = await engine.create_session("s")
        assert made.created
        await made.post("new")
        await trio.sleep(5)
        assert len((await made.snapshot()).messages) == 1
        statistics = engine.statistics()
        assert (statistics.set_aside, statistics.stragglers, statistics.pending_events) == (0, 0, 0)


async def gone(session: Session) -> None:
    with contextlib.suppress(SessionDeleted):  # by another
        await session.delete()


async def refused(call: Callable[[], Awaitable[object]]) -> None:
    with pytest.raises((CorruptSession, SessionDeleted)):
        await call()


@pytest.mark.parametrize("finder", ["compaction", "retention", "list"])
async def test_whoever_walks_over_all_sessions_sets_aside_what_cannot_be_read(
    finder: str, autojump_clock: trio.testing.MockClock
) -> None:
    log = MemoryLog()
    async with open_engine(log, producers=PRODUCERS, config=Config(compact_after=None)) as engine:
        for name in ("bad", "good"):
            await answer(await engine.create_session(name, metadata={"a": 1}))
    config = Config(compact_after=None)
    match finder:
        case "compaction":
            spoil(log, "bad", 4)
            config = Config(compact_after=0)
        case "retention":
            spoil(log, "bad", log._lives["bad"].standing.tail)
            config = Config(compact_after=None, session_max_age=1e6)
        case _:
            log._lives["bad"].records["session/metadata"] = b"[]"
    async with open_engine(log, producers=PRODUCERS, config=config) as engine:
        await trio.sleep(5)
        if finder == "list":
            await engine.sessions()
        assert engine.statistics().set_aside == 1
        assert {info.session_id: info.corrupt for info in await engine.sessions()} == {"bad": True, "good": False}
        await (await engine.session("good")).post("works")
        await engine.delete_session("bad")
        assert engine.statistics().set_aside == 0


@pytest.mark.usefixtures("quiet")
@exploring(150)
@given(damage=damages())
def test_what_is_looked_through_names_whatever_an_engine_sets_aside(
    memory: tuple[MemoryLog, Folds], damage: Damage
) -> None:
    log, _ = memory

    async def one() -> Counter[str]:
        damaged = await copied(log)
        if not damage_memory(damaged, damage):
            return Counter()
        note(str(damage))
        found = {head.session_id: await check_session(damaged, head) for head in await damaged.heads()}
        for session_id, stored in found.items():
            assert not stored.corrupt or session_id == damage.session
        done: Counter[str] = Counter()
        async with open_engine(damaged, producers=PRODUCERS, config=CONFIG) as engine:
            with contextlib.suppress(PenstockError):
                await (await engine.session(damage.session)).snapshot()
            if engine.statistics().set_aside and damage.session != "deleted":
                done["set aside"] += 1
                assert found[damage.session].corrupt
        return done

    explore(one)


async def test_the_repair_of_a_session_that_is_set_aside_meanwhile_does_not_outlast_the_engine(
    autojump_clock: trio.testing.MockClock,
) -> None:
    log = FaultyLog(MemoryLog())
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        resident = await engine.resident(session.session_id)
        log.schedule = lambda number, write: Fail()
        log.fail_reads = True
        with pytest.raises(WriteFailed):
            await session.post("x")
        await trio.sleep(10)  # it tries, in vain
        engine._registry.set_aside(CorruptSession("damaged", session_id="s"))
        assert resident.closed
        closing = trio.current_time()
    assert trio.current_time() - closing < 100
