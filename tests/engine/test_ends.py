"""An end can always be written, whatever a producer put into it, and says ``completed`` only of one that returned."""

from __future__ import annotations

import contextlib
import enum
import math
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from penstock.engine import (
    Config,
    Engine,
    Generation,
    GenerationCancelling,
    GenerationFinished,
    InvalidBody,
    MemoryLog,
    Producer,
    ProducerError,
    Session,
    open_engine,
)
from penstock.engine.rules.lifecycle import Draft, OpenGeneration
from tests.engine.living import begin, end_of, finished, of_generation
from tests.engine.producers import saying
from tests.engine.rules import assert_rules, events_of
from tests.engine.slow import SlowLog, turns
from tests.engine.trouble import Half, Panic, cut_short, say_last_word
from tests.extent import some


class Reason(enum.Enum):
    BUSY = "BUSY"


class Text(str):
    __slots__ = ()


def deep(levels: int) -> object:
    value: object = 0
    for _ in range(levels):
        value = [value]
    return value


WRONG: Final[Mapping[str, object]] = {
    "an error": ZeroDivisionError("division by zero"),
    "None": None,
    "a number": 7,
    "NaN": math.nan,
    "bytes": b"text",
    "a list": [1],
    "an enum": Reason.BUSY,
    "a mapping proxy": MappingProxyType({"a": 1}),
    "half a pair": "model said: \ud83d",
    "the other half": "\ude00 and so on",
}
WRONG_USAGE: Final[Mapping[str, object]] = {
    **WRONG,
    "text": "7 tokens",
    "half a pair inside": {"model": "\ud83d"},
    "half a pair for a key": {"\ud83d": 1},
    "a number for a key": {1: 2},
    "NaN inside": {"seconds": math.nan},
    "an object inside": {"at": Reason.BUSY},
    "too deep": {"a": deep(1000)},
}

Gives = Callable[[Generation, Any], object]


def raises_detail(_: Generation, value: Any) -> object:
    raise ProducerError(value)


def raises_reason(_: Generation, value: Any) -> object:
    raise ProducerError("it is busy", reason=value)


def reports(generation: Generation, value: Any) -> object:
    generation.report_usage(value)
    return None


def changes_detail(_: Generation, value: Any) -> object:
    """Behind the back of what checks it."""
    error = ProducerError("it is busy")
    error.detail = value
    raise error


def changes_reason(_: Generation, value: Any) -> object:
    error = ProducerError("it is busy")
    error.reason = value
    raise error


def takes_away(_: Generation, value: Any) -> object:
    error = ProducerError("it is busy")
    delattr(error, value)
    raise error


CASES: Final = [
    *((raises_detail, name, value) for name, value in WRONG.items()),
    *((raises_reason, name, value) for name, value in WRONG.items()),
    *((changes_detail, name, value) for name, value in WRONG.items() if value is not None),  # no text is no lie
    *((changes_reason, name, value) for name, value in WRONG.items() if value is not None),
    *((reports, name, value) for name, value in WRONG_USAGE.items()),
    *((takes_away, name, name) for name in ("detail", "reason")),
]


def giving(gives: Gives, value: object) -> Producer:
    async def producer(generation: Generation) -> None:
        async with generation.message() as message, message.text() as block:
            await block.write("so far")
            gives(generation, value)

    return producer


async def can_be_used(engine: Engine, session: Session) -> None:
    """Everything that waits for the end of the one before."""
    say = saying("after all")
    started = await session.start(say, text="and now?")
    await trio.testing.wait_all_tasks_blocked()
    assert (await session.generation(started.generation_id)).outcome == "completed"
    assert (await session.stop()).state == "nothing_active"
    await session.snapshot()
    await session.fork()
    await session.reset()
    await session.delete()
    await engine.create_session(session.session_id)


@pytest.mark.parametrize(
    ("gives", "value"),
    [(gives, value) for gives, _, value in CASES],
    ids=[f"{gives.__name__}: {name}" for gives, name, _ in CASES],
)
async def test_whatever_a_producer_puts_into_its_end_an_end_is_written(
    gives: Gives, value: object, log: MemoryLog, autojump_clock: MockClock
) -> None:
    async with open_engine(log) as opened:
        session = await opened.create_session("s")
        gid = await begin(session, giving(gives, value))
        assert await end_of(session, gid) == "failed"
        end = finished(await of_generation(log, gid))
        assert (end.code, end.message) == ("PRODUCER_FAILED", "The producer raised an error.")
        assert end.usage is None
        await can_be_used(opened, session)
    await assert_rules(log, closed=True)


@pytest.mark.parametrize("value", WRONG.values(), ids=WRONG.keys())
def test_a_producer_error_is_made_of_text_that_can_be_stored(value: Any) -> None:
    with pytest.raises(InvalidBody):
        ProducerError(value)
    with pytest.raises(InvalidBody):
        ProducerError("x", reason=value)
    made = ProducerError(Text("kept"), reason=Text("BUSY"))
    assert (type(made.detail), type(made.reason)) == (str, str)


async def test_what_was_reported_is_told_as_it_was_then(log: MemoryLog, autojump_clock: MockClock) -> None:
    async def producer(generation: Generation) -> None:
        usage: dict[str, Any] = {"tokens": 1, "by": {"model": "m"}}
        generation.report_usage(usage)
        usage["tokens"] = "\ud83d"
        usage["by"]["model"] = Reason.BUSY
        with pytest.raises(InvalidBody):
            generation.report_usage([1])  # type: ignore[arg-type]

    async with open_engine(log) as opened:
        session = await opened.create_session("s")
        gid = await begin(session, producer)
        end = finished(await of_generation(log, gid))
        assert (end.outcome, end.usage) == ("completed", {"tokens": 1, "by": {"model": "m"}})


# --- an end that fails half-way

# What ends a live generation, and as what.
OPERATIONS: Final[Mapping[str, tuple[str, Callable[[Engine, Session], Awaitable[object]]]]] = {
    "start": ("superseded", lambda _, session: session.start(saying("x"))),
    "rollback": ("superseded", lambda _, session: session.start(saying("x"), policy="rollback")),
    "stop": ("stopped", lambda _, session: session.stop()),
    "reset": ("reset", lambda _, session: session.reset()),
    "delete": ("deleted", lambda _, session: session.delete()),
    "drain": ("shutdown", lambda engine, _: engine.drain()),
}


async def elaborate(generation: Generation) -> None:
    """Everything is open."""
    async with trio.open_nursery() as nursery, generation.message() as message:
        nursery.start_soon(generation.approve, "rm")
        async with message.tool_call("call", "look") as call, message.text() as text:
            await call.write("{}")
            await text.write("x")
            await trio.sleep_forever()


@pytest.mark.parametrize("place", range(8))
@pytest.mark.parametrize("name", OPERATIONS)
async def test_an_end_that_fails_half_way_leaves_no_trace(
    name: str, place: int, log: MemoryLog, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    armed: list[int] = []
    place_draft = OpenGeneration.place

    def refuse(structure: OpenGeneration, draft: Draft) -> int | None:
        """One event of the end is refused, the first time."""
        if armed and not isinstance(draft.data, GenerationCancelling):
            armed[0] -= 1
            if armed[0] < 0:
                armed.clear()
                raise InvalidBody("one event of the end")
        return place_draft(structure, draft)

    monkeypatch.setattr(OpenGeneration, "place", refuse)
    async with open_engine(log, config=Config(drain_timeout=5)) as opened:
        session = await opened.create_session("s")
        gid = await begin(session, elaborate)
        outcome, operation = OPERATIONS[name]
        armed.append(place)
        with contextlib.suppress(InvalidBody):
            await operation(opened, session)
        await trio.testing.wait_all_tasks_blocked()
        assert not armed  # it did fail
        assert finished(await of_generation(log, gid)).outcome == outcome
        if not opened.draining:
            await can_be_used(opened, session)
    await assert_rules(log, closed=True)
    async with open_engine(log) as opened:
        await can_be_used(opened, await opened.session("s"))
    await assert_rules(log, closed=True)


@pytest.mark.parametrize("error", [InvalidBody("never"), TypeError("a bug"), Panic("a broken extension")])
async def test_one_bad_session_does_not_keep_the_others_from_their_end(
    error: BaseException, log: MemoryLog, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad: list[str] = []
    place_draft = OpenGeneration.place

    def refuse(structure: OpenGeneration, draft: Draft) -> int | None:
        if structure.generation_id in bad and isinstance(draft.data, GenerationFinished):
            raise error
        return place_draft(structure, draft)

    monkeypatch.setattr(OpenGeneration, "place", refuse)
    async with open_engine(log, config=Config(drain_timeout=5)) as opened:
        for session_id in ("a", "bad", "b"):
            gid = await begin(await opened.create_session(session_id), Half())
            if session_id == "bad":
                bad.append(gid)
    for session_id in ("a", "b"):
        assert finished(await events_of(log, session_id)).outcome == "shutdown"
    monkeypatch.undo()
    async with open_engine(log):
        assert finished(await events_of(log, "bad")).outcome == "lost"


# --- completed


async def swallows(generation: Generation) -> None:
    """Takes no notice of its cancellation but to return."""
    async with generation.message() as message, message.text() as block:
        await block.write("half of it")
    try:
        await trio.sleep(10_000)
    except trio.Cancelled:
        return
    await say_last_word(generation)


async def swallows_in_a_scope(generation: Generation) -> None:
    """As one that has a time limit of its own, and a bare except."""
    with trio.move_on_after(1000):
        try:
            await trio.sleep(10_000)
        except BaseException:  # noqa: BLE001
            return
    await say_last_word(generation)


async def raises_another(generation: Generation) -> None:
    try:
        await trio.sleep_forever()
    finally:
        raise ValueError("in its place")


CUT: Final[Mapping[str, Callable[[], Producer]]] = {
    "in the middle": Half,
    "swallows": lambda: swallows,
    "swallows in a scope": lambda: swallows_in_a_scope,
    "raises another": lambda: raises_another,
}


async def folds_and_told_no_lie(log: MemoryLog, allowed: set[str | None]) -> None:
    async with open_engine(log) as opened:
        for info in await opened.sessions():
            events = await events_of(log, info.session_id)
            assert cut_short(events) == []
            assert {e.data.outcome for e in events if isinstance(e.data, GenerationFinished)} <= allowed
            await can_be_used(opened, await opened.session(info.session_id))


@pytest.mark.parametrize("kind", CUT)
async def test_a_producer_that_the_engines_own_nursery_cuts_off_has_not_completed(
    kind: str, log: MemoryLog, autojump_clock: MockClock
) -> None:
    """Whatever it is that crashes in there: a bug of the engine's."""
    with trio.move_on_after(60):
        async with open_engine(log) as opened:
            session = await opened.create_session("s")
            await begin(session, CUT[kind]())
            nursery = opened._registry.nursery
            assert nursery is not None
            nursery.cancel_scope.cancel()
            await trio.testing.wait_all_tasks_blocked()
    await folds_and_told_no_lie(log, {"shutdown", "lost", "failed"})


@pytest.mark.parametrize("kind", CUT)
@pytest.mark.parametrize("error", [None, ValueError("the application's"), KeyboardInterrupt()])
async def test_a_producer_that_the_application_leaves_has_not_completed(
    error: BaseException | None, kind: str, log: MemoryLog, autojump_clock: MockClock
) -> None:
    async def application() -> None:
        async with open_engine(log) as opened:
            await begin(await opened.create_session("s"), CUT[kind]())
            if error is not None:
                raise error
            await trio.sleep_forever()

    with trio.move_on_after(1):
        if error is None:
            await application()
        else:
            with pytest.raises(type(error)):
                await application()
    await folds_and_told_no_lie(log, {"shutdown", "failed"})


async def served(log: SlowLog, producers: Mapping[str, Producer]) -> None:
    async with open_engine(log, producers=producers):
        await trio.sleep_forever()


@pytest.mark.further
@pytest.mark.parametrize("kind", CUT)
async def test_a_producer_that_began_in_an_opening_that_is_cancelled_has_not_completed(
    kind: str, autojump_clock: MockClock
) -> None:
    """At every turn of the loop: what waited in the queue begins while the rest of the sessions is still looked at."""
    outcomes: set[str] = set()
    for turn in some(range(60), kind):
        log = SlowLog()
        producers: dict[str, Producer] = {"waits": saying("x"), "cut": CUT[kind]()}
        async with open_engine(log, producers=producers) as opened:
            for number in range(3):
                session = await opened.create_session(f"s-{number}")
                await begin(session, "cut")
                await session.start("cut", policy="queue", text="and this?")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(served, log, producers)
            await turns(turn)
            nursery.cancel_scope.cancel()
        for number in range(3):
            events = await events_of(log.inner, f"s-{number}")
            assert cut_short(events) == []
            outcomes |= {e.data.outcome for e in events if isinstance(e.data, GenerationFinished)}
        await folds_and_told_no_lie(log.inner, {"shutdown", "lost", "failed", "stopped", "superseded", "completed"})
    assert outcomes - {"shutdown", "failed"} == set()
