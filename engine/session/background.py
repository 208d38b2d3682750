"""What an engine does beside its sessions, all the time that it runs: each work again after a while where it failed.

Owns which works these are. What each of them does is its module's; here stands what needs the sessions in memory.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, final

import trio

from ..errors import PenstockError
from ..events import Cursor, SessionId
from ..log.port import EventLog, Head
from ..supervision import own_failure, protected
from ..upkeep.compaction import Compactor
from ..upkeep.files import finish_copies
from ..upkeep.retention import expire_sessions
from .registry import Registry

__all__ = ["Background"]

logger = logging.getLogger("penstock.engine")

# How often sessions are looked through for those past their age: a walk over all of them, which days later is as good.
_EXPIRY_PAUSE: Final = 3600.0

# Upkeep that failed is taken up again after this: it would fail again, and nothing waits for it.
_UPKEEP_PAUSE: Final = 60.0


@final
@protected
class Background:
    """Of one engine. ``sees_to``: whether it, and none that shares its log, sees to what nobody does of a session."""

    def __init__(self, log: EventLog, registry: Registry, sees_to: Callable[[str], bool]) -> None:
        self._log = log
        self._registry = registry
        self._sees_to = sees_to
        self._scope = trio.CancelScope()

    def close(self) -> None:
        self._scope.cancel(reason="the engine closes")

    async def run(self) -> None:
        """Compact what is old, delete what is too old, and give forks what they lack, until the engine closes."""
        with self._scope:
            async with trio.open_nursery() as nursery:
                works: list[tuple[Callable[[], Awaitable[None]], str]] = [
                    (self._registry.let_go, "penstock memory"),
                    (
                        Compactor(self._log, self._registry.config, aside=self._registry, mine=self._sees_to).run,
                        "penstock compaction",
                    ),
                    (self._expire, "penstock retention"),
                    (self._give_files, "penstock files"),
                ]
                if self._registry.views is not None:
                    works.append((self._registry.views.run, "penstock views"))
                    works.append((self._registry.views.together.keep_looking, "penstock together"))
                    works.append((self._registry.views.together.keep_asking, "penstock audience"))
                notes = self._registry.listing.changes.notes
                if notes is not None:
                    works.append((notes.run, "penstock notes"))
                for work, name in works:
                    self._registry.supervisor.start(nursery, partial(_persist, work, name), name)

    async def _give_files(self) -> None:
        """Of forks whose copying failed, or was cut off by a crash."""
        while True:
            await finish_copies(self._log, begins=self._begins)
            await trio.sleep(_UPKEEP_PAUSE)

    def _begins(self, session_id: str) -> bool:
        return self._registry.expects(session_id) or not self._sees_to(session_id)

    async def _expire(self) -> None:
        while (age := self._registry.config.session_max_age) is not None:
            try:
                await expire_sessions(
                    self._log, age, delete=self.delete_unchanged, aside=self._registry, mine=self._sees_to
                )
            except PenstockError as error:
                logger.warning("sessions that are too old stay for now: %s", error)
            await trio.sleep(min(_EXPIRY_PAUSE, age))

    async def delete_unchanged(self, head: Head) -> bool:
        """Delete a session that nobody uses and that still stands where it stood; whether it was deleted."""
        resident = await self._registry.resident(SessionId(head.session_id))
        return await resident.delete_unused(Cursor(head.epoch, head.tail))


async def _persist(work: Callable[[], Awaitable[None]], name: str) -> None:
    """Do it until it is done; when it fails, again after a while."""
    while True:
        try:
            await work()
            return
        except BaseException as error:
            logger.error("%s failed; again in %.0f s", name, _UPKEEP_PAUSE, exc_info=own_failure(error))
        await trio.sleep(_UPKEEP_PAUSE)
