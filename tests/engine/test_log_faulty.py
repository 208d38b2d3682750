"""The faulty log of the tests must itself be right: it fails what it is told to, and never lies."""

from __future__ import annotations

import pytest
import trio

from penstock.engine.errors import PenstockError, StaleEpoch, StorageError, WriteFailed
from penstock.engine.log import MemoryLog, Write
from tests.engine.faulty import Fail, Fault, FaultyLog, Hold
from tests.engine.writes import append, bodies, create, kinds, outcomes, store


async def test_a_failed_write_is_not_stored_and_others_are() -> None:
    log = FaultyLog(MemoryLog(), lambda number, write: Fail() if write.session_id == "b" else None)
    errors = await outcomes(log, create(b"1", of="a"), create(b"1", of="b"), create(b"1", of="c"))
    assert [error is None for error in errors] == [True, False, True]
    assert isinstance(errors[1], WriteFailed)
    assert not errors[1].whole
    assert await log.head("b") is None
    assert log.statistics().failed_writes == 1
    log.schedule = None
    await store(log, create(b"1", of="b"))


async def test_the_schedule_counts_from_zero() -> None:
    log = FaultyLog(MemoryLog(), lambda number, write: Fail(whole=True) if number == 1 else None)
    assert await kinds(log, create(b"1"), append(b"x", tail=1), append(b"x", tail=2), append(b"2", tail=1)) == [
        None,
        WriteFailed,
        StaleEpoch,
        None,
    ]
    assert await bodies(log) == [b"1", b"2"]


@pytest.mark.parametrize("stored", [False, True])
async def test_a_held_write_holds_up_its_own_session_only(stored: bool) -> None:
    hold = Hold(stored=stored)

    def schedule(number: int, write: Write) -> Fault | None:
        return hold if number == 1 else None

    log = FaultyLog(MemoryLog(), schedule)
    seen: list[str] = []
    for name, tail in (("a", 0), ("b", 0), ("b", 1), ("a", 1), ("b", 2)):

        def report(error: PenstockError | None, name: str = f"{name}{tail}") -> None:
            assert error is None
            seen.append(name)

        log.submit(append(b"%d" % tail, to=name, tail=tail, create=tail == 0), report)
    await trio.testing.wait_all_tasks_blocked()
    assert seen == ["a0", "a1"]
    assert len(hold) == 1
    assert (await log.head("b") is not None) == stored
    assert log.statistics().waiting == 3
    hold.release()
    await trio.testing.wait_all_tasks_blocked()
    assert seen == ["a0", "a1", "b0", "b1", "b2"]
    assert await bodies(log, "b") == [b"0", b"1", b"2"]


async def test_closing_lets_go_what_is_held() -> None:
    hold = Hold()
    log = FaultyLog(MemoryLog(), lambda number, write: hold)
    seen: list[PenstockError | None] = []
    for tail in range(3):
        log.submit(append(b"x", tail=tail, create=tail == 0), seen.append)
    await log.aclose()
    assert seen == [None, None, None]


async def test_reads_fail_when_told_to() -> None:
    log = FaultyLog(MemoryLog())
    await store(log, create(b"1"))
    log.fail_reads = True
    with pytest.raises(StorageError):
        await log.head("s")
    log.fail_reads = False
    assert await bodies(log) == [b"1"]
