"""Bringing an old database up to date: wherever it is left, nothing is lost, and going on comes to the same."""

from __future__ import annotations

import json
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Final

import pytest
import trio

from penstock.engine.errors import UnwritableDatabase
from penstock.engine.log import open_sqlite
from penstock.engine.log.port import BLOCK
from penstock.engine.log.sqlite import upgrade
from penstock.engine.log.sqlite.database import prepare
from penstock.engine.log.sqlite.upgrade import lines
from tests.engine.version_1 import VERSION_1
from tests.engine.writes import append, claim, head, store

# Rows of the databases here, and of a slice: enough slices to be left at each, over three chunks.
ROWS: Final = 17_000
SLICE: Final = 2_500

# Brings a database up to date and says how far it is.
UPGRADER: Final = f"""
import sys
from penstock.engine.log.sqlite import upgrade
from penstock.engine.log.sqlite.database import prepare

upgrade._ROWS = {SLICE // 5}
prepare(sys.argv[1], lambda done, total: print(done, flush=True))
"""


class Left(Exception):
    """Somebody wants no more of it."""


@pytest.fixture(autouse=True)
def small_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upgrade, "_ROWS", SLICE)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Lives whose events came in turns of any length, with holes; the highest rows of all are gone."""
    path = tmp_path_factory.mktemp("written") / "old.db"
    chance = random.Random(7)
    tails = dict.fromkeys(range(1, 6), 0)
    rows: list[tuple[int, int, bytes]] = []
    while len(rows) < ROWS:
        life = chance.choice(list(tails))
        for _ in range(chance.choice([1, 2, 300])):
            tails[life] += 1
            rows.append((life, tails[life], chance.randbytes(chance.randrange(40))))
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(VERSION_1)
        lives = [(life, f"s{life}", "e1", tail, 1, 0) for life, tail in tails.items()]
        connection.executemany("INSERT INTO sessions VALUES (?, ?, ?, ?, ?, ?)", lives)
        connection.executemany("INSERT INTO events VALUES (?, ?, ?)", rows)
        connection.execute("DELETE FROM events WHERE offset % 7 = 3")
        connection.execute("DELETE FROM events WHERE rowid > (SELECT max(rowid) FROM events) - 10")
        connection.execute("INSERT INTO records VALUES (1, 'open', x'01')")
        connection.commit()
    return path


@pytest.fixture
def old(written: Path, tmp_path: Path) -> Path:
    """The test's own copy of it."""
    return Path(shutil.copy(written, tmp_path))


@pytest.fixture(scope="module")
def whole(written: Path) -> dict[str, object]:
    """What it becomes when nothing comes between."""
    return upgraded(written)


def copy(path: Path, name: str) -> Path:
    return Path(shutil.copy(path, path.with_name(name)))


def version(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("PRAGMA user_version").fetchone()[0])


def indexes(path: Path) -> set[str]:
    with closing(sqlite3.connect(path)) as connection:
        listed = "SELECT name FROM sqlite_master WHERE type = 'index' AND tbl_name = 'events'"
        return {name for (name,) in connection.execute(listed)}


def events(path: Path) -> list[tuple[int, int, bytes]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("SELECT life, offset, body FROM events ORDER BY life, offset").fetchall()


def everything(path: Path) -> dict[str, object]:
    """All that a database holds, and that it is sound."""
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        schema = {
            name: re.sub(r"--.*", "", sql or "").replace('"', "").replace(",", " , ").replace(")", " ) ").split()
            for name, sql in connection.execute("SELECT name, sql FROM sqlite_master")
        }
        tables = ("sessions", "events", "records", "summaries")
        rows = {table: connection.execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall() for table in tables}
    return {"version": version(path), "schema": schema, **rows}


def upgraded(path: Path) -> dict[str, object]:
    """What is there when nothing comes between."""
    whole = copy(path, "whole.db")
    prepare(str(whole))
    return everything(whole)


def leave_after(slices: int) -> Callable[[int, int], None]:
    left = slices

    def progress(done: int, total: int) -> None:
        nonlocal left
        left -= 1
        if not left:
            raise Left

    return progress


def goes_on(path: Path, slices: int) -> bool:
    """Bring it up to date, but for leaving it after so many slices; whether it was left."""
    try:
        prepare(str(path), leave_after(slices))
    except Left:
        assert indexes(path) == ({"events_by_offset"} if version(path) == 1 else {"events_by_chunk", "events_first"})
        return True
    return False


def test_an_upgraded_database_has_the_tables_of_a_new_one(old: Path, tmp_path: Path) -> None:
    prepare(str(tmp_path / "new.db"))
    prepare(str(old))
    assert everything(old)["schema"] == everything(tmp_path / "new.db")["schema"]


def test_left_at_any_slice_it_is_as_it_was_or_whole_and_goes_on_to_the_same(
    old: Path, whole: dict[str, object]
) -> None:
    before = events(old)
    slices = 1
    while goes_on(path := copy(old, f"{slices}.db"), slices):
        assert events(path) == before
        prepare(str(path))
        assert everything(path) == whole
        slices += 1
    assert slices > 2 * ROWS * 0.8 // SLICE
    assert everything(path) == whole


def test_left_after_each_slice_it_comes_to_its_end_all_the_same(old: Path, whole: dict[str, object]) -> None:
    before = events(old)
    versions = []
    while goes_on(old, 1):
        assert events(old) == before
        versions.append(version(old))
    assert everything(old) == whole
    assert versions == sorted(versions)
    assert set(versions) == {1, 2}


def test_progress_tells_rows_and_grows_to_the_end(old: Path) -> None:
    told: list[tuple[int, int]] = []
    prepare(str(old), lambda done, total: told.append((done, total)))
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert len({total for _, total in told}) == 1
    assert told[-1][0] == told[-1][1]
    again: list[tuple[int, int]] = []
    prepare(str(old), lambda done, total: again.append((done, total)))
    assert again == []


def test_a_slice_is_bounded_in_bytes_as_well(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upgrade, "_BYTES", 1000)
    with closing(sqlite3.connect(old)) as connection:
        connection.execute("DELETE FROM events WHERE rowid > 400")
        connection.commit()
    whole = upgraded(old)
    told: list[int] = []
    prepare(str(old), lambda done, total: told.append(done))
    assert len(told) > 10
    assert everything(old) == whole


@pytest.mark.parametrize("seed", [pytest.param(seed, marks=[pytest.mark.long] * (seed > 2)) for seed in range(12)])
def test_broken_off_anywhere_in_a_slice_it_goes_on_to_the_same(
    old: Path, whole: dict[str, object], seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite itself gives up in the middle of a statement, again and again."""
    before = events(old)
    chance = random.Random(seed)
    connect = sqlite3.connect
    left = 0

    def breaking(*arguments: object, **options: object) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*arguments, **options)  # type: ignore[call-overload]
        steps = chance.randrange(1, 400 if left else 20)  # once in any case

        def step() -> bool:
            nonlocal steps
            steps -= 1
            return steps <= 0

        connection.set_progress_handler(step, 1000)
        return connection

    while True:
        with monkeypatch.context() as patched:
            patched.setattr(sqlite3, "connect", breaking)
            try:
                prepare(str(old))
                break
            except UnwritableDatabase:
                left += 1
        assert events(old) == before
    assert left
    assert everything(old) == whole


@pytest.mark.parametrize("slices", [1, 8, 17, 30, 36, 50])
def test_killed_anywhere_it_goes_on_to_the_same(old: Path, whole: dict[str, object], slices: int) -> None:
    before = events(old)
    with subprocess.Popen(
        [sys.executable, "-c", UPGRADER, str(old)],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    ) as process:
        assert process.stdout is not None
        for _ in range(slices):
            assert process.stdout.readline()
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert events(old) == before
    prepare(str(old))
    assert everything(old) == whole


# What an older version may do to a database that was left half-way.
MEANWHILE: Final = {
    "adds": "INSERT INTO events SELECT life, offset + 100000, body FROM events LIMIT 3000",
    "compacts": "UPDATE events SET body = x'AA' WHERE offset % 50 = 1",
    "removes": "DELETE FROM events WHERE offset % 5 = 1",
    "purges": "DELETE FROM events WHERE life = 2",
    "purges all": "DELETE FROM events",
    "purges and adds": "DELETE FROM events WHERE rowid > 1000; INSERT INTO events VALUES (1, 200000, x'BB')",
    "is vacuumed": "VACUUM",
    "purges, adds, is vacuumed": "DELETE FROM events WHERE rowid > 10; INSERT INTO events VALUES (9, 1, x''); VACUUM",
}


def read_back_from_a_dump(path: Path) -> None:
    """What `sqlite3 old.db .dump` makes: all rows, under other numbers where some were missing."""
    with closing(sqlite3.connect(path)) as connection:
        dump = list(connection.iterdump())
    for name in (path, *path.parent.glob(f"{path.name}-*")):
        name.unlink()
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript("\n".join([*dump, "PRAGMA application_id = 0x70656e73; PRAGMA user_version = 1;"]))


@pytest.mark.parametrize("slices", [1, 4])
@pytest.mark.parametrize("change", [*MEANWHILE, "is read back from a dump"])
def test_what_an_older_version_does_half_way_is_kept(old: Path, change: str, slices: int) -> None:
    assert goes_on(old, slices)
    assert version(old) == 1
    if change in MEANWHILE:
        with closing(sqlite3.connect(old)) as connection:
            connection.executescript(MEANWHILE[change])
    else:
        read_back_from_a_dump(old)
    changed = events(old)
    unbegun = copy(old, "unbegun.db")
    with closing(sqlite3.connect(unbegun)) as connection:
        connection.executescript(
            "DROP TRIGGER events_updated; DROP TRIGGER events_deleted; DROP TABLE events_touched; DROP TABLE events_new"
        )
    while goes_on(old, 2):  # what is begun anew is left as well
        assert events(old) == changed
    assert events(old) == changed
    assert everything(old) == upgraded(unbegun)


# An old session's first and last events, as version 2 had them, and what it holds open.
SAID: Final = (
    b'{"type":"session.created","session_id":"s","time":"2026-01-02T03:04:05.006Z","offset":1,"data":{"metadata":{}}}',
    (
        b'{"type":"message.snapshot","session_id":"s","time":"2026-01-02T03:04:06.000Z","offset":2,'
        b'"message_id":"0197a1b2-0000-7000-8000-000000000001","data":{"role":"user","status":"complete",'
        b'"blocks":[{"kind":"text","seq":0,"text":"  Who\\nwas   it? "}]}}'
    ),
    b'{"type":"queue.paused","session_id":"s","time":"2026-01-03T00:00:00.123Z","offset":3,"data":{}}',
)


@pytest.fixture
def second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A database of version 2: many sessions, one of which is over, one with nothing in it."""
    monkeypatch.setattr(upgrade, "_LIVES", 4)
    path = tmp_path / "second.db"
    prepare(str(path))
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            "DROP TABLE summaries; ALTER TABLE sessions DROP COLUMN owner; PRAGMA user_version = 2"
        )
        for life in range(1, 20):
            row = (life, f"s{life}", "e1", 3, 1, int(life == 7))
            connection.execute("INSERT INTO sessions VALUES (?, ?, ?, ?, ?, ?)", row)
            rows = [(8 * life + 2 * number + (not number), life, 1 + number, body) for number, body in enumerate(SAID)]
            connection.executemany("INSERT INTO events VALUES (?, ?, ?, ?)", rows if life != 9 else [])
        connection.execute("INSERT INTO records VALUES (3, 'open', ?)", (b'{"generation_id":"g","turn":1,"after":2}',))
        connection.commit()
    return path


def summaries(path: Path) -> dict[int, tuple[str, int, dict[str, object]]]:
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT * FROM summaries").fetchall()
    return {life: (session, place, json.loads(body)) for life, session, place, body in rows}


def test_each_living_session_gets_a_summary_of_what_is_stored(second: Path) -> None:
    prepare(str(second))
    found = summaries(second)
    assert found.keys() == set(range(1, 20)) - {7}
    told = {
        "created": "2026-01-02T03:04:05.006Z",
        "updated": "2026-01-03T00:00:00.123Z",
        "first": {"message_id": "0197a1b2-0000-7000-8000-000000000001", "role": "user", "text": "Who was it?"},
    }
    assert found[1] == ("s1", -1767398400123, told)
    assert found[3] == ("s3", -1767398400123, {**told, "running": "g"})
    assert found[9] == ("s9", 0, {})


def test_summaries_are_left_at_any_slice_and_go_on_to_the_same(second: Path) -> None:
    whole = upgraded(second)
    slices = 0
    while True:
        try:
            prepare(str(second), leave_after(1))
            break
        except Left:
            slices += 1
            assert version(second) == 2
            assert len(summaries(second)) == min(4 * slices, 18)
    assert slices == 5
    assert everything(second) == whole


def test_what_an_older_version_does_between_is_in_the_summaries(second: Path) -> None:
    with pytest.raises(Left):
        prepare(str(second), leave_after(2))
    later = SAID[2].replace(b"2026-01-03", b"2026-05-05").replace(b'"offset":3', b'"offset":4')
    with closing(sqlite3.connect(second)) as connection:
        connection.execute("INSERT INTO events VALUES (1000, 2, 4, ?)", (later,))
        connection.execute("UPDATE sessions SET ended = 1 WHERE life = 4")
        connection.execute("INSERT INTO sessions VALUES (30, 's4', 'e2', 0, 1, 0)")
        connection.commit()
    prepare(str(second))
    found = summaries(second)
    assert found.keys() == {*range(1, 20), 30} - {4, 7}
    assert found[2][2]["updated"] == "2026-05-05T00:00:00.123Z"
    assert found[30] == ("s4", 0, {})
    assert everything(second)["version"] == 4


async def test_what_has_no_owner_yet_is_nobodys_and_goes_on_under_its_token(tmp_path: Path) -> None:
    path = tmp_path / "third.db"
    prepare(str(path))
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript("ALTER TABLE sessions DROP COLUMN owner; PRAGMA user_version = 3")
        connection.execute("INSERT INTO sessions VALUES (1, 's', 'e1', 3, 7, 0)")
        connection.execute("INSERT INTO records VALUES (1, 'open', x'01')")
        connection.commit()
    log = await open_sqlite(path)
    assert await log.head("s") == head(tail=3, token=7)
    assert await log.owned("", having=["open"]) == ["s"]
    await store(log, append(b"4", tail=3, token=7), claim(seen=7, owner="a"))
    await log.aclose()
    log = await open_sqlite(path)
    assert await log.head("s") == head(tail=4, token=BLOCK, owner="a")
    await log.aclose()


async def test_cancelled_it_stops_and_the_next_opening_goes_on(old: Path) -> None:
    told: list[int] = []
    with trio.CancelScope() as scope:

        def progress(done: int, total: int) -> None:
            told.append(done)
            if len(told) == 2:
                trio.from_thread.run_sync(scope.cancel)

        await open_sqlite(old, progress=progress)
    assert scope.cancelled_caught
    assert len(told) == 2
    assert version(old) == 1
    log = await open_sqlite(old, progress=lambda done, total: told.append(done))
    assert told == sorted(set(told))  # nothing was done twice
    assert await log.head("s1") is not None
    await log.aclose()


def test_the_log_tells_of_it(old: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "penstock.log")
    prepare(str(old), lines(str(old)))
    said = [record.getMessage() for record in caplog.records]
    assert f"bringing {old} up to date: " in said[0]
    last = re.search(r"(\d+) of (\d+) rows", said[-1])
    assert last is not None
    assert last[1] == last[2]
