"""A store that is somewhere else and may be away: how long it is waited for, and what is said of it.

Owns the pauses and the words. What an error means, and what is done when the store is back, is its own `Store`'s.
"""

from __future__ import annotations

import logging
from typing import Final, final

import trio

from ..errors import StoreAway

__all__ = ["Absence"]

logger = logging.getLogger("penstock.log")

# Between two attempts: seconds. A store that restarts takes some hundred milliseconds, or as long as it takes to load.
_PAUSE: Final = 0.1

# While nobody asks the store anything, it is asked this often whether it is there: seconds. A connection of which only
# this end is left is found by it.
_PERIOD: Final = 2.0


@final
class Absence:
    """Of one store. ``patience`` is how long it may be away, or refuse a call, before that fails: seconds."""

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._since: float | None = None
        self._heard = trio.current_time()

    def __bool__(self) -> bool:
        """Whether it is away."""
        return self._since is not None

    @property
    def said(self) -> str | None:
        """That it is away, fit for anyone's eyes."""
        return None if self._since is None else f"the store has been away for {trio.current_time() - self._since:.0f} s"

    def begin(self, why: str) -> None:
        """An attempt failed."""
        if self._since is None:
            self._since = trio.current_time()
            logger.warning("the store is away: %s", why)

    def end(self) -> bool:
        """It has answered. Whether it was away."""
        self._heard = trio.current_time()
        if self._since is None:
            return False
        logger.warning("the store is back after %.1f s", self._heard - self._since)
        self._since = None
        return True

    async def pause(self, begun: float, error: Exception, trouble: str) -> None:
        """Wait before the next attempt of a call that began at ``begun``, by Trio's clock.

        Raises `StoreAway` of the ``trouble`` where the patience is over. Once the store has been away for so long, a
        call is tried once.
        """
        since = begun if self._since is None else min(begun, self._since)
        if trio.current_time() - since >= self._patience:
            raise StoreAway(trouble) from error
        await trio.sleep(_PAUSE)

    async def pause_watch(self) -> None:
        """Wait until the store is to be asked whether it is there: soon where it is away, else when it is quiet."""
        while True:
            await trio.sleep(_PERIOD if self._since is None else _PAUSE)
            if self._since is not None or trio.current_time() - self._heard >= _PERIOD:
                return
