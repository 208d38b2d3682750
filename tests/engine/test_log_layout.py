"""Where events lie in the database shows nowhere: over its chunks, after removals and purges, and from version 1."""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from penstock.engine.errors import UnwritableDatabase
from penstock.engine.log import Compact, EventLog, MemoryLog, Summary, Write, open_sqlite, open_sqlite_reader
from penstock.engine.log.sqlite.commit import Committer
from penstock.engine.log.sqlite.database import connect, prepare
from penstock.engine.log.sqlite.layout import CHUNK
from tests.engine.version_1 import make_version_1
from tests.engine.writes import append, bodies, compact, create, delete, entries, head, outcomes, store


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "chat.db"


def chunks(path: Path) -> list[int]:
    """Which chunks have something."""
    with closing(sqlite3.connect(path)) as connection:
        return [chunk for (chunk,) in connection.execute(f"SELECT DISTINCT id / {2 * CHUNK} FROM events ORDER BY 1")]


async def fill(log: EventLog, name: str, count: int) -> None:
    await store(log, create(*[b""] * count, of=name))


async def test_one_append_may_go_over_several_chunks(path: Path) -> None:
    log = await open_sqlite(path)
    texts = [b"%d" % number for number in range(3 * CHUNK)]
    await store(log, create(*texts))
    await store(log, append(b"last", tail=len(texts)))
    assert await bodies(log) == [*texts, b"last"]
    assert await log.head("s") == head(tail=len(texts) + 1)
    for after in (CHUNK - 2, CHUNK - 1, CHUNK, 2 * CHUNK, len(texts)):
        (entry,) = await log.read("s", "e1", after=after, limit=1, max_bytes=100)
        assert entry == (after + 1, [*texts, b"last"][after])
    await log.aclose()
    assert chunks(path) == [0, 1, 2, 3]


async def test_a_page_has_its_size_though_whole_chunks_of_it_are_removed(path: Path) -> None:
    log = await open_sqlite(path)
    for number in range(4):
        await store(log, append(b"x", b"y", tail=2 * number, create=number == 0))
        await fill(log, f"fill-{number}", CHUNK)
    await store(log, compact(remove=[3, 4, 5, 6]))
    page = await log.read("s", "e1", after=0, limit=3, max_bytes=100)
    assert [entry.offset for entry in page] == [1, 2, 7]
    await log.aclose()


async def test_what_comes_after_a_purge_and_an_open_is_found(path: Path) -> None:
    """The last rows of all were another session's, and are gone: numbers begin again below what they were."""
    log = await open_sqlite(path)
    await store(log, create(b"1", b"2"))
    await fill(log, "gone", 3 * CHUNK)
    await store(log, append(b"3", tail=2), delete("gone"))
    await store(log, compact(remove=[3]))
    await log.aclose()
    log = await open_sqlite(path)
    await store(log, append(b"4", b"5", tail=3))
    assert [entry.body for entry in await entries(log)] == [b"1", b"2", b"4", b"5"]
    assert await log.head("s") == head(tail=5)
    await log.aclose()


def test_a_purge_leaves_nothing_in_any_chunk(path: Path) -> None:
    prepare(str(path))
    committer = Committer(lambda: connect(str(path)))
    writes: list[Write] = [create(*[b""] * 2 * CHUNK, of="gone"), create(*[b""] * CHUNK, of="stays")]
    writes += [append(*[b""] * 50, to="gone", tail=2 * CHUNK), compact("gone", remove=[1, CHUNK, 2 * CHUNK])]
    for write in [*writes, delete("gone")]:
        assert (committer.compact(write) if isinstance(write, Compact) else committer.carry_out([write])[0]) is None
    left = 3 * CHUNK + 50
    while committer.purge():
        with closing(sqlite3.connect(path)) as connection:
            before, left = left, connection.execute("SELECT count(*) FROM events").fetchone()[0]
        assert 0 <= before - left <= 512
    assert left == CHUNK
    committer.close()


@pytest.mark.parametrize("seed", [pytest.param(seed, marks=[pytest.mark.long] * (seed > 1)) for seed in range(8)])
async def test_it_holds_what_a_log_in_memory_holds(path: Path, seed: int) -> None:
    chance = random.Random(seed)
    log: EventLog = await open_sqlite(path)
    like = MemoryLog()
    tails = {"a": 0, "b": 0, "c": 0}
    epochs = dict.fromkeys(tails, 0)
    for step in range(120):
        name = chance.choice(list(tails))
        tail, epoch = tails[name], f"e{epochs[name]}"
        write: Write
        match chance.randrange(12):
            case 0:
                size = chance.choice([CHUNK // 3, CHUNK - 7, CHUNK])
                for each in (log, like):
                    await fill(each, f"fill-{step}", size)
                continue
            case 1 if tail:
                write = delete(name, epoch=epoch)
                tails[name], epochs[name] = 0, epochs[name] + 1
            case 2 | 3 | 4 if tail:
                offsets = chance.sample(range(1, tail + 1), min(tail, chance.randrange(1, 9)))
                place = chance.randrange(len(offsets) + 1)
                write = compact(
                    name, epoch=epoch, remove=offsets[:place], replace=dict.fromkeys(offsets[place:], b"%d" % step)
                )
            case 5:
                await log.aclose()
                log = await open_sqlite(path)
                continue
            case _:
                count = chance.randrange(1, 20)
                texts = [b"%d" % chance.randrange(1000) for _ in range(count)]
                write = append(*texts, to=name, epoch=epoch, tail=tail, create=tail == 0)
                tails[name] += count
        assert await outcomes(log, write) == await outcomes(like, write) == [None]
        epoch = f"e{epochs[name]}"
        assert await log.head(name) == await like.head(name)
        if tails[name]:
            after, limit = chance.randrange(tails[name] + 1), chance.randrange(1, 30)
            page = [await each.read(name, epoch, after=after, limit=limit, max_bytes=1000) for each in (log, like)]
            assert page[0] == page[1]
            assert await entries(log, name, epoch) == await entries(like, name, epoch)
    await log.aclose()


async def test_a_database_of_version_1_is_brought_up_to_date(path: Path) -> None:
    make_version_1(path)
    with pytest.raises(UnwritableDatabase, match="older"):
        await open_sqlite_reader(path)
    each = 2 * CHUNK // 3
    expected = [(1 + number // 3, b"%d" % number) for number in range(0, 2 * CHUNK, 3)]
    for _ in range(2):  # the second finds a database of its own
        log = await open_sqlite(path)
        assert await entries(log, "a", page=1000) == [entry for entry in expected if entry[0] % 100 != 5]
        assert len(await bodies(log, "b")) == each
        assert await log.record("a", "e1", "open") == b"\1"
        # These events tell nothing that a list could show.
        assert await log.head("b") == head("b", tail=each, token=7, summary=Summary(0, b"{}"))
        await log.aclose()
    log = await open_sqlite(path)
    await store(log, append(b"new", to="b", tail=each, token=7))
    assert (await bodies(log, "b"))[-1] == b"new"
    await log.aclose()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (4,)
        assert connection.execute("SELECT count(*) FROM events WHERE life = 3").fetchone() == (0,)
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


async def test_what_breaks_off_while_it_is_brought_up_to_date_leaves_it_as_it_was(path: Path) -> None:
    make_version_1(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE INDEX events_first ON records (value)")  # the last step finds its name taken
        connection.commit()
        before = connection.execute("SELECT * FROM events").fetchall()
    with pytest.raises(UnwritableDatabase):
        await open_sqlite(path)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (1,)
        assert connection.execute("SELECT * FROM events").fetchall() == before
