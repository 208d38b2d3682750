"""The age limit of whole sessions."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

import pytest
import trio
import trio.testing

from penstock.engine import (
    CaughtUp,
    Chunk,
    Compactor,
    Config,
    Head,
    MemoryLog,
    PenstockError,
    Session,
    SessionNotFound,
    expire_sessions,
    new_generation_id,
    new_message_id,
    open_engine,
)
from penstock.engine.errors import SessionDeleted, StorageError
from penstock.engine.log import Append, Compact, Delete
from penstock.engine.rules.compacting import seconds_of
from tests.engine.faulty import FaultyLog
from tests.engine.producers import saying
from tests.engine.slow import SlowLog, turns
from tests.engine.strategies import EPOCH
from tests.engine.test_compaction import Story, Writing


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
    monkeypatch.setattr("penstock.engine.upkeep.retention._SESSIONS", 2)
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


# --- beside those who use a session


async def _subscribe(session: Session) -> None:
    async with session.subscribe() as events:
        while not isinstance(await events.receive(), CaughtUp):
            pass
        await trio.sleep(50)  # for as long as anybody deletes


USES: Final[dict[str, Callable[[Session], Awaitable[object]]]] = {
    "start": lambda session: session.start("say", text="again", idempotency_key="k"),
    "queue": lambda session: session.start("say", policy="queue"),
    "remote": lambda session: session.start("remote"),
    "post": lambda session: session.post("again", message_id=new_message_id()),
    "chunks": lambda session: session.chunks([Chunk(generation_id=new_generation_id(), data={"text": "a"})]),
    "update": lambda session: session.update({"a": 1}),
    "presence": lambda session: session.put_presence("ann", "phone"),
    "subscribe": _subscribe,
    "snapshot": lambda session: session.snapshot(),
    "snapshot_page": lambda session: session.snapshot_page(),
    "fork": lambda session: session.fork("copy"),
}

# What is only read may be deleted as soon as it was.
READS: Final = ("snapshot", "snapshot_page", "fork")


@pytest.mark.parametrize("evicted", [False, True])
@pytest.mark.parametrize("use", USES)
def test_nothing_that_is_in_use_is_deleted_for_its_age(use: str, evicted: bool) -> None:
    """Whoever hears that something was done finds it there, and all that was there before; else it is gone for all."""
    seen: set[str] = set()
    for before in (*range(-12, 12), 15, 20, 25):
        for turns_of_log in ((0,), (2, 1, 3), (7,)):
            clock = trio.testing.MockClock(autojump_threshold=0)
            seen.add(trio.run(_used_and_old, use, evicted, before, turns_of_log, clock, clock=clock))
    assert seen == {"kept", "deleted"}


async def _used_and_old(
    use: str, evicted: bool, before: int, turns_of_log: tuple[int, ...], clock: trio.testing.MockClock
) -> str:
    log = SlowLog()
    async with open_engine(log, producers={"say": saying("x")}) as engine:
        session = await engine.create_session("old")
        await session.post("years of history")
        await trio.testing.wait_all_tasks_blocked()
        if evicted:
            clock.jump(61)
            await trio.testing.wait_all_tasks_blocked()
        head = await log.head("old")
        assert head is not None
        log.turns = deque(turns_of_log)
        answers: list[object] = []

        async def user() -> None:
            await turns(-before)
            try:
                answers.append(await USES[use](session))
            except (SessionDeleted, SessionNotFound, trio.EndOfChannel) as error:
                answers.append(error)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(user)
            await turns(before)
            await engine._background.delete_unchanged(head)  # what the walk over all sessions calls
            await turns(20)
            if use == "subscribe":
                nursery.cancel_scope.cancel()
        log.turns = deque([0])
        try:
            texts = [block.text for message in (await session.snapshot()).messages for block in message.blocks]
            kept = True
        except SessionDeleted:
            texts, kept = [], False
        refused = bool(answers) and isinstance(answers[0], PenstockError | trio.EndOfChannel)
        if kept:
            assert texts[0] == "years of history"
            assert not refused
        elif use not in READS:
            assert refused, answers
        return "kept" if kept else "deleted"


async def test_a_session_that_nobody_uses_is_deleted(autojump_clock: trio.testing.MockClock) -> None:
    log = MemoryLog()
    async with open_engine(log) as engine:
        session = await engine.create_session("old")
        await session.post("years of history")
        head = await log.head("old")
        assert head is not None
        await engine._background.delete_unchanged(head)
        with pytest.raises(SessionDeleted):
            await session.snapshot()
