"""Looks at generations when something may be due in them.

Owns when that is, not what is due. One task for all generations of an engine, there while any is watched, sleeps until
the next moment at which anything could be due: an event costs it nothing, a generation that says nothing costs an entry
in its list.
"""

from __future__ import annotations

import heapq
import logging
import math
from collections.abc import Awaitable, Callable
from itertools import count
from typing import Final, final

import trio

from ..supervision import own_failure

__all__ = ["Watch", "Watchdog"]

logger = logging.getLogger("penstock.generation")

# The list is cleared of void entries once they are this many more than the generations under watch.
_SPARE: Final = 16

# After a look that failed, the next one is so many seconds later: limits are minutes.
_LOOK_AGAIN: Final = 1.0


@final
class Watch:
    """One generation under watch, until `end` or until ``look`` says so."""

    __slots__ = ("_dog", "_look", "due")

    def __init__(self, dog: Watchdog, look: Callable[[], float | None], due: float) -> None:
        self._dog = dog
        self._look = look
        self.due: float | None = due  # when to look at it; None: never again

    def nudge(self) -> None:
        """Something may be due sooner than it was."""
        if self.due is not None:
            self._dog.expect(self, trio.current_time())

    def end(self) -> None:
        """It is not looked at from here on. Idempotent."""
        if self.due is not None:
            self.due = None
            self._dog.forget()

    def look(self) -> None:
        """Look at it now. For `Watchdog`; raises what the look raises, and goes on watching."""
        due = self._look()
        if due is None:
            self.end()
        elif self.due is not None:
            self._dog.expect(self, due)


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

    def watch(self, look: Callable[[], float | None], due: float) -> Watch:
        """Call ``look`` when it is due: it does what is to be done then, and returns when it is due again.

        By the trio clock; infinite when nothing is expected. None ends the watch. What it raises is logged, and it is
        called again a second later.
        """
        self._watched += 1
        watch = Watch(self, look, due)
        self._push(watch, due)
        if not self._running:
            self._running = True
            self._launch(self._run)
        return watch

    def expect(self, watch: Watch, due: float) -> None:
        """Look at it then. For `Watch`."""
        if due != watch.due:
            watch.due = due
            self._push(watch, due)

    def _push(self, watch: Watch, due: float) -> None:
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
