"""The producer of the benchmarks: so many events, as fast as they go or at a pace."""

from __future__ import annotations

import heapq
import math
import time
from collections.abc import Mapping
from typing import Final, cast, final

import trio

from penstock.engine import Generation
from tests.benchmarks.payload import stamped

__all__ = ["source"]


async def source(generation: Generation) -> None:
    """Write ``count`` texts of ``size`` characters; ``rate`` a second from ``begin`` on, or all at once for 0.

    ``begin`` is by `time.monotonic_ns`, and 0 is now; ``phase`` is the part of an interval by which all are later.
    Each is stamped with when it was due, so that a source that is late shows in every delay.
    """
    given = cast("Mapping[str, float]", generation.input)
    count, size = int(given["count"]), int(given["size"])
    rate, phase = given.get("rate", 0), given.get("phase", 0)
    begin = int(given.get("begin", 0)) or time.monotonic_ns()
    async with generation.message() as message, message.text() as block:
        await _sleep_until(begin)
        for number in range(count):
            due = begin
            if rate:
                due += int((number + phase) * 1e9 / rate)
                await _sleep_until(due)
            await block.write(stamped(due, size))


# What is due within so many nanoseconds is woken at once. It is the resolution of libuv's timers, too.
_TICK: Final = 1_000_000


@final
class _Clock:
    """One timer for all sources of a process. A timer for each costs more than what is measured."""

    def __init__(self) -> None:
        self._due: list[tuple[int, int, trio.Event]] = []
        self._asked = 0
        self._asleep = trio.CancelScope()
        trio.lowlevel.spawn_system_task(self._run)

    async def sleep_until(self, due: int) -> None:
        """Until `time.monotonic_ns` is ``due``, or up to a tick later."""
        if due <= time.monotonic_ns():
            return
        woken = trio.Event()
        self._asked += 1
        heapq.heappush(self._due, (due, self._asked, woken))
        self._asleep.deadline = min(self._asleep.deadline, _trio_time(due))
        await woken.wait()

    async def _run(self) -> None:
        while True:
            now = time.monotonic_ns()
            while self._due and self._due[0][0] <= now:
                heapq.heappop(self._due)[2].set()
            with trio.CancelScope(deadline=_trio_time(self._due[0][0]) if self._due else math.inf) as self._asleep:
                await trio.sleep_forever()


def _trio_time(due: int) -> float:
    """When the tick is over that ``due`` is in, by the trio clock."""
    return trio.current_time() + (due + _TICK - due % _TICK - time.monotonic_ns()) / 1e9


_clock: Final[trio.lowlevel.RunVar[_Clock]] = trio.lowlevel.RunVar("source clock")


async def _sleep_until(due: int) -> None:
    try:
        clock = _clock.get()
    except LookupError:
        clock = _Clock()
        _clock.set(clock)
    await clock.sleep_until(due)
