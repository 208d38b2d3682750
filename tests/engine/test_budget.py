"""The room in the log, in events and in bytes: nobody waits while there is some, whoever leaves; and a session's own is
used evenly.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Final

import trio
import trio.testing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from penstock.engine import Config, Generation, Producer, open_engine
from penstock.engine.log import MemoryLog
from penstock.engine.log.port import Append, Write
from penstock.engine.stream.budget import Budget
from tests.engine.faulty import FaultyLog, Hold
from tests.extent import examples


async def test_room_is_given_out_as_it_comes_and_never_twice() -> None:
    budget = Budget(4, 4)
    budget.take(4)
    got: list[int] = []

    async def wait(number: int, count: int) -> None:
        await budget.lines[False].wait_room()
        budget.take(count)
        got.append(number)

    async with trio.open_nursery() as nursery:
        for number, count in enumerate((1, 1, 2, 1, 1)):
            nursery.start_soon(wait, number, count)
            await trio.testing.wait_all_tasks_blocked()
        budget.give_back(4)
        await trio.testing.wait_all_tasks_blocked()
        assert got == [0, 1, 2]
        assert budget.used == 4
        budget.give_back(1)
        await trio.testing.wait_all_tasks_blocked()
        assert len(got) == 4
        budget.give_back(3)
    assert sorted(got) == [0, 1, 2, 3, 4]


async def test_one_that_leaves_without_using_the_room_hands_it_on() -> None:
    budget = Budget(1, 4)
    budget.take(1)
    left = trio.CancelScope()
    reached: list[str] = []

    async def leave() -> None:
        with left:
            await budget.lines[False].wait_room()
            await trio.sleep_forever()  # has been called, and takes nothing

    async def stay() -> None:
        await budget.lines[False].wait_room()
        reached.append("room")

    async def cancelled() -> None:
        with trio.CancelScope() as scope:
            scope.cancel()
            await budget.lines[False].wait_room()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(leave)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(cancelled)
        nursery.start_soon(stay)
        await trio.testing.wait_all_tasks_blocked()
        budget.give_back(1)
        left.cancel()  # in the same turn: woken and cancelled at once
    assert reached == ["room"]


async def test_those_who_wait_are_not_left_behind_by_those_who_come_newly() -> None:
    budget = Budget(64, 4)
    budget.take(64)
    served: list[int] = []

    async def wait(number: int) -> None:
        await budget.lines[False].wait_room()
        budget.take(1)
        served.append(number)

    async with trio.open_nursery() as nursery:
        for number in range(100):
            nursery.start_soon(wait, number)
            await trio.testing.wait_all_tasks_blocked()
        turns = 0
        while len(served) < 100:
            budget.give_back(32)
            # Whoever comes in this turn takes all that is not promised: a commit's worth and more.
            await trio.lowlevel.checkpoint()
            if budget.used < budget.limit:
                budget.take(budget.limit - budget.used)
            turns += 1
            assert turns < 40, f"{len(served)} of 100 were served"


async def test_those_who_are_woken_and_want_nothing_keep_nobody_waiting() -> None:
    budget = Budget(8, 4)
    budget.take(8)
    gone = 0

    async def wait() -> None:
        nonlocal gone
        await budget.lines[False].wait_room()
        gone += 1

    async with trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        budget.give_back(8)  # and nothing is ever given back again
    assert gone == 50


async def test_a_producer_at_full_speed_writes_evenly() -> None:
    under_way: list[Hold] = []
    done = False

    def hold(_number: int, write: Write) -> Hold | None:
        if not isinstance(write, Append):
            return None
        under_way.append(Hold())
        return under_way[-1]

    async def producer(generation: Generation) -> None:
        nonlocal done
        async with generation.message() as message, message.text() as block:
            log.schedule = hold
            for n in range(1000):
                await block.write(f"{n} ")
            log.schedule = None
        done = True

    log = FaultyLog(MemoryLog())
    async with open_engine(log, config=Config(session_pending=40, checkpoint_every=10_000)) as engine:
        session = await engine.create_session("s")
        await session.start(producer)
        while not done:
            await trio.testing.wait_all_tasks_blocked()
            while under_way:
                under_way.pop().release()
    sizes = [len(write.events) for write in log.writes if isinstance(write, Append)]
    assert max(sizes) == 20
    assert sizes.count(20) >= 49  # and not now one, now all that there is room for


async def test_those_with_large_events_leave_a_part_of_the_bytes_to_the_others() -> None:
    budget = Budget(1000, 4, most_bytes=400)
    got: list[str] = []

    async def wait(name: str, *, large: bool) -> None:
        await budget.lines[large].wait_room()
        got.append(name)

    async with trio.open_nursery() as nursery:
        budget.take(3, 400)
        nursery.start_soon(partial(wait, "large", large=True))
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(partial(wait, "small", large=False))
        await trio.testing.wait_all_tasks_blocked()
        assert got == []
        budget.give_back(1, 100)  # the last quarter
        await trio.testing.wait_all_tasks_blocked()
        assert got == ["small"]
        budget.give_back(1, 1)
        await trio.testing.wait_all_tasks_blocked()
        assert got == ["small", "large"]
        budget.give_back(1, 299)


# --- bytes

SESSION: Final = 4000
TOTAL: Final = 10_000
BOUNDS: Final = Config(session_pending_bytes=SESSION, total_pending_bytes=TOTAL, checkpoint_every=1)
# More than an event has beside its content.
STAMP: Final = 500


def writing(sizes: Sequence[int], gate: trio.Event) -> Producer:
    """A value of each size, then a text of each."""

    async def producer(generation: Generation) -> None:
        async with generation.message() as message, message.data() as data, message.text() as text:
            await gate.wait()
            for size in sizes:
                await data.put("x" * size)
            for size in sizes:
                await text.write("x" * size)

    return producer


@settings(max_examples=examples(100), deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.lists(st.one_of(st.integers(1, 50), st.integers(1, 9000)), max_size=12), min_size=1, max_size=6))
def test_what_is_pending_is_within_its_bounds_but_for_one_event(sessions: list[list[int]]) -> None:
    """Of one session and of all; and everything is written, also what is larger than a bound by itself."""
    largest = max((size for sizes in sessions for size in sizes), default=0) + STAMP
    closing = len(sessions) * 3 * STAMP  # what closes something waits for no room

    async def run() -> None:
        held: list[Hold] = []

        def hold(_number: int, _write: Write) -> Hold:
            held.append(Hold())
            return held[-1]

        log = FaultyLog(MemoryLog())
        async with open_engine(log, config=BOUNDS) as engine:
            gate = trio.Event()
            for number, sizes in enumerate(sessions):
                session = await engine.create_session(f"s{number}")
                await session.start(writing(sizes, gate))
            await trio.testing.wait_all_tasks_blocked()
            log.schedule = hold
            gate.set()
            await trio.testing.wait_all_tasks_blocked()
            while held:
                pending = engine.statistics().pending_bytes
                assert pending < min(TOTAL + largest, len(sessions) * (SESSION + largest)) + closing
                held.pop(0).release()
                await trio.testing.wait_all_tasks_blocked()
            log.schedule = None
            assert engine.statistics().pending_bytes == 0
            assert engine.statistics().live_generations == 0
        contents = [
            event for write in log.writes if isinstance(write, Append) for event in write.events if b"xx" in event
        ]
        assert len(contents) == 2 * sum(size > 1 for sizes in sessions for size in sizes)

    trio.run(run, clock=MockClock(autojump_threshold=0))


async def test_small_events_find_room_beside_any_number_of_sessions_with_large_ones() -> None:
    under_way: list[Hold] = []
    gate = trio.Event()

    def hold(_number: int, write: Write) -> Hold | None:
        if write.session_id == "small":
            return None
        under_way.append(Hold())
        return under_way[-1]

    log = FaultyLog(MemoryLog())
    config = Config(session_pending_bytes=200_000, total_pending_bytes=1_000_000)
    async with open_engine(log, config=config) as engine:
        small = await engine.create_session("small")
        for number in range(20):
            await (await engine.create_session(f"large-{number}")).start(writing([100_000] * 10, gate))
        log.schedule = hold
        gate.set()
        for _ in range(10):  # now it is known who writes large ones, and all are at it
            await trio.testing.wait_all_tasks_blocked()
            for held in under_way[: len(under_way) // 2]:
                held.release()
            del under_way[: len(under_way) // 2]
        await trio.testing.wait_all_tasks_blocked()
        before = engine.statistics().pending_bytes
        assert before >= 750_000  # they have all that they get
        with trio.fail_after(5):
            for number in range(100):
                await small.post(f"{number}")
        assert engine.statistics().pending_bytes == before
        log.schedule = None
        for held in under_way:
            held.release()
