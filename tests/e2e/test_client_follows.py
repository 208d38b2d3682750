"""The Python client behind a bad network: all events once, in order, and the state that the server has."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Literal

import pytest
import trio
from attrs import evolve, frozen

from penstock.adapters.client import Arrived, Client, ClientConfig, RemoteSession, connect
from penstock.engine import (
    CaughtUp,
    Config,
    Event,
    Generation,
    GenerationFinished,
    JSONObject,
    ListChange,
    Queued,
    SessionState,
    Started,
    new_message_id,
)
from tests.adapters.serving import penstock
from tests.e2e.black_hole import BlackHole
from tests.e2e.stream_proxy import StreamProxy

EVENTS = 10_000
TURNS = 8

# A hundredth of the real times, so that a stall is seen before the test is over.
HASTY = ClientConfig(heartbeat=0.1, first_pause=0.02, longest_pause=0.2)

# A page of the log is one frame on a WebSocket: small ones, so that most of them fit between two cuts.
SMALL_PAGES = Config(page_events=64, subscriber_buffer=64)


async def talker(generation: Generation) -> None:
    """A turn's part of the events, at the pace of a fast model; with characters of many bytes."""
    async with generation.message() as message:
        for kind in (message.reasoning, message.text):
            async with kind() as block:
                for number in range(EVENTS // TURNS // 2):
                    await block.write(f"wörd{number} 水💧 ")
                    if number % 40 == 0:
                        await trio.sleep(0.005)


async def talk(session: RemoteSession, after: float = 0.1) -> None:
    """Turns, with all that makes a transcript change shape between them."""
    await trio.sleep(after)
    for turn in range(TURNS):
        started = await session.start("talker", text=f"turn {turn}", policy="queue" if turn % 2 else "supersede")
        async with session.events(started.cursor) as events:
            async for event in events:
                if isinstance(event.data, GenerationFinished):
                    assert event.data.outcome == "completed"
                    break
        posted = await session.post(f"aside {turn}")
        if turn % 3 == 0:
            await session.retract(posted.message_id)
        await session.update({"turn": turn})


#
@pytest.mark.parametrize("over", [pytest.param("sse", marks=pytest.mark.long), "websocket"])
async def test_a_line_that_dies_without_a_word_is_replaced(over: Literal["sse", "websocket"]) -> None:
    """Also while nothing is said in the session; a quiet one that lives is kept."""
    # So that a line is dead after a second; the connection that commands go over is, too.
    config = ClientConfig(heartbeat=0.4, first_pause=0.02, attempt_timeout=1.0)
    with trio.fail_after(20):
        async with (
            penstock(heartbeat=0.4) as server,
            BlackHole(server.served.port).running() as hole,
            connect(hole.url, config=config) as client,
        ):
            session = await client.create_session("s")
            async with session.events(over=over) as events:
                while not isinstance(await events.receive(), CaughtUp):
                    pass
                await trio.sleep(3)
                assert events.statistics().attempts == 1
                hole.freeze()
                begun = trio.current_time()
                while not isinstance(await events.receive(), CaughtUp):
                    pass
                assert 0.5 < trio.current_time() - begun < 3
                posted = await session.post("and on")
                assert (await anext(events)).message_id == posted.message_id
                assert events.statistics().attempts == 2


#
async def test_a_list_whose_line_died_has_what_came_meanwhile() -> None:
    config = ClientConfig(heartbeat=0.4, first_pause=0.02, attempt_timeout=1.0)
    with trio.fail_after(20):
        async with (
            penstock(heartbeat=0.4) as server,
            BlackHole(server.served.port).running() as hole,
            connect(server.url) as near,
            connect(hole.url, config=config) as client,
            client.watch() as changes,
        ):
            while not isinstance(await changes.receive(), CaughtUp):
                pass
            hole.freeze()
            begun = trio.current_time()
            await near.create_session("meanwhile")
            change = await anext(changes)
            assert isinstance(change, ListChange)
            assert change.session_id == "meanwhile"
            assert 0.5 < trio.current_time() - begun < 3


@frozen
class Prepared:
    """A session as the client has it: something was said there, answered, and answered anew."""

    session: RemoteSession
    question: str
    first: str
    second: str
    live: str = ""  # a generation that asks
    yes: JSONObject | None = None  # what answers it


async def asking(generation: Generation) -> None:
    """Ask whether it may, and wait for ever."""
    await generation.approve("open_gate")
    await trio.sleep_forever()


async def short(generation: Generation) -> AsyncIterator[str]:
    yield "one"


async def prepare(near: Client, far: Client, session_id: str) -> Prepared:
    """Make it by way of ``near``; it is called by way of ``far``."""
    session = await near.create_session(session_id)
    async with session.transcript() as transcript:

        async def answered(start: Started | Queued) -> str:
            state = await transcript.wait_for(lambda state: start.generation_id in ended(state))
            return state.snapshot().messages[-1].message_id

        first = await answered(await session.start("short", text="hello"))
        second = await answered(await session.start("short", replaces=first))
        question = transcript.snapshot().messages[0].message_id
        prepared = Prepared(far.session(session_id), question=question, first=first, second=second)
        if session_id not in INTO_LIVE:
            return prepared
        live = (await session.start("asking")).generation_id
        state = await transcript.wait_for(lambda state: bool(state.snapshot().approvals))
        approval_id = state.snapshot().approvals[0].approval_id
        return evolve(prepared, live=live, yes={"approval_id": approval_id, "approved": True})


def ended(state: SessionState) -> set[str]:
    return {each.generation_id for each in state.snapshot().generations if each.outcome is not None}


# What is called, and the type of event that it adds to the log once. A file adds none, and a patch may be made again.
COMMANDS: dict[str, tuple[str, Callable[[Prepared], Awaitable[object]]]] = {
    "start": ("generation.started", lambda s: s.session.start("short", text="two")),
    "stop": ("generation.cancelling", lambda s: s.session.stop(s.live)),
    "approve": ("approval.resolved", lambda s: s.session.input(s.live, "approval", s.yes or {})),
    "input": ("input.accepted", lambda s: s.session.input(s.live, "steer", {"text": "faster"})),
    "edit": ("generation.started", lambda s: s.session.start("short", text="another", replaces=s.question)),
    "regenerate": ("generation.started", lambda s: s.session.start("short", replaces=s.second)),
    "restore": ("message.snapshot", lambda s: s.session.restore(s.first)),
    "post": ("message.snapshot", lambda s: s.session.post("said")),
    "update": ("", lambda s: s.session.update({"title": "called"})),
    "keep": ("", lambda s: s.session.keep_file(b"word " * 10_000, media_type="text/plain")),
}


INTO_LIVE = ("stop", "approve", "input")


async def types(session: RemoteSession) -> Counter[str]:
    """The events that there are, by their types."""
    found = Counter[str]()
    async with session.events() as events:
        while not isinstance(delivery := await events.receive(), CaughtUp):
            if isinstance(delivery, Arrived):
                found.update(event.type for event in delivery.events)
    return found


#
async def test_what_is_carried_out_and_not_answered_is_asked_for_again() -> None:
    """Each command is carried out once, and its caller soon has its answer."""
    config = ClientConfig(first_pause=0.02, attempt_timeout=1.0)
    with trio.fail_after(20):
        async with (
            penstock(producers={"short": short, "asking": asking}) as server,
            BlackHole(server.served.port).running() as hole,
            connect(server.url) as near,
            connect(hole.url, config=config) as far,
        ):
            prepared = {name: await prepare(near, far, name) for name in COMMANDS}
            before = {name: await types(near.session(each.session.session_id)) for name, each in prepared.items()}
            hole.deafen()
            begun = trio.current_time()
            async with trio.open_nursery() as nursery:
                for name, (_, command) in COMMANDS.items():
                    nursery.start_soon(command, prepared[name])
                await trio.sleep(0.7)
                assert len(nursery.child_tasks) == len(COMMANDS)
                hole.heal()
            assert trio.current_time() - begun < 5
            for name, (kind, _) in COMMANDS.items():
                after = await types(near.session(prepared[name].session.session_id))
                assert after[kind] - before[name][kind] == bool(kind), name


# R-54 R-56 R-67 R-70 R-123 R-124
@pytest.mark.long
@pytest.mark.parametrize("over", ["sse", "websocket"])
@pytest.mark.parametrize("seed", [1, 2])
async def test_ten_thousand_events_through_a_bad_network(
    over: Literal["sse", "websocket"], seed: int, record_property: Callable[[str, object], None]
) -> None:
    followed: list[Event] = []
    read_all, last_word = trio.Event(), new_message_id()
    with trio.fail_after(100):
        async with (
            penstock(producers={"talker": talker}, heartbeat=0.1, config=SMALL_PAGES) as server,
            trio.open_nursery() as nursery,
            StreamProxy(random.Random(seed), server.served.port).running() as proxy,
            connect(server.url) as direct,
            connect(proxy.url, config=HASTY) as client,
        ):
            session = await direct.create_session("s")
            over_there = client.session("s")
            async with over_there.transcript(over=over) as transcript, over_there.events(over=over) as events:

                async def read() -> None:
                    async for event in events:
                        followed.append(event)  # the list is looked at while it grows
                        if event.message_id == last_word:
                            read_all.set()
                            return

                nursery.start_soon(read)
                await talk(session)
                tail = (await session.post("the last word", message_id=last_word)).cursor
                await transcript.wait_for(lambda state: state.cursor == tail)
                await read_all.wait()
                truth = (await session.snapshot()).to_json()
                assert transcript.snapshot().to_json() == truth
                read_through, folded_through = events.statistics(), transcript.statistics()
                nursery.cancel_scope.cancel()
    assert tail.offset >= EVENTS
    # None twice, none missed.
    assert [event.offset for event in followed] == list(range(1, tail.offset + 1))
    state = SessionState("s", tail.epoch)
    for event in followed:
        state.apply(event)
    assert state.snapshot().to_json() == truth
    # No loop: each attempt stands for a connection that the proxy took, and all but the last for one that it broke.
    attempts = read_through.attempts + folded_through.attempts
    assert attempts == proxy.connections
    assert 25 <= attempts <= 400
    record_property("attempts", attempts)
    record_property("fates", dict(proxy.counts))
