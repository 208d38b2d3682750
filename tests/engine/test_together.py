"""What engines that share a log know together: who is present, who reads, stops before their start, the list."""

from __future__ import annotations

from random import Random
from typing import Final, final

import pytest
import trio
import trio.lowlevel
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from penstock.engine import (
    CaughtUp,
    Config,
    Cursor,
    Delivery,
    Engine,
    Ephemeral,
    Gap,
    GenerationFinished,
    ListChange,
    LocalBus,
    MemoryLog,
    Opened,
    Overloaded,
    PresenceChanged,
    PresenceListed,
    Present,
    Session,
    Subscription,
    TimedOut,
    new_generation_id,
)
from penstock.engine.stream.watch import ListDelivery, Watch
from penstock.engine.testing import KeptLog
from tests.engine.producers import Steered, saying
from tests.engine.rules import events_of
from tests.engine.sharing import LossyBus, OwnBus, nodes
from tests.extent import examples

# So long an engine that was not told of something may be without it, and a little: seconds.
LOOK: Final = 5.1

# So long it may take until a reader elsewhere is known to have left, or an engine that had one to be gone: seconds. A
# question, and three that nobody answers; before these what it said last, to the end of its time.
LEFT: Final = 4 * 1.5 + 0.1
GONE: Final = 6 * 1.5 + 0.1


@final
class Roll:
    """A reader that keeps the list of who is present as a client does, and sees that each change is news."""

    def __init__(self, subscription: Subscription) -> None:
        self._subscription = subscription
        self.here: dict[str, Present] | None = None
        self.told: list[str] = []

    async def __call__(self) -> None:
        try:
            while True:
                self._take(await self._subscription.receive())
        except trio.EndOfChannel:
            return

    def _take(self, delivery: Delivery) -> None:
        if isinstance(delivery, PresenceListed):
            self.here = {f"{each.actor_id}/{each.device_id}": each for each in delivery.present}
        elif isinstance(delivery, Ephemeral):
            assert self.here is not None, "a change was told before the list"
            data = delivery.event().data
            assert isinstance(data, PresenceChanged)
            before, key = dict(self.here), f"{data.actor_id}/{data.device_id}"
            self.told.append(f"{key} {data.status}")
            if data.status == "gone":
                self.here.pop(key, None)
            else:
                self.here[key] = Present(
                    actor_id=data.actor_id, device_id=data.device_id, name=data.name, status=data.status
                )
            assert self.here != before, "what the reader knew already was told again"


def names(roll: Roll) -> list[str]:
    assert roll.here is not None
    return sorted(roll.here)


# --- presence


#
async def test_who_is_present_in_one_engine_is_told_in_the_other_at_once(autojump_clock: MockClock) -> None:
    async with nodes("a", "b") as (a, b), trio.open_nursery() as nursery:
        here = await a.engine.create_session("s")
        there = await b.engine.session("s")
        async with here.subscribe() as first, there.subscribe() as second:
            rolls = Roll(first), Roll(second)
            for roll in rolls:
                nursery.start_soon(roll)
            await wait_all_tasks_blocked()
            began = trio.current_time()
            for session, device, status in ((here, "phone", None), (there, "desk", "typing"), (there, "phone", "idle")):
                await session.put_presence("ann", device, status=status)
                await wait_all_tasks_blocked()
            await here.drop_presence("ann", "desk")
            await wait_all_tasks_blocked()
            assert trio.current_time() == began
            for roll in rolls:
                assert roll.told == ["ann/phone None", "ann/desk typing", "ann/phone idle", "ann/desk gone"]
            async with there.subscribe() as third:
                late = Roll(third)
                nursery.start_soon(late)
                await wait_all_tasks_blocked()
                assert names(late) == ["ann/phone"]
            await there.put_presence("bob", "desk")
            await there.drop_presence("ann")
            await wait_all_tasks_blocked()
            for roll in rolls:
                assert names(roll) == ["bob/desk"]
            assert await here.presence() == await there.presence()


async def test_who_is_not_put_again_is_gone_everywhere_once_also_where_it_was_put_in_an_engine_that_died(
    autojump_clock: MockClock,
) -> None:
    bus = LocalBus()
    own = OwnBus(bus)
    async with nodes("a", "b", bus=bus, buses={"b": own}) as (a, b), trio.open_nursery() as nursery:
        here = await a.engine.create_session("s")
        there = await b.engine.session("s")
        async with here.subscribe() as events:
            roll = Roll(events)
            nursery.start_soon(roll)
            await there.put_presence("ann", "phone")
            await wait_all_tasks_blocked()
            own.cut = True
            for _ in range(3):
                await trio.sleep(50)
                await here.put_presence("bob", "desk")
            await wait_all_tasks_blocked()
            assert roll.told == ["ann/phone None", "bob/desk None", "ann/phone gone"]
            await trio.sleep(60 + LOOK)
            assert roll.told[3:] == ["bob/desk gone"]
        with pytest.raises(TimedOut):
            await there.put_presence("ann", "phone")
        own.cut = False


async def test_as_many_are_present_as_may_be_over_all_engines(autojump_clock: MockClock) -> None:
    async with nodes("a", "b", config=Config(presence_limit=2)) as (a, b):
        here = await a.engine.create_session("s")
        there = await b.engine.session("s")
        await here.put_presence("ann", "1")
        await there.put_presence("ann", "2")
        for session in (here, there):
            with pytest.raises(Overloaded):
                await session.put_presence("ann", "3")
            await session.put_presence("ann", "1", status="typing")
        await trio.sleep(50)
        await here.put_presence("ann", "1")
        await trio.sleep(20)
        await here.put_presence("ann", "3")
        assert [each.device_id for each in await there.presence()] == ["1", "3"]


async def test_a_reader_that_comes_where_nobody_read_is_told_who_is_present_by_then(autojump_clock: MockClock) -> None:
    async with nodes("a", "b") as (a, b), trio.open_nursery() as nursery:
        here = await a.engine.create_session("s")
        there = await b.engine.session("s")
        await here.put_presence("ann", "phone")
        assert len(await there.presence()) == 1
        await trio.sleep(61)
        await here.put_presence("bob", "phone")
        await wait_all_tasks_blocked()
        async with there.subscribe() as events:
            roll = Roll(events)
            nursery.start_soon(roll)
            await wait_all_tasks_blocked()
            assert names(roll) == ["bob/phone"]
            assert roll.told == []


async def test_a_new_life_of_a_session_has_nobody_of_the_former_one(autojump_clock: MockClock) -> None:
    async with nodes("a", "b") as (a, b):
        here = await a.engine.create_session("s")
        await here.put_presence("ann", "phone")
        await here.delete()
        again = await b.engine.create_session("s")
        assert await again.presence() == ()


@settings(max_examples=examples(100))
@given(seed=st.integers(0, 2**32))
def test_every_reader_has_who_is_present_within_seconds_whatever_hints_are_lost(seed: int) -> None:
    random = Random(seed)

    async def run() -> None:
        bus = LossyBus()
        bus.loses = lambda: random.random() < 0.5
        present: dict[str, float] = {}
        async with nodes("a", "b", "c", bus=bus) as opened, trio.open_nursery() as nursery:
            await opened[0].engine.create_session("s")
            sessions = [await node.engine.session("s") for node in opened]
            rolls: list[Roll] = []

            async def read(number: int) -> None:
                await trio.sleep(random.random() * 30)
                async with sessions[number].subscribe() as events:
                    roll = Roll(events)
                    rolls.append(roll)
                    await roll()

            for number in (0, 0, 1, 2):
                nursery.start_soon(read, number)
            for _ in range(40):
                session = random.choice(sessions)
                actor, device = random.choice("xy"), random.choice("12")
                match random.randrange(5):
                    case 0 | 1:
                        await session.put_presence(actor, device, status=random.choice(["p", "q"]))
                        present[f"{actor}/{device}"] = trio.current_time() + 60
                    case 2:
                        await session.drop_presence(actor, device)
                        present.pop(f"{actor}/{device}", None)
                    case 3:
                        await session.drop_presence(actor)
                        present = {key: until for key, until in present.items() if not key.startswith(actor)}
                    case _:
                        await trio.sleep(random.random() * 20)
            bus.loses = lambda: True
            await trio.sleep(40)
            assert len(rolls) == 4
            until = trio.current_time()
            await trio.sleep(LOOK)
            certain = sorted(key for key, at in present.items() if at > until + LOOK)
            possible = {key for key, at in present.items() if at > until}
            for roll in rolls:
                assert [key for key in names(roll) if key in certain] == certain
                assert set(names(roll)) <= possible
            nursery.cancel_scope.cancel()

    trio.run(run, clock=MockClock(autojump_threshold=0))


# --- who reads


async def ended(log: KeptLog, session_id: str = "s") -> list[str]:
    return [
        event.data.outcome for event in await events_of(log, session_id) if isinstance(event.data, GenerationFinished)
    ]


async def ended_of(session: Session) -> list[str]:
    """The same, of one that can be read."""
    async with session.subscribe(live=False) as events:
        return [event.data.outcome async for event in events if isinstance(event.data, GenerationFinished)]


@pytest.mark.parametrize("alone", [0.0, 20.0])
async def test_an_answer_that_is_read_elsewhere_goes_on_until_the_last_reader_of_all_has_left(
    alone: float, autojump_clock: MockClock
) -> None:
    log = KeptLog(MemoryLog())
    async with nodes("a", "b", log=log) as (a, b):
        here = await a.engine.create_session("s")
        there = await b.engine.session("s")
        async with there.subscribe():
            async with here.subscribe():
                await here.start(Steered(), on_last_disconnect=alone)
                await trio.sleep(30)
            await trio.sleep(60)
            assert await ended(log) == []
        await trio.sleep(alone)
        assert await ended(log) == []
        await trio.sleep(LEFT)
        assert await ended(log) == ["stopped"]


async def test_an_answer_that_nobody_reads_is_stopped(autojump_clock: MockClock) -> None:
    log = KeptLog(MemoryLog())
    async with nodes("a", "b", log=log) as (a, b):
        here = await a.engine.create_session("s")
        await b.engine.session("s")
        await here.start(Steered(), on_last_disconnect=10)
        await trio.sleep(9.9)
        assert await ended(log) == []
        await trio.sleep(0.2)
        assert await ended(log) == ["stopped"]


async def test_who_comes_back_in_another_engine_in_time_keeps_the_answer(autojump_clock: MockClock) -> None:
    log = KeptLog(MemoryLog())
    async with nodes("a", "b", log=log) as (a, b):
        here = await a.engine.create_session("s")
        there = await b.engine.session("s")
        async with here.subscribe():
            await here.start(Steered(), on_last_disconnect=20)
        await trio.sleep(15)
        async with there.subscribe():
            await trio.sleep(100)
            assert await ended(log) == []


async def test_the_readers_of_an_engine_that_died_read_no_more(autojump_clock: MockClock) -> None:
    log = KeptLog(MemoryLog())
    bus = LocalBus()
    own = OwnBus(bus)
    async with nodes("a", "b", log=log, bus=bus, buses={"b": own}) as (a, b):
        here = await a.engine.create_session("s")
        there = await b.engine.session("s")
        async with there.subscribe():
            await here.start(Steered(), on_last_disconnect=0)
            await trio.sleep(30)
            assert await ended(log) == []
            own.cut = True
            await trio.sleep(GONE)
            assert await ended(log) == ["stopped"]
            own.cut = False


async def test_a_question_that_is_lost_stops_nothing(autojump_clock: MockClock) -> None:
    log = KeptLog(MemoryLog())
    bus = LossyBus()
    bus.loses = lambda: trio.current_time() % 4.5 < 2.9  # two questions of three
    async with nodes("a", "b", log=log, bus=bus) as (a, b):
        here = await a.engine.create_session("s")
        there = await b.engine.session("s")
        async with there.subscribe():
            await here.start(Steered(), on_last_disconnect=0)
            await trio.sleep(100)
            assert bus.lost > 20
            assert await ended(log) == []


async def test_a_store_that_is_away_stops_nothing(autojump_clock: MockClock) -> None:
    log = KeptLog(MemoryLog())
    bus = LocalBus()
    own = OwnBus(bus)
    async with nodes("a", "b", log=log, bus=bus, buses={"a": own}) as (a, b):
        here = await a.engine.create_session("s")
        there = await b.engine.session("s")
        async with there.subscribe():
            await here.start(Steered(), on_last_disconnect=0)
            own.volatile.away = True
            await trio.sleep(50)
            own.volatile.away = False
            await trio.sleep(50)
            assert await ended(log) == []


async def test_nobody_asks_who_reads_unless_it_matters(autojump_clock: MockClock) -> None:
    bus = LocalBus()
    own = OwnBus(bus)
    async with nodes("a", "b", bus=bus, buses={"a": own}) as (a, _):
        read, unread = [await a.engine.create_session(name) for name in "st"]
        await unread.start(Steered())
        async with read.subscribe():
            await read.start(Steered(), on_last_disconnect=60)
            await trio.sleep(30)
            assert own.volatile.calls["put"] == 0
            await read.stop()
        await read.start(Steered(), on_last_disconnect=60)
        await trio.sleep(30)
        assert 18 <= own.volatile.calls["put"] <= 22
        await read.stop()
        calls = own.volatile.calls["put"]
        await trio.sleep(30)
        assert own.volatile.calls["put"] == calls


# --- stops before their start


async def test_a_stop_before_its_start_holds_in_whichever_engine_that_comes_to(autojump_clock: MockClock) -> None:
    log = KeptLog(MemoryLog())
    async with nodes("a", "b", "c", log=log, producers={"say": saying("x")}) as (a, b, c):
        first = await a.engine.create_session("s")
        gid, other = new_generation_id(), new_generation_id()
        assert (await first.stop(gid)).state == "pending"
        assert (await (await b.engine.session("s")).stop(other)).state == "pending"
        third = await c.engine.session("s")
        await third.start("say", generation_id=other)
        await wait_all_tasks_blocked()
        assert await ended(log) == ["stopped"]
        a.log.die()
        await b.engine.take_over("a")
        await (await b.engine.session("s")).start("say", generation_id=gid)
        await wait_all_tasks_blocked()
        assert await ended(log) == ["stopped", "stopped"]
        await third.start("say")
        await wait_all_tasks_blocked()
        assert await ended(log) == ["stopped", "stopped", "completed"]


# --- the list


@final
class Following:
    """One who follows the list, and keeps it."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self.met: list[ListDelivery] = []
        self.caught_up = 0

    async def __call__(self) -> None:
        async with self._watch:
            while True:
                delivery = await self._watch.receive()
                self.caught_up += isinstance(delivery, CaughtUp)
                self.met.append(delivery)

    @property
    def changes(self) -> list[ListChange]:
        return [each for each in self.met if isinstance(each, ListChange)]

    @property
    def gaps(self) -> list[str]:
        return [each.reason for each in self.met if isinstance(each, Gap)]

    @property
    def listed(self) -> dict[str, str | None]:
        """What was told last of each session that is there: its title."""
        last = {each.session_id: each.session for each in self.changes}
        return {session_id: session.title for session_id, session in last.items() if session is not None}

    @property
    def cursor(self) -> Cursor:
        found = [each.cursor for each in self.met if isinstance(each, Opened | ListChange | CaughtUp)]
        return found[-1]


async def page(engine: Engine) -> dict[str, str | None]:
    return {each.session_id: each.title for each in await engine.sessions()}


async def test_what_is_made_changed_and_deleted_in_one_engine_is_told_in_the_other(autojump_clock: MockClock) -> None:
    async with nodes("a", "b") as (a, b), trio.open_nursery() as nursery:
        following = [Following(node.engine.watch()) for node in (a, b)]
        for each in following:
            nursery.start_soon(each)
        await trio.sleep(1)
        for name in ("s", "t", "u"):
            session = await a.engine.create_session(name)
            await session.post(f"about {name}")
        await (await b.engine.session("t")).post("more")
        await a.engine.delete_session("u")
        await trio.sleep(0.5)
        expected = await page(b.engine)
        assert list(expected) == ["s", "t"]
        for each in following:
            assert each.listed == expected
            assert each.gaps == []
        nursery.cancel_scope.cancel()


async def test_a_cursor_of_one_engine_is_good_in_the_other_also_in_one_that_nobody_followed(
    autojump_clock: MockClock,
) -> None:
    async with nodes("a", "b") as (a, b), trio.open_nursery() as nursery:
        first = Following(a.engine.watch())
        nursery.start_soon(first)
        await trio.sleep(1)
        await a.engine.create_session("s")
        await trio.sleep(1)
        cursor = first.cursor
        await a.engine.create_session("t")
        await b.engine.create_session("u")
        await trio.sleep(1)
        second = Following(b.engine.watch(cursor))
        nursery.start_soon(second)
        await trio.sleep(1)
        assert second.gaps == []
        assert [each.session_id for each in second.changes] == ["t", "u"]
        assert second.cursor == first.cursor
        third = Following(b.engine.watch(Cursor("elsewhere", 1)))
        nursery.start_soon(third)
        await trio.sleep(1)
        assert third.gaps == ["unknown_epoch"]
        nursery.cancel_scope.cancel()


async def test_who_follows_on_behind_more_changes_than_are_kept_begins_anew(autojump_clock: MockClock) -> None:
    async with nodes("a", "b", config=Config(watch_kept=3)) as (a, b), trio.open_nursery() as nursery:
        await a.engine.create_session("s")
        await trio.sleep(1)
        first = Following(b.engine.watch())
        async with trio.open_nursery() as reading:
            reading.start_soon(first)
            await trio.sleep(1)
            reading.cancel_scope.cancel()
        for name in "tuvw":
            await a.engine.create_session(name)
        await trio.sleep(1)
        second = Following(b.engine.watch(first.cursor))
        nursery.start_soon(second)
        await trio.sleep(1)
        assert second.gaps == ["expired"]
        nursery.cancel_scope.cancel()


async def test_a_session_that_changes_often_is_noted_some_times_a_second_and_read_only_where_it_is_followed(
    autojump_clock: MockClock,
) -> None:
    bus = LocalBus()
    own = {name: OwnBus(bus) for name in "ab"}
    async with nodes("a", "b", bus=bus, buses=own) as (a, _):
        session = await a.engine.create_session("s")
        for number in range(100):
            await session.update({"n": number})
        await trio.sleep(1)
        assert own["a"].volatile.calls["note"] <= 3
        assert own["b"].volatile.calls["noted"] == 0
        calls = own["a"].volatile.calls.copy()
        await trio.sleep(1000)
        assert own["a"].volatile.calls == calls, "nothing happens, and nobody follows"


async def test_a_hint_that_is_lost_and_a_store_that_is_away_cost_some_seconds(autojump_clock: MockClock) -> None:
    bus = LossyBus()
    own = OwnBus(bus)
    async with nodes("a", "b", bus=bus, buses={"a": own}) as (a, b), trio.open_nursery() as nursery:
        following = Following(b.engine.watch())
        nursery.start_soon(following)
        await trio.sleep(1)
        bus.loses = lambda: True
        await (await a.engine.create_session("s")).post("about s")
        await a.engine.create_session("t")
        await a.engine.delete_session("t")
        await trio.sleep(LOOK)
        assert following.listed == await page(b.engine)
        assert bus.lost
        own.cut = True
        await (await a.engine.create_session("u")).post("about u")
        await trio.sleep(20)
        assert "u" not in following.listed
        own.cut = False
        await trio.sleep(LOOK + 1)
        assert following.listed == await page(b.engine)
        nursery.cancel_scope.cancel()


@settings(max_examples=examples(100))
@given(seed=st.integers(0, 2**32))
def test_whoever_follows_has_the_list_within_seconds_whatever_hints_are_lost(seed: int) -> None:
    random = Random(seed)

    async def run() -> None:
        bus = LossyBus()
        bus.loses = lambda: random.random() < 0.5
        config = Config(watch_kept=random.choice([3, 1000]))
        async with nodes("a", "b", "c", bus=bus, config=config) as opened, trio.open_nursery() as nursery:
            first, *_ = engines = [node.engine for node in opened]
            for name in "uvw":
                await first.create_session(name)
            await trio.sleep(1)
            following = [Following(engine.watch()) for engine in engines]
            for each in following:
                nursery.start_soon(each)
            await trio.lowlevel.checkpoint()
            lists = [await page(engine) for engine in engines]
            for _ in range(30):
                engine, name = random.choice(engines), random.choice("stuvw")
                match random.randrange(4):
                    case 0:
                        await (await engine.create_session(name)).post(f"{random.random()}")
                    case 1 if name in await page(engine):
                        await engine.delete_session(name)
                    case 2 if name in await page(engine):
                        await (await engine.session(name)).update({"title": f"{random.random()}"})
                    case _:
                        await trio.sleep(random.random() * 10)
            bus.loses = lambda: True
            await trio.sleep(2 * LOOK)
            expected = await page(first)
            for listed, each in zip(lists, following, strict=True):
                assert each.gaps == [] or config.watch_kept == 3
                if not each.gaps:
                    for change in each.changes:
                        if change.session is None:
                            listed.pop(change.session_id, None)
                        else:
                            listed[change.session_id] = change.session.title
                    assert listed == expected
            nursery.cancel_scope.cancel()

    trio.run(run, clock=MockClock(autojump_threshold=0))


async def test_who_follows_through_a_store_that_lost_its_notes_begins_anew(autojump_clock: MockClock) -> None:
    bus = OwnBus(LocalBus())
    async with nodes("a", "b", bus=bus) as (a, b), trio.open_nursery() as nursery:
        following = Following(b.engine.watch())
        nursery.start_soon(following)
        await trio.sleep(1)
        await a.engine.create_session("s")
        await trio.sleep(1)
        bus.inner = LocalBus()
        await a.engine.create_session("t")
        await trio.sleep(LOOK)
        assert following.gaps == ["unknown_epoch"]
        await a.engine.create_session("u")
        await trio.sleep(LOOK)
        assert "u" in following.listed
        nursery.cancel_scope.cancel()


async def test_what_an_engine_ends_as_it_closes_is_told_to_the_others(autojump_clock: MockClock) -> None:
    log, bus = KeptLog(MemoryLog()), LocalBus()
    async with nodes("b", log=log, bus=bus, last=False) as (b,), trio.open_nursery() as nursery:
        following = Following(b.engine.watch())
        nursery.start_soon(following)
        async with nodes("a", log=log, bus=bus, last=False) as (a,):
            await (await a.engine.create_session("s")).start(Steered())
            await trio.sleep(1)
            (running,) = [each.session for each in following.changes[-1:]]
            assert running is not None
            assert running.generation_id is not None
        await trio.sleep(1)
        (rests,) = [each.session for each in following.changes[-1:]]
        assert rests is not None
        assert rests.generation_id is None
        nursery.cancel_scope.cancel()


# --- an engine alone


async def test_an_engine_alone_shares_nothing(autojump_clock: MockClock) -> None:
    from penstock.engine import open_engine

    async with open_engine(MemoryLog()) as engine:
        session = await engine.create_session("s")
        await wait_all_tasks_blocked()
        tasks = trio.lowlevel.current_statistics().tasks_living
        async with session.subscribe():
            async with engine.watch():
                pass
            await session.stop(new_generation_id())
            await wait_all_tasks_blocked()
            assert trio.lowlevel.current_statistics().tasks_living == tasks
