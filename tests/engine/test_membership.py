"""Who is there of the engines that share a log, and what becomes of what one of them leaves behind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from penstock.engine import (
    Config,
    DatabaseInUse,
    Fact,
    GenerationFinished,
    LocalBus,
    MemoryLog,
    Moved,
    Node,
    NodeTakenOver,
    Producer,
    SessionClaimed,
    SteppedDown,
    open_engine,
)
from penstock.engine.cluster.membership import Membership
from penstock.engine.testing import KeptLog
from tests.engine.leasing import TTL, members
from tests.engine.producers import Steered, saying
from tests.engine.rules import events_of
from tests.engine.sharing import PausedLog

# Nobody is judged before it has been watched for so long.
SURE = 1.5 * TTL


class Facts:
    """What engines told."""

    def __init__(self) -> None:
        self.told: list[Fact] = []

    def observe(self, fact: Fact, /) -> None:
        if isinstance(fact, SessionClaimed | SteppedDown | NodeTakenOver):
            self.told.append(fact)


async def outcomes(log: KeptLog, session_id: str) -> list[str]:
    ended = (event.data for event in await events_of(log, session_id))
    return [data.outcome for data in ended if isinstance(data, GenerationFinished)]


async def owner_of(log: KeptLog, session_id: str) -> str:
    head = await log.head(session_id)
    assert head is not None
    return head.owner


async def test_what_a_dead_engine_has_open_is_ended_once_and_its_queue_goes_on(autojump_clock: MockClock) -> None:
    log, facts = KeptLog(MemoryLog()), Facts()
    producers: dict[str, Producer] = {"hold": Steered(), "say": saying("said")}
    async with members("a", "b", "c", log=log, producers=producers, observer=facts) as (a, b, c):
        await trio.sleep(SURE)
        names = [f"s{number}" for number in range(12)]
        for name in names:
            session = await a.engine.create_session(name)
            await session.start("hold")
            await session.start("say", policy="queue")
        await (await a.engine.create_session("idle")).post("x")
        facts.told.clear()
        a.kill()
        await trio.sleep(TTL + 1)
        for name in names:
            assert await outcomes(log, name) == ["lost", "completed"]
        owners = Counter([await owner_of(log, name) for name in names])
        assert owners.keys() == {"b", "c"}  # each its share
        assert await owner_of(log, "idle") == "a"  # nobody touches it
        claims = [fact for fact in facts.told if isinstance(fact, SessionClaimed)]
        assert sorted(fact.session_id for fact in claims) == sorted(names)  # none twice
        assert all(fact.former == "a" and fact.gone for fact in claims)
        taken = [fact.sessions for fact in facts.told if isinstance(fact, NodeTakenOver)]
        assert sorted(taken) == sorted(owners.values())
        assert "a" not in await b.bus.nodes()  # nothing of it is left to own
        assert b.engine.find_node("a") is None
        assert [node.name for node in c.engine.nodes()] == ["b", "c"]


async def test_a_command_takes_over_what_a_dead_engine_has_open_whoever_else_should(
    autojump_clock: MockClock,
) -> None:
    log = KeptLog(MemoryLog())
    async with members("a", "b", "c", log=log, producers={"hold": Steered()}) as (a, b, c):
        await trio.sleep(SURE)
        names = [f"s{number}" for number in range(8)]
        for name in names:
            await (await a.engine.create_session(name)).start("hold")
        c.log.pause()  # it beats, and does nothing
        a.kill()
        with pytest.raises(Moved) as moved:
            await (await b.engine.session("s0")).post("not yet")
        assert moved.value.owner == "a"
        await trio.sleep(TTL + 1)
        left = [name for name in names if await outcomes(log, name) == []]
        assert 0 < len(left) < len(names)  # what `c` is to see to
        for name in left:
            await (await b.engine.session(name)).post("now")
            assert await outcomes(log, name) == ["lost"]
        c.log.go_on()


async def test_what_an_engine_leaves_in_its_queue_when_it_ends_in_order_goes_on_elsewhere(
    autojump_clock: MockClock,
) -> None:
    log, bus = KeptLog(MemoryLog()), LocalBus()
    producers: dict[str, Producer] = {"hold": Steered(), "say": saying("said")}
    async with members("b", log=log, bus=bus, producers=producers) as (b,):
        async with open_engine(PausedLog(log), owner="a", bus=bus, producers=producers) as a:
            await trio.sleep(SURE)
            session = await a.create_session("s")
            await session.start("hold")
            await session.start("say", policy="queue")
            assert b.engine.find_node("a") == a.node
            async with trio.open_nursery() as nursery:
                nursery.start_soon(a.drain)
                await trio.sleep(0.6)
                found = b.engine.find_node("a")
                assert found is None or found.draining
        await trio.sleep(1.1)
        assert await outcomes(log, "s") == ["shutdown", "completed"]
        assert b.engine.find_node("a") is None


async def test_an_engine_that_was_stopped_writes_nothing_more_in_what_others_have_and_comes_back(
    autojump_clock: MockClock,
) -> None:
    log, facts = KeptLog(MemoryLog()), Facts()
    held = Steered()
    async with members("a", "b", log=log, producers={"hold": held}, observer=facts) as (a, b):
        await trio.sleep(SURE)
        session = await a.engine.create_session("s")
        await session.start("hold")
        await held.started.wait()
        a.stop()
        await trio.sleep(TTL + 1)
        assert await outcomes(log, "s") == ["lost"]
        before = await events_of(log, "s")
        a.go_on()
        with trio.fail_after(0.5):  # long before it would look at the log by itself
            await held.cancelled.wait()
        await trio.sleep(1)
        assert await events_of(log, "s") == before
        assert SteppedDown(session_id="s", owner="b") in facts.told
        assert [node.name for node in b.engine.nodes()] == ["a", "b"]
        # What it begins now is its own.
        other = Steered()
        await (await a.engine.create_session("t")).start(other)
        await trio.sleep(SURE)
        assert await outcomes(log, "t") == []
        assert await owner_of(log, "t") == "a"


async def test_an_engine_that_was_stopped_asks_the_log_before_its_producers_write(autojump_clock: MockClock) -> None:
    """Of one whose lease still held, or that nobody took over from, nothing is lost."""
    log = KeptLog(MemoryLog())
    held = Steered()
    async with members("a", log=log, producers={"hold": held}) as (a,):
        session = await a.engine.create_session("s")
        started = await session.start("hold")
        await held.started.wait()
        token = (await log.head("s") or pytest.fail("it is gone")).token
        a.stop()
        await trio.sleep(2 * TTL)
        a.go_on()
        await trio.sleep(1)
        assert (await session.generation(started.generation_id)).state == "live"
        assert (await log.head("s") or pytest.fail("it is gone")).token == token
        held.finish.set()
        await held.over.wait()
        await wait_all_tasks_blocked()
        assert await outcomes(log, "s") == ["completed"]


async def test_a_process_that_was_stopped_confirms_what_it_has_before_it_beats(autojump_clock: MockClock) -> None:
    told: list[str] = []
    bus = LocalBus()

    async def nothing_left(_: str, __: Callable[[str], bool]) -> bool:
        return True

    async def nobody() -> set[str]:
        return set()

    membership = Membership(
        bus,
        Node(name="a", incarnation="1", ttl=TTL),
        confirm=lambda: told.append(f"confirmed, {len(bus._leases)}, {bus._lease('a') is None}"),
        inherit=nothing_left,
        owners=nobody,
        replaced=lambda error: told.append(str(error)),
    )
    await membership.join()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(membership.run)
        await trio.sleep(1)
        autojump_clock.jump(TTL / 2 - 1.1)
        await wait_all_tasks_blocked()
        assert told == []
        autojump_clock.jump(TTL / 2 + 2)
        await wait_all_tasks_blocked()
        assert told[:1] == ["confirmed, 1, False"]
        told.clear()
        autojump_clock.jump(2 * TTL)
        await wait_all_tasks_blocked()
        assert told[:1] == ["confirmed, 1, True"]  # before the lease is taken anew
        await trio.sleep(1)
        told.clear()
        bus._leases.clear()  # only the store's clock went on, as while a machine sleeps
        await trio.sleep(TTL / 4 + 0.1)
        assert told == ["confirmed, 1, False"]
        nursery.cancel_scope.cancel()


async def test_nobody_is_judged_while_the_store_is_away_nor_right_behind_it(autojump_clock: MockClock) -> None:
    log = KeptLog(MemoryLog())
    begun: dict[str, Steered] = {}
    async with members("a", "b", "c", log=log) as everybody:
        await trio.sleep(SURE)
        for each in everybody:
            begun[each.name] = Steered()
            await (await each.engine.create_session(each.name)).start(begun[each.name])
        for each in everybody:
            each.bus.cut = True
        await trio.sleep(2 * TTL)
        everybody[0].kill()
        for each in everybody[1:]:
            each.bus.cut = False
        await trio.sleep(SURE - 0.5)
        assert [await outcomes(log, name) for name in "abc"] == [[], [], []]
        await trio.sleep(2)
        assert [await outcomes(log, name) for name in "abc"] == [["lost"], [], []]


async def test_an_engine_that_has_just_come_judges_nobody(autojump_clock: MockClock) -> None:
    log, bus = KeptLog(MemoryLog()), LocalBus()
    async with members("a", log=log, bus=bus) as (a,):
        await (await a.engine.create_session("s")).start(Steered())
        a.kill()
        await trio.sleep(2 * TTL)
        async with members("b", log=log, bus=bus):
            await trio.sleep(SURE - 0.5)
            assert await outcomes(log, "s") == []
            await trio.sleep(1.5)
            assert await outcomes(log, "s") == ["lost"]


async def test_the_older_of_two_engines_of_one_name_is_told_and_ends(autojump_clock: MockClock) -> None:
    log, bus = KeptLog(MemoryLog()), LocalBus()
    told: list[DatabaseInUse] = []

    async def older(task_status: trio.TaskStatus[None]) -> None:
        try:
            async with open_engine(PausedLog(log), owner="a", bus=bus):
                task_status.started()
                await trio.sleep_forever()
        except DatabaseInUse as error:
            told.append(error)

    async with trio.open_nursery() as nursery:
        await nursery.start(older)
        async with members("a", log=log, bus=bus) as (newer,):
            await trio.sleep(TTL / 4 + 0.1)
            assert len(told) == 1
            assert "name a" in told[0].detail
            await (await newer.engine.create_session("s")).post("it goes on")
            assert newer.engine.nodes() == [newer.engine.node]


async def test_one_of_all_sees_to_a_session_and_where_one_leaves_only_its_share_moves(
    autojump_clock: MockClock,
) -> None:
    names = [f"s{number}" for number in range(60)]
    async with members("a", "b", "c") as everybody:
        await trio.sleep(1)
        before = {name: [each.name for each in everybody if each.engine._sees_to(name)] for name in names}
        assert all(len(those) == 1 for those in before.values())
        assert {those[0] for those in before.values()} == {"a", "b", "c"}
        everybody[0].kill()
        await trio.sleep(TTL + 1)
        for name in names:
            those = [each.name for each in everybody[1:] if each.engine._sees_to(name)]
            assert len(those) == 1
            assert before[name] in (["a"], those)


async def test_only_the_one_that_sees_to_a_session_compacts_it(autojump_clock: MockClock) -> None:
    log = KeptLog(MemoryLog())
    config = Config(compact_after=0.0)
    async with members("a", "b", log=log, config=config, producers={"say": saying("x", "y", "z")}) as (a, b):
        for number in range(10):
            name = f"s{number}"
            await (await a.engine.create_session(name)).start("say")
        await trio.sleep(200)
        assert a.log.compacted
        assert b.log.compacted
        assert len(a.log.compacted) + len(b.log.compacted) == 10


async def test_an_engine_alone_is_no_node(autojump_clock: MockClock) -> None:
    async with open_engine(MemoryLog()) as engine:
        assert engine.node is None
        assert engine.nodes() == []
        assert engine.find_node("a") is None
    async with open_engine(MemoryLog(), owner="a") as engine:  # nobody can hear of it
        assert engine.node is None


async def test_what_an_engine_left_that_the_store_has_forgotten_is_found(autojump_clock: MockClock) -> None:
    log, bus = KeptLog(MemoryLog()), LocalBus()
    async with members("a", "b", "c", log=log, bus=bus) as (a, b, _):
        await trio.sleep(SURE)
        for name in ("s", "t"):
            await (await a.engine.create_session(name)).start(Steered())
        a.kill()
        bus._incarnations.clear()  # the store was emptied
        bus._leases.clear()
        await trio.sleep(5 * TTL + 1)
        assert [node.name for node in b.engine.nodes()] == ["b", "c"]
        assert await outcomes(log, "s") == await outcomes(log, "t") == ["lost"]
