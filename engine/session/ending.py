"""How one session's generations end: by themselves, at a limit, by a stop, a reset, a deletion, a shutdown.

Every public coroutine here is a lifecycle step: the session runs them one at a time. The end is written in the
session's order, with what it means for those that wait.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import final

from attrs import evolve

from ..config import Config
from ..errors import CorruptSession, Draining
from ..events import SessionReset
from ..generation.run import Run
from ..generation.stamper import stamp
from ..generation.watchdog import LimitName
from ..results import Stopped, StopState
from ..rules.ending import Ending
from ..rules.lifecycle import Draft
from ..rules.states import Outcome
from ..stream.history import Reads
from ..stream.journal import Journal, Mark
from .queue import Lineup, PendingStops
from .slot import Slot
from .transaction import NOTHING, Part, StartRequest, joined

__all__ = ["Endings"]


@final
class Endings:
    """Ends what is live in one session in memory, and answers truly what became of it."""

    __slots__ = ("_config", "_journal", "_lineup", "_pending_stops", "_reads", "_slot")

    def __init__(
        self,
        journal: Journal,
        reads: Reads,
        config: Config,
        *,
        slot: Slot,
        lineup: Lineup,
        pending_stops: PendingStops,
    ) -> None:
        self._journal = journal
        self._reads = reads
        self._config = config
        self._slot = slot
        self._lineup = lineup
        self._pending_stops = pending_stops

    async def finish(self, run: Run) -> None:
        """Write the end of a generation whose producer is done, unless another step was there first."""
        if self._slot.live is run and self._journal.refused is None:
            self._slot.write_end(run, run.ending())

    async def end_at_limit(self, run: Run, limit: LimitName) -> None:
        """End a generation that reached a limit of its own, unless it ended meanwhile.

        A ``disconnected`` one is stopped.
        """
        if self._journal.refused is not None or self._slot.finished_first() is not run:
            return
        stopped = limit == "disconnected"
        outcome: Outcome = "stopped" if limit == "disconnected" else limit
        if limit == "stalled" and run.stand_in is not None and run.stand_in.is_lost:
            outcome = limit = "lost"
        ending, _ = await self._slot.wind_down(run, outcome, reason=limit)
        queue = self._lineup.after_stop("pause", limit) if stopped else NOTHING
        self._slot.write_end(run, ending, more=queue)

    async def stop(
        self, generation_id: str | None, reason: str, reached: Sequence[StartRequest], queue: str
    ) -> Stopped:
        """Stop the live generation, or tell what became of the one meant.

        ``reached`` are the starts that were caught while they waited. ``queue`` says what becomes of the waiting
        ones when the live one is stopped, or when no id is given: ``pause``, ``continue`` or ``clear``.
        """
        live = self._slot.finished_first()
        if live is not None and generation_id in (None, live.generation_id):
            ending, _ = await self._slot.wind_down(live, "stopped", reason=reason)
            mark = self._slot.write_end(live, ending, more=self._lineup.after_stop(queue, reason))
            await self._journal.wait_committed(mark, self._config.flush_timeout)
            return Stopped(state=_found(ending), generation_id=live.generation_id)
        waiting = None if generation_id is None else self._lineup.queue.find(generation_id)
        if waiting is not None:
            await self._lineup.drop(waiting.generation_id)
            return Stopped(state="stopped", generation_id=generation_id)
        if generation_id is None and live is None:
            items, records = self._lineup.after_stop(queue, reason)
            stamp(self._journal, items, records)
        await self._journal.wait_committed(self._journal.mark(), self._config.flush_timeout)
        return await self._tell(generation_id, reached)

    async def _tell(self, generation_id: str | None, reached: Sequence[StartRequest]) -> Stopped:
        """What a stop found that has nothing to stop."""
        for request in reversed(reached):
            record = await self._reads.generation(request.generation_id)
            if record is not None and record.outcome == "stopped":
                return Stopped(state="stopped", generation_id=request.generation_id)
        if generation_id is None:
            return Stopped(state="nothing_active")
        if await self._reads.generation(generation_id) is not None:
            return Stopped(state="already_done", generation_id=generation_id)
        self._pending_stops.add(generation_id)
        return Stopped(state="pending", generation_id=generation_id)

    async def reset(self, reason: str | None) -> Mark:
        """End what is live and what waits as ``reset``; then nothing of the transcript is left."""

        def rest() -> Part:
            drops = self._lineup.dropped(self._lineup.queue.items, "reset")
            return joined(drops, (iter([(None, Draft(SessionReset(reason=reason)))]), {}))

        return await self._end_live("reset", rest)

    async def end_live(self, outcome: Outcome) -> None:
        """End what is live, whatever it is, and wait until everything written so far is durable."""
        await self._end_live(outcome, lambda: NOTHING)

    async def end_corrupt(self) -> None:
        """End what is live because what is stored of the session cannot be read; durable when this returns."""
        live = self._slot.finished_first()
        if live is None:
            return
        ending, _ = await self._slot.wind_down(live, "failed", reason="corrupt")
        if live.failure is None:
            ending = evolve(ending, code=CorruptSession.code, message="What is stored of the session cannot be read.")
        await self._journal.wait_committed(self._slot.write_end(live, ending), self._config.flush_timeout)

    async def leave(self) -> None:
        """The engine shuts down: end what is live as ``shutdown``. A remote one stays open in the log.

        Its producer goes on with whoever opens the log next; what it wrote so far is durable when this returns.
        """
        live = self._slot.finished_first()
        if live is None or live.stand_in is None:
            await self.end_live("shutdown")
            return
        live.refuse(
            lambda: Draining(
                "the engine is shutting down; go on with the next one",
                session_id=self._journal.session_id,
                generation_id=live.generation_id,
            )
        )
        self._slot.live = None  # first: the end of its task writes nothing, then
        live.cancel("the engine shuts down")
        await self._journal.wait_committed(self._journal.mark(), self._config.flush_timeout)

    async def _end_live(self, outcome: Outcome, rest: Callable[[], Part]) -> Mark:
        """End what is live and write ``rest`` behind it, as they are then; returns after the commit."""
        live = self._slot.finished_first()
        if live is not None:
            ending, _ = await self._slot.wind_down(live, outcome)
            mark = self._slot.write_end(live, ending, more=rest())
        else:
            self._journal.raise_token()
            mark = stamp(self._journal, *rest())
        await self._journal.wait_committed(mark, self._config.flush_timeout)
        return mark


def _found(ending: Ending) -> StopState:
    """What a stop may say of the generation that it ended so: one that failed meanwhile was not stopped."""
    if ending.outcome != "stopped":
        return "already_done"
    return "stopped" if ending.cleanup == "clean" else "stopping"
