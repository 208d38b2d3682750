"""Lifecycle steps of one session: one at a time, in order of arrival, in a task of the session's own.

A caller that leaves loses the answer, not the step. Steps of callers are bounded and can be refused while
they wait; the session's own (an end to write, a repair) are neither.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable
from typing import Final, Generic, TypeVar, cast, final

import trio
from outcome import Error, Outcome, Value

from ..errors import Draining, Overloaded, PenstockError
from ..facts import request_id
from ..supervision import own_failure
from .life import Call

__all__ = ["Steps"]

logger = logging.getLogger("penstock.session")

T = TypeVar("T")


@final
class _Step(Generic[T]):
    __slots__ = ("answered", "call", "outcome", "own", "request_id", "subject", "work")

    def __init__(
        self, work: Callable[[], Awaitable[T]], *, own: bool, call: Call | None = None, subject: object = None
    ) -> None:
        self.work = work
        self.own = own
        self.call = call
        self.subject = subject
        self.request_id = None if own else request_id.get()
        self.answered = trio.Event()
        self.outcome: Outcome[T] | None = None

    def refuse(self, error: BaseException) -> None:
        self.outcome = Error(error)
        self.answered.set()


@final
class Steps:
    """The queue between callers and the one task that calls `run_next`. ``on_arrival`` sees that there is one.

    ``check`` raises what a call is refused with, as the session is at that moment.
    """

    __slots__ = ("_arrived", "_limit", "_on_arrival", "_under_way", "_waiting", "check")

    def __init__(self, limit: int, *, check: Callable[[Call], None], on_arrival: Callable[[], None]) -> None:
        self.check: Final = check
        self._limit = limit
        self._on_arrival = on_arrival
        self._waiting: list[_Step[object]] = []  # hardly ever more than one
        self._under_way: _Step[object] | None = None
        self._arrived: trio.Event | None = None  # while the task waits

    def __len__(self) -> int:
        return len(self._waiting)

    def subjects(self) -> list[object]:
        """What the step under way and the waiting ones are about, in order."""
        under_way = [] if self._under_way is None else [self._under_way]
        return [step.subject for step in (*under_way, *self._waiting) if step.subject is not None]

    def check_room(self) -> None:
        """Raises `Overloaded` when too many steps wait."""
        if len(self._waiting) >= self._limit:
            raise Overloaded(f"{self._limit} steps wait on this session")

    async def take(
        self, work: Callable[[], Awaitable[T]], *, call: Call | None = Call.WRITE, subject: object = None
    ) -> T:
        """Have ``work`` done in its turn and return its answer or raise its error.

        Where ``call`` is refused, now or when its turn comes, it is not done; None is what is never refused. Cancelling
        the caller does not cancel the step. Raises `Overloaded` when too many steps wait.
        """
        if call is not None:
            self.check(call)
        self.check_room()
        step = _Step(work, own=False, call=call, subject=subject)
        self._waiting.append(cast("_Step[object]", step))
        self.nudge()
        await step.answered.wait()
        assert step.outcome is not None
        return step.outcome.unwrap()

    def add(self, work: Callable[[], Awaitable[None]], *, first: bool = False) -> None:
        """Have the session's own ``work`` done, in its turn or before all that waits."""
        step = _Step[object](work, own=True)
        if first:
            self._waiting.insert(0, step)
        else:
            self._waiting.append(step)
        self.nudge()

    def refuse_waiting(self, error: Callable[[], PenstockError]) -> None:
        """Answer every waiting caller with ``error()``; the session's own steps stay."""
        waiting, self._waiting = self._waiting, [step for step in self._waiting if step.own]
        for step in waiting:
            if not step.own:
                step.refuse(error())

    async def wait_until(self, time: float) -> None:
        """Until a step waits, somebody nudges, or it is time, by the trio clock."""
        self._arrived = trio.Event()
        try:
            if time == math.inf:
                await self._arrived.wait()
            else:
                with trio.move_on_at(time):
                    await self._arrived.wait()
        finally:
            self._arrived = None

    def nudge(self) -> None:
        """Have the task look for what is to be done, although nothing may wait."""
        if self._arrived is not None:
            self._arrived.set()
        self._on_arrival()

    async def run_next(self) -> None:
        """Carry out the oldest step. Its error is the caller's; one of the session's own steps is logged.

        Raises what is no step's own: a cancellation of the session's task, and what ends the process.
        """
        await self._run(self._waiting.pop(0))

    async def run(self, work: Callable[[], Awaitable[None]]) -> None:
        """Carry out a step of the session's own at once. Raises as `run_next` does."""
        await self._run(_Step[object](work, own=True))

    async def _run(self, step: _Step[object]) -> None:
        self._under_way = step
        if step.request_id != request_id.get():
            request_id.set(step.request_id)
        step.outcome = Error(Draining("the session was closed"))  # unless it comes to an end of its own
        try:
            if step.call is not None:
                self.check(step.call)
            step.outcome = Value(await step.work())
        except BaseException as error:
            failure = own_failure(error)
            step.outcome = Error(failure)
            if step.own:
                logger.error("a step of the session's own failed", exc_info=failure)
        finally:
            self._under_way = None
            step.answered.set()
