"""Long work as a generator: it pauses after each bit, and returns what it came to.

Whoever shares the loop with others gives it one slice after the other (`slices`); `at_once` is for who does not. Both
get the same, for it is the same code.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TypeAlias, TypeVar

__all__ = ["Work", "at_once", "emptying"]

T = TypeVar("T")
K = TypeVar("K")
V = TypeVar("V")

# A bit is a few microseconds' worth.
Work: TypeAlias = Generator[None, None, T]


def at_once(work: Work[T]) -> T:
    """What the work comes to, without a pause."""
    try:
        while True:
            next(work)
    except StopIteration as done:
        result: T = done.value
        return result


def emptying(held: dict[K, V]) -> Work[None]:
    """Let go of what is in there, bit by bit: of so much, all at once takes long."""
    while held:
        held.popitem()
        yield
