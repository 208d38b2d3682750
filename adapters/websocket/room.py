"""How much of what a socket asks may be under way, in number and in bytes, so that its peer waits and nobody else."""

from __future__ import annotations

from typing import Final, final

import trio

__all__ = ["Room"]


@final
class Room:
    """Room for ``number`` commands of ``size`` bytes in all; one that is larger than that gets in when it is alone."""

    def __init__(self, number: int, size: int) -> None:
        self._number: Final = number
        self._size: Final = size
        self._held = self._held_bytes = 0
        self._left = trio.lowlevel.ParkingLot()

    def _fits(self, size: int) -> bool:
        return not self._held or (self._held < self._number and self._held_bytes + size <= self._size)

    async def enter(self, size: int) -> None:
        """Wait until there is room for ``size`` bytes, and take it. Nothing is taken when this is cancelled."""
        while not self._fits(size):
            await self._left.park()
        self._held += 1
        self._held_bytes += size

    def leave(self, size: int) -> None:
        """Give back what `enter` took."""
        self._held -= 1
        self._held_bytes -= size
        self._left.unpark_all()
