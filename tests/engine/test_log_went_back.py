"""Logs whose store has lost what it had acknowledged: what is in doubt, until when, and how that is found out."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from penstock.engine import EventLog, LocalBus, MemoryLog, Session, open_engine
from penstock.engine.errors import IdInUse, StaleEpoch, StaleToken, UnwritableDatabase, WentBack
from penstock.engine.log import rebase_log
from penstock.engine.log.opening import open_log
from penstock.engine.log.port import BLOCK, life_of, rebased
from tests.engine.losing import Traveller
from tests.engine.postgres_server import PostgresServer
from tests.engine.proxy import FaultyProxy
from tests.engine.redis_server import RedisServer
from tests.engine.writes import (
    append,
    bodies,
    claim,
    compact,
    create,
    delete,
    entries,
    head,
    keep,
    kinds,
    outcomes,
    store,
)


@pytest.fixture(params=["memory", "redis", "redis-1", pytest.param("postgres", marks=pytest.mark.long)])
async def log(request: pytest.FixtureRequest) -> AsyncIterator[EventLog]:
    """One that knows doubt."""
    match request.param:
        case "memory":
            made: EventLog = MemoryLog()
        case "postgres":
            server: PostgresServer = request.getfixturevalue("postgres_server")
            made = await open_log(server.url())
        case _:
            redis: RedisServer = request.getfixturevalue("redis_server")
            made = await open_log(redis.url(shards=64 if request.param == "redis" else 1))
    yield made
    await made.aclose()


async def tell(log: EventLog, tail: int = 9, *, epoch: str = "e1", token: int = 0, proven: bool = True) -> bool:
    """Say that the session stood there once."""
    return await log.doubt(head(epoch=epoch, tail=tail, token=token), proven=proven)


async def test_a_session_in_doubt_takes_an_append_once_it_has_another_epoch(log: EventLog) -> None:
    await store(log, create(b"1", b"2", records={"open": b"o", "message/1": b"m"}, rank=3))
    assert await tell(log)
    doubted = await log.head("s")
    assert doubted is not None
    assert doubted.doubted
    assert (await log.living(["s"]))["s"].doubted
    assert (await log.heads())[0].doubted
    assert (await log.ranked())[0].doubted
    assert await kinds(log, append(b"3", tail=2), compact(replace={1: b"x"})) == [WentBack, StaleEpoch]
    assert await bodies(log) == [b"1", b"2"]
    anew = rebased("e1")
    await store(log, claim(seen=1, owner="a", anew=anew))
    now = await log.head("s")
    assert now == head(epoch=anew, tail=2, token=BLOCK, owner="a", summary=doubted.summary)
    assert await kinds(log, append(b"3", tail=2, token=BLOCK)) == [StaleEpoch]
    await store(log, append(b"3", tail=2, token=BLOCK, epoch=anew, records={"queued": b"q"}))
    assert await bodies(log, epoch=anew) == [b"1", b"2", b"3"]
    claimed = {f"claim/{BLOCK:016}": b'{"owner":"a","tail":2}'}
    assert await log.records("s", anew) == {**claimed, "message/1": b"m", "open": b"o", "queued": b"q"}
    assert await log.holders("open") == [("s", b"o")]
    with pytest.raises(StaleEpoch):
        await log.read("s", "e1", after=0, limit=9, max_bytes=99)
    await store(log, compact(epoch=anew, replace={1: b"x"}))
    assert await bodies(log, epoch=anew) == [b"x", b"2", b"3"]
    await store(log, delete(epoch=anew, token=BLOCK))
    assert await log.heads() == []
    assert await log.holders("open") == []
    await store(log, create(b"new", epoch="e2", token=2 * BLOCK))
    assert await bodies(log, epoch="e2") == [b"new"]
    assert await log.records("s", "e2") == {}


async def test_what_needs_no_offset_lands_in_doubt(log: EventLog) -> None:
    await store(log, create(b"1"), create(b"1", of="other"))
    assert await tell(log)
    await store(log, keep(records={"file": b"f"}), claim(seen=1, owner="a"), delete(of="other"))
    in_doubt = await log.head("s")
    assert in_doubt == head(tail=1, token=BLOCK, owner="a", doubted=True)
    await store(log, create(b"new", of="third"))
    await store(log, append(b"2", to="third", tail=1))


async def test_the_token_is_judged_before_the_doubt_and_the_doubt_before_the_tail(log: EventLog) -> None:
    await store(log, create(b"1", token=5))
    assert await tell(log)
    assert await kinds(
        log,
        append(b"2", tail=1, token=4),
        append(b"2", tail=7, token=5),
        append(b"2", epoch="e9", tail=1, token=5),
        claim(seen=4, owner="a", anew=rebased("e1")),
        create(b"1"),
    ) == [StaleToken, WentBack, StaleEpoch, StaleToken, IdInUse]


async def test_all_that_may_have_gone_back_is_in_doubt_and_the_same_does_not_count_twice(log: EventLog) -> None:
    names = [f"s{number}" for number in range(20)]
    await store(log, create(b"1"), *(create(b"1", of=name) for name in names))
    assert not await tell(log, tail=1)
    assert not await tell(log, epoch="e2")
    assert not await log.doubt(head("nobody", tail=9), proven=True)
    assert log.statistics().went_back == 0
    assert await tell(log, tail=2)
    assert not await tell(log, tail=2)
    assert log.statistics().went_back == 1
    assert await kinds(log, *(append(b"2", to=name, tail=1) for name in names)) == [WentBack] * 20
    anew = rebased("e1")
    await store(log, claim(seen=1, owner="", anew=anew))
    assert not await tell(log, tail=9)  # what the former epoch had says nothing of this one
    assert await tell(log, tail=9, epoch=anew)


async def test_a_claim_that_is_not_there_shows_it_too(log: EventLog) -> None:
    await store(log, create(b"1", token=5))
    assert not await tell(log, tail=1, token=5)
    assert await tell(log, tail=1, token=6)


async def test_what_somebody_says_counts_for_that_session_and_once_for_a_run_of_the_store(log: EventLog) -> None:
    await store(log, create(b"1"), create(b"1", of="other"))
    assert not await tell(log, tail=1, proven=False)
    assert await tell(log, tail=2, proven=False)
    assert await kinds(log, append(b"2", tail=1), append(b"2", to="other", tail=1)) == [WentBack, None]
    anew = rebased("e1")
    await store(log, claim(seen=1, owner="", anew=anew))
    assert not await tell(log, tail=9, epoch=anew, proven=False)
    await store(log, append(b"2", tail=1, token=BLOCK, epoch=anew))
    assert await tell(log, tail=9, epoch=anew)


async def test_all_can_be_put_in_doubt(log: EventLog) -> None:
    await store(log, create(b"1"), create(b"1", of="other"))
    await store(log, delete("other"))
    told: list[None] = []
    log.on_went_back = lambda: told.append(None)
    assert await log.doubt_all()
    assert told
    assert await kinds(log, append(b"2", tail=1)) == [WentBack]
    await store(log, create(b"1", of="other", epoch="e2"), append(b"2", to="other", epoch="e2", tail=1))


async def test_every_session_of_a_file_gets_another_epoch_at_once(tmp_path: Path) -> None:
    log = await open_log(tmp_path / "log.db")
    names = [f"s{number:03}" for number in range(250)]
    await store(log, *(create(b"1", of=name, records={"open": b"o"}) for name in names))
    await log.aclose()
    await rebase_log(tmp_path / "log.db")
    log = await open_log(tmp_path / "log.db")
    heads = await log.heads(limit=1000)
    assert [each.session_id for each in heads] == names
    assert all(each.epoch != "e1" and life_of(each.epoch) == "e1" for each in heads)
    assert await bodies(log, of="s007", epoch=heads[7].epoch) == [b"1"]
    assert len(await log.holders("open")) == 250
    await log.aclose()


@pytest.mark.long
async def test_every_session_of_a_store_of_others_gets_another_epoch_when_it_is_written_in(
    redis_server: RedisServer, postgres_server: PostgresServer
) -> None:
    for url in (redis_server.url(), postgres_server.url()):
        log = await open_log(url)
        await store(log, create(b"1"))
        await rebase_log(url)
        assert await kinds(log, append(b"2", tail=1)) == [WentBack]
        await log.aclose()


# --- found out by who wrote


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Callable[[str], RedisServer]]:
    """Redis servers that a test may do harm."""
    made: list[RedisServer] = []

    def start(name: str) -> RedisServer:
        (tmp_path / name).mkdir(exist_ok=True)
        one = RedisServer(tmp_path / name)
        made.append(one)
        one.start()
        return one

    yield start
    for one in made:
        one.go_on()
        one.kill()


@pytest.mark.parametrize("shards", [1, 64])
async def test_a_writer_finds_what_it_was_answered_gone_and_writes_nothing_before_all_is_in_doubt(
    server: Callable[[str], RedisServer], shards: int, nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    primary, replica = server("primary"), server("replica")
    replica.follow(primary)
    proxy = FaultyProxy(primary.port)
    await nursery.start(proxy.run)
    log = await open_log(primary.url(port=proxy.port, shards=shards))
    await store(log, create(b"1"), create(b"1", of="quiet"))
    replica.caught_up(primary)
    replica.promote()  # it hears nothing any more
    await store(log, append(b"2", b"3", tail=1))
    proxy.to = replica.port
    primary.kill()
    assert await kinds(log, append(b"4", tail=3), append(b"2", to="quiet", tail=1), create(b"1", of="new")) == [
        WentBack,
        WentBack,
        None,
    ]
    assert log.statistics().went_back == 1
    assert any("it has lost what it had acknowledged" in each.getMessage() for each in caplog.records)
    assert await bodies(log) == [b"1"]
    anew = rebased("e1")
    await store(log, claim(seen=1, owner="", anew=anew), append(b"2x", epoch=anew, tail=1, token=BLOCK))
    assert [each.body for each in await entries(log, epoch=anew)] == [b"1", b"2x"]
    await log.aclose()


async def test_a_failover_that_loses_nothing_changes_nothing(
    server: Callable[[str], RedisServer], nursery: trio.Nursery
) -> None:
    primary, replica = server("primary"), server("replica")
    replica.follow(primary)
    proxy = FaultyProxy(primary.port)
    await nursery.start(proxy.run)
    log = await open_log(primary.url(port=proxy.port))
    await store(log, create(b"1"))
    replica.caught_up(primary)
    proxy.to = replica.port
    primary.kill()
    replica.promote()
    await store(log, append(b"2", tail=1))
    assert log.statistics().went_back == 0
    assert await log.head("s") == head(tail=2)
    await log.aclose()


@pytest.mark.long
async def test_a_quiet_writer_looks_when_the_store_is_back(
    server: Callable[[str], RedisServer], tmp_path: Path
) -> None:
    """A copy of its files is put back while it is down."""
    primary = server("primary")
    log = await open_log(primary.url())
    await store(log, create(b"1"))
    shutil.copytree(tmp_path / "primary", tmp_path / "copy")
    await store(log, append(b"2", tail=1))
    told = trio.Event()
    log.on_went_back = told.set
    primary.kill()
    shutil.rmtree(tmp_path / "primary")
    shutil.copytree(tmp_path / "copy", tmp_path / "primary")
    primary.start()
    with trio.fail_after(20):
        await told.wait()
    assert await log.head("s") == head(tail=1, doubted=True)
    await log.aclose()


async def test_a_store_that_was_emptied_went_back(server: Callable[[str], RedisServer]) -> None:
    one = server("primary")
    log = await open_log(one.url())
    await store(log, create(b"1"))
    one.ask("flushall")
    assert await kinds(log, append(b"2", tail=1)) == [StaleEpoch]
    assert log.statistics().went_back == 1
    await log.aclose()


@asynccontextmanager
async def two_engines(url: str) -> AsyncIterator[list[Session]]:
    """The session ``s`` in two engines of one process, each with a log of its own."""
    bus = LocalBus()
    async with open_engine(url, owner="a", bus=bus) as a, open_engine(url, owner="b", bus=bus) as b:
        yield [await a.create_session("s"), await b.session("s")]


async def test_readers_of_two_engines_over_a_replica_that_was_behind_get_no_other_event(
    server: Callable[[str], RedisServer], nursery: trio.Nursery
) -> None:
    primary, replica = server("primary"), server("replica")
    replica.follow(primary)
    proxy = FaultyProxy(primary.port)
    await nursery.start(proxy.run)
    reader = Traveller()
    async with two_engines(primary.url(port=proxy.port)) as (here, there):
        for number in range(5):
            await here.post(f"{number}")
        replica.caught_up(primary)
        replica.promote()
        for number in range(10):
            await here.post(f"lost {number}")
        await reader.read(there)
        before = reader.cursor
        assert before is not None
        assert before.offset == 16
        proxy.to = replica.port
        primary.kill()
        for number in range(13):
            await (here, there)[number % 2].post(f"new {number}")
        await reader.read(there, snapshot=False)
        assert reader.gaps == ["unknown_epoch"]
        texts = [str(block.text) for message in (await there.snapshot()).messages for block in message.blocks]
        assert texts == [*map(str, range(5)), *(f"new {number}" for number in range(13))]


# --- a Postgres


@pytest.mark.long
async def test_a_postgres_that_was_restored_from_a_copy_of_its_folder() -> None:
    server = PostgresServer()
    try:
        server.start()
        log = await open_log(server.url())
        await store(log, create(b"1"), create(b"1", of="quiet"))
        server.copy()
        await store(log, append(b"2", tail=1))
        server.kill()
        server.put_back()
        server.start()
        assert await outcomes(log, append(b"3", tail=2), append(b"2", to="quiet", tail=1))
        assert log.statistics().went_back == 1
        assert await log.head("s") == head(tail=1, doubted=True)
        anew = rebased("e1")
        await store(log, claim(seen=1, owner="", anew=anew), append(b"2x", epoch=anew, tail=1, token=BLOCK))
        server.kill()
        server.start()
        await store(log, append(b"3x", epoch=anew, tail=2, token=BLOCK))
        assert log.statistics().went_back == 1
        await log.aclose()
    finally:
        server.remove()


# --- replicas and Sentinels, before anything is stored


def test_a_url_may_name_sentinels_and_replicas() -> None:
    from penstock.engine.log.redis.address import Address

    found = Address.parse("redis+sentinel://me:pw@a,b:7,[::1]:8/mymaster/2?prefix=x&replicas=1")
    assert found.sentinels == (("a", 26379), ("b", 7), ("::1", 8))
    assert (found.service, found.database, found.username, found.password) == ("mymaster", 2, "me", "pw")
    assert (found.prefix, found.replicas) == ("x", 1)
    assert str(found) == "redis+sentinel://a:26379,b:7,[::1]:8/mymaster/2?prefix=x"


@pytest.mark.parametrize(
    "url",
    [
        "redis+sentinel://a",
        "redis+sentinel://a/",
        "redis+sentinel://a/my master",
        "redis+sentinel://a:x/mymaster",
        "redis+sentinel:///mymaster",
        "redis://a/0?replicas=-1",
        "redis://a/0?replicas=many",
    ],
)
def test_a_url_that_names_them_wrongly_is_none(url: str) -> None:
    from penstock.engine.log.redis.address import Address

    with pytest.raises(UnwritableDatabase, match="the URL of the Redis is none"):
        Address.parse(url)


@pytest.mark.long
async def test_a_store_that_has_nothing_of_replicas_is_refused(tmp_path: Path, postgres_server: PostgresServer) -> None:
    for place, why in ((tmp_path / "log.db", "a file has no replicas"), (postgres_server.url(), "0 standbys have it")):
        with pytest.raises(UnwritableDatabase, match=why):
            await open_log(str(place), replicas=1)
    assert not (tmp_path / "log.db").exists()


async def test_a_replica_is_no_place_for_a_log(server: Callable[[str], RedisServer]) -> None:
    primary, replica = server("primary"), server("replica")
    replica.follow(primary)
    with pytest.raises(UnwritableDatabase, match="is a replica"):
        await open_log(replica.url())
