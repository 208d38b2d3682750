"""Pages of the log that many read at the same time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final, final

import pytest
import trio
import trio.testing

from penstock.engine import (
    Batch,
    Config,
    Cursor,
    Ended,
    Entry,
    MemoryLog,
    Session,
    SessionDeleted,
    StorageError,
    open_engine,
)
from tests.engine.producers import saying

PAGE: Final = 8
READERS: Final = 20


@final
class Reads:
    """What is read of a log; and reads that wait, or fail."""

    def __init__(self, log: MemoryLog, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reads: list[tuple[int, int]] = []
        self.held: trio.Event | None = None
        self.broken = False
        self._read = log.read
        monkeypatch.setattr(log, "read", self.read)

    async def read(self, session_id: str, epoch: str, *, after: int, limit: int, max_bytes: int) -> list[Entry]:
        self.reads.append((after, limit))
        if self.held is not None:
            await self.held.wait()
        if self.broken:
            raise StorageError("a broken disk")
        return await self._read(session_id, epoch, after=after, limit=limit, max_bytes=max_bytes)


@pytest.fixture
async def answer(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Session, int, Reads]]:
    """A session with an answer of some pages, its tail, and what is read from here on."""
    log = MemoryLog()
    reads = Reads(log, monkeypatch)
    async with open_engine(log, config=Config(page_events=PAGE)) as engine:
        session = await engine.create_session("s")
        tail = await answered(session)
        assert tail > 5 * PAGE
        reads.reads.clear()
        yield session, tail, reads


async def answered(session: Session) -> int:
    """Write an answer of some pages; the tail behind it."""
    async with session.subscribe() as subscription:
        await session.start(saying(*"a few more words than one page holds, and then some"))
        async for event in subscription:
            if event.type == "generation.finished":
                assert event.offset is not None
                return event.offset
    raise AssertionError("the session ended")


async def batches(session: Session, after: int) -> list[Batch]:
    cursor = await session.cursor()
    found: list[Batch] = []
    async with session.subscribe(Cursor(cursor.epoch, after), live=False) as subscription:
        while True:
            try:
                delivery = await subscription.receive()
            except trio.EndOfChannel:
                return found
            if isinstance(delivery, Batch):
                found.append(delivery)


async def test_readers_side_by_side_share_pages_wherever_they_begin(answer: tuple[Session, int, Reads]) -> None:
    session, tail, reads = answer
    found: dict[int, list[Batch]] = {}

    async def read(after: int) -> None:
        found[after] = await batches(session, after)

    async with trio.open_nursery() as nursery:
        for after in range(READERS):
            nursery.start_soon(read, after)
    for after, pages in found.items():
        assert [entry.offset for page in pages for entry in page.entries] == list(range(after + 1, tail + 1))
    # Each place is read once; all pages but a reader's first are at the same places for all.
    assert len(reads.reads) == len(set(reads.reads))
    later = [page for pages in found.values() for page in pages[1:]]
    assert {page.first % PAGE for page in later} == {1}
    assert len({id(page) for page in later}) == len({page.first for page in later})


async def test_a_reader_that_leaves_keeps_nobody_from_the_page(answer: tuple[Session, int, Reads]) -> None:
    session, tail, reads = answer
    reads.held = trio.Event()
    found: list[list[Batch]] = []

    async def read(task_status: trio.TaskStatus[trio.CancelScope]) -> None:
        with trio.CancelScope() as scope:
            task_status.started(scope)
            found.append(await batches(session, 0))

    async with trio.open_nursery() as nursery:
        first = await nursery.start(read)
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(3):
            await nursery.start(read)
        await trio.testing.wait_all_tasks_blocked()
        assert reads.reads == [(0, PAGE)]
        first.cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert reads.reads == [(0, PAGE)] * 2, "one of those who waited reads it now"
        reads.held.set()
    assert [sum(len(page) for page in pages) for pages in found] == [tail] * 3


async def test_a_page_that_cannot_be_read_is_every_readers_error(answer: tuple[Session, int, Reads]) -> None:
    session, _, reads = answer
    reads.broken = True
    failed = 0

    async def read() -> None:
        nonlocal failed
        with pytest.raises(StorageError):
            await batches(session, 0)
        failed += 1

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(read)
    assert failed == 3
    reads.broken = False


async def test_of_a_deleted_session_no_page_is_given(answer: tuple[Session, int, Reads]) -> None:
    session, _, _ = answer
    async with session.subscribe() as first, session.subscribe() as second:
        while not isinstance(await first.receive(), Batch):
            pass
        await second.receive()
        await session.delete()
        assert await second.receive() == Ended("deleted")
    with pytest.raises(SessionDeleted):
        await session.cursor()
