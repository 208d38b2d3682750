"""Copies of a database, and the way back: whole or not there, whatever happens meanwhile."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import FrameType
from typing import Final, TypeAlias

import pytest
import trio

from penstock.engine import CopyProgress, Gap, Opened, back_up, open_engine, restore
from penstock.engine.errors import (
    CorruptDatabase,
    DatabaseError,
    DatabaseInUse,
    NewerSchema,
    StorageError,
    UnwritableDatabase,
    WriteFailed,
)
from penstock.engine.log import SqliteLog, open_sqlite
from penstock.engine.log.sqlite import backup
from penstock.engine.log.sqlite.backup import _Run
from penstock.engine.log.sqlite.source import Source
from tests.engine.disks import mounted
from tests.engine.forks import forked, wait_for
from tests.engine.test_log_opening import holder
from tests.engine.version_1 import make_version_1
from tests.engine.writes import append, bodies, create, entries, outcomes, store

Content: TypeAlias = list[tuple[object, ...]]

BODY: Final = b"x" * 500

ENDLESS: Final = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT * FROM n WHERE i < 0"


async def make(path: Path, *, events: int = 20) -> Path:
    log = await open_sqlite(path)
    await store(log, create(*[BODY] * events, records={"open": b"g"}), create(BODY, of="other"))
    await log.aclose()
    return path


@pytest.fixture
async def path(tmp_path: Path) -> Path:
    """A closed database, alone in its folder."""
    (tmp_path / "data").mkdir()
    return await make(tmp_path / "data" / "chat.db")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return tmp_path / "copy.db"


def content(path: Path, *, epochs: bool = True) -> Content:
    """All that is stored in it; that it is sound is part of every look."""
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert connection.execute("PRAGMA application_id").fetchone() == (0x70656E73,)
        found: Content = []
        for table in ("sessions", "events", "records", "summaries"):
            found.extend((table, *row) for row in connection.execute(f"SELECT * FROM {table} ORDER BY 1, 2"))
        return found if epochs else [(*row[:3], "", *row[4:]) if row[0] == "sessions" else row for row in found]


def restored(path: Path) -> Content:
    """But for the epochs, which are new."""
    return content(path, epochs=False)


def mode_of(path: Path) -> int:
    return path.stat().st_mode & 0o7777


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


async def refusal(work: Callable[..., object], *paths: Path, kind: type[StorageError]) -> str:
    with pytest.raises(kind) as caught:
        await work(*paths)  # type: ignore[misc]
    return caught.value.detail


@pytest.mark.parametrize("umask", [0o000, 0o077, 0o777])
async def test_a_copy_holds_all_that_the_database_does_and_is_its_owners_only(
    path: Path, copy: Path, umask: int
) -> None:
    before = content(path)
    old = os.umask(umask)
    try:
        await back_up(path, copy)
    finally:
        os.umask(old)
    assert content(copy) == before
    assert mode_of(copy) == 0o600
    assert names(copy.parent) == ["copy.db", "data"]
    assert names(path.parent) == ["chat.db"]
    log = await open_sqlite(copy)
    assert await bodies(log) == [BODY] * 20
    await log.aclose()


async def test_a_copy_beside_writers_is_one_state_and_nobody_waits(path: Path, copy: Path) -> None:
    log = await open_sqlite(path)
    tail, copying = 20, True

    async def write() -> None:
        nonlocal tail
        while copying:
            await store(log, append(BODY, tail=tail, records={"n": b"%d" % (tail + 1)}))
            tail += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write)
        for number in range(3):
            before = tail
            await back_up(path, copy.with_name(f"{number}.db"))
            taken = await open_sqlite(copy.with_name(f"{number}.db"))
            found = len(await bodies(taken))
            assert before <= found <= tail
            assert await taken.record("s", "e1", "n") in (b"%d" % found, None)
            await taken.aclose()
        copying = False
    await log.aclose()


async def test_a_copy_beside_a_server_in_another_process_has_what_is_in_its_write_ahead_log(
    path: Path, copy: Path
) -> None:
    log = await open_sqlite(path)
    await store(log, append(b"last", tail=20))
    shutil.copytree(path.parent, path.parents[1] / "killed")
    await log.aclose()
    killed = path.parents[1] / "killed" / "chat.db"
    await back_up(killed, copy)
    with holder(path):
        await back_up(path, copy.with_name("second.db"))
    for each in (copy, copy.with_name("second.db")):
        assert content(each) == content(killed)


async def test_a_copy_of_a_closed_database_that_is_opened_meanwhile_is_not_kept(
    path: Path, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_still = Source.check_still

    def checking(source: Source) -> None:
        path.touch()
        check_still(source)

    monkeypatch.setattr(Source, "check_still", checking)
    assert "try again" in await refusal(back_up, path, copy, kind=StorageError)
    assert names(copy.parent) == ["data"]


# --- what is refused


async def test_a_file_that_is_there_is_refused_and_left_alone(path: Path, copy: Path) -> None:
    for file in (copy, copy.with_name("link"), copy.with_name("dangling"), path, copy.parent):
        if file.name == "link":
            file.symlink_to(copy)
        elif file.name == "dangling":
            file.symlink_to(copy.with_name("nowhere"))
        elif file == copy:
            put(file, "mine")
        assert str(file) in await refusal(back_up, path, file, kind=UnwritableDatabase)
    assert text_of(copy) == "mine"
    assert names(copy.parent) == ["copy.db", "dangling", "data", "link"]


def link(path: Path, to: Path) -> None:
    path.symlink_to(to)


def put(path: Path, text: str) -> None:
    path.write_text(text)


def text_of(path: Path) -> str:
    return path.read_text()


async def test_a_file_that_came_meanwhile_is_left_alone(
    path: Path, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock.engine.log.sqlite.backup._check", lambda *_: put(copy, "mine"))
    assert "there already" in await refusal(back_up, path, copy, kind=UnwritableDatabase)
    assert text_of(copy) == "mine"
    assert names(copy.parent) == ["copy.db", "data"]


@pytest.mark.parametrize("what", ["a text", "a database", "itself", "a link to itself", "a hard link to itself"])
async def test_what_bears_the_name_of_the_unfinished_copy_and_is_none_is_left_alone(
    path: Path, copy: Path, what: str
) -> None:
    part = copy.with_name("copy.db.part")
    source = path
    match what:
        case "a text":
            put(part, "mine")
        case "a database":
            shutil.copy(path, part)
        case "itself":
            source = part
            shutil.copy(path, part)
        case "a link to itself":
            part.symlink_to(path)
        case _:
            part.hardlink_to(path)
    before = part.read_bytes()
    assert str(part) in await refusal(back_up, source, copy, kind=DatabaseError)
    assert part.read_bytes() == before
    assert names(copy.parent) == ["copy.db.part", "data"]


async def test_two_copies_to_one_place_at_a_time_are_refused(
    path: Path, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copying, go_on = threading.Event(), threading.Event()
    check = backup._check

    def paused(*arguments: object) -> None:
        copying.set()
        assert go_on.wait(10)
        check(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(backup, "_check", paused)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(back_up, path, copy)
        assert await trio.to_thread.run_sync(copying.wait, 10)
        assert "another backup" in await refusal(back_up, path, copy, kind=DatabaseInUse)
        child = forked(lambda: _refused(path, copy))
        assert await trio.to_thread.run_sync(wait_for, child) == 0
        go_on.set()
    assert content(copy) == content(path)


def _refused(path: Path, copy: Path) -> None:
    with pytest.raises(DatabaseInUse, match="another backup"):
        backup._back_up(path, copy, _Run())


async def test_what_is_no_database_of_ours_is_not_copied(path: Path, copy: Path) -> None:
    text, other, newer = (path.with_name(name) for name in ("text.db", "other.db", "newer.db"))
    put(text, "Dear diary, " * 100)
    shutil.copy(path, newer)
    with closing(sqlite3.connect(other)) as connection:
        connection.execute("CREATE TABLE t (a)")
    with closing(sqlite3.connect(newer)) as connection:
        connection.execute("PRAGMA user_version = 99")
    for source, kind in ((text, CorruptDatabase), (other, CorruptDatabase), (newer, NewerSchema)):
        assert str(source) in await refusal(back_up, source, copy, kind=kind)
        assert str(source) in await refusal(restore, source, copy, kind=kind)
    await refusal(back_up, path.with_name("nowhere.db"), copy, kind=UnwritableDatabase)
    assert "missing" in await refusal(back_up, path, copy.parent / "no" / "copy.db", kind=UnwritableDatabase)
    assert names(copy.parent) == ["data"]


async def test_a_damaged_database_is_not_copied_and_said_to_be_damaged(path: Path, copy: Path) -> None:
    with path.open("r+b") as file:
        file.seek(4096 * 3)
        file.write(b"\xa5" * 4096 * 3)
    await refusal(back_up, path, copy, kind=CorruptDatabase)
    assert names(copy.parent) == ["data"]


async def test_a_full_disk_is_told_of_and_nothing_is_left_on_it(path: Path, tmp_path: Path) -> None:
    log = await open_sqlite(path)
    await store(log, *(create(bytes(200_000), of=f"s{number}") for number in range(20)))
    await log.aclose()
    with mounted(tmp_path / "small", "1m") as disk:
        assert "full" in await refusal(back_up, path, disk.path / "copy.db", kind=UnwritableDatabase)
        assert names(disk.path) == []


@pytest.mark.parametrize("half_way", [False, True])
async def test_an_older_schema_is_copied_as_it_is_and_brought_up_to_date_where_it_is_served(
    path: Path, copy: Path, half_way: bool
) -> None:
    old = path.with_name("old.db")
    make_version_1(old)

    def leave(done: int, total: int) -> None:
        raise InterruptedError

    if half_way:
        with pytest.raises(InterruptedError):
            await open_sqlite(old, progress=leave)
    await back_up(old, copy)
    await restore(copy, path)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (1,)
    found = []
    for each in (old, copy, path):
        log = await open_sqlite(each)
        heads = await log.heads()
        found.append([await entries(log, head.session_id, head.epoch, page=1000) for head in heads])
        await log.aclose()
    assert found[0] == found[1] == found[2]
    assert sum(map(len, found[0])) > 10_000


# --- what is cut off


def killed_at(line: int, work: Callable[[], object]) -> Callable[[], None]:
    """Does the work in this process, which dies when so many lines of the module were begun."""

    def run() -> None:
        left = line

        def step(frame: FrameType, event: str, _: object) -> object:
            nonlocal left
            if frame.f_code.co_filename != backup.__file__:
                return None
            if event == "line":
                left -= 1
                if not left:
                    os.kill(os.getpid(), signal.SIGKILL)
            return step

        sys.settrace(step)  # type: ignore[arg-type]
        work()
        sys.settrace(None)

    return run


@pytest.mark.long
def test_a_kill_at_any_line_leaves_no_half_copy_and_the_next_one_succeeds(tmp_path: Path) -> None:
    path, copy, part = tmp_path / "chat.db", tmp_path / "copy.db", tmp_path / "copy.db.part"
    trio.run(make, path)
    before = content(path)
    line, seen, unnamed, done = 0, set(), 0, False
    while not done:
        line += 1
        code = wait_for(forked(killed_at(line, lambda: backup._back_up(path, copy, _Run()))))
        done = code == 0
        assert code in (0, -signal.SIGKILL)
        seen.add((copy.exists(), part.exists()))
        if copy.exists():
            assert content(copy) == before
            assert mode_of(copy) == 0o600
            copy.unlink()
        elif part.exists() and mode_of(part) == 0o600 and part.stat().st_size:
            # Between two lines it is whole, and has not got its name.
            assert content(part) == before
            part.unlink()
            unnamed += 1
        else:
            backup._back_up(path, copy, _Run())
            assert content(copy) == before
            copy.unlink()
        assert names(tmp_path) == ["chat.db"]
        assert content(path) == before
    assert seen == {(False, False), (False, True), (True, False)}
    assert line > 40
    assert unnamed < 12  # lines, none of which takes any time


@pytest.mark.long
def test_a_kill_at_any_line_of_a_restore_leaves_the_old_database_or_the_new_one(tmp_path: Path) -> None:
    old, new, path = tmp_path / "old.db", tmp_path / "new.db", tmp_path / "chat.db"
    trio.run(make, old)
    trio.run(lambda: make(new, events=50))
    before, after, original = restored(old), restored(new), content(new)
    line, seen, done = 0, set(), False
    while not done:
        line += 1
        for file in tmp_path.glob("chat.db*"):
            file.unlink()
        shutil.copy(old, path)
        code = wait_for(forked(killed_at(line, lambda: backup._restore(new, path, _Run()))))
        done = code == 0
        assert code in (0, -signal.SIGKILL)
        found = restored(path)
        assert found in (before, after)
        seen.add(found == after)
        kept = list(tmp_path.glob("chat.db.replaced-*Z"))
        assert [restored(file) for file in kept] in ([], [before])
        assert len(kept) == 1 or found == before
        assert content(new) == original
    assert seen == {True, False}


@pytest.mark.parametrize("phase", ["_copy", "_check"])
@pytest.mark.parametrize("what", [back_up, restore])
async def test_what_is_cancelled_leaves_nothing(
    path: Path, copy: Path, monkeypatch: pytest.MonkeyPatch, phase: str, what: Callable[[Path, Path], object]
) -> None:
    begun = threading.Event()

    def endless(source: object, part: str, run: _Run) -> None:
        """As a statement that never ends."""
        begun.set()
        with closing(sqlite3.connect(":memory:")) as connection:
            connection.set_progress_handler(run.stopped.is_set, 1000)
            with pytest.raises(sqlite3.OperationalError, match="interrupted"):
                connection.execute(ENDLESS).fetchall()
        run.check()

    before = content(path)
    if what is restore:
        shutil.copy(path, copy)
    there = names(copy.parent)
    monkeypatch.setattr(backup, phase, endless)
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(what, path, copy)  # type: ignore[arg-type]
            assert await trio.to_thread.run_sync(begun.wait, 10)
            nursery.cancel_scope.cancel()
    assert names(copy.parent) == there
    assert names(path.parent) == ["chat.db"]
    assert content(path) == before


async def test_the_statement_itself_ends_when_nobody_wants_it_any_more(path: Path, copy: Path) -> None:
    log = await open_sqlite(path)
    await store(log, *(create(*[BODY] * 2000, of=f"s{number}") for number in range(20)))
    await log.aclose()
    run = _Run()
    run.stopped.set()
    with pytest.raises(backup._Stopped):
        backup._back_up(path, copy, run)
    assert names(copy.parent) == ["data"]


async def test_progress_goes_from_copying_to_checking(path: Path, copy: Path) -> None:
    heard: list[CopyProgress] = []
    await back_up(path, copy, progress=heard.append)
    assert heard
    assert {report.phase for report in heard} <= {"copying", "checking"}


# --- the way back


async def test_restoring_puts_the_copy_in_place_and_keeps_what_was_there(path: Path, copy: Path) -> None:
    before = restored(path)
    await back_up(path, copy)
    log = await open_sqlite(path)
    await store(log, append(b"later", tail=20))
    await log.aclose()
    later = content(path)
    kept = await restore(copy, path)
    assert kept is not None
    assert restored(path) == before
    assert content(Path(kept)) == later
    assert mode_of(path) == 0o600
    assert names(path.parent) == ["chat.db", os.path.basename(kept)]
    log = await open_sqlite(path)
    epochs = {head.epoch for head in await log.heads()}
    assert len(epochs) == 2
    assert "e1" not in epochs
    found = await log.head("s")
    assert found is not None
    await store(log, append(b"on it goes", epoch=found.epoch, tail=20))
    await log.aclose()
    again = await open_sqlite(kept)  # it is a database of its own, of one name
    assert (await bodies(again))[-1] == b"later"
    await again.aclose()


async def test_restoring_where_there_is_nothing(path: Path, copy: Path, tmp_path: Path) -> None:
    await back_up(path, copy)
    assert await restore(copy, tmp_path / "new.db") is None
    assert restored(tmp_path / "new.db") == restored(path)
    assert mode_of(tmp_path / "new.db") == 0o600


@pytest.mark.parametrize("state", ["killed", "damaged", "no database any more", "gone but for its write-ahead log"])
async def test_what_a_former_database_left_beside_it_is_never_taken_for_a_part_of_the_restored_one(
    path: Path, copy: Path, state: str
) -> None:
    await back_up(path, copy)
    wanted = restored(copy)
    log = await open_sqlite(path)
    await store(log, *(append(BODY, tail=20 + number) for number in range(30)))
    left = path.parents[1] / "left"
    shutil.copytree(path.parent, left)
    await log.aclose()
    there = left / "chat.db"
    spoil(there, state)
    kept = await restore(copy, there)
    assert not [name for name in names(left) if name in ("chat.db-wal", "chat.db-shm", "chat.db-lock")]
    assert restored(there) == wanted
    assert kept is not None
    if state == "killed":
        assert len(content(Path(kept))) == len(wanted) + 30
    if state.startswith("gone"):
        assert size_of(kept + "-wal") > 0


def spoil(path: Path, state: str) -> None:
    match state:
        case "damaged":
            path.write_bytes(path.read_bytes()[:4096] + b"\xa5" * 8192)
        case "no database any more":
            path.write_bytes(b"x" * 9000)
        case "gone but for its write-ahead log":
            path.unlink()
        case _:
            pass


def size_of(path: str) -> int:
    return os.path.getsize(path)


async def test_restoring_is_refused_beside_whoever_has_either_file_open(path: Path, copy: Path) -> None:
    await back_up(path, copy)
    before = content(path)
    log = await open_sqlite(path)
    assert "already open in this process" in await refusal(restore, copy, path, kind=DatabaseInUse)
    assert "name a backup" in await refusal(restore, path, copy, kind=DatabaseInUse)
    await log.aclose()
    with holder(path) as process:
        assert f"process {process.pid}" in await refusal(restore, copy, path, kind=DatabaseInUse)
        await refusal(restore, path, copy, kind=DatabaseInUse)
        path.with_name("chat.db-lock").unlink()
        await refusal(restore, copy, path, kind=DatabaseInUse)
    assert content(path) == before
    assert not [name for name in names(path.parent) if "replaced" in name or "part" in name]


async def test_a_file_is_not_restored_onto_itself(path: Path, copy: Path) -> None:
    link(copy, path)
    for pair in ((path, path), (copy, path), (path, copy)):
        assert "the file to restore from" in await refusal(restore, *pair, kind=UnwritableDatabase)
    assert names(path.parent) == ["chat.db"]


async def test_a_link_to_the_database_stays_one(path: Path, copy: Path, tmp_path: Path) -> None:
    await back_up(path, copy)
    link = tmp_path / "link.db"
    link.symlink_to(path)
    await restore(copy, link)
    assert os.path.islink(link)  # noqa: ASYNC240
    assert restored(path) == restored(copy)


async def test_an_engine_is_backed_up_in_its_own_process_and_its_copy_is_whole(path: Path, copy: Path) -> None:
    async with open_engine(path.with_name("engine.db")) as engine:
        session = await engine.create_session("mine")
        await session.post("before")
        await back_up(path.with_name("engine.db"), copy)
        await session.post("after")
    async with open_engine(copy) as engine:
        session = await engine.session("mine")
        shown = await session.snapshot()
        assert len(shown.messages) == 1
        await session.post("and on")


async def test_a_log_whose_file_was_replaced_by_a_restored_one_writes_nothing_more(
    path: Path, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Restoring is refused beside an engine; whoever does it by hand is noticed."""
    monkeypatch.setattr("penstock.engine.log.sqlite.watch._FRESH", 0.0)
    await back_up(path, copy)
    log: SqliteLog = await open_sqlite(path)
    os.replace(copy, path)
    (error,) = await outcomes(log, append(b"x", tail=20))
    assert isinstance(error, WriteFailed)
    with pytest.raises(UnwritableDatabase):
        await log.aclose()
    assert len(content(path)) > 20


async def test_a_reader_that_saw_more_than_the_backup_has_is_told_so_and_never_given_other_events_for_its_cursor(
    path: Path, copy: Path
) -> None:
    served = path.with_name("engine.db")
    async with open_engine(served) as engine:
        session = await engine.create_session("mine")
        await session.post("before")
        await back_up(served, copy)
        await session.post("seen, and not in the backup")
        cursor = await session.cursor()
    await restore(copy, served)
    async with open_engine(served) as engine:
        session = await engine.session("mine")
        for text in ("other", "words"):
            await session.post(text)
        async with session.subscribe(str(cursor)) as subscription:
            while not isinstance(gap := await subscription.receive(), Gap):
                assert isinstance(gap, Opened)
            assert gap.reason == "unknown_epoch"
