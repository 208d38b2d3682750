"""Engines that share a log, in any order of what is done, stopped and lost: one order of each session, and no lie.

A longer run: ``PENSTOCK_EXAMPLES=10000 pytest tests/engine/test_owners_meetings.py``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from random import Random
from typing import Final, Literal, TypeAlias, final

import pytest
import trio
from attrs import frozen
from hypothesis import given
from hypothesis import strategies as st

from penstock.engine import (
    Config,
    Cursor,
    Engine,
    Generation,
    MemoryLog,
    Opened,
    PenstockError,
    Producer,
    Queued,
    SessionDeleted,
    SessionNotFound,
    open_engine,
)
from penstock.engine.testing import KeptLog, Watcher, check_acknowledged, check_kept
from tests.engine.exploring import explore, exploring, quiet  # noqa: F401  a fixture
from tests.engine.sharing import Between, LossyBus, Node, PausedLog, Writers, check_writers

POSTED: Final = re.compile(rb"posted \d+\.")
SESSIONS: Final = ("s", "t")
NAMES: Final = ("a", "b", "c")
CONFIG: Final = Config(cleanup_timeout=2, drain_timeout=20, idle_session=3, flush_timeout=4, subscriber_buffer=8)


async def talking(generation: Generation) -> None:
    """Says something for a second, and goes on behind its cancellation for a moment."""
    async with generation.message() as message, message.text() as block:
        for number in range(10):
            await block.write(f"{number} ")
            await trio.sleep(0.1)


async def stubborn(generation: Generation) -> None:
    async with generation.message() as message, message.text() as block:
        await block.write("stubborn")
        with trio.CancelScope(shield=True):
            await trio.sleep(3)
        await block.write("late")


PRODUCERS: Final[Mapping[str, Producer]] = {"talking": talking, "stubborn": stubborn}

Deed: TypeAlias = Literal[
    "start",
    "queue",
    "reject",
    "post",
    "stop",
    "reset",
    "delete",
    "create",
    "fork",
    "read",
    "pause",
    "go on",
    "take over",
]


# The more often the more there are of it.
DEEDS: Final[list[Deed]] = [
    *("start", "start", "start", "start", "queue", "reject", "stop", "reset"),
    *("post", "post", "post", "post", "post", "read", "read", "read"),
    *("delete", "create", "create", "fork"),
    *("pause", "pause", "go on", "go on", "take over", "take over"),
]


@final
@frozen
class Step:
    """``deed`` is done through the engine ``node`` in a session; ``other`` is the engine or producer that is meant."""

    deed: Deed
    node: int
    session: str
    other: int
    pause: float  # seconds until the next; none: both at once


steps = st.builds(
    Step,
    deed=st.sampled_from(DEEDS),
    node=st.integers(0, 2),
    session=st.sampled_from(["s", "s", "s", "t"]),
    other=st.integers(0, 2),
    pause=st.sampled_from([0.0, 0.0, 0.0, 0.05, 0.3, 1.0, 4.0]),
)


@final
class World:
    def __init__(self, log: KeptLog, nodes: list[Node], nursery: trio.Nursery) -> None:
        self.log = log
        self.nodes = nodes
        self.nursery = nursery
        self.done: Counter[str] = Counter()
        self.told: dict[tuple[str, str], int] = {}  # the highest offset that an answer has told, by life
        self.wrong: list[str] = []
        self.watchers: list[Watcher] = []
        self.following: set[Watcher] = set()  # those that are connected
        self.ending = False
        self.forks = 0
        self.posts = 0

    # --- what is told

    def acknowledged(self, session_id: str, cursor: Cursor, bears: str | None) -> None:
        """An answer says that this is stored: it is, there, once."""
        kept = self.log.kept(session_id, cursor.epoch)
        bodies = [entry.body for entry in kept if bears is not None and bears.encode() in entry.body]
        if len(kept) < cursor.offset or (bears is not None and not bodies):
            self.wrong.append(f"{session_id} at {cursor} was acknowledged, and is not stored")
        life = (session_id, cursor.epoch)
        self.told[life] = max(self.told.get(life, 0), cursor.offset)

    def _lives(self, session_id: str) -> list[str]:
        return [epoch for each, epoch in self.log.lives() if each == session_id]

    def known(self, session_id: str) -> Cursor | None:
        """The furthest that an answer of this session has told."""
        told = [epoch for epoch in self._lives(session_id) if (session_id, epoch) in self.told]
        return Cursor(told[-1], self.told[session_id, told[-1]]) if told else None

    def check_read(self, session_id: str, before: Cursor | None, found: Cursor) -> None:
        """What was read is no older than what had been told before it was asked for."""
        if before is None:
            return
        lives = self._lives(session_id)
        if (lives.index(found.epoch), found.offset) < (lives.index(before.epoch), before.offset):
            self.wrong.append(f"{session_id} was read at {found}, and {before} had been told before")

    # --- what is done

    async def carry_out(self, step: Step) -> None:
        node = self.nodes[step.node]
        match step.deed:
            case "pause":
                node.log.pause()
            case "go on":
                node.log.go_on()
            case "take over":
                self.nursery.start_soon(self._ask, step, node.engine.take_over, NAMES[step.other])
            case _:
                self.nursery.start_soon(self._ask, step, self._work, step, node.engine)

    async def _ask(self, step: Step, work: Callable[..., Awaitable[object]], *arguments: object) -> None:
        try:
            await work(*arguments)
        except PenstockError as error:
            self.done[f"{step.deed}: {type(error).__name__}"] += 1
        else:
            self.done[f"{step.deed}: done"] += 1

    async def _work(self, step: Step, engine: Engine) -> None:
        sid = step.session
        if step.deed == "create":
            await engine.create_session(sid)
            return
        session = await engine.session(sid)
        producer = ("talking", "talking", "stubborn")[step.other]
        match step.deed:
            case "start":
                started = await session.start(producer)
                self.acknowledged(sid, started.cursor, started.generation_id)
            case "queue":
                answer = await session.start(producer, policy="queue")
                if isinstance(answer, Queued) or not answer.joined:
                    self.acknowledged(sid, answer.cursor, answer.generation_id)
            case "reject":
                started = await session.start(producer, policy="reject")
                self.acknowledged(sid, started.cursor, started.generation_id)
            case "post":
                self.posts += 1
                posted = await session.post(f"posted {self.posts}.")
                self.acknowledged(sid, posted.cursor, posted.message_id)
            case "stop":
                await session.stop()
            case "reset":
                self.acknowledged(sid, await session.reset(), None)
            case "delete":
                await session.delete()
            case "fork":
                self.forks += 1
                fork = await session.fork(f"fork-{self.forks}")
                self.acknowledged(fork.session_id, await fork.cursor(), None)
            case "read":
                before = self.known(sid)
                self.check_read(sid, before, (await session.snapshot()).cursor)
                before = self.known(sid)
                self.check_read(sid, before, await session.cursor())

    # --- who reads all the while

    async def watch(self, node: Node, session_id: str) -> None:
        """Follow each life of the session here, from its start."""
        while not self.ending:
            try:
                session = await node.engine.session(session_id)
                watcher = Watcher(self.log, session_id, f"at {node.name}")
                self.watchers.append(watcher)
                self.following.add(watcher)
                await watcher.follow(session)
                self.following.discard(watcher)
            except (SessionNotFound, SessionDeleted):
                await trio.sleep(0.5)
            except PenstockError:
                return  # the engine closes

    async def move(self, session_id: str) -> None:
        """One reader that goes from engine to engine with its cursor, for as long as the session's life lasts."""
        position: Cursor | None = None
        watcher = Watcher(self.log, session_id, "moving")
        turn = 0
        while not self.ending:
            turn += 1
            node = self.nodes[turn % len(self.nodes)]
            with trio.move_on_after(0.7), suppress(PenstockError):
                session = await node.engine.session(session_id)
                async with session.subscribe(position) as subscription:
                    while True:
                        try:
                            delivery = await subscription.receive()
                        except trio.EndOfChannel:
                            break
                        if isinstance(delivery, Opened) and watcher.epoch not in (None, delivery.cursor.epoch):
                            self.watchers.append(watcher)
                            watcher = Watcher(self.log, session_id, "moving")
                        watcher.take(delivery)
                        position = subscription.cursor
            await trio.sleep(0.1)
        self.watchers.append(watcher)


async def run(asked: list[Step], lost: float, seed: int, *, asking: bool = False) -> Counter[str]:
    """``asking``: the engines ask each other, and as much is lost of that as of what the bus tells."""
    log, bus, chance = KeptLog(MemoryLog()), LossyBus(), Random(seed)
    bus.loses = lambda: chance.random() < lost
    fates = ("refused", "lost", "unheard")
    peers = Between(lambda: chance.choice(fates) if chance.random() < lost / 2 else "", 3) if asking else None
    writers: Writers = {}
    own = [PausedLog(log, name, writers) for name in NAMES]

    async def opened(names: tuple[str, ...], nodes: list[Node]) -> Counter[str]:
        if names:
            way = own[len(nodes)]
            async with open_engine(
                way, owner=names[0], bus=bus, config=CONFIG, producers=PRODUCERS, peers=peers
            ) as engine:
                if peers is not None:
                    peers.engines[names[0]] = engine
                return await opened(names[1:], [*nodes, Node(names[0], way, engine)])
        async with trio.open_nursery() as nursery:
            world = World(log, nodes, nursery)
            for session_id in SESSIONS:
                await nodes[0].engine.create_session(session_id)
            async with trio.open_nursery() as readers:
                for session_id in SESSIONS:
                    readers.start_soon(world.move, session_id)
                    for node in nodes:
                        readers.start_soon(world.watch, node, session_id)
                await trio.sleep(0.01)
                for step in asked:
                    await world.carry_out(step)
                    if step.pause:
                        await trio.sleep(step.pause)
                for node in nodes:
                    node.log.go_on()
                await trio.sleep(20)  # all that talks is done, and what was lost is found
                check_followed(world)
                world.ending = True
                for node in nodes:
                    await check_whole(world, node)
                readers.cancel_scope.cancel()
            nursery.cancel_scope.cancel()
        found = [*world.wrong, *map(str, check_kept(log, world.watchers)), *posted_again(log)]
        assert found == []
        return world.done

    done = await opened(NAMES, [])
    assert [*check_writers(writers), *map(str, check_kept(log, closed=True, remote_stays=True))] == []
    assert await log.check_claims() == []
    assert await check_acknowledged(log.acknowledged, log, compacted=True) == []
    return done


def posted_again(log: KeptLog) -> list[str]:
    """What was posted once and is stored more often in one life."""
    found: list[str] = []
    for session_id, epoch in log.lives():
        texts = Counter(POSTED.findall(b"".join(entry.body for entry in log.kept(session_id, epoch))))
        found += [f"{text!r} is stored {count} times in {session_id}" for text, count in texts.items() if count > 1]
    return found


def check_followed(world: World) -> None:
    """Whoever has been reading all the while has all there is."""
    for watcher in world.following:
        if watcher.epoch is not None:
            tail = world.log.tail(watcher.session_id, watcher.epoch)
            assert [received.offset for received in watcher.received] == list(range(1, tail + 1)), watcher.name


async def check_whole(world: World, node: Node) -> None:
    """Whoever comes now gets all there is, wherever it comes to."""
    for session_id in SESSIONS:
        head = await world.log.head(session_id)
        assert head is not None
        if head.deleted:
            continue
        session = await node.engine.session(session_id)
        assert (await session.cursor()) == Cursor(head.epoch, head.tail), node.name
        for view in node.engine._registry.views or ():
            if view.session_id == session_id:
                assert view.history.cursor == Cursor(head.epoch, head.tail), node.name


@pytest.mark.usefixtures("quiet")
@exploring(100)
@given(asked=st.lists(steps, min_size=5, max_size=40), lost=st.sampled_from([0.0, 0.3, 1.0]), seed=st.integers(0, 99))
def test_any_meeting_of_engines_keeps_the_rules(asked: list[Step], lost: float, seed: int) -> None:
    explore(lambda: run(asked, lost, seed))


@pytest.mark.usefixtures("quiet")
@exploring(100)
@given(asked=st.lists(steps, min_size=5, max_size=40), lost=st.sampled_from([0.0, 0.3, 1.0]), seed=st.integers(0, 99))
def test_any_meeting_of_engines_that_ask_each_other_keeps_the_rules(asked: list[Step], lost: float, seed: int) -> None:
    explore(lambda: run(asked, lost, seed, asking=True))
