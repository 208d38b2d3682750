"""Doubt: a log that does not have all that there was, because its store went back.

Owns that this is recorded in the log, and that who has such a session in memory, or reads it, begins anew from the log.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, final

from ..errors import StorageError
from ..log.port import EventLog, Head

if TYPE_CHECKING:
    from .registry import Registry

__all__ = ["Doubts"]

logger = logging.getLogger("penstock.session")


@final
class Doubts:
    """Of one engine's sessions."""

    def __init__(self, log: EventLog, registry: Registry) -> None:
        self._log = log
        self._registry = registry
        log.on_went_back = self._went_back

    def missed(self, known: Head, *, proven: bool = True) -> None:
        """The log does not have all of a session that there was, as this engine knows, or as somebody says."""
        if not self._registry.closed:
            self._registry.launch_apart(
                partial(self._missed, known, proven=proven), f"penstock doubt of {known.session_id}"
            )

    async def _missed(self, known: Head, *, proven: bool) -> None:
        try:
            await self.add(known, proven=proven)
        except StorageError as error:  # who meets it next says it again
            logger.warning("session %s: what the store has lost is not in doubt yet: %s", known.session_id, error)

    async def add(self, known: Head, *, proven: bool) -> None:
        """Have what may be lost doubted, and let go of what is known here of this session. Raises `StorageError`."""
        if not await self._log.doubt(known, proven=proven) and not proven:
            return
        resident = self._registry.in_memory(known.session_id)
        if self._registry.views is not None:
            self._registry.views.lose(known.session_id)
        elif resident is not None and resident.owns:
            resident.journal.probe()

    def _went_back(self) -> None:
        """The log has found it out by itself: have it say so to those that are in memory."""
        for resident in self._registry.residents:
            if resident.owns:
                resident.journal.probe()
