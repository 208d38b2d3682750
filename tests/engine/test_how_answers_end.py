"""How an answer ended is told: in the snapshot, by its id, in a fork, whatever has left memory; and who asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import pytest
import trio
from attrs import evolve
from trio.testing import MockClock, wait_all_tasks_blocked

from penstock.engine import (
    Config,
    Event,
    Generation,
    GenerationActive,
    GenerationFinished,
    GenerationInfo,
    GenerationNotFound,
    GenerationStarted,
    IdInUse,
    InvalidBody,
    JSONObject,
    MemoryLog,
    MessageNotFound,
    MessageSnapshot,
    ProducerError,
    ResolvedView,
    Session,
    SessionState,
    Snapshot,
    Started,
    encode,
    new_generation_id,
    new_message_id,
    open_engine,
)
from penstock.engine.log.port import Entry
from penstock.engine.reducer.generations import SILENT_KEPT
from penstock.engine.rules.chunks import Chunk
from penstock.engine.stream.folding import Fold
from tests.engine.living import begin, data_of, end_of
from tests.engine.producers import Steered, saying
from tests.engine.rules import assert_rules, events_of

REFUSED: Final = "The provider refused the key."


async def refused(generation: Generation) -> None:
    """As a model whose key is wrong: it fails before its first word."""
    raise ProducerError(REFUSED, reason="MODEL_AUTH", again=False)


async def folded(log: MemoryLog, session: Session) -> SessionState:
    """What a reader has that began with the first event."""
    state = SessionState(session.session_id, (await session.cursor()).epoch)
    for event in await events_of(log, session.session_id):
        state.apply(event)
    return state


async def test_an_answer_that_failed_before_its_first_word_is_told(log: MemoryLog, autojump_clock: MockClock) -> None:
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        started = await session.start(refused, text="hello?", author="ann")
        assert await end_of(session, started.generation_id) == "failed"
        snapshot = await session.snapshot()
        (question,) = snapshot.messages
        (told,) = snapshot.generations
        assert (told.state, told.turn, told.outcome, told.code) == ("finished", 1, "failed", "MODEL_AUTH")
        assert (told.message, told.retryable, told.author) == (REFUSED, False, "ann")
        assert (told.silent, told.behind) == (True, question.message_id)
        assert told.started is not None
        assert told.finished is not None
        assert told.finished.cursor == snapshot.cursor
        assert told.started.cursor.offset == snapshot.cursor.offset - 1
        assert await session.generation(told.generation_id) == told
        assert (await folded(log, session)).snapshot() == evolve(snapshot)
        again = await session.start(saying("here"), replaces=question.message_id, text="hello!")
        assert await end_of(session, again.generation_id) == "completed"
        # With its question it leaves; by its id it is known as ever.
        assert [each.generation_id for each in (await session.snapshot()).generations] == [again.generation_id]
        found = await session.generation(told.generation_id)
        assert (found.outcome, found.code, found.message) == ("failed", "MODEL_AUTH", REFUSED)
    await assert_rules(log, closed=True)


async def test_what_is_live_and_what_waits_is_told(log: MemoryLog, autojump_clock: MockClock) -> None:
    producer = Steered()
    async with open_engine(log, producers={"say": saying("x")}) as engine:
        session = await engine.create_session("s")
        gid = await begin(session, producer)
        (live,) = (await session.snapshot()).generations
        assert (live.state, live.silent, live.outcome, live.finished) == ("live", False, None, None)
        assert await session.generation(gid) == live
        waits = await session.start("say", policy="queue", text="and then?", author="bob")
        queued = await session.generation(waits.generation_id)
        assert queued == GenerationInfo(generation_id=waits.generation_id, state="queued", author="bob")
        await session.dequeue(waits.generation_id)
        gone = await session.generation(waits.generation_id)
        assert (gone.state, gone.turn, gone.outcome, gone.started) == ("finished", None, "stopped", None)
        assert gone in (await session.snapshot()).generations
        with pytest.raises(GenerationNotFound):
            await session.generation(new_generation_id())


async def test_generations_of_messages_that_left_memory_are_read_again(
    log: MemoryLog, autojump_clock: MockClock
) -> None:
    config = Config(fold_bytes=1, compact_after=None)
    async with open_engine(log, config=config) as engine:
        session = await engine.create_session("s")
        ids: list[str] = []
        for number in range(6):
            started = await session.start(saying(f"{number}", "!"), text=f"question {number}")
            assert await end_of(session, started.generation_id) == "completed"
            ids.append(started.generation_id)
        whole = (await folded(log, session)).snapshot()
        snapshot = await session.snapshot()
        assert snapshot == whole
        assert [each.generation_id for each in snapshot.generations] == ids
        before = snapshot.messages[4].message_id
        page = await session.snapshot(2, before)
        assert [each.generation_id for each in page.generations] == [ids[1], ids[-1]], "those of its messages, the last"
        for generation_id, told in zip(ids, snapshot.generations, strict=True):
            assert await session.generation(generation_id) == told


def watched(events: Sequence[Event]) -> tuple[Fold, list[tuple[int, int | None]]]:
    """A fold that keeps nothing in memory, and what it reads by single events."""
    reads: list[tuple[int, int | None]] = []

    async def read(after: int, limit: int | None = None, /) -> list[Entry]:
        await trio.lowlevel.checkpoint()
        if limit is not None:
            reads.append((after, limit))
        found = [Entry(event.offset, encode(event)) for event in events if event.offset and event.offset > after]
        return found[:limit]

    return Fold("s", "e", read, lambda: len(events), Config(fold_bytes=1)), reads


async def test_generations_beside_messages_that_are_read_again_need_no_reads_of_their_own() -> None:
    events = answers(20)
    fold, reads = watched(events)
    whole = SessionState("s", "e")
    for event in events:
        whole.apply(event)
    assert await fold.snapshot(None, None) == whole.snapshot()
    assert reads == [(1, 53), (0, 1), (2, 1)], "the messages, then the first's, which began before its message"


async def test_a_generation_is_read_again_with_two_reads_of_one_event() -> None:
    fold, reads = watched(answers(20))
    page = await fold.page(1, message_id(10), with_open=False)
    assert [each.turn for each in page.snapshot.generations] == [9, 19]
    assert reads == [(25, 2), (24, 1), (26, 1)], "the ninth message, what begins before it, and what ends it"


def message_id(turn: int) -> str:
    return f"00000000-0000-7000-8000-{turn:012x}"


def answers(turns: int) -> list[Event]:
    """From the first on: each begins, says one message at once, and ends."""
    events: list[Event] = []

    def put(data: GenerationStarted | MessageSnapshot | GenerationFinished, turn: int) -> None:
        mid = message_id(turn) if isinstance(data, MessageSnapshot) else None
        events.append(
            Event(
                data=data,
                session_id="s",
                offset=len(events) + 1,
                time="2026-01-31T09:26:00.000Z",
                generation_id=f"g{turn}",
                turn=turn,
                message_id=mid,
            )
        )

    for turn in range(1, turns):
        put(GenerationStarted(producer="p", policy="supersede"), turn)
        put(MessageSnapshot(role="assistant", status="complete", blocks=()), turn)
        put(GenerationFinished(outcome="completed"), turn)
    return events


async def test_of_those_that_wrote_nothing_the_newest_are_kept(log: MemoryLog, autojump_clock: MockClock) -> None:
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        await session.post("hello?")
        ids: list[str] = []
        for _ in range(SILENT_KEPT + 3):
            started = await session.start(refused)
            assert await end_of(session, started.generation_id) == "failed"
            ids.append(started.generation_id)
        snapshot = await session.snapshot()
        assert [each.generation_id for each in snapshot.generations] == ids[-SILENT_KEPT:]
        assert (await folded(log, session)).snapshot() == snapshot
        resumed = SessionState.from_snapshot(Snapshot.from_json(snapshot.to_json()))
        assert resumed.snapshot().generations == snapshot.generations
        # The others are found by their ids, in the log.
        assert (await session.generation(ids[0])).code == "MODEL_AUTH"


async def test_a_fork_tells_how_the_answers_of_its_source_ended(log: MemoryLog, autojump_clock: MockClock) -> None:
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        await begin(session, Steered())
        second = await session.start(saying("better"), text="again", author="ann")
        assert await end_of(session, second.generation_id) == "completed"
        third = await session.start(refused, text="more", author="bob")
        assert await end_of(session, third.generation_id) == "failed"
        fourth = await session.start(saying("enough"), text="and more")
        assert await end_of(session, fourth.generation_id) == "completed"
        source = await session.snapshot()
        fork = await session.fork("f")
        snapshot = await fork.snapshot()
        assert [each.outcome for each in snapshot.generations] == ["superseded", "completed", "failed", "completed"]
        for ours, theirs in zip(source.generations, snapshot.generations, strict=True):
            told = evolve(ours, started=None, finished=None, retryable=None, author=None, usage=None)
            assert told == theirs
        assert [(each.generation_id, each.author) for each in snapshot.messages] == [
            (each.generation_id, each.author) for each in source.messages
        ]
        assert (await folded(log, fork)).snapshot() == snapshot
        # A fork of the fork has it from there; what is posted again is the same message, whoever posts it.
        assert (await (await fork.fork("g")).snapshot()).generations == snapshot.generations
        question = snapshot.messages[1]
        again = await fork.post("again", message_id=question.message_id, author="somebody")
        assert not again.created
        # Each of their ids is taken, as in the source, and says how it ended.
        for each in snapshot.generations:
            with pytest.raises(IdInUse):
                await fork.start(saying("x"), generation_id=each.generation_id)
            assert (await fork.generation(each.generation_id)).outcome == each.outcome


async def test_an_old_forks_messages_are_nobodys(log: MemoryLog, autojump_clock: MockClock) -> None:
    """As such a message was stored before it told whose it was."""
    said = MessageSnapshot(role="assistant", status="cancelled", blocks=())
    state = SessionState("s", "e")
    event = Event(data=said, session_id="s", offset=1, time="2026-01-31T09:26:00.000Z", message_id=new_message_id())
    state.apply(event)
    snapshot = state.snapshot()
    assert (snapshot.messages[0].generation_id, snapshot.generations) == (None, ())


@pytest.mark.parametrize("named", [True, False])
async def test_a_resolved_approval_stays_with_its_message(
    named: bool, log: MemoryLog, autojump_clock: MockClock
) -> None:
    """Also when the message has left memory before it was resolved."""

    async def producer(generation: Generation) -> None:
        async with generation.message() as message, message.tool_call("c1", "rm") as call:
            await call.write("{}")
        async with generation.message(role="tool"):
            pass
        await generation.approve("rm", tool_call_id="c1" if named else None)

    config = Config(fold_bytes=1, compact_after=None)
    async with open_engine(log, config=config) as engine:
        session = await engine.create_session("s")
        gid = await begin(session, producer)
        (open_,) = (await session.snapshot()).approvals
        answering, last = (await session.snapshot()).messages
        asked_of = answering if named else last
        assert open_.message_id == asked_of.message_id
        content: JSONObject = {"approval_id": open_.approval_id, "approved": False, "reason": "not now"}
        await session.input(gid, "approval", content, by="ada")
        resolved = ResolvedView(
            approval_id=open_.approval_id,
            approved=False,
            tool_call_id="c1" if named else None,
            name="rm",
            reason="not now",
            by="ada",
        )
        assert await end_of(session, gid) == "completed"
        await session.post("and so on")
        snapshot = await session.snapshot()
        assert snapshot.approvals == ()
        told = {message.message_id: message.approvals for message in snapshot.messages if message.approvals}
        assert told == {asked_of.message_id: (resolved,)}
        assert (await folded(log, session)).snapshot() == snapshot
    (event,) = data_of(await events_of(log, "s"), "approval.resolved")
    assert event.get("tool_call_id") == ("c1" if named else None)
    await assert_rules(log, closed=True)


async def test_an_approval_asked_for_before_the_first_word_stays_with_the_question(
    log: MemoryLog, autojump_clock: MockClock
) -> None:
    async def producer(generation: Generation) -> None:
        await generation.approve("look")

    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        started = await session.start(producer, text="may you?")
        await wait_all_tasks_blocked()
        (open_,) = (await session.snapshot()).approvals
        await session.stop()
        (question,) = (await session.snapshot()).messages
        assert [(each.approval_id, each.approved, each.reason) for each in question.approvals] == [
            (open_.approval_id, False, "stopped")
        ]
        assert await end_of(session, started.generation_id) == "stopped"
        assert (await folded(log, session)).snapshot() == await session.snapshot()
    await assert_rules(log, closed=True)


async def test_messages_tell_when_they_began_and_ended(log: MemoryLog, autojump_clock: MockClock) -> None:
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        started = await session.start(saying("x"), text="when?")
        assert await end_of(session, started.generation_id) == "completed"
        question, answer = (await session.snapshot()).messages
        times = {(event.type, event.message_id): event.time for event in await events_of(log, "s")}
        assert (question.time, question.closed) == (times["message.snapshot", question.message_id], None)
        assert answer.time == times["message.opened", answer.message_id]
        assert answer.closed == times["message.closed", answer.message_id]


async def test_who_asked_is_told_of_starts_posts_and_stops(log: MemoryLog, autojump_clock: MockClock) -> None:
    async with open_engine(log, producers={"say": saying("x")}) as engine:
        session = await engine.create_session("s")
        live = await session.start(Steered(), text="mine", author="ann")
        await session.post("aside", author="bob")
        waits = await session.start("say", policy="queue", text="next", author="cyd")
        assert (await session.snapshot()).queue.items[0].author == "cyd"
        await session.stop(live.generation_id, author="dan", queue="continue")
        assert await end_of(session, waits.generation_id) == "completed"
        events = await events_of(log, "s")
        authors = [data["author"] for data in data_of(events, "message.snapshot")]
        assert authors == ["ann", "bob", "cyd"]
        assert [data["author"] for data in data_of(events, "generation.started")] == ["ann", "cyd"]
        assert [data["author"] for data in data_of(events, "generation.cancelling")] == ["dan"]
        assert [data.get("author") for data in data_of(events, "generation.finished")] == ["dan", None]
        told = {each.generation_id: each.author for each in (await session.snapshot()).generations}
        assert told == {live.generation_id: "ann", waits.generation_id: "cyd"}


async def test_the_first_answer_of_a_start_that_continues_says_so(log: MemoryLog, autojump_clock: MockClock) -> None:
    seen: list[str | None] = []

    async def twice(generation: Generation) -> None:
        seen.append(generation.continues)
        for made in [generation.message(), generation.message()]:  # which is the first is known when one is opened
            async with made as message, message.text() as block:
                await block.write("and more")

    async with open_engine(log, producers={"twice": twice}) as engine:
        session = await engine.create_session("s")
        cut = await session.start(saying("as far as"), text="a long story")
        assert await end_of(session, cut.generation_id) == "completed"
        answer = (await session.snapshot()).messages[-1]
        live = await session.start(Steered())
        goes_on = await session.start("twice", continues=answer.message_id, policy="queue")
        await session.stop(live.generation_id, queue="continue")
        assert await end_of(session, goes_on.generation_id) == "completed"
        messages = [m for m in (await session.snapshot()).messages if m.generation_id == goes_on.generation_id]
        assert [message.continues for message in messages] == [answer.message_id, None]
        assert seen == [answer.message_id]
        fork = await (await session.fork("f")).snapshot()
        assert [message.continues for message in fork.messages][-2:] == [answer.message_id, None]
        before = await session.cursor()
        for wrong in ({"text": "x"}, {"replaces": answer.message_id}, {"policy": "join"}):
            with pytest.raises(InvalidBody):
                await session.start("twice", continues=answer.message_id, **wrong)  # type: ignore[call-overload]
        with pytest.raises(MessageNotFound):
            await session.start("twice", continues=new_message_id())
        assert await session.cursor() == before
    await assert_rules(log, closed=True)


async def test_a_remote_answer_that_continues_says_so(log: MemoryLog, autojump_clock: MockClock) -> None:
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        posted = await session.post("once upon", role="assistant")
        started = await session.start("remote", continues=posted.message_id, text=None)
        assert isinstance(started, Started)
        await session.chunks([Chunk(generation_id=started.generation_id, data={"text": "a time"})])
        await session.finish(started.generation_id)
        assert (await session.snapshot()).messages[-1].continues == posted.message_id


@pytest.mark.parametrize("ends", ["stopped", "completed", "failed"])
async def test_what_an_answer_cost_that_did_not_complete_is_told_as_a_part(
    ends: str, log: MemoryLog, autojump_clock: MockClock
) -> None:
    async def producer(generation: Generation) -> None:
        generation.report_usage({"tokens": 7})
        if ends == "failed":
            raise ProducerError("no more")
        if ends == "stopped":
            await trio.sleep_forever()

    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        gid = await begin(session, producer)
        if ends == "stopped":
            await session.stop()
        assert await end_of(session, gid) == ends
        usage = {"tokens": 7} if ends == "completed" else {"tokens": 7, "partial": True}
        assert (await session.generation(gid)).usage == usage


@pytest.mark.parametrize("speaks", [False, True])
@pytest.mark.parametrize("remote", [False, True])
async def test_what_ends_say_is_bounded_and_so_are_snapshots_of_many(
    speaks: bool, remote: bool, log: MemoryLog, autojump_clock: MockClock
) -> None:
    """What is told of generations is not weighed with the messages of a page."""
    longest, most = "\U0001f600" * 100_000, {"x": "y" * (8 * 1024 - 8)}
    too_large = {"x": "y" * (8 * 1024 - 7)}

    async def producer(generation: Generation) -> None:
        if speaks:
            async with generation.message() as message, message.text() as block:
                await block.write("a")
        with pytest.raises(InvalidBody):
            generation.report_usage(too_large)
        generation.report_usage({"x": "y" * (8 * 1024 - 30)})
        raise ProducerError(longest, reason=longest)

    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        for _ in range(40):
            if not remote:
                await end_of(session, await begin(session, producer))
                continue
            started = await session.start("remote")
            assert isinstance(started, Started)
            if speaks:
                await session.chunks([Chunk(generation_id=started.generation_id, data={"text": "a"})])
            with pytest.raises(InvalidBody):
                await session.finish(started.generation_id, usage=too_large)
            await session.finish(started.generation_id, outcome="failed", code=longest, message=longest, usage=most)
        last = (await session.snapshot()).generations[-1]
        assert last.usage is not None
        assert longest.startswith(last.code or "-")
        assert longest.startswith(last.message or "-")
        assert len((await session.snapshot_page(40)).body) < 40 * 20 * 1024
        assert len((await session.snapshot_page(1)).body) < 33 * 20 * 1024
    await assert_rules(log, closed=True)


@pytest.mark.parametrize("begun", [False, True])
async def test_a_question_is_not_retracted_while_its_answer_runs(
    begun: bool, log: MemoryLog, autojump_clock: MockClock
) -> None:
    """Neither before the answer's first word nor behind it; what stands before the question may go."""

    async def waits(generation: Generation) -> None:
        await trio.sleep_forever()

    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        posted = await session.post("before")
        await session.start(Steered() if begun else waits, text="a question")
        await wait_all_tasks_blocked()
        question = (await session.snapshot()).messages[1]
        with pytest.raises(GenerationActive):
            await session.retract(question.message_id)
        with pytest.raises(GenerationActive):
            await session.retract(posted.message_id, and_after=True)
        await session.retract(posted.message_id)
        later = await session.post("beside")
        await session.retract(later.message_id)
        await session.stop()
        await session.retract(question.message_id)
        left = (await session.snapshot()).generations
        assert [each.silent for each in left] == [False], "the last one is told of, and stands nowhere"
    await assert_rules(log, closed=True)
