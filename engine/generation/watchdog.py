"""The limits of generations: idle, total, and how long one may go on with nobody connected.

Owns when a limit is reached, not what follows from it. One task for all generations of an engine, there while any is
watched, sleeps until the next moment at which anything could be due: an event costs it nothing, a generation that
says nothing costs an entry in its list.
"""

from __future__ import annotations

import heapq
import logging
import math
from collections.abc import Awaitable, Callable
from itertools import count
from typing import Final, Literal, Protocol, TypeAlias, final

import trio
from attrs import frozen

from ..supervision import own_failure

__all__ = ["Audience", "LimitName", "Limits", "Watch", "Watchdog", "Watched"]

logger = logging.getLogger("penstock.generation")

LimitName: TypeAlias = Literal["expired", "stalled", "lost", "disconnected"]

# The list is cleared of void entries once they are this many more than the generations under watch.
_SPARE: Final = 16

# After a look that failed, the next one is so many seconds later: limits are minutes.
_LOOK_AGAIN: Final = 1.0


@final
@frozen(kw_only=True)
class Limits:
    """In seconds; infinite where there is none."""

    idle: float = math.inf
    total: float = math.inf
    disconnected: float = math.inf


class Watched(Protocol):
    """The generation, as the watchdog sees it. What makes anything due sooner nudges the watch."""

    @property
    def limits(self) -> Limits: ...

    @property
    def last_event(self) -> float:
        """When the last one was written, by the trio clock."""

    @property
    def waits_for_others(self) -> bool:
        """Whether the idle clock stands still; an event begins it and an event ends it."""

    @property
    def lost_at(self) -> float:
        """When its producer is taken for dead, by the trio clock; infinite if it declared no lease."""

    @property
    def next_duty(self) -> float:
        """When `attend` has something to do, by the trio clock; infinite if nothing is expected."""

    def attend(self) -> None:
        """Refuse the approvals whose time is over; tell that the producer is silent."""

    def limit_reached(self, limit: LimitName) -> None:
        """Told once, as the last, in the watchdog's task."""


class Audience(Protocol):
    """The subscribers of the session."""

    last_left: float  # when the last one left, by the trio clock; minus infinity if none ever did
    on_left: Callable[[], object] | None  # called when the last one leaves

    def __len__(self) -> int: ...


@final
class Watch:
    """One generation under watch, until `end`."""

    __slots__ = ("_audience", "_begun", "_dog", "_watched", "due")

    def __init__(self, dog: Watchdog, watched: Watched, audience: Audience) -> None:
        self._dog = dog
        self._watched = watched
        self._audience = audience
        self._begun = trio.current_time()
        self.due: float | None = math.inf  # when to look at it; None: never again
        if watched.limits.disconnected < math.inf:
            audience.on_left = self.nudge
        self._expect()

    def nudge(self) -> None:
        """Something may be due sooner than it was."""
        if self.due is not None:
            self._dog.expect(self, trio.current_time())

    def end(self) -> None:
        """No limit is reached from here on. Idempotent."""
        if self.due is not None:
            self.due = None
            if self._watched.limits.disconnected < math.inf:
                self._audience.on_left = None
            self._dog.forget()

    def look(self) -> None:
        """Tell of the limit that is reached, and end; or say when to look again. Does what is due in it meanwhile."""
        self._watched.attend()
        limit, due = self._next_limit()
        if due <= trio.current_time():
            self._watched.limit_reached(limit)
            self.end()  # not before: a limit that could not be told of is told of again
        else:
            self._expect()

    def _expect(self) -> None:
        _, due = self._next_limit()
        self._dog.expect(self, min(due, self._watched.next_duty))

    def _next_limit(self) -> tuple[LimitName, float]:
        """Which is reached first, and when if nothing happens until then."""
        now = trio.current_time()
        watched, limits, audience = self._watched, self._watched.limits, self._audience
        # Nobody tells when the wait for others is over: at the earliest it is due a whole limit from now.
        idle_since = now if watched.waits_for_others else max(self._begun, watched.last_event)
        alone_since = math.inf if len(audience) else max(self._begun, audience.last_left)
        due: dict[LimitName, float] = {
            "expired": self._begun + limits.total,
            "stalled": idle_since + limits.idle,
            "lost": watched.lost_at,
            "disconnected": alone_since + limits.disconnected,
        }
        limit = min(due, key=due.__getitem__)
        return limit, due[limit]


@final
class Watchdog:
    """Watches the generations of one engine. ``launch`` runs its task, while there is anything to watch."""

    def __init__(self, launch: Callable[[Callable[[], Awaitable[None]]], None]) -> None:
        self._launch = launch
        self._running = False
        self._watched = 0
        self._numbers = count()  # entries of one moment: the older first
        self._expected: list[tuple[float, int, Watch]] = []  # a heap; one whose moment is not its watch's is void
        self._nudged = trio.lowlevel.ParkingLot()

    def watch(self, watched: Watched, audience: Audience) -> Watch:
        """Watch it, until its watch is ended or a limit is reached."""
        self._watched += 1
        watch = Watch(self, watched, audience)
        if not self._running:
            self._running = True
            self._launch(self._run)
        return watch

    def expect(self, watch: Watch, due: float) -> None:
        """Look at it then. For `Watch`."""
        if due == watch.due:
            return
        watch.due = due
        heapq.heappush(self._expected, (due, next(self._numbers), watch))
        self._tidy()
        if self._expected[0][2] is watch:
            self._nudged.unpark_all()

    def forget(self) -> None:
        """One ended. For `Watch`."""
        self._watched -= 1
        self._tidy()
        if not self._watched:
            self._nudged.unpark_all()

    def _tidy(self) -> None:
        if not self._watched:
            self._expected.clear()
        elif len(self._expected) > 2 * self._watched + _SPARE:
            self._expected = [entry for entry in self._expected if entry[2].due == entry[0]]
            heapq.heapify(self._expected)

    async def _run(self) -> None:
        try:
            while self._watched:
                await self._wait()
                now = trio.current_time()
                while self._expected and self._expected[0][0] <= now:
                    due, _, watch = heapq.heappop(self._expected)
                    if watch.due == due:
                        self._look(watch)
        finally:
            self._running = False

    def _look(self, watch: Watch) -> None:
        try:
            watch.look()
        except BaseException as error:
            logger.error("a generation could not be looked at", exc_info=own_failure(error))
            if watch.due is not None:
                self.expect(watch, trio.current_time() + _LOOK_AGAIN)

    async def _wait(self) -> None:
        """Until something is due, or it may be due sooner, or nothing is watched."""
        with trio.move_on_at(self._expected[0][0] if self._expected else math.inf):
            await self._nudged.park()
