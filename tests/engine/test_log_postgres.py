"""The log in a Postgres: through cut connections and restarts, between two engines, and what it refuses."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio

from penstock.engine import open_engine
from penstock.engine.errors import (
    CorruptSession,
    DatabaseError,
    IdInUse,
    NewerSchema,
    PenstockError,
    StaleEpoch,
    StaleToken,
    StorageError,
    UnwritableDatabase,
    WriteFailed,
)
from penstock.engine.log import EventLog, MemoryLog, Write
from penstock.engine.log.opening import open_log
from tests.engine.postgres_server import PASSWORD, PostgresServer, binaries
from tests.engine.proxy import Fault, FaultyProxy, each_fault
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
    import psycopg

# An answer that has not come after so many seconds is asked for again: far above what any here takes.
WITHIN = 1.5

pytestmark = pytest.mark.long


@asynccontextmanager
async def opened(url: str, *, patience: float = 10.0, allow_weak_store: bool = False) -> AsyncIterator[EventLog]:
    from penstock.engine.log.postgres.log import open_postgres

    log = await open_postgres(url, patience=patience, within=WITHIN, allow_weak_store=allow_weak_store)
    try:
        yield log
    finally:
        await log.aclose()


@contextmanager
def asking(url: str) -> Iterator[psycopg.Connection[Any]]:
    """A client of another's."""
    import psycopg

    place, _, schema = url.partition("?schema=")
    with psycopg.connect(place, autocommit=True, options=f"-c search_path={schema}") as connection:
        yield connection


@asynccontextmanager
async def set_for_all(url: str, name: str, value: str) -> AsyncIterator[None]:
    """The server has a setting for as long as this lasts; else it has the one it comes with."""

    async def change(how: str, reached: Callable[[str], bool]) -> None:
        connection.execute("SET default_transaction_read_only = off")
        connection.execute(f"ALTER SYSTEM {how}")
        connection.execute("SELECT pg_reload_conf()")
        await until(lambda: reached(shown(url, name)))

    with asking(url) as connection:
        before = shown(url, name)
        try:
            await change(f"SET {name} = {value}", value.__eq__)
            yield
        finally:
            await change(f"RESET {name}", before.__eq__)


def shown(url: str, name: str) -> str:
    with asking(url) as connection:
        ((value,),) = connection.execute(f"SHOW {name}").fetchall()
        return str(value)


@pytest.fixture
def own_server() -> Iterator[PostgresServer]:
    """One that a test may do harm."""
    server = PostgresServer()
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture
async def proxy(postgres_server: PostgresServer, nursery: trio.Nursery) -> FaultyProxy:
    made = FaultyProxy(postgres_server.port, b"SELECT write_", b"SELECT compact_", b"FROM events")
    await nursery.start(made.run)
    return made


# --- connections


@each_fault
async def test_a_round_is_carried_out_once_whatever_becomes_of_its_connection(
    postgres_server: PostgresServer, proxy: FaultyProxy, fault: Fault
) -> None:
    async with opened(postgres_server.url(port=proxy.port)) as log:
        await store(log, create(b"1"))
        proxy.fault = fault
        await store(log, append(b"2", tail=1, records={"open": b"1"}))
        await log.write(keep(records={"open": b"2"}))
        proxy.fault = fault
        await store(log, compact(replace={1: b"one"}, forget={"open": b"2"}))
        assert proxy.befallen == 2
        assert await bodies(log) == [b"one", b"2"]
        assert await log.head("s") == head(tail=2)
        assert await log.holders("open") == []
        assert log.statistics().trouble is None


@each_fault
async def test_a_read_is_asked_again_whatever_becomes_of_its_connection(
    postgres_server: PostgresServer, proxy: FaultyProxy, fault: Fault
) -> None:
    async with opened(postgres_server.url(port=proxy.port)) as log:
        await store(log, create(b"1", b"2"))
        proxy.fault = fault
        assert await bodies(log) == [b"1", b"2"]
        assert proxy.befallen == 1


async def test_a_round_that_arrives_behind_the_next_one_changes_nothing(
    postgres_server: PostgresServer, proxy: FaultyProxy
) -> None:
    async with opened(postgres_server.url(port=proxy.port), patience=0.0) as log:
        await store(log, create(b"1"))
        proxy.fault = "late"
        assert await kinds(log, keep(records={"r": b"late"}), append(b"x", tail=1)) == [WriteFailed] * 2
        await store(log, keep(records={"r": b"now"}), append(b"2", tail=1))
        await proxy.deliver()
        assert await bodies(log) == [b"1", b"2"]
        assert await log.records("s", "e1") == {"r": b"now"}
        assert await log.head("s") == head(tail=2)


async def test_a_verdict_is_remembered_whatever_it_was(postgres_server: PostgresServer, proxy: FaultyProxy) -> None:
    def asked() -> list[Write]:
        return [
            create(of="t", owner="a"),
            append(b"x", tail=7),
            append(b"2", tail=1),
            append(b"x", tail=1, to="nobody"),
            claim(seen=9, owner="b"),
            delete(),
            keep(records={"r": b"x"}),
            create(of="t", epoch="e2"),
        ]

    expected = [None, StaleEpoch, None, StaleEpoch, StaleToken, None, StaleEpoch, IdInUse]
    async with opened(postgres_server.url(port=proxy.port)) as log:
        await store(log, create(b"1", owner="a"))
        proxy.fault = "cut after"
        assert await kinds(log, *asked()) == expected
        assert proxy.befallen == 1


async def test_a_write_that_cannot_be_stored_takes_no_other_with_it(postgres_server: PostgresServer) -> None:
    url = postgres_server.url()
    async with opened(url) as log:
        await store(log, create(b"1"), create(b"1", of="t"), create(b"1", of="damaged"))
        with asking(url) as connection:
            connection.execute("INSERT INTO events SELECT life, 2, 'x' FROM sessions WHERE id = 'damaged'")
        assert await kinds(
            log,
            append(b"2", tail=1),
            append(b"x", to="t", tail=1, records={"no\x00text": b"x"}),
            append(b"x", to="t", tail=1, records={"no\ud800text": b"x"}),
            append(b"x", to="damaged", tail=1),
            append(b"2", to="t", tail=1),
        ) == [None, WriteFailed, WriteFailed, CorruptSession, None]
        assert await bodies(log, "t") == await bodies(log) == [b"1", b"2"]
        assert await log.records("t", "e1") == {}


# --- restarts


async def test_what_was_acknowledged_is_there_once_and_in_order_when_the_store_was_killed(
    own_server: PostgresServer,
) -> None:
    await kill_under_load(own_server, opened, kills=1, pause=0.3)


@pytest.mark.long
async def test_what_was_acknowledged_outlives_many_kills(own_server: PostgresServer) -> None:
    await kill_under_load(own_server, opened, kills=12, pause=0.5)


@pytest.mark.long
async def test_a_store_that_restarts_or_hangs_is_waited_for(own_server: PostgresServer) -> None:
    async with opened(own_server.url()) as log:
        await store(log, create(b"1"))
        own_server.restart()
        await store(log, append(b"2", tail=1))
        assert await bodies(log) == [b"1", b"2"]
        own_server.pause()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store, log, append(b"3", tail=2))
            await until(lambda: log.statistics().trouble is not None)
            own_server.go_on()
        assert await bodies(log) == [b"1", b"2", b"3"]
        assert log.statistics().trouble is None


@pytest.mark.long
async def test_a_store_that_stays_away_fails_what_waits_and_is_taken_again_when_it_is_back(
    own_server: PostgresServer,
) -> None:
    async with opened(own_server.url(), patience=0.3) as log:
        await store(log, create(b"1"))
        own_server.kill()
        (error,) = await outcomes(log, append(b"x", tail=1))
        assert isinstance(error, WriteFailed)
        assert error.whole
        with trio.fail_after(1):  # it is known by now: nobody waits again
            assert await kinds(log, append(b"x", tail=1)) == [WriteFailed]
            with pytest.raises(StorageError):
                await log.head("s")
        assert "away" in str(log.statistics().trouble)
        await trio.to_thread.run_sync(own_server.start)
        await until(lambda: log.statistics().trouble is None)  # noticed without anybody's asking
        await store(log, append(b"2", tail=1))
        assert await bodies(log) == [b"1", b"2"]


async def test_a_store_that_takes_no_writes_for_a_while_is_waited_for(postgres_server: PostgresServer) -> None:
    url = postgres_server.url()
    async with opened(url) as log:
        await store(log, create(b"1"))
        async with trio.open_nursery() as nursery, set_for_all(url, "default_transaction_read_only", "on"):
            nursery.start_soon(store, log, append(b"2", tail=1))
            await until(lambda: log.statistics().trouble is not None)
            assert await bodies(log) == [b"1"]
        assert await bodies(log) == [b"1", b"2"]


# --- several engines


async def test_of_two_that_write_at_once_each_is_told_what_became_of_its_own(postgres_server: PostgresServer) -> None:
    """Over sessions that both use, in opposite orders: none waits for the other for ever, and none is stored twice."""
    names = [f"s{number:02}" for number in range(12)]
    landed: dict[str, list[bytes]] = {name: [] for name in names}
    refused = 0

    async def write(log: EventLog, who: bytes, order: list[str]) -> None:
        nonlocal refused
        for number in range(25):
            tails = await log.living(names)
            writes = [append(b"%s%d" % (who, number), to=name, tail=tails[name].tail) for name in order]
            for write, error in zip(writes, await outcomes(log, *writes), strict=True):
                assert error is None or isinstance(error, StaleEpoch)
                refused += error is not None
                if error is None:
                    landed[write.session_id] += write.events

    url = postgres_server.url()
    async with opened(url) as one, opened(url) as other:
        await store(one, *(create(of=name) for name in names))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(write, one, b"a", names)
            nursery.start_soon(write, other, b"b", names[::-1])
        for name in names:
            assert sorted(await bodies(one, name)) == sorted(landed[name])
        assert refused
        assert one.statistics().failed_writes == other.statistics().failed_writes == 0


async def test_two_that_write_to_the_same_sessions_never_hold_each_other_up_for_good(
    postgres_server: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    url = postgres_server.url()
    async with opened(url) as one, opened(url) as other:
        await store(one, create(of="s1"), create(of="s2"))
        async with trio.open_nursery() as nursery:
            with asking(url) as connection, connection.transaction():
                connection.execute("SELECT FROM sessions WHERE id = 's2' FOR UPDATE")
                nursery.start_soon(store, one, keep("s2", records={"a": b"1"}), keep("s1", records={"a": b"1"}))
                await trio.sleep(0.1)
                nursery.start_soon(store, other, keep("s1", records={"b": b"1"}), keep("s2", records={"b": b"1"}))
                await trio.sleep(0.1)
        for name in ("s1", "s2"):
            assert await one.records(name, "e1") == {"a": b"1", "b": b"1"}
        assert "refuses" not in caplog.text  # Postgres had to end no deadlock


async def test_of_two_that_create_or_claim_one_session_at_once_one_gets_it(postgres_server: PostgresServer) -> None:
    async def take(log: EventLog, write: Write) -> None:
        told.append(*await outcomes(log, write))

    url = postgres_server.url()
    async with opened(url) as one, opened(url) as other:
        for number in range(20):
            name = f"s{number}"
            both: tuple[list[Write], list[Write]] = (
                [create(of=name, owner=owner) for owner in "ab"],
                [claim(name, seen=1, owner=owner) for owner in "ab"],
            )
            for writes in both:
                told: list[PenstockError | None] = []
                async with trio.open_nursery() as nursery:
                    for log, write in zip((one, other), writes, strict=True):
                        nursery.start_soon(take, log, write)
                assert sorted(error is None for error in told) == [False, True]
                assert all(error is None or isinstance(error, IdInUse | StaleToken) for error in told)


@pytest.mark.long
async def test_who_holds_a_lock_for_long_holds_up_its_own_session_and_fails_nobody(
    postgres_server: PostgresServer,
) -> None:
    url = postgres_server.url()
    async with opened(url) as log:
        await store(log, create(b"1"))
        with asking(url) as connection, connection.transaction():
            connection.execute("SELECT FROM sessions WHERE id = 's' FOR UPDATE")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(store, log, append(b"2", tail=1))
                await until(lambda: log.statistics().trouble is not None)
                assert await bodies(log) == [b"1"]
                nursery.cancel_scope.cancel()
        await until(lambda: log.statistics().waiting == 0)
        assert await bodies(log) == [b"1", b"2"]


# --- opening


async def test_two_that_open_a_new_store_at_once_make_it_once(postgres_server: PostgresServer) -> None:
    url = postgres_server.url()
    opened_logs: list[EventLog] = []

    async def open_one() -> None:
        opened_logs.append(await open_log(url))

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(open_one)
    await store(opened_logs[0], create(b"1"))
    for log in opened_logs:
        assert await bodies(log) == [b"1"]
        await log.aclose()


@pytest.mark.parametrize("name", ["fsync", "synchronous_commit", "full_page_writes"])
async def test_a_store_that_may_lose_something_is_refused_unless_it_is_wanted(
    postgres_server: PostgresServer, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    url = postgres_server.url()
    async with set_for_all(url, name, "off"):
        with pytest.raises(UnwritableDatabase) as refused:
            await open_log(url)
        assert f"{name} is off" in refused.value.detail
        assert "lost" in refused.value.detail
        async with opened(url, allow_weak_store=True) as log:
            await store(log, create(b"1"))
        assert f"{name} is off" in caplog.text


async def test_what_cannot_be_a_store_is_refused_with_what_to_do(postgres_server: PostgresServer) -> None:
    url = postgres_server.url(schema="other_things")
    with asking(url) as connection:
        connection.execute("CREATE SCHEMA other_things")
        connection.execute("CREATE TABLE other_things.sessions (id integer)")
        connection.execute("CREATE DATABASE old ENCODING 'SQL_ASCII' TEMPLATE template0")
        connection.execute("CREATE USER nobody PASSWORD 'none'")
    foreign = url.replace("penstock:" + PASSWORD, "nobody:none").replace("other_things", "nobodys")
    for place, told in (
        (url, "another schema"),
        (url.replace("/postgres?", "/old?"), "UTF8"),
        (url.replace("/postgres?", "/missing?"), "missing"),
        (foreign, "make tables"),
    ):
        with trio.fail_after(5), pytest.raises(UnwritableDatabase) as refused:
            await open_log(place)
        assert told in refused.value.detail
    with asking(url) as connection:
        assert connection.execute("SELECT to_regclass('events')").fetchall() == [(None,)]


async def test_a_store_of_a_newer_version_is_refused(postgres_server: PostgresServer) -> None:
    url = postgres_server.url()
    async with opened(url) as log:
        await store(log, create(b"1"))
    with asking(url) as connection:
        connection.execute("UPDATE penstock SET version = 2")
    with pytest.raises(NewerSchema):
        await open_log(url)


async def test_nobody_is_told_a_password(postgres_server: PostgresServer, caplog: pytest.LogCaptureFixture) -> None:
    url = postgres_server.url(password="wr%40ng-s3cret")
    for wrong in (
        url,
        url.replace("127.0.0.1:", "127.0.0.1:port"),
        url.replace("?schema=", "?schema=1"),
        url + "&other=1",
        url + "&sslmode=none",
        url + "&&",
        url.replace("wr%40ng", "%zz%"),
        url.replace("wr%40ng-", "1/"),
        url.replace("wr%40ng-", "1?"),
        url.replace("penstock:", "penstock:@:"),
    ):
        with trio.fail_after(5), pytest.raises(DatabaseError) as refused:
            await open_log(wrong, patience=0.2)
        assert "s3cret" not in f"{refused.value!r} {refused.value.__cause__!r}"
    async with opened(postgres_server.url(password=PASSWORD)) as log:
        await store(log, create(b"1"))
        assert PASSWORD not in repr(log)
    assert "s3cret" not in caplog.text
    assert PASSWORD not in caplog.text


async def test_a_store_that_is_not_there_is_waited_for_and_then_named() -> None:
    binaries()
    with trio.fail_after(10), pytest.raises(UnwritableDatabase) as refused:
        await open_log("postgres://127.0.0.1:1/", patience=0.3)
    assert "127.0.0.1:1" in refused.value.detail


def test_a_url_says_what_libpq_knows() -> None:
    binaries()
    from penstock.engine.log.postgres.address import Address

    several = Address.parse("postgresql://me:p%40ss@[::1]:5433,two/chat%20s?schema=x&sslmode=require")
    assert several.schema == "x"
    assert several.settings == {
        "user": "me",
        "password": "p@ss",
        "host": "::1,two",
        "port": "5433,",
        "dbname": "chat s",
        "sslmode": "require",
        "target_session_attrs": "read-write",
    }
    assert Address.parse("postgres:///chat?host=/run/postgresql").settings == {
        "dbname": "chat",
        "host": "/run/postgresql",
    }


def test_the_engine_knows_no_client_of_a_store_until_it_is_told_a_url() -> None:
    code = "import sys, penstock.engine; sys.exit(any(name.startswith('psycopg') for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- what is stored


async def test_an_engine_goes_on_where_the_former_one_left_a_store(postgres_server: PostgresServer) -> None:
    url = postgres_server.url()
    async with open_engine(url) as engine:
        session = await engine.create_session("demo")
        await session.post(text="hello")
    async with open_engine(url) as engine:
        (listed,) = await engine.sessions(order="updated")
        assert listed.session_id == "demo"


async def test_pages_of_a_log_are_those_of_any_other(postgres_server: PostgresServer) -> None:
    chance = random.Random(7)
    memory = MemoryLog()
    async with opened(postgres_server.url()) as log:
        writes: list[Write] = []
        for tail in range(0, 1280, 64):
            events = [b"%d" % (tail + number) * chance.randrange(1, 9) for number in range(64)]
            writes.append(append(*events, tail=tail, create=not tail))
        for begin in (1, 500, 700):
            gone = [offset for offset in range(begin, begin + chance.randrange(1, 500)) if chance.random() < 0.9]
            writes.append(compact(remove=gone, replace={gone[0] + 1: b"whole" * 99}))
        for each in (memory, log):
            await store(each, *writes)
        assert await entries(log, page=2000) == await entries(memory, page=2000)
        for _ in range(60):
            asked = {
                "after": chance.randrange(1400),
                "limit": chance.choice([1, 7, 100, 4000]),
                "max_bytes": chance.choice([1, 99, 5000, 1 << 20]),
            }
            assert await log.read("s", "e1", **asked) == await memory.read("s", "e1", **asked)


@pytest.mark.parametrize("sorted_at_most", [100_000, 3])
async def test_pages_of_many_sessions_are_those_of_any_other_log(
    postgres_server: PostgresServer, sorted_at_most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from penstock.engine.log.postgres import log as module

    monkeypatch.setattr(module, "_SORTED", sorted_at_most)
    chance = random.Random(11)
    memory = MemoryLog()
    async with opened(postgres_server.url()) as log:
        names = [f"{chance.choice(['ann', 'bob', 'eve'])}-{chance.randrange(10_000)}" for _ in range(300)]
        writes: list[Write] = []
        for name in dict.fromkeys(names):
            records: dict[str, bytes | None] = {"open": name.encode()} if chance.random() < 0.5 else {}
            rank = chance.choice([None, 0, -5, 2**53 - 1, 1 - 2**53, chance.randrange(100)])
            writes.append(create(of=name, records=records, rank=rank, owner=chance.choice(["", "n1"])))
        writes += [delete(name) for name in dict.fromkeys(chance.sample(names, 40))]
        for each in (memory, log):
            await store(each, *writes)
        for prefix in ("", "a", "bob-1", "bob-12", "none"):
            for behind in (None, (50, "bob-5"), (2**53 - 1, "a"), (0, "eve-3"), (1 - 2**53, "zoe")):
                for limit in (1, 20, 1000):
                    assert await log.ranked(prefix=prefix, behind=behind, limit=limit) == await memory.ranked(
                        prefix=prefix, behind=behind, limit=limit
                    )
        for after in ("", "bob", "zoe"):
            assert await log.heads(after=after, limit=7) == await memory.heads(after=after, limit=7)
            asked: dict[str, Any] = {"after": after, "limit": 7}
            assert await log.holders("open", **asked) == await memory.holders("open", **asked)
            assert await log.owned("n1", having=["open"], **asked) == await memory.owned("n1", having=["open"], **asked)


async def test_nothing_of_a_deleted_life_stays_but_its_tombstone(postgres_server: PostgresServer) -> None:
    url = postgres_server.url()
    async with opened(url) as log:
        await store(log, create(*[b"x"] * 1500, records={"open": b"1", "a/b": b"2"}, rank=1))
        await store(log, create(b"1", of="t"), delete())

        def left() -> list[tuple[Any, ...]]:
            with asking(url) as connection:
                tables = ("events", "records", "summaries", "ended", "sessions")
                counts = ", ".join(f"(SELECT count(*) FROM {table})" for table in tables)
                return connection.execute(f"SELECT {counts}").fetchall()

        await until(lambda: left() == [(1, 0, 0, 0, 2)])
        assert await bodies(log, "t") == [b"1"]


async def test_a_page_is_read_by_indexes_alone_whatever_is_known_of_the_tables(postgres_server: PostgresServer) -> None:
    """No plan goes through a table, nor sorts what an index has in order."""
    from penstock.engine.log.postgres import log as module
    from penstock.engine.log.postgres.address import Address
    from penstock.engine.log.postgres.store import connect

    url = postgres_server.url()
    await (await open_log(url)).aclose()
    begins, bounds = module._beginning("id", "a")
    life = {
        "session": "s",
        "epoch": "e",
        "after": 0,
        "limit": 10,
        "max_bytes": 10,
        "key": "k",
        "prefix": "a",
        "end": "b",
    }
    page = {**bounds, "place": 0, "behind": "", "limit": 10}
    asked: list[tuple[str, Any]] = [
        (module._READ, life),
        (module._RECORD, life),
        (module._RECORDS.format("r.key >= %(prefix)s AND r.key < %(end)s"), life),
        (module._HOLDERS, ["k", "a", 10]),
        (module._OWNED, [["k", "l"], "n", "a", 10]),
        (module._HOW_MANY.format(begins), bounds),
        (module._RANKED.format(module._RANKED_OF_FEW.format(begins)), page),
        (module._RANKED.format(module._RANKED_OF_ALL.format(begins)), page),
        (f"{module._HEADS} WHERE s.id > %s AND NOT s.deleted ORDER BY s.id LIMIT %s", ["a", 10]),
        (f"{module._HEADS} WHERE s.id = ANY (%s::text[]) AND NOT s.deleted", [["a", "b"]]),
    ]
    with asking(url) as connection:
        connection.execute(
            "INSERT INTO sessions SELECT 's' || n, n, 'e', 1, 1, false, '' FROM generate_series(1, 5000) AS n"
        )
        connection.execute("INSERT INTO summaries SELECT 's' || n, -n, '' FROM generate_series(1, 5000) AS n")
    for analyzed in (False, True):
        with connect(Address.parse(url), WITHIN) as link:
            if analyzed:
                link.execute("ANALYZE sessions, summaries, records, events")
            for sql, values in asked:
                plan = "\n".join(row[0] for row in link.execute(f"EXPLAIN {sql}", values).fetchall())
                assert "Seq Scan" not in plan, plan
                assert "Hash" not in plan, plan
                if "OFFSET 0" in sql and "ORDER BY place, id OFFSET" in sql:
                    assert "Sort" not in plan, plan
