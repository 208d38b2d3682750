"""One conversation's life: talked in, followed, brought to rest, and held against the log."""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any, Final, Protocol, TypeVar, final

import trio
from attrs import define, field

from penstock.adapters.client import Client, RemoteSession
from penstock.engine import (
    Cursor,
    EventLog,
    PenstockError,
    SessionDeleted,
    SessionNotFound,
    StorageError,
)
from penstock.engine.testing import check_session

from .ledger import Ledger, Reader
from .readers import follow_by_client, follow_by_hand, follow_by_script
from .script import Script
from .talk import TURNS, Talk, Turn

__all__ = ["Conversation", "World", "patiently"]

T = TypeVar("T")

# How long readers have to come to the end of a conversation that is at rest, and that to come to rest: faults go on
# meanwhile, and a client waits for some seconds before it connects again.
_PATIENCE: Final = 90.0

# How many conversations are deleted when they are over, and how many while they are talked in.
_DELETED: Final = 0.3
_CUT_SHORT: Final = 0.15


class World(Protocol):
    """What all conversations share. ``log`` is a way of our own to the store, on which nothing goes wrong but it."""

    client: Client
    script: Script
    log: EventLog
    counts: Counter[str]
    faults: list[str]
    slowest: float  # seconds until the last reader was at the end of a conversation that was at rest

    def url(self, chance: random.Random) -> str:
        """Of any node that is up."""


async def patiently(call: Callable[[], Awaitable[T]]) -> T:
    """Ask the store until it answers."""
    while True:
        try:
            return await call()
        except StorageError:
            await trio.sleep(0.2)


@final
@define
class Conversation:
    session_id: str
    seconds: float
    chance: random.Random
    world: World
    ledger: Ledger = field(init=False)
    readers: list[Reader] = field(factory=list)
    tail: Cursor | None = None  # at rest; None where it was deleted
    over: bool = False
    talking: Counter[str] = field(factory=Counter)  # who is at it, by the name of the turn

    def __attrs_post_init__(self) -> None:
        self.ledger = Ledger(self.session_id)

    async def run(self) -> None:
        """All of it. What is not so stands in the world's faults."""
        chance, world = self.chance, self.world
        deleted = chance.random()
        await world.client.create_session(self.session_id)
        talk = Talk(
            world.client.session(self.session_id),
            world.script,
            self.ledger,
            chance,
            world.counts,
            partial(world.url, chance),
        )
        async with trio.open_nursery() as following:
            self._follow(following)
            async with trio.open_nursery() as talking:
                for turn in TURNS:
                    talking.start_soon(self._take_turns, turn, talk)
                await trio.sleep(self.seconds)
                self.over = True
                if deleted < _CUT_SHORT:
                    talking.cancel_scope.cancel(reason="the session is deleted")
                await self._until_silent(talk.session)
                talking.cancel_scope.cancel(reason="they had their time")
            if deleted >= _CUT_SHORT:
                await self._rest()
            if deleted < _CUT_SHORT + _DELETED:
                self.tail = None
                await self._delete()
            following.cancel_scope.cancel(reason="the conversation is over")
        world.faults += self.ledger.faults
        world.counts["events"] += len(self.ledger.seen)
        world.counts["acknowledged"] += sum(map(len, self.ledger.ids.values()))
        world.counts["conversations"] += 1

    async def _take_turns(self, turn: Turn, talk: Talk) -> None:
        self.talking[turn.__name__] += 1
        while not self.over:
            await turn(talk)
        self.talking[turn.__name__] -= 1

    async def _until_silent(self, session: RemoteSession) -> None:
        """Wait for the last turns. Who waits in a queue that somebody has paused is let go."""
        begun = time.monotonic()
        while left := +self.talking:
            if time.monotonic() > begun + _PATIENCE:
                self.ledger.fault(f"{', '.join(left)} still waits {_PATIENCE:g} s behind the end")
                return
            with suppress(PenstockError):  # it is tried again
                await session.stop(queue="clear")
            await trio.sleep(0.5)

    def _follow(self, nursery: trio.Nursery) -> None:
        client, chance = self.world.client, self.chance
        ways: dict[str, Callable[[Reader], Awaitable[None]]] = {
            "python sse": partial(follow_by_client, client=client, over="sse"),
            "python websocket": partial(follow_by_client, client=client, over="websocket"),
            "ndjson": partial(follow_by_hand, url=partial(self.world.url, chance), chance=chance),
            "javascript": partial(follow_by_script, script=self.world.script),
        }
        for name, follow in ways.items():
            reader = Reader(name, self.ledger)
            self.readers.append(reader)
            nursery.start_soon(follow, reader)

    async def _rest(self) -> None:
        """Nothing is live and nothing waits; then everyone has read all of it, and it keeps the rules."""
        self.tail = await self._quiet()
        await self._until(lambda reader: self.tail is not None and reader.offset >= self.tail.offset, "at its end")
        await self._meet()
        head = await patiently(lambda: self.world.log.head(self.session_id))
        if head is None or head.deleted:
            self.ledger.fault(f"it is at {self.tail}, and is not in the store: {head}")
            return
        read = partial(self.world.log.read, self.session_id, head.epoch, limit=1000, max_bytes=1 << 22)
        events: list[dict[str, Any]] = []
        while entries := await patiently(partial(read, after=len(events))):
            events += [json.loads(entry.body) for entry in entries]
        self.ledger.judge(head.epoch, events)
        stored = await patiently(lambda: check_session(self.world.log, head))
        for violation in stored.violations:
            self.ledger.fault(str(violation))

    async def _quiet(self) -> Cursor | None:
        session = self.world.client.session(self.session_id)
        begun = time.monotonic()
        while time.monotonic() < begun + _PATIENCE:
            try:
                await session.stop(queue="clear")
                state = await session.snapshot(limit=1)
                if state.generation is None and not state.queue.items:
                    return state.cursor
            except PenstockError as error:
                self.world.counts[f"bringing to rest: {error.code}"] += 1
            await trio.sleep(0.2)
        self.ledger.fault(f"it does not come to rest within {_PATIENCE:g} s")
        return None

    async def _until(self, reached: Callable[[Reader], bool], what: str) -> None:
        begun = time.monotonic()
        while not all(map(reached, self.readers)):
            if time.monotonic() > begun + _PATIENCE:
                late = [f"{each.name} at {each.offset} {each.ended}" for each in self.readers if not reached(each)]
                self.ledger.fault(f"{', '.join(late)}: not {what} ({self.tail}) after {_PATIENCE:g} s")
                return
            await trio.sleep(0.05)
        self.world.slowest = max(self.world.slowest, time.monotonic() - begun)

    async def _meet(self) -> None:
        """Who is here is seen from everywhere."""
        session = self.world.client.session(self.session_id)
        begun = time.monotonic()
        while time.monotonic() < begun + _PATIENCE:
            try:
                await session.put_presence("bob", "desk")
                if any(each.actor_id == "bob" for each in await session.presence()):
                    self.world.counts["met"] += 1
                    return
            except PenstockError as error:
                self.world.counts[f"meeting: {error.code}"] += 1
            await trio.sleep(0.3)
        self.ledger.fault(f"who is here is not seen within {_PATIENCE:g} s")

    async def _delete(self) -> None:
        """It is gone for everybody, whoever is asked."""
        session = self.world.client.session(self.session_id)
        gone = False
        while not gone:
            try:
                await session.delete()
                gone = True
            except (SessionDeleted, SessionNotFound):
                gone = True
            except PenstockError as error:
                self.world.counts[f"delete: {error.code}"] += 1
                if not error.retryable:
                    self.ledger.fault(f"delete was refused: {error.code} {error}")
                    return
                await trio.sleep(0.2)
        self.world.counts["delete"] += 1
        await self._until(lambda reader: reader.ended != "", "told of its deletion")
