"""The changes of the list of sessions, numbered once for all engines that share a log.

Owns that what was touched in one of them is noted in the store that they share, at most once in each pause, and that
what is noted there becomes known here while anybody follows. What the store has numbered is what each engine tells, its
own changes as well: so a cursor of one engine is good in another. An engine that is not told that there is something
new finds it some seconds later; one that dies between a commit and its note has told nobody of that change.
"""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Final, final

import trio

from ..errors import StorageError
from .bus import Bus

if TYPE_CHECKING:
    from .watch import Changes

__all__ = ["Notes"]

logger = logging.getLogger("penstock.engine")

# Sessions that are noted, or read, at a time.
_AT_ONCE: Final = 1000

# Seconds from one note to the next, however often a session changes meanwhile.
_PAUSE: Final = 0.05

# What another engine noted is looked for this often, for a hint may be lost: seconds.
_LOOK: Final = 5.0

# And after the store could not be asked: seconds.
_AGAIN: Final = 1.0

# What is told under this name is that something was noted. It is no id of a session.
_LIST: Final = "*"


@final
class Notes:
    """Where engines share the log: has the changes of each numbered by the store, and those of all learned here."""

    def __init__(self, changes: Changes, bus: Bus) -> None:
        self._changes = changes
        self._bus = bus
        self._pending: dict[str, None] = {}  # touched and not noted
        self._woken = trio.Event()
        self._reading = trio.Lock()

    def touch(self, session_id: str) -> None:
        self._pending[session_id] = None
        if len(self._pending) > self._changes.config.watch_kept:
            del self._pending[next(iter(self._pending))]
        self._woken.set()

    def wake(self) -> None:
        """Somebody follows now."""
        self._woken.set()

    async def flush(self) -> None:
        """Note what was touched. Raises `StorageError`; then it is noted later."""
        pending, self._pending = self._pending, {}
        try:
            for start in range(0, len(pending), _AT_ONCE):
                page = list(pending)[start : start + _AT_ONCE]
                await self._bus.volatile.note(page, keep=self._changes.config.watch_kept)
        except BaseException:
            self._pending = pending | self._pending
            raise
        if pending:
            self._bus.hint(_LIST)

    async def read(self) -> None:
        """Learn what was noted. Raises `StorageError`."""
        async with self._reading:
            while True:
                noted = await self._bus.volatile.noted(self._changes.number, limit=_AT_ONCE)
                if self._changes.number and not self._changes.follows(noted):
                    noted = await self._bus.volatile.noted(0, limit=_AT_ONCE)
                self._changes.learn(noted)
                if len(noted.sessions) < _AT_ONCE:
                    return

    async def run(self) -> None:
        """Note and learn, for as long as the engine is open."""
        away = False
        leave = await self._bus.follow(_LIST, lambda _: self._woken.set())
        try:
            while True:
                with trio.move_on_after(_LOOK if len(self._changes) else math.inf):
                    await self._woken.wait()
                self._woken = trio.Event()
                try:
                    await self.flush()
                    if len(self._changes):
                        await self.read()
                    away = False
                except StorageError as error:
                    if not away:
                        logger.warning("the changes of the list cannot be told or followed for now: %s", error)
                    away = True
                    self._woken.set()
                await trio.sleep(_AGAIN if away else _PAUSE)
        finally:
            leave()
