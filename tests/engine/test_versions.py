"""Versions of a message: which there are and what they say, and how one comes back with all that followed it."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Final
from unittest.mock import patch

import pytest
import trio
import trio.testing
from attrs import define, field
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from penstock.engine import (
    Compactor,
    Config,
    Engine,
    Generation,
    GenerationActive,
    IdempotencyConflict,
    InvalidBody,
    InvalidId,
    MemoryLog,
    MessageNotFound,
    MessageView,
    Session,
    SessionDeleted,
    SessionState,
    Started,
    Version,
    new_message_id,
    open_engine,
)
from penstock.engine.testing import assert_log
from tests.engine.living import begin, end_of
from tests.engine.producers import Steered, saying
from tests.engine.remotes import body
from tests.engine.rules import events_of
from tests.engine.slow import SlowLog, turns
from tests.extent import examples


async def folded(log: MemoryLog, session: Session) -> SessionState:
    """What a reader has that began with the first event."""
    state = SessionState(session.session_id, (await session.cursor()).epoch)
    for event in await events_of(log, session.session_id):
        state.apply(event)
    return state


def meanwhile(work: Callable[[], Awaitable[None]]) -> AbstractContextManager[object]:
    """Do this before the log tells where versions are."""
    records = MemoryLog.records

    async def found(self: MemoryLog, session_id: str, epoch: str, prefix: str = "") -> dict[str, bytes]:
        if prefix.startswith("version/"):
            await work()
        return await records(self, session_id, epoch, prefix)

    return patch.object(MemoryLog, "records", found)


async def ask(session: Session, answer: str | None, *, text: str | None = None, replaces: str | None = None) -> str:
    """Start, and wait for the end; the id of the user's message, if it has a text. None answers nothing, and fails."""
    producer = refusing if answer is None else saying(answer)
    started = await session.start(producer, text=text, replaces=replaces)
    assert isinstance(started, Started)
    await end_of(session, started.generation_id)
    return started.message_id or ""


async def refusing(_: Generation) -> None:
    raise ValueError("the model is down")


def text_of(message: MessageView) -> str | None:
    return message.blocks[0].text


def numbered(messages: Sequence[MessageView]) -> list[tuple[str | None, int, int]]:
    return [
        (text_of(each), *((1, 1) if each.version is None else (each.version.index, each.version.count)))
        for each in messages
    ]


async def told(session: Session) -> list[tuple[str | None, int, int]]:
    """What stands in the transcript: each text, with its number and how many versions there are."""
    return numbered((await session.snapshot()).messages)


async def ids_of(session: Session) -> list[str]:
    return [message.message_id for message in (await session.snapshot()).messages]


async def test_versions_of_an_answer_are_told_oldest_first(log: MemoryLog, autojump_clock: MockClock) -> None:
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        await ask(session, "a", text="why?")
        first = (await ids_of(session))[1]
        (alone,) = (await session.versions(first)).versions
        assert (text_of(alone), alone.version) == ("a", Version(of=first, index=1, count=1))
        await ask(session, "b", replaces=first)
        second = (await ids_of(session))[1]
        await ask(session, "c", replaces=second)
        assert await told(session) == [("why?", 1, 1), ("c", 3, 3)]
        third = (await session.snapshot()).messages[1]
        assert third.version == Version(of=first, index=3, count=3)
        for message_id in (first, second, third.message_id):
            found = await session.versions(message_id)
            assert numbered(found.versions) == [("a", 1, 3), ("b", 2, 3), ("c", 3, 3)]
            assert [each.message_id for each in found.versions] == [first, second, third.message_id]
            assert not found.more
        assert (await folded(log, session)).snapshot() == await session.snapshot()


async def test_restoring_goes_back_and_forth_and_adds_no_version(log: MemoryLog, autojump_clock: MockClock) -> None:
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        question = await ask(session, "a", text="why?")
        await ask(session, "b", text="and then?")
        before = await told(session)
        edited = await ask(session, "c", text="how?", replaces=question)
        assert await told(session) == [("how?", 2, 2), ("c", 1, 1)]
        back = await session.restore(question)
        assert await told(session) == [("why?", 1, 2), *before[1:]]
        assert list(back.message_ids) == await ids_of(session)
        assert set(back.message_ids).isdisjoint({question, edited})
        assert back.cursor == await session.cursor()
        assert not back.repeated
        forth = await session.restore(edited)
        assert await told(session) == [("how?", 2, 2), ("c", 1, 1)]
        # By any id that the version ever had.
        for message_id in (question, back.message_ids[0]):
            await session.restore(message_id)
            assert await told(session) == [("why?", 1, 2), *before[1:]]
            await session.restore(forth.message_ids[0])
        assert numbered((await session.versions(edited)).versions) == [("why?", 1, 2), ("how?", 2, 2)]
        assert (await folded(log, session)).snapshot() == await session.snapshot()


async def test_versions_within_what_followed_come_back_with_it(log: MemoryLog, autojump_clock: MockClock) -> None:
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        question = await ask(session, "a", text="why?")
        first = (await ids_of(session))[1]
        await ask(session, "b", replaces=first)
        await ask(session, "c", text="how?", replaces=question)
        with pytest.raises(MessageNotFound):  # of an answer to the question as it was
            await session.versions(first)
        with pytest.raises(MessageNotFound):
            await session.restore(first)
        await session.restore(question)
        assert await told(session) == [("why?", 1, 2), ("b", 2, 2)]
        await session.restore(first)
        assert await told(session) == [("why?", 1, 2), ("a", 1, 2)]
        await ask(session, "d", replaces=(await ids_of(session))[1])
        assert numbered((await session.versions(first)).versions) == [("a", 1, 3), ("b", 2, 3), ("d", 3, 3)]


async def test_what_comes_back_says_what_it_said_and_how_it_ended(log: MemoryLog, autojump_clock: MockClock) -> None:
    async def calls(generation: Generation) -> None:
        async with generation.message(metadata={"a": 1}) as message, message.tool_call("call", "search") as call:
            await call.write('{"q": 1}')
            message.finish(reason="length", usage={"output_tokens": 3})
        result = generation.message(role="tool", parent_message_id=message.message_id)
        async with result, result.tool_result("call") as block:
            await block.write("found")
        generation.report_usage({"tokens": 3})
        await trio.sleep_forever()

    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        await session.post("please", author="ann")
        live = await session.start(calls, author="ann")
        await session.stop(live.generation_id)
        before = await session.snapshot()
        await ask(session, "b", replaces=before.messages[1].message_id)
        await session.restore(before.messages[1].message_id)
        after = await session.snapshot()
        for old, new in zip(before.messages[1:], after.messages[1:], strict=True):
            assert new.message_id != old.message_id
            for name in ("role", "status", "blocks", "metadata", "generation_id", "turn", "finish_reason", "usage"):
                assert getattr(new, name) == getattr(old, name)
        assert (after.messages[1].finish_reason, after.messages[1].usage) == ("length", {"output_tokens": 3})
        fork = await (await session.fork("f")).snapshot()
        assert [(each.finish_reason, each.usage) for each in fork.messages[1:]] == [
            (each.finish_reason, each.usage) for each in after.messages[1:]
        ]
        assert after.messages[2].parent_message_id == after.messages[1].message_id
        (ended,) = before.generations
        assert ended in after.generations
        assert (ended.outcome, ended.author, ended.usage) == ("stopped", "ann", {"tokens": 3, "partial": True})
        assert (await folded(log, session)).snapshot() == after
        # And again, when the log alone tells of it.
        await ask(session, "c", replaces=after.messages[1].message_id)
        await session.restore(before.messages[1].message_id)
        assert ended in (await session.snapshot()).generations
        assert (await folded(log, session)).snapshot() == await session.snapshot()


async def test_a_version_that_stands_stays_as_it_is(log: MemoryLog, autojump_clock: MockClock) -> None:
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        await ask(session, "a", text="why?")
        first = (await ids_of(session))[1]
        await ask(session, "b", replaces=first)
        cursor, ids = await session.cursor(), await ids_of(session)
        restored = await session.restore(ids[1])
        assert (list(restored.message_ids), restored.cursor) == (ids[1:], cursor)
        only = await session.restore(ids[0])  # it has no other version
        assert (list(only.message_ids), await session.cursor()) == (ids, cursor)


async def test_a_restore_that_is_repeated_under_its_key_brings_back_once(
    log: MemoryLog, autojump_clock: MockClock
) -> None:
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        await ask(session, "a", text="why?")
        first = (await ids_of(session))[1]
        await ask(session, "b", replaces=first)
        second = (await ids_of(session))[1]
        restored = await session.restore(first, idempotency_key="k", principal="ann")
        await session.restore(second)
        cursor = await session.cursor()
        for _ in range(2):
            again = await session.restore(first, idempotency_key="k", principal="ann")
            assert (again.message_ids, again.cursor, again.repeated) == (restored.message_ids, restored.cursor, True)
        assert await session.cursor() == cursor
        with pytest.raises(IdempotencyConflict):
            await session.restore(second, idempotency_key="k", principal="ann")
        with pytest.raises(IdempotencyConflict):
            await session.start(saying("x"), idempotency_key="k", principal="ann")
        await session.restore(first, idempotency_key="k", principal="bob")
    async with open_engine(log) as engine:
        session = await engine.session("s")
        assert (await session.restore(first, idempotency_key="k", principal="ann")).message_ids == restored.message_ids


async def test_a_restore_of_what_stands_there_is_done_once_under_its_key_too(
    log: MemoryLog, autojump_clock: MockClock
) -> None:
    """Its answer may be lost like any other, and what it is repeated behind may be another's restore."""
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        await ask(session, "a", text="why?")
        first = (await ids_of(session))[1]
        await ask(session, "b", replaces=first)
        second = (await ids_of(session))[1]
        stood = await session.restore(second, idempotency_key="k")
        again = await session.restore(second, idempotency_key="k")
        assert (again.message_ids, again.cursor, again.repeated) == (stood.message_ids, stood.cursor, True)
        await session.restore(first)
        cursor = await session.cursor()
        again = await session.restore(second, idempotency_key="k")
        assert (again.message_ids, again.cursor, again.repeated) == (stood.message_ids, stood.cursor, True)
        assert await session.cursor() == cursor
        with pytest.raises(IdempotencyConflict):
            await session.restore(first, idempotency_key="k")
    async with open_engine(log) as engine:
        session = await engine.session("s")
        assert (await session.restore(second, idempotency_key="k")).repeated
        assert await session.cursor() == cursor


async def test_a_session_may_leave_memory_while_its_versions_are_looked_for(autojump_clock: MockClock) -> None:
    """Deleted too, and made again: nobody takes that for damage."""
    async with open_engine(MemoryLog(), config=Config(idle_session=1)) as engine:
        session = await engine.create_session("s")
        await ask(session, "a", text="why?")
        first = (await ids_of(session))[1]
        await ask(session, None, replaces=first)

        async def delete_and_make() -> None:
            await session.delete()
            await engine.create_session("s")
            await trio.testing.wait_all_tasks_blocked()

        with meanwhile(partial(trio.sleep, 10)):
            assert [text_of(each) for each in (await session.versions(first)).versions] == ["a"]
        with meanwhile(delete_and_make), pytest.raises(SessionDeleted):
            await session.versions(first)
        await session.post("x")
        assert engine.statistics().set_aside == 0


async def test_nothing_is_restored_while_an_answer_runs(log: MemoryLog, autojump_clock: MockClock) -> None:
    producer = Steered()
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        await ask(session, "a", text="why?")
        first = (await ids_of(session))[1]
        await ask(session, "b", replaces=first)
        live = await begin(session, producer)
        cursor = await session.cursor()
        with pytest.raises(GenerationActive) as refused:
            await session.restore(first)
        assert (refused.value.generation_id, refused.value.message_id) == (live, first)
        ids = await ids_of(session)
        assert list((await session.restore(ids[1])).message_ids) == ids[1:]  # what stands there stays
        assert await session.cursor() == cursor
        assert numbered((await session.versions(first)).versions) == [("a", 1, 2), ("b", 2, 2)]
        await session.stop(live)
        await session.restore(first)
        assert (await told(session))[1:] == [("a", 1, 2)]


async def test_an_answer_that_is_replaced_while_it_runs_is_a_version(log: MemoryLog, autojump_clock: MockClock) -> None:
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        await session.post("why?")
        await begin(session, Steered())
        first = (await ids_of(session))[1]
        await ask(session, "b", replaces=first)
        assert await told(session) == [("why?", 1, 1), ("b", 2, 2)]
        cut_off, _ = (await session.versions(first)).versions
        assert (text_of(cut_off), cut_off.status) == ("begun", "cancelled")
        await session.restore(first)
        assert (await session.snapshot()).messages[1].status == "cancelled"
        assert (await session.snapshot()).generations[0].outcome == "superseded"


@pytest.mark.parametrize("speaks", [False, True])
async def test_what_was_asked_for_stays_with_a_version_that_is_replaced_meanwhile(
    speaks: bool, log: MemoryLog, autojump_clock: MockClock
) -> None:
    """With the question, or with the answer: each leaves while the approval is open, which is refused right then."""

    async def asking(generation: Generation) -> None:
        if speaks:
            async with generation.message() as message, message.text() as block:
                await block.write("let me look")
        await generation.approve("look")

    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        await session.start(asking, text="why?")
        await trio.testing.wait_all_tasks_blocked()
        first = (await ids_of(session))[-1]
        await ask(session, "b", text=None if speaks else "how?", replaces=first)
        former, now = (await session.versions(first)).versions
        assert [(each.name, each.approved, each.reason) for each in former.approvals] == [("look", False, "superseded")]
        assert now.approvals == ()


async def test_what_is_rolled_back_is_no_version(log: MemoryLog, autojump_clock: MockClock) -> None:
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        await ask(session, "a", text="why?")
        first = (await ids_of(session))[1]
        await session.start(Steered(), replaces=first)
        await trio.testing.wait_all_tasks_blocked()
        assert await told(session) == [("why?", 1, 1), ("begun", 2, 2)]
        started = await session.start(saying("b"), replaces=(await ids_of(session))[1], policy="rollback")
        await end_of(session, started.generation_id)
        assert await told(session) == [("why?", 1, 1), ("b", 2, 2)]
        assert numbered((await session.versions(first)).versions) == [("a", 1, 2), ("b", 2, 2)]


async def test_an_answer_anew_that_wrote_nothing_keeps_the_place(log: MemoryLog, autojump_clock: MockClock) -> None:
    """Its number is told with how it ended; asked again, that takes it; and what stood there can come back instead."""
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        await ask(session, "a", text="why?")
        first = (await ids_of(session))[1]
        await ask(session, None, replaces=first)
        failed = (await session.snapshot()).generations[-1]
        assert (failed.silent, failed.version) == (True, Version(of=first, index=2, count=2))
        assert (await folded(log, session)).snapshot() == await session.snapshot()
        assert numbered((await session.versions(first)).versions) == [("a", 1, 1)]
    async with open_engine(log) as engine:
        session = await engine.session("s")
        await ask(session, None)
        await ask(session, "b")
        assert await told(session) == [("why?", 1, 1), ("b", 2, 2)]
        assert numbered((await session.versions(first)).versions) == [("a", 1, 2), ("b", 2, 2)]
        await ask(session, None, replaces=(await ids_of(session))[1])
        await session.restore(first)
        assert await told(session) == [("why?", 1, 1), ("a", 1, 2)]
        await ask(session, None, replaces=(await ids_of(session))[1])
        await session.post("never mind")
        for call in (session.restore, session.versions):
            with pytest.raises(MessageNotFound):
                await call(first)
        await ask(session, "c")
        assert await told(session) == [("why?", 1, 1), ("never mind", 1, 1), ("c", 1, 1)]


async def test_what_was_retracted_by_hand_is_no_version(log: MemoryLog, autojump_clock: MockClock) -> None:
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        await ask(session, "a", text="why?")
        question, first = await ids_of(session)
        await session.retract(first)
        for call in (session.restore, session.versions):
            for message_id in (first, new_message_id()):
                with pytest.raises(MessageNotFound):
                    await call(message_id)
        await ask(session, "b")
        assert await told(session) == [("why?", 1, 1), ("b", 1, 1)]
        second = (await ids_of(session))[1]
        await ask(session, "c", replaces=second)
        await session.retract((await ids_of(session))[1])
        await session.restore(second)
        assert await told(session) == [("why?", 1, 1), ("b", 1, 1)]
        await session.retract(question, and_after=True)
        with pytest.raises(MessageNotFound):
            await session.restore(second)


async def test_a_reset_leaves_no_version(log: MemoryLog, autojump_clock: MockClock) -> None:
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        question = await ask(session, "a", text="why?")
        edited = await ask(session, "b", text="how?", replaces=question)
        await session.reset()
        for message_id in (question, edited):
            for call in (session.restore, session.versions):
                with pytest.raises(MessageNotFound):
                    await call(message_id)
        await ask(session, "c")
        assert await told(session) == [("c", 1, 1)]


async def test_a_fork_begins_without_versions(log: MemoryLog, autojump_clock: MockClock) -> None:
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        await ask(session, "a", text="why?")
        first = (await ids_of(session))[1]
        await ask(session, "b", replaces=first)
        fork = await session.fork()
        assert await told(fork) == [("why?", 1, 1), ("b", 1, 1)]
        with pytest.raises(MessageNotFound):
            await fork.versions(first)
        second = (await ids_of(fork))[1]
        await ask(fork, "c", replaces=second)
        await fork.restore(second)
        assert await told(fork) == [("why?", 1, 1), ("b", 1, 2)]
        assert (await folded(log, fork)).snapshot() == await fork.snapshot()


async def test_a_list_tells_what_a_version_says_that_is_restored(log: MemoryLog, autojump_clock: MockClock) -> None:
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        question = await ask(session, "a", text="why?")
        edited = await ask(session, "b", text="how?", replaces=question)
        for message_id, title, last in ((question, "why?", "a"), (edited, "how?", "b"), (question, "why?", "a")):
            await session.restore(message_id)
            (told,) = await engine.sessions()
            assert told.last is not None
            assert (told.title, told.last.role, told.last.text) == (title, "assistant", last)


async def test_compaction_leaves_versions_what_they_say(autojump_clock: MockClock) -> None:
    log = MemoryLog()
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        started = await session.start(saying("a", " long", " answer"), text="why?")
        await end_of(session, started.generation_id)
        first = (await ids_of(session))[1]
        await ask(session, "b", replaces=first)
    compactor = Compactor(log, Config(compact_after=0))
    await compactor.compact_all()
    assert compactor.statistics().messages
    async with open_engine(log) as engine:
        session = await engine.session("s")
        assert numbered((await session.versions(first)).versions) == [("a long answer", 1, 2), ("b", 2, 2)]
        await session.restore(first)
        assert await told(session) == [("why?", 1, 1), ("a long answer", 1, 2)]


async def test_versions_come_in_pages_within_a_bound(log: MemoryLog, autojump_clock: MockClock) -> None:
    config = Config(snapshot_bytes=2800, fold_bytes=1)
    async with open_engine(log, config=config) as engine:
        session = await engine.create_session("s")
        await ask(session, "0" * 700, text="why?")
        for number in range(1, 5):
            await ask(session, f"{number}" * 700, replaces=(await ids_of(session))[1])
        newest = (await ids_of(session))[1]
        page = await session.versions(newest)
        assert ([version for _, version, _ in numbered(page.versions)], page.more) == ([1, 2], True)
        page = await session.versions(newest, after=2, limit=1)
        assert ([version for _, version, _ in numbered(page.versions)], page.more) == ([3], True)
        page = await session.versions(newest, after=3)
        assert ([version for _, version, _ in numbered(page.versions)], page.more) == ([4, 5], False)
        assert (await session.versions(newest, after=5)).versions == ()
        await ask(session, "5" * 9000, replaces=newest)
        page = await session.versions(newest, after=5)  # one is there whatever its size
        assert ([version for _, version, _ in numbered(page.versions)], page.more) == ([6], False)
        for wrong in ({"after": -1}, {"limit": -1}, {"limit": "1"}, {"after": None}):
            with pytest.raises(InvalidBody):
                await session.versions(newest, **wrong)
        with pytest.raises(InvalidId):
            await session.versions("newest")


@pytest.mark.parametrize("turn", range(0, 24, 2))
@pytest.mark.parametrize(
    ("what", "texts"), [("leaves memory", ["a"]), ("is restored", ["ab"]), ("is replaced", ["a", "ab"])]
)
async def test_versions_are_told_whatever_becomes_of_the_session_meanwhile(
    turn: int, what: str, texts: list[str], autojump_clock: MockClock
) -> None:
    """At any moment it leaves memory, or another version of the message comes."""
    log = SlowLog()
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        await ask(session, "a", text="why?")
        first = (await ids_of(session))[1]
        if what != "is replaced":
            await ask(session, "b" if what == "is restored" else None, replaces=first)
        (resident,) = engine._registry.residents
        log.turns = deque([2])

        async def meanwhile() -> None:
            await turns(turn)
            if what == "leaves memory":
                resident.leave_if_idle()
            elif what == "is restored":
                await session.restore(first)
            else:
                await session.start(saying("b"), replaces=first)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(meanwhile)
            found = await session.versions(first)
        assert "".join(text_of(each) or "" for each in found.versions) in texts


async def test_who_writes_chunks_does_not_say_which_version_it_is(log: MemoryLog, autojump_clock: MockClock) -> None:
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        await ask(session, "a", text="why?")
        first = (await ids_of(session))[1]
        started = await session.start("remote", replaces=first)
        mid = new_message_id()
        claimed = {"version": {"of": first, "index": 7, "count": 9}}
        gid = started.generation_id
        await session.chunks([body(gid, type="message.opened", message_id=mid, data=claimed)])
    async with open_engine(log) as engine:
        session = await engine.session("s")
        await session.chunks([body(gid, type="message.closed", message_id=mid)])
        await session.chunks([body(gid, type="message.opened", message_id=new_message_id(), data=claimed)])
        await session.finish(gid)
        assert [each.version for each in (await session.snapshot()).messages] == [
            None,
            Version(of=first, index=2, count=2),
            None,
        ]


# --- any order of what changes a transcript, beside a plain model of it


@define(eq=False)
class Place:
    """Where versions stand: those that were replaced, by their number; what stood before the one replaced last."""

    left: dict[int, list[Said]] = field(factory=dict)
    behind: Said | None = None
    resets: int = 0


@define(eq=False)
class Said:
    """A message of the transcript; restored, it is another one."""

    text: str
    generation: int | None = None
    place: Place | None = None
    index: int = 1
    message_id: str = ""


@define
class Model:
    transcript: list[Said] = field(factory=list)
    unspoken: tuple[Place, int, Said | None] | None = None
    resets: int = 0

    def leave(self, at: int) -> tuple[Place, int]:
        """The message there is replaced; what comes in its place, and as which number."""
        head = self.transcript[at]
        place = head.place or Place()
        head.place = place
        place.left[head.index] = self.transcript[at:]
        place.behind = self.transcript[at - 1] if at else None
        place.resets = self.resets
        self.retract(at, and_after=True)
        return place, max(place.left) + 1

    def start(self, texts: Sequence[str], *, text: str | None, at: int | None, generation: int) -> None:
        version: tuple[Place, int] | None = None
        if at is not None:
            version = self.leave(at)
        elif text is None and self.unspoken is not None and self.unspoken[2] is self.newest:
            version = self.unspoken[:2]
        self.unspoken = None
        if text is not None:
            self._add(Said(text), version)
            version = None
        if not texts and version is not None:
            self.unspoken = (*version, self.newest)
        for number, each in enumerate(texts):
            self._add(Said(each, generation), version if not number else None)

    def _add(self, said: Said, version: tuple[Place, int] | None) -> None:
        if version is not None:
            said.place, said.index = version
        self.transcript.append(said)

    @property
    def newest(self) -> Said | None:
        return self.transcript[-1] if self.transcript else None

    def where(self, place: Place) -> int | None:
        """Where one of these versions stands, or could at the end; None: nowhere."""
        for at, said in enumerate(self.transcript):
            if said.place is place:
                return at
        vacant = place.resets == self.resets and place.behind is self.newest
        return len(self.transcript) if vacant else None

    def restore(self, place: Place, index: int) -> bool:
        """Whether it can be."""
        at = self.where(place)
        if at is None:
            return False
        if at < len(self.transcript):
            if self.transcript[at].index == index:
                return True
            self.leave(at)
        for said in place.left[index]:
            self.transcript.append(copy.copy(said))
            self.transcript[-1].message_id = ""
        return True

    def retract(self, at: int, *, and_after: bool) -> None:
        gone = self.transcript[at:] if and_after else [self.transcript[at]]
        self.transcript = [said for said in self.transcript if said not in gone]
        if self.unspoken is not None and self.unspoken[2] in gone:
            self.unspoken = None

    def heads(self, place: Place) -> list[str]:
        """What its versions say, the oldest first."""
        heads = {index: left[0].text for index, left in place.left.items()}
        at = self.where(place)
        if at is not None and at < len(self.transcript):
            heads[self.transcript[at].index] = self.transcript[at].text
        return [heads[index] for index in sorted(heads)]


_KINDS: Final = ["start", "start", "replace", "replace", "replace", "restore", "restore", "restore", "post"]
_RARE: Final = ["retract", "reset", "fork", "restart"]
Acts = list[tuple[str, int, int, bool]]
_ACTS: Final = st.lists(
    st.tuples(st.sampled_from(_KINDS + _RARE), st.integers(0, 30), st.integers(0, 2), st.booleans()), max_size=24
)


class World:
    """An engine and the model beside it, carried through the same acts."""

    def __init__(self, config: Config) -> None:
        self.log = MemoryLog()
        self.config = config
        self.model = Model()
        self.session_id = "s"
        self.number = 0
        self.ids: dict[str, tuple[Place, int]] = {}  # of each that was replaced

    async def run(self, acts: Acts) -> None:
        left = iter([*acts, ("restart", 0, 0, True)])
        for act in left:
            async with open_engine(self.log, config=self.config) as engine:
                await engine.create_session(self.session_id)
                await self.check(engine)
                while act[0] != "restart":
                    await self.do(engine, *act)
                    await self.check(engine)
                    act = next(left)
            if act[3]:
                await Compactor(self.log, Config(compact_after=0)).compact_all()
        for head in await self.log.heads(limit=100):
            assert_log(await events_of(self.log, head.session_id), closed=True, compacted=True)

    async def do(self, engine: Engine, kind: str, which: int, much: int, flag: bool) -> None:
        session = await engine.session(self.session_id)
        transcript = self.model.transcript
        self.number += 1
        text = f"question {self.number}" if flag else None
        at = which % len(transcript) if transcript else None
        match kind:
            case "start" | "replace":
                texts = [f"answer {self.number}.{each}" for each in range(much)]
                await self.start(session, texts, text=text, at=at if kind == "replace" else None)
            case "post":
                posted = await session.post(text or "said")
                self.model.transcript.append(Said(text or "said", message_id=posted.message_id))
            case "retract" if at is not None:
                await session.retract(transcript[at].message_id, and_after=flag)
                self.model.retract(at, and_after=flag)
            case "reset":
                await session.reset()
                self.model = Model(resets=self.model.resets + 1)
            case "fork":
                fork = await session.fork()
                self.session_id = fork.session_id
                copies = [Said(said.text, said.generation, message_id=said.message_id) for said in transcript]
                self.model, self.ids = Model(copies), {}
            case "restore" if self.ids:
                message_id = sorted(self.ids)[which % len(self.ids)]
                await self.restore(session, message_id, again=flag)
            case _:
                pass

    async def start(self, session: Session, texts: list[str], *, text: str | None, at: int | None) -> None:
        async def producer(generation: Generation) -> None:
            for each in texts:
                async with generation.message() as message, message.text() as block:
                    for piece in each:
                        await block.write(piece)
            if not texts:
                raise ValueError("the model is down")

        replaces = None
        if at is not None:
            head = self.model.transcript[at]
            head.place = head.place or Place()
            replaces = head.message_id
            self.ids[replaces] = head.place, head.index
        started = await session.start(producer, text=text, replaces=replaces)
        assert isinstance(started, Started)
        await end_of(session, started.generation_id)
        self.model.start(texts, text=text, at=at, generation=self.number)
        self.name(await ids_of(session))

    async def restore(self, session: Session, message_id: str, *, again: bool) -> None:
        place, index = self.ids[message_id]
        at = self.model.where(place)
        cursor = await session.cursor()
        key = f"key {self.number}"
        if at is None:
            with pytest.raises(MessageNotFound):
                await session.restore(message_id, idempotency_key=key)
            assert await session.cursor() == cursor
            return
        if at < len(self.model.transcript):
            head = self.model.transcript[at]
            if head.index != index:
                self.ids[head.message_id] = place, head.index
        restored = await session.restore(message_id, idempotency_key=key)
        assert self.model.restore(place, index)
        self.name([*(said.message_id for said in self.model.transcript[:at]), *restored.message_ids])
        assert restored.message_ids == tuple(said.message_id for said in self.model.transcript[at:])
        if again:
            cursor = await session.cursor()
            repeated = await session.restore(message_id, idempotency_key=key)
            assert (repeated.message_ids, await session.cursor()) == (restored.message_ids, cursor)

    def name(self, ids: Sequence[str]) -> None:
        """The ids of the messages that are new."""
        for said, message_id in zip(self.model.transcript, ids, strict=True):
            said.message_id = said.message_id or message_id

    async def check(self, engine: Engine) -> None:
        session = await engine.session(self.session_id)
        snapshot = await session.snapshot()
        assert [text_of(each) for each in snapshot.messages] == [said.text for said in self.model.transcript]
        assert [each.message_id for each in snapshot.messages] == [said.message_id for said in self.model.transcript]
        for message, said in zip(snapshot.messages, self.model.transcript, strict=True):
            assert (message.version is None) == (said.place is None)
            if said.place is None:
                continue
            heads = self.model.heads(said.place)
            found = await session.versions(message.message_id)
            assert [text_of(each) for each in found.versions] == heads
            assert [index for _, index, _ in numbered(found.versions)] == list(range(1, len(heads) + 1))
            assert numbered([message]) == [(said.text, said.index, len(heads))]
        state = SessionState(self.session_id, snapshot.cursor.epoch)
        for event in await events_of(self.log, self.session_id):
            state.apply(event)
        assert state.snapshot() == snapshot


@settings(max_examples=examples(300))
@given(_ACTS, st.sampled_from([1, 1024 * 1024]))
def test_versions_say_what_a_plain_model_kept(acts: Acts, fold_bytes: int) -> None:
    config = Config(fold_bytes=fold_bytes, compact_after=None)
    trio.run(partial(World(config).run, acts), clock=MockClock(autojump_threshold=0))
