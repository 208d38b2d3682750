"""Wherever the engine starts a task or is called back, trouble in it is logged, and nothing else feels it."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Awaitable, Callable
from types import ModuleType
from typing import Final

import pytest
import trio
import trio.testing
from attrs import frozen
from trio.testing import MockClock

from penstock.engine import (
    Compactor,
    Config,
    CorruptSession,
    Engine,
    Generation,
    MemoryLog,
    PenstockError,
    Session,
    open_engine,
)
from penstock.engine.generation.watchdog import Watch
from penstock.engine.session import forks
from penstock.engine.session import queue as queue_steps
from penstock.engine.session import resident as steps
from penstock.engine.session.resident import Resident
from penstock.engine.stream.hub import Hub
from penstock.engine.stream.presence import LocalPresence
from penstock.engine.supervision import Supervisor, find_exit, own_failure, split, without
from tests.engine.faulty import Fail, FaultyLog
from tests.engine.living import begin, end_of, finished
from tests.engine.producers import Steered
from tests.engine.rules import assert_rules, events_of
from tests.engine.trouble import EXITS, OWN, Half, Panic, cut_short, leaked, talk, trouble


@frozen
class Place:
    """Where the engine works for one session, or for all: what is made to fail there, and what leads there.

    ``of`` tells the session from what the broken method is called on; None where the work is for all.
    """

    name: str
    owner: type | ModuleType
    method: str
    lead: Callable[[Engine, Session], Awaitable[object]]
    of: Callable[[object], str] | None
    bound: bool = False  # when its session enters memory

    def __str__(self) -> str:
        return self.name


def of_session(work: object) -> str:
    return str(work.session_id)  # type: ignore[attr-defined]


async def wait(_: Engine, __: Session) -> None:
    await trio.sleep(4000)


async def queue(_: Engine, session: Session) -> None:
    await session.start(Steered())
    await session.start("say", policy="queue")
    await session.stop(queue="continue")


async def come_back(engine: Engine, session: Session) -> None:
    await trio.sleep(100)  # until it has left memory
    await engine.session(session.session_id)


async def be_present(_: Engine, session: Session) -> None:
    await session.put_presence("anna", "phone")
    await session.put_presence("bert", "phone")
    await trio.sleep(200)
    assert await session.presence() == ()


async def be_limited(_: Engine, session: Session) -> None:
    gid = await begin(session, Steered())
    await trio.sleep(1000)
    assert (await session.generation(gid)).outcome == "stalled"


async def be_watched(_: Engine, session: Session) -> None:
    async with session.subscribe() as events:
        await session.post("x")
        await events.__anext__()


PLACES: Final = [
    Place("a step", steps, "start", lambda _, session: session.start("say"), of_session),
    Place("the end of a generation", steps, "finish", lambda _, session: session.start("say"), of_session),
    Place("the end of a stop", steps, "stop", lambda _, session: session.stop(), of_session),
    Place("what waits", queue_steps, "_start_next", queue, of_session),
    Place(
        "a producer that is done", Resident, "on_done", lambda _, session: session.start("say"), of_session, bound=True
    ),
    Place("a fork", forks, "_fork", lambda _, session: session.fork(), None),
    Place("an opening", steps, "settle", come_back, of_session),
    Place("a presence", LocalPresence, "_leave", be_present, lambda presence: str(presence._session_id)),  # type: ignore[attr-defined]
    Place("a limit", Watch, "look", be_limited, None),
    Place("a report", Hub, "publish", be_watched, None),
    Place("compaction", Compactor, "_walk", wait, None),
    Place("memory", Resident, "leave_if_idle", wait, None),
]


CONFIG: Final = Config(idle_limit=700, presence_ttl=50, compact_after=100, idle_session=60)


def failing(place: Place, error: BaseException, times: list[int]) -> Callable[..., object]:
    """What stands there, which raises so many times."""
    work = getattr(place.owner, place.method)

    def fails(self: object, *args: object, **named: object) -> object:
        if times[0] and (place.of is None or place.of(self) == "s"):
            times[0] -= 1
            raise error
        return work(self, *args, **named)

    return fails


@pytest.mark.parametrize("kind", OWN)
@pytest.mark.parametrize("place", PLACES, ids=str)
async def test_trouble_in_the_engines_own_work_is_not_felt_by_another_session(
    place: Place, kind: str, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    raised = await trouble(kind)
    times = [1]
    log = MemoryLog()
    neighbour = Half()
    async with open_engine(log, producers={"say": talk}, config=CONFIG) as engine:
        near = await engine.create_session("near")
        other = await near.start(neighbour, on_last_disconnect=None)
        if place.bound:
            monkeypatch.setattr(place.owner, place.method, failing(place, raised, times))
        session = await engine.create_session("s")
        await trio.testing.wait_all_tasks_blocked()
        if not place.bound:
            monkeypatch.setattr(place.owner, place.method, failing(place, raised, times))
        try:
            with trio.move_on_after(5000):
                await place.lead(engine, session)
        except BaseException as error:
            # Who asked for it may be told.
            if without(error, (type(raised), PenstockError)) is not None and error is not raised:
                raise
        await trio.sleep(1)
        assert times == [0]
        if (await near.generation(other.generation_id)).outcome is None:
            neighbour.go_on.set()
            assert await end_of(near, other.generation_id) == "completed"
        else:
            assert await end_of(near, other.generation_id) == "stalled"  # that long ago
        await near.start("say")
        await trio.testing.wait_all_tasks_blocked()
        assert finished(await events_of(log, "near")).outcome == "completed"
        # And the session itself can be used, once what failed is behind it.
        if place.name == "an opening":
            with pytest.raises(CorruptSession):
                await session.snapshot()  # it is set aside
            await session.delete()
        session = await engine.create_session("s")
        await session.stop()
        await session.start("say")
        await trio.testing.wait_all_tasks_blocked()
        assert finished(await events_of(log, "s")).outcome == "completed"
    await assert_rules(log, closed=True)


# Nobody's code but the engine's runs in a report: what it raises is logged there, for the loop could not go on.
IN_TASKS: Final = [place for place in PLACES if place.name != "a report"]


@pytest.mark.parametrize("kind", ["KeyboardInterrupt", "SystemExit in groups in a group"])
@pytest.mark.parametrize("place", IN_TASKS, ids=str)
async def test_what_ends_the_process_ends_the_engine_in_order_from_wherever_it_is_raised(
    place: Place, kind: str, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    raised = await trouble(kind)
    log = MemoryLog()
    neighbour = Half()

    async def application() -> None:
        async with open_engine(log, producers={"say": talk}, config=CONFIG) as engine:
            near = await engine.create_session("near")
            breaking = failing(place, raised, [1])
            if place.bound:
                monkeypatch.setattr(place.owner, place.method, breaking)
            session = await engine.create_session("s")
            monkeypatch.setattr(place.owner, place.method, breaking)
            with contextlib.suppress(PenstockError):  # who asked may be told that the engine closes
                await trio.sleep(61 if place.name == "an opening" else 0)
                await near.start(neighbour)
                await place.lead(engine, session)
            await trio.sleep_forever()

    with pytest.raises((KeyboardInterrupt, SystemExit)) as out:
        await application()
    assert out.value is find_exit(raised)
    assert finished(await events_of(log, "near")).outcome == "shutdown"
    monkeypatch.undo()
    async with open_engine(log) as engine:
        for session_id in ("near", "s"):
            assert cut_short(await events_of(log, session_id)) == []
            await (await engine.session(session_id)).snapshot()
    await assert_rules(log, closed=True)


@pytest.mark.parametrize("kind", ["KeyboardInterrupt", "SystemExit in groups in a group"])
async def test_what_ends_the_process_in_a_step_does_not_wait_for_the_sessions_own_producer(
    kind: str, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its clean-up has its time and no more, its end is written as any, and the application is left at once."""
    raised = await trouble(kind)
    log = MemoryLog()
    left: list[float] = []

    async def slow(generation: Generation) -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(300)

    async def application() -> None:
        async with open_engine(log, producers={"slow": slow, "say": talk}, config=CONFIG) as engine:
            session = await engine.create_session("s")
            await session.start("slow")
            await trio.sleep(1)
            monkeypatch.setattr(steps, "stop", failing(PLACES[2], raised, [1]))
            with contextlib.suppress(PenstockError):
                await session.stop()
            try:
                await trio.sleep_forever()
            finally:
                left.append(trio.current_time())

    begun = trio.current_time()
    with pytest.raises((KeyboardInterrupt, SystemExit)) as out:
        await application()
    assert out.value is find_exit(raised)
    assert left[0] - begun < 2
    types = [event.type for event in await events_of(log, "s")]
    assert types[-2:] == ["generation.cancelling", "generation.finished"]
    assert finished(await events_of(log, "s")).outcome == "shutdown"


# --- the line between what is one's own and what is not


@pytest.mark.parametrize("kind", OWN)
async def test_what_is_the_tasks_own_is_kept_whole(kind: str) -> None:
    error = await trouble(kind)
    raised = split(error)
    assert (raised.own, raised.exit, raised.cancelled) == (error, None, None)
    assert own_failure(error) is error


@pytest.mark.parametrize("kind", EXITS)
async def test_what_ends_the_process_is_found_in_any_group(kind: str) -> None:
    error = await trouble(kind)
    raised = split(error)
    assert isinstance(raised.exit, KeyboardInterrupt | SystemExit)
    assert raised.exit is find_exit(error)
    assert (raised.own is None) == ("group" not in kind)
    if raised.own is not None:
        assert find_exit(raised.own) is None
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        own_failure(error)


async def test_a_cancellation_is_from_outside_only_while_there_is_one() -> None:
    gone = await leaked()
    panic = Panic("beside")
    group = BaseExceptionGroup("several", [gone, panic])
    assert split(gone).own is gone
    assert split(group).own is group
    with trio.CancelScope() as scope:
        scope.cancel()
        assert (split(gone).own, split(gone).cancelled) == (None, gone)
        raised = split(group)
        assert raised.cancelled is gone
        assert isinstance(raised.own, BaseExceptionGroup)
        assert raised.own.exceptions == (panic,)
        with trio.CancelScope(shield=True):  # it does not reach in here
            assert split(gone).own is gone
            await trio.lowlevel.checkpoint()


async def test_a_group_that_does_not_let_itself_be_split_is_split() -> None:
    class Stubborn(BaseExceptionGroup[BaseException]):
        def derive(self, excs: object, /) -> Stubborn:  # type: ignore[override]
            raise AssertionError("no")

    raised = split(Stubborn("several", [KeyboardInterrupt(), Panic("one")]))
    assert isinstance(raised.exit, KeyboardInterrupt)
    assert isinstance(raised.own, BaseExceptionGroup)


async def test_a_supervised_task_takes_its_cancellation(autojump_clock: MockClock) -> None:
    """And no trouble of its own keeps the nursery from being left."""
    exits: list[BaseException] = []
    supervisor = Supervisor(exits.append)

    async def cleans_up_badly() -> None:
        try:
            await trio.sleep(math.inf)
        finally:
            raise Panic("in the clean-up")

    async def ends_the_process() -> None:
        raise SystemExit(3)

    with trio.move_on_after(1) as scope:
        async with trio.open_nursery() as nursery:
            supervisor.start(nursery, trio.sleep_forever, "one")
            supervisor.start(nursery, cleans_up_badly, "two")
            supervisor.start(nursery, ends_the_process, "three")
    assert scope.cancelled_caught
    assert [type(exit_) for exit_ in exits] == [SystemExit]


async def test_what_ends_the_process_in_a_repair_does_not_keep_the_engine_from_draining(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = FaultyLog(MemoryLog())
    left: list[float] = []

    async def exits(*_: object) -> bool:
        raise SystemExit(3)

    async def application() -> None:
        async with open_engine(log) as engine:
            session = await engine.create_session("s")
            log.schedule = lambda number, write: Fail()
            monkeypatch.setattr(steps, "retry", exits)
            with contextlib.suppress(PenstockError):
                await session.post("x")
            try:
                await trio.sleep_forever()
            finally:
                left.append(trio.current_time())
                log.schedule = None

    with pytest.raises(SystemExit):
        await application()
    assert trio.current_time() - left[0] < 1
