"""Pages of one session's log, shared by those who read them at the same time.

A page lives as long as a reader holds it: whoever is not more than a page behind somebody else finds it read, and
framed. Pages begin at the same places for all, wherever a reader has begun.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, final
from weakref import WeakValueDictionary

import trio

from .hub import Batch

__all__ = ["Pages"]


@final
class Pages:
    """``read`` gets at most so many events behind an offset, None at the tail; a full page has ``size`` of them."""

    __slots__ = ("_coming", "_pages", "_read", "_size")

    def __init__(self, read: Callable[[int, int], Awaitable[Batch | None]], size: int) -> None:
        self._read: Final = read
        self._size: Final = size
        self._pages: WeakValueDictionary[int, Batch] = WeakValueDictionary()  # by what they are behind
        self._coming: dict[int, trio.Event] = {}  # what somebody reads right now

    async def page(self, after: int) -> Batch | None:
        """The page behind ``after``; None at the tail. Raises as ``read``. Who is cancelled holds up nobody."""
        while (coming := self._coming.get(after)) is not None:
            await coming.wait()
            # Unless who read it has failed, or left: then one of those who waited reads.
        page = self._pages.get(after)
        if page is not None:
            await trio.lowlevel.checkpoint()
            return page
        self._coming[after] = trio.Event()
        try:
            page = await self._read(after, self._size - after % self._size)
            if page is not None:
                self._pages[after] = page
            return page
        finally:
            self._coming.pop(after).set()
