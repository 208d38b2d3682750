"""A remote producer outlives the process that it produces into: its generation goes on with its next request."""

from __future__ import annotations

import copy
from typing import Final

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from penstock.engine import (
    ApprovalNotFound,
    Config,
    GenerationStarted,
    IdInUse,
    JSONObject,
    MemoryLog,
    PenstockError,
    QueueFull,
    SequenceGap,
    Session,
    StaleGeneration,
    new_generation_id,
    new_message_id,
    open_engine,
)
from penstock.engine.log import Report, Write
from penstock.engine.rules.records import OPEN, OpenRecord, read_record
from penstock.engine.testing import assert_log, check_log, open_test_engine
from tests.engine.faulty import Fail, FaultyLog
from tests.engine.living import copied, data_of, finished, of_generation
from tests.engine.producers import saying
from tests.engine.remotes import Remote, body, texts_of, types_of
from tests.engine.rules import assert_rules, events_of

GID: Final = new_generation_id()
ONE: Final = new_message_id()
TWO: Final = new_message_id()

REQUESTS: Final = [
    [body(GID, "a", message_id=ONE), body(GID, "b", message_id=ONE)],
    [body(GID, "c", message_id=ONE), body(GID, type="generation.status", data={"status": "working"})],
    [body(GID, "x", message_id=TWO)],
    [body(GID, type="block.closed", message_id=ONE), body(GID, type="message.closed", message_id=ONE)],
    [body(GID, "y", message_id=TWO), body(GID, "z", message_id=TWO, block_index=1)],
]


async def send_from(session: Session, remote: Remote, acknowledged: list[int]) -> None:
    """Every request from the next one on, and the finish; notes what is acknowledged."""
    for chunks in REQUESTS[remote.next :]:
        await session.chunks(chunks, stamp=remote.stamp())
        remote.next += 1
        acknowledged[0] = remote.next
    await remote.finish(session)


# whatever is known of a block's numbers is known after the crash
async def test_a_crash_at_any_commit_loses_and_doubles_nothing(autojump_clock: MockClock) -> None:
    log = MemoryLog()
    left: list[tuple[MemoryLog, int]] = []
    acknowledged = [0]
    submit = log.submit

    def submit_and_keep(write: Write, report: Report) -> None:
        left.append((_copy(log), acknowledged[0]))

        def reported(error: PenstockError | None) -> None:
            left.append((_copy(log), acknowledged[0]))
            report(error)

        submit(write, reported)

    log.submit = submit_and_keep  # type: ignore[method-assign]
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        left.clear()
        await send_from(session, Remote(GID), acknowledged)
    assert len(left) > 2 * len(REQUESTS)
    for crashed, first in left:
        async with open_engine(crashed) as engine:
            session = await engine.session("s")
            remote = Remote(GID)
            remote.next = first
            await send_from(session, remote, acknowledged)
        events = await events_of(crashed, "s")
        assert_log(events, closed=True)
        assert texts_of(events) == {ONE: "abc", TWO: "xyz"}
        assert finished(events).outcome == "completed"
        assert sum(isinstance(event.data, GenerationStarted) for event in events) == 1


def _copy(log: MemoryLog) -> MemoryLog:
    left = MemoryLog()
    left._lives = copy.deepcopy(log._lives)
    return left


async def test_a_remote_goes_on_after_a_drain(log: MemoryLog, autojump_clock: MockClock) -> None:
    remote = Remote(GID)
    for text in "abc":
        async with open_engine(log) as engine:
            session = await engine.create_session("s")
            await remote.say(session, text, message_id=ONE)
            assert (await session.generation(GID)).state == "live"
    async with open_engine(log) as engine:
        await remote.finish(await engine.session("s"))
    events = await events_of(log, "s")
    assert texts_of(events) == {ONE: "abc"}
    assert types_of(events).count("generation.started") == 1


async def test_the_engine_under_test_lets_a_remote_go_on(autojump_clock: MockClock) -> None:
    remote = Remote(GID)
    async with open_test_engine() as test:
        session = await test.engine.create_session("s")
        await test.watch(session)
        await remote.say(session, "a", message_id=ONE)
        with_open_message = await test.events(session)
    assert check_log(with_open_message, closed=True, remote_stays=True) == []
    assert {violation.rule for violation in check_log(with_open_message, closed=True)} == {"R9"}
    async with open_test_engine(log=test.log) as test:
        session = await test.engine.session("s")
        watcher = await test.watch(session)
        await remote.say(session, "b", message_id=ONE)
        await remote.finish(session)
        await test.settle()
    assert texts_of(watcher.events) == {ONE: "ab"}


async def test_numbers_are_known_again(log: MemoryLog, autojump_clock: MockClock) -> None:
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        remote = Remote(GID)
        await remote.say(session, "a", "b", message_id=ONE)
        crashed = await copied(log)
    async with open_engine(crashed) as engine:
        session = await engine.session("s")
        assert (await session.chunks([body(GID, "b", message_id=ONE, seq=2)])).duplicates == 1
        with pytest.raises(SequenceGap) as gap:
            await session.chunks([body(GID, "d", message_id=ONE, seq=4)])
        assert gap.value.expected == 3
        remote.next = 2
        with pytest.raises(SequenceGap) as hole:
            await remote.say(session, "d")
        assert hole.value.expected == 1
        await session.finish(GID)
    await assert_rules(crashed, closed=True)


async def test_a_remote_that_did_not_come_back_ends_as_lost(log: MemoryLog, autojump_clock: MockClock) -> None:
    async with open_engine(log, producers={"say": saying("next")}) as engine:
        session = await engine.create_session("s")
        await session.start("remote", generation_id=GID)
        await session.chunks([body(GID, "a")])
        queued = await session.start("say", policy="queue")
        await trio.sleep(100)
    async with open_engine(log, producers={"say": saying("next")}) as engine:
        session = await engine.session("s")
        await trio.sleep(110)  # counted anew
        assert (await session.generation(GID)).state == "live"
        await trio.sleep(11)
        assert (await session.generation(GID)).outcome == "lost"
        assert (await session.generation(queued.generation_id)).outcome == "completed"
        with pytest.raises(StaleGeneration):
            await session.chunks([body(GID, "b")])
    assert finished(await of_generation(log, GID)).code == "LOST"


async def test_a_remote_that_came_back_and_fell_silent_is_stalled(log: MemoryLog, autojump_clock: MockClock) -> None:
    async with open_engine(log) as engine:
        await (await engine.create_session("s")).chunks([body(GID, "a")])
    async with open_engine(log) as engine:
        session = await engine.session("s")
        await session.chunks([body(GID, "b")])
        await trio.sleep(130)
        assert (await session.generation(GID)).outcome == "stalled"


async def test_a_remote_that_was_cancelled_in_the_dead_process_ends_as_lost(autojump_clock: MockClock) -> None:
    log = MemoryLog()
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        await session.chunks([body(GID, "a")])
        ends: list[MemoryLog] = []
        submit = log.submit

        def keep(write: Write, report: Report) -> None:
            def reported(error: PenstockError | None) -> None:
                ends.append(_copy(log))
                report(error)

            submit(write, reported)

        log.submit = keep  # type: ignore[method-assign]
        await session.stop()
    crashed = ends[0]
    assert types_of(await events_of(crashed, "s"))[-1] == "generation.cancelling"
    async with open_engine(crashed) as engine:
        assert (await (await engine.session("s")).generation(GID)).outcome == "lost"
    await assert_rules(crashed, closed=True)


async def test_stop_start_reset_and_delete_reach_one_that_was_adopted(
    log: MemoryLog, autojump_clock: MockClock
) -> None:
    outcomes: list[str | None] = []
    for how in ("stop", "start", "reset", "delete"):
        gid = new_generation_id()
        async with open_engine(log, producers={"say": saying("x")}) as engine:
            await (await engine.create_session("s")).chunks([body(gid, "a")])
        async with open_engine(log, producers={"say": saying("x")}) as engine:
            session = await engine.session("s")
            if how == "start":
                started = await session.start("say")
                assert started.superseded is not None
                assert started.superseded.cleanup == "clean"
            elif how == "stop":
                assert (await session.stop()).state == "stopped"
            elif how == "reset":
                await session.reset()
            else:
                await session.delete()
                continue
            outcomes.append((await session.generation(gid)).outcome)
    assert outcomes == ["stopped", "superseded", "reset"]


async def test_approvals_and_inputs_stay_open(log: MemoryLog, autojump_clock: MockClock) -> None:
    config = Config(inputs=1)
    async with open_engine(log, config=config) as engine:
        session = await engine.create_session("s")
        await session.chunks(
            [
                body(GID, type="approval.requested", data={"approval_id": "yes", "arguments": {"n": 1}}),
                body(GID, type="approval.requested", data={"approval_id": "late"}),
                body(GID, type="approval.requested", data={"approval_id": "past"}),
            ]
        )
        await session.input(GID, "approval", {"approval_id": "past", "approved": False})
        await session.input(GID, "steer", {"n": 1}, input_id="one")
    async with open_engine(log, config=config) as engine:
        session = await engine.session("s")
        with pytest.raises(QueueFull):
            await session.input(GID, "steer", {"n": 2}, input_id="two")
        assert await session.input(GID, "steer", {"n": 1}, input_id="one") == "one"
        await session.input(GID, "approval", {"approval_id": "yes", "approved": True})
        with pytest.raises(ApprovalNotFound):
            await session.input(GID, "approval", {"approval_id": "past", "approved": True})
        await session.chunks([body(GID, type="input.applied", data={"input_id": "one"})])
        await session.input(GID, "steer", {"n": 2}, input_id="two")
        await trio.sleep(3700)
        assert (await session.generation(GID)).state == "live"  # it waited for a person until now
        await session.finish(GID)
    events = await of_generation(log, GID)
    assert [(data["approval_id"], data["approved"]) for data in data_of(events, "approval.resolved")] == [
        ("past", False),
        ("yes", True),
        ("late", False),
    ]
    assert data_of(events, "input.returned") == [{"input_id": "two"}]


async def test_an_input_that_was_applied_takes_no_place(log: MemoryLog, autojump_clock: MockClock) -> None:
    config = Config(inputs=1)
    async with open_engine(log, config=config) as engine:
        session = await engine.create_session("s")
        await session.chunks([body(GID, "a")])
        await session.input(GID, "steer", {"n": 1}, input_id="one")
        await session.chunks([body(GID, type="input.applied", data={"input_id": "one"})])
    async with open_engine(log, config=config) as engine:
        session = await engine.session("s")
        assert (await session.chunks([body(GID, type="input.applied", data={"input_id": "one"})])).duplicates == 1
        await session.input(GID, "steer", {"n": 2}, input_id="two")
        await session.finish(GID)


@pytest.mark.parametrize("content", [{}, {"n": 1}, {"a": {}, "b": [None, {"c": 1.5}]}, {"text": "é"}])
async def test_an_input_is_the_same_one_over_restarts_whatever_is_in_it(
    content: JSONObject, log: MemoryLog, autojump_clock: MockClock
) -> None:
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        await session.start("remote", generation_id=GID)
        await session.input(GID, "continue", content, input_id="one")
    for _ in range(2):
        async with open_engine(log) as engine:
            session = await engine.session("s")
            assert await session.input(GID, "continue", content, input_id="one") == "one"
            with pytest.raises(IdInUse):
                await session.input(GID, "continue", {**content, "more": True}, input_id="one")
            (waiting,) = (await session.snapshot()).generation.inputs  # type: ignore[union-attr]
            assert (waiting.input_id, waiting.content or {}) == ("one", content)
    async with open_engine(log) as engine:
        session = await engine.session("s")
        await session.chunks([body(GID, type="input.applied", data={"input_id": "one"})])
        await session.finish(GID)
    assert_log(await events_of(log, "s"), closed=True)


async def test_the_wish_to_stop_without_readers_is_kept(log: MemoryLog, autojump_clock: MockClock) -> None:
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        await session.start("remote", generation_id=GID, on_last_disconnect=5)
    async with open_engine(log) as engine:
        session = await engine.session("s")
        await trio.sleep(6)
        assert (await session.generation(GID)).outcome == "stopped"


async def test_the_idle_limit_of_a_start_is_kept(log: MemoryLog, autojump_clock: MockClock) -> None:
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        await session.start("remote", generation_id=GID, idle_limit=5)
    async with open_engine(log) as engine:
        session = await engine.session("s")
        await session.chunks([body(GID, "a")])
        await trio.sleep(4.9)
        assert (await session.generation(GID)).state == "live"
        await trio.sleep(0.2)
        assert (await session.generation(GID)).outcome == "stalled"


async def test_a_record_of_an_older_version_is_one_of_a_producer_that_died(autojump_clock: MockClock) -> None:
    log = MemoryLog()
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        await session.chunks([body(GID, "a")])
        crashed = await copied(log)
        epoch = (await session.cursor()).epoch
    old = await crashed.record("s", epoch, OPEN)
    assert old is not None
    record = read_record(old.replace(b'"remote":true', b'"unheard_of":true'), OpenRecord)
    assert (record.remote, record.on_last_disconnect) == (False, None)


async def test_a_session_that_cannot_be_written_ends_its_remote_and_opens_whole(autojump_clock: MockClock) -> None:
    log = FaultyLog(MemoryLog())
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        await session.chunks([body(GID, "a", message_id=ONE)])
        log.schedule = lambda _, __: Fail()
        with pytest.raises(PenstockError):
            await session.chunks([body(GID, "b", message_id=ONE)])
        crashed = await copied(log.inner)  # type: ignore[arg-type]
        log.schedule = None
        await wait_all_tasks_blocked()
    async with open_engine(crashed) as engine:
        session = await engine.session("s")
        # The process that knew of the failure is gone, and so is what it knew: the producer was told itself.
        assert (await session.chunks([body(GID, "b", message_id=ONE, seq=2)])).accepted == 1
        await session.finish(GID)
    assert texts_of(await events_of(crashed, "s")) == {ONE: "ab"}
