"""Standing on what the log says: on opening a session, and after the log refused a write of it.

Owns the way back: the committed tail, the turn and the queue as they are stored, and the end of a generation that
the log holds open.
"""

from __future__ import annotations

import logging
import math
import random
from typing import final

import trio

from ..aside import reading
from ..config import Config
from ..errors import CorruptSession, StaleError, StorageError
from ..generation.stamper import stamp
from ..log.port import EventLog
from ..rules.ending import SAFE_TEXTS, Ending
from ..rules.states import Outcome
from ..stream.journal import Journal
from .queue import Lineup
from .recovery import find
from .runs import Runs
from .starting import Control
from .transaction import end_part

__all__ = ["Settlement"]

logger = logging.getLogger("penstock.session")


@final
class Settlement:
    """Brings one session in memory back to its committed state."""

    def __init__(
        self, log: EventLog, config: Config, journal: Journal, *, control: Control, runs: Runs, lineup: Lineup
    ) -> None:
        self._log = log
        self._config = config
        self._journal = journal
        self._control = control
        self._runs = runs
        self._lineup = lineup

    async def settle(self, outcome: Outcome, code: str, *, keep_remote: bool = False, within: float = math.inf) -> bool:
        """Stand on what is committed and end what it holds open; False when this life of the session is over.

        With ``keep_remote`` a remote generation stays open, for its producer to go on.

        Raises `CorruptSession`, `StorageError`, and `TimedOut` when the end was not committed ``within`` seconds.
        """
        session_id = self._journal.session_id
        head = await self._log.head(session_id)
        if head is None or head.deleted or head.epoch != self._journal.epoch:
            return False
        found = await find(self._log, head, self._config)
        self._journal.restart(head)
        self._journal.raise_token()
        self._control.turn = found.turn
        self._lineup.queue = found.queue
        if keep_remote and found.remote:
            with reading(session_id):
                self._runs.adopt(found)
        elif found.open is not None:
            ending = Ending(outcome=outcome, code=code, message=SAFE_TEXTS[outcome])
            with reading(session_id):
                items, records = end_part(found.open, ending)
                mark = stamp(self._journal, items, records)
            await self._journal.wait_committed(mark, within)
        return True

    async def retry(self, outcome: Outcome, code: str) -> bool:
        """As `settle`, again and again until the log takes it; ever longer pauses, up to `Config.retry_max`.

        Raises `CorruptSession`.
        """
        pause = self._config.retry_min
        while True:
            try:
                return await self.settle(outcome, code)
            except CorruptSession:
                raise  # it stays as it is
            except (StorageError, StaleError) as error:
                logger.warning("session %s: still cannot be written: %s", self._journal.session_id, error)
                await trio.sleep(pause * random.uniform(0.5, 1.5))
                pause = min(2 * pause, self._config.retry_max)
