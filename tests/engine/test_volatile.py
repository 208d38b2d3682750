"""What engines know together for a while: the same of one process, and in a Redis by its server's clock."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import pytest
import trio

from penstock.engine import LocalBus, open_engine
from penstock.engine.stream.bus import Bus
from penstock.engine.stream.volatile import Place, Volatile
from tests.engine.producers import Steered
from tests.engine.redis_server import RedisCluster, RedisServer
from tests.engine.stores import until
from tests.engine.test_together import Following, Roll, ended_of, names, page

HERE: Final[Place] = ("s", "e1", "present")
READING: Final[Place] = ("s", "e1", "reading")

# One that is to last, and one that is to end: seconds, by the clock of a server that may be slow.
LONG, SHORT = 600.0, 0.05


@asynccontextmanager
async def bus_at(url: str) -> AsyncIterator[Bus]:
    from penstock.engine.cluster.redis.bus import open_redis_bus
    from penstock.engine.log.redis.address import Address

    bus = await open_redis_bus(Address.parse(url))
    try:
        yield bus
    finally:
        await bus.aclose()


@pytest.fixture(params=["local", "redis", pytest.param("redis-cluster", marks=pytest.mark.long)])
async def volatile(request: pytest.FixtureRequest) -> AsyncIterator[Volatile]:
    if request.param == "local":
        yield LocalBus().volatile
        return
    if request.param == "redis":
        server: RedisServer = request.getfixturevalue("redis_server")
        url = server.url()
    else:
        cluster: RedisCluster = request.getfixturevalue("redis_cluster")
        url = cluster.url()
    async with bus_at(url) as bus:
        yield bus.volatile


async def listed(volatile: Volatile, place: Place = HERE) -> dict[str, bytes]:
    (here,) = await volatile.listed([place])
    return dict(here)


async def test_an_entry_says_what_was_put_last_until_its_time_is_over(volatile: Volatile) -> None:
    odd = b"\x00\xff\n"
    assert await volatile.put(HERE, "b", b"1", ttl=LONG) is True
    assert await volatile.put(HERE, "a", odd, ttl=LONG) is True
    assert await volatile.put(HERE, "b", b"1", ttl=LONG) is False
    assert await volatile.put(HERE, "n", b"", ttl=SHORT) is True
    assert await volatile.put(HERE, "a", b"2", ttl=LONG) is True
    assert await volatile.put(HERE, "a", odd, ttl=LONG) is True
    await trio.sleep(2 * SHORT)
    assert list((await listed(volatile)).items()) == [("b", b"1"), ("a", odd)]
    assert await volatile.put(HERE, "n", b"", ttl=LONG) is True
    assert list(await listed(volatile)) == ["b", "a", "n"]
    assert await volatile.drop(HERE, ["b", "x"]) is True
    assert await volatile.drop(HERE, ["b", "x"]) is False
    assert await volatile.put(HERE, "b", b"1", ttl=LONG) is True
    assert list(await listed(volatile)) == ["a", "n", "b"]


async def test_each_place_is_by_itself_also_a_former_life(volatile: Volatile) -> None:
    places: list[Place] = [HERE, READING, ("s", "e2", "present"), ("t", "e1", "present")]
    for number, place in enumerate(places):
        assert await volatile.put(place, "a", b"%d" % number, ttl=LONG)
    assert [dict(here) for here in await volatile.listed([*reversed(places), ("u", "e1", "present")])] == [
        *({"a": b"%d" % number} for number in (3, 2, 1, 0)),
        {},
    ]


async def test_there_is_room_for_so_many_and_who_is_gone_makes_room(volatile: Volatile) -> None:
    assert await volatile.put(HERE, "a", b"", ttl=SHORT, limit=2) is True
    assert await volatile.put(HERE, "b", b"", ttl=LONG, limit=2) is True
    await volatile.put(HERE, "a", b"", ttl=LONG, limit=2)
    assert await volatile.put(HERE, "c", b"", ttl=LONG, limit=2) is None
    assert await volatile.put(HERE, "a", b"new", ttl=SHORT, limit=2) is True
    await trio.sleep(2 * SHORT)
    assert await volatile.put(HERE, "c", b"", ttl=LONG, limit=2) is True
    assert list(await listed(volatile)) == ["b", "c"]


async def test_one_entry_that_ends_does_not_end_the_others(volatile: Volatile) -> None:
    await volatile.put(HERE, "a", b"", ttl=LONG)
    await volatile.put(HERE, "b", b"", ttl=SHORT)
    await trio.sleep(2 * SHORT)
    assert list(await listed(volatile)) == ["a"]


async def test_a_ticket_is_used_up_once(volatile: Volatile) -> None:
    taken: list[bool] = []

    async def redeem() -> None:
        taken.append(await volatile.redeem("t", LONG))

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(redeem)
    assert taken.count(True) == 1
    assert await volatile.redeem("u", SHORT)
    await trio.sleep(2 * SHORT)
    assert await volatile.redeem("u", LONG)
    assert not await volatile.redeem("u", LONG)


async def test_what_changed_is_numbered_in_order_each_session_once(volatile: Volatile) -> None:
    nothing = await volatile.noted(0)
    assert (nothing.number, nothing.forgotten, list(nothing.sessions)) == (0, 0, [])
    await volatile.note(["a", "b", "c"], keep=3)
    await volatile.note(["b"], keep=3)
    noted = await volatile.noted(0)
    assert noted.epoch == nothing.epoch
    assert (noted.number, noted.forgotten, list(noted.sessions)) == (4, 0, [(1, "a"), (3, "c"), (4, "b")])
    assert list((await volatile.noted(3)).sessions) == [(4, "b")]
    assert list((await volatile.noted(0, limit=2)).sessions) == [(1, "a"), (3, "c")]
    await volatile.note(["d", "e"], keep=3)
    noted = await volatile.noted(0)
    assert (noted.number, noted.forgotten, list(noted.sessions)) == (6, 3, [(4, "b"), (5, "d"), (6, "e")])


async def test_a_redis_keeps_nothing_of_who_is_gone(redis_server: RedisServer) -> None:
    import coredis

    url = redis_server.url(prefix="nobody")
    async with bus_at(url) as bus, coredis.Redis(port=redis_server.port) as client:
        for number in range(5):
            await bus.volatile.put(HERE, f"{number}", b"", ttl=SHORT)
        await trio.sleep(2 * SHORT)
        await bus.volatile.put(HERE, "last", b"", ttl=LONG)
        (key,) = [key async for key in client.scan_iter("{nobody:*}yp*")]
        assert await client.hlen(key) == 2
        await bus.volatile.put(READING, "a", b"", ttl=SHORT)
        await trio.sleep(2 * SHORT)
        assert [key async for key in client.scan_iter("{nobody:*}yr*")] == []


# --- two engines over a Redis


#
async def test_two_engines_over_a_redis_know_together_who_is_present_who_reads_and_what_changed(
    redis_server: RedisServer,
) -> None:
    url = redis_server.url()
    async with (
        open_engine(url, owner="a") as a,
        open_engine(url, owner="b") as b,
        trio.open_nursery() as nursery,
    ):
        following = Following(b.watch())
        nursery.start_soon(following)
        await until(lambda: following.caught_up)
        here = await a.create_session("s")
        there = await b.session("s")
        async with here.subscribe() as first, there.subscribe() as second:
            rolls = Roll(first), Roll(second)
            for roll in rolls:
                nursery.start_soon(roll)
            await until(lambda: all(roll.here is not None for roll in rolls))
            await here.put_presence("ann", "phone")
            await there.put_presence("bob", "desk", status="typing")
            await until(lambda: all(names(roll) == ["ann/phone", "bob/desk"] for roll in rolls))
            await there.drop_presence("ann")
            await until(lambda: all(names(roll) == ["bob/desk"] for roll in rolls))
            assert [each.actor_id for each in await here.presence()] == ["bob"]
        async with there.subscribe():
            await here.start(Steered(), on_last_disconnect=0)
            await trio.sleep(0.2)
            assert await ended_of(here) == []
            await here.stop()
        await here.post("about s")
        expected = await page(a)
        await until(lambda: following.listed == expected)
        again = Following(a.watch(following.cursor))
        nursery.start_soon(again)
        await until(lambda: again.caught_up)
        assert again.gaps == []
        nursery.cancel_scope.cancel()
