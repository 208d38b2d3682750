"""Engines that hold leases, in any order of what is done in them and what befalls them.

One order of each session, no lie, and nothing stays open that a dead engine had. A longer run:
``PENSTOCK_EXAMPLES=10000 pytest tests/engine/test_membership_meetings.py``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from typing import Final, Literal, TypeAlias, final

import pytest
import trio
from attrs import frozen
from hypothesis import given
from hypothesis import strategies as st

from penstock.engine import (
    Config,
    Cursor,
    Generation,
    LocalBus,
    MemoryLog,
    PenstockError,
    Producer,
    Queued,
    SessionDeleted,
    SessionNotFound,
)
from penstock.engine.rules.records import OPEN
from penstock.engine.testing import KeptLog, Watcher, check_kept
from tests.engine.exploring import explore, exploring, quiet  # noqa: F401  a fixture
from tests.engine.leasing import TTL, Member, members

SESSIONS: Final = ("s", "t", "u")
NAMES: Final = ("a", "b", "c")
CONFIG: Final = Config(cleanup_timeout=2, drain_timeout=5, idle_session=3, flush_timeout=4, subscriber_buffer=8)

# Behind the last thing that befell anybody, nothing may be open any more that a dead engine had: seconds.
_SURE: Final = 1.5 * TTL + 2

# The same where the dead one had been forgotten, and then began something.
_FURTHER: Final = 5 * TTL + _SURE

# And behind a death, where nothing else had befallen anybody for so long that all were sure of each other.
_TAKEN: Final = TTL + 2


async def talking(generation: Generation) -> None:
    async with generation.message() as message, message.text() as block:
        for number in range(40):
            await block.write(f"{number} ")
            await trio.sleep(0.5)


PRODUCERS: Final[Mapping[str, Producer]] = {"talking": talking}

Deed: TypeAlias = Literal[
    "start", "queue", "post", "stop", "delete", "create", "fork", "stop it", "go on", "kill", "cut", "mend", "outage"
]

DEEDS: Final[list[Deed]] = [
    *("start", "start", "start", "start", "queue", "queue", "post", "post", "post", "stop"),
    *("delete", "create", "fork"),
    *("stop it", "stop it", "go on", "go on", "kill", "cut", "mend", "outage"),
]


@final
@frozen
class Step:
    """``deed`` is done through, or befalls, the engine ``node``; then nothing for ``pause`` seconds."""

    deed: Deed
    node: int
    session: str
    pause: float


steps = st.builds(
    Step,
    deed=st.sampled_from(DEEDS),
    node=st.integers(0, 2),
    session=st.sampled_from(SESSIONS),
    pause=st.sampled_from([0.0, 0.0, 0.1, 0.5, 1.0, 2.0, TTL / 2, TTL + 1, 2 * TTL]),
)


@final
class World:
    def __init__(self, log: KeptLog, bus: LocalBus, everybody: list[Member], nursery: trio.Nursery) -> None:
        self.log = log
        self.bus = bus
        self.everybody = everybody
        self.nursery = nursery
        self.done: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.watchers: list[Watcher] = []
        self.forks = 0
        self.befallen = trio.current_time()  # when anything last befell anybody
        self.taken_by = self.befallen + _SURE  # from then on nothing may be open that a dead engine had
        self.ending = False

    # --- what befalls engines

    def befall(self, step: Step) -> bool:
        member = self.everybody[step.node]
        had_a_name = member.name in self.bus._incarnations  # nobody has forgotten it while it could not beat
        match step.deed:
            case "stop it":
                member.stop()
            case "go on":
                member.go_on()
            case "kill" if not member.dead and sum(not each.dead for each in self.everybody) > 1:
                member.kill()
            case "cut":
                member.bus.cut = True
            case "mend" | "outage":
                for each in self.everybody:
                    each.bus.cut = each.dead or step.deed == "outage"
            case _:
                return step.deed == "kill"
        now = trio.current_time()
        calm = now - self.befallen >= _SURE and all(each.dead or each.well for each in self.everybody)
        self.taken_by = max(self.taken_by, now + (_TAKEN if step.deed == "kill" and calm else _SURE))
        if member.dead and not had_a_name:
            self.taken_by = max(self.taken_by, now + _FURTHER)
        self.befallen = now
        return True

    async def keep_an_eye(self) -> None:
        """On what is open: whether its owner is there."""
        while True:
            await trio.sleep(0.25)
            if not any(each.well for each in self.everybody) or trio.current_time() < self.taken_by:
                continue
            dead = {each.name for each in self.everybody if each.dead}
            for session_id, _ in await self.log.holders(OPEN):
                head = await self.log.head(session_id)
                if head is not None and head.owner in dead:
                    self.wrong.append(f"{session_id} is open at {trio.current_time()}, and {head.owner} is dead")

    # --- what is done

    async def carry_out(self, step: Step) -> None:
        if not self.befall(step):
            self.nursery.start_soon(self._ask, step)

    async def _ask(self, step: Step) -> None:
        try:
            await self._work(step)
        except PenstockError as error:
            self.done[f"{step.deed}: {type(error).__name__}"] += 1
        else:
            self.done[f"{step.deed}: done"] += 1

    async def _work(self, step: Step) -> None:
        engine, sid = self.everybody[step.node].engine, step.session
        if step.deed == "create":
            await engine.create_session(sid)
            return
        session = await engine.session(sid)
        match step.deed:
            case "start" | "queue":
                answer = await session.start("talking", policy="queue" if step.deed == "queue" else "supersede")
                if isinstance(answer, Queued) or not answer.joined:
                    self.acknowledged(sid, answer.cursor, answer.generation_id)
            case "post":
                posted = await session.post("posted")
                self.acknowledged(sid, posted.cursor, posted.message_id)
            case "stop":
                await session.stop()
            case "delete":
                await session.delete()
            case "fork":
                self.forks += 1
                fork = await session.fork(f"fork-{self.forks}")
                self.acknowledged(fork.session_id, await fork.cursor(), None)
            case _:
                raise AssertionError(step.deed)

    def acknowledged(self, session_id: str, cursor: Cursor, bears: str | None) -> None:
        """An answer says that this is stored: it is, there."""
        kept = self.log.kept(session_id, cursor.epoch)
        if len(kept) < cursor.offset or not any(bears is None or bears.encode() in entry.body for entry in kept):
            self.wrong.append(f"{session_id} at {cursor} was acknowledged, and is not stored")

    async def watch(self, member: Member, session_id: str) -> None:
        while not self.ending:
            try:
                watcher = Watcher(self.log, session_id, f"at {member.name}")
                session = await member.engine.session(session_id)
                self.watchers.append(watcher)
                await watcher.follow(session)
            except (SessionNotFound, SessionDeleted):
                await trio.sleep(0.5)
            except PenstockError:
                await trio.sleep(1)  # its store is away, or it closes


async def run(asked: list[Step]) -> Counter[str]:
    log, bus = KeptLog(MemoryLog()), LocalBus()
    async with (
        members(*NAMES, log=log, bus=bus, config=CONFIG, producers=PRODUCERS) as everybody,
        trio.open_nursery() as nursery,
    ):
        world = World(log, bus, everybody, nursery)
        for session_id in SESSIONS:
            await everybody[0].engine.create_session(session_id)
        async with trio.open_nursery() as watching:
            watching.start_soon(world.keep_an_eye)
            for session_id in SESSIONS:
                for member in everybody:
                    watching.start_soon(world.watch, member, session_id)
            await trio.sleep(_SURE)
            for step in asked:
                await world.carry_out(step)
                if step.pause:
                    await trio.sleep(step.pause)
            for member in everybody:
                member.go_on()
            world.befall(Step("mend", 0, "s", 0))
            await trio.sleep(max(_SURE, world.taken_by - trio.current_time()) + 1)
            world.ending = True
            alive = [member for member in everybody if not member.dead]
            for member in alive:
                assert [node.name for node in member.engine.nodes()] == [each.name for each in alive]
                for session_id in SESSIONS:
                    with suppress(SessionNotFound, SessionDeleted):  # whoever comes now gets all there is
                        cursor = await (await member.engine.session(session_id)).cursor()
                        assert cursor.offset == log.tail(session_id, cursor.epoch)
            watching.cancel_scope.cancel()
        nursery.cancel_scope.cancel()
        found = [*world.wrong, *map(str, check_kept(log, world.watchers))]
        assert found == []
        return world.done
    raise AssertionError


@pytest.mark.usefixtures("quiet")
@exploring(200)
@given(asked=st.lists(steps, min_size=5, max_size=30))
def test_whatever_befalls_engines_nothing_stays_open_that_a_dead_one_had(asked: list[Step]) -> None:
    explore(lambda: run(asked))
