"""Metadata have a bound wherever they are given, and after a merge. What is larger from of old may shrink."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio
from trio.testing import MockClock

from penstock.engine import (
    Chunk,
    Engine,
    Generation,
    InvalidBody,
    JSONObject,
    MemoryLog,
    Session,
    encode_json,
    new_generation_id,
    open_engine,
)
from penstock.engine.rules import merging
from tests.engine.producers import saying

MOST = 64 * 1024


def of_size(size: int) -> JSONObject:
    """Metadata that take so many bytes: with a character of three, so that nobody counts characters."""
    made = {"a": "水" * 1000 + "x" * (size - len(encode_json({"a": "水" * 1000})))}
    assert len(encode_json(made)) == size
    return made


async def _create(engine: Engine, session: Session, metadata: JSONObject) -> JSONObject | None:
    made = await engine.create_session(metadata=metadata)
    return (await made.snapshot()).metadata


async def _fork(engine: Engine, session: Session, metadata: JSONObject) -> JSONObject | None:
    return (await (await session.fork(metadata=metadata)).snapshot()).metadata


async def _update(engine: Engine, session: Session, metadata: JSONObject) -> JSONObject | None:
    return (await session.update(metadata)).metadata


async def _post(engine: Engine, session: Session, metadata: JSONObject) -> JSONObject | None:
    await session.post("x", metadata=metadata)
    return (await session.snapshot()).messages[-1].metadata


async def _start(engine: Engine, session: Session, metadata: JSONObject) -> JSONObject | None:
    await session.start("wait", metadata=metadata)
    generation = (await session.snapshot()).generation
    assert generation is not None
    return generation.metadata


async def _queue(engine: Engine, session: Session, metadata: JSONObject) -> JSONObject | None:
    await session.start("wait")
    await session.start("wait", policy="queue", metadata=metadata)
    return (await session.snapshot()).queue.items[0].metadata


async def _message(engine: Engine, session: Session, metadata: JSONObject) -> JSONObject | None:
    refused: list[InvalidBody] = []

    async def producer(generation: Generation) -> None:
        try:
            async with generation.message(metadata=metadata):
                pass
        except InvalidBody as error:
            refused.append(error)

    await session.start(producer)
    await trio.sleep(1)
    if refused:
        raise refused[0]
    return (await session.snapshot()).messages[-1].metadata


async def _chunk(engine: Engine, session: Session, metadata: JSONObject) -> JSONObject | None:
    opened = Chunk(generation_id=new_generation_id(), type="message.opened", data={"metadata": metadata})
    await session.chunks([opened])
    return (await session.snapshot()).messages[-1].metadata


#
@pytest.mark.parametrize("give", [_create, _fork, _update, _post, _start, _queue, _message, _chunk])
async def test_metadata_have_a_bound_wherever_they_are_given(
    give: Callable[[Engine, Session, JSONObject], Awaitable[JSONObject | None]],
    log: MemoryLog,
    autojump_clock: MockClock,
) -> None:
    async with open_engine(log, producers={"wait": saying("x", pause=50)}) as engine:
        session = await engine.create_session()
        assert await give(engine, session, of_size(MOST)) == of_size(MOST)
        session = await engine.create_session()
        with pytest.raises(InvalidBody, match="metadata"):
            await give(engine, session, of_size(MOST + 1))
        assert "水" not in repr(await session.snapshot())


async def test_many_small_patches_come_to_no_more_than_the_bound(log: MemoryLog, autojump_clock: MockClock) -> None:
    async with open_engine(log) as engine:
        session = await engine.create_session()
        refused = 0
        for number in range(80):
            try:
                await session.update({f"key {number}": "x" * 1000})
            except InvalidBody:
                refused += 1
        assert refused
        kept = (await session.snapshot()).metadata
        assert len(encode_json(kept)) <= MOST
        # There is room again for what takes the place of something.
        await session.update({"key 0": None, "key 1": "y" * 1000})


async def test_what_is_too_large_from_of_old_is_read_and_may_shrink(
    log: MemoryLog, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    old: JSONObject = {f"key {number}": "x" * 1000 for number in range(200)}
    with monkeypatch.context() as patched:
        patched.setattr(merging, "LARGEST_METADATA", 10**9)
        async with open_engine(log, producers={"wait": saying("x")}) as engine:
            session = await engine.create_session("s", metadata=old)
            await session.post("hello", metadata=old)
            await session.start("wait", metadata=old)
            await trio.sleep(1)
    async with open_engine(log, producers={"wait": saying("x")}) as engine:
        session = await engine.session("s")
        snapshot = await session.snapshot()
        assert snapshot.metadata == old
        assert snapshot.messages[0].metadata == old
        fork = await (await session.fork()).snapshot()
        assert fork.metadata == old
        assert fork.messages[0].metadata == old
        with pytest.raises(InvalidBody):
            await session.update({"one more": 1})
        with pytest.raises(InvalidBody):
            await session.update({"key 0": "y" * 1000})  # as large as before
        assert (await session.update({"key 0": None})).metadata.keys() == old.keys() - {"key 0"}
        gone = {f"key {number}": None for number in range(150)}
        assert len((await session.update(gone)).metadata) == 50
        await session.update({"one more": 1})
