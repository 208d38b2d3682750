"""The producer of a benchmark: so many pieces, as fast as they go or at a pace."""

from __future__ import annotations

import time
from collections.abc import Mapping

import trio

from engine import JSON, Generation, InvalidBody

from .stamps import stamped

__all__ = ["source"]


async def source(generation: Generation) -> None:
    """Write ``count`` pieces of ``size`` characters; ``rate`` a second from ``begin`` on, or all at once for 0.

    ``begin`` is by `time.monotonic_ns`, and 0 is now; ``phase`` is the part of an interval by which all are later.
    Each is stamped with when it was due, so that a source that is late shows in every delay.
    """
    given = generation.input if isinstance(generation.input, Mapping) else {}
    count, size = int(_number(given, "count", 100)), int(_number(given, "size", 40))
    rate, phase = _number(given, "rate", 0), _number(given, "phase", 0)
    begin = int(_number(given, "begin", 0)) or time.monotonic_ns()
    async with generation.message() as message, message.text() as block:
        await _sleep_until(begin)
        for number in range(count):
            due = begin
            if rate:
                due += int((number + phase) * 1e9 / rate)
                await _sleep_until(due)
            await block.write(stamped(due, size))


async def _sleep_until(due: int) -> None:
    left = due - time.monotonic_ns()
    if left > 0:
        await trio.sleep(left / 1e9)


def _number(given: Mapping[str, JSON], name: str, default: float) -> float:
    value = given.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidBody(f"{name} is a number")
    return value
