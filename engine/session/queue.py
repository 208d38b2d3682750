"""What waits for its turn in one session: the queue as it changes, and stops that came before their start.

Every coroutine here is part of a lifecycle step, or one itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, final

import trio

from ..config import Config
from ..errors import GenerationNotFound
from ..generation.generation import Producer
from ..generation.stamper import stamp
from ..results import Queued
from ..rules.ending import SAFE_TEXTS, Ending
from ..rules.policy import Enqueue, Policy
from ..rules.queue import Queue, QueuedStart
from ..rules.states import Outcome
from ..stream.journal import Journal
from .idempotency import Answers
from .transaction import (
    NOTHING,
    Part,
    StartRequest,
    drop_part,
    enqueue_part,
    joined,
    pause_part,
)

__all__ = ["Lineup", "PendingStops", "request_of"]

# Stops that name generations nobody has seen; a client that invents more than this gains nothing.
_MAX_PENDING_STOPS: Final = 64


@final
class PendingStops:
    """Stops of generations nobody has seen yet, each remembered for a while."""

    __slots__ = ("_seconds", "_until")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._until: dict[str, float] = {}

    def __len__(self) -> int:
        now = trio.current_time()
        self._until = {gid: until for gid, until in self._until.items() if until > now}
        return len(self._until)

    def add(self, generation_id: str) -> None:
        while len(self._until) >= _MAX_PENDING_STOPS:
            del self._until[next(iter(self._until))]
        self._until[generation_id] = trio.current_time() + self._seconds

    def take(self, generation_id: str) -> bool:
        """Whether the generation was stopped before it was seen; told once."""
        until = self._until.pop(generation_id, None)
        return until is not None and until > trio.current_time()


@final
class Lineup:
    """The queue of one session. `queue` is what was stamped; a refused write has it read anew."""

    __slots__ = ("_answers", "_config", "_journal", "queue")

    def __init__(self, journal: Journal, config: Config, answers: Answers) -> None:
        self._journal = journal
        self._config = config
        self._answers = answers
        self.queue = Queue()

    async def add(self, request: StartRequest, decision: Enqueue) -> Queued:
        """Queue the start, in place of those it pushes out; durable when this returns."""
        self._journal.check()
        pushed_out = [item for item in self.queue.items if item.generation_id in decision.pushed_out]
        # It takes its place before the others leave theirs: a queue that is empty in between would no longer be paused.
        enqueued = enqueue_part(self.queue, request, decision.position)
        parts = [self.dropped(pushed_out, "superseded", by=request.generation_id), enqueued]
        if request.stopped:
            parts.append(self.dropped(self.queue.items[-1:], "stopped"))
        items, records = joined(*parts)
        mark = stamp(self._journal, items, self._answers.records(request, records, position=decision.position))
        await self._journal.wait_committed(mark, self._config.flush_timeout)
        return Queued(
            generation_id=request.generation_id,
            position=decision.position,
            cursor=self._journal.cursor_at(mark),
        )

    def dropped(self, items: Sequence[QueuedStart], outcome: Outcome, *, by: str | None = None) -> Part:
        """The part that ends these without their having begun. Stamp it at once."""
        ending = Ending(outcome=outcome, code=outcome.upper(), message=SAFE_TEXTS[outcome], superseded_by=by)
        return joined(*(drop_part(self.queue, item, ending) for item in list(items)))

    def after_stop(self, choice: str, reason: str) -> Part:
        """What a stop makes of the queue: ``pause``, ``continue`` or ``clear``. Stamp it at once."""
        if choice == "clear":
            return self.dropped(self.queue.items, "stopped")
        return pause_part(self.queue, reason) if choice == "pause" else NOTHING

    async def drop(self, generation_id: str) -> None:
        """Take a waiting generation out; it ends as ``stopped``. Raises `GenerationNotFound`."""
        item = self.queue.find(generation_id)
        if item is None:
            raise GenerationNotFound(
                "no queued generation has this id", session_id=self._journal.session_id, generation_id=generation_id
            )
        self._journal.check()
        items, records = self.dropped([item], "stopped")
        await self._journal.wait_committed(stamp(self._journal, items, records), self._config.flush_timeout)


def request_of(item: QueuedStart, producer: Producer) -> StartRequest:
    """The start that waited, its turn come."""
    return StartRequest(
        generation_id=item.generation_id,
        proposed=False,
        producer=producer,
        producer_name=item.producer,
        registered=True,
        policy=Policy(item.policy),
        text=item.text,
        input=item.input,
        job_id=item.job_id,
        metadata=item.metadata,
        replaces=item.replaces,
        on_last_disconnect=item.on_last_disconnect,
        message_id=item.message_id,
    )
