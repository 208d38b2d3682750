"""One log copied into another: all of it, over every pair of stores, also while the source is written to."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeAlias

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from penstock.engine import (
    Compactor,
    Config,
    EventLog,
    MemoryLog,
    Progress,
    copy_log,
    open_engine,
    open_sqlite_reader,
)
from penstock.engine.errors import StorageError, UnwritableDatabase
from penstock.engine.log import Entry
from penstock.engine.log.opening import open_log
from penstock.engine.log.port import BLOCK
from penstock.engine.rules.records import INCOMPLETE
from penstock.engine.testing import check_session
from tests.engine.faulty import Fail, FaultyLog
from tests.engine.living import begin, end_of
from tests.engine.postgres_server import PostgresServer
from tests.engine.producers import saying
from tests.engine.redis_server import RedisServer
from tests.engine.writes import append, bodies, claim, compact, create, delete, entries, head, keep, store

# What an engine may keep, by keys that it has.
KEYS = ["open", "queued", "dirty", "session/turn", "message/1", "message/2", "producer/a", "idempotency/k"]

KINDS = ["memory", "sqlite", "redis", "postgres"]

# Where there is nothing yet, in the store of a kind.
Places: TypeAlias = Callable[[str], str]


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Places:
    numbers = itertools.count()

    def made(kind: str) -> str:
        if kind == "redis":
            server: RedisServer = request.getfixturevalue("redis_server")
            return server.url(shards=4)
        if kind == "postgres":
            postgres: PostgresServer = request.getfixturevalue("postgres_server")
            return postgres.url()
        if kind == "memory":
            return ":memory:"
        return str(tmp_path / f"{next(numbers)}.db")

    return made


@asynccontextmanager
async def opened(at: str) -> AsyncIterator[EventLog]:
    log = await open_log(at)
    try:
        yield log
    finally:
        await log.aclose()


async def same(source: EventLog, copy: EventLog) -> None:
    """All that an engine asks of a log, but for owners."""
    heads = await source.heads(limit=1000)
    there = await copy.heads(limit=1000)
    assert [(each.session_id, each.epoch, each.tail, each.token, each.summary) for each in there] == [
        (each.session_id, each.epoch, each.tail, each.token, each.summary) for each in heads
    ]
    assert {each.owner for each in there} <= {""}
    ranked = [each.session_id for each in await source.ranked(limit=1000)]
    assert [each.session_id for each in await copy.ranked(limit=1000)] == ranked
    for each in heads:
        assert await entries(copy, each.session_id, each.epoch) == await entries(source, each.session_id, each.epoch)
        assert await copy.records(each.session_id, each.epoch) == await source.records(each.session_id, each.epoch)
    for key in ("open", "queued", "dirty"):
        assert await copy.holders(key) == await source.holders(key)


async def talk(log: EventLog) -> None:
    """What an engine leaves: sessions with a file and an answer, and one that was deleted."""
    async with open_engine(log, config=Config(compact_after=None)) as engine:
        for name in ("one", "two", "three"):
            session = await engine.create_session(name)
            await session.post(text=f"hello {name}")
            await session.keep_file(name.encode() * 100_000, media_type="text/plain")
            await end_of(session, await begin(session, saying(*(f"word {number} " for number in range(20)))))
        await (await engine.session("two")).delete()


@pytest.mark.parametrize(
    ("kind", "other"),
    [
        ("memory", "sqlite"),
        ("sqlite", "redis"),
        ("redis", "memory"),
        *(pytest.param(kind, other, marks=pytest.mark.long) for kind in KINDS for other in KINDS),
    ],
)
async def test_a_copy_is_what_the_source_is_whatever_stores_they_are(place: Places, kind: str, other: str) -> None:
    at = place(kind)
    async with opened(at) as source, opened(place(other)) as copy:
        await talk(source)
        await Compactor(source, Config(compact_after=0.0)).compact_all()
        await store(source, create(*[b"x" * 3000] * 900, of="long", token=BLOCK, owner="a", rank=5))
        gone = [compact("long", remove=list(range(2, 700)), replace={1: b"y"}), compact("long", remove=[900])]
        await store(source, *gone, claim("long", seen=BLOCK, owner="b"))
        read = await open_sqlite_reader(at) if kind == "sqlite" else source  # beside who writes to it
        told: list[Progress] = []
        done = await copy_log(read, copy, progress=told.append)
        await same(read, copy)
        assert (done.sessions, done.left_out) == (3, {})
        assert told[-1].done == told[-1].total > 900
        for each in await copy.heads():
            wrong = (await check_session(copy, each)).violations
            assert not wrong or each.session_id == "long"  # whose events are none
        if read is not source:
            await read.aclose()
        async with open_engine(copy) as engine:
            assert (await engine.session("one")).session_id == "one"


sessions = st.dictionaries(
    st.sampled_from(["a", "b", "c", "d"]),
    st.tuples(
        st.integers(0, 40),  # events
        st.sets(st.integers(1, 40)),  # offsets that are removed
        st.dictionaries(st.sampled_from(KEYS), st.binary(max_size=9).map(lambda each: b"{}" + each), max_size=5),
        st.sampled_from([None, -1, 0, 7]),
        st.sampled_from([1, 5, BLOCK, 3 * BLOCK + 7]),
    ),
)


@given(made=sessions, deleted=st.sets(st.sampled_from(["a", "b", "x"])))
def test_any_log_is_copied_as_it_is(
    made: dict[str, tuple[int, set[int], dict[str, bytes], int | None, int]], deleted: set[str]
) -> None:
    async def run() -> None:
        source, copy = MemoryLog(), MemoryLog()
        for name in sorted(deleted):  # what a life before has left
            await store(source, create(b"1", of=name, epoch="e0", token=1), delete(name, epoch="e0"))
        for name, (count, gone, records, rank, token) in made.items():
            events = [b"%d" % number for number in range(count)]
            await store(source, create(*events, of=name, token=token, records=dict(records), rank=rank, owner="o"))
            await store(source, compact(name, remove=sorted(gone)))
        assert (await copy_log(source, copy)).sessions == len(made)
        await same(source, copy)
        for name, (count, _, _, _, token) in made.items():
            # Nobody had the next claim's token, and who goes on does so behind the last offset.
            seen = claim(name, seen=token, owner="new")
            await store(copy, seen, append(b"next", to=name, tail=count, token=seen.token))
            assert seen.token > token

    trio.run(run)


async def test_what_is_written_meanwhile_is_copied_up_to_some_moment(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: None
) -> None:
    """Events and the records that come with them are of one moment, however the source is written to."""
    source, copy = MemoryLog(), MemoryLog()
    records_of = source.records

    async def records(session_id: str, epoch: str, prefix: str = "") -> dict[str, bytes]:
        await trio.sleep(0.001)
        return await records_of(session_id, epoch, prefix)

    monkeypatch.setattr(source, "records", records)
    await store(source, *(create(b"0", of=f"s{number}", records={"message/1": b"1"}) for number in range(5)))
    done = trio.Event()

    async def write(name: str) -> None:
        tail = 1
        while not done.is_set():
            changed: dict[str, bytes | None] = {"message/1": b"%d" % (tail + 1)} if tail % 10 == 0 else {}
            await source.write(append(b"%d" % tail, to=name, tail=tail, records=changed))
            tail += 1
            await trio.sleep(0.01)

    async with trio.open_nursery() as nursery:
        for number in range(5):
            nursery.start_soon(write, f"s{number}")
        await trio.sleep(1)
        assert (await copy_log(source, copy)).sessions == 5
        done.set()
    for each in await copy.heads():
        assert each.tail > 10
        assert await bodies(copy, each.session_id) == [b"%d" % number for number in range(each.tail)]
        told = int((await copy.records(each.session_id, "e1"))["message/1"])
        assert told == (each.tail - 1) // 10 * 10 + 1


async def test_a_session_that_changes_all_the_time_is_not_copied_by_halves(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: None
) -> None:
    source = MemoryLog()
    await store(source, create(b"0"))
    records_of = source.records

    async def records(session_id: str, epoch: str, prefix: str = "") -> dict[str, bytes]:
        await store(source, keep(records={"message/1": b"%f" % trio.current_time()}))
        await trio.sleep(0.001)
        return await records_of(session_id, epoch, prefix)

    monkeypatch.setattr(source, "records", records)
    with pytest.raises(StorageError, match="all the time"):
        await copy_log(source, MemoryLog())


async def test_a_session_that_is_deleted_meanwhile_is_not_in_the_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    source, copy = MemoryLog(), MemoryLog()
    await store(source, *(create(b"1", b"2", b"3", of=name) for name in "abcd"))
    read_of = source.read

    async def read(session_id: str, epoch: str, *, after: int, limit: int, max_bytes: int) -> list[Entry]:
        if session_id in ("a", "c") and after == 1:
            await store(source, delete(session_id))
        return await read_of(session_id, epoch, after=after, limit=1, max_bytes=max_bytes)

    monkeypatch.setattr(source, "read", read)
    done = await copy_log(source, copy)
    assert (done.sessions, done.left_out) == (2, {})
    assert [each.session_id for each in await copy.heads()] == ["b", "d"]
    assert await copy.holders(INCOMPLETE) == []


async def test_a_session_that_cannot_be_read_is_left_out_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    source, copy = MemoryLog(), MemoryLog()
    await store(source, create(b"1", of="a"), create(b"1", of="b"))
    read_of = source.read

    async def read(session_id: str, epoch: str, *, after: int, limit: int, max_bytes: int) -> list[Entry]:
        if session_id == "a":
            return [Entry(1, "no bytes")]  # type: ignore[arg-type]
        return await read_of(session_id, epoch, after=after, limit=limit, max_bytes=max_bytes)

    monkeypatch.setattr(source, "read", read)
    assert list((await copy_log(source, copy)).left_out) == ["a"]
    assert [each.session_id for each in await copy.heads()] == ["b"]


async def test_a_copy_that_is_not_whole_says_so() -> None:
    source, copy = MemoryLog(), MemoryLog()
    await store(source, *(create(b"1", b"2", of=f"s{number:02}") for number in range(40)))
    with trio.CancelScope() as scope:

        def told(progress: Progress) -> None:
            if progress.done > 30:
                scope.cancel()

        await copy_log(source, copy, progress=told)
    assert scope.cancelled_caught
    assert await copy.heads()
    with pytest.raises(UnwritableDatabase) as refused:
        async with open_engine(copy):
            pass
    assert "not whole" in refused.value.detail
    for one, other in ((source, copy), (copy, MemoryLog())):
        with pytest.raises(UnwritableDatabase) as refused:
            await copy_log(one, other)
        assert "not whole" in refused.value.detail


async def test_a_destination_that_is_not_empty_is_refused() -> None:
    source, copy = MemoryLog(), MemoryLog()
    await store(source, create(b"1"))
    await store(copy, create(b"1", of="mine"))
    with pytest.raises(UnwritableDatabase) as refused:
        await copy_log(source, copy)
    assert "not empty" in refused.value.detail
    assert await copy.heads() == [head("mine", tail=1)]


async def test_a_copy_whose_store_fails_fails() -> None:
    source = MemoryLog()
    await store(source, *(create(b"1", of=f"s{number}") for number in range(9)))
    copy = FaultyLog(MemoryLog(), lambda number, _: Fail() if number == 5 else None)
    with pytest.raises(StorageError) as failed:
        await copy_log(source, copy)
    assert "cannot be written" in failed.value.detail
    assert await copy.holders(INCOMPLETE)


async def test_what_is_read_back_otherwise_is_no_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    source, copy = MemoryLog(), MemoryLog()
    await store(source, create(b"1", b"2"), keep(records={"message/1": b"{}"}))
    read_of = copy.read

    async def read(session_id: str, epoch: str, *, after: int, limit: int, max_bytes: int) -> list[Entry]:
        return (await read_of(session_id, epoch, after=after, limit=limit, max_bytes=max_bytes))[:-1]

    monkeypatch.setattr(copy, "read", read)
    with pytest.raises(StorageError) as failed:
        await copy_log(source, copy)
    assert "not in the copy" in failed.value.detail
    assert await copy.holders(INCOMPLETE)


async def test_what_is_in_doubt_has_a_new_epoch_in_the_copy() -> None:
    source, copy = MemoryLog(), MemoryLog()
    await store(source, create(b"1", b"2", records={"message/1": b"{}"}))
    await source.doubt_all()
    assert (await copy_log(source, copy)).sessions == 1
    (there,) = await copy.heads()
    assert there.epoch != "e1"
    assert not there.doubted
    assert await bodies(copy, "s", there.epoch) == [b"1", b"2"]
    assert await copy.records("s", there.epoch) == {"message/1": b"{}"}
