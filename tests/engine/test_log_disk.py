"""The log on a real disk that is full or turns read-only."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.engine.errors import PenstockError, UnwritableDatabase, WriteFailed
from penstock.engine.log import open_sqlite
from tests.engine.disks import Disk, mounted
from tests.engine.writes import append, bodies, create, head, outcomes, store

KIB = 1024


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with mounted(tmp_path / "disk", "2m") as disk:
        yield disk


def whole(errors: list[PenstockError | None]) -> list[bool | None]:
    """For each write: None when it was stored, else whether nothing at all could be."""
    assert all(error is None or isinstance(error, WriteFailed) for error in errors)
    return [error.whole if isinstance(error, WriteFailed) else None for error in errors]


def assert_sound(path: Path) -> None:
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()


async def test_on_a_full_disk_every_write_fails_and_works_again_once_there_is_room(disk: Disk) -> None:
    path = disk.path / "chat.db"
    log = await open_sqlite(path)
    kept = {"a": [b"a1", b"a2"], "b": [b"b1"]}
    await store(log, create(b"a1", b"a2", of="a"), create(b"b1", of="b", records={"open": b"g"}))
    disk.fill()
    big = b"x" * 200 * KIB
    for _ in range(3):
        writes = [append(big, to="a", tail=2), append(big, to="b", tail=1, records={"open": None})]
        errors = await outcomes(log, *writes)
        assert whole(errors) == [True, True]
        assert [error.session_id for error in errors if error] == ["a", "b"]
        # What was committed is still there to read, and nothing else.
        assert {name: await bodies(log, name) for name in kept} == kept
        assert await log.record("b", "e1", "open") == b"g"
    assert log.statistics().failed_writes == 6
    disk.free()
    await store(log, append(big, to="a", tail=2, token=2), append(b"b2", to="b", tail=1))
    assert await log.head("a") == head("a", tail=3, token=2)
    await log.aclose()

    log = await open_sqlite(path)
    assert await bodies(log, "a") == [b"a1", b"a2", big]
    assert await bodies(log, "b") == [b"b1", b"b2"]
    await log.aclose()
    assert_sound(path)


async def test_a_part_too_big_for_the_room_that_is_left_takes_no_other_part_with_it(disk: Disk) -> None:
    log = await open_sqlite(disk.path / "chat.db")
    await store(log, create(of="a"), create(of="b"), create(of="c"))
    disk.fill(leave=300 * KIB)
    errors = await outcomes(
        log, append(b"small", to="a"), append(b"x" * 900 * KIB, to="b"), append(b"small", to="c"), append(to="b")
    )
    # The last one is judged by itself: its session still ends where it ended.
    assert whole(errors) == [None, False, None, None]
    assert [await bodies(log, name) for name in "abc"] == [[b"small"], [], [b"small"]]
    await log.aclose()
    assert_sound(disk.path / "chat.db")


async def test_writing_until_the_disk_is_full_loses_nothing_that_was_reported(disk: Disk) -> None:
    path = disk.path / "chat.db"
    log = await open_sqlite(path)
    await store(log, create())
    stored = 0
    while await outcomes(log, append(bytes(10 * KIB), tail=stored)) == [None]:
        stored += 1
    assert stored > 20
    assert len(await bodies(log)) == stored
    await log.aclose()
    assert_sound(path)


async def test_opening_on_a_full_disk_says_so_and_loses_nothing(disk: Disk) -> None:
    path = disk.path / "chat.db"
    log = await open_sqlite(path)
    await store(log, create(b"1"))
    await log.aclose()
    disk.fill()
    with pytest.raises(UnwritableDatabase) as caught:
        await open_sqlite(path)
    assert str(path) in caught.value.detail
    assert "full" in caught.value.detail
    with pytest.raises(UnwritableDatabase):
        await open_sqlite(disk.path / "new.db")
    disk.free()
    for name in ("chat.db", "new.db"):
        log = await open_sqlite(disk.path / name)
        assert (await log.head("s") is not None) == (name == "chat.db")
        await log.aclose()


async def test_a_read_only_disk_is_refused(disk: Disk) -> None:
    path = disk.path / "chat.db"
    await (await open_sqlite(path)).aclose()
    disk.make_read_only()
    with pytest.raises(UnwritableDatabase) as caught:
        await open_sqlite(path)
    assert str(path) in caught.value.detail
    with pytest.raises(UnwritableDatabase):
        await open_sqlite(disk.path / "new.db")
