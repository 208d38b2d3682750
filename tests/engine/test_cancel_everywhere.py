"""Every await, cancelled once: what a session is asked for, what a producer waits for, and the engine's own life.

A scenario is run once to count the steps that all tasks take while the call is under way; then once for every step (in
a short run for some of them), where something happens right behind it: the caller leaves, the producer gives up,
somebody stops the generation, the application ends. `test_cancellation` has starts, stops and posts over a slow log.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final, final

import pytest
import trio
import trio.testing
from attrs import frozen
from trio.testing import MockClock

from penstock.engine import (
    Append,
    Config,
    Engine,
    Generation,
    MemoryLog,
    Producer,
    ProducerStamp,
    Session,
    SessionDeleted,
    SessionState,
    Snapshot,
    StaleGeneration,
    Started,
    decode,
    new_generation_id,
    new_message_id,
    open_engine,
)
from penstock.engine.testing import KeptLog, ScriptedProducer, check_kept
from tests.engine.producers import Steered, saying
from tests.engine.remotes import body
from tests.engine.slow import SlowLog
from tests.extent import some

CONFIG: Final = Config(cleanup_timeout=0.5, checkpoint_every=1, session_pending=1, page_events=3)


@final
class AtStep(trio.abc.Instrument):
    """From `arm` on, counts the steps that all tasks take; calls ``act`` behind the one with this number."""

    def __init__(self, number: int, act: Callable[[], object]) -> None:
        self.number = number
        self.steps = 0
        self._act = act
        self._armed = False

    def arm(self) -> None:
        self._armed = True

    def disarm(self) -> None:
        self._armed = False

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if self._armed:
            self.steps += 1
            if self.steps == self.number:
                self._act()


@asynccontextmanager
async def at_step(number: int, act: Callable[[], object]) -> AsyncIterator[AtStep]:
    instrument = AtStep(number, act)
    trio.lowlevel.add_instrument(instrument)
    try:
        yield instrument
    finally:
        trio.lowlevel.remove_instrument(instrument)


def every_step(scenario: Callable[[int], Awaitable[int]], *beside: object) -> int:
    """Run it with 0, which is never, then with every number (see `some`) up to what it answers; what that is."""

    def run(number: int) -> int:
        # The loop's order of what is ready is random: an order of its own for each number, the same every time.
        random.seed(number)
        return trio.run(scenario, number, clock=MockClock(autojump_threshold=0))

    done, steps = 0, run(0)
    while done < steps:
        numbers, done = range(done + 1, steps + 1), steps
        steps = max(steps, *map(run, some(numbers, beside)))
    return steps


def assert_kept(log: KeptLog, *, closed: bool) -> None:
    found = check_kept(log, closed=closed)
    assert not found, "\n".join(map(str, found))


# --- what a session is asked for


@frozen
class Call:
    name: str
    call: Callable[[Engine, Session, Snapshot], Awaitable[object]]
    live: float | None = None  # a generation is live, and its clean-up takes so long
    queued: bool = False
    remote: bool = False  # the live one is a remote producer's
    anew: bool = False  # the last message stands in place of another version of it

    def __str__(self) -> str:
        return self.name


async def read_all(session: Session) -> None:
    async with session.subscribe(live=False, snapshot=True) as events:
        async for _ in events:
            pass


GID: Final = new_generation_id()
MID: Final = new_message_id()
STAMP: Final = ProducerStamp("p", 0, 0)
NEXT: Final = ProducerStamp("p", 0, 1)

CALLS: Final = [
    Call("reset", lambda _, session, __: session.reset(), live=0, queued=True),
    Call("reset what overruns", lambda _, session, __: session.reset(), live=9, queued=True),
    Call("fork", lambda _, session, __: session.fork("fork"), live=0),
    Call("fork at a message", lambda _, session, now: session.fork("fork", at=now.messages[0].message_id)),
    Call("fork at a cursor", lambda _, session, now: session.fork("fork", at=now.cursor)),
    Call("retract", lambda _, session, now: session.retract(now.messages[0].message_id, and_after=True)),
    Call("versions", lambda _, session, now: session.versions(other_version(now)), anew=True),
    Call("restore", lambda _, session, now: session.restore(other_version(now), idempotency_key="k"), anew=True),
    Call("update", lambda _, session, __: session.update({"a": None, "b": 2})),
    Call("queue", lambda _, session, __: session.start("say", policy="queue", text="q"), live=0),
    Call("latest", lambda _, session, __: session.start("say", policy="latest", text="q"), live=0, queued=True),
    Call("queue next", lambda _, session, __: session.queue_next(), queued=True),
    Call("dequeue", lambda _, session, now: session.dequeue(now.queue.items[0].generation_id), live=0, queued=True),
    Call("stop and clear", lambda _, session, __: session.stop(queue="clear"), live=0, queued=True),
    Call("stop and go on", lambda _, session, __: session.stop(queue="continue"), live=0, queued=True),
    Call("rollback", lambda _, session, __: session.start("say", policy="rollback", text="r"), live=0.2),
    Call("rollback what overruns", lambda _, session, __: session.start("say", policy="rollback"), live=9),
    Call(
        "replace",
        lambda _, session, now: session.start("say", text="r", replaces=now.messages[1].message_id),
        live=0,
    ),
    Call("start with a key", lambda _, session, __: session.start("say", text="k", idempotency_key="k")),
    Call("input", lambda _, session, now: session.input(live_id(now), "steer", {"x": 1}, input_id="i"), live=0),
    Call("first chunk", lambda _, session, __: session.chunks([body(GID, "x"), body(GID, "y")], stamp=STAMP)),
    Call(
        "next chunk",
        lambda _, session, __: session.chunks([body(GID, "y", message_id=MID)], stamp=NEXT),
        remote=True,
    ),
    Call("finish", lambda _, session, __: session.finish(GID, stamp=NEXT), remote=True),
    Call("delete of a remote", lambda _, session, __: session.delete(), remote=True),
    Call("delete", lambda _, session, __: session.delete(), live=0, queued=True),
    Call("cursor", lambda _, session, __: session.cursor()),
    Call("sessions", lambda engine, _, __: engine.sessions()),
    Call("sessions by activity", lambda engine, _, __: engine.sessions(order="updated")),
    Call("snapshot", lambda _, session, __: session.snapshot(limit=1), live=0),
    Call("subscribe", lambda _, session, __: read_all(session), live=0),
    Call("generation", lambda _, session, now: session.generation(live_id(now)), live=0),
]


def other_version(snapshot: Snapshot) -> str:
    version = snapshot.messages[1].version
    assert version is not None
    return version.of


def live_id(snapshot: Snapshot) -> str:
    assert snapshot.generation is not None
    return snapshot.generation.generation_id


def looks(snapshot: Snapshot) -> object:
    """The snapshot without what differs from run to run."""
    return (
        [(m.role, m.status, [(b.kind, b.text) for b in m.blocks]) for m in snapshot.messages],
        None if snapshot.generation is None else (snapshot.generation.turn, len(snapshot.generation.inputs)),
        (snapshot.queue.paused, len(snapshot.queue.items)),
        dict(snapshot.metadata),
    )


@pytest.mark.further
@pytest.mark.parametrize("call", CALLS, ids=str)
def test_a_caller_leaves_at_any_step(call: Call) -> None:
    """What it asked for is done or is not, nothing is in between, and the session goes on."""
    seen: dict[str, object] = {}

    async def scenario(number: int) -> int:
        log = KeptLog(SlowLog())
        async with open_engine(log, producers={"say": saying("said"), "old": saying("x")}, config=CONFIG) as engine:
            session = await engine.create_session("s", metadata={"a": 1})
            await session.post("one")
            two = await session.post("two")
            if call.anew:
                await session.start("say", text="2", replaces=two.message_id)
                await trio.sleep(20)
            live = Steered(shield=call.live or 0.0)
            if call.live is not None or call.queued:
                await session.start(live)
                await live.started.wait()
            if call.remote:
                await session.chunks([body(GID, "x")], stamp=STAMP)
            if call.queued:
                await session.start("old", policy="queue", text="waits")
                await session.start("old", policy="queue", text="waits too")
                if call.live is None:
                    await session.stop()
            before = await session.snapshot()
            log.inner.turns.extend([1, 2])  # type: ignore[attr-defined]
            scope = trio.CancelScope()
            async with at_step(number, scope.cancel) as counter:
                counter.arm()
                with scope:
                    await call.call(engine, session, before)
                counter.disarm()
            await trio.sleep(20)
            statistics = engine.statistics()
            assert (statistics.pending_events, statistics.subscribers, statistics.stragglers) == (0, 0, 0)
            with trio.fail_after(1):
                await check_outcome(engine, call, before, seen, first=number == 0)
                await goes_on(engine)
        assert not await log.holders("open")
        assert_kept(log, closed=True)
        return counter.steps

    assert every_step(scenario, call.name) > 1 or call.name in ("cursor", "generation", "snapshot")


async def check_outcome(engine: Engine, call: Call, before: Snapshot, seen: dict[str, object], *, first: bool) -> None:
    """Either nothing was done, or all that was done when nobody left."""
    living = {info.session_id for info in await engine.sessions()}
    if call.name.startswith("delete"):
        assert ("s" in living) is not first or not first
    after = looks(await (await engine.session("s")).snapshot()) if "s" in living else "deleted"
    fork = looks(await (await engine.session("fork")).snapshot()) if "fork" in living else "none"
    if first:
        seen["after"], seen["fork"] = after, fork
    assert after in (seen["after"], looks(before))
    assert fork in (seen["fork"], "none")


async def goes_on(engine: Engine) -> None:
    session = await engine.create_session("s")
    await session.post("still there")
    started = await session.start("say", policy="supersede")
    assert isinstance(started, Started)
    await trio.testing.wait_all_tasks_blocked()
    await trio.sleep(0.1)
    assert (await session.generation(started.generation_id)).outcome == "completed"
    state = SessionState("s", (await session.cursor()).epoch)
    async with session.subscribe(live=False) as events:
        async for event in events:
            state.apply(event)
    assert state.snapshot() == await session.snapshot()
    await session.reset()
    await session.delete()
    assert (await engine.create_session("s")).created


# --- what a producer waits for


async def writes(generation: Generation) -> None:
    await generation.status("working")
    async with generation.message() as message:
        async with message.reasoning() as block:
            await block.write("hm")
        async with message.text() as block:
            await block.write("a")
            await block.write("b")
        async with message.data() as block:
            await block.put({"n": 1})
    await generation.app("app.note", {"n": 1})


async def uses_a_tool(generation: Generation) -> None:
    async with generation.message() as message, message.tool_call("call", "look") as call:
        await call.write("{}")
    async with generation.message(role="tool") as message, message.tool_result("call") as result:
        await result.write("found")


async def asks(generation: Generation) -> None:
    await generation.approve("look", expires_in=0.5)


async def takes_inputs(generation: Generation) -> None:
    for _ in range(2):
        await generation.apply(await generation.receive_input())


async def flushes(generation: Generation) -> None:
    await generation.status("working")
    await generation.flush()


async def looks_back(generation: Generation) -> None:
    await generation.status("working")
    await generation.snapshot()


async def hands_off(generation: Generation) -> None:
    async with generation.message() as message:
        await generation.hand_off("say", {"n": 1}, into=message)
        await generation.hand_off(saying("c", pause=0.01))


async def joins(generation: Generation) -> None:
    async with (
        generation.message(message_id=new_message_id()) as outer,
        generation.message(message_id=outer.message_id) as inner,
        inner.text() as block,
    ):
        await block.write("x")


async def tidies(generation: Generation) -> None:
    try:
        await trio.sleep(0.3)
    finally:
        with generation.cleanup():
            await trio.sleep(0.1)


ACTIONS: Final = [writes, uses_a_tool, asks, takes_inputs, flushes, looks_back, hands_off, joins, tidies]


async def steers(session: Session, generation_id: str) -> None:
    """Two inputs for a producer that may be gone by then."""
    for number in range(2):
        try:
            await session.input(generation_id, "steer", {"n": number}, input_id=f"i{number}")
        except (StaleGeneration, SessionDeleted):
            return


@asynccontextmanager
async def session_of(log: KeptLog) -> AsyncIterator[tuple[Engine, Session, trio.Nursery]]:
    async with (
        open_engine(log, producers={"say": saying("a", "b", pause=0.01)}, config=CONFIG) as engine,
        trio.open_nursery() as nursery,
    ):
        yield engine, await engine.create_session("s"), nursery
        await trio.sleep(5)
        statistics = engine.statistics()
        assert (statistics.pending_events, statistics.live_generations, statistics.stragglers) == (0, 0, 0)
        with trio.fail_after(1):
            await goes_on(engine)


@pytest.mark.further
@pytest.mark.parametrize("raises", [False, True], ids=["goes on", "raises"])
@pytest.mark.parametrize("action", ACTIONS, ids=lambda action: action.__name__)
def test_a_producer_gives_up_at_any_step(action: Callable[[Generation], Awaitable[None]], raises: bool) -> None:
    """Its own scope is cancelled at any await; then it goes on writing, or fails."""

    async def scenario(number: int) -> int:
        log = KeptLog(MemoryLog())
        scope = trio.CancelScope()
        steps = 0

        async def producer(generation: Generation) -> None:
            nonlocal steps
            async with at_step(number, scope.cancel) as counter:
                counter.arm()
                with scope:
                    await action(generation)
                steps = counter.steps
            if raises:
                raise ValueError("given up")
            async with generation.message() as message, message.text() as block:
                await block.write("and on")

        async with session_of(log) as (_, session, nursery):
            started = await session.start(producer)
            nursery.start_soon(steers, session, started.generation_id)
            await trio.sleep(5)
            info = await session.generation(started.generation_id)
            assert info.outcome == ("failed" if raises else "completed")
            snapshot = await session.snapshot()
            said = [block.text for message in snapshot.messages for block in message.blocks]
            assert ("and on" in said) is not raises
            assert all(message.status != "open" for message in snapshot.messages)
        assert_kept(log, closed=True)
        return steps

    assert every_step(scenario, action.__name__, raises) > 1


#
@pytest.mark.further
@pytest.mark.parametrize("how", ["stop", "supersede", "reset", "delete"])
@pytest.mark.parametrize("action", ACTIONS, ids=lambda action: action.__name__)
def test_a_generation_is_ended_at_any_step_of_its_producer(
    action: Callable[[Generation], Awaitable[None]], how: str
) -> None:
    async def scenario(number: int) -> int:
        log = KeptLog(MemoryLog())
        now = trio.Event()
        steps = 0
        after: list[str] = []

        async def producer(generation: Generation) -> None:
            nonlocal steps
            async with at_step(number, now.set) as counter:
                counter.arm()
                try:
                    await action(generation)
                finally:
                    counter.disarm()
                    steps = counter.steps
                    if now.is_set():
                        try:
                            with generation.cleanup():
                                await trio.sleep(0.01)
                                await generation.status("late")
                        except StaleGeneration:
                            after.append("refused")
                        else:
                            after.append("written")

        async def end(session: Session) -> None:
            await now.wait()
            match how:
                case "stop":
                    await session.stop()
                case "supersede":
                    await session.start("say")
                case "reset":
                    await session.reset()
                case _:
                    await session.delete()

        async with session_of(log) as (_, session, nursery):
            started = await session.start(producer)
            nursery.start_soon(steers, session, started.generation_id)
            if number:
                nursery.start_soon(end, session)
            await trio.sleep(3)
            if not now.is_set():
                now.set()
                await trio.sleep(1)
            if how != "delete" or not number:
                outcome = (await session.generation(started.generation_id)).outcome
                wanted = {"stop": "stopped", "supersede": "superseded", "reset": "reset", "delete": "completed"}[how]
                assert outcome in (wanted, "completed")
                assert after != ["written"] or outcome == "completed"
        assert_kept(log, closed=True)
        return steps

    assert every_step(scenario, action.__name__, how) > 1


# --- the engine's own life


@pytest.mark.further
def test_an_application_ends_at_any_step() -> None:
    """Opening over what a crash left, working, leaving: cancelled anywhere, the next one finds a whole log."""

    async def scenario(number: int) -> int:
        log = KeptLog(SlowLog())
        producers: dict[str, Producer] = {
            "say": saying("said", pause=0.01),
            "waits": ScriptedProducer().say("x").sleep(1e6),
        }
        await left_behind(log)
        scope = trio.CancelScope()
        reached: list[str] = []
        async with at_step(number, scope.cancel) as counter:
            counter.arm()
            with scope:
                async with open_engine(log, producers=producers, config=CONFIG) as engine:
                    session = await engine.create_session("new")
                    reached.append("created")
                    await session.post("hello", message_id=new_message_id())
                    await session.start("waits", text="go")
                    await session.start("say", policy="queue")
                    await session.stop()
                    await session.queue_next()
                    await (await engine.session("old-0")).fork("fork")
                    reached.append("forked")
                    await engine.drain()
                    reached.append("drained")
            counter.disarm()
        assert scope.cancelled_caught or reached[-1:] == ["drained"]
        async with open_engine(log, producers=producers, config=CONFIG) as engine:
            await trio.sleep(10)
            for info in await engine.sessions():
                session = await engine.session(info.session_id)
                assert (await session.snapshot()).generation is None
            assert ("new" in {info.session_id for info in await engine.sessions()}) or "created" not in reached
            statistics = engine.statistics()
            assert (statistics.pending_events, statistics.live_generations) == (0, 0)
            with trio.fail_after(1):
                await goes_on(engine)
        assert not await log.holders("open")
        assert_kept(log, closed=True)
        return counter.steps

    assert every_step(scenario) > 50


async def left_behind(log: KeptLog) -> None:
    """Three sessions of a process that died: a live generation and one that waits, in each."""
    dying = KeptLog(MemoryLog())
    async with open_engine(dying, producers={"say": saying("x")}, config=CONFIG) as engine:
        for number in range(3):
            session = await engine.create_session(f"old-{number}")
            live = Steered()
            await session.start(live)
            await live.started.wait()
            await session.start("say", policy="queue", text="waits")
        await trio.testing.wait_all_tasks_blocked()
        for session_id, epoch in dying.lives():
            await copy_life(dying, log, session_id, epoch)


async def copy_life(source: KeptLog, into: KeptLog, session_id: str, epoch: str) -> None:
    entries = source.kept(session_id, epoch)
    assert decode(entries[-1].body).type == "generation.queued"
    await into.write(
        Append(
            session_id=session_id,
            epoch=epoch,
            expected_tail=0,
            token=1,
            events=[entry.body for entry in entries],
            records=dict(await source.records(session_id, epoch)),
            create=True,
        )
    )
