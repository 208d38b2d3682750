"""A remote producer's request meets another's at every turn of the loop, over a log that is slow or fails.

Whatever comes of it: a request is answered with success if and only if it stands in the log, once, with its number, and
asked again it gets an answer that agrees with that.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final, final

import pytest
import trio
from attrs import frozen
from trio.testing import MockClock

from penstock.engine import (
    BlockDelta,
    ChunksAccepted,
    Config,
    Engine,
    Finished,
    GenerationFinished,
    PenstockError,
    ProducerStamp,
    Session,
    SessionDeleted,
    StaleEpoch,
    new_generation_id,
    new_message_id,
    open_engine,
)
from penstock.engine.codec import decode, decode_json
from penstock.engine.testing import KeptLog, check_kept
from tests.engine.exploring import quiet  # noqa: F401  a fixture
from tests.engine.faulty import Fail, FaultyLog
from tests.engine.producers import saying
from tests.engine.remotes import body
from tests.engine.slow import SlowLog, turns
from tests.extent import some

GID: Final = new_generation_id()
RIVAL: Final = new_generation_id()
ONE: Final = new_message_id()
TWO: Final = new_message_id()
CONFIG: Final = Config(retry_min=0.01, retry_max=0.02, idle_limit=5.0, idle_session=1.0)
SAID: Final = "<said>"
# How many turns of the loop behind the rival the request comes: far before it, to far behind it.
FIRST: Final = -8
BEHIND: Final = range(FIRST, 20)
OVER: Final = ("STALE_GENERATION", "GENERATION_MISMATCH", "GENERATION_NOT_FOUND", "FINISH_FAILED", "ID_IN_USE")


@final
@frozen
class Deed:
    """What the remote producer asks for, as its request ``number``, behind requests that open its generation."""

    name: str
    number: int
    ask: Callable[[Session, ProducerStamp], Awaitable[ChunksAccepted | Finished]]
    starts: bool = False  # the generation was started by `Session.start`
    adopted: bool = False  # those requests were a former process's

    def __str__(self) -> str:
        return self.name


@final
@frozen
class Rival:
    name: str
    ask: Callable[[Engine, Session], Awaitable[object]]

    def __str__(self) -> str:
        return self.name


DEEDS: Final = [
    Deed("first", 0, lambda session, stamp: session.chunks([body(GID, SAID, message_id=TWO)], stamp=stamp)),
    Deed(
        "started", 0, lambda session, stamp: session.chunks([body(GID, SAID, message_id=TWO)], stamp=stamp), starts=True
    ),
    Deed("next", 1, lambda session, stamp: session.chunks([body(GID, SAID, message_id=ONE)], stamp=stamp)),
    Deed("opens", 1, lambda session, stamp: session.chunks([body(GID, SAID, message_id=TWO)], stamp=stamp)),
    Deed("finish", 1, lambda session, stamp: session.finish(GID, stamp=stamp)),
    Deed("adopted next", 1, lambda session, stamp: session.chunks([body(GID, SAID)], stamp=stamp), adopted=True),
    Deed("adopted finish", 1, lambda session, stamp: session.finish(GID, stamp=stamp), adopted=True),
]
RIVALS: Final = [
    Rival("stop", lambda _, session: session.stop()),
    Rival("stop of it", lambda _, session: session.stop(GID)),
    Rival("supersede", lambda _, session: session.start("say")),
    Rival("rollback", lambda _, session: session.start("say", policy="rollback")),
    Rival("queue", lambda _, session: session.start("say", policy="queue")),
    Rival("reset", lambda _, session: session.reset()),
    Rival("delete", lambda _, session: session.delete()),
    Rival("post", lambda _, session: session.post("posted", message_id=TWO)),
    Rival("fork", lambda _, session: session.fork()),
    Rival("another's chunk", lambda _, session: session.chunks([body(RIVAL, "other", message_id=TWO)])),
    Rival("finish without a number", lambda _, session: session.finish(GID, outcome="failed")),
    Rival("drain", lambda engine, _: engine.drain()),
]


@final
class Asked:
    """One meeting: what was answered, and what stands in the log."""

    def __init__(self, deed: Deed) -> None:
        self.log = KeptLog(SlowLog())
        self.deed = deed
        self.stamp = ProducerStamp("p", 0, deed.number)
        self.answers: list[ChunksAccepted | Finished] = []
        self.errors: list[PenstockError] = []

    async def ask(self, session: Session) -> None:
        try:
            self.answers.append(await self.deed.ask(session, self.stamp))
        except PenstockError as error:
            self.errors.append(error)

    async def again(self, session: Session) -> None:
        """The same request once more: it must agree with what was told before."""
        told = bool(self.answers)
        self.errors.clear()
        await self.ask(session)
        # Nothing stands in its way now: what it is refused for is what became of the generation, or of the message.
        assert all(error.code in OVER for error in self.errors), self.errors
        if told:
            assert not self.errors
            answer = self.answers[-1]
            assert answer.repeated if isinstance(answer, Finished) else not answer.accepted

    @property
    def stands(self) -> int:
        """How often what was asked for stands in the log."""
        count = 0
        for session_id, epoch in self.log.lives():
            events = [decode(entry.body) for entry in self.log.kept(session_id, epoch)]
            for event in events:
                data = event.data
                if "finish" in self.deed.name:
                    its = event.generation_id == GID
                    count += its and isinstance(data, GenerationFinished) and data.outcome == "completed"
                else:
                    count += isinstance(data, BlockDelta) and data.text == SAID
        return count

    async def check(self, epoch: str) -> None:
        """It was answered with success if and only if it stands there, once and with its number."""
        assert self.stands == bool(self.answers)
        try:
            body = await self.log.record("s", epoch, "producer/p")
        except StaleEpoch:  # deleted
            return
        mark = {"seq": -1} if body is None else decode_json(body)
        assert isinstance(mark, dict)
        assert mark["seq"] == self.deed.number - (not self.answers)


@pytest.mark.further
@pytest.mark.parametrize("rival", RIVALS, ids=str)
@pytest.mark.parametrize("deed", DEEDS, ids=str)
@pytest.mark.usefixtures("quiet")
def test_an_answer_is_true_whoever_came_between(deed: Deed, rival: Rival) -> None:
    outcomes: set[str] = set()
    # Where it is far before the rival it is always done, so what is looked for below does not depend on chance.
    for before in {FIRST, *some(BEHIND, (str(deed), str(rival)))}:
        for copies, fails in ((1, None), (2, None), (1, 0), (2, 1)):
            asked = trio.run(meet, deed, rival, before, copies, fails, clock=MockClock(autojump_threshold=0))
            outcomes.update(type(answer).__name__ for answer in [*asked.answers, *asked.errors])
    assert outcomes & {"ChunksAccepted", "Finished"}


async def meet(deed: Deed, rival: Rival, before: int, copies: int, fails: int | None) -> Asked:
    asked = Asked(deed)
    wire = FaultyLog(asked.log)
    if deed.adopted:
        async with open_engine(asked.log) as engine:
            await prepare(deed, await engine.create_session("s"))
    async with open_engine(wire, producers={"say": saying("x")}, config=CONFIG) as engine:
        session = await engine.create_session("s")
        epoch = (await session.cursor()).epoch
        if not deed.adopted:
            await prepare(deed, session)
        asked.log.inner.turns.extend([2, 0, 3])  # type: ignore[attr-defined]
        first = len(wire.writes)
        if fails is not None:
            wire.schedule = lambda number, _: Fail() if number == first + fails else None

        async def compete() -> None:
            await turns(max(-before, 0))
            with suppress(PenstockError):
                await rival.ask(engine, session)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(compete)
            await turns(max(before, 0))
            for _ in range(copies):
                nursery.start_soon(asked.ask, session)
        assert sum(isinstance(each, ChunksAccepted) and each.accepted > 0 for each in asked.answers) <= 1
        await asked.check(epoch)
        if rival.name not in ("drain", "delete"):
            await trio.sleep(0.1)  # a repair is over then
            await asked.again(session)
            await asked.check(epoch)
    async with open_engine(asked.log, producers={"say": saying("x")}, config=CONFIG) as engine:
        with suppress(SessionDeleted):
            await asked.again(await engine.session("s"))
        await trio.sleep(20)
        assert engine.statistics().live_generations == 0
    found = check_kept(asked.log, closed=True)
    assert not found, "\n".join(map(str, found))
    return asked


async def prepare(deed: Deed, session: Session) -> None:
    if deed.starts:
        await session.start("remote", generation_id=GID)
    for number in range(deed.number):
        await session.chunks([body(GID, "begun", message_id=ONE)], stamp=ProducerStamp("p", 0, number))
