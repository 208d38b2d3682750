"""Engines that share a log: one at a time writes in a session, all can read it, and no reader misses a change."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from penstock.engine import (
    Batch,
    Chunk,
    Config,
    Cursor,
    Ended,
    Engine,
    Gap,
    GenerationActive,
    GenerationFinished,
    Keep,
    MemoryLog,
    Moved,
    Producer,
    Queued,
    Session,
    SessionDeleted,
    StaleGeneration,
    Started,
    Subscription,
    WriteFailed,
    new_generation_id,
    open_engine,
    open_sqlite,
)
from penstock.engine.errors import DatabaseInUse, InvalidId
from penstock.engine.log.port import BLOCK
from penstock.engine.rules.records import OPEN
from penstock.engine.testing import KeptLog, check_session
from tests.engine.faulty import Fail, FaultyLog
from tests.engine.producers import Steered, saying, shielding
from tests.engine.rules import events_of
from tests.engine.sharing import LossyBus, PausedLog, nodes


async def texts(session: Session) -> list[str]:
    snapshot = await session.snapshot()
    return [str(block.text) for message in snapshot.messages for block in message.blocks]


async def owner_of(log: KeptLog, session_id: str = "s") -> str:
    head = await log.head(session_id)
    assert head is not None
    return head.owner


async def outcomes(log: KeptLog, session_id: str = "s") -> list[str]:
    """Of the generations that ended."""
    ended = (event.data for event in await events_of(log, session_id))
    return [data.outcome for data in ended if isinstance(data, GenerationFinished)]


class Reading:
    """A reader that takes all that comes, and notes it."""

    def __init__(self, subscription: Subscription) -> None:
        self.subscription = subscription
        self.bodies: list[bytes] = []
        self.offsets: list[int] = []
        self.others: list[object] = []
        self.over = trio.Event()

    async def __call__(self) -> None:
        try:
            while True:
                delivery = await self.subscription.receive()
                if isinstance(delivery, Batch):
                    self.bodies += [entry.body for entry in delivery.entries]
                    self.offsets += [entry.offset for entry in delivery.entries]
                else:
                    self.others.append(delivery)
        except trio.EndOfChannel:
            self.over.set()

    def check_dense(self, first: int = 1) -> None:
        assert self.offsets == list(range(first, first + len(self.offsets)))


# --- S1: reading takes nothing away


async def test_reading_in_one_engine_leaves_the_generation_of_another_alone(autojump_clock: MockClock) -> None:
    log = KeptLog(MemoryLog())
    producer = Steered()
    async with nodes("a", "b", log=log) as (a, b), trio.open_nursery() as nursery:
        session = await a.engine.create_session("s")
        started = await session.start(producer)
        await producer.started.wait()
        elsewhere = await b.engine.session("s")
        async with elsewhere.subscribe() as subscription:
            reading = Reading(subscription)
            nursery.start_soon(reading)
            await wait_all_tasks_blocked()
            before = len(reading.bodies)
            assert (await elsewhere.snapshot()).cursor == await elsewhere.cursor() == await session.cursor()
            assert (await elsewhere.generation(started.generation_id)).state == "live"
            assert await elsewhere.presence() == ()
            assert await owner_of(log) == "a"
            producer.finish.set()
            await wait_all_tasks_blocked()
            assert len(reading.bodies) > before
            cursor = await elsewhere.cursor()
            assert reading.bodies == [entry.body for entry in log.kept("s", cursor.epoch)]
        assert await outcomes(log) == ["completed"]
        assert await owner_of(log) == "a"


# --- S2: what rests moves with who writes


async def test_posts_in_one_engine_and_the_other_in_turns_are_all_stored(autojump_clock: MockClock) -> None:
    log = KeptLog(MemoryLog())
    async with nodes("a", "b", log=log) as (a, b), trio.open_nursery() as nursery:
        first = await a.engine.create_session("s")
        second = await b.engine.session("s")
        async with first.subscribe() as here, second.subscribe() as there:
            readings = Reading(here), Reading(there)
            for reading in readings:
                nursery.start_soon(reading)
            for number in range(6):
                session, name = ((first, "a"), (second, "b"))[number % 2]
                await session.post(f"{number}")
                assert await owner_of(log) == name
            expected = [f"{number}" for number in range(6)]
            assert await texts(first) == await texts(second) == expected
            await wait_all_tasks_blocked()
            for reading in readings:
                reading.check_dense()
                assert len(reading.bodies) == 7
    assert await owner_of(log) == ""


async def test_many_who_post_at_once_in_two_engines_are_all_stored_or_told(autojump_clock: MockClock) -> None:
    log = KeptLog(MemoryLog())
    stored: list[str] = []
    async with nodes("a", "b", log=log) as (a, b), trio.open_nursery() as nursery:
        await a.engine.create_session("s")

        async def post(engine: Engine, text: str) -> None:
            try:
                await (await engine.session("s")).post(text)
            except Moved:
                return
            stored.append(text)

        for number in range(10):
            nursery.start_soon(post, (a, b)[number % 2].engine, f"{number}")
        await wait_all_tasks_blocked()
        found = await texts(await a.engine.session("s"))
        assert sorted(found) == sorted(stored)
        assert found == await texts(await b.engine.session("s"))
        assert stored


# --- S3: both at once


@pytest.mark.parametrize("policy", ["supersede", "reject", "queue"])
async def test_of_two_starts_at_once_one_begins_and_the_other_is_told_who_has_it(
    policy: str, autojump_clock: MockClock
) -> None:
    log = KeptLog(MemoryLog())
    producers = {"a": Steered(), "b": Steered()}
    came_to: dict[str, object] = {}
    async with nodes("a", "b", log=log, producers=producers) as both:
        await both[0].engine.create_session("s")

        async def start(name: str, engine: Engine) -> None:
            session = await engine.session("s")
            try:
                came_to[name] = await session.start(name, policy=policy)  # type: ignore[call-overload]
            except Moved as error:
                came_to[name] = error

        async with trio.open_nursery() as nursery:
            for node in both:
                nursery.start_soon(start, node.name, node.engine)
        (winner,) = [name for name, what in came_to.items() if isinstance(what, Started)]
        (told,) = [what for what in came_to.values() if isinstance(what, Moved)]
        assert told.owner == winner
        assert told.retryable
        assert await outcomes(log) == []
        # Where it is, it is as with one engine.
        owner = await next(node.engine for node in both if node.name == winner).session("s")
        if policy == "reject":
            with pytest.raises(GenerationActive):
                await owner.start("a", policy="reject")
            assert await outcomes(log) == []
        else:
            second = await owner.start("a", policy=policy)  # type: ignore[call-overload]
            if policy == "supersede":
                assert second.superseded is not None
                assert await outcomes(log) == ["superseded"]


async def test_what_ends_or_changes_the_generation_of_another_engine_is_refused_and_names_it(
    autojump_clock: MockClock,
) -> None:
    log = KeptLog(MemoryLog())
    producer = Steered()
    async with nodes("a", "b", log=log) as (a, b):
        session = await a.engine.create_session("s")
        started = await session.start(producer)
        await producer.started.wait()
        there = await b.engine.session("s")
        for call in (
            lambda: there.post("x"),
            lambda: there.stop(),
            lambda: there.reset(),
            lambda: there.update({"a": 1}),
            lambda: there.delete(),
            lambda: there.input(started.generation_id, "steer", {}),
            lambda: there.start(saying("x")),
            lambda: there.chunks(
                [Chunk(generation_id=new_generation_id(), message_id=new_generation_id(), data={"text": "a"})]
            ),
        ):
            with pytest.raises(Moved) as caught:
                await call()
            assert caught.value.owner == "a"
            assert caught.value.session_id == "s"
        await wait_all_tasks_blocked()
        assert not producer.cancelled.is_set()
        assert await owner_of(log) == "a"
        producer.finish.set()
        await wait_all_tasks_blocked()
        await there.post("now")
        assert await texts(session) == ["begun", "now"]
    assert await outcomes(log) == ["completed"]


# --- S4: opening ends what is one's own


async def test_an_engine_that_opens_leaves_the_living_alone_and_ends_what_its_former_self_left(
    autojump_clock: MockClock,
) -> None:
    log = KeptLog(MemoryLog())
    async with nodes("a", "b", log=log) as (a, b):
        begun: dict[str, Steered] = {}
        for name, node in (("s", a), ("t", b)):
            begun[name] = Steered()
            await (await node.engine.create_session(name)).start(begun[name])
            await begun[name].started.wait()
        b.log.die()
        async with nodes("c", log=log, last=False):
            assert await outcomes(log, "s") == await outcomes(log, "t") == []
        async with nodes("b", log=log, last=False) as (again,):
            assert await outcomes(log, "t") == ["lost"]
            assert await outcomes(log, "s") == []
            await (await again.engine.session("t")).post("on it goes")
        assert await owner_of(log, "s") == "a"
        assert not begun["s"].cancelled.is_set()
    assert await outcomes(log, "s") == ["shutdown"]


async def test_what_is_nobodys_is_ended_by_who_opens(autojump_clock: MockClock) -> None:
    log = KeptLog(MemoryLog())
    alone = PausedLog(log)
    async with open_engine(alone) as engine:
        producer = Steered()
        await (await engine.create_session("s")).start(producer)
        await producer.started.wait()
        alone.die()
        async with nodes("a", log=log):
            assert await outcomes(log) == ["lost"]


async def test_what_a_dead_engine_holds_open_goes_on_in_who_takes_over(autojump_clock: MockClock) -> None:
    log = KeptLog(MemoryLog())
    producers: dict[str, Producer] = {"hold": Steered(), "say": saying("said")}
    async with nodes("a", "b", log=log, producers=producers) as (a, b), trio.open_nursery() as nursery:
        session = await a.engine.create_session("s")
        await session.start("hold")
        await session.start("say", policy="queue")
        idle = await a.engine.create_session("idle")
        await idle.post("x")
        await wait_all_tasks_blocked()
        there = await b.engine.session("s")
        async with there.subscribe() as subscription:
            reading = Reading(subscription)
            nursery.start_soon(reading)
            a.log.die()
            with pytest.raises(Moved):
                await there.post("not yet")
            await b.engine.take_over("a")
            await wait_all_tasks_blocked()
            assert await outcomes(log) == ["lost", "completed"]
            reading.check_dense()
            assert len(reading.bodies) == (await there.cursor()).offset
        assert await owner_of(log, "idle") == "a"
        await (await b.engine.session("idle")).post("y")
        assert await owner_of(log, "idle") == "b"


# --- S5: a reader that moves


async def test_a_reader_that_comes_with_a_cursor_ahead_of_what_was_heard_goes_on_there(
    autojump_clock: MockClock,
) -> None:
    bus = LossyBus()
    log = KeptLog(MemoryLog())
    async with nodes("a", "b", log=log, bus=bus) as (a, b):
        session = await a.engine.create_session("s")
        there = await b.engine.session("s")
        async with there.subscribe() as stays:
            await stays.receive()
            bus.loses = lambda: True
            for number in range(4):
                await session.post(f"{number}")
            cursor = await session.cursor()
            async with there.subscribe(cursor) as moved:
                first = [await moved.receive() for _ in range(3)]
                assert not any(isinstance(each, Gap) for each in first)
                bus.loses = lambda: False
                await session.post("behind it")
                batch = await moved.receive()
                assert isinstance(batch, Batch)
                assert batch.first == cursor.offset + 1
        assert bus.lost


async def test_a_cursor_past_the_very_end_is_a_gap_in_every_engine(autojump_clock: MockClock) -> None:
    async with nodes("a", "b") as both:
        session = await both[0].engine.create_session("s")
        cursor = await session.cursor()
        for node in both:
            async with (await node.engine.session("s")).subscribe(Cursor(cursor.epoch, 99)) as subscription:
                await subscription.receive()
                gap = await subscription.receive()
                assert isinstance(gap, Gap)
                assert (gap.reason, gap.resumed) == ("past_tail", cursor)


# --- hints may be lost


async def test_what_the_bus_loses_is_found_in_the_log_within_five_seconds(autojump_clock: MockClock) -> None:
    bus = LossyBus()
    log = KeptLog(MemoryLog())
    async with nodes("a", "b", log=log, bus=bus) as (a, b), trio.open_nursery() as nursery:
        session = await a.engine.create_session("s")
        there = await b.engine.session("s")
        async with there.subscribe() as subscription:
            reading = Reading(subscription)
            nursery.start_soon(reading)
            await wait_all_tasks_blocked()
            bus.loses = lambda: True
            await session.post("lost")
            await wait_all_tasks_blocked()
            assert len(reading.bodies) == 1
            assert await texts(there) == ["lost"]  # who asks is told what is so
            await trio.sleep(5.1)
            assert len(reading.bodies) == 2
            await session.post("lost again")
            bus.loses = lambda: False
            await session.post("a hole before it")
            await wait_all_tasks_blocked()
            reading.check_dense()
            assert len(reading.bodies) == 4
            bus.loses = lambda: True
            await session.delete()
            await trio.sleep(5.1)
            assert reading.over.is_set()
            assert reading.others[-1] == Ended("deleted")


async def test_an_owner_that_was_overtaken_unheard_reads_and_writes_what_is_so(autojump_clock: MockClock) -> None:
    bus = LossyBus()
    bus.loses = lambda: True
    log = KeptLog(MemoryLog())
    async with nodes("a", "b", log=log, bus=bus) as (a, b), trio.open_nursery() as nursery:
        session = await a.engine.create_session("s")
        async with session.subscribe() as subscription:
            reading = Reading(subscription)
            nursery.start_soon(reading)
            there = await b.engine.session("s")
            await there.post("one")
            assert await texts(session) == ["one"]
            await there.post("two")
            await trio.sleep(5.1)
            reading.check_dense()
            assert len(reading.bodies) == 3
            await session.post("three")
            await there.post("four")
            await session.post("five")
            assert await texts(session) == await texts(there) == ["one", "two", "three", "four", "five"]
            await trio.sleep(5.1)
            reading.check_dense()
            assert len(reading.bodies) == 6


# --- stepping down


async def test_an_owner_that_wakes_behind_a_takeover_writes_nothing_and_its_readers_go_on(
    autojump_clock: MockClock,
) -> None:
    log = KeptLog(MemoryLog())
    producer = shielding(3)
    config = Config(cleanup_timeout=5)
    async with nodes("a", "b", log=log, config=config) as (a, b), trio.open_nursery() as nursery:
        session = await a.engine.create_session("s")
        started = await session.start(producer)
        await producer.started.wait()
        async with session.subscribe() as subscription:
            reading = Reading(subscription)
            nursery.start_soon(reading)
            await wait_all_tasks_blocked()
            a.log.pause()
            waiting: list[object] = []

            async def ask() -> None:
                try:
                    waiting.append(await session.start(saying("never")))
                except Moved as error:
                    waiting.append(error)

            nursery.start_soon(ask)
            await wait_all_tasks_blocked()
            await b.engine.take_over("a")
            there = await b.engine.session("s")
            second = Steered()
            await there.start(second)
            await second.started.wait()
            a.log.go_on()
            await trio.sleep(4)
            assert producer.cancelled.is_set()
            assert [type(error) for error in producer.errors] == [StaleGeneration]
            (error,) = waiting
            assert isinstance(error, Moved)
            assert error.owner == "b"
            assert await outcomes(log) == ["lost"]
            assert (await session.generation(started.generation_id)).outcome == "lost"
            second.finish.set()
            await wait_all_tasks_blocked()
            reading.check_dense()
            assert len(reading.bodies) == (await there.cursor()).offset
            assert not reading.over.is_set()
        assert a.engine.statistics().live_generations == 0
        assert a.engine.statistics().stragglers == 0
        await session.post("back")
        assert await owner_of(log) == "a"


async def test_a_producer_that_does_not_give_way_is_counted_as_a_straggler(autojump_clock: MockClock) -> None:
    log = KeptLog(MemoryLog())
    producer = shielding(100)
    async with nodes("a", "b", log=log, config=Config(cleanup_timeout=2)) as (a, b):
        session = await a.engine.create_session("s")
        await session.start(producer)
        await producer.started.wait()
        await b.engine.take_over("a")
        await wait_all_tasks_blocked()
        await trio.sleep(1)
        assert a.engine.statistics().stragglers == 0
        await trio.sleep(2)
        assert a.engine.statistics().stragglers == 1
        # Beside it, the session is used as any other.
        await session.post("x")
        assert await owner_of(log) == "a"
        producer.let_go.set()
        await wait_all_tasks_blocked()
        assert a.engine.statistics().stragglers == 0
        assert [type(error) for error in producer.errors] == [Moved]


async def test_an_owner_whose_writes_failed_does_not_come_back_over_who_has_claimed_meanwhile(
    autojump_clock: MockClock,
) -> None:
    log = KeptLog(MemoryLog())
    faulty = FaultyLog(log)
    bus = LossyBus()
    bus.loses = lambda: True
    async with open_engine(faulty, owner="a", bus=bus) as a, nodes("b", log=log, bus=bus) as (b,):
        session = await a.create_session("s")
        await session.update({"open": True})
        faulty.schedule = lambda _, write: Fail()
        faulty.fail_reads = True
        with pytest.raises(WriteFailed):
            await session.post("x")
        await (await b.engine.session("s")).post("y")
        faulty.schedule, faulty.fail_reads = None, False
        await trio.sleep(30)
        assert await owner_of(log) == "b"
        assert await texts(session) == ["y"]
        await session.post("z")
        assert await owner_of(log) == "a"


async def test_a_block_of_tokens_that_is_used_up_is_followed_by_another(autojump_clock: MockClock) -> None:
    log = KeptLog(MemoryLog())
    async with nodes("a", log=log) as (a,):
        session = await a.engine.create_session("s")
        resident = await a.engine.resident(session.session_id)
        resident.journal.token += BLOCK - 1100 - resident.journal.token % BLOCK
        block = resident.journal.token // BLOCK
        producer = Steered()
        await session.start(producer)
        await producer.started.wait()
        seen = set()
        for _ in range(20):
            for _ in range(20):
                resident.journal.raise_token()
            await session.update({"a": 1})
            seen.add(resident.journal.token // BLOCK)
        assert seen == {block, block + 1}
        assert not producer.cancelled.is_set()
        head = await log.head("s")
        assert head is not None
        assert (head.owner, head.token // BLOCK) == ("a", block + 1)


# --- leaving


async def test_a_session_that_rests_is_released_and_its_readers_stay(autojump_clock: MockClock) -> None:
    log = KeptLog(MemoryLog())
    async with nodes("a", "b", log=log, config=Config(idle_session=10)) as (a, b), trio.open_nursery() as nursery:
        session = await a.engine.create_session("s")
        async with session.subscribe() as subscription:
            reading = Reading(subscription)
            nursery.start_soon(reading)
            await session.post("one")
            assert await owner_of(log) == "a"
            await trio.sleep(11)
            assert await owner_of(log) == ""
            assert a.engine.statistics().sessions == 0
            assert a.engine.statistics().subscribers == 1
            await (await b.engine.session("s")).post("two")
            await wait_all_tasks_blocked()
            await session.post("three")
            await wait_all_tasks_blocked()
            reading.check_dense()
            assert len(reading.bodies) == 4
        await trio.sleep(30)
        assert [len(list(node.engine._registry.views or ())) for node in (a, b)] == [0, 0]


async def test_an_engine_that_closes_leaves_its_sessions_to_the_others_and_a_remote_generation_goes_on(
    autojump_clock: MockClock,
) -> None:
    log = KeptLog(MemoryLog())
    generation_id, message_id = new_generation_id(), new_generation_id()
    chunk = Chunk(generation_id=generation_id, message_id=message_id, data={"text": "a"})
    async with nodes("b", log=log) as (b,):
        async with nodes("a", log=log, last=False) as (a,):
            session = await a.engine.create_session("s")
            await session.chunks([chunk])
            there = await b.engine.session("s")
            with pytest.raises(Moved):
                await there.chunks([chunk])
        assert await owner_of(log) == ""
        await there.chunks([chunk])
        await there.finish(generation_id)
        assert await owner_of(log) == "b"
    assert await outcomes(log) == ["completed"]


# --- lives


async def test_a_session_that_another_engine_deletes_ends_here_and_its_next_life_is_another(
    autojump_clock: MockClock,
) -> None:
    log = KeptLog(MemoryLog())
    async with nodes("a", "b", log=log) as (a, b), trio.open_nursery() as nursery:
        session = await a.engine.create_session("s")
        await session.post("old")
        there = await b.engine.session("s")
        async with session.subscribe() as here, there.subscribe() as elsewhere:
            readings = Reading(here), Reading(elsewhere)
            for reading in readings:
                nursery.start_soon(reading)
            await wait_all_tasks_blocked()
            await there.delete()
            await wait_all_tasks_blocked()
            assert [reading.others[-1] for reading in readings] == [Ended("deleted")] * 2
        for handle in (session, there):
            with pytest.raises(SessionDeleted):
                await handle.snapshot()
            with pytest.raises(SessionDeleted):
                await handle.post("x")
        again = await a.engine.create_session("s")
        assert again.created
        assert await texts(there) == []
        assert not (await b.engine.create_session("s")).created
        await there.post("new")
        assert await texts(session) == ["new"]
        assert await owner_of(log) == "b"


async def test_a_fork_of_a_session_of_another_engine_is_made_where_it_is_asked_for(autojump_clock: MockClock) -> None:
    log = KeptLog(MemoryLog())
    producer = Steered()
    async with nodes("a", "b", log=log) as (a, b):
        session = await a.engine.create_session("s")
        await session.post("said")
        await session.start(producer)
        await producer.started.wait()
        fork = await (await b.engine.session("s")).fork("f")
        assert (await texts(fork))[0] == "said"
        assert (await owner_of(log, "s"), await owner_of(log, "f")) == ("a", "b")
        assert not producer.cancelled.is_set()


async def test_presence_is_told_where_it_was_put_and_claims_nothing(autojump_clock: MockClock) -> None:
    log = KeptLog(MemoryLog())
    async with nodes("a", "b", log=log, config=Config(presence_ttl=5)) as (a, b):
        await a.engine.create_session("s")
        there = await b.engine.session("s")
        await there.put_presence("ann", "phone")
        assert [each.actor_id for each in await there.presence()] == ["ann"]
        assert await owner_of(log) == "a"
        await there.post("x")  # the session is claimed, and they stay
        assert len(await there.presence()) == 1
        await trio.sleep(6)
        assert await there.presence() == ()


# --- who may open


async def test_engines_over_one_log_object_have_names_and_not_the_same(autojump_clock: MockClock) -> None:
    log = MemoryLog()
    async with open_engine(log, owner="a"), open_engine(log, owner="b"):
        for name in ("a", None):
            with pytest.raises(DatabaseInUse):
                async with open_engine(log, owner=name):
                    pass
    async with open_engine(log):
        with pytest.raises(DatabaseInUse):
            async with open_engine(log, owner="a"):
                pass
    for bad in ("", "a/b", "x" * 129):
        with pytest.raises(InvalidId):
            async with open_engine(log, owner=bad):
                pass


async def test_engines_without_a_bus_of_their_own_see_what_the_other_wrote(autojump_clock: MockClock) -> None:
    log = MemoryLog()
    async with open_engine(log, owner="a") as a, open_engine(log, owner="b") as b, trio.open_nursery() as nursery:
        session = await a.create_session("s")
        async with (await b.session("s")).subscribe() as subscription:
            reading = Reading(subscription)
            nursery.start_soon(reading)
            await session.post("x")
            await trio.sleep(5.1)
            assert len(reading.bodies) == 2


async def test_an_engine_with_a_name_over_a_file_claims_there_and_one_without_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "chat.db"
    tokens = []
    for name in ("a", "a", "b", None, "b"):
        async with open_engine(path, owner=name) as engine:
            session = await engine.create_session("s")
            await session.post("x")
            (told,) = await engine.sessions()
            assert told.cursor == await session.cursor()
        log = await open_sqlite(path)
        head = await log.head("s")
        assert head is not None
        assert head.owner == ""
        tokens.append(head.token // BLOCK)
        await log.aclose()
    # Created, claimed three times; who is alone raises the token where it is.
    assert tokens == [1, 2, 3, 3, 4]


async def test_who_claimed_a_session_and_where_stands_in_it_and_what_is_old_goes() -> None:
    async with nodes("a", "b") as (a, b):
        session = await a.engine.create_session("s")
        here, there = session, await b.engine.session("s")
        for _ in range(100):
            await there.post(text="x")
            here, there = there, here
        head = await a.log.head("s")
        assert head is not None
        found = await check_session(a.log, head)
        assert found.violations == ()
        assert 64 <= len(found.claims) <= 64 + 16
        owners = [claim.owner for claim in found.claims]
        assert owners == ["a" if at % 2 else "b" for at in range(100 - len(owners), 100)]
        assert [claim.tail for claim in found.claims] == sorted({claim.tail for claim in found.claims})
        assert found.claims[-1].tail < head.tail


@pytest.mark.parametrize(
    ("key", "body", "said"),
    [
        (f"claim/{2 * BLOCK:016}", b'{"owner":"c","tail":1}', "claimed it last"),
        (f"claim/{2 * BLOCK + 1:016}", b'{"owner":"b","tail":1}', "first token"),
        (f"claim/{BLOCK:016}", b'{"owner":"a","tail":99}', "no tail"),
    ],
)
async def test_claims_that_cannot_have_been_are_found(key: str, body: bytes, said: str) -> None:
    log = MemoryLog()
    async with open_engine(log, owner="a") as engine:
        await (await engine.create_session("s")).post(text="x")
    async with open_engine(log, owner="b") as engine:
        await (await engine.session("s")).post(text="x")
        head = await log.head("s")
        assert head is not None
        assert (await check_session(log, head)).violations == ()
        await log.write(Keep(session_id="s", epoch=head.epoch, records={key: body}))
        wrong = [each.text for each in (await check_session(log, head)).violations if each.rule == "R10"]
        assert said in wrong[0]


async def test_a_session_whose_deletion_was_not_heard_is_made_anew_all_the_same(autojump_clock: MockClock) -> None:
    bus = LossyBus()
    async with nodes("a", "b", bus=bus) as (a, b):
        first = await a.engine.create_session("s")
        await first.post("old")
        bus.loses = lambda: True
        await b.engine.delete_session("s")
        again = await a.engine.create_session("s")
        assert again.created
        assert await texts(again) == []


async def test_what_another_engine_writes_while_a_session_is_opened_is_no_damage(autojump_clock: MockClock) -> None:
    """One reads head and records one after the other, and between them the other takes over and starts."""
    log = KeptLog(MemoryLog())
    async with nodes("a", "b", log=log, producers={"saying": Steered()}) as (a, b):
        session = await a.engine.create_session("s")
        inner = b.log.inner
        meddled: list[Started | Queued] = []

        class Meddled(PausedLog):
            async def record(self, session_id: str, epoch: str, key: str) -> bytes | None:
                if key == OPEN and not meddled and await owner_of(log) == "b":
                    await session.post("first, so that what is open begins behind what was read")
                    meddled.append(await session.start("saying"))
                return await super().record(session_id, epoch, key)

        b.log.inner = Meddled(inner)  # type: ignore[misc]
        with pytest.raises(Moved):
            await (await b.engine.session("s")).start("saying", policy="reject")
        assert meddled
        await (await b.engine.session("s")).snapshot()
        await session.stop()
        await (await b.engine.session("s")).post("and on")


async def test_a_start_that_another_engine_carries_out_meanwhile_has_its_answer(autojump_clock: MockClock) -> None:
    """It was sent to both, as clients do whose answer stays away; one of them had the session until then."""
    log = KeptLog(MemoryLog())
    async with nodes("a", "b", log=log, producers={"saying": Steered()}) as (a, b):
        same = partial(Session.start, producer="saying", generation_id=new_generation_id(), idempotency_key="k")
        session = await b.engine.create_session("s")
        first: list[Started | Queued] = []

        class Meddled(PausedLog):
            async def record(self, session_id: str, epoch: str, key: str) -> bytes | None:
                found = await super().record(session_id, epoch, key)
                if key.startswith("idempotency/") and not first:
                    first.append(await same(await a.engine.session("s")))
                return found

        b.log.inner = Meddled(log)  # type: ignore[misc]
        second = await same(session)
        assert first[0].generation_id == second.generation_id
        assert second.repeated
        await (await a.engine.session("s")).stop()
