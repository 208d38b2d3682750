"""The end of one life of a session in the log.

Owns the order, and that a delete whose report is late still counts: what is live ends first, then the life does. What
follows from it in memory is `resident`'s.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import trio

from ..config import Config
from ..errors import PenstockError, StaleEpoch, TimedOut
from ..log.port import Delete, EventLog
from ..stream.journal import Journal
from .ending import Endings

__all__ = ["Deletion"]


@final
class Deletion:
    """Deletes one session in memory. ``on_deleted`` is called when the log says so, in the log's report."""

    def __init__(
        self,
        log: EventLog,
        journal: Journal,
        config: Config,
        *,
        endings: Endings,
        on_deleted: Callable[[], None],
    ) -> None:
        self._log = log
        self._journal = journal
        self._config = config
        self._endings = endings
        self._on_deleted = on_deleted
        self.under_way = False  # nothing begins any more, unless it fails

    async def carry_out(self) -> None:
        """End what is live as ``deleted``, then this life. A step. Raises `WriteFailed`, `TimedOut`."""
        self._journal.check()
        self.under_way = True
        try:
            await self._endings.end_live("deleted")
            await self._remove()
        except BaseException:
            self.under_way = False
            raise

    async def _remove(self) -> None:
        """End this life in the log. When the disk hangs it ends whenever the log says so, without a caller."""
        refusals: list[PenstockError] = []
        reported = trio.Event()

        def report(error: PenstockError | None) -> None:
            # This life is over also when an earlier delete was stored and reported as failed.
            if error is None or isinstance(error, StaleEpoch):
                self._on_deleted()
            else:
                refusals.append(error)
            reported.set()

        journal = self._journal
        journal.raise_token()
        self._log.submit(Delete(session_id=journal.session_id, epoch=journal.epoch, token=journal.token), report)
        with trio.move_on_after(self._config.flush_timeout):
            await reported.wait()
        if refusals:
            raise refusals[0]
        if not reported.is_set():
            raise TimedOut("the log has not deleted the session yet", session_id=journal.session_id)
