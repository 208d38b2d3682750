"""What opening a database file refuses, and how it says so: the file's name and what to do."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import trio

from penstock.engine.errors import CorruptDatabase, DatabaseError, DatabaseInUse, NewerSchema, UnwritableDatabase
from penstock.engine.log import open_sqlite
from tests.engine.writes import append, bodies, create, store

# Opens the log, says so, and waits; with "fork" a bare fork stays behind.
HOLDER = """
import os, sys, trio
from penstock.engine.log import open_sqlite

async def main():
    log = await open_sqlite(sys.argv[1])
    child = os.fork() if "fork" in sys.argv else -1
    if child == 0:
        print("open", flush=True)
        sys.stdin.read()
        os._exit(0)
    if child == -1:
        print("open", flush=True)
    await trio.to_thread.run_sync(sys.stdin.read)
    await log.aclose()

trio.run(main)
"""


@pytest.fixture
async def path(tmp_path: Path) -> Path:
    """A database with one session in it."""
    path = tmp_path / "chat.db"
    log = await open_sqlite(path)
    await store(log, create(b"1", b"2"), *(create(*[b"x" * 500] * 20, of=f"s{number}") for number in range(20)))
    await log.aclose()
    return path


@contextmanager
def holder(path: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Another process that has the database open."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert process.stdin
    assert process.stdout
    with process.stdin, process.stdout:
        try:
            assert process.stdout.readline() == "open\n"
            yield process
        finally:
            process.kill()
            process.wait()


def content_of(path: Path) -> bytes:
    return path.read_bytes()


def overwrite(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def files_in(folder: Path) -> list[str]:
    return [file.name for file in folder.iterdir()]


async def refusal(path: Path, kind: type[DatabaseError]) -> str:
    """What is said when ``path`` is refused: always with the file's name."""
    with pytest.raises(kind) as caught:
        await open_sqlite(path)
    assert str(path) in caught.value.detail
    return caught.value.detail


async def test_a_database_opens_again_with_all_that_was_stored(path: Path) -> None:
    log = await open_sqlite(path)
    assert await bodies(log) == [b"1", b"2"]
    await store(log, append(b"3", tail=2))
    await log.aclose()
    log = await open_sqlite(os.fspath(path))
    assert await bodies(log) == [b"1", b"2", b"3"]
    await log.aclose()


async def test_a_closed_database_is_one_file(path: Path) -> None:
    assert files_in(path.parent) == ["chat.db"]


async def test_an_empty_file_becomes_a_database(tmp_path: Path) -> None:
    path = tmp_path / "empty.db"
    path.touch()
    log = await open_sqlite(path)
    await store(log, create(b"1"))
    await log.aclose()


async def test_a_newer_schema_is_refused_and_left_alone(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 5")
    before = content_of(path)
    assert "newer" in await refusal(path, NewerSchema)
    assert content_of(path) == before


@pytest.mark.parametrize("content", [b"x", b"Dear diary, " * 500, b"\0" * 8192])
async def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "diary.txt"
    overwrite(path, content)
    await refusal(path, CorruptDatabase)
    assert content_of(path) == content
    assert files_in(tmp_path) == ["diary.txt"]


async def test_another_programs_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE sessions (name TEXT)")
    before = content_of(path)
    assert "other program" in await refusal(path, CorruptDatabase)
    assert content_of(path) == before


async def test_a_missing_table_is_refused(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP TABLE records")
    await refusal(path, CorruptDatabase)


@pytest.mark.parametrize("page", [0, 1, 2, 3, -1])
async def test_a_damaged_database_is_refused(path: Path, page: int) -> None:
    content = content_of(path)
    pages = [content[start : start + 4096] for start in range(0, len(content), 4096)]
    pages[page] = pages[page][:100] + b"\xa5" * 3996
    overwrite(path, b"".join(pages))
    assert "backup" in await refusal(path, CorruptDatabase)


async def test_a_database_cut_short_is_refused(path: Path) -> None:
    overwrite(path, content_of(path)[:-8192])
    assert "backup" in await refusal(path, CorruptDatabase)


async def test_a_missing_folder_is_refused_and_named(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "chat.db"
    assert f"{path.parent} is missing" in await refusal(path, UnwritableDatabase)
    assert not path.parent.exists()


async def test_a_folder_is_refused(tmp_path: Path) -> None:
    assert "folder" in await refusal(tmp_path, UnwritableDatabase)


NOBODY = 65534


def in_child_of_no_privilege(work: Callable[[], None]) -> int:
    """Exit code of a child process that does ``work`` as a user that is not root; 0 when it went well."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setgid(NOBODY)
                os.setuid(NOBODY)
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("read_only", ["file", "folder"])
def test_what_this_user_may_not_write_is_refused(read_only: str) -> None:
    # Not in tmp_path, whose parents another user may not enter.
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / "chat.db"

        async def make() -> None:
            await (await open_sqlite(path)).aclose()

        trio.run(make)
        folder.chmod(0o555 if read_only == "folder" else 0o777)
        path.chmod(0o444 if read_only == "file" else 0o666)
        refused = in_child_of_no_privilege(lambda: trio.run(_refused, path))
        assert refused == 0
        folder.chmod(0o755)


async def _refused(path: Path) -> None:
    await refusal(path, UnwritableDatabase)


async def test_a_second_open_in_this_process_is_refused(path: Path, tmp_path: Path) -> None:
    log = await open_sqlite(path)
    assert "in this process" in await refusal(path, DatabaseInUse)
    link = tmp_path / "link.db"
    link.symlink_to(path)
    with pytest.raises(DatabaseInUse):
        await open_sqlite(link)
    await store(log, append(b"3", tail=2))
    await log.aclose()
    await (await open_sqlite(link)).aclose()


async def test_a_database_that_another_process_has_open_is_refused_until_it_is_killed(path: Path) -> None:
    with holder(path) as process:
        assert f"process {process.pid}" in await refusal(path, DatabaseInUse)
    log = await open_sqlite(path)
    assert await bodies(log) == [b"1", b"2"]
    await log.aclose()


async def test_a_fork_of_a_killed_process_does_not_keep_the_database(path: Path) -> None:
    with holder(path, "fork") as process:
        await refusal(path, DatabaseInUse)
        process.kill()
        process.wait()
        # The fork lives: it waits for our end of its standard input.
        await (await open_sqlite(path)).aclose()


async def test_a_program_that_holds_the_write_lock_is_told_of(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock.engine.log.sqlite.database._BUSY_TIMEOUT", 0.01)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        assert "another program" in await refusal(path, DatabaseInUse)
    await (await open_sqlite(path)).aclose()


async def test_a_refused_open_frees_the_database(path: Path) -> None:
    good = content_of(path)
    overwrite(path, b"not a database")
    await refusal(path, CorruptDatabase)
    overwrite(path, good)
    await (await open_sqlite(path)).aclose()


async def test_a_cancelled_open_leaves_nothing_open(path: Path) -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        await open_sqlite(path)
    assert scope.cancelled_caught
    await (await open_sqlite(path)).aclose()
