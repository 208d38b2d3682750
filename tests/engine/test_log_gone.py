"""A database file that disappears under an engine, and what else keeps it from writing: noticed, said, over again."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Final, TypeAlias

import pytest
import trio

from penstock.engine import open_engine
from penstock.engine.errors import PenstockError, UnwritableDatabase, WriteFailed
from penstock.engine.log import SqliteLog, open_sqlite
from penstock.engine.log.sqlite.probe import Probe
from penstock.engine.log.sqlite.watch import FileWatch
from tests.engine.test_log_claim import SAME_LINK
from tests.engine.writes import append, bodies, create, outcomes, store

Deed: TypeAlias = Callable[[Path], None]


def put_over(path: Path) -> None:
    other = path.with_name("other.db")
    other.write_bytes(b"some other file")
    other.rename(path)


def copy_over(path: Path) -> None:
    """As `cp` does: the same file, with other content."""
    path.write_bytes(path.with_name("old.db").read_bytes())


def empty(path: Path) -> None:
    os.truncate(path, 0)


def remove_all(path: Path) -> None:
    for suffix in ("", "-wal", "-shm", "-lock"):
        os.unlink(f"{path}{suffix}")


def lead_elsewhere(path: Path) -> None:
    Path("link.db").unlink()
    Path("link.db").symlink_to(path.with_name("old.db"))


def lead_back(path: Path) -> None:
    Path("link.db").unlink(missing_ok=True)
    Path("link.db").symlink_to(path)


def move(path: Path) -> None:
    shutil.move(path, "moved")


def move_and_put(path: Path) -> None:
    move(path)
    path.write_bytes(b"new")


def move_back(path: Path) -> None:
    shutil.move("moved", path)


def write_over(path: Path) -> None:
    path.write_bytes(b"x" * 9000)


def remove_wal(path: Path) -> None:
    os.unlink(f"{path}-wal")


def replace_wal(path: Path) -> None:
    remove_wal(path)
    Path(f"{path}-wal").touch()


# What is done to a/chat.db, which is open as link.db; how it is undone, if it can be; what is said.
VANISHES: Final[dict[str, tuple[Deed, Deed | None, str]]] = {
    "deleted": (Path.unlink, None, "deleted"),
    "deleted with all beside it": (remove_all, None, "deleted"),
    "another file moved over it": (put_over, None, "replaced"),
    "moved": (move, move_back, "moved"),
    "its folder moved": (lambda path: move(path.parent), lambda path: move_back(path.parent), "moved"),
    "moved, another one in its place": (move_and_put, move_back, "moved"),
    "the link leads elsewhere": (lead_elsewhere, lead_back, "moved"),
    "the link deleted": (lambda path: Path("link.db").unlink(), lead_back, "moved"),
    "an older copy written over it": (copy_over, None, "overwritten"),
    "emptied": (empty, None, "overwritten"),
    "other content": (write_over, None, "overwritten"),
    "its write-ahead log deleted": (remove_wal, None, "write-ahead log was deleted"),
    "its write-ahead log replaced": (replace_wal, None, "write-ahead log was deleted"),
}


class Looks:
    """Lets a test wait until the writing thread has looked again."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._over = threading.Semaphore(0)
        look, try_again = FileWatch.look, Probe.try_again

        def looking(watch: FileWatch) -> bool:
            try:
                return look(watch)
            finally:
                self._over.release()

        def trying(probe: Probe) -> None:
            try_again(probe)
            self._over.release()

        monkeypatch.setattr("penstock.engine.log.sqlite.writer._PERIOD", 0.01)
        monkeypatch.setattr("penstock.engine.log.sqlite.watch._FRESH", 0.0)
        monkeypatch.setattr(FileWatch, "look", looking)
        monkeypatch.setattr(Probe, "try_again", trying)

    async def few(self) -> None:
        """Some that begin from now on."""
        while self._over.acquire(blocking=False):
            pass
        for _ in range(8):
            assert await trio.to_thread.run_sync(self._over.acquire, True, 10)


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Looks:
    return Looks(monkeypatch)


@pytest.fixture
async def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A database a/chat.db with an older copy, old.db, beside it; link.db leads to it, in the folder we are in."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "a" / "chat.db"
    path.parent.mkdir()
    (tmp_path / "link.db").symlink_to(path)
    log = await open_sqlite(path)
    await store(log, create(b"1", of="old"))
    await log.aclose()
    shutil.copy(path, path.with_name("old.db"))
    log = await open_sqlite(path)
    await store(log, *(create(b"x" * 5000, of=f"s{number}") for number in range(20)))
    await log.aclose()
    return path


@asynccontextmanager
async def opened(path: Path, *, ends_well: bool) -> AsyncIterator[SqliteLog]:
    log = await open_sqlite(path)
    try:
        yield log
    finally:
        if ends_well:
            await log.aclose()
        else:
            with pytest.raises(UnwritableDatabase, match="was closed, but"):
                await log.aclose()
        await log.aclose()


def lines(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    found = [record for record in caplog.records if record.name == "penstock.log"]
    return [(record.levelname, record.getMessage()) for record in found if record.levelno >= logging.WARNING]


def failed(error: PenstockError | None) -> str:
    assert isinstance(error, WriteFailed)
    assert error.whole
    return error.detail


@pytest.mark.parametrize("how", VANISHES)
async def test_a_file_that_disappears_ends_all_writing_and_is_told_of_once(
    path: Path, looks: Looks, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    do, undo, said = VANISHES[how]
    async with opened(Path("link.db"), ends_well=undo is not None) as log:
        await store(log, create(b"1"))
        assert log.statistics().trouble is None
        await trio.to_thread.run_sync(do, path)
        await looks.few()  # nobody writes meanwhile
        assert said in str(log.statistics().trouble)
        for _ in range(3):
            errors = await outcomes(log, append(b"2", tail=1), create(of="t"))
            assert all(said in failed(error) for error in errors)
        await looks.few()
        assert lines(caplog) == [("CRITICAL", "database_gone")]
        told = vars(caplog.records[-1])
        assert told["path"].endswith("link.db")
        assert said in told["detail"]
        if said != "overwritten":
            assert await bodies(log) == [b"1"]
        if undo is not None:
            await trio.to_thread.run_sync(undo, path)
            await looks.few()
            assert log.statistics().trouble is None
            assert lines(caplog)[1:] == [("WARNING", "database_back")]
            await store(log, append(b"2", tail=1))
            assert await bodies(log) == [b"1", b"2"]


@pytest.mark.parametrize("how", VANISHES)
async def test_a_file_that_disappears_just_before_the_log_is_closed_is_told_of(
    path: Path, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    do, _, said = VANISHES[how]
    async with opened(Path("link.db"), ends_well=False) as log:
        await store(log, create(b"1"))
        await trio.to_thread.run_sync(do, path)
    assert lines(caplog) == [("CRITICAL", "database_gone")]
    assert said in vars(caplog.records[-1])["detail"]


@pytest.mark.parametrize("name", SAME_LINK)
async def test_by_whatever_name_it_is_open_it_is_not_taken_for_moved(path: Path, looks: Looks, name: str) -> None:
    with contextlib.ExitStack() as undo:
        async with opened(SAME_LINK[name](path, undo), ends_well=True) as log:
            os.chdir("/")
            await looks.few()
            assert log.statistics().trouble is None
            await store(log, create(b"1"))


async def test_what_was_overwritten_stays_so_though_newer_pages_are_moved_over_it(path: Path, looks: Looks) -> None:
    async with opened(path, ends_well=False) as log:
        await store(log, create(*[b"x" * 1000] * 50))
        await trio.to_thread.run_sync(copy_over, path)
        await looks.few()
        assert log.statistics().trouble == "the database file was overwritten"
        await trio.to_thread.run_sync(write_first_page, path)
        await looks.few()
        assert log.statistics().trouble == "the database file was overwritten"


def write_first_page(path: Path) -> None:
    """As far as it concerns the counter in it."""
    with path.open("r+b") as file:
        file.seek(24)
        file.write((1 << 20).to_bytes(4))


@pytest.mark.parametrize("how", ["moved", "its folder moved", "its write-ahead log deleted"])
async def test_what_was_acknowledged_before_lies_in_the_file_wherever_it_is_now(
    path: Path, looks: Looks, tmp_path: Path, how: str
) -> None:
    do, undo, _ = VANISHES[how]
    async with opened(path, ends_well=undo is not None) as log:
        await store(log, create(*[b"1"] * 50, of="last"))
        await trio.to_thread.run_sync(do, path)
        await looks.few()
        # As after a kill -9: the file alone, without anything that the process has open.
        file = next(there for there in (path, tmp_path / "moved", tmp_path / "moved" / "chat.db") if is_file(there))
        shutil.copy(file, tmp_path / "left.db")
        if undo is not None:
            await trio.to_thread.run_sync(undo, path)
            await looks.few()
    left = await open_sqlite(tmp_path / "left.db")
    assert await bodies(left, "last") == [b"1"] * 50
    await left.aclose()


def is_file(path: Path) -> bool:
    return path.is_file()


@pytest.mark.parametrize(
    ("how", "event"),
    [
        (lambda path: os.link(path, path.with_name("second.db")), "database_has_names"),
        (lambda path: os.unlink(f"{path}-lock"), "database_lacks_files"),
        (lambda path: os.unlink(f"{path}-shm"), "database_lacks_files"),
    ],
)
async def test_what_endangers_nothing_that_is_stored_is_a_warning(
    path: Path, looks: Looks, caplog: pytest.LogCaptureFixture, how: Deed, event: str
) -> None:
    async with opened(path, ends_well=True) as log:
        await trio.to_thread.run_sync(how, path)
        await looks.few()
        await store(log, create(b"1"))
        assert log.statistics().trouble is None
        assert lines(caplog) == [("WARNING", event)]


async def test_other_programs_may_write_and_clean_up_without_being_taken_for_an_older_copy(
    path: Path, looks: Looks, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(path, ends_well=True) as log:
        for number in range(5):
            await store(log, create(b"x" * 5000, of=f"t{number}"))
            await trio.to_thread.run_sync(vacuum, path)
            await looks.few()
        assert log.statistics().trouble is None
        assert lines(caplog) == []


def vacuum(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint")
        connection.execute("VACUUM")


async def test_no_new_file_is_made_where_the_database_was(path: Path, looks: Looks) -> None:
    async with opened(path, ends_well=False) as log:
        await trio.to_thread.run_sync(remove_all, path)
        await outcomes(log, create(b"1"))
        log._writer._checkpointer._due.set()  # it has no connection yet
        await looks.few()
    assert sorted(os.listdir(path.parent)) == ["old.db"]


async def test_closing_touches_nothing_of_the_file_that_took_its_place(path: Path, looks: Looks) -> None:
    async with opened(path, ends_well=False) as log:
        await store(log, create(b"1"))
        path.with_name("old.db").rename(path)
        for suffix in ("-wal", "-shm", "-lock"):
            os.unlink(f"{path}{suffix}")
            put(path, suffix)
        await looks.few()
    for suffix in ("-wal", "-lock"):
        assert text_of(path, suffix) == "of the new one"


def put(path: Path, suffix: str) -> None:
    Path(f"{path}{suffix}").write_text("of the new one")


def text_of(path: Path, suffix: str) -> str:
    return Path(f"{path}{suffix}").read_text()


# --- what stands in the way of writing


async def test_a_write_lock_that_is_held_elsewhere_is_seen_while_nobody_writes_and_gone_when_it_is(
    path: Path, looks: Looks, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(path, ends_well=True) as log:
        await looks.few()
        assert log.statistics().trouble is None
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            await looks.few()
            assert log.statistics().trouble == "another program holds the database"
            other.execute("COMMIT")
            await looks.few()
            assert log.statistics().trouble is None
        await store(log, create(b"1"))


async def test_a_write_that_waits_for_the_lock_is_trouble_before_it_fails_and_after(
    path: Path, looks: Looks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock.engine.log.sqlite.database._BUSY_TIMEOUT", 0.3)
    monkeypatch.setattr("penstock.engine.log.sqlite.log._PATIENCE", 0.01)
    async with opened(path, ends_well=True) as log:
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            seen = []

            async def watch() -> None:
                while log.statistics().waiting:
                    seen.append(log.statistics().trouble)
                    await trio.sleep(0.01)  # another thread waits for a lock: there is nothing else to wait for

            async with trio.open_nursery() as nursery:
                nursery.start_soon(outcomes, log, create(b"1"))
                await trio.testing.wait_all_tasks_blocked()
                nursery.start_soon(watch)
            assert "though writes wait" in str(seen[-1])
            assert "another program holds the database" in str(log.statistics().trouble)
        await looks.few()
        assert log.statistics().trouble is None


@pytest.mark.parametrize("code", [sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY])
async def test_after_a_failure_of_the_disk_it_is_in_trouble_until_a_try_has_reached_the_disk(
    path: Path, looks: Looks, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    from penstock.engine.log.sqlite import commit

    broken = False
    tries = []

    def fail(*_: object, **options: object) -> None:
        tries.append(options.get("write"))
        if broken:
            error = sqlite3.OperationalError("by the test")
            error.sqlite_errorcode = code
            raise error

    async with opened(path, ends_well=True) as log:
        with monkeypatch.context() as patch:
            patch.setattr(commit.Committer, "_together", fail)
            patch.setattr(commit, "rehearse", fail)
            broken = True
            assert [failed(error) for error in await outcomes(log, create(b"1"))]
            assert log.statistics().trouble
            await looks.few()
            assert log.statistics().trouble
            tries.clear()
            await looks.few()
            assert all(tries)  # each reaches the disk, and none only takes the lock
            broken = False
            await looks.few()
            assert log.statistics().trouble is None
        await store(log, create(b"1"))


async def test_a_disk_that_hangs_is_seen_while_nobody_writes(
    path: Path, looks: Looks, monkeypatch: pytest.MonkeyPatch
) -> None:
    from penstock.engine.log.sqlite import commit, database

    hanging, go_on = threading.Event(), threading.Event()

    def hang(connection: sqlite3.Connection, *, write: bool) -> None:
        if write:
            hanging.set()
            assert go_on.wait(10)
        database.rehearse(connection, write=write)

    monkeypatch.setattr(commit, "rehearse", hang)
    monkeypatch.setattr("penstock.engine.log.sqlite.log._PATIENCE", 0.0)
    async with open_engine(path) as engine:
        assert await trio.to_thread.run_sync(hanging.wait, 10)
        assert engine.statistics().log.trouble == "the disk hangs"
        assert engine.degraded
        go_on.set()
        monkeypatch.setattr("penstock.engine.log.sqlite.log._PATIENCE", 10.0)
        await looks.few()
        assert not engine.degraded


async def test_a_quiet_log_is_moved_into_the_database_by_the_time(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from penstock.engine.log.sqlite.checkpoint import Checkpointer

    moved = threading.Semaphore(0)
    move = Checkpointer._move

    def moving(checkpointer: Checkpointer, connection: sqlite3.Connection) -> None:
        move(checkpointer, connection)
        moved.release()

    monkeypatch.setattr(Checkpointer, "_move", moving)
    monkeypatch.setattr("penstock.engine.log.sqlite.checkpoint._QUIET", 0.02)
    async with opened(path, ends_well=True) as log:
        await store(log, create(b"1", of="quiet"))
        while moved.acquire(blocking=False):
            pass
        for _ in range(2):
            assert await trio.to_thread.run_sync(moved.acquire, True, 10)
        shutil.copy(path, path.with_name("alone.db"))
        assert not log._writer._checkpointer.rest_is_due
    alone = await open_sqlite(path.with_name("alone.db"))
    assert await bodies(alone, "quiet") == [b"1"]
    await alone.aclose()


async def test_a_reader_that_pins_the_write_ahead_log_is_told_of_at_each_doubling_and_closing_does_not_wait_for_it(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("penstock.engine.log.sqlite.checkpoint._PINNED", 1024)
    monkeypatch.setattr("penstock.engine.log.sqlite.checkpoint._QUIET", 0.01)
    # Far more than the test may take: what waited for the reader would not be back in time.
    monkeypatch.setattr("penstock.engine.log.sqlite.database._BUSY_TIMEOUT", 1000.0)
    log = await open_sqlite(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN")
        other.execute("SELECT count(*) FROM events").fetchone()
        tail = 0
        await store(log, create())
        with trio.fail_after(60):
            while len(told := [record for record in caplog.records if record.message == "wal_pinned"]) < 3:
                await store(log, append(b"x" * 1_000_000, tail=tail))
                tail += 1
        sizes = [vars(record)["size_mib"] for record in told]
        assert sizes[0] >= 4
        assert sizes[1] >= 2 * sizes[0]
        assert sizes[2] >= 2 * sizes[1]
        assert log.statistics().trouble is None
        with trio.fail_after(30):
            await log.aclose()
    again = await open_sqlite(path)
    assert len(await bodies(again)) == tail
    await again.aclose()
