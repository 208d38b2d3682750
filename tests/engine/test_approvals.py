"""Approvals: asked for by a producer, answered once by anybody allowed, and refused whenever in doubt."""

from __future__ import annotations

import logging
import math

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from penstock.engine import (
    JSON,
    Approval,
    ApprovalNotFound,
    Config,
    Generation,
    GenerationNotFound,
    IdInUse,
    InvalidBody,
    JSONObject,
    MemoryLog,
    Session,
    StaleGeneration,
    new_generation_id,
    open_engine,
)
from tests.engine.living import begin, copied, data_of, end_of, finished, of_generation
from tests.engine.rules import assert_rules, events_of


class Asking:
    """Asks once and remembers the answer, or what came in its place."""

    def __init__(self, *, arguments: JSON = None, expires_in: float | None = None) -> None:
        self.answers: list[Approval] = []
        self.errors: list[BaseException] = []
        self._arguments = arguments
        self._expires_in = expires_in

    async def __call__(self, generation: Generation) -> None:
        try:
            answer = await generation.approve(
                "delete", tool_call_id="c1", arguments=self._arguments, expires_in=self._expires_in
            )
        except BaseException as error:
            self.errors.append(error)
            raise
        self.answers.append(answer)

    @property
    def answer(self) -> Approval:
        (answer,) = self.answers
        return answer


async def asked(session: Session) -> str:
    """The id of the one approval that is open."""
    await wait_all_tasks_blocked()
    (approval,) = (await session.snapshot()).approvals
    return approval.approval_id


def yes(approval_id: str, **more: JSON) -> JSONObject:
    return {"approval_id": approval_id, "approved": True, **more}


async def test_a_granted_approval_lets_the_producer_go_on(log: MemoryLog, autojump_clock: MockClock) -> None:
    producer = Asking(arguments={"path": "/tmp/x"})
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        gid = await begin(session, producer)
        (open_,) = (await session.snapshot()).approvals
        assert (open_.generation_id, open_.tool_call_id, open_.name) == (gid, "c1", "delete")
        assert open_.arguments == {"path": "/tmp/x"}
        assert open_.expires_at is not None
        assert open_.expires_at.endswith("Z")
        assert len(open_.expires_at) == len("2026-01-01T00:00:00.000Z")
        await session.input(gid, "approval", yes(open_.approval_id, reason="go on"), by="ada")
        # What the caller was told is committed.
        (resolved,) = data_of(await events_of(log, "s"), "approval.resolved")
        assert resolved == {
            "approval_id": open_.approval_id,
            "approved": True,
            "reason": "go on",
            "by": "ada",
            "tool_call_id": "c1",
        }
        assert await end_of(session, gid) == "completed"
        assert (await session.snapshot()).approvals == ()
    assert producer.answer == Approval(
        approval_id=open_.approval_id, approved=True, reason="go on", arguments={"path": "/tmp/x"}, by="ada"
    )


async def test_changed_arguments_reach_the_producer_and_the_log(log: MemoryLog, autojump_clock: MockClock) -> None:
    producer = Asking(arguments={"n": 1})
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        gid = await begin(session, producer)
        # True is no 1, although Python says so.
        await session.input(gid, "approval", yes(await asked(session), arguments={"n": True}), by="ada")
        assert await end_of(session, gid) == "completed"
    assert producer.answer.arguments == {"n": True}
    (resolved,) = data_of(await of_generation(log, gid), "approval.resolved")
    assert resolved["arguments"] == {"n": True}


@pytest.mark.parametrize("said", [{}, {"approved": False}, {"approved": "true"}, {"approved": 1}, {"approved": None}])
async def test_whatever_is_no_yes_is_a_no(
    said: dict[str, JSON], log: MemoryLog, autojump_clock: MockClock
) -> None:
    producer = Asking(arguments={"n": 1})
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        gid = await begin(session, producer)
        content = {"approval_id": await asked(session), "arguments": {"n": 2}, **said}
        await session.input(gid, "approval", content, by="ada")
        assert await end_of(session, gid) == "completed"
    assert (producer.answer.approved, producer.answer.arguments, producer.answer.by) == (False, None, "ada")
    (resolved,) = data_of(await of_generation(log, gid), "approval.resolved")
    assert resolved["approved"] is False
    assert "arguments" not in resolved


async def test_an_answer_that_cannot_be_understood_resolves_nothing(
    log: MemoryLog, autojump_clock: MockClock
) -> None:
    producer = Asking()
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        gid = await begin(session, producer)
        approval_id = await asked(session)
        before = await session.cursor()
        wrong: list[JSONObject] = [
            {"approved": True},
            {"approval_id": 7, "approved": True},
            yes(approval_id, reason=3),
            yes(approval_id, reason="\ud83d"),
            yes(approval_id, kind="approval"),
            yes(approval_id, arguments=math.nan),
        ]
        for content in wrong:
            with pytest.raises(InvalidBody):
                await session.input(gid, "approval", content)
        assert await session.cursor() == before
        assert await asked(session) == approval_id
        await session.input(gid, "approval", yes(approval_id))
        assert await end_of(session, gid) == "completed"


async def test_an_approval_is_answered_once(
    log: MemoryLog, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    hold = trio.Event()

    async def producer(generation: Generation) -> None:
        await generation.approve("delete", tool_call_id="call-7")
        await hold.wait()

    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        gid = await begin(session, producer)
        approval_id = await asked(session)
        answers: list[str] = []

        async def answer(approved: bool) -> None:
            try:
                await session.input(gid, "approval", {"approval_id": approval_id, "approved": approved}, by="ada")
                answers.append("taken")
            except ApprovalNotFound:
                answers.append("too late")

        with caplog.at_level(logging.WARNING, "penstock"):
            async with trio.open_nursery() as nursery:
                for approved in (True, False, True):
                    nursery.start_soon(answer, approved)
        assert sorted(answers) == ["taken", "too late", "too late"]
        # The log of the process names the session and the tool call, of each that came too late.
        assert len(caplog.messages) == 2
        assert all("session s" in text and "call-7" in text for text in caplog.messages)
        caplog.clear()
        with caplog.at_level(logging.WARNING, "penstock"), pytest.raises(ApprovalNotFound) as refused:
            await session.input(gid, "approval", yes("nobody asked"))
        assert (refused.value.session_id, refused.value.generation_id) == ("s", gid)
        (told,) = caplog.messages
        assert "session s" in told
        assert "nobody asked" in told
        hold.set()
        assert await end_of(session, gid) == "completed"
    assert len(data_of(await of_generation(log, gid), "approval.resolved")) == 1


async def test_a_repeated_answer_gets_the_same_answer(log: MemoryLog, autojump_clock: MockClock) -> None:
    hold = trio.Event()

    async def producer(generation: Generation) -> None:
        await generation.approve("delete")
        await hold.wait()

    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        gid = await begin(session, producer)
        content: dict[str, JSON] = {"approval_id": await asked(session), "approved": False}
        assert await session.input(gid, "approval", content, input_id="i-1") == "i-1"
        before = await session.cursor()
        assert await session.input(gid, "approval", content, input_id="i-1") == "i-1"
        with pytest.raises(IdInUse):
            await session.input(gid, "approval", {**content, "approved": True}, input_id="i-1")
        with pytest.raises(ApprovalNotFound):
            await session.input(gid, "approval", content, input_id="i-2")
        assert await session.cursor() == before
        hold.set()
        assert await end_of(session, gid) == "completed"


async def test_an_approval_expires_as_refused_at_its_time(log: MemoryLog, autojump_clock: MockClock) -> None:
    producer = Asking(expires_in=30)
    async with open_engine(log, config=Config(idle_limit=10)) as engine:
        session = await engine.create_session("s")
        begun = trio.current_time()
        gid = await begin(session, producer)
        await trio.sleep_until(begun + 29.99)
        approval_id = await asked(session)
        await trio.sleep_until(begun + 30.01)
        assert await end_of(session, gid) == "completed"
        with pytest.raises(StaleGeneration):
            await session.input(gid, "approval", yes(approval_id))
    assert (producer.answer.approved, producer.answer.reason, producer.answer.by) == (False, "expired", None)


@pytest.mark.parametrize("first", ["answer", "watchdog"])
async def test_at_the_moment_of_expiry_it_is_too_late(first: str, log: MemoryLog, autojump_clock: MockClock) -> None:
    hold = trio.Event()
    answers: list[Approval] = []

    async def producer(generation: Generation) -> None:
        answers.append(await generation.approve("delete", expires_in=30))
        await hold.wait()

    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        begun = trio.current_time()
        gid = await begin(session, producer)
        approval_id = await asked(session)
        # The watchdog slept first, so it wakes first; the answer that is earlier in the queue comes from a jump.
        if first == "answer":
            await trio.sleep_until(begun + 29)
            autojump_clock.jump(1.5)
        else:
            await trio.sleep_until(begun + 30)
        with pytest.raises(ApprovalNotFound):
            await session.input(gid, "approval", yes(approval_id))
        await wait_all_tasks_blocked()
        assert [answer.approved for answer in answers] == [False]
        hold.set()
        assert await end_of(session, gid) == "completed"
    (resolved,) = data_of(await of_generation(log, gid), "approval.resolved")
    assert resolved["reason"] == "expired"


async def test_an_answer_just_before_expiry_counts(log: MemoryLog, autojump_clock: MockClock) -> None:
    producer = Asking(expires_in=30)
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        begun = trio.current_time()
        gid = await begin(session, producer)
        approval_id = await asked(session)
        await trio.sleep_until(begun + 29.999)
        await session.input(gid, "approval", yes(approval_id))
        await trio.sleep(1)
        assert await end_of(session, gid) == "completed"
    assert producer.answer.approved
    assert len(data_of(await of_generation(log, gid), "approval.resolved")) == 1


async def test_the_nearest_expiry_is_kept_whenever_it_is_asked(log: MemoryLog, autojump_clock: MockClock) -> None:
    seen: list[tuple[float, str | None]] = []

    async def producer(generation: Generation) -> None:
        begun = trio.current_time()

        async def ask(seconds: float) -> None:
            answer = await generation.approve("x", expires_in=seconds)
            seen.append((trio.current_time() - begun, answer.reason))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, 50)
            await trio.sleep(5)
            nursery.start_soon(ask, 10)
            nursery.start_soon(ask, 20)

    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        gid = await begin(session, producer)
        await trio.sleep(60)
        assert await end_of(session, gid) == "completed"
    assert [reason for _, reason in seen] == ["expired"] * 3
    assert [at for at, _ in seen] == pytest.approx([15, 25, 50], abs=0.01)


async def test_an_approval_lasts_as_long_as_it_says(log: MemoryLog, autojump_clock: MockClock) -> None:
    hold = trio.Event()

    async def producer(generation: Generation) -> None:
        for wrong in (0, -1, math.nan, 1e300):
            with pytest.raises(InvalidBody):
                await generation.approve("x", expires_in=wrong)
        with pytest.raises(InvalidBody):
            await generation.approve("x", arguments=math.inf)
        await generation.approve("x", expires_in=math.inf)
        await hold.wait()

    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        gid = await begin(session, producer)
        await trio.sleep(24 * 3600)
        (open_,) = (await session.snapshot()).approvals
        assert open_.expires_at is None
        await session.input(gid, "approval", yes(open_.approval_id))
        hold.set()
        assert await end_of(session, gid) == "completed"
    assert len(data_of(await of_generation(log, gid), "approval.requested")) == 1


async def test_the_producers_own_scope_takes_the_question_back(log: MemoryLog, autojump_clock: MockClock) -> None:
    async def producer(generation: Generation) -> None:
        with trio.move_on_after(5) as scope:
            await generation.approve("x")
        assert scope.cancelled_caught
        await generation.status("working")

    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        gid = await begin(session, producer)
        await trio.sleep(6)
        assert await end_of(session, gid) == "completed"
    events = await of_generation(log, gid)
    assert [event.type for event in events] == [
        "approval.requested",
        "approval.resolved",
        "generation.status",
        "generation.finished",
    ]
    (resolved,) = data_of(events, "approval.resolved")
    assert (resolved["approved"], resolved["reason"]) == (False, "cancelled")


async def test_an_answer_that_crosses_the_producers_own_cancel_is_resolved_once(
    log: MemoryLog, autojump_clock: MockClock
) -> None:
    scope = trio.CancelScope()

    async def producer(generation: Generation) -> None:
        with scope:
            await generation.approve("x")

    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        gid = await begin(session, producer)
        approval_id = await asked(session)
        scope.cancel()
        await session.input(gid, "approval", yes(approval_id))
        assert await end_of(session, gid) == "completed"
    assert len(data_of(await of_generation(log, gid), "approval.resolved")) == 1


@pytest.mark.parametrize("shielded", [False, True])
async def test_stop_refuses_what_is_open(shielded: bool, log: MemoryLog, autojump_clock: MockClock) -> None:
    caught: list[type[BaseException]] = []

    async def producer(generation: Generation) -> None:
        try:
            with trio.CancelScope(shield=shielded):
                await generation.approve("x")
        except BaseException as error:
            caught.append(type(error))
            raise

    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        gid = await begin(session, producer)
        approval_id = await asked(session)
        begun = trio.current_time()
        assert (await session.stop()).state == "stopped"
        assert trio.current_time() - begun < 0.1
        with pytest.raises(StaleGeneration):
            await session.input(gid, "approval", yes(approval_id))
    assert caught == [StaleGeneration if shielded else trio.Cancelled]
    events = await of_generation(log, gid)
    assert [event.type for event in events] == [
        "approval.requested",
        "generation.cancelling",
        "approval.resolved",
        "generation.finished",
    ]
    (resolved,) = data_of(events, "approval.resolved")
    assert (resolved["approved"], resolved["reason"]) == (False, "stopped")
    assert finished(events).outcome == "stopped"


async def test_approvals_of_a_lost_generation_stand_refused(log: MemoryLog, autojump_clock: MockClock) -> None:
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        gid = await begin(session, Asking())
        approval_id = await asked(session)
        left = await copied(log)
        await session.stop()
    async with open_engine(left) as engine:
        session = await engine.session("s")
        assert (await session.snapshot()).approvals == ()
        (resolved,) = data_of(await events_of(left, "s"), "approval.resolved")
        assert resolved == {
            "approval_id": approval_id,
            "approved": False,
            "reason": "lost",
            "tool_call_id": "c1",
        }
        assert await end_of(session, gid) == "lost"
        with pytest.raises(StaleGeneration):
            await session.input(gid, "approval", yes(approval_id))
    await assert_rules(left, closed=True)


async def test_an_answer_for_nobody_says_for_whom_it_was(log: MemoryLog, autojump_clock: MockClock) -> None:
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        with pytest.raises(GenerationNotFound):
            await session.input(new_generation_id(), "approval", yes("a"))
        gid = await begin(session, Asking())
        with pytest.raises(GenerationNotFound):
            await session.input(new_generation_id(), "approval", yes(await asked(session)))
        await session.input(gid, "approval", yes(await asked(session)))
        assert await end_of(session, gid) == "completed"
