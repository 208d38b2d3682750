"""What tests that explore have in common: how many examples, each in a loop of its own, counted and told apart."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from typing import Final

import pytest
import trio
import trio.testing
from hypothesis import HealthCheck, event, settings

from penstock.engine import Session, SessionState, Snapshot
from tests.extent import examples

__all__ = ["TOTAL", "explore", "exploring", "folded", "quiet"]

TOTAL: Final[Counter[str]] = Counter()  # of everything that was asked for, by what came of it


def exploring(default: int) -> settings:
    """So many examples (see `examples`), or as many as ``PENSTOCK_EXAMPLES`` says."""
    return settings(
        max_examples=int(os.environ.get("PENSTOCK_EXAMPLES", examples(default))),
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )


def explore(example: Callable[[], Awaitable[Counter[str]]]) -> None:
    """Run one example under a clock that jumps; it must leave no task behind."""

    async def run() -> Counter[str]:
        before = trio.lowlevel.current_statistics().tasks_living
        done = await example()
        assert trio.lowlevel.current_statistics().tasks_living == before
        return done

    try:
        done = trio.run(run, clock=trio.testing.MockClock(autojump_threshold=0))
    except ExceptionGroup as group:
        raise _only(group) from None
    TOTAL.update(done)
    for name in done:
        event(name)


def _only(error: Exception) -> Exception:
    """What nurseries have wrapped: hypothesis tells failures apart, and shrinks them, by what they are."""
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        (error,) = error.exceptions
    return error


@pytest.fixture
def quiet() -> Iterator[None]:
    """What goes wrong on purpose is no news."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


async def folded(session: Session) -> Snapshot:
    """The fold of the whole stream."""
    state = SessionState(session.session_id, (await session.cursor()).epoch)
    async with session.subscribe(live=False) as events:
        async for one in events:
            state.apply(one)
    return state.snapshot()
