"""Looking at a database without writing: closed, left by a crash, and beside the process that has it open."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from penstock.engine.errors import (
    CorruptDatabase,
    DatabaseError,
    NewerSchema,
    StorageError,
    UnwritableDatabase,
    WriteFailed,
)
from penstock.engine.log import Entry, SqliteLog, open_sqlite, open_sqlite_reader
from tests.engine.writes import append, bodies, create, entries, head, outcomes, store


@pytest.fixture
async def path(tmp_path: Path) -> Path:
    """A closed database with one session in it, alone in its folder."""
    folder = tmp_path / "folder"
    folder.mkdir()
    log = await open_sqlite(folder / "chat.db")
    await store(log, create(b"1", b"2", records={"open": b"g", "r/1": b"x"}), create(b"x", of="t"))
    await log.aclose()
    return folder / "chat.db"


@pytest.fixture
async def served(path: Path) -> AsyncIterator[SqliteLog]:
    """The same database, open."""
    log = await open_sqlite(path)
    yield log
    await log.aclose()


def state_of(path: Path) -> dict[str, tuple[bytes, int]]:
    """Everything in the folder, but for SQLite's index of its write-ahead log, which is memory that is shared."""
    return {
        file.name: (file.read_bytes(), file.stat().st_mtime_ns)
        for file in path.parent.iterdir()
        if not file.name.endswith("-shm")
    }


def overwrite(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def damage(path: Path) -> None:
    """Spoil all pages but the first few."""
    content = bytearray(path.read_bytes())
    for page in range(5, len(content) // 4096):
        content[page * 4096 : page * 4096 + 64] = b"\xa5" * 64
    path.write_bytes(content)


async def assert_readable(path: Path) -> None:
    reader = await open_sqlite_reader(path)
    assert await reader.heads() == [head(tail=2), head("t", tail=1)]
    assert await reader.head("s") == head(tail=2)
    assert await bodies(reader) == [b"1", b"2"]
    assert await reader.records("s", "e1") == {"open": b"g", "r/1": b"x"}
    assert await reader.record("s", "e1", "open") == b"g"
    assert await reader.holders("open") == [("s", b"g")]
    assert await reader.check_integrity() == []
    await reader.aclose()


async def test_a_closed_database_is_read_and_nothing_beside_it_is_made(path: Path) -> None:
    before = state_of(path)
    await assert_readable(path)
    assert state_of(path) == before
    assert os.listdir(path.parent) == ["chat.db"]


async def test_a_database_that_is_open_is_read_and_can_be_written_meanwhile(path: Path, served: SqliteLog) -> None:
    await store(served, append(tail=2, records={"q": b"1"}))
    before = state_of(path)
    reader = await open_sqlite_reader(path)
    assert await reader.record("s", "e1", "q") == b"1"
    assert (await reader.state()).process == os.getpid()
    assert state_of(path) == before
    await store(served, append(b"3", tail=2))
    assert await bodies(reader) == [b"1", b"2", b"3"]
    await reader.aclose()
    await store(served, append(b"4", tail=3))


async def test_what_a_crash_left_in_the_write_ahead_log_is_seen(path: Path, served: SqliteLog, tmp_path: Path) -> None:
    await store(served, append(b"3", tail=2))
    crashed = tmp_path / "crashed"
    shutil.copytree(path.parent, crashed)
    before = state_of(crashed / "chat.db")
    reader = await open_sqlite_reader(crashed / "chat.db")
    assert await bodies(reader) == [b"1", b"2", b"3"]
    assert (await reader.state()).wal > 0
    await reader.aclose()
    assert state_of(crashed / "chat.db") == before


async def test_a_database_can_be_opened_while_it_is_looked_at_and_the_reader_is_told(path: Path) -> None:
    reader = await open_sqlite_reader(path)
    assert (await reader.state()).process is None
    log = await open_sqlite(path)
    with pytest.raises(StorageError, match="opened by another process"):
        await bodies(reader)
    await log.aclose()
    with pytest.raises(StorageError):
        await reader.heads()
    await reader.aclose()
    await assert_readable(path)


async def test_nothing_can_be_written(path: Path) -> None:
    reader = await open_sqlite_reader(path)
    errors = await outcomes(reader, append(b"x", tail=2), create(of="new"))
    assert [type(error) for error in errors] == [WriteFailed, WriteFailed]
    assert reader.statistics().failed_writes == 2
    assert await bodies(reader) == [b"1", b"2"]
    await reader.aclose()


async def test_a_closed_reader_reads_no_more(path: Path) -> None:
    reader = await open_sqlite_reader(path)
    await reader.aclose()
    await reader.aclose()
    with pytest.raises(StorageError):
        await reader.heads()


async def test_the_files_state_is_told(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE ballast (x)")
        connection.execute("INSERT INTO ballast VALUES (zeroblob(100000))")
        connection.commit()
        connection.execute("DROP TABLE ballast")
        connection.execute("UPDATE sessions SET ended = 1 WHERE session = 't'")
        connection.commit()
    reader = await open_sqlite_reader(path)
    state = await reader.state()
    assert state.path == str(path)
    assert state.size == len(state_of(path)["chat.db"][0])
    assert 100_000 <= state.free < state.size
    assert (state.wal, state.ended, state.process) == (0, 1, None)
    await reader.aclose()


@pytest.mark.parametrize("content", ["", "nonsense\n", "999999999999999999999\n", "0\n"])
async def test_a_lock_that_nobody_holds_names_nobody(path: Path, content: str) -> None:
    overwrite(Path(f"{path}-lock"), content.encode())
    reader = await open_sqlite_reader(path)
    assert (await reader.state()).process is None
    await reader.aclose()


async def test_damage_is_found(path: Path) -> None:
    log = await open_sqlite(path)
    await store(log, *(create(*[b"x" * 500] * 20, of=f"s{number}") for number in range(20)))
    await log.aclose()
    damage(path)
    reader = await open_sqlite_reader(path)
    assert await reader.check_integrity() != []
    await reader.aclose()


async def refusal(path: Path, kind: type[DatabaseError]) -> str:
    with pytest.raises(kind) as caught:
        await open_sqlite_reader(path)
    assert str(path) in caught.value.detail
    return caught.value.detail


async def test_a_missing_file_is_refused_and_not_made(tmp_path: Path) -> None:
    assert "not there" in await refusal(tmp_path / "chat.db", UnwritableDatabase)
    await refusal(tmp_path / "missing" / "chat.db", UnwritableDatabase)
    await refusal(tmp_path, UnwritableDatabase)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("content", [b"", b"x", b"Dear diary, " * 500, b"\0" * 8192])
async def test_a_file_that_is_no_database_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "diary.txt"
    overwrite(path, content)
    await refusal(path, CorruptDatabase)
    assert state_of(path)["diary.txt"][0] == content


async def test_another_programs_database_and_a_newer_one_are_refused(path: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.db"
    with closing(sqlite3.connect(other)) as connection:
        connection.execute("CREATE TABLE sessions (name TEXT)")
    assert "other program" in await refusal(other, CorruptDatabase)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 5")
    assert "newer" in await refusal(path, NewerSchema)


async def test_a_name_that_means_something_in_a_url_is_only_a_name(path: Path) -> None:
    odd = path.with_name("a?mode=rw#%41&.db")
    os.rename(path, odd)
    reader = await open_sqlite_reader(odd)
    assert await entries(reader, "t") == [Entry(1, b"x")]
    await reader.aclose()
    assert os.listdir(odd.parent) == [odd.name]
