"""What `MemoryLog` adds to the contract: no thread, no time."""

from __future__ import annotations

import threading

import trio
import trio.testing

from penstock.engine.log import MemoryLog
from tests.engine.writes import append, create, store


async def test_it_works_under_a_clock_that_jumps(autojump_clock: trio.testing.MockClock) -> None:
    log = MemoryLog()
    threads = threading.active_count()
    started = trio.current_time()
    with trio.fail_after(0.001):
        for tail in range(100):
            await store(log, append(b"x", tail=tail, create=tail == 0))
        assert len(await log.read("s", "e1", after=0, limit=100, max_bytes=100)) == 100
    assert trio.current_time() == started
    assert threading.active_count() == threads


async def test_all_writes_of_one_turn_are_one_commit() -> None:
    log = MemoryLog()
    await store(log, *(create(of=f"s{number}") for number in range(50)))
    assert log.statistics().commits == 1


async def test_reports_of_one_turn_come_behind_all_its_commits() -> None:
    log = MemoryLog()
    seen: list[int] = []
    for tail in range(3):
        log.submit(append(b"x", tail=tail, create=tail == 0), lambda _: seen.append(log.statistics().events))
    await trio.testing.wait_all_tasks_blocked()
    assert seen == [3, 3, 3]
