"""The table of a session's life, cell by cell: in each phase, reached by what leads there, each call is answered so."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from penstock.engine import (
    Config,
    CorruptSession,
    Draining,
    Engine,
    Generation,
    MemoryLog,
    PenstockError,
    Session,
    SessionDeleted,
    WriteFailed,
    new_message_id,
    open_engine,
)
from penstock.engine.events import MessageSnapshot
from penstock.engine.rules.policy import Policy
from penstock.engine.session.life import ANSWERS, Call, Life, Phase
from penstock.engine.session.resident import Resident
from penstock.engine.session.transaction import StartRequest, user_message
from tests.engine.producers import Steered

CONFIG: Final = Config(cleanup_timeout=100, drain_timeout=200)


async def stubborn(generation: Generation) -> None:
    with trio.CancelScope(shield=True):
        await trio.sleep(50)


async def nothing(_: Engine, __: Session) -> None:
    pass


async def drain(engine: Engine, session: Session) -> None:
    await session.start(stubborn)
    await wait_all_tasks_blocked()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(engine.drain)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()


async def leave(engine: Engine, session: Session) -> None:
    await session.start("remote")
    await engine.drain()


async def delete(engine: Engine, session: Session) -> None:
    await session.start(stubborn)
    await wait_all_tasks_blocked()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(session.delete)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()


async def close(engine: Engine, session: Session) -> None:
    (await engine.resident(session.session_id)).close()


async def set_aside(engine: Engine, session: Session) -> None:
    (await engine.resident(session.session_id)).set_aside(CorruptSession("damaged", session_id=session.session_id))


async def move(engine: Engine, session: Session) -> None:
    (await engine.resident(session.session_id))._step_down("another")


async def deleted(_: Engine, session: Session) -> None:
    await session.delete()


REACHED: Final[dict[Phase, Callable[[Engine, Session], Awaitable[None]]]] = {
    Phase.OPEN: nothing,
    Phase.DRAINING: drain,
    Phase.LEFT: leave,
    Phase.DELETING: delete,
    Phase.CLOSED: close,
    Phase.MOVED: move,
    Phase.SET_ASIDE: set_aside,
    Phase.DELETED: deleted,
}


def message() -> MessageSnapshot:
    return user_message("hello")


def request() -> StartRequest:
    return StartRequest(
        generation_id=new_message_id(),
        proposed=False,
        producer=Steered(),
        producer_name="steered",
        registered=False,
        policy=Policy.SUPERSEDE,
    )


CALLS: Final[dict[str, tuple[Call, Callable[[Resident], Awaitable[object]]]]] = {
    "start": (Call.WRITE, lambda resident: resident.start(request())),
    "post": (Call.WRITE, lambda resident: resident.post(message(), new_message_id(), proposed=False)),
    "step": (Call.WRITE, lambda resident: resident.steps.take(trio.lowlevel.checkpoint)),
    "stop": (Call.END, lambda resident: resident.stop(None, "stopped", "pause", None)),
    "delete": (Call.END, lambda resident: resident.delete()),
}


@asynccontextmanager
async def reached(phase: Phase, log: MemoryLog) -> AsyncIterator[Resident]:
    async with open_engine(log, config=CONFIG) as engine:
        session = await engine.create_session("s")
        resident = await engine.resident(session.session_id)
        await REACHED[phase](engine, session)
        assert resident.life.phase is phase
        yield resident


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("phase", Phase)
async def test_a_call_is_answered_as_the_table_says(
    phase: Phase, name: str, log: MemoryLog, autojump_clock: MockClock
) -> None:
    call, carry_out = CALLS[name]
    async with reached(phase, log) as resident:
        expected = ANSWERS[phase][call]
        raised: PenstockError | None = None
        with trio.move_on_after(20):
            try:
                await carry_out(resident)
            except PenstockError as error:
                raised = error
        if expected is None:
            assert raised is None or isinstance(raised, SessionDeleted), "it is taken, and told how it ended"
        else:
            assert type(raised) is expected
            assert raised.session_id == "s"


@pytest.mark.parametrize("phase", Phase)
async def test_presence_is_answered_as_the_table_says(phase: Phase, log: MemoryLog, autojump_clock: MockClock) -> None:
    async with reached(phase, log) as resident:
        expected = ANSWERS[phase][Call.BE_HERE]
        if expected is None:
            resident.check(Call.BE_HERE)
        else:
            with pytest.raises(expected):
                resident.check(Call.BE_HERE)


@pytest.mark.parametrize("call", Call)
@pytest.mark.parametrize("phase", [Phase.OPEN, Phase.DRAINING])
async def test_while_a_session_is_repaired_only_presence_is_taken(
    phase: Phase, call: Call, log: MemoryLog, autojump_clock: MockClock
) -> None:
    async with reached(phase, log) as resident:
        resident._repairing = True
        expected = None if call is Call.BE_HERE else ANSWERS[phase][call] or WriteFailed
        try:
            if expected is None:
                resident.check(call)
            else:
                with pytest.raises(expected):
                    resident.check(call)
        finally:
            resident._repairing = False


def test_what_is_so_at_once_is_told_by_the_graver_phase() -> None:
    corrupt = CorruptSession("damaged", session_id="s")
    assert Life("s", draining=True, left=True).phase is Phase.LEFT
    assert Life("s", draining=True, left=True, closed=True).phase is Phase.CLOSED
    assert Life("s", draining=True, deleting=True).phase is Phase.DELETING
    assert Life("s", deleting=True, closed=True).phase is Phase.DELETED
    assert Life("s", deleted=True, closed=True).phase is Phase.DELETED
    assert Life("s", deleted=True, closed=True, corrupt=corrupt).phase is Phase.SET_ASIDE
    life = Life("s", deleting=True)
    with pytest.raises(SessionDeleted):
        life.check(Call.WRITE)
    life.deleting = False  # it failed
    life.check(Call.WRITE)
    assert isinstance(Life("s", closed=True).refusal(), Draining)
