"""What `SqliteLog` adds to the contract: group commit, its failures, purge, reading beside writing."""

from __future__ import annotations

import re
import sqlite3
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias, final

import pytest
import trio

from penstock.engine import open_engine
from penstock.engine.errors import IdInUse, PenstockError, StaleEpoch, StorageError, WriteFailed
from penstock.engine.log import Compact, SqliteLog, Summary, Write, open_sqlite
from penstock.engine.log.port import Move
from penstock.engine.log.sqlite import commit, reading, rewrite
from penstock.engine.log.sqlite.commit import Committer
from penstock.engine.log.sqlite.database import connect, prepare
from penstock.engine.log.sqlite.writer import Outcome
from tests.engine.writes import append, bodies, compact, create, delete, entries, head, keep, kinds, outcomes, store

Fault: TypeAlias = Callable[[str], sqlite3.Error | None]


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[SqliteLog]:
    log = await open_sqlite(tmp_path / "chat.db")
    yield log
    await log.aclose()


@pytest.fixture
def path(tmp_path: Path) -> str:
    path = str(tmp_path / "chat.db")
    prepare(path)
    return path


@pytest.fixture
def committer(path: str) -> Iterator[Committer]:
    committer = Committer(lambda: connect(path))
    yield committer
    committer.close()


def rows(path: str | Path, sql: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(sql).fetchall()


def is_whole(error: PenstockError | None) -> bool:
    assert isinstance(error, WriteFailed)
    assert isinstance(error.__cause__, Exception)
    return error.whole


class Hindered:
    """Holds the writer thread before its first round, so that all that is handed over meanwhile is the second."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.rounds: list[int] = []
        self.wakes = 0
        self._first_began = threading.Event()
        self._go_on = threading.Event()
        carry_out = Committer.carry_out
        deliver = SqliteLog._deliver

        def counting(committer: Committer, writes: Sequence[Move]) -> list[PenstockError | None]:
            self.rounds.append(len(writes))
            self._first_began.set()
            assert self._go_on.wait(10)
            return carry_out(committer, writes)

        def delivering(log: SqliteLog, outcome: Outcome) -> None:
            self.wakes += 1
            deliver(log, outcome)

        monkeypatch.setattr(Committer, "carry_out", counting)
        monkeypatch.setattr(SqliteLog, "_deliver", delivering)

    async def store_at_once(self, log: SqliteLog, writes: Iterable[Write]) -> list[PenstockError | None]:
        log.submit(create(of="first"), lambda _: None)
        assert await trio.to_thread.run_sync(self._first_began.wait, 10)
        # outcomes() hands over before it waits, and its wait is where the release gets its turn.
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._release)
            return await outcomes(log, *writes)

    async def _release(self) -> None:
        self._go_on.set()


async def test_all_that_waits_is_one_commit_and_one_wake(log: SqliteLog, monkeypatch: pytest.MonkeyPatch) -> None:
    hindered = Hindered(monkeypatch)
    writes = [create(b"1", b"2", of=f"s{number}", records={"open": b"g"}) for number in range(100)]
    assert await hindered.store_at_once(log, writes) == [None] * 100
    assert hindered.rounds == [1, 100]
    assert hindered.wakes == 2
    assert log.statistics().commits == 2
    assert log.statistics().events == 200
    assert log.statistics().commit_seconds > 0
    assert len(await log.holders("open")) == 100


async def test_one_commit_has_no_more_than_some_thousand_events(
    log: SqliteLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    hindered = Hindered(monkeypatch)
    writes = [create(*[b"x"] * 3000, of=f"s{number}") for number in range(5)]
    assert await hindered.store_at_once(log, writes) == [None] * 5
    assert hindered.rounds == [1, 2, 2, 1]


async def test_small_writes_are_committed_before_large_ones_that_came_first(
    log: SqliteLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    hindered = Hindered(monkeypatch)
    order: list[str] = []
    writes = [create(b"x" * 4 * 1024 * 1024, of=f"large-{number}") for number in range(4)]
    writes += [create(b"x", of=f"small-{number}") for number in range(20)]
    carry_out = Committer.carry_out

    def noting(committer: Committer, writes: Sequence[Move]) -> list[PenstockError | None]:
        order.extend(write.session_id for write in writes)
        return carry_out(committer, writes)

    monkeypatch.setattr(Committer, "carry_out", noting)
    assert await hindered.store_at_once(log, writes) == [None] * 24
    assert hindered.rounds == [1, 20, 1, 1, 1, 1]
    assert order == ["first", *(f"small-{n}" for n in range(20)), *(f"large-{n}" for n in range(4))]


@pytest.mark.usefixtures("narrow")
async def test_an_append_larger_than_one_statement_is_stored_whole(log: SqliteLog) -> None:
    events = [b"%d" % number for number in range(2000)]
    await store(log, create(*events, records={f"r/{number}": b"x" for number in range(900)}))
    assert [entry.body for entry in await entries(log, page=700)] == events
    await store(log, append(tail=2000, records={f"r/{number}": None for number in range(899)}))
    assert await log.records("s", "e1") == {"r/899": b"x"}


async def test_a_reader_sees_nothing_that_is_not_committed(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    inserted, go_on = threading.Event(), threading.Event()

    class Pausing(sqlite3.Connection):
        def execute(self, sql: str, parameters: Sequence[object] = (), /) -> sqlite3.Cursor:  # type: ignore[override]
            if sql == "COMMIT" and self.in_transaction and threading.current_thread().name == "penstock-writer":
                inserted.set()
                assert go_on.wait(10)
            return super().execute(sql, parameters)

    log = await open_sqlite(path)
    await store(log, create(b"1", records={"r": b"1"}))
    await log.aclose()
    monkeypatch.setattr("penstock.engine.log.sqlite.database.sqlite3.connect", _connecting(Pausing))
    log = await open_sqlite(path)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store, log, append(b"2", tail=1, records={"r": b"2"}, token=5))
        assert await trio.to_thread.run_sync(inserted.wait, 10)
        assert await log.head("s") == head(tail=1)
        assert await bodies(log) == [b"1"]
        assert await log.record("s", "e1", "r") == b"1"
        go_on.set()
    assert await log.head("s") == head(tail=2, token=5)
    await log.aclose()


def _connecting(factory: type[sqlite3.Connection]) -> Callable[..., sqlite3.Connection]:
    plain = sqlite3.connect

    def connecting(path: str, **options: object) -> sqlite3.Connection:
        return plain(path, factory=factory, **options)  # type: ignore[call-overload, no-any-return]

    return connecting


async def test_what_is_reported_survives_though_nothing_was_moved_into_the_database(
    log: SqliteLog, tmp_path: Path
) -> None:
    await store(log, create(b"1"))
    for name in ("chat.db", "chat.db-wal"):
        (tmp_path / f"copy-{name}").write_bytes((tmp_path / name).read_bytes())
    (tmp_path / "copy-chat.db").rename(tmp_path / "copy.db")
    (tmp_path / "copy-chat.db-wal").rename(tmp_path / "copy.db-wal")
    copy = await open_sqlite(tmp_path / "copy.db")
    assert await bodies(copy) == [b"1"]
    await copy.aclose()


async def test_every_commit_is_synced(log: SqliteLog, tmp_path: Path) -> None:
    with closing(connect(str(tmp_path / "chat.db"))) as connection:
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


@pytest.mark.parametrize(
    "sql",
    [
        reading._HEAD_OF,
        reading._LIVING_HEADS,
        reading._READ,
        reading._READ_SMALL,
        reading._RECORDS,
        reading._RECORD,
        reading._HOLDERS,
        commit._LIVES.format("?"),
        commit._HIGHEST_LIFE,
        commit._HIGHEST_ROW,
        commit._PURGE_EVENTS,
        commit._RECORDS_SIZES,
        commit._PURGE_RECORDS,
        rewrite._REPLACE,
        rewrite._REMOVE.format("(?2), (?3)"),
        rewrite._FOUND.format("(?2), (?3)"),
    ],
)
def test_nothing_goes_through_a_whole_table_or_sorts_a_log(path: str, sql: str) -> None:
    named = dict.fromkeys(re.findall(r":(\w+)", sql), "x")
    given = ["x"] * max(map(int, re.findall(r"\?(\d)", sql)), default=sql.count("?"))
    with closing(sqlite3.connect(path)) as connection:
        steps = connection.execute(f"EXPLAIN QUERY PLAN {sql}", named or given).fetchall()
    assert steps
    assert not [step for *_, step in steps if step.startswith("SCAN") and "CONSTANT" not in step and step != "SCAN v"]
    sorts = [step for *_, step in steps if "TEMP B-TREE" in step]
    # Few: the holders of one key, the lives of one session.
    assert not sorts or sql in (reading._HOLDERS, reading._HEAD_OF, commit._LIVES.format("?"))


async def test_a_compaction_gives_way_to_all_appends_that_wait(log: SqliteLog, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    hindered = Hindered(monkeypatch)
    carry_out, carry_out_compact = Committer.carry_out, Committer.compact

    def noting(committer: Committer, writes: Sequence[Move]) -> list[PenstockError | None]:
        order.append("append")
        return carry_out(committer, writes)

    def noting_compact(committer: Committer, write: Compact) -> PenstockError | None:
        order.append("compact")
        return carry_out_compact(committer, write)

    monkeypatch.setattr(Committer, "carry_out", noting)
    monkeypatch.setattr(Committer, "compact", noting_compact)
    writes: list[Write] = []
    for number in range(4):
        writes += [compact("first", records={"n": b"%d" % number}), create(*[b"x"] * 3000, of=f"s{number}")]
    assert await hindered.store_at_once(log, writes) == [None] * 8
    assert hindered.rounds == [1, 2, 2]
    assert order == ["append", "append", "append", *["compact"] * 4]
    assert await log.record("first", "e1", "n") == b"3"


#
async def test_a_deleted_life_is_purged_when_there_is_nothing_else_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    purged = trio.Event()
    token = trio.lowlevel.current_trio_token()
    purge = Committer.purge

    def noting(committer: Committer) -> bool:
        more = purge(committer)
        if not more and deleted:
            token.run_sync_soon(purged.set)
        return more

    deleted = False
    monkeypatch.setattr(Committer, "purge", noting)
    path = tmp_path / "chat.db"
    log = await open_sqlite(path)
    await store(log, create(*[b"x"] * 2000, records={f"r/{number}": b"x" for number in range(700)}))
    deleted = True
    await store(log, delete(), create(b"new", epoch="e2", records={"r": b"new"}))
    with trio.fail_after(10):
        await purged.wait()
    assert rows(path, "SELECT count(*), max(body) FROM events") == [(1, b"new")]
    assert rows(path, "SELECT key, value FROM records") == [("r", b"new")]
    assert rows(path, "SELECT epoch, ended FROM sessions") == [("e2", 0)]
    await log.aclose()


def test_a_purge_takes_about_a_mebibyte_of_records_at_a_time(committer: Committer, path: str) -> None:
    mebibyte = 1024 * 1024
    sizes = [3 * mebibyte, *[mebibyte // 4] * 9, *[1] * 600]
    records = {f"r/{number:03}": bytes(size) for number, size in enumerate(sizes)}
    assert committer.carry_out([create(b"x"), keep(records=records), delete()]) == [None] * 3
    removed, left = [], sum(sizes)
    while committer.purge():
        ((still,),) = rows(path, "SELECT coalesce(sum(length(value)), 0) FROM records")
        assert isinstance(still, int)
        removed.append(left - still)
        left = still
    assert (left, rows(path, "SELECT ended FROM sessions")) == (0, [(2,)])
    assert removed[0] == 3 * mebibyte
    assert max(removed[1:]) <= mebibyte + mebibyte // 4


def test_a_purge_goes_in_small_steps_and_leaves_the_tombstone(committer: Committer, path: str) -> None:
    assert committer.carry_out([create(*[b"x"] * 1300), create(b"y", of="other"), delete(token=7)]) == [None] * 3
    left = []
    while committer.purge():
        left.append(rows(path, "SELECT count(*) FROM events"))
    assert left == [[(789,)], [(277,)], [(1,)]]
    assert rows(path, "SELECT session, tail, token, ended FROM sessions ORDER BY life") == [
        ("s", 1300, 7, 2),
        ("other", 1, 1, 0),
    ]
    # Reborn, the tombstone goes too.
    assert committer.carry_out([create(epoch="e2", token=7)]) == [None]
    assert committer.purge()
    assert not committer.purge()
    assert rows(path, "SELECT session, epoch FROM sessions WHERE session = 's'") == [("s", "e2")]


async def test_a_purge_that_was_cut_off_goes_on_after_the_next_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path / "chat.db")
    prepare(path)
    committer = Committer(lambda: connect(path))
    assert committer.carry_out([create(*[b"x"] * 1300), delete()]) == [None, None]
    committer.close()
    purged = threading.Event()
    purge = Committer.purge

    def noting(committer: Committer) -> bool:
        more = purge(committer)
        if not more:
            purged.set()
        return more

    monkeypatch.setattr(Committer, "purge", noting)
    log = await open_sqlite(path)
    assert await trio.to_thread.run_sync(purged.wait, 10)
    assert rows(path, "SELECT count(*) FROM events") == [(0,)]
    assert await log.head("s") == head(tail=1300, deleted=True)
    await log.aclose()


async def test_a_value_sqlite_cannot_hold_fails_its_own_write_only(log: SqliteLog) -> None:
    await store(log, create(of="a"), create(of="b"))
    errors = await outcomes(
        log,
        append(b"1", to="a"),
        append(b"x", to="b", summary=Summary(1 << 64, b"")),
        append(b"1", to="b"),
        append(b"2", to="a", tail=1),
    )
    assert [error is None for error in errors] == [True, False, True, True]
    assert not is_whole(errors[1])
    assert await bodies(log, "a") == [b"1", b"2"]
    assert await bodies(log, "b") == [b"1"]


async def test_a_failed_read_is_a_storage_error(log: SqliteLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock.engine.log.sqlite.reading._HEAD_OF", "SELECT nonsense")
    with pytest.raises(StorageError) as caught:
        await log.head("s")
    assert isinstance(caught.value.__cause__, sqlite3.Error)


async def test_reads_in_flight_end_before_the_log_is_closed(log: SqliteLog) -> None:
    await store(log, create(*[b"x" * 100] * 5000))
    read: list[int] = []
    under_way = trio.Event()

    async def reading() -> None:
        try:
            while True:
                read.append(len(await log.read("s", "e1", after=0, limit=5000, max_bytes=1 << 20)))
                if len(read) == 20:
                    under_way.set()
        except StorageError:
            pass

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(reading)
            await under_way.wait()
            await log.aclose()
    assert set(read) == {5000}


class Faulty(sqlite3.Connection):
    """Raises what ``fault`` says before a statement is carried out, what ``late_fault`` says after it."""

    fault: Fault | None = None
    late_fault: Fault | None = None

    def execute(self, sql: str, parameters: Sequence[object] = (), /) -> sqlite3.Cursor:  # type: ignore[override]
        if Faulty.fault and (error := Faulty.fault(sql)):
            raise error
        cursor = super().execute(sql, parameters)
        if Faulty.late_fault and (error := Faulty.late_fault(sql)):
            raise error
        return cursor


@pytest.fixture
def faulty(path: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Committer]:
    monkeypatch.setattr(Faulty, "fault", None)
    monkeypatch.setattr(Faulty, "late_fault", None)
    monkeypatch.setattr("penstock.engine.log.sqlite.database.sqlite3.connect", _connecting(Faulty))
    committer = Committer(lambda: connect(path))
    assert committer.carry_out([create(of="a"), create(of="b")]) == [None, None]
    yield committer
    monkeypatch.setattr(Faulty, "fault", None)
    monkeypatch.setattr(Faulty, "late_fault", None)
    committer.close()


def failing(code: int, *begins: str, times: int = 1) -> Fault:
    """An error of this code for the first ``times`` statements that begin so."""
    left = times

    def fault(sql: str) -> sqlite3.Error | None:
        nonlocal left
        if left and sql.startswith(begins):
            left -= 1
            error = sqlite3.OperationalError("by the test")
            error.sqlite_errorcode = code
            return error
        return None

    return fault


PAIR = [append(b"1", to="a", records={"r": b"1"}), append(b"1", to="b", records={"r": b"1"})]


@pytest.mark.parametrize("statement", ["BEGIN", "INSERT INTO events", "INSERT INTO records", "COMMIT"])
def test_a_round_that_fails_once_is_stored_part_by_part(faulty: Committer, path: str, statement: str) -> None:
    Faulty.fault = failing(sqlite3.SQLITE_IOERR, statement)
    assert faulty.carry_out(PAIR) == [None, None]
    assert rows(path, "SELECT life, offset, body FROM events") == [(1, 1, b"1"), (2, 1, b"1")]
    assert faulty.commits == 3


@pytest.mark.parametrize("statement", ["BEGIN", "INSERT INTO events", "INSERT INTO records", "COMMIT"])
def test_while_nothing_can_be_stored_every_write_fails_on_the_whole(
    faulty: Committer, path: str, statement: str
) -> None:
    Faulty.fault = failing(sqlite3.SQLITE_IOERR, statement, times=1000)
    assert [is_whole(error) for error in faulty.carry_out(PAIR)] == [True, True]
    assert [is_whole(error) for error in faulty.carry_out(PAIR[:1])] == [True]
    assert rows(path, "SELECT * FROM events") == []
    Faulty.fault = None
    assert faulty.carry_out(PAIR) == [None, None]


def test_a_broken_disk_is_not_tried_once_for_every_write(faulty: Committer) -> None:
    tries: list[str] = []

    def fault(sql: str) -> sqlite3.Error | None:
        tries.append(sql)
        return failing(sqlite3.SQLITE_IOERR, "INSERT INTO events")(sql)

    Faulty.fault = fault
    writes = [append(b"%d" % number, to="ab"[number % 2], tail=number // 2) for number in range(100)]
    assert {is_whole(error) for error in faulty.carry_out(writes)} == {True}
    assert sum(sql.startswith("INSERT") for sql in tries) == 2


def test_a_commit_that_is_stored_though_it_reports_an_error_is_a_success(faulty: Committer, path: str) -> None:
    Faulty.late_fault = failing(sqlite3.SQLITE_IOERR, "COMMIT")
    assert faulty.carry_out(PAIR) == [None, None]
    Faulty.late_fault = failing(sqlite3.SQLITE_IOERR, "INSERT INTO events")
    assert faulty.carry_out([append(b"2", to="a", tail=1), append(b"2", to="b", tail=1)]) == [None, None]
    Faulty.late_fault = failing(sqlite3.SQLITE_IOERR, "COMMIT")
    assert faulty.carry_out([create(b"1", of="c", records={"r": b"1"}), delete("a")]) == [None, None]
    Faulty.late_fault = failing(sqlite3.SQLITE_IOERR, "INSERT INTO records")
    assert faulty.carry_out([append(to="b", tail=2, records={"r": b"2"})]) == [None]
    assert rows(path, "SELECT life, offset FROM events ORDER BY rowid") == [(1, 1), (2, 1), (1, 2), (2, 2), (3, 1)]
    assert rows(path, "SELECT value FROM records WHERE life = 2") == [(b"2",)]


def test_a_refused_write_is_refused_as_before_after_a_failed_round(faulty: Committer) -> None:
    Faulty.fault = failing(sqlite3.SQLITE_IOERR, "INSERT INTO events")
    errors = faulty.carry_out([*PAIR, append(b"x", to="a", tail=9), create(of="b", epoch="e2")])
    assert [type(error) for error in errors] == [type(None), type(None), StaleEpoch, IdInUse]


def test_a_connection_that_cannot_roll_back_is_replaced(faulty: Committer, path: str) -> None:
    Faulty.fault = lambda sql: failing(sqlite3.SQLITE_IOERR, "INSERT INTO records", "ROLLBACK")(sql)
    assert [is_whole(error) for error in faulty.carry_out(PAIR)] == [True, True]
    Faulty.fault = None
    assert faulty.carry_out(PAIR) == [None, None]
    assert rows(path, "SELECT count(*) FROM events") == [(2,)]


def test_a_database_that_is_locked_for_long_fails_the_round(
    path: str, committer: Committer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock.engine.log.sqlite.database._BUSY_TIMEOUT", 0.01)
    brief = Committer(lambda: connect(path))
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert [is_whole(error) for error in brief.carry_out([create(of="a"), create(of="b")])] == [True, True]
    assert brief.carry_out([create(of="a"), create(of="b")]) == [None, None]
    brief.close()


async def test_whatever_goes_wrong_in_the_thread_every_write_is_answered_and_it_goes_on(
    log: SqliteLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaking(*_: object) -> bool:
        raise RuntimeError("by the test")

    with monkeypatch.context() as patch:
        patch.setattr(Committer, "carry_out", breaking)
        patch.setattr(Committer, "purge", breaking)
        assert [is_whole(error) for error in await outcomes(log, create(), delete("other"))] == [True, True]
    await store(log, create(b"1"))


async def test_a_purge_that_failed_goes_on_once_writing_works(
    log: SqliteLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed, purged = threading.Event(), threading.Event()
    purge = Committer.purge

    def failing_once(committer: Committer) -> bool:
        if not failed.is_set():
            failed.set()
            raise sqlite3.OperationalError("by the test")
        if not (more := purge(committer)):
            purged.set()
        return more

    await store(log, create(*[b"x"] * 600))
    monkeypatch.setattr(Committer, "purge", failing_once)
    await store(log, delete())
    assert await trio.to_thread.run_sync(failed.wait, 10)
    await store(log, create(of="other"))
    assert await trio.to_thread.run_sync(purged.wait, 10)
    assert rows(tmp_path / "chat.db", "SELECT count(*) FROM events") == [(0,)]


async def test_the_standing_of_a_session_no_longer_remembered_is_read_again(
    log: SqliteLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock.engine.log.sqlite.commit._REMEMBERED", 2)
    await store(log, *(create(b"1", of=f"s{number}", token=number) for number in range(10)))
    await store(log, *(append(b"2", to=f"s{number}", tail=1, token=number) for number in range(10)))
    assert await kinds(log, append(b"x", to="s0", tail=1), create(of="s1")) == [StaleEpoch, IdInUse]
    assert await log.head("s9") == head("s9", tail=2, token=9)


COMPACT = compact("a", replace={2: b"whole"}, remove=[1], records={"r": b"1"})


@pytest.mark.parametrize("statement", ["BEGIN", "UPDATE events", "DELETE FROM events", "INSERT INTO records", "COMMIT"])
def test_a_compaction_that_fails_leaves_everything_as_it_was(faulty: Committer, path: str, statement: str) -> None:
    assert faulty.carry_out([append(b"1", b"2", to="a")]) == [None]
    Faulty.fault = failing(sqlite3.SQLITE_IOERR, statement)
    assert is_whole(faulty.compact(COMPACT))
    assert rows(path, "SELECT offset, body FROM events") == [(1, b"1"), (2, b"2")]
    assert rows(path, "SELECT * FROM records") == []
    assert faulty.compact(COMPACT) is None
    assert rows(path, "SELECT offset, body FROM events WHERE body IS NOT NULL") == [(2, b"whole")]
    assert faulty.carry_out([append(b"3", to="a", tail=2)]) == [None]


def test_a_compaction_that_is_stored_though_it_reports_an_error_is_a_success(faulty: Committer, path: str) -> None:
    assert faulty.carry_out([append(b"1", b"2", to="a")]) == [None]
    Faulty.late_fault = failing(sqlite3.SQLITE_IOERR, "COMMIT")
    assert faulty.compact(COMPACT) is None
    assert rows(path, "SELECT offset, body FROM events WHERE body IS NOT NULL") == [(2, b"whole")]


def test_the_tail_outlives_the_last_event_over_an_open(committer: Committer, path: str) -> None:
    assert committer.carry_out([create(b"1", b"2", b"3")]) == [None]
    assert committer.compact(compact(remove=[3, 2])) is None
    again = Committer(lambda: connect(path))
    assert isinstance(again.carry_out([append(b"x", tail=1)])[0], StaleEpoch)
    assert again.carry_out([append(b"4", tail=3)]) == [None]
    again.close()


# --- reads that hang


@final
class Hanging:
    """A connection whose reads do not come back until the gate is open."""

    def __init__(self, connection: sqlite3.Connection, gate: threading.Event) -> None:
        self._connection = connection
        self._gate = gate

    def execute(self, *asked: Any) -> sqlite3.Cursor:
        assert self._gate.wait(60)
        return self._connection.execute(*asked)

    def close(self) -> None:
        self._connection.close()


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """While it is shut no read of `hang` comes back, and everybody is patient for a moment only."""
    monkeypatch.setattr("penstock.engine.log.sqlite.reading.PATIENCE", 0.2)
    gate = threading.Event()
    gate.set()
    yield gate
    gate.set()


def hang(log: SqliteLog, gate: threading.Event) -> None:
    log._connections[:] = [Hanging(connection, gate) for connection in log._connections]  # type: ignore[misc]


async def test_a_read_that_hangs_fails_in_time_and_takes_no_other_with_it_for_good(
    log: SqliteLog, gate: threading.Event
) -> None:
    await store(log, create(b"1", records={"open": b"x"}))
    hang(log, gate)
    gate.clear()
    reads: list[Callable[[], Awaitable[object]]] = [
        lambda: log.head("s"),
        lambda: log.read("s", "e1", after=0, limit=10, max_bytes=100),
        lambda: log.record("s", "e1", "open"),
        lambda: log.records("s", "e1"),
        lambda: log.holders("open"),
        lambda: log.heads(),
    ]
    for _ in range(2):  # more of them than there are connections
        async with trio.open_nursery() as nursery:
            for read in reads:
                nursery.start_soon(_fails, read)
    gate.set()
    with trio.fail_after(30):
        while await outcome_of(log.head("s")) != head(tail=1):
            pass  # until the reads that were left behind are done
    for read in reads:
        await read()


async def _fails(read: Callable[[], Awaitable[object]]) -> None:
    with pytest.raises(StorageError, match="has not answered"):
        await read()


async def outcome_of(read: Awaitable[object]) -> object:
    try:
        return await read
    except StorageError as error:
        return error


async def test_a_read_that_hangs_holds_neither_a_sessions_steps_nor_the_engines_end(
    tmp_path: Path, gate: threading.Event
) -> None:
    log = await open_sqlite(tmp_path / "chat.db")
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        posted = await session.post("a")
        hang(log, gate)
        gate.clear()
        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:  # steps, one behind the other
                for _ in range(3):
                    nursery.start_soon(_fails, partial(session.retract, posted.message_id))
        await session.post("b")  # what reads nothing works
    gate.set()
    with trio.fail_after(30):
        await log.aclose()
