"""Whatever is asked of a generation, what it lets into the log keeps the rules, and it ends from anywhere."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterable, Sequence
from typing import Final

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.engine import (
    JSON,
    App,
    ApprovalRequested,
    ApprovalResolved,
    BlockClosed,
    BlockDelta,
    BlockOpened,
    BlockSnapshot,
    Config,
    Data,
    Event,
    GenerationCancelling,
    GenerationFinished,
    GenerationQueued,
    GenerationStarted,
    GenerationStatus,
    Head,
    InputAccepted,
    InputApplied,
    InputReturned,
    InvalidBody,
    MemoryLog,
    MessageClosed,
    MessageOpened,
    MessageRetracted,
    MessageSnapshot,
    PenstockError,
    SessionCreated,
    SessionReset,
    StaleGeneration,
    Unknown,
    encode,
    new_generation_id,
    new_message_id,
    now,
)
from penstock.engine.generation.stamper import stamp
from penstock.engine.log import Append
from penstock.engine.rules.ending import Ending, closing
from penstock.engine.rules.lifecycle import BLOCK_KINDS, Draft, OpenGeneration
from penstock.engine.rules.states import OUTCOMES, GenerationState, next_state
from penstock.engine.stream.budget import Budget
from penstock.engine.stream.hub import Hub
from penstock.engine.stream.journal import Journal
from penstock.engine.testing import assert_log, check_log
from tests.engine.rules import events_of
from tests.extent import examples

# Few ids, so that drafts meet one another.
MESSAGES: Final = [new_message_id() for _ in range(3)]
CALLS: Final = ["call-1", "call-2"]
NAMES: Final = ["x-1", "x-2"]

messages = st.sampled_from([*MESSAGES, None])
indexes = st.sampled_from([0, 0, 1, 2, -1, None])
values: st.SearchStrategy[JSON] = st.sampled_from([None, "t", 1, {"a": []}])
texts = st.sampled_from([None, "", "t", "\ud83d"])  # the last is no Unicode and cannot be stored
names = st.sampled_from(NAMES)

blocks = st.builds(
    BlockOpened,
    kind=st.sampled_from([*BLOCK_KINDS, "nonsense"]),
    tool_call_id=st.sampled_from([*CALLS, *CALLS, None, ""]),
    name=st.sampled_from(["search", None]),
)
deltas = st.builds(BlockDelta, text=texts, arguments=texts, value=values)
block_ends = st.builds(BlockClosed, text=texts, arguments=values, is_error=st.sampled_from([None, True]))
of_session: st.SearchStrategy[Data] = st.sampled_from(
    [
        GenerationStatus(status="thinking"),
        App(type="app.note", value={"a": 1}),
        GenerationQueued(producer="p", policy="queue", position=1),
        SessionReset(),
        SessionCreated(metadata={}),
        Unknown(type="future.thing"),
    ]
)
whole = MessageSnapshot(role="tool", status="complete", blocks=(BlockSnapshot(kind="text", seq=1, text="t"),))


def drafted(data: st.SearchStrategy[Data]) -> st.SearchStrategy[Draft]:
    return st.builds(Draft, data, st.none(), st.none())


drafts: st.SearchStrategy[Draft] = st.one_of(
    st.builds(Draft, st.builds(MessageOpened, role=st.sampled_from(["assistant", "tool"])), messages, st.none()),
    st.builds(Draft, st.builds(MessageClosed, status=st.just("complete")), messages, st.none()),
    st.builds(Draft, st.just(whole), messages, st.none()),
    st.builds(Draft, blocks, messages, indexes),
    st.builds(Draft, blocks, messages, indexes),
    st.builds(Draft, deltas, messages, indexes),
    st.builds(Draft, deltas, messages, indexes),
    st.builds(Draft, block_ends, messages, indexes),
    drafted(st.builds(ApprovalRequested, approval_id=names)),
    drafted(st.builds(ApprovalResolved, approval_id=names, approved=st.booleans(), by=st.just("ann"))),
    drafted(st.builds(InputAccepted, input_id=names, kind=st.just("steer"))),
    drafted(st.builds(InputApplied, input_id=names)),
    drafted(of_session),
)
endings = st.builds(
    Ending, outcome=st.sampled_from(sorted(OUTCOMES)), cleanup=st.sampled_from([None, "clean"]), retract=st.booleans()
)


class Session:
    """A journal over a log in memory that holds one live generation."""

    def __init__(self, log: MemoryLog, head: Head) -> None:
        self.log = log
        self.journal = Journal(
            log,
            head,
            hub=Hub(10),
            budget=Budget(9999, 32),
            config=Config(),
            on_refused=self._refused,
            on_listed=lambda _: None,
        )
        self.generation = OpenGeneration(new_generation_id(), 1, "job")
        self.write(Draft(GenerationStarted(producer="p", policy="supersede")))

    def _refused(self, error: PenstockError) -> None:
        raise AssertionError(error)

    def write(self, draft: Draft) -> None:
        stamp(self.journal, [(self.generation, draft)])

    def end(self, ending: Ending) -> None:
        drafts = closing(self.generation, ending, new_message_id=new_message_id)
        stamp(self.journal, ((self.generation, draft) for draft in drafts))

    async def events(self) -> list[Event]:
        await self.journal.wait_committed(self.journal.mark())
        return await events_of(self.log, "s")

    def rebuilt(self, events: Sequence[Event]) -> OpenGeneration:
        generation = OpenGeneration(self.generation.generation_id, 1, "job")
        for event in events:
            generation.replay(event)
        return generation


async def new_session() -> Session:
    log = MemoryLog()
    first = Event(data=SessionCreated(metadata={}), session_id="s", time=now(), offset=1)
    await log.write(Append(session_id="s", epoch="e", expected_tail=0, token=1, events=[encode(first)], create=True))
    return Session(log, Head(session_id="s", epoch="e", tail=1, token=1))


many = settings(max_examples=examples(500), deadline=None, suppress_health_check=list(HealthCheck))


#
@many
@given(st.lists(drafts, max_size=40), st.booleans(), endings, st.lists(drafts, max_size=3))
def test_no_draft_makes_a_log_that_breaks_the_rules(
    proposed: list[Draft], cancelling: bool, ending: Ending, late: list[Draft]
) -> None:
    async def run() -> None:
        session = await new_session()
        for draft in proposed:
            before, stamped = copy.deepcopy(session.generation), session.journal.stamped
            try:
                session.write(draft)
            except (InvalidBody, StaleGeneration):
                assert session.generation == before
                assert session.journal.stamped == stamped
            else:
                assert session.journal.stamped == stamped + 1
        events = await session.events()
        assert_log(events)
        assert session.rebuilt(events) == session.generation
        if cancelling:
            session.write(Draft(GenerationCancelling(reason="stopped")))
        session.end(ending)
        for draft in late:
            with pytest.raises(StaleGeneration):
                session.write(draft)
        events = await session.events()
        assert_log(events, closed=True)
        assert session.rebuilt(events) == session.generation
        assert isinstance(events[-1].data, GenerationFinished)

    trio.run(run)


#
@many
@given(st.lists(drafts, max_size=40), st.booleans(), endings)
def test_a_generation_rebuilt_from_the_log_ends_as_the_one_that_died_would_have(
    proposed: list[Draft], cancelling: bool, ending: Ending
) -> None:
    async def run() -> None:
        session = await new_session()
        for draft in proposed:
            with contextlib.suppress(InvalidBody, StaleGeneration):
                session.write(draft)
        if cancelling:
            session.write(Draft(GenerationCancelling(reason="stopped")))
        rebuilt = session.rebuilt(await session.events())
        results = new_message_id()

        def drawn(generation: OpenGeneration) -> list[Draft]:
            made = []
            for draft in closing(generation, ending, new_message_id=lambda: results):
                generation.place(draft)
                generation.record(draft)
                made.append(draft)
            return made

        assert drawn(copy.deepcopy(session.generation)) == drawn(rebuilt)
        session.generation = session.rebuilt(await session.events())
        session.end(ending)
        assert_log(await session.events(), closed=True)

    trio.run(run)


class TakenBack(Exception):
    """What a trial ends with."""


@given(st.lists(drafts, max_size=40), st.lists(drafts, max_size=20), endings, st.booleans())
def test_a_trial_leaves_all_of_it_or_no_trace(
    proposed: list[Draft], tried: list[Draft], ending: Ending, stays: bool
) -> None:
    """No trace in what may come next, either: the generation ends as it would have."""

    def write(generation: OpenGeneration, drafts: Iterable[Draft]) -> list[Draft]:
        written = []
        for draft in drafts:
            with contextlib.suppress(InvalidBody, StaleGeneration):
                generation.place(draft)
                generation.record(draft)
                written.append(draft)
        return written

    def end(generation: OpenGeneration) -> list[Draft]:
        return write(generation, closing(generation, ending, new_message_id=lambda: results))

    results = new_message_id()
    generation = OpenGeneration(new_generation_id(), 1)
    write(generation, proposed)
    expected = copy.deepcopy(generation)
    if stays:
        write(expected, tried)
        with generation.trial():
            write(generation, tried)
    else:
        with contextlib.suppress(TakenBack), generation.trial():
            write(generation, tried)
            end(generation)
            raise TakenBack
    assert generation == expected
    assert list(generation.messages) == list(expected.messages)
    assert end(generation) == end(expected)


#
@given(st.lists(drafts, max_size=20), st.lists(st.sampled_from(["input", "finish", "cancel"]), max_size=4))
@settings(many, max_examples=examples(200))
def test_what_only_the_engine_writes_is_placed_by_the_same_table(proposed: list[Draft], own: list[str]) -> None:
    """An engine that goes wrong is refused, too: it cannot end twice, nor cancel what has ended."""

    async def run() -> None:
        session = await new_session()
        datas: dict[str, Data] = {
            "input": InputReturned(input_id=NAMES[0]),
            "finish": GenerationFinished(outcome="completed"),
            "cancel": GenerationCancelling(reason="stopped"),
        }
        for draft in [*proposed, *(Draft(datas[name]) for name in own)]:
            with contextlib.suppress(InvalidBody, StaleGeneration):
                session.write(draft)
        found = check_log(await session.events())
        assert [violation for violation in found if violation.rule != "R4"] == []

    trio.run(run)


def test_every_state_takes_what_the_table_says_and_nothing_else() -> None:
    live, cancelling, finished = GenerationState.LIVE, GenerationState.CANCELLING, GenerationState.FINISHED
    allowed = {
        (None, GenerationQueued): GenerationState.QUEUED,
        (None, GenerationStarted): live,
        (GenerationState.QUEUED, GenerationStarted): live,
        (GenerationState.QUEUED, GenerationFinished): finished,
        (live, GenerationCancelling): cancelling,
        (live, GenerationFinished): finished,
        (cancelling, GenerationFinished): finished,
    }
    for state in (None, *GenerationState):
        for kind in (GenerationQueued, GenerationStarted, GenerationCancelling, GenerationFinished, MessageRetracted):
            if (state, kind) in allowed:
                assert next_state(state, kind) is allowed[state, kind]
            else:
                with pytest.raises(InvalidBody):
                    next_state(state, kind)


@pytest.mark.parametrize("closed", [False, True])
async def test_an_open_message_is_not_retracted(closed: bool) -> None:
    session = await new_session()
    session.write(Draft(MessageOpened(role="assistant"), MESSAGES[0]))
    retraction = Draft(MessageRetracted(reason="edited"), MESSAGES[0])
    if closed:
        session.write(Draft(MessageClosed(status="complete"), MESSAGES[0]))
        session.write(retraction)
    else:
        with pytest.raises(InvalidBody):
            session.write(retraction)
    session.end(Ending(outcome="completed"))
    assert_log(await session.events(), closed=True)
