"""A Redis whose primary dies, and another takes its place: by Sentinels, in a Cluster, with replicas that have all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio

from penstock.engine import EventLog, open_engine
from penstock.engine.errors import UnwritableDatabase, WentBack, WriteFailed
from penstock.engine.log.opening import open_log
from tests.engine.proxy import FaultyProxy
from tests.engine.redis_server import RedisCluster, RedisServer, Sentinels, valkey
from tests.engine.writes import append, bodies, create, kinds, store

pytestmark = pytest.mark.long


@contextmanager
def pair(folder: Path, program: str = "", *, follows: bool = True) -> Iterator[tuple[RedisServer, RedisServer]]:
    """A primary and its replica."""
    made = []
    try:
        for name in ("primary", "replica"):
            (folder / name).mkdir()
            made.append(RedisServer(folder / name, program))
            made[-1].start()
        if follows:
            made[1].follow(made[0])
        yield made[0], made[1]
    finally:
        for server in made:
            server.go_on()
            server.kill()


async def written(log: EventLog, count: int, at: int, then: Callable[[], None], of: str = "s") -> None:
    """So many events, one after the other; ``then`` is called on the way."""
    for number in range(2, count + 2):
        if number == at:
            then()
        await store(log, append(b"%d" % number, to=of, tail=number - 1))
    assert await bodies(log, of=of) == [b"%d" % number for number in range(1, count + 2)]


async def test_sentinels_name_another_primary_and_writes_wait_for_it(tmp_path: Path) -> None:
    with pair(tmp_path) as (primary, replica):
        sentinels = Sentinels(tmp_path, primary)
        try:
            sentinels.start()
            log = await open_log(sentinels.url())
            await store(log, create(b"1"))

            def fail_over() -> None:
                replica.caught_up(primary)
                primary.kill()

            await written(log, 200, 50, fail_over)
            assert log.statistics().went_back == 0
            assert replica.ask("role").startswith("master")
            await log.aclose()
            # What was the primary comes back as a replica, and a new process finds the right one.
            primary.start()
            log = await open_log(sentinels.url())
            await store(log, append(b"202", tail=201))
            await log.aclose()
        finally:
            sentinels.kill()


async def test_an_engine_goes_on_behind_sentinels(tmp_path: Path) -> None:
    with pair(tmp_path) as (primary, replica):
        sentinels = Sentinels(tmp_path, primary)
        try:
            sentinels.start()
            async with open_engine(sentinels.url(), owner="a") as engine:
                session = await engine.create_session("s")
                for number in range(20):
                    if number == 10:
                        replica.caught_up(primary)
                        primary.kill()
                    await session.post(f"{number}")
                texts = [block.text for message in (await session.snapshot()).messages for block in message.blocks]
                assert texts == [f"{number}" for number in range(20)]
                assert engine.statistics().log.went_back == 0
        finally:
            sentinels.kill()


async def test_a_replica_in_a_cluster_takes_the_place_of_its_primary(tmp_path: Path) -> None:
    cluster = RedisCluster(tmp_path, replicas=1)
    try:
        cluster.start()
        cluster.caught_up()
        url = cluster.url()
        log = await open_log(url)
        await store(log, *(create(b"1", of=f"s{number}") for number in range(8)))

        def fail_over() -> None:
            cluster.caught_up()
            cluster.primary_of(log._layout.base("s0")).kill()  # type: ignore[attr-defined]

        await written(log, 30, 10, fail_over, of="s0")
        for number in range(1, 8):
            await store(log, append(b"2", to=f"s{number}", tail=1))
        assert log.statistics().went_back == 0
        await log.aclose()
    finally:
        cluster.kill()


async def test_slots_move_while_their_sessions_are_written_in(tmp_path: Path) -> None:
    cluster = RedisCluster(tmp_path)
    try:
        cluster.start()
        log = await open_log(cluster.url(shards=4))
        await store(log, create(b"1"))
        base = log._layout.base("s")  # type: ignore[attr-defined]
        source = cluster.primary_of(base)
        target = next(node for node in cluster.nodes if node is not source)
        slot = source.ask("cluster", "keyslot", base).strip()
        ids = {node: node.ask("cluster", "myid").strip() for node in cluster.nodes}

        async def move() -> None:
            target.ask("cluster", "setslot", slot, "importing", ids[source])
            source.ask("cluster", "setslot", slot, "migrating", ids[target])
            while keys := source.ask("cluster", "getkeysinslot", slot, "1").split():
                await trio.sleep(0.02)
                source.ask("migrate", "127.0.0.1", str(target.port), "", "0", "5000", "keys", *keys)
            for node in cluster.nodes:
                node.ask("cluster", "setslot", slot, "node", ids[target])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(move)
            for number in range(2, 60):
                await store(log, append(b"%d" % number, tail=number - 1))
        assert await bodies(log) == [b"%d" % number for number in range(1, 60)]
        assert cluster.primary_of(base) is target
        assert log.statistics().went_back == 0
        await log.aclose()
    finally:
        cluster.kill()


# --- replicas


async def test_a_redis_that_cannot_say_what_replicas_have_is_refused(redis_server: RedisServer) -> None:
    if "redis_version:7.0" not in redis_server.ask("info", "server"):
        pytest.skip("this one can")
    for url, replicas in ((redis_server.url(), 1), (redis_server.url() + "&replicas=1", 0)):
        with pytest.raises(UnwritableDatabase, match=r"its version is 7\.0.*takes 7\.2"):
            await open_log(url, replicas=replicas)


async def test_what_is_acknowledged_is_on_a_replica_however_the_primary_ends(
    tmp_path: Path, nursery: trio.Nursery
) -> None:
    with pair(tmp_path, valkey()) as (primary, replica):
        proxy = FaultyProxy(primary.port)
        await nursery.start(proxy.run)
        log = await open_log(primary.url(port=proxy.port), replicas=1, patience=2.0)
        await store(log, create(b"1"))
        for number in range(2, 30):
            await store(log, append(b"%d" % number, tail=number - 1))
        proxy.to = replica.port
        primary.kill()
        replica.promote()
        assert await bodies(log) == [b"%d" % number for number in range(1, 30)]
        await log.aclose()


async def test_nothing_is_acknowledged_that_no_replica_has(tmp_path: Path) -> None:
    with pair(tmp_path, valkey()) as (primary, replica):
        log = await open_log(primary.url(), replicas=1, patience=3.0)
        await store(log, create(b"1"))
        replica.pause()
        with trio.move_on_after(1.5) as waited:
            await log.write(append(b"2", tail=1))
        assert waited.cancelled_caught
        assert log.statistics().trouble == "the store refuses what it is asked: it has too few replicas"
        replica.go_on()
        await store(log, append(b"3", tail=2))
        assert log.statistics().trouble is None
        assert await bodies(log) == [b"1", b"2", b"3"]
        replica.pause()
        assert await kinds(log, append(b"4", tail=3)) == [WriteFailed]
        replica.go_on()
        await log.aclose()


async def test_a_round_that_no_replica_had_may_be_gone_and_no_cursor_names_another(
    tmp_path: Path, nursery: trio.Nursery
) -> None:
    with pair(tmp_path, valkey()) as (primary, replica):
        proxy = FaultyProxy(primary.port)
        await nursery.start(proxy.run)
        log = await open_log(primary.url(port=proxy.port))
        await store(log, create(b"1"))
        replica.caught_up(primary)
        replica.promote()
        await store(log, append(b"2", tail=1))
        proxy.to = replica.port
        primary.kill()
        assert await kinds(log, append(b"3", tail=2)) == [WentBack]
        await log.aclose()


async def test_readers_of_another_engine_hear_of_an_event_once_a_replica_has_it(tmp_path: Path) -> None:
    with pair(tmp_path, valkey()) as (primary, replica):
        url = primary.url() + "&replicas=1"
        async with open_engine(url, owner="a") as a, open_engine(url, owner="b") as b:
            session = await a.create_session("s")
            async with (await b.session("s")).subscribe() as there:
                for _ in range(4):
                    await there.receive()
                replica.pause()
                async with trio.open_nursery() as posting:
                    posting.start_soon(session.post, "1")
                    with trio.move_on_after(1) as waited:
                        await there.receive()
                    assert waited.cancelled_caught
                    replica.go_on()
                    with trio.fail_after(10):
                        await there.receive()
