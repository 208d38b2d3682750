"""The log in a Redis: through cut connections and restarts, and what it refuses to be opened over."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from penstock.engine import open_engine
from penstock.engine.errors import (
    CorruptSession,
    DatabaseError,
    NewerSchema,
    StaleEpoch,
    StorageError,
    UnwritableDatabase,
    WriteFailed,
)
from penstock.engine.log import Delete, EventLog, MemoryLog, Summary, Write
from penstock.engine.log.opening import open_log
from tests.engine.proxy import Fault, FaultyProxy, each_fault
from tests.engine.redis_server import RedisCluster, RedisServer, binary
from tests.engine.stores import kill_under_load, until
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

if TYPE_CHECKING:
    import coredis

# An answer that has not come after so many seconds is asked for again: far above what any here takes.
WITHIN = 1.0


@asynccontextmanager
async def opened(url: str, *, patience: float = 10.0, allow_weak_store: bool = False) -> AsyncIterator[EventLog]:
    from penstock.engine.log.redis.log import open_redis

    log = await open_redis(url, patience=patience, within=WITHIN, allow_weak_store=allow_weak_store)
    try:
        yield log
    finally:
        await log.aclose()


@asynccontextmanager
async def asking(server: RedisServer) -> AsyncIterator[coredis.Redis[bytes]]:
    """A client of another's."""
    import coredis

    async with coredis.Redis(port=server.port) as client:
        yield client


@pytest.fixture
async def proxy(redis_server: RedisServer, nursery: trio.Nursery) -> FaultyProxy:
    made = FaultyProxy(redis_server.port)
    await nursery.start(made.run)
    return made


# --- connections


@each_fault
async def test_a_round_is_carried_out_once_whatever_becomes_of_its_connection(
    redis_server: RedisServer, proxy: FaultyProxy, fault: Fault
) -> None:
    async with opened(redis_server.url(port=proxy.port)) as log:
        await store(log, create(b"1"))
        for tail in (1, 2):
            proxy.fault = fault
            await store(log, append(b"%d" % (tail + 1), tail=tail, records={"open": b"%d" % tail}))
        assert proxy.befallen == 2
        assert await bodies(log) == [b"1", b"2", b"3"]
        assert await log.head("s") == head(tail=3)
        assert await log.holders("open") == [("s", b"2")]
        assert log.statistics().trouble is None


@each_fault
async def test_a_read_is_asked_again_whatever_becomes_of_its_connection(
    redis_server: RedisServer, proxy: FaultyProxy, fault: Fault
) -> None:
    async with opened(redis_server.url(port=proxy.port)) as log:
        await store(log, create(b"1", b"2"))
        proxy.fault = fault
        assert await bodies(log) == [b"1", b"2"]
        assert proxy.befallen == 1


async def test_a_round_that_arrives_behind_the_next_one_changes_nothing(
    redis_server: RedisServer, proxy: FaultyProxy
) -> None:
    async with opened(redis_server.url(port=proxy.port), patience=0.0) as log:
        await store(log, create(b"1"))
        proxy.fault = "late"
        assert await kinds(log, keep(records={"r": b"late"}), append(b"x", tail=1)) == [WriteFailed] * 2
        await store(log, keep(records={"r": b"now"}), append(b"2", tail=1))
        await proxy.deliver()
        assert await bodies(log) == [b"1", b"2"]
        assert await log.records("s", "e1") == {"r": b"now"}
        assert await log.head("s") == head(tail=2)


async def test_a_verdict_is_remembered_whatever_it_was(redis_server: RedisServer, proxy: FaultyProxy) -> None:
    async with opened(redis_server.url(port=proxy.port)) as log:
        await store(log, create(b"1", owner="a"))
        writes: list[Write] = [
            append(b"x", tail=7),
            append(b"2", tail=1),
            append(b"x", tail=1, to="nobody"),
            claim(seen=9, owner="b"),
            delete(),
            keep(records={"r": b"x"}),
        ]
        once = await kinds(log, create(of="t", owner="a"), *writes)
        await store(log, create(b"1", epoch="e2", owner="a"))
        again: list[Write] = [append(b"2", tail=1, epoch="e2"), delete(epoch="e2"), append(b"3", tail=2, epoch="e2")]
        proxy.fault = "cut after"
        assert [None if error is None else error.__name__ for error in once] == [
            None,
            "StaleEpoch",
            None,
            "StaleEpoch",
            "StaleToken",
            None,
            "StaleEpoch",
        ]
        assert [error and error.__name__ for error in await kinds(log, *again)] == [None, None, "StaleEpoch"]
        assert proxy.befallen == 1


async def test_what_a_store_forgot_of_scripts_is_sent_again(own_server: RedisServer) -> None:
    async with opened(own_server.url()) as log, asking(own_server) as client:
        await store(log, create(b"1"))
        await client.script_flush()
        await store(log, append(b"2", tail=1))
        await client.script_flush()
        assert await bodies(log) == [b"1", b"2"]


# --- restarts


async def test_what_was_acknowledged_is_there_once_and_in_order_when_the_store_was_killed(
    own_server: RedisServer,
) -> None:
    await kill_under_load(own_server, opened, kills=2, pause=0.2)


@pytest.mark.long
async def test_what_was_acknowledged_outlives_many_kills(own_server: RedisServer) -> None:
    await kill_under_load(own_server, opened, kills=12, pause=0.5)


@pytest.mark.long
async def test_a_cluster_goes_on_when_one_of_its_nodes_is_back(tmp_path: Path) -> None:
    cluster = RedisCluster(tmp_path)
    try:
        cluster.start()
        async with opened(cluster.url()) as log:
            names = [f"s{number}" for number in range(40)]
            await store(log, *(create(b"1", of=name) for name in names))
            cluster.nodes[1].kill()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(partial(store, log, *(append(b"2", to=name, tail=1) for name in names)))
                await trio.sleep(0.5)
                cluster.nodes[1].start()
            for name in names:
                assert await bodies(log, name) == [b"1", b"2"]
            await trio.sleep(3)  # while nobody asks it anything
            assert log.statistics().trouble is None
    finally:
        cluster.kill()


@pytest.mark.long
async def test_a_store_that_hangs_is_waited_for(own_server: RedisServer) -> None:
    async with opened(own_server.url()) as log:
        await store(log, create(b"1"))
        own_server.pause()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store, log, append(b"2", tail=1))
            await trio.sleep(WITHIN + 0.3)
            assert log.statistics().trouble is not None
            own_server.go_on()
        assert await bodies(log) == [b"1", b"2"]
        assert log.statistics().trouble is None


@pytest.mark.long
async def test_a_store_that_stays_away_fails_what_waits_and_is_taken_again_when_it_is_back(
    own_server: RedisServer,
) -> None:
    async with opened(own_server.url(), patience=0.3) as log:
        await store(log, create(b"1"))
        own_server.kill()
        (error,) = await outcomes(log, append(b"x", tail=1))
        assert isinstance(error, WriteFailed)
        assert error.whole
        with trio.fail_after(0.25):  # it is known by now: nobody waits again
            assert await kinds(log, append(b"x", tail=1)) == [WriteFailed]
            with pytest.raises(StorageError):
                await log.head("s")
        assert log.statistics().trouble is not None
        own_server.start()
        await until(lambda: log.statistics().trouble is None)  # noticed without anybody's asking
        await store(log, append(b"2", tail=1))
        assert await bodies(log) == [b"1", b"2"]


async def test_a_store_that_is_full_takes_nothing_of_a_write_and_goes_on_when_it_has_room(
    own_server: RedisServer,
) -> None:
    async with opened(own_server.url(), patience=0.2) as log, asking(own_server) as client:
        await store(log, create(b"1", records={"a": b"1"}))
        await client.config_set({"maxmemory": 1})
        large = append(b"2", tail=1, records={"a": b"2", "b/c": b"3"}, summary=Summary(1, b"s"))
        assert await kinds(log, large, compact(remove=[1])) == [WriteFailed, WriteFailed]
        assert await bodies(log) == [b"1"]
        assert "memory" in str(log.statistics().trouble)
        assert await log.records("s", "e1") == {"a": b"1"}
        await client.config_set({"maxmemory": 0})
        await store(log, large)
        assert log.statistics().trouble is None
        assert await log.head("s") == head(tail=2, summary=Summary(1, b"s"))


# --- opening


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"appendonly": "no"}, "appendonly"),
        ({"appendfsync": "everysec"}, "appendfsync"),
        ({"no-appendfsync-on-rewrite": "yes"}, "no-appendfsync-on-rewrite"),
        ({"maxmemory-policy": "volatile-lru"}, "maxmemory-policy"),
    ],
)
async def test_a_store_that_may_lose_something_is_refused_unless_it_is_wanted(
    tmp_path: Path, options: dict[str, str], told: str, caplog: pytest.LogCaptureFixture
) -> None:
    server = RedisServer(tmp_path, **options)
    server.start()
    try:
        with pytest.raises(UnwritableDatabase) as refused:
            await open_log(server.url())
        assert told in refused.value.detail
        assert "lost" in refused.value.detail or "lose" in refused.value.detail
        async with opened(server.url(), allow_weak_store=True) as log:
            await store(log, create(b"1"))
        assert told in caplog.text
    finally:
        server.kill()


async def test_a_replica_is_refused_in_any_case(tmp_path: Path) -> None:
    server = RedisServer(tmp_path, replicaof="127.0.0.1 1")
    server.start()
    try:
        with pytest.raises(UnwritableDatabase):
            async with opened(server.url(), allow_weak_store=True):
                pass
    finally:
        server.kill()


async def test_a_store_that_hides_its_settings_is_taken_and_a_warning_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server = RedisServer(tmp_path, **{"rename-command": "CONFIG hidden"})
    server.start()
    try:
        async with opened(server.url()) as log:
            await store(log, create(b"1"))
        assert "appendfsync" in caplog.text
    finally:
        server.kill()


async def test_the_number_of_shards_is_fixed_when_the_store_is_first_opened(redis_server: RedisServer) -> None:
    names = [f"s{number:02}" for number in range(30)]
    async with opened(redis_server.url(prefix="fixed", shards=5)) as log:
        await store(log, *(create(b"1", of=name) for name in names))
    async with opened(redis_server.url(prefix="fixed", shards=64)) as log:
        assert [found.session_id for found in await log.heads()] == names
        await store(log, *(append(b"2", to=name, tail=1) for name in names))


async def test_a_store_of_a_newer_version_is_refused(redis_server: RedisServer) -> None:
    async with opened(redis_server.url(prefix="newer")) as log, asking(redis_server) as client:
        await store(log, create(b"1"))
        await client.hset("newer:meta", {"format": "2"})
    with pytest.raises(NewerSchema):
        await open_log(redis_server.url(prefix="newer"))


async def test_nobody_is_told_a_password(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    binary()
    server = RedisServer(tmp_path)
    server.start()
    try:
        async with asking(server) as client:
            await client.config_set({"requirepass": "open-sesame"})
        urls = [
            f"redis://:wr%40ng-s3cret@127.0.0.1:{server.port}/0",
            "redis://:wr%40ng-s3cret@127.0.0.1:port/0",
            "redis://me:wr%40ng-s3cret@127.0.0.1/zero",
            "redis://me:wr%40ng-s3cret@127.0.0.1/0?prefix={}",
            "redis://me:wr%40ng-s3cret@127.0.0.1/0?shards=0",
            "redis://me:wr%40ng-s3cret@127.0.0.1/0?other=1",
            "redis://me:wr%40ng-s3cret@/0",
            "mysql://me:wr%40ng-s3cret@127.0.0.1/0",
        ]
        for url in urls:
            with pytest.raises(DatabaseError) as refused:
                await open_log(url)
            assert "s3cret" not in f"{refused.value!r} {refused.value.__cause__!r}"
        async with opened(f"redis://:open-sesame@127.0.0.1:{server.port}/0") as log:
            await store(log, create(b"1"))
            assert "sesame" not in repr(log)
        assert "s3cret" not in caplog.text
        assert "sesame" not in caplog.text
    finally:
        server.kill()


async def test_a_store_that_is_not_there_is_waited_for_and_then_named() -> None:
    binary()
    with trio.fail_after(10), pytest.raises(UnwritableDatabase) as refused:
        await open_log("redis://127.0.0.1:1/0", patience=0.3)
    assert "127.0.0.1:1" in refused.value.detail


def test_the_engine_knows_no_client_of_a_store_until_it_is_told_a_url() -> None:
    code = "import sys, penstock.engine; sys.exit(any(name.startswith('coredis') for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- what is stored


async def test_an_engine_goes_on_where_the_former_one_left_a_store(redis_server: RedisServer) -> None:
    url = redis_server.url()
    async with open_engine(url) as engine:
        session = await engine.create_session("demo")
        await session.post(text="hello")
    async with open_engine(url) as engine:
        (listed,) = await engine.sessions(order="updated")
        assert listed.session_id == "demo"


async def test_engines_of_two_names_share_a_store(redis_server: RedisServer) -> None:
    url = redis_server.url()
    async with open_engine(url, owner="a") as a, open_engine(url, owner="b") as b:
        mine = await a.create_session("demo")
        await mine.post(text="1")
        theirs = await b.session("demo")
        for number, session in ((2, theirs), (3, mine), (4, theirs)):
            await session.post(text=f"{number}")
        for session in (mine, theirs):
            said = [block.text for message in (await session.snapshot()).messages for block in message.blocks]
            assert said == ["1", "2", "3", "4"]


async def test_a_damaged_session_is_told_apart_and_can_be_deleted(redis_server: RedisServer) -> None:
    url = redis_server.url(prefix="damaged", shards=1)
    base = "{damaged:0}"
    async with opened(url) as log, asking(redis_server) as client:
        names = ("list", "number", "half", "records")
        await store(log, *(create(b"1", of=name, records={"open": b"1", "a/b": b"2"}, rank=1) for name in names))
        await store(log, create(b"1", of="sound"))
        for key in (f"{base}hlist", f"{base}qrecords:e1"):
            await client.delete([key])
            await client.rpush(key, ["x"])
        await client.hset(f"{base}hnumber", {"t": "many"})
        await client.hdel(f"{base}hhalf", ["k"])
        for name in names:
            found = await log.head(name)
            assert found is not None
            assert (found.damage is None) == (name == "records")
            refused = append(b"2", to=name, tail=1, records={"open": b"2"})
            assert await kinds(log, refused, append(b"x", to="sound")) == [CorruptSession, StaleEpoch]
            forced = Delete(session_id=name, epoch="e9", token=5, forced=True)
            await store(log, forced, create(b"new", of=name, epoch="e10", token=5, records={"open": b"3"}))
            assert await bodies(log, name, "e10") == [b"new"]
        assert await log.holders("open") == [(name, b"3") for name in sorted(names)]
        assert await bodies(log, "sound") == [b"1"]


async def test_pages_of_a_long_log_are_those_of_any_other(redis_server: RedisServer) -> None:
    chance = random.Random(7)
    memory = MemoryLog()
    async with opened(redis_server.url()) as log:
        writes: list[Write] = []
        for tail in range(0, 3200, 64):
            events = [b"%d" % (tail + number) * chance.randrange(1, 9) for number in range(64)]
            writes.append(append(*events, tail=tail, create=not tail))
        for begin in (1, 500, 999, 1990):
            gone = [offset for offset in range(begin, begin + chance.randrange(1, 1100)) if chance.random() < 0.97]
            for lot in range(0, len(gone), 200):
                whole = {gone[lot] + 1: b"whole" * chance.randrange(99)}
                writes.append(compact(remove=gone[lot : lot + 200], replace=whole))
        for each in (memory, log):
            await store(each, *writes)
        assert await entries(log, page=2000) == await entries(memory, page=2000)
        for _ in range(60):
            asked = {
                "after": chance.randrange(3300),
                "limit": chance.choice([1, 7, 100, 4000]),
                "max_bytes": chance.choice([1, 99, 5000, 1 << 20]),
            }
            assert await log.read("s", "e1", **asked) == await memory.read("s", "e1", **asked)


async def test_pages_over_many_shards_are_those_of_any_other_log(redis_server: RedisServer) -> None:
    chance = random.Random(11)
    memory = MemoryLog()
    async with opened(redis_server.url()) as log:
        names = [f"{chance.choice(['ann', 'bob', 'eve'])}-{chance.randrange(10_000)}" for _ in range(300)]
        writes: list[Write] = []
        for name in dict.fromkeys(names):
            records: dict[str, bytes | None] = {"open": name.encode()} if chance.random() < 0.5 else {}
            rank = chance.choice([None, 0, -5, 2**53 - 1, 1 - 2**53, chance.randrange(100)])
            writes.append(create(of=name, records=records, rank=rank, owner=chance.choice(["", "n1"])))
        writes += [delete(name) for name in dict.fromkeys(chance.sample(names, 40))]
        for each in (memory, log):
            await store(each, *writes)
        for after in ("", "bob", "bob-5", "zoe"):
            for limit in (1, 7, 1000):
                assert await log.heads(after=after, limit=limit) == await memory.heads(after=after, limit=limit)
                assert await log.holders("open", after=after, limit=limit) == await memory.holders(
                    "open", after=after, limit=limit
                )
                for owner in ("", "n1"):
                    assert await log.owned(owner, having=["open"], after=after, limit=limit) == await memory.owned(
                        owner, having=["open"], after=after, limit=limit
                    )
        for prefix in ("", "a", "bob-1", "bob-12", "none"):
            for behind in (None, (50, "bob-5"), (2**53 - 1, "a"), (0, "eve-3"), (1 - 2**53, "zoe")):
                for limit in (1, 20, 1000):
                    assert await log.ranked(prefix=prefix, behind=behind, limit=limit) == await memory.ranked(
                        prefix=prefix, behind=behind, limit=limit
                    )


async def test_nothing_of_a_deleted_life_stays_but_its_tombstone(redis_server: RedisServer) -> None:
    async with opened(redis_server.url(prefix="gone", shards=1)) as log, asking(redis_server) as client:
        events = [b"x"] * 1500
        await store(log, create(*events, records={"open": b"1", "a/b": b"2"}, rank=1, owner="n1"), delete())
        left = {key async for key in client.scan_iter(match="{gone:*")}
        assert {key for key in left if not key.startswith(b"{gone:0}b")} == {b"{gone:0}hs"}
