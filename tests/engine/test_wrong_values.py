"""Whatever a public method is given, it is refused, or everything works afterwards.

Every argument of every public method gets values of every wrong kind. What may be raised is one of the engine's own
errors; and then, as after a success, the session can be read, followed from its start, forked, compacted, opened by
another process, and can answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from trio.testing import MockClock

from penstock.engine import (
    CallerError,
    Chunk,
    Engine,
    EventLog,
    Generation,
    InvalidBody,
    MemoryLog,
    PenstockError,
    StaleError,
    StorageError,
    new_generation_id,
    new_message_id,
    open_engine,
    open_sqlite,
)
from penstock.engine.events import DATA_TYPES
from penstock.engine.rules.chunks import _FIELDS
from tests.engine.calls import CALLS, EXCLUDED, METHODS, PRODUCERS, Given, Scene
from tests.engine.works import all_of, assert_answers, assert_log_works, assert_works, each, ended, opened
from tests.engine.wrong import FEW, VALUES
from tests.extent import some


def test_every_public_method_is_called() -> None:
    assert METHODS.keys() == CALLS.keys() | EXCLUDED.keys()


async def set_up(engine: Engine, session_id: str) -> Scene:
    session = await engine.create_session(session_id, metadata={"a": {"b": 1}})
    posted = await session.post("hello")
    started = await session.start("say")
    await ended(session, started.generation_id)
    return Scene(engine, session, posted.message_id, started.generation_id)


async def attempt(log: EventLog, method: str, argument: str | None, values: Mapping[str, Callable[[], object]]) -> None:
    """Call the method with each value for the argument, each in a session of its own; then look at all of them.

    A session that the call left as it was is looked at in this process only: the log says of it what it said before.
    """
    cases = [
        (f"{number}-{place}", call, label)
        for number, label in enumerate(values)
        for place, call in enumerate(CALLS[method])
    ]

    async with opened(log) as engine:

        async def one(case: tuple[str, Any, str]) -> None:
            session_id, call, label = case
            given = Given(method, argument, values[label]())
            try:
                scene = await set_up(engine, session_id)
                before = await scene.session.cursor()
                await call(scene, given)
                if await scene.session.cursor() == before:
                    unchanged.add(session_id)
                assert given.made
                for refused in given.refused:
                    if argument is None or isinstance(refused, StorageError):
                        raise AssertionError("what is right was refused") from refused
            except Exception as error:
                error.add_note(f"{method}({argument}={label})")
                raise

        unchanged: set[str] = set()
        await each(one, cases)
        changed = [session_id for session_id in await all_of(engine) if session_id not in unchanged]
        await each(lambda session_id: assert_works(engine, session_id), changed)
        await each(lambda session_id: assert_answers(engine, session_id), unchanged)
    await assert_log_works(log, changed)


@pytest.mark.parametrize("method", CALLS)
async def test_what_is_right_is_taken(method: str, autojump_clock: MockClock) -> None:
    await attempt(MemoryLog(), method, None, {"right": lambda: None})


_ARGUMENTS = [(method, argument) for method in CALLS for argument in METHODS[method]]


@pytest.mark.further
@pytest.mark.parametrize(("method", "argument"), _ARGUMENTS, ids=lambda each: each)
async def test_what_is_wrong_is_refused_or_harms_nothing(method: str, argument: str, autojump_clock: MockClock) -> None:
    labels = some(VALUES, (method, argument))
    await attempt(MemoryLog(), method, argument, {label: VALUES[label] for label in labels})


@pytest.mark.long
@pytest.mark.parametrize("method", CALLS)
async def test_what_is_wrong_is_refused_or_harms_nothing_in_a_file(method: str, tmp_path: Path) -> None:
    for argument in METHODS[method]:
        async with AsyncExitStack() as stack:
            log = await open_sqlite(tmp_path / f"{argument}.db")
            stack.push_async_callback(log.aclose)
            await attempt(log, method, argument, FEW)


def _chunk_places() -> list[tuple[str, str]]:
    """Each field of each type of chunk, and each of what it says."""
    own = ["generation_id", "data", "job_id", "message_id", "block_index", "seq", "type", "role", "kind"]
    found = [("block.delta", name) for name in own]
    for type_ in (*_FIELDS, "app.note"):
        said = ["anything"] if type_ == "app.note" else [a for a in DATA_TYPES[type_].__annotations__ if a != "type"]
        found += [(type_, f"data.{name}") for name in said]
    return found


_SAID: dict[str, dict[str, object]] = {
    "message.opened": {"role": "assistant"},
    "block.opened": {"kind": "tool_call", "tool_call_id": "c", "name": "look"},
    "block.delta": {"text": "x"},
    "generation.status": {"status": "thinking"},
    "approval.requested": {"name": "rm"},
}


@pytest.mark.further
@pytest.mark.parametrize(("type_", "place"), _chunk_places(), ids=lambda each: each)
async def test_a_chunk_that_is_wrong_is_refused_or_harms_nothing(
    type_: str, place: str, autojump_clock: MockClock
) -> None:
    log = MemoryLog()
    async with opened(log) as engine:

        async def one(case: tuple[int, str]) -> None:
            number, label = case
            session = await engine.create_session(f"{number}")
            gid, mid = new_generation_id(), new_message_id()
            right: dict[str, Any] = {"generation_id": gid, "type": type_, "data": _SAID.get(type_, {})}
            if type_ not in ("generation.status", "approval.requested", "input.applied", "app.note"):
                right["message_id"] = mid
            if type_ in ("block.closed", "message.closed"):
                await session.chunks([Chunk(generation_id=gid, message_id=mid, data={"text": "x"})])
            if place.startswith("data."):
                right["data"] = {**right["data"], place.removeprefix("data."): VALUES[label]()}
            else:
                right[place] = VALUES[label]()
            before = await session.cursor()
            refused = False
            try:
                await session.chunks([Chunk(**right)])
            except (CallerError, StaleError):
                refused = True
            except Exception as error:
                error.add_note(label)
                raise
            if refused:
                assert await session.cursor() == before, label

        await each(one, enumerate(some(VALUES, (type_, place))))
        ids = await all_of(engine)
        await each(lambda session_id: assert_works(engine, session_id), ids)
    await assert_log_works(log, ids)


@pytest.mark.parametrize("label", VALUES)
async def test_a_drain_for_a_wrong_reason_is_refused_or_drains(label: str, autojump_clock: MockClock) -> None:
    log = MemoryLog()
    async with opened(log) as engine:
        await set_up(engine, "s")
        try:
            await engine.drain(VALUES[label]())
        except InvalidBody:
            assert not engine.draining
    await assert_log_works(log, ["s"])


@pytest.mark.parametrize("label", VALUES)
async def test_an_engine_with_wrong_producers_is_refused_or_works(label: str, autojump_clock: MockClock) -> None:
    value = VALUES[label]()
    log = MemoryLog()
    for producers, default in (({"p": value}, None), ({"say": PRODUCERS["say"]}, value), (value, None)):
        try:
            async with open_engine(log, producers=producers, default_producer=default) as engine:
                await engine.create_session("s")
        except PenstockError:
            pass
    try:
        named = {value: PRODUCERS["say"]}
    except TypeError:
        return  # no name at all
    try:
        async with open_engine(log, producers=named) as engine:
            session = await engine.create_session("s")
            started = await session.start()
            assert await ended(session, started.generation_id) == "completed"
    except PenstockError:
        return
    await assert_log_works(log, ["s"])


async def test_what_is_kept_until_its_turn_comes_is_a_copy(autojump_clock: MockClock) -> None:
    log = MemoryLog()
    given: dict[str, Any] = {"a": {"b": 1}}

    def spoil() -> None:
        given["a"]["b"] = given  # a cycle, which nothing can store
        given[5] = float("nan")  # type: ignore[index]

    async def producer(generation: Generation) -> None:
        generation.report_usage(given)
        async with generation.message() as message, message.tool_call("c", "look") as block:
            block.finish(arguments=given)
            message.finish(usage=given)
            spoil()

    async with opened(log) as engine:
        session = await engine.create_session("s")
        live = await session.start("wait")
        queued = await session.start("say", policy="queue", input=given, metadata=given)
        await session.input(live.generation_id, "steer", given)
        spoil()
        assert (await session.snapshot()).queue.items[0].metadata == {"a": {"b": 1}}
        await session.stop(queue="continue")
        assert await ended(session, queued.generation_id) == "completed"
        given.clear()
        given["a"] = {"b": 1}
        started = await session.start(producer)
        assert await ended(session, started.generation_id) == "completed"
        message = (await session.snapshot()).messages[-2]  # the last one is the engine's result for the call
        assert (message.blocks[0].arguments, message.usage) == ({"a": {"b": 1}}, {"a": {"b": 1}})
    await assert_log_works(log, ["s"])


async def test_a_start_that_is_refused_leaves_the_live_generation_alone(autojump_clock: MockClock) -> None:
    async with opened(MemoryLog()) as engine:
        session = await engine.create_session("s")
        live = await session.start("wait")
        for label, made in VALUES.items():
            for name in METHODS["Session.start"]:
                try:
                    await session.start(**{"producer": "say", "policy": "reject", name: made()})
                except (CallerError, StaleError):
                    continue
                raise AssertionError(f"start({name}={label}) took the place of a generation that was not to be touched")
        assert (await session.generation(live.generation_id)).state == "live"
