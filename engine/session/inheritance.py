"""What engines that are gone left open: found in the log, and seen to by bringing its sessions into memory.

Owns which sessions these are, and that each is brought: when an engine opens, when another one is gone. What becomes of
a session that is in memory is `resident`'s.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final, final

import trio

from ..errors import (
    CorruptSession,
    PenstockError,
    SessionDeleted,
    SessionNotFound,
    StaleError,
    UnwritableDatabase,
    WriteFailed,
)
from ..events import SessionId
from ..facts import NodeTakenOver
from ..log.port import EventLog
from ..rules.records import INCOMPLETE, OPEN, QUEUED
from ..supervision import protected
from ..upkeep.files import sweep_uploads
from .registry import Registry

__all__ = ["Inheritance"]

logger = logging.getLogger("penstock.engine")

# How many sessions recovery ends at a time: enough for the log to commit them together.
_RECOVERY_WIDTH: Final = 32


@final
@protected
class Inheritance:
    """Of one engine. Ends as ``lost`` what nobody runs any more, and lets its queue go on: being in memory does it."""

    def __init__(self, log: EventLog, registry: Registry) -> None:
        self._log = log
        self._registry = registry

    async def check_whole(self) -> None:
        """Raises `UnwritableDatabase` when the log is a copy that was cut off."""
        if await self._log.holders(INCOMPLETE, limit=1):
            raise UnwritableDatabase("this log is a copy that is not whole: remove it, and copy again")

    async def recover(self) -> None:
        """See to what a dead process left open, before this engine is used.

        Where engines share the log, only what was left by one of this name, or is nobody's: the others may live. What
        is wrong with one session is no reason not to open the others.
        """
        owner = self._registry.owner
        await sweep_uploads(self._log, owner)
        if owner:
            for each in (owner, ""):
                await self._bring(partial(self._owned, each))
        else:
            for key in (OPEN, QUEUED):
                await self._bring(partial(self._holders, key))

    async def take_over(self, owner: str) -> None:
        """See to what the engine of that name left open, which is gone; see `Engine.take_over`."""
        await self._bring(partial(self._owned, owner), gone=owner)

    async def inherit(self, name: str, wants: Callable[[str], bool]) -> bool:
        """Take over what an engine that is gone left open, and what is nobody's; whether nothing of it is left.

        Only in sessions that are wanted: others do so with the rest.
        """
        brought = await self._bring(partial(self._owned, name), gone=name, wants=wants)
        if brought:
            self._registry.observer.observe(NodeTakenOver(name=name, sessions=brought))
        await self._bring(partial(self._owned, ""), wants=wants)  # what it released when it left
        after = ""
        while left := await self._owned(name, after):
            if not all(self._registry.is_aside(each) for each in left):
                return False
            after = left[-1]
        return True

    async def owners(self) -> set[str]:
        """Who has anything open, or waiting."""
        owners: set[str] = set()
        for key in (OPEN, QUEUED):
            after = ""
            while held := await self._holders(key, after):
                owners |= {head.owner for head in (await self._log.living(held)).values()}
                after = held[-1]
        return owners - {""}

    def confirm(self) -> None:
        """Others may have taken over what is live here: have the log say so before anything more is written."""
        for resident in self._registry.residents:
            if resident.core.live is not None and resident.owns:
                resident.journal.probe()

    async def _holders(self, key: str, after: str) -> list[str]:
        return [session_id for session_id, _ in await self._log.holders(key, after=after, limit=_RECOVERY_WIDTH)]

    async def _owned(self, owner: str, after: str) -> list[str]:
        return await self._log.owned(owner, having=(OPEN, QUEUED), after=after, limit=_RECOVERY_WIDTH)

    async def _bring(
        self,
        page: Callable[[str], Awaitable[Sequence[str]]],
        gone: str = "",
        wants: Callable[[str], bool] = lambda _: True,
    ) -> int:
        """Bring the sessions of all pages into memory that are wanted; how many are.

        Raises what would be so with every other one.
        """
        failure: PenstockError | None = None
        brought = 0

        async def bring(session_id: str) -> None:
            nonlocal failure, brought
            try:
                await self._registry.resident(SessionId(session_id), gone=gone)
                brought += 1
            except (CorruptSession, StaleError, SessionNotFound, SessionDeleted):
                pass  # it is set aside, or gone, or another engine has it
            except PenstockError as error:
                if isinstance(error, WriteFailed) and not error.whole:
                    logger.error("session %s: what it holds open stays open: %s", session_id, error)
                else:
                    failure = error

        after = ""
        while session_ids := await page(after):
            async with trio.open_nursery() as nursery:
                for session_id in filter(wants, session_ids):
                    self._registry.supervisor.start(
                        nursery, partial(bring, session_id), f"the opening of session {session_id}"
                    )
            if failure is not None:
                raise failure
            after = session_ids[-1]
        return brought
