"""The room in the log: nobody waits while there is some, whoever leaves; and a session's own is used evenly."""

from __future__ import annotations

import trio
import trio.testing

from engine import Config, Generation, open_engine
from engine.journal import Budget
from engine.log import MemoryLog
from engine.log.port import Append, Write
from tests.engine.faulty import FaultyLog, Hold


async def test_room_is_given_out_as_it_comes_and_never_twice() -> None:
    budget = Budget(4, 4)
    budget.take(4)
    got: list[int] = []

    async def wait(number: int, count: int) -> None:
        await budget.wait_room()
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
            await budget.wait_room()
            await trio.sleep_forever()  # has been called, and takes nothing

    async def stay() -> None:
        await budget.wait_room()
        reached.append("room")

    async def cancelled() -> None:
        with trio.CancelScope() as scope:
            scope.cancel()
            await budget.wait_room()

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
        await budget.wait_room()
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
            if not budget.full:
                budget.take(budget.limit - budget.used)
            turns += 1
            assert turns < 40, f"{len(served)} of 100 were served"


async def test_those_who_are_woken_and_want_nothing_keep_nobody_waiting() -> None:
    budget = Budget(8, 4)
    budget.take(8)
    gone = 0

    async def wait() -> None:
        nonlocal gone
        await budget.wait_room()
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
