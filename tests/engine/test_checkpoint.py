"""The write-ahead log moves into the database beside the commits, and stays small."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

import pytest
import trio

from penstock.engine.errors import PenstockError
from penstock.engine.log import SqliteLog, open_sqlite
from penstock.engine.log.port import Move
from penstock.engine.log.sqlite.checkpoint import Checkpointer
from penstock.engine.log.sqlite.commit import Committer
from penstock.engine.log.sqlite.database import connect
from tests.engine.writes import append, create, store

SESSIONS: Final = 100
ROUNDS: Final = 60
BODY: Final = b"x" * 400

# What has been moved is written over: the file is as long as the most that was in it.
_MEBIBYTE: Final = 1 << 20


async def busy(log: SqliteLog) -> None:
    """A few events of each of many sessions in each commit, one commit behind the other."""
    left = 0
    done = trio.Event()

    def reported(error: PenstockError | None) -> None:
        nonlocal left
        assert error is None
        left -= 1
        if not left:
            done.set()

    for number in range(SESSIONS):
        log.submit(create(BODY, of=f"s{number}"), lambda error: None)
    for round_ in range(ROUNDS):
        for start in range(0, SESSIONS, 10):
            left, done = 10, trio.Event()
            for number in range(start, start + 10):
                log.submit(append(BODY, BODY, to=f"s{number}", tail=1 + 2 * round_), reported)
            await done.wait()


def check(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        counted = connection.execute("SELECT life, count(*), max(offset) FROM events GROUP BY life").fetchall()
    assert {(count, last) for _, count, last in counted} == {(1 + 2 * ROUNDS, 1 + 2 * ROUNDS)}
    assert len(counted) == SESSIONS


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("penstock-")]


def threads_left() -> list[str]:
    """Those that do not end. A log is closed when its last thread has nothing more to do, a moment before its end."""
    for thread in threading.enumerate():
        if thread.name.startswith("penstock-"):
            thread.join(5)
    return threads()


def size_of(path: Path) -> int:
    return path.stat().st_size


async def test_under_load_the_write_ahead_log_is_moved_beside_the_commits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock.engine.log.sqlite.checkpoint._PAGES", 256)
    path = tmp_path / "chat.db"
    log = await open_sqlite(path)
    await busy(log)
    assert sorted(threads()) == ["penstock-checkpointer", "penstock-writer"]
    size = size_of(tmp_path / "chat.db-wal")
    await log.aclose()
    assert 1 * _MEBIBYTE < size < 24 * _MEBIBYTE
    assert threads_left() == []
    check(path)


class Passes:
    """Answers for a connection: pages in the write-ahead log and how many of them were moved, look by look."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *answers: tuple[int, int]) -> None:
        self.left = list(answers)
        monkeypatch.setattr("penstock.engine.log.sqlite.checkpoint.checkpoint", lambda _: self.left.pop(0))

    def move(self, checkpointer: Checkpointer) -> None:
        with closing(sqlite3.connect(":memory:")) as connection:
            checkpointer._move(connection)


def connecting() -> sqlite3.Connection:
    raise AssertionError("there is nothing to move")


@pytest.mark.parametrize(
    "answers",
    [
        [(5000, 5000), (5040, 5040)],  # little has come meanwhile
        [(5000, 5000), (5300, 5300), (5340, 5340)],
        [(5000, 5000), (6000, 6000), (7000, 7000)],  # commits are as fast: it gives up for now
        [(5000, 5000), (20, 20)],  # a commit has begun it again
        [(5000, 3000), (5000, 3000)],  # a reader holds the rest
        [(-1, -1), (5000, 5000), (5000, 5000)],  # somebody else was at it
    ],
)
def test_what_came_meanwhile_is_left_to_the_writer(
    answers: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    passes = Passes(monkeypatch, *answers)
    checkpointer = Checkpointer(connecting)
    checkpointer.committed(512, 0, 0)
    passes.move(checkpointer)
    assert checkpointer.rest_is_due
    assert passes.left == []


@pytest.mark.parametrize(
    ("written", "pages", "enough"),
    [
        (1024, 1024, 2048),  # a page for each
        (3000, 750, 8192),  # four of them fill a page
        (1024, 8192, 512),  # pages fill faster than it was asked for: never sooner than at first
        (1024, 1, 65_536),
        (1024, -1, 512),  # nothing was learned
    ],
)
def test_it_learns_how_much_fills_the_write_ahead_log(
    written: int, pages: int, enough: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpointer = Checkpointer(connecting)
    checkpointer.committed(1, written - 1, 0)
    assert checkpointer._due.is_set()
    Passes(monkeypatch, (pages, pages), (pages, pages)).move(checkpointer)
    checkpointer._due.clear()
    checkpointer.committed(1, enough - 2, 0)
    assert not checkpointer._due.is_set()
    checkpointer.committed(1, 0, 0)
    assert checkpointer._due.is_set()


def test_large_events_fill_it_sooner_than_they_are_many() -> None:
    checkpointer = Checkpointer(connecting)
    for _ in range(3):
        checkpointer.committed(1, 1, _MEBIBYTE)
    assert not checkpointer._due.is_set()
    checkpointer.committed(1, 1, _MEBIBYTE)
    assert checkpointer._due.is_set()


async def test_large_values_do_not_fill_it_until_a_commit_has_to_move_them(tmp_path: Path) -> None:
    log = await open_sqlite(tmp_path / "chat.db")
    value = b"x" * _MEBIBYTE
    await store(log, create(value))
    for tail in range(1, 100):
        await store(log, append(value, tail=tail))
    size = size_of(tmp_path / "chat.db-wal")
    await log.aclose()
    assert size < 48 * _MEBIBYTE


async def test_the_writer_moves_the_rest_before_its_next_round(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    finish, carry_out = Committer.finish_checkpoint, Committer.carry_out

    def finishing(committer: Committer) -> None:
        done.append("rest")
        finish(committer)

    def carrying(committer: Committer, writes: Sequence[Move]) -> list[PenstockError | None]:
        done.append("round")
        return carry_out(committer, writes)

    monkeypatch.setattr(Committer, "finish_checkpoint", finishing)
    monkeypatch.setattr(Committer, "carry_out", carrying)
    log = await open_sqlite(tmp_path / "chat.db")
    await store(log, create(BODY))
    log._writer._checkpointer.rest_is_due = True
    await store(log, append(BODY, tail=1))
    await store(log, append(BODY, tail=2))
    await log.aclose()
    assert done == ["round", "rest", "round", "round"]


async def test_a_checkpointer_that_fails_harms_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "chat.db"
    tried = threading.Event()

    def failing(_: str) -> sqlite3.Connection:
        if threading.current_thread().name == "penstock-checkpointer":
            tried.set()
            raise sqlite3.OperationalError("no more files")
        return connect(str(path))

    monkeypatch.setattr("penstock.engine.log.sqlite.log.connect", failing)
    log = await open_sqlite(path)
    await busy(log)
    await log.aclose()
    assert tried.is_set()
    assert threads_left() == []
    check(path)


def test_one_that_was_never_needed_leaves_at_once() -> None:
    checkpointer = Checkpointer(connecting)
    checkpointer.start()
    checkpointer.committed(1, 1, 0)
    checkpointer.stop()
    assert threads_left() == []
