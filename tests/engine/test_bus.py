"""What engines that share a log tell each other, and their leases: over every bus, and connections that go wrong."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from penstock.engine import Batch, Bus, Config, DatabaseInUse, Engine, Entry, LocalBus, Node, Session, open_engine
from penstock.engine.errors import UnwritableDatabase
from tests.engine.postgres_server import PostgresServer
from tests.engine.proxy import Fault, FaultyProxy
from tests.engine.redis_server import RedisCluster, RedisServer
from tests.engine.stores import until
from tests.engine.writes import append, claim, compact, create, delete, keep, store

if TYPE_CHECKING:
    from penstock.engine.cluster.redis.bus import RedisBus

TTL = 0.3


def node(name: str = "a", incarnation: str = "1", **said: object) -> Node:
    return Node(name=name, incarnation=incarnation, ttl=TTL, **said)  # type: ignore[arg-type]


def batch(*bodies: bytes, session_id: str = "s", first: int = 1) -> Batch:
    return Batch(session_id, "e1", [Entry(first + place, body) for place, body in enumerate(bodies)])


class Heard:
    """What was told, as plain values."""

    def __init__(self) -> None:
        self.told: list[object] = []

    def __call__(self, batch: Batch | None) -> None:
        self.told.append(plain(batch))


def plain(batch: Batch | None) -> object:
    return None if batch is None else (batch.session_id, batch.epoch, list(batch.entries))


@asynccontextmanager
async def redis_bus(url: str, patience: float = 10.0) -> AsyncIterator[RedisBus]:
    from penstock.engine.cluster.redis.bus import open_redis_bus
    from penstock.engine.log.redis.address import Address

    bus = await open_redis_bus(Address.parse(url), patience=patience)
    try:
        yield bus
    finally:
        await bus.aclose()


@pytest.fixture(params=["local", "redis"])
async def buses(request: pytest.FixtureRequest) -> AsyncIterator[tuple[Bus, Bus]]:
    """The same one, as two engines have it."""
    if request.param == "local":
        bus = LocalBus()
        yield bus, bus
    else:
        url = request.getfixturevalue("redis_server").url()
        async with redis_bus(url) as one, redis_bus(url) as other:
            yield one, other


# --- leases


async def test_a_lease_holds_for_its_time_and_a_name_until_nothing_is_left_of_it(buses: tuple[Bus, Bus]) -> None:
    one, other = buses
    said = node(url="http://a:1", version="9", since="then", draining=True, producers=("x", "y"))
    assert not await one.beat(said, TTL)
    assert await other.nodes() == {"a": said}
    assert await one.beat(node(), TTL)
    assert await other.nodes() == {"a": node()}
    await other.retire("a")  # it is there
    assert await other.nodes() == {"a": node()}
    await trio.sleep(TTL + 0.1)
    assert await other.nodes() == {"a": None}
    assert not await one.beat(node(), TTL)  # back
    await one.retire("a", "another")
    assert await other.nodes() == {"a": node()}
    await one.retire("a", "1")
    assert await other.nodes() == {"a": None}
    await other.retire("a")
    assert await other.nodes() == {}
    assert not await one.beat(node(), TTL)
    assert await other.nodes() == {"a": node()}


async def test_the_newer_of_two_incarnations_has_the_name(buses: tuple[Bus, Bus]) -> None:
    one, other = buses
    await one.beat(node(), TTL)
    assert not await other.beat(node(incarnation="2"), TTL)
    for _ in range(2):
        with pytest.raises(DatabaseInUse):
            await one.beat(node(), TTL)
    assert await other.beat(node(incarnation="2"), TTL)
    await one.retire("a", "1")
    assert await one.nodes() == {"a": node(incarnation="2")}
    for number in range(3, 40):
        await other.beat(node(incarnation=f"{number}"), TTL)
    with pytest.raises(DatabaseInUse):
        await one.beat(node(incarnation="38"), TTL)


# --- what is told


async def test_all_is_told_from_when_following_begins_until_it_ends(buses: tuple[Bus, Bus]) -> None:
    one, other = buses
    heard = Heard()
    told = [batch(b"1", b"", "ä\n".encode()), batch(b"4", first=4), None, batch(b"5" * 1000, first=5)]
    leave = await other.follow("s", heard)
    again = await other.follow("s", heard)
    again()
    for each in told:
        one.tell("s", each)
        one.tell("t", each)
    await until(lambda: len(heard.told) == len(told))
    assert heard.told == list(map(plain, told))
    leave()
    one.tell("s", None)
    behind = Heard()
    await other.follow("behind", behind)
    one.tell("behind", None)
    await until(lambda: behind.told == [None])
    leave = await other.follow("s", heard)
    one.tell("s", batch(b"6", first=6))
    await until(lambda: len(heard.told) > len(told))
    assert heard.told[-1] == plain(batch(b"6", first=6))
    leave()


# --- connections


@pytest.fixture
def only_the_bus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody looks at the log now and then."""
    monkeypatch.setattr("penstock.engine.session.views._LOOK", 1000.0)


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that is silent is given up sooner than its 4.5 s."""
    monkeypatch.setattr("penstock.engine.cluster.redis.line._PING", 0.2)
    monkeypatch.setattr("penstock.engine.cluster.redis.line._SILENCE", 0.6)


@asynccontextmanager
async def two(url: str, way: str) -> AsyncIterator[tuple[Engine, Engine]]:
    """The second one's connections go by ``way``."""
    config = Config(lease_ttl=30)
    async with open_engine(url, owner="a", config=config) as a, open_engine(way, owner="b", config=config) as b:
        yield a, b


async def read_all(session: Session, into: list[int]) -> None:
    async with session.subscribe() as subscription:
        async for event in subscription:
            assert event.offset is not None
            into.append(event.offset)


def both(server: RedisServer, proxy: FaultyProxy) -> tuple[str, str]:
    url = server.url()
    return url, url.replace(f":{server.port}/", f":{proxy.port}/")


@pytest.fixture
async def proxy(redis_server: RedisServer, nursery: trio.Nursery) -> FaultyProxy:
    made = FaultyProxy(redis_server.port, b"PING\r\n$3\r\nbus")
    await nursery.start(made.run)
    return made


async def test_a_reader_on_another_node_hears_what_is_stored_at_once(
    redis_server: RedisServer, only_the_bus: None
) -> None:
    url = redis_server.url()
    async with two(url, url) as (a, b), trio.open_nursery() as nursery:
        session = await a.create_session("s")
        heard: list[int] = []
        nursery.start_soon(read_all, await b.session("s"), heard)
        await until(lambda: heard == [1])
        for number in range(2, 12):
            with trio.fail_after(1):  # long before anybody looks
                await session.post("x" * (100_000 if number % 5 == 0 else 1))
                await until(partial(lambda last: heard[-1:] == [last], number))
        assert heard == list(range(1, 12))
        nursery.cancel_scope.cancel()


async def test_the_log_tells_of_each_write_with_it_and_only_that_there_is_a_large_one(
    redis_server: RedisServer,
) -> None:
    from penstock.engine.log.redis.log import open_redis

    url = redis_server.url()
    log = await open_redis(url)
    try:
        async with redis_bus(url) as bus:
            heard = Heard()
            await bus.follow("s", heard)
            await store(log, create(b"0"))
            log.tell_followers()
            events = [b"1", b"2"], [b"x" * 65_536], [b"x" * 65_537], ["ä".encode()]
            tail = 1
            for bodies in events:
                await store(log, append(*bodies, tail=tail))
                tail += len(bodies)
            await store(log, append(tail=tail, records={"r": b"1"}), keep(records={"r": b"2"}), compact(remove=[2]))
            await store(log, claim(seen=1, owner="b"), delete(token=2**20))
            await until(lambda: len(heard.told) == 6)
            told = [batch(b"1", b"2", first=2), batch(b"x" * 65_536, first=4), None, batch("ä".encode(), first=6)]
            assert heard.told == [*map(plain, told), None, None]
    finally:
        await log.aclose()


@pytest.mark.parametrize("fault", ["cut before", "half open"])
async def test_what_happens_while_a_connection_is_gone_is_not_missed(
    redis_server: RedisServer, proxy: FaultyProxy, fault: Fault, only_the_bus: None, hasty: None
) -> None:
    url, way = both(redis_server, proxy)
    async with two(url, way) as (a, b), trio.open_nursery() as nursery:
        session = await a.create_session("s")
        heard: list[int] = []
        nursery.start_soon(read_all, await b.session("s"), heard)
        await until(lambda: heard == [1])
        proxy.fault = fault
        await until(lambda: proxy.befallen == 1)
        for _ in range(5):
            await session.post("x")
        began = trio.current_time()
        await until(lambda: heard == list(range(1, 7)))
        assert trio.current_time() - began <= 5
        nursery.cancel_scope.cancel()


async def test_following_goes_on_when_the_store_was_restarted(own_server: RedisServer) -> None:
    async with redis_bus(own_server.url()) as one:
        heard = Heard()
        await one.follow("s", heard)
        own_server.kill()
        await trio.to_thread.run_sync(own_server.start)
        await until(lambda: heard.told == [None])  # something may have been missed
        one.tell("s", batch(b"1"))
        await until(lambda: len(heard.told) == 2)
        assert heard.told == [None, plain(batch(b"1"))]


async def test_following_waits_for_no_store_that_is_away_and_is_told_later(own_server: RedisServer) -> None:
    async with redis_bus(own_server.url()) as bus:
        one, other = Heard(), Heard()
        await bus.follow("s", one)
        own_server.kill()
        with trio.fail_after(1):
            await bus.follow("t", other)  # whether it is known by then or not
            await bus.follow("u", other)
        assert one.told == other.told == []
        await trio.to_thread.run_sync(own_server.start)
        await until(lambda: one.told == [None] and other.told == [None, None])


async def test_what_cannot_be_told_in_time_is_dropped_and_nothing_piles_up(own_server: RedisServer) -> None:
    async with redis_bus(own_server.url(), patience=0.5) as bus:
        heard = Heard()
        await bus.follow("s", heard)
        own_server.pause()
        for _ in range(200):
            bus.tell("s", batch(b"x" * 60_000))
        assert bus._waiting < 5 * 1024 * 1024
        own_server.go_on()
        await until(lambda: bus._waiting == 0)
        await until(lambda: 60 < len(heard.told) < 100)


async def test_a_bus_that_is_none_is_refused_without_its_password(redis_server: RedisServer) -> None:
    for url in ("postgres://me:s3cret@127.0.0.1/db", "redis://:s3cret@127.0.0.1:1/0", "s3cret"):
        with pytest.raises(UnwritableDatabase) as refused:
            async with open_engine(":memory:", owner="a", bus=url):
                pass
        assert "s3cret" not in f"{refused.value!r} {refused.value.__cause__!r}"


@pytest.mark.long
async def test_channels_of_a_cluster_are_followed_where_they_are(tmp_path: Path) -> None:
    cluster = RedisCluster(tmp_path)
    try:
        cluster.start()
        url = cluster.url(shards=8)
        names = [f"s{number}" for number in range(24)]
        async with redis_bus(url) as one, redis_bus(url) as other:
            heard = {name: Heard() for name in names}
            for name in names:
                await one.follow(name, heard[name])
            for name in names:
                other.tell(name, batch(b"1", session_id=name))
            await until(lambda: all(heard[name].told == [plain(batch(b"1", session_id=name))] for name in names))
            assert await one.beat(node(), 60) is False
            assert await other.nodes() == {"a": node()}
            cluster.nodes[1].kill()
            await trio.sleep(0.5)
            await trio.to_thread.run_sync(cluster.nodes[1].start)
            await until(lambda: any(heard[name].told[1:] == [None] for name in names))
            for name in names:
                heard[name].told.clear()
            await trio.sleep(1)
            for name in names:
                other.tell(name, None)
            await until(lambda: all(heard[name].told for name in names))
    finally:
        cluster.kill()


@pytest.mark.long
async def test_two_engines_over_a_cluster_hear_of_each_other(tmp_path: Path, only_the_bus: None) -> None:
    cluster = RedisCluster(tmp_path)
    try:
        cluster.start()
        url = cluster.url(shards=8)
        async with two(url, url) as (a, b), trio.open_nursery() as nursery:
            for number in range(12):
                session = await a.create_session(f"s{number}")
                heard: list[int] = []
                nursery.start_soon(read_all, await b.session(f"s{number}"), heard)
                await until(partial(lambda heard: heard == [1], heard))
                await session.post("x")
                await until(partial(lambda heard: heard == [1, 2], heard))
            nursery.cancel_scope.cancel()
    finally:
        cluster.kill()


@pytest.mark.long
async def test_engines_over_a_postgres_hear_of_each_other_over_a_redis(
    postgres_server: PostgresServer, redis_server: RedisServer, only_the_bus: None
) -> None:
    url, bus = postgres_server.url(), redis_server.url()
    config = Config(lease_ttl=0.8)
    async with (
        open_engine(url, owner="b", bus=bus, config=config) as b,
        open_engine(url, owner="a", bus=bus, config=config) as a,
        trio.open_nursery() as nursery,
    ):
        session = await a.create_session("s")
        heard: list[int] = []
        nursery.start_soon(read_all, await b.session("s"), heard)
        await until(lambda: heard == [1])
        for number in range(2, 8):
            await session.post("x")
            await until(partial(lambda last: heard[-1:] == [last], number))
        assert heard == list(range(1, 8))
        await until(lambda: [node.name for node in b.nodes()] == ["a", "b"])
        nursery.cancel_scope.cancel()


async def test_who_may_not_follow_is_told_once_and_not_kept_waiting(
    own_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    import coredis

    async with coredis.Redis(port=own_server.port) as client:
        await client.acl_setuser("mute", "on", ">open-sesame", "~*", "+@all", "resetchannels")
    async with redis_bus(f"redis://mute:open-sesame@127.0.0.1:{own_server.port}/0") as bus:
        with trio.fail_after(2):
            for name in ("s", "t"):
                await bus.follow(name, Heard())
        await trio.sleep(1)
    assert caplog.text.count("does not arrive") == 1
    assert "sesame" not in caplog.text


async def test_a_bus_that_is_closed_leaves_nobody_waiting(own_server: RedisServer) -> None:
    async with redis_bus(own_server.url()) as bus, trio.open_nursery() as nursery:
        await bus.follow("s", Heard())
        own_server.pause()
        nursery.start_soon(bus.follow, "t", Heard())
        await trio.sleep(0.1)
        await bus.aclose()
