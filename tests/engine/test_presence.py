"""Who is here: told at once, listed whenever a reader has caught up, over when it is not said again, never stored."""

from __future__ import annotations

from random import Random
from typing import Final, final

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.engine import (
    Batch,
    CaughtUp,
    Config,
    Delivery,
    Ended,
    Ephemeral,
    InvalidBody,
    InvalidId,
    MemoryLog,
    Overloaded,
    PresenceChanged,
    PresenceListed,
    Present,
    Session,
    SessionDeleted,
    SessionNotFound,
    SessionState,
    Subscription,
    decode,
    open_engine,
)
from penstock.engine.reducer import Applied
from tests.engine.faulty import FaultyLog, Hold
from tests.engine.watching import committed_tail
from tests.extent import examples

TTL: Final = Config().presence_ttl


def present(actor_id: str, device_id: str, name: str | None = None, status: str | None = None) -> Present:
    return Present(actor_id=actor_id, device_id=device_id, name=name, status=status)


@final
class Roll:
    """A client's list: taken whole, then changed by events; each event must be news."""

    def __init__(self) -> None:
        self.listed = False
        self.here: dict[tuple[str, str], Present] = {}

    def take(self, delivery: Delivery) -> None:
        if isinstance(delivery, PresenceListed):
            self.listed = True
            self.here = {(one.actor_id, one.device_id): one for one in delivery.present}
        elif isinstance(delivery, Ephemeral):
            assert self.listed, "a change was told before the list"
            event = delivery.event()
            assert (event.session_id, event.offset) == ("s", None)
            assert isinstance(event.data, PresenceChanged)
            before = dict(self.here)
            key = (event.data.actor_id, event.data.device_id)
            if event.data.status == "gone":
                self.here.pop(key, None)
            else:
                self.here[key] = present(*key, event.data.name, event.data.status)
            assert self.here != before, "what the reader knew already was told again"


async def changes(subscription: Subscription) -> list[tuple[str, str, str | None, str | None]]:
    """What is told of who is here until nothing comes for a moment."""
    told = []
    with trio.move_on_after(0.001):
        while True:
            delivery = await subscription.receive()
            if isinstance(delivery, Ephemeral):
                data = delivery.event().data
                assert isinstance(data, PresenceChanged)
                told.append((data.actor_id, data.device_id, data.name, data.status))
    return told


async def listed(subscription: Subscription) -> tuple[Present, ...]:
    """The list behind the next `CaughtUp`."""
    while not isinstance(await subscription.receive(), CaughtUp):
        pass
    delivery = await subscription.receive()
    assert isinstance(delivery, PresenceListed)
    return delivery.present


#
async def test_who_comes_changes_and_leaves_is_told_per_actor_and_device(
    log: MemoryLog, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        async with session.subscribe() as events:
            assert await listed(events) == ()
            await session.put_presence("ann", "phone", name="Ann")
            await session.put_presence("ann", "desk", name="Ann", status="typing")
            await session.put_presence("bob", "desk")
            await session.put_presence("ann", "desk", name="Ann")
            assert await changes(events) == [
                ("ann", "phone", "Ann", None),
                ("ann", "desk", "Ann", "typing"),
                ("bob", "desk", None, None),
                ("ann", "desk", "Ann", None),
            ]
            everybody = (present("ann", "phone", "Ann"), present("ann", "desk", "Ann"), present("bob", "desk"))
            assert await session.presence() == everybody
            async with session.subscribe() as later:
                assert await listed(later) == everybody
            await session.drop_presence("ann")
            await session.drop_presence("bob", "phone")
            await session.drop_presence("nobody")
            assert await changes(events) == [("ann", "phone", "Ann", "gone"), ("ann", "desk", "Ann", "gone")]
            await session.drop_presence("bob", "desk")
            assert await changes(events) == [("bob", "desk", None, "gone")]
            assert await session.presence() == ()


#
async def test_who_is_not_put_again_in_time_is_gone(log: MemoryLog, autojump_clock: trio.testing.MockClock) -> None:
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        async with session.subscribe() as events:
            await session.put_presence("ann", "phone")
            await session.put_presence("bob", "desk", name="B", status="reading")
            assert len(await changes(events)) == 0, "the list had them"
            for _ in range(2):
                await trio.sleep(TTL - 1)
                await session.put_presence("ann", "phone")
                assert await changes(events) == [], "to say the same again is no news"
                await session.put_presence("bob", "desk", name="B", status="reading")
            await trio.sleep(0.5)
            await session.put_presence("ann", "phone")
            await trio.sleep(TTL - 0.25)
            assert await changes(events) == [("bob", "desk", "B", "gone")], "and what was not said is over in time"
            await session.put_presence("ann", "phone")
            begin = trio.current_time()
            while not isinstance(await events.receive(), Ephemeral):
                pass
            assert trio.current_time() - begin == pytest.approx(TTL, abs=0.01)
            assert await session.presence() == ()
            await session.put_presence("ann", "phone")
            assert await changes(events) == [("ann", "phone", None, None)]
            await trio.sleep(TTL)
            assert await changes(events) == [("ann", "phone", None, "gone")], "the clock runs again"


# nothing that is being stored, and no lifecycle step, holds it up.
async def test_presence_is_told_at_once_while_the_disk_hangs(autojump_clock: trio.testing.MockClock) -> None:
    memory, hold = MemoryLog(), Hold()
    log = FaultyLog(memory)
    async with open_engine(log) as engine, trio.open_nursery() as nursery:
        session = await engine.create_session("s")
        async with session.subscribe() as events:
            await listed(events)
            log.schedule = lambda number, write: hold
            nursery.start_soon(session.post, "held")
            nursery.start_soon(session.reset)
            await trio.testing.wait_all_tasks_blocked()
            await session.put_presence("ann", "phone")
            with trio.fail_after(0.001):
                assert isinstance(await events.receive(), Ephemeral)
            hold.release()


async def test_presence_is_no_part_of_the_log_or_of_the_state(
    log: MemoryLog, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        await session.post("hello")
        async with session.subscribe() as events:
            await listed(events)
            before = await session.snapshot()
            await session.put_presence("ann", "phone")
            told = await events.receive()
            assert isinstance(told, Ephemeral)
            assert told.cursor == events.cursor == before.cursor
            assert await session.snapshot() == before
            assert committed_tail(log, "s") == before.cursor.offset
            state = SessionState.from_snapshot(before)
            assert isinstance(state.apply(told.event()), Applied)
            assert state.snapshot() == before
            fork = await session.fork()
            assert await fork.presence() == ()
            await session.reset()
            assert await session.presence() == (present("ann", "phone"),)
    async with open_engine(log) as engine:
        assert await (await engine.session("s")).presence() == ()


async def test_events_in_a_loop_have_those_without_an_offset_among_them(
    log: MemoryLog, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        async with session.subscribe() as events:
            assert (await anext(events)).offset == 1
            await listed(events)
            await session.put_presence("ann", "phone")
            event = await anext(events)
            assert (event.type, event.offset, event.seq, event.generation_id) == ("presence.changed", None, None, None)
            await session.post("more")
            assert (await anext(events)).offset == 2


#
async def test_presence_reaches_readers_of_its_own_session_only(
    log: MemoryLog, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_engine(log) as engine:
        here, there = await engine.create_session("s"), await engine.create_session("t")
        async with there.subscribe() as events:
            await listed(events)
            await here.put_presence("ann", "phone")
            assert await changes(events) == []
            assert await there.presence() == ()


async def test_as_many_are_here_as_may_and_no_more(log: MemoryLog, autojump_clock: trio.testing.MockClock) -> None:
    async with open_engine(log, config=Config(presence_limit=2)) as engine:
        session = await engine.create_session("s")
        await session.put_presence("ann", "phone")
        await session.put_presence("ann", "desk")
        with pytest.raises(Overloaded) as refused:
            await session.put_presence("bob", "desk")
        assert refused.value.session_id == "s"
        await session.put_presence("ann", "desk", status="typing")
        assert len(await session.presence()) == 2
        await session.drop_presence("ann", "phone")
        await session.put_presence("bob", "desk")
        await trio.sleep(TTL + 1)
        await session.put_presence("cas", "desk")
        assert await session.presence() == (present("cas", "desk"),)


@pytest.mark.parametrize(
    ("ids", "said", "error"),
    [
        (("", "phone"), {}, InvalidId),
        (("ann", ".."), {}, InvalidId),
        (("ann", "a b"), {}, InvalidId),
        (("a" * 129, "phone"), {}, InvalidId),
        (("ann", "phone"), {"name": ""}, InvalidBody),
        (("ann", "phone"), {"name": "x" * 257}, InvalidBody),
        (("ann", "phone"), {"status": ""}, InvalidBody),
        (("ann", "phone"), {"status": "x" * 257}, InvalidBody),
        (("ann", "phone"), {"status": "gone"}, InvalidBody),
        (("ann", "phone"), {"name": "\ud800"}, InvalidBody),
    ],
)
async def test_what_is_refused_changes_nothing(
    ids: tuple[str, str],
    said: dict[str, str],
    error: type[Exception],
    log: MemoryLog,
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        await session.put_presence("ann", "phone", name="Ann")
        async with session.subscribe() as events:
            assert await listed(events) == (present("ann", "phone", "Ann"),)
            with pytest.raises(error):
                await session.put_presence(*ids, **said)
            assert await changes(events) == []
        assert await session.presence() == (present("ann", "phone", "Ann"),)
        if error is InvalidId:
            with pytest.raises(InvalidId):
                await session.drop_presence(*ids)


async def test_presence_keeps_its_session_in_memory_and_no_longer(
    log: MemoryLog, autojump_clock: trio.testing.MockClock
) -> None:
    config = Config(idle_session=5, presence_ttl=60)
    async with open_engine(log, config=config) as engine:
        session = await engine.create_session("s")
        await session.put_presence("ann", "phone")
        await trio.sleep(59)
        assert await session.presence() == (present("ann", "phone"),)
        await trio.sleep(12)
        assert engine.statistics().sessions == 0


async def test_a_session_that_ends_takes_its_presence_along(
    log: MemoryLog, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        await session.put_presence("ann", "phone")
        async with session.subscribe() as events:
            assert await listed(events) == (present("ann", "phone"),)
            await session.delete()
            told = await events.receive()
            while isinstance(told, Batch):
                told = await events.receive()
            assert isinstance(told, Ended)
        with pytest.raises(SessionDeleted):
            await session.put_presence("ann", "phone")
        assert await (await engine.create_session("s")).presence() == ()
        with pytest.raises(SessionNotFound):
            await (await engine.session("t")).presence()


@pytest.mark.parametrize("deleted", [False, True])
async def test_an_engine_that_closes_waits_for_nobodys_leaving(
    deleted: bool, log: MemoryLog, autojump_clock: trio.testing.MockClock
) -> None:
    begin = trio.current_time()
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        await session.put_presence("ann", "phone")
        if deleted:
            await session.delete()
    assert trio.current_time() - begin < 1


async def test_a_reader_that_lags_gets_the_list_in_place_of_what_it_missed(
    log: MemoryLog, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_engine(log, config=Config(subscriber_buffer=4)) as engine:
        session = await engine.create_session("s")
        async with session.subscribe() as events:
            await listed(events)
            for number in range(20):
                await session.put_presence("ann", "phone", status=f"at {number}")
            assert await listed(events) == (present("ann", "phone", status="at 19"),)
            assert await changes(events) == []
            await session.put_presence("ann", "phone", status="at last")
            assert await changes(events) == [("ann", "phone", None, "at last")]


# --- random schedules


async def act(random: Random, session: Session) -> None:
    """One thing that somebody does to the session, or a while in which nobody does."""
    who = (random.choice("ab"), random.choice("12"))
    match random.randrange(8):
        case 0 | 1 | 2:
            await session.put_presence(*who, status=random.choice([None, "x", "y"]))
        case 3:
            await session.drop_presence(*who)
        case 4:
            await session.drop_presence(who[0])
        case 5 | 6:
            await session.post("more")
        case 7:
            await trio.sleep(random.choice([0, 3, 7]))


async def follow(random: Random, session: Session, roll: Roll, log: MemoryLog, quiet: trio.Event) -> None:
    """Take what comes, with pauses, cancelled at times, leaving and coming back; then all that is left."""
    offsets: list[int] = []
    while True:
        after = None if not offsets else f"{(await session.cursor()).epoch}-{offsets[-1]:016d}"
        async with session.subscribe(after) as events:
            roll.listed = False
            while quiet.is_set() or random.random() < 0.95:
                patient = quiet.is_set()
                with trio.move_on_after(1 if patient else random.choice([0, 0.5, 2])) as scope:
                    delivery = await events.receive()
                    roll.take(delivery)
                    if isinstance(delivery, Batch):
                        offsets += [entry.offset for entry in delivery.entries]
                if scope.cancelled_caught and patient:
                    assert roll.listed
                    assert offsets == list(range(1, committed_tail(log, "s") + 1))
                    return
                if random.random() < 0.3 and not quiet.is_set():
                    await trio.sleep(random.choice([1, 5]))


@settings(max_examples=examples(60))
@given(st.integers(0, 2**32), st.integers(1, 6))
def test_whatever_the_schedule_a_readers_list_comes_to_be_the_sessions(seed: int, buffer: int) -> None:
    async def run() -> None:
        random = Random(seed)
        log = MemoryLog()
        config = Config(subscriber_buffer=buffer, presence_ttl=10)
        async with open_engine(log, config=config) as engine:
            session = await engine.create_session("s")
            rolls = [Roll() for _ in range(3)]
            quiet = trio.Event()
            async with trio.open_nursery() as nursery:
                for roll in rolls:
                    nursery.start_soon(follow, random, session, roll, log, quiet)
                for _ in range(60):
                    await act(random, session)
                for here in await session.presence():  # for longer than the readers take
                    await session.put_presence(here.actor_id, here.device_id, status=here.status)
                quiet.set()
            for roll in rolls:
                assert tuple(roll.here.values()) == await session.presence()
        head = await log.head("s")
        assert head is not None
        entries = await log.read("s", head.epoch, after=0, limit=1000, max_bytes=1 << 20)
        assert all(decode(entry.body).type != "presence.changed" for entry in entries)

    trio.run(run, clock=trio.testing.MockClock(autojump_threshold=0))


async def test_a_session_that_nobody_is_in_any_more_rests_at_once(
    log: MemoryLog, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_engine(log, config=Config(idle_session=5, presence_ttl=60)) as engine:
        session = await engine.create_session("s")
        await session.put_presence("ann", "phone")
        await session.drop_presence("ann")
        await session.put_presence("ann", "laptop")  # before the first clock has begun to run
        await trio.sleep(10)
        assert engine.statistics().sessions == 1
        await session.drop_presence("ann", "laptop")
        await trio.sleep(6)
        assert engine.statistics().sessions == 0
        await session.put_presence("ann", "phone")
        await trio.sleep(59)
        assert await session.presence() == (present("ann", "phone"),)
        await trio.sleep(2)
        assert await session.presence() == ()
