"""Whatever a public method is given, it is refused, or everything works afterwards.

Every argument of every public method gets values of every wrong kind. What may be raised is one of the engine's own
errors; and then, as after a success, the session can be read, followed from its start, forked, compacted, opened by
another process, and can answer.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from engine import (
    CallerError,
    Chunk,
    Compactor,
    Config,
    Engine,
    EventLog,
    Gap,
    InvalidBody,
    MemoryLog,
    PenstockError,
    Session,
    SessionState,
    Snapshot,
    StaleError,
    StorageError,
    decode_json,
    encode_json,
    new_generation_id,
    new_message_id,
    open_engine,
    open_sqlite,
)
from engine.chunks import _FIELDS
from engine.events import DATA_TYPES
from engine.testing import check_session
from tests.engine.calls import CALLS, EXCLUDED, METHODS, PRODUCERS, Given, Scene
from tests.engine.wrong import VALUES

CONFIG = Config(cleanup_timeout=0.5, compact_after=None)

# Sessions that are looked at side by side: enough for a log on a disk to commit them together.
_WIDTH = 24


def test_every_public_method_is_called() -> None:
    assert METHODS.keys() == CALLS.keys() | EXCLUDED.keys()


@asynccontextmanager
async def opened(log: EventLog) -> AsyncIterator[Engine]:
    async with open_engine(log, producers=PRODUCERS, config=CONFIG) as engine:
        yield engine


async def each(work: Callable[[Any], Any], subjects: Any) -> None:
    """All of them, some at a time."""
    limit = trio.CapacityLimiter(_WIDTH)

    async def one(subject: Any) -> None:
        async with limit:
            await work(subject)

    async with trio.open_nursery() as nursery:
        for subject in subjects:
            nursery.start_soon(one, subject)


async def ended(session: Session, generation_id: str) -> str | None:
    async with session.subscribe() as events:
        async for event in events:
            if event.type == "generation.finished" and event.generation_id == generation_id:
                break
    return (await session.generation(generation_id)).outcome


async def set_up(engine: Engine, session_id: str) -> Scene:
    session = await engine.create_session(session_id, metadata={"a": {"b": 1}})
    posted = await session.post("hello")
    started = await session.start("say")
    await ended(session, started.generation_id)
    return Scene(engine, session, posted.message_id, started.generation_id)


async def assert_answers(engine: Engine, session_id: str) -> None:
    """It goes on in this process, whatever the call left in memory."""
    session = await engine.session(session_id)
    await session.stop(queue="clear")
    started = await session.start("say", text="once more", policy="supersede")
    assert await ended(session, started.generation_id) == "completed"
    assert (await session.snapshot()).messages[-1].blocks[0].text == "said"


async def assert_works(engine: Engine, session_id: str) -> None:
    """It can be read, followed, forked, and answers."""
    session = await engine.session(session_id)
    await session.stop(queue="clear")
    snapshot = await session.snapshot()
    shown = Snapshot.from_json(decode_json(encode_json(snapshot.to_json())))
    assert shown.messages == snapshot.messages
    state = SessionState(session_id, snapshot.cursor.epoch)
    async with session.subscribe(live=False) as events:
        async for event in events:
            assert not isinstance(state.apply(event), Gap)
    assert state.snapshot().messages == snapshot.messages
    assert state.snapshot().metadata == snapshot.metadata
    fork = await session.fork()
    assert len((await fork.snapshot()).messages) == len(snapshot.messages)
    await assert_answers(engine, session_id)


async def assert_log_works(log: EventLog, ids: Iterable[str]) -> None:
    """Of these sessions, what the log says: in the next process, and in the one behind a compaction."""
    async with opened(log) as engine:
        await each(lambda session_id: assert_works(engine, session_id), ids)
    await Compactor(log, Config(compact_after=0.001), wall=lambda: 4e9).compact_all()
    async with opened(log) as engine:
        await each(lambda session_id: assert_works(engine, session_id), ids)
    for session_id in ids:
        head = await log.head(session_id)
        assert head is not None
        assert (await check_session(log, head)).violations == ()


async def all_of(engine: Engine) -> list[str]:
    return [info.session_id for info in await engine.sessions(limit=10_000)]


async def attempt(log: EventLog, method: str, argument: str | None, values: dict[str, Callable[[], object]]) -> None:
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


@pytest.mark.parametrize(("method", "argument"), _ARGUMENTS, ids=lambda each: each)
async def test_what_is_wrong_is_refused_or_harms_nothing(method: str, argument: str, autojump_clock: MockClock) -> None:
    await attempt(MemoryLog(), method, argument, dict(VALUES))


@pytest.mark.slow
@pytest.mark.parametrize("method", CALLS)
async def test_what_is_wrong_is_refused_or_harms_nothing_in_a_file(method: str, tmp_path: Path) -> None:
    for argument in METHODS[method]:
        async with AsyncExitStack() as stack:
            log = await open_sqlite(tmp_path / f"{argument}.db")
            stack.push_async_callback(log.aclose)
            await attempt(log, method, argument, dict(VALUES))


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

        await each(one, enumerate(VALUES))
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
