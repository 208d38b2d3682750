"""One file, one engine: by whatever name it is opened, in this process or another."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, TypeAlias, final

import pytest
import trio

from penstock.engine import EventLog, MemoryLog, open_engine
from penstock.engine.errors import DatabaseError, DatabaseInUse, UnwritableDatabase
from penstock.engine.log import open_sqlite, open_sqlite_reader
from penstock.engine.log.sqlite.claim import Claim, Look
from tests.checkout import environment
from tests.engine.forks import forked, wait_for
from tests.engine.test_log_opening import holder
from tests.engine.writes import append, bodies, create, store

Name: TypeAlias = Callable[[Path, contextlib.ExitStack], Path]


def mount(source: Path, target: Path, undo: contextlib.ExitStack) -> Path:
    """Skips the test where mounting is not permitted."""
    try:
        subprocess.run(["mount", "--bind", str(source), str(target)], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"mounting is not permitted here: {error}")
    undo.callback(subprocess.run, ["umount", "--lazy", str(target)], check=True)
    return target


def made(path: Path, *, folder: bool = False) -> Path:
    path.parent.mkdir(exist_ok=True)
    if folder:
        path.mkdir()
    else:
        path.touch()
    return path


def linked(path: Path, link: Callable[[Path], None]) -> Path:
    path.parent.mkdir(exist_ok=True)
    link(path)
    return path


# Each gives another name to the database at a path like a/chat.db.
SAME_LINK: Final[dict[str, Name]] = {
    "the same": lambda path, undo: path,
    "relative": lambda path, undo: Path(os.path.relpath(path)),
    "over a folder and back": lambda path, undo: path.parent / ".." / path.parent.name / path.name,
    "over a linked folder and back": lambda path, undo: (
        linked(path.parents[1] / "b" / "to", lambda link: link.symlink_to(made(path.parent / "deep", folder=True)))
        / ".."
        / path.name
    ),
    "symlink": lambda path, undo: linked(path.parents[1] / "b" / "link.db", lambda link: link.symlink_to(path)),
    "symlink to a symlink": lambda path, undo: linked(
        path.parent / "second.db", lambda link: link.symlink_to(linked(path.parent / "x", lambda x: x.symlink_to(path)))
    ),
    "symlink to the folder": lambda path, undo: (
        linked(path.parents[1] / "c", lambda link: link.symlink_to(path.parent)) / path.name
    ),
    "bind of the file": lambda path, undo: mount(path, made(path.parents[1] / "b" / "bound.db"), undo),
    "bind of the folder": lambda path, undo: (
        mount(path.parent, made(path.parents[1] / "d", folder=True), undo) / path.name
    ),
}
HARD: Final[dict[str, Name]] = {
    "hard link": lambda path, undo: linked(path.parent / "hard.db", lambda link: link.hardlink_to(path)),
    "hard link elsewhere": lambda path, undo: linked(path.parents[1] / "b" / "hard.db", lambda x: x.hardlink_to(path)),
}
NAMES: Final = SAME_LINK | HARD

OPENS: Final = """
import sys, trio
from penstock.engine.errors import DatabaseError
from penstock.engine.log import open_sqlite

async def said(path):
    try:
        log = await open_sqlite(path)
    except DatabaseError as error:
        return f"{type(error).__name__} {error.detail}"
    await log.aclose()
    return "opened"

for line in sys.stdin:
    print(trio.run(said, line.removesuffix("\\n")), flush=True)
"""


async def said_here(path: Path) -> str:
    try:
        log = await open_sqlite(path)
    except DatabaseError as error:
        return f"{type(error).__name__} {error.detail}"
    await log.aclose()
    return "opened"


@final
class Another:
    """A process that opens what it is told to, closes it again and says what came of it: one path a line."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", OPENS],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment(),
        )

    def said(self, path: Path) -> str:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(f"{path}\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().removesuffix("\n")

    async def says(self, path: Path) -> str:
        return await trio.to_thread.run_sync(self.said, path)

    def end(self) -> None:
        with self._process as process:
            assert process.stdin
            process.stdin.close()
            assert process.wait(10) == 0


@pytest.fixture(scope="module")
def another() -> Iterator[Another]:
    """It keeps nothing of what it closed, so one process does for all."""
    another = Another()
    yield another
    another.end()


def resolved(path: Path) -> str:
    return os.path.realpath(path)


def remove(path: Path) -> None:
    path.unlink()


def make(path: Path, mode: int) -> None:
    path.chmod(mode)


def mode_of(path: Path) -> int:
    return path.stat().st_mode & 0o777


@pytest.fixture
async def path(tmp_path: Path) -> Path:
    path = tmp_path / "a" / "chat.db"
    path.parent.mkdir()
    log = await open_sqlite(path)
    await store(log, create(b"1"))
    await log.aclose()
    return path


@pytest.fixture
def undo() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as undo:
        yield undo


@pytest.mark.parametrize("name", NAMES)
async def test_whoever_opens_it_a_second_time_is_refused_whatever_name_is_used(
    path: Path, undo: contextlib.ExitStack, another: Another, name: str
) -> None:
    log = await open_sqlite(path)
    other = NAMES[name](path, undo)
    refused = await said_here(other)
    assert refused.startswith("DatabaseInUse")
    assert "already open in this process" in refused
    refused = await another.says(other)
    assert refused.startswith("DatabaseInUse")
    assert resolved(other) in refused
    # Whoever was refused took nothing away, SQLite's own locks least of all.
    await store(log, append(b"2", tail=1))
    assert (await another.says(path)).startswith("DatabaseInUse")
    assert await bodies(log) == [b"1", b"2"]
    await log.aclose()
    if name in SAME_LINK:
        assert await said_here(other) == "opened"
        assert await another.says(other) == "opened"


@pytest.mark.parametrize("name", HARD)
async def test_a_file_of_several_names_is_refused_by_each_of_them_until_one_is_left(
    path: Path, undo: contextlib.ExitStack, name: str
) -> None:
    other = HARD[name](path, undo)
    for either in (path, other):
        refused = await said_here(either)
        assert refused.startswith("UnwritableDatabase")
        assert str(either) in refused
        assert "-samefile" in refused
    remove(path)
    log = await open_sqlite(other)
    assert await bodies(log) == [b"1"]
    await log.aclose()


async def test_a_deleted_lock_file_lets_nobody_in_and_another_ones_is_left_alone(path: Path, another: Another) -> None:
    lock = path.with_name("chat.db-lock")
    log = await open_sqlite(path)
    lock.unlink()
    assert (await said_here(path)).startswith("DatabaseInUse")
    assert (await another.says(path)).startswith("DatabaseInUse")
    lock.write_text("another one's")
    await log.aclose()
    assert lock.read_text() == "another one's"
    assert await said_here(path) == "opened"


async def test_of_many_that_open_a_new_database_at_the_same_moment_one_gets_it(tmp_path: Path) -> None:
    path = tmp_path / "new.db"
    said: list[str] = []

    async def open_it(another: Another) -> None:
        said.append(await another.says(path))

    others = [Another() for _ in range(4)]
    log = await open_sqlite(path)
    async with trio.open_nursery() as nursery:
        for another in others:
            nursery.start_soon(open_it, another)
    assert [text.split()[0] for text in said] == ["DatabaseInUse"] * 4
    for another in others:
        another.end()
    await log.aclose()
    opened = []

    async def race() -> None:
        with contextlib.suppress(DatabaseInUse):
            opened.append(await open_sqlite(tmp_path / "race.db"))

    async with trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(race)
    assert len(opened) == 1
    await opened[0].aclose()


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o777])
async def test_a_new_database_and_all_beside_it_are_its_owners_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        log = await open_sqlite(tmp_path / "chat.db")
        await store(log, create(b"1"))
    finally:
        os.umask(before)
    names = ["chat.db", "chat.db-lock", "chat.db-shm", "chat.db-wal"]
    assert sorted(os.listdir(tmp_path)) == names
    assert [mode_of(tmp_path / name) for name in names] == [0o600] * 4
    await log.aclose()


@pytest.mark.parametrize(("mode", "warned"), [(0o600, 0), (0o700, 0), (0o640, 1), (0o604, 1), (0o666, 1), (0o620, 1)])
async def test_a_database_that_others_may_use_is_warned_of_and_stays_as_it_is(
    path: Path, mode: int, warned: int, caplog: pytest.LogCaptureFixture
) -> None:
    make(path, mode)
    log = await open_sqlite(path)
    lines = [record for record in caplog.records if record.message == "database_open_to_others"]
    assert len(lines) == warned
    assert all("chmod 600" in vars(line)["detail"] for line in lines)
    assert mode_of(path.with_name("chat.db-lock")) == mode & 0o666
    await log.aclose()
    assert mode_of(path) == mode


async def test_looking_and_leaving_in_the_process_that_serves_keeps_the_lock(path: Path, another: Another) -> None:
    log = await open_sqlite(path)
    for _ in range(3):
        reader = await open_sqlite_reader(path)
        await reader.aclose()
        assert (await another.says(path)).startswith("DatabaseInUse")
    await log.aclose()


def is_claimed(look: Look) -> bool:
    """As a function: what a property says may change between two looks."""
    return look.claimed


def descriptors_of(path: Path) -> int:
    names = [f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd")]
    return sum(os.path.realpath(name) == str(path) for name in names if os.path.exists(name))


async def test_a_file_that_is_in_use_is_not_closed_by_those_who_leave_nor_opened_for_each_who_comes(path: Path) -> None:
    claim = Claim.take(str(path))
    looks = [Look.take(str(path)) for _ in range(20)]
    open_ = descriptors_of(path)
    assert open_ <= 2
    assert all(is_claimed(look) for look in looks)
    for look in looks:
        look.release()
        look.release()
    assert descriptors_of(path) == open_
    last = Look.take(str(path))
    claim.release()
    assert not is_claimed(last)
    for _ in range(20):
        again = Claim.take(str(path))
        assert is_claimed(last)
        again.release()
    assert descriptors_of(path) == open_
    last.release()
    assert descriptors_of(path) == 0


async def test_whether_it_is_open_elsewhere_is_seen_by_any_name(path: Path, undo: contextlib.ExitStack) -> None:
    look = Look.take(str(NAMES["bind of the file"](path, undo)))
    assert not is_claimed(look)
    with holder(path) as process:
        assert is_claimed(look)
        process.kill()
        await trio.to_thread.run_sync(process.wait)
        assert not is_claimed(look)
    look.release()


def test_what_is_no_plain_file_is_refused(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.db"
    os.mkfifo(pipe)
    for path in (pipe, Path("/dev/null")):
        with pytest.raises(UnwritableDatabase, match="not a plain file"):
            Claim.take(str(path))


async def test_a_fork_may_use_what_its_parent_has_closed_and_keeps_nothing_of_it(path: Path) -> None:
    log = await open_sqlite(path)
    ready, go_on = os.pipe(), os.pipe()

    def wait() -> None:
        os.write(ready[1], b"x")
        os.read(go_on[0], 1)

    child = forked(wait)
    os.read(ready[0], 1)
    await log.aclose()
    assert await said_here(path) == "opened"
    os.write(go_on[1], b"x")
    assert await trio.to_thread.run_sync(wait_for, child) == 0
    for end in (*ready, *go_on):
        os.close(end)


async def test_a_reader_by_a_name_that_lacks_the_rest_of_an_open_database_is_told_so(
    path: Path, undo: contextlib.ExitStack
) -> None:
    names = {name: NAMES[name](path, undo) for name in ("hard link", "bind of the file", "symlink")}
    for other in names.values():
        await (await open_sqlite_reader(other)).aclose()
    remove(names["hard link"])
    log = await open_sqlite(path)
    hard = HARD["hard link"](path, undo)
    await store(log, append(b"2", tail=1))
    for other in (hard, names["bind of the file"]):
        with pytest.raises(DatabaseInUse, match="another name"):
            await open_sqlite_reader(other)
    reader = await open_sqlite_reader(names["symlink"])
    assert await bodies(reader) == [b"1", b"2"]
    assert (await reader.state()).served
    await reader.aclose()
    await log.aclose()


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_two_engines_over_one_log_object_are_refused_and_one_behind_the_other_are_not(
    tmp_path: Path, kind: str
) -> None:
    log: EventLog = MemoryLog() if kind == "memory" else await open_sqlite(tmp_path / "chat.db")
    for number in range(2):
        async with open_engine(log) as engine:
            with pytest.raises(DatabaseInUse, match="over this log"):
                async with open_engine(log):
                    pass
            await engine.create_session(f"s{number}")
            async with open_engine(MemoryLog()):
                pass
    assert [head.session_id for head in await log.heads()] == ["s0", "s1"]
    await log.aclose()


async def test_a_reader_that_came_before_the_first_write_sees_it(path: Path) -> None:
    log = await open_sqlite(path)
    reader = await open_sqlite_reader(path)
    await store(log, append(b"2", tail=1))
    assert await bodies(reader) == [b"1", b"2"]
    await reader.aclose()
    await log.aclose()
