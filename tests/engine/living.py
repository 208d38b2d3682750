"""One live generation under a mock clock: started, looked at, and seen to its end."""

from __future__ import annotations

import copy

import trio
from trio.testing import wait_all_tasks_blocked

from penstock.engine import Event, GenerationFinished, JSONObject, MemoryLog, Producer, Session, Started, to_json
from tests.engine.rules import events_of

__all__ = ["begin", "copied", "data_of", "end_of", "finished", "of_generation"]


async def begin(
    session: Session,
    producer: str | Producer,
    *,
    on_last_disconnect: float | None = None,
    idle_limit: float | None = None,
) -> str:
    """Start it and let it run until it waits; its id."""
    started = await session.start(producer, on_last_disconnect=on_last_disconnect, idle_limit=idle_limit)
    assert isinstance(started, Started)
    await wait_all_tasks_blocked()
    return started.generation_id


async def end_of(session: Session, generation_id: str) -> str | None:
    """The generation's outcome, read without subscribing; None while it has none."""
    await wait_all_tasks_blocked()
    return (await session.generation(generation_id)).outcome


async def of_generation(log: MemoryLog, generation_id: str, session_id: str = "s") -> list[Event]:
    """What is committed of the generation, behind its start."""
    await wait_all_tasks_blocked()
    events = [event for event in await events_of(log, session_id) if event.generation_id == generation_id]
    return events[1:]


def data_of(events: list[Event], type_: str) -> list[JSONObject]:
    """The data of the events of this type, as JSON."""
    found: list[JSONObject] = []
    for event in events:
        if event.type == type_:
            data = to_json(event)["data"]
            assert isinstance(data, dict)
            found.append(data)
    return found


def finished(events: list[Event]) -> GenerationFinished:
    """The end, which is the last event."""
    data = events[-1].data
    assert isinstance(data, GenerationFinished)
    return data


async def copied(log: MemoryLog) -> MemoryLog:
    """What a process that dies now leaves behind."""
    await trio.lowlevel.checkpoint()
    left = MemoryLog()
    left._lives = copy.deepcopy(log._lives)
    return left
