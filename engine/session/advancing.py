"""The queue goes on: what waits starts, one after the other, whenever nothing is live and the queue is not paused.

Owns when that is, and when it is tried again. How one starts is `starting`'s, what waits is `queue`'s.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable
from typing import final

import trio

from ..config import Config
from ..errors import ProducerNotFound, StorageError, TimedOut
from ..generation.generation import Producer
from ..generation.stamper import stamp
from ..results import QueueNext
from ..rules.ending import Ending
from ..rules.queue import QueuedStart
from ..stream.journal import Journal
from ..supervision import own_failure
from .queue import Lineup
from .slot import Slot
from .transaction import drop_part, resume_part

__all__ = ["Advance"]

logger = logging.getLogger("penstock.session")


@final
class Advance:
    """Lets the queue of one session in memory go on. ``begin`` starts one that waited."""

    __slots__ = ("_begin", "_config", "_find_producer", "_journal", "_lineup", "_slot", "not_before")

    def __init__(
        self,
        journal: Journal,
        config: Config,
        *,
        slot: Slot,
        lineup: Lineup,
        begin: Callable[[QueuedStart, Producer], Awaitable[None]],
        find_producer: Callable[[str], Producer],
    ) -> None:
        self._journal = journal
        self._config = config
        self._slot = slot
        self._lineup = lineup
        self._begin = begin
        self._find_producer = find_producer
        self.not_before = -math.inf  # by the trio clock: when it is tried again after the next could not start

    @property
    def possible(self) -> bool:
        """Whether the next queued generation may start."""
        return (
            self._slot.live is None
            and bool(len(self._lineup.queue))
            and not self._lineup.queue.paused
            and self._journal.refused is None
            and len(self._slot.stragglers) < self._config.max_stragglers
        )

    @property
    def due(self) -> bool:
        """Whether it may, and its time has come."""
        return self.possible and trio.current_time() >= self.not_before

    async def start_next(self) -> None:
        """Start what is next; what fails for the log's sake is tried again, and the steps that wait come in between.

        A step of the session's own.
        """
        try:
            await self._next()
        except (StorageError, TimedOut) as error:
            logger.warning("session %s: what waits cannot start yet: %s", self._journal.session_id, error)
            self._try_later()
        except BaseException as error:
            failure = own_failure(error)
            logger.error("session %s: what waits does not start", self._journal.session_id, exc_info=failure)
            self._try_later()

    def _try_later(self) -> None:
        if self._journal.refused is None:  # else the repair stands before the next try
            self.not_before = trio.current_time() + self._config.retry_max

    async def queue_next(self) -> QueueNext:
        """Let a paused queue go on; tells which one started, if one did. A step."""
        self._slot.finished_first()
        items, records = resume_part(self._lineup.queue, "next")
        mark = stamp(self._journal, items, records)
        await self._journal.wait_committed(mark, self._config.flush_timeout)
        started = await self._next()
        return QueueNext(cursor=self._journal.cursor, generation_id=started)

    async def _next(self) -> str | None:
        """Start the next one, if it may; tells which."""
        while self.possible:
            item = self._lineup.queue.items[0]
            try:
                producer = self._find_producer(item.producer)
            except ProducerNotFound:
                ending = Ending(outcome="failed", code="PRODUCER_NOT_FOUND", message="Nobody here can produce it.")
                items, records = drop_part(self._lineup.queue, item, ending)
                stamp(self._journal, items, records)
                continue
            await self._begin(item, producer)
            return item.generation_id
        return None
