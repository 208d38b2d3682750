"""Replay, then tail, with no seam: whatever the schedule, what readers got is the log, byte for byte."""

from __future__ import annotations

import contextlib
import itertools
from collections import deque
from random import Random
from typing import Final, final

import pytest
import trio
import trio.testing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.engine import (
    Batch,
    Block,
    CaughtUp,
    Config,
    Cursor,
    Degraded,
    Delivery,
    Drained,
    Ended,
    Engine,
    Entry,
    Gap,
    Generation,
    MemoryLog,
    Message,
    Opened,
    PresenceListed,
    Present,
    Session,
    SessionState,
    Snapshot,
    SnapshotPage,
    SnapshotTaken,
    Subscription,
    decode,
    open_engine,
)
from penstock.engine.stream.hub import Hub, Lagged, Mailbox
from penstock.engine.stream.seam import Seam, seam
from tests.engine.faulty import FaultyLog, Hold
from tests.engine.rules import assert_rules
from tests.engine.slow import SlowLog, turns
from tests.engine.watching import committed_tail
from tests.extent import examples

# --- the decision


# R-57 R-141
@given(st.integers(0, 9), st.integers(1, 9), st.integers(1, 5))
def test_the_seam_gives_a_reader_exactly_what_is_new_and_nothing_past_a_hole(
    position: int, first: int, count: int
) -> None:
    last = first + count - 1
    new = [offset for offset in range(first, last + 1) if offset > position]
    expected = {
        Seam.SEEN: not new,
        Seam.NEXT: new == list(range(first, last + 1)) and first == position + 1,
        Seam.OVERLAP: 0 < len(new) < count,
        Seam.HOLE: len(new) == count and first > position + 1,
    }
    assert [kind for kind, holds in expected.items() if holds] == [seam(position, first, last)]


# --- the mailbox


def batch(first: int, count: int = 1) -> Batch:
    return Batch("s", "e", [Entry(offset, b"{}") for offset in range(first, first + count)])


# R-57 R-141
async def test_a_mailbox_that_overflows_before_its_reader_ran_says_so() -> None:
    mailbox = Mailbox(1)
    got: list[object] = []

    async def read() -> None:
        while len(got) < 2:
            got.append(await mailbox.receive())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        first = batch(1)
        mailbox.put(first)  # handed to the reader, who has not run yet
        mailbox.put(batch(2))
    assert got == [first, Lagged()]


# R-57 R-141
@pytest.mark.parametrize("bound", [1, 2, 3])
async def test_notices_find_room_in_a_mailbox_that_lags(bound: int) -> None:
    hub = Hub(bound)
    mailbox = hub.register()
    for offset in range(1, bound + 2):
        hub.publish(batch(offset))
    for _ in range(2 * bound + 2):
        hub.degrade(Degraded("WRITE_FAILED"))
        hub.recover()
        hub.overflow()
    hub.degrade(Degraded("WRITE_FAILED"))
    hub.close(Drained("shutdown"))
    got: list[object] = []
    with contextlib.suppress(trio.EndOfChannel):
        while True:
            got.append(await mailbox.receive())
    assert got.count(Lagged()) == 1
    assert got[-1] == Degraded("WRITE_FAILED")
    assert not any(isinstance(item, Batch) for item in got)


@given(st.lists(st.integers(0, 5), max_size=40), st.integers(1, 4))
def test_a_mailbox_holds_no_more_than_its_bound_and_lags_rather_than_lose(steps: list[int], bound: int) -> None:
    async def run() -> None:
        mailbox = Mailbox(bound)
        offset = 0
        position = 0  # everything up to here was received, or is to be read in the log
        for step in steps:
            if step < 3:
                mailbox.put(batch(offset + 1, step + 1))
                offset += step + 1
            elif step == 3:
                mailbox.overflow()
            else:
                try:
                    mail = mailbox._receive.receive_nowait()
                except trio.WouldBlock:
                    assert position == offset
                    continue
                mailbox._take(mail)
                if isinstance(mail, Lagged):
                    mailbox.rearm()
                    position = offset
                else:
                    assert isinstance(mail, Batch)
                    assert mail.first == position + 1
                    position = mail.last
            waiting = mailbox._receive.statistics().current_buffer_used
            assert waiting <= bound + 1

    trio.run(run)


# --- random schedules


@final
class Reader:
    """A client: resumes from what it has, and keeps what it got. One that ``drains`` takes what else is there, too."""

    def __init__(self, log: MemoryLog, *, live: bool, snapshot: bool, drains: bool) -> None:
        self._drains = drains
        self._log = log
        self._live = live
        self._snapshot = snapshot
        self.begin = 0
        self.entries: list[Entry] = []
        self.snapshots: list[Snapshot] = []
        self.subscription: Subscription | None = None
        self._opened: Cursor | None = None
        self._caught_up = False
        self.over = False

    @property
    def position(self) -> int:
        return self.entries[-1].offset if self.entries else self.begin

    async def restart(self, offset: int) -> None:
        """Begin anew, from any offset."""
        await self.leave()
        self.begin, self.entries = offset, []

    async def join(self, session: Session) -> None:
        await self.leave()
        epoch = (await session.cursor()).epoch
        after = Cursor(epoch, self.position)
        # What `Session.subscribe` does, without its block.
        self._context = session.subscribe(after, live=self._live, snapshot=self._snapshot)
        self.subscription = await self._context.__aenter__()

    async def leave(self) -> None:
        if self.subscription is not None:
            await self._context.__aexit__(None, None, None)
        self.subscription, self._opened, self._caught_up, self.over = None, None, False, False

    async def receive(self, patience: int) -> None:
        """Receive once, giving up after so many turns of the loop."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(cancel_after, patience, nursery.cancel_scope)
            await self._receive(1 + patience % 3)
            nursery.cancel_scope.cancel()

    async def _receive(self, most: int = 1) -> None:
        """One delivery; with ``drains``, up to so many of those that are there."""
        assert self.subscription is not None
        if self.over:
            return
        try:
            self._take(await self.subscription.receive())
        except trio.EndOfChannel:
            self.over = True
            assert self._caught_up, "the end came before the tail was told"
            return
        for _ in range(most - 1 if self._drains else 0):
            if (delivery := self.subscription.receive_ready()) is None:
                return
            self._take(delivery)

    def _take(self, delivery: Delivery) -> None:
        match delivery:
            case Opened(cursor):
                assert self._opened is None
                assert cursor.offset == self.position or self._snapshot
                self._opened = cursor
            case Batch():
                assert self._opened is not None
                assert not self._snapshot or (self.snapshots and self.snapshots[-1].cursor == self._opened)
                assert delivery.last <= committed_tail(self._log, "s")
                for entry in delivery.entries:
                    assert entry.offset == self.position + 1, f"{entry.offset} behind {self.position}"
                    self.entries.append(entry)
            case CaughtUp(cursor):
                assert cursor.offset == self.position
                assert not self._snapshot or (self.snapshots and self.snapshots[-1].cursor == self._opened)
                self._caught_up = True
            case PresenceListed(present):
                assert self._caught_up
                assert present == ()
            case SnapshotTaken(snapshot):
                assert snapshot.cursor == self._opened
                self.snapshots.append(snapshot)
                self.begin, self.entries = snapshot.cursor.offset, []
            case _:
                raise AssertionError(delivery)

    async def catch_up(self, session: Session) -> None:
        """Read on until the committed tail."""
        tail = (await session.cursor()).offset
        async with trio.open_nursery() as nursery:
            nursery.start_soon(cancel_after, 40 * tail + 500, nursery.cancel_scope)
            while self.position < tail:
                if self.subscription is None or self.over:
                    await self.join(session)
                await self._receive()
            nursery.cancel_scope.cancel()
        assert self.position == tail


async def cancel_after(count: int, scope: trio.CancelScope) -> None:
    await turns(count)
    scope.cancel()


class Writer:
    """Writes to the session as a producer and as a client."""

    def __init__(self, engine: Engine, session: Session) -> None:
        self._engine = engine
        self._session = session
        self._generation: Generation | None = None
        self._message: Message | None = None
        self._block: Block | None = None
        self._numbers = itertools.count()

    async def _produce(self, generation: Generation) -> None:
        self._generation = generation
        await trio.sleep_forever()

    async def write(self, count: int) -> None:
        if self._block is None:
            await self._session.start(self._produce)
            while self._generation is None:
                await trio.lowlevel.checkpoint()
            self._message = self._generation.message()
            await self._message.__aenter__()
            self._block = self._message.text()
            await self._block.__aenter__()
        for _ in range(count):
            await self._block.write(f"{next(self._numbers)} ")

    async def end(self) -> None:
        await self._session.stop()
        self._generation = self._message = self._block = None


IDLE = 10.0


# How often each step of a schedule is taken, before the schedule makes its own taste of it.
STEPS: Final = {"write": 6.0, "post": 2.0, "turns": 3.0, "receive": 20.0, "leave": 0.7, "restart": 0.4, "evict": 0.1}


def run_schedule(seed: int, *, buffer: int, page: int, variants: list[tuple[bool, bool]]) -> None:
    random = Random(seed)
    log = SlowLog()
    clock = trio.testing.MockClock()
    readers = [
        Reader(log.inner, live=live, snapshot=snapshot, drains=drains)
        for live, snapshot in variants
        for drains in (False, True)
    ]
    config = Config(subscriber_buffer=buffer, page_events=page, idle_session=IDLE)
    taste = [often * random.random() for often in STEPS.values()]
    patience = random.choice((2, 8, 30))
    steps = random.choices(list(STEPS), taste, k=random.randrange(20, 100))

    async def drive() -> None:
        async with open_engine(log, config=config) as engine:
            session = await engine.create_session("s")
            writer = Writer(engine, session)
            log.turns = deque(random.randrange(4) for _ in range(random.randrange(1, 9)))
            async with trio.open_nursery() as nursery:
                for step in steps:
                    reader = random.choice(readers)
                    match step:
                        case "write":
                            await writer.write(random.randrange(1, 5))
                        case "post":
                            nursery.start_soon(session.post, "p")
                        case "turns":
                            await turns(random.randrange(6))
                        case "receive":
                            if reader.subscription is None:
                                await reader.join(session)
                            await reader.receive(random.randrange(patience))
                        case "leave":
                            await reader.leave()
                        case "restart":
                            await reader.restart(random.randrange((await session.cursor()).offset + 1))
                        case _:
                            await writer.end()
                            for each in readers:
                                await each.leave()
                            await trio.testing.wait_all_tasks_blocked()
                            clock.jump(IDLE + 1)
                            await trio.testing.wait_all_tasks_blocked()
                            assert engine.statistics().sessions == 0
            await writer.end()
            for reader in readers:
                await reader.catch_up(session)
            assert engine.statistics().pending_events == 0
            for reader in readers:
                await reader.leave()

    trio.run(drive, clock=clock)
    life = log.inner._lives["s"]
    for reader in readers:
        assert reader.entries == [entry for entry in life.entries if entry.offset > reader.begin]
        for snapshot in reader.snapshots:
            assert_folds_to_the_same(life.entries, snapshot, life.standing.epoch)


def assert_folds_to_the_same(entries: list[Entry], snapshot: Snapshot, epoch: str) -> None:
    """R7: a snapshot is the fold up to its cursor, and what follows it leads to the fold of everything."""
    whole = SessionState("s", epoch)
    resumed: SessionState | None = None
    for entry in entries:
        if entry.offset == snapshot.cursor.offset + 1:
            assert whole.snapshot() == snapshot
            resumed = SessionState.from_snapshot(snapshot)
        event = decode(entry.body)
        whole.apply(event)
        if resumed is not None:
            resumed.apply(event)
    if resumed is not None:
        assert resumed.snapshot() == whole.snapshot()
    else:
        assert whole.snapshot() == snapshot


# Hypothesis alone prefers short and simple schedules, and the interesting ones are neither: it draws seeds.
many = settings(max_examples=examples(800), deadline=None, suppress_health_check=list(HealthCheck))
seeds: Final = st.integers(0, 2**32)


# R-57 R-141 R-142
@many
@given(seeds, st.integers(1, 3), st.integers(1, 3))
def test_over_any_schedule_readers_get_the_log(seed: int, buffer: int, page: int) -> None:
    run_schedule(seed, buffer=buffer, page=page, variants=[(True, False), (True, False)])


# R-57 R-141 R-142
@settings(many, max_examples=examples(300))
@given(seeds, st.integers(1, 3), st.integers(1, 3))
def test_over_any_schedule_snapshots_and_finite_reads_lead_to_the_same(seed: int, buffer: int, page: int) -> None:
    run_schedule(seed, buffer=buffer, page=page, variants=[(False, False), (True, True), (False, True)])


# --- what the log and the tail leave between them


@final
class Ledger:
    """A source that publishes what it is told to, whatever its log holds."""

    def __init__(self, stored: int) -> None:
        self.session_id = "s"
        self.hub = Hub(100)
        self.stored = stored
        self.reads = 0
        self.present: tuple[Present, ...] = ()

    @property
    def cursor(self) -> Cursor:
        return Cursor("e", self.stored)

    async def page(self, after: int) -> Batch | None:
        await trio.lowlevel.checkpoint()
        self.reads += 1
        return batch(after + 1, self.stored - after) if after < self.stored else None

    async def snapshot_page(self, limit: int | None = None, *, with_open: bool) -> SnapshotPage:
        raise NotImplementedError


async def drain(subscription: Subscription) -> list[int]:
    offsets: list[int] = []
    with trio.move_on_after(1):
        while True:
            delivery = await subscription.receive()
            if isinstance(delivery, Batch):
                offsets += [entry.offset for entry in delivery.entries]
    return offsets


@pytest.mark.parametrize(
    ("published", "stored"),
    [
        ([(2, 3)], 5),  # seen
        ([(3, 4), (7, 1)], 7),  # across the position
        ([(9, 2)], 10),  # a hole before it
        ([(6, 1), (9, 2), (7, 2)], 10),  # out of order
        ([(1, 10)], 10),
    ],
)
async def test_whatever_is_published_a_reader_gets_each_event_once(
    published: list[tuple[int, int]], stored: int, autojump_clock: trio.testing.MockClock
) -> None:
    source = Ledger(5)
    async with Subscription(source, None, from_tail=False, live=True, snapshot=False) as subscription:
        assert await drain(subscription) == [1, 2, 3, 4, 5]
        source.stored = stored
        for first, count in published:
            source.hub.publish(batch(first, count))
        assert await drain(subscription) == list(range(6, stored + 1))


# --- what cannot be given


async def test_a_cursor_that_cannot_be_given_is_told_as_a_gap(
    log: MemoryLog, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        await session.post("a")
        here = await session.cursor()
        for asked, reason, resumed in (
            (Cursor("0123", 1), "unknown_epoch", 0),
            (Cursor(here.epoch, 99), "past_tail", here.offset),
        ):
            async with session.subscribe(asked, live=False) as subscription:
                assert isinstance(await subscription.receive(), Opened)
                gap = await subscription.receive()
                assert gap == Gap(reason, str(asked), Cursor(here.epoch, resumed))
                rest = [d async for d in deliveries(subscription)]
                assert rest[-2:] == [CaughtUp(here), PresenceListed(())]
                assert sum(len(d) for d in rest if isinstance(d, Batch)) == here.offset - resumed


async def deliveries(subscription: Subscription):  # type: ignore[no-untyped-def]
    while True:
        try:
            delivery = await subscription.receive()
        except trio.EndOfChannel:
            return
        yield delivery


@pytest.mark.parametrize("snapshot", [False, True])
@pytest.mark.parametrize("live", [False, True])
async def test_a_reader_of_a_session_that_is_deleted_gets_the_end(
    snapshot: bool, live: bool, log: MemoryLog, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        await session.post("a")
        async with session.subscribe(live=live, snapshot=snapshot) as subscription:
            await session.delete()
            rest = [d async for d in deliveries(subscription)]
            assert isinstance(rest[-1], Ended)


async def test_a_reader_does_not_see_what_has_not_been_reported(autojump_clock: trio.testing.MockClock) -> None:
    memory = MemoryLog()
    hold = Hold(stored=True)
    log = FaultyLog(memory)
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        log.schedule = lambda number, write: hold
        async with trio.open_nursery() as nursery:
            nursery.start_soon(session.post, "stored, not reported")
            await trio.testing.wait_all_tasks_blocked()
            assert committed_tail(memory, "s") == 2
            async with session.subscribe(live=False) as subscription:
                seen = [d async for d in deliveries(subscription)]
            assert sum(len(d) for d in seen if isinstance(d, Batch)) == 1
            assert CaughtUp(await session.cursor()) in seen
            assert len((await session.snapshot()).messages) == 0
            hold.release()
    await assert_rules(memory, closed=True)


@pytest.mark.parametrize("snapshot", [False, True])
@pytest.mark.parametrize("live", [False, True])
async def test_a_receive_that_is_cancelled_at_once_takes_nothing_away(
    live: bool, snapshot: bool, log: MemoryLog, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_engine(log, config=Config(page_events=2)) as engine:
        session = await engine.create_session("s")
        for text in "abcde":
            await session.post(text)
        kinds: list[list[str]] = []
        for cancelled in (0, 1, 3):
            async with session.subscribe(live=live, snapshot=snapshot) as subscription:
                got: list[str] = []
                while "CaughtUp" not in got:
                    for _ in range(cancelled):
                        with trio.CancelScope() as scope:
                            scope.cancel()
                            got.append(type(await subscription.receive()).__name__)
                    got.append(type(await subscription.receive()).__name__)
                kinds.append(got)
        assert kinds[0] == kinds[1] == kinds[2]


async def test_a_mailbox_is_bounded_in_bytes_too() -> None:
    mailbox = Mailbox(100, most=10)
    big = Batch("s", "e", [Entry(1, b"x" * 50)])
    mailbox.put(big)  # larger than the bound, and alone: taken
    mailbox.put(Batch("s", "e", [Entry(2, b"x")]))
    assert mailbox.lagged
    assert isinstance(await mailbox.receive(), Lagged)
    mailbox.rearm()
    mailbox.put(Batch("s", "e", [Entry(3, b"x" * 10)]))
    assert not mailbox.lagged


async def test_what_has_gathered_at_the_tail_is_received_without_a_wait(autojump_clock: trio.testing.MockClock) -> None:
    ledger = Ledger(0)

    def publish(offset: int) -> None:
        ledger.stored = offset
        ledger.hub.publish(batch(offset))

    async with Subscription(ledger, None, from_tail=True, live=True, snapshot=False) as reader:
        assert reader.receive_ready() is None, "it has not been told where it stands"
        while not isinstance(await reader.receive(), PresenceListed):
            assert reader.receive_ready() is None
        assert reader.receive_ready() is None
        for offset in (1, 2, 3):
            publish(offset)
        assert [getattr(reader.receive_ready(), "last", None) for _ in range(4)] == [1, 2, 3, None]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reader.receive)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(trio.BusyResourceError):
                reader.receive_ready()
            nursery.cancel_scope.cancel()
        publish(4)
        reader.close()
        assert reader.receive_ready() is None


READERS: Final = ("receive", "iterate", "drain")


async def read_on(subscription: Subscription, how: str, got: list[str]) -> None:
    """Read until there is no more."""
    with contextlib.suppress(trio.EndOfChannel):
        if how == "iterate":
            async for event in subscription:
                got += (event.type,)
        while True:
            delivery: Delivery | None = await subscription.receive()
            while delivery is not None:
                got.append(type(delivery).__name__)
                delivery = subscription.receive_ready() if how == "drain" else None


@pytest.mark.parametrize("how", READERS)
@pytest.mark.parametrize("snapshot", [False, True])
@pytest.mark.parametrize("turns_before", [0, 1, 2, 3, 5, 8, 13, 21, 34])
async def test_close_wakes_whoever_reads_and_nothing_is_delivered_any_more(
    how: str, snapshot: bool, turns_before: int, autojump_clock: trio.testing.MockClock
) -> None:
    """Wherever the reader is: in a read of the log, between two deliveries, at the tail."""
    log = SlowLog()
    log.turns = deque([3])
    async with open_engine(log, config=Config(page_events=2)) as engine:
        session = await engine.create_session("s")
        for text in "abc":
            await session.post(text)
        got: list[str] = []
        async with session.subscribe(snapshot=snapshot) as subscription:
            with trio.fail_after(5):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(read_on, subscription, how, got)
                    for _ in range(turns_before):
                        await trio.lowlevel.checkpoint()
                    subscription.close()
                    seen = list(got)
                    await session.post("d")
            assert got == seen
            assert "Ended" not in got
            with pytest.raises(trio.EndOfChannel):
                await subscription.receive()
            assert engine.statistics().subscribers == 0


@pytest.mark.parametrize("second", READERS)
@pytest.mark.parametrize("first", READERS)
async def test_two_tasks_cannot_read_one_subscription(
    first: str, second: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_engine(MemoryLog()) as engine:
        session = await engine.create_session("s")
        async with session.subscribe() as subscription:
            got: list[str] = []
            async with trio.open_nursery() as nursery:
                nursery.start_soon(read_on, subscription, first, got)
                await trio.testing.wait_all_tasks_blocked()
                with pytest.raises(trio.BusyResourceError):
                    await read_on(subscription, second, [])
                before = len(got)
                await session.post("a")  # the first one reads on
                await trio.testing.wait_all_tasks_blocked()
                assert len(got) == before + 1
                nursery.cancel_scope.cancel()
            await session.post("b")
            await read_on_once(subscription)  # and when it has left, another one may


async def read_on_once(subscription: Subscription) -> None:
    with trio.fail_after(5):
        assert isinstance(await subscription.receive(), Batch)
