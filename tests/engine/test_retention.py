"""The age limit of whole sessions."""

from __future__ import annotations

import logging

import pytest

from engine import Compactor, Config, Head, MemoryLog, expire_sessions
from engine.compacting import seconds_of
from engine.errors import SessionDeleted, StorageError
from engine.log import Append, Compact, Delete
from tests.engine.faulty import FaultyLog
from tests.engine.test_compaction import EPOCH, Story, Writing


async def session(log: MemoryLog, name: str, answers: int) -> float:
    """A session of some answers, ten seconds each; when its last event was."""
    story = Story(name)
    for _ in range(answers):
        story.answer("a", "b", "c")
    await Writing(log, name).append(story.events)
    return seconds_of(story.events[-1].time)


async def expire(log: MemoryLog | FaultyLog, older_than: float, now: float) -> list[str]:
    """Which sessions were deleted."""
    deleted: list[str] = []

    async def delete(head: Head) -> None:
        await log.write(Delete(session_id=head.session_id, epoch=head.epoch, token=head.token))
        deleted.append(head.session_id)

    assert await expire_sessions(log, older_than, delete=delete, wall=lambda: now) == len(deleted)
    return deleted


async def test_sessions_whose_last_event_is_too_old_are_deleted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.retention._SESSIONS", 2)
    log = MemoryLog()
    last = [await session(log, f"s{answers}", answers) for answers in range(1, 6)]
    assert await expire(log, 100, last[2] + 100) == ["s1", "s2"]
    assert [head.session_id for head in await log.heads()] == ["s3", "s4", "s5"]
    assert await expire(log, 100, last[2] + 100.1) == ["s3"]
    assert await expire(log, 1000, last[4]) == []


async def test_a_compacted_session_is_as_old_as_before() -> None:
    log = MemoryLog()
    last = await session(log, "s", 3)
    await Compactor(log, Config(compact_after=0)).compact_all()
    assert await expire(log, 100, last + 100) == []
    assert await expire(log, 100, last + 101) == ["s"]


async def test_a_session_of_unknown_age_stays(caplog: pytest.LogCaptureFixture) -> None:
    log = MemoryLog()
    await session(log, "a", 1)
    await log.write(Append(session_id="b", epoch=EPOCH, expected_tail=0, token=1, events=[b"nonsense"], create=True))
    await log.write(Append(session_id="c", epoch=EPOCH, expected_tail=0, token=1, events=[], create=True))
    await session(log, "d", 1)
    await log.write(Compact(session_id="d", epoch=EPOCH, remove=[10]))
    with caplog.at_level(logging.WARNING):
        assert await expire(log, 1, 1e12) == ["a"]
    assert "session b" in caplog.text


async def test_one_that_cannot_be_deleted_keeps_no_other() -> None:
    log = MemoryLog()
    for name in "abc":
        await session(log, name, 1)
    tried: list[str] = []

    async def delete(head: Head) -> None:
        tried.append(head.session_id)
        if head.session_id == "b":
            raise SessionDeleted("it went by itself")

    assert await expire_sessions(log, 1, delete=delete) == 2
    assert tried == ["a", "b", "c"]


async def test_a_store_that_cannot_be_read_ends_the_walk() -> None:
    log = FaultyLog(MemoryLog())
    log.fail_reads = True
    with pytest.raises(StorageError):
        await expire(log, 1, 1e12)
