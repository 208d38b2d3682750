"""What holds of all that applications can name: what is given is named, what is got is a value that does not change."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from uuid import UUID

import attrs
import pytest
import trio
from trio.testing import MockClock

from penstock import engine
from penstock.engine import (
    DATA_TYPES,
    Config,
    Engine,
    Generation,
    MemoryLog,
    Message,
    Session,
    Subscription,
    open_engine,
)
from tests.engine.faulty import FaultyLog, Hold
from tests.engine.living import copied
from tests.engine.producers import Steered, saying
from tests.engine.rules import events_of

PUBLIC = {name: getattr(engine, name) for name in engine.__all__}
CLASSES = [Engine, Session, Generation, Message, engine.Block, Subscription]


def calls() -> Iterator[tuple[str, inspect.Signature]]:
    for name, value in PUBLIC.items():
        if inspect.isfunction(value):
            yield name, inspect.signature(value)
    for owner in CLASSES:
        for name, value in vars(owner).items():
            if inspect.isfunction(value) and not name.startswith("_"):
                yield f"{owner.__name__}.{name}", inspect.signature(value)


# R-97 R-99: what could be mistaken for its neighbour has to be named.
def test_no_call_takes_more_than_three_arguments_by_their_order() -> None:
    seen = dict(calls())
    assert len(seen) > 60
    by_order = {
        name: [each for each in told.parameters.values() if each.kind == each.POSITIONAL_OR_KEYWORD]
        for name, told in seen.items()
    }
    assert {name: len(found) for name, found in by_order.items() if len(found) > (4 if "." in name else 3)} == {}
    optional = {
        name: [each.name for each in found if each.default is not each.empty] for name, found in by_order.items()
    }
    assert {name: found for name, found in optional.items() if len(found) > 2} == {}


#
def test_every_public_record_is_frozen() -> None:
    records = {name: value for name, value in PUBLIC.items() if isinstance(value, type) and attrs.has(value)}
    assert len(records) > 60
    for record in records.values():
        fields = attrs.fields(record)
        made = object.__new__(record)
        for field in fields:
            with pytest.raises(attrs.exceptions.FrozenInstanceError):
                setattr(made, field.name, None)
            with pytest.raises(attrs.exceptions.FrozenInstanceError):
                delattr(made, field.name)


#
async def test_what_was_taken_is_unaffected_by_what_comes(log: MemoryLog, autojump_clock: MockClock) -> None:
    given = {"title": "t", "tags": ["a"]}
    async with open_engine(log, producers={"say": saying("x", "y")}) as opened:
        session = await opened.create_session("s", metadata={"k": given})
        await session.start("say", text="hello")
        await trio.sleep(1)
        taken = await session.snapshot()
        before = engine.encode_json(taken.to_json())
        given["tags"] = []
        await session.update({"k": {"title": "other"}})
        await session.start("say", text="more")
        await trio.sleep(1)
        newer = await session.snapshot()  # what is kept of the session goes on to here
        assert len(newer.messages) > len(taken.messages)
        assert engine.encode_json(taken.to_json()) == before
        message = taken.messages[0]
        for part, name in ((taken, "messages"), (message, "status"), (message.blocks[0], "text"), (taken, "metadata")):
            with pytest.raises(AttributeError):
                setattr(part, name, None)
        assert newer.metadata == {"k": {"title": "other", "tags": ["a"]}}


# an id is there, of version 7, when the message opens; nothing of it is stored yet.
async def test_ids_are_made_at_the_opening_and_are_of_version_7(log: MemoryLog, autojump_clock: MockClock) -> None:
    faulty, hold, ids = FaultyLog(log), Hold(), list[str]()

    async def producer(generation: Generation) -> None:
        ids.append(generation.generation_id)
        faulty.schedule = lambda *_: None if hold.released else hold
        async with generation.message() as message:
            ids.append(message.message_id)
            assert message.message_id not in [event.message_id for event in await events_of(log, "s")]
            hold.release()

    async with open_engine(faulty) as opened:
        session = await opened.create_session("s")
        started = await session.start(producer)
        await trio.sleep(1)
        ids.append((await session.post("hello")).message_id)
        assert ids[0] == started.generation_id
        assert [UUID(each).version for each in ids] == [7] * 3
        assert set(ids[1:]) == {event.message_id for event in await events_of(log, "s") if event.message_id}


#
# its phase among them.
# all the types that a generation can bear, those of its end and of what people send into it among them, also where
# the next process ends it.
async def test_every_type_of_a_generation_bears_its_job(log: MemoryLog, autojump_clock: MockClock) -> None:
    async def producer(generation: Generation) -> None:
        await generation.status("thinking")
        await generation.app("app.note", {"x": 1})
        async with generation.message() as message:
            async with message.text() as block:
                await block.write("x")
            async with message.tool_call("call", "rm") as call:
                await call.write("{}")
        await generation.approve("rm", tool_call_id="call", expires_in=1)
        await generation.apply(await generation.receive_input())
        await trio.sleep_forever()

    async with open_engine(log, producers={"say": saying("x")}) as opened:
        session = await opened.create_session("s")
        started = await session.start(producer, job_id="job")
        await trio.sleep(5)
        for _ in range(2):
            await session.input(started.generation_id, "steer", {"text": "left"})
        queued = await session.start("say", policy="queue", job_id="job", text="later")
        await trio.sleep(5)
        await session.start("say", policy="rollback", job_id="job")
        await session.queue_next()
        await trio.sleep(5)
        assert (await session.generation(queued.generation_id)).state == "finished"
        live = await session.start(Steered(), job_id="job")
        dropped = await session.start("say", policy="queue", job_id="job")
        await session.dequeue(dropped.generation_id)
        left = await copied(log)
    async with open_engine(left):
        pass
    events = [event for event in await events_of(log, "s") if event.generation_id]
    of_the_next = [event for event in await events_of(left, "s") if event.generation_id]
    assert (of_the_next[-1].generation_id, of_the_next[-1].type) == (live.generation_id, "generation.finished")
    assert {event.job_id for event in events + of_the_next} == {"job"}
    elsewhere = {"session.", "queue.", "presence.", "message.snapshot"}
    of_a_generation = {name for name in DATA_TYPES if not any(map(name.startswith, elsewhere))}
    assert of_a_generation - {event.type for event in events} == set()


class Yielder:
    """An async generator as producer that says something more when it is closed or cancelled."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.closed = False

    async def __call__(self, generation: Generation):  # type: ignore[no-untyped-def]
        try:
            yield "begun"
            await trio.sleep_forever()
        except BaseException:
            if self.where == "except":
                yield "late"
            raise
        finally:
            self.closed = True
            if self.where == "finally":
                yield "late"


#
@pytest.mark.parametrize("where", ["except", "finally"])
@pytest.mark.parametrize("how", ["superseded", "stopped", "shutdown"])
async def test_a_generator_that_yields_while_it_is_ended_writes_nothing_more(
    where: str, how: str, log: MemoryLog, autojump_clock: MockClock
) -> None:
    producer = Yielder(where)
    async with open_engine(log, producers={"say": saying("x")}, config=Config(cleanup_timeout=1)) as opened:
        session = await opened.create_session("s")
        started = await session.start(producer)
        await trio.sleep(1)
        if how == "superseded":
            await session.start("say")
        elif how == "stopped":
            await session.stop()
        await trio.sleep(5)
    assert producer.closed
    events = [event for event in await events_of(log, "s") if event.generation_id == started.generation_id]
    assert [getattr(event.data, "text", None) for event in events if event.type == "block.delta"] == ["begun"]
    end = events[-1].data
    assert isinstance(end, engine.GenerationFinished)
    assert end.outcome == how
