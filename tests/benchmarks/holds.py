"""How long a loop is held, at the longest: for a program that embeds the engine, and for a server that does.

A hold is how much later than it wanted to a task wakes that sleeps for a millisecond at a time: whatever else the loop,
the collector or the log's threads do meanwhile is in it.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Final, cast, final

import trio

from penstock.engine import Generation

__all__ = ["Holds", "holds"]

_TICK: Final = 0.001

# How often a server's longest hold is told, if there was a longer one.
TOLD: Final = 0.05


@final
class Holds:
    """The longest hold since it was last asked for, in seconds."""

    def __init__(self) -> None:
        self.longest = 0.0

    async def run(self) -> None:
        while True:
            begun = time.perf_counter()
            await trio.sleep(_TICK)
            self.longest = max(self.longest, time.perf_counter() - begun - _TICK)

    async def during(self, work: Callable[[], Awaitable[object]]) -> float:
        await trio.sleep(10 * _TICK)
        self.longest = 0.0
        kept = await work()  # to let go of a large answer takes a while, too: its caller's
        await trio.sleep(10 * _TICK)
        longest = self.longest
        del kept
        return longest


async def holds(generation: Generation) -> None:
    """A producer that writes nothing: the longest hold while it runs, in seconds, stands in the file ``path``."""
    path = Path(cast("Mapping[str, str]", generation.input)["path"])
    found, told = Holds(), 0.0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(found.run)
        while True:
            await trio.sleep(TOLD)
            if found.longest > told:
                told = found.longest
                beside = path.with_name(f"{path.name}.part")
                beside.write_text(str(told))
                beside.replace(path)  # who reads it meanwhile reads a number
