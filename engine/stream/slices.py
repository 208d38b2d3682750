"""Long work in slices, so that the loop is never held for long."""

from __future__ import annotations

from typing import Final, TypeVar

import trio

from ..work import Work

__all__ = ["SLICE", "in_slices"]

T = TypeVar("T")

# Bits in a slice: below a millisecond, and long enough that the turn which the others get costs little beside it.
SLICE: Final = 64


async def in_slices(work: Work[T]) -> T:
    """What the work comes to; the others get a turn after every slice. What is shorter than one goes without a turn."""
    try:
        while True:
            for _ in range(SLICE):
                next(work)
            await trio.lowlevel.checkpoint()
    except StopIteration as done:
        result: T = done.value
        return result
    finally:
        work.close()
