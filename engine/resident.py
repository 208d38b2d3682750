"""A session in memory: its task, its steps, its live generation.

Owns the order of what happens to the session. Lifecycle steps run in `run`, one at a time; the live
generation writes beside them through the journal. The names that applications use are `session`'s.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar, final

import trio

from .config import Config
from .control import Control
from .endings import Endings
from .errors import Draining, PenstockError, SessionDeleted, StaleEpoch, StorageError, TimedOut, WriteFailed
from .events import Cursor, JSONObject, MessageSnapshot
from .generation import Run
from .hub import Degraded, Ended, Hub
from .idempotency import Answers
from .journal import Budget, Journal
from .lineup import Lineup, PendingStops
from .log.port import Delete, EventLog, Head
from .messages import Messages
from .parts import StartRequest
from .producing import Producer
from .reads import ForkPoint, Reads
from .results import GenerationInfo, Posted, Queued, Started, Stopped
from .settlement import Settlement
from .slot import Slot
from .steps import Steps

__all__ = ["Resident"]

logger = logging.getLogger("penstock.session")

T = TypeVar("T")


@final
class Resident:
    """One session in memory, from its opening to its eviction, deletion or the engine's end."""

    def __init__(
        self,
        log: EventLog,
        head: Head,
        budget: Budget,
        config: Config,
        *,
        find_producer: Callable[[str], Producer],
        on_closed: Callable[[Resident], None],
    ) -> None:
        self._log = log
        self._config = config
        self._on_closed = on_closed
        self._steps = Steps(config.max_steps)
        self.hub = Hub(config.subscriber_buffer, config.subscriber_bytes)
        self.journal = Journal(log, head, hub=self.hub, budget=budget, config=config, on_refused=self._on_refused)
        self.reads = Reads(log, self.journal, self.hub, config)
        self.messages = Messages(self.journal, self.reads, config, check_open=self._check_open)
        self.slot = Slot(self.journal, config, on_finished=self._on_finished, on_freed=self._steps.nudge)
        answers = Answers(self.journal, self.reads, config.idempotency_ttl)
        self.lineup = Lineup(self.journal, config, answers)
        pending_stops = PendingStops(config.pending_stop)
        self.endings = Endings(
            self.journal, self.reads, config, slot=self.slot, lineup=self.lineup, pending_stops=pending_stops
        )
        self.control = Control(
            self.journal,
            self.reads,
            config,
            slot=self.slot,
            lineup=self.lineup,
            answers=answers,
            pending_stops=pending_stops,
            messages=self.messages,
            launch=self._launch,
            find_producer=find_producer,
        )
        self._settlement = Settlement(log, config, self.journal, control=self.control, lineup=self.lineup)
        self.closed = False
        self.deleted = False
        self._deleting = False
        self._draining = False
        self._repairing = False
        self._posting = 0
        self._next_at = -math.inf  # when the queue is tried again, by the trio clock, after its next could not start
        self._life = trio.CancelScope()
        self._opened = trio.Event()
        self._failure: PenstockError | None = None
        self._nursery: trio.Nursery | None = None

    @property
    def session_id(self) -> str:
        return self.journal.session_id

    @property
    def writable(self) -> bool:
        """Whether the log took the session's last write, and nothing is being repaired."""
        return self.journal.refused is None and not self._repairing

    # --- the session's task

    async def wait_open(self) -> None:
        """Wait until the session can be used; at once, without a checkpoint, when it can.

        Raises `StorageError` when the log cannot be read, or what a dead process left open cannot be ended.
        """
        if not self._opened.is_set():
            await self._opened.wait()
        if self._failure is not None:
            raise self._failure

    async def run(self) -> None:
        """Take over from whoever wrote before, then carry out steps until closed. Stragglers keep it alive."""
        with self._life:
            try:
                if not await self._settlement.settle("lost", "LOST", within=self._config.flush_timeout):
                    self._end("deleted")
            except PenstockError as error:
                self._failure = error
                self.close()
                return
            finally:
                self._opened.set()
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                while not self.closed:
                    self._advance()
                    idle, retry = self._config.idle_session, self._next_at - trio.current_time()
                    with trio.move_on_after(min(retry, idle) if retry > 0 else idle):
                        await self._steps.wait()
                    if len(self._steps):
                        await self._steps.run_next()
                    elif self._idle():
                        self.close()

    def _idle(self) -> bool:
        busy = self.control.busy or self.control.can_advance or len(self.hub) or self.reads.busy or self._posting
        return not busy and self.journal.clean

    def _advance(self) -> None:
        """Let the next queued generation start, if its time has come; before all steps that wait."""
        if not self.control.can_advance or trio.current_time() < self._next_at:
            return
        if not (self._draining or self._deleting or self.closed):
            self._steps.add(self._start_next, first=True)

    async def _start_next(self) -> None:
        """Start what is next; what fails for the log's sake is tried again, and the steps that wait come in between."""
        try:
            await self.control.advance()
        except (StorageError, TimedOut) as error:
            logger.warning("session %s: what waits cannot start yet: %s", self.session_id, error)
            if self.journal.refused is None:  # else the repair stands before the next try
                self._next_at = trio.current_time() + self._config.retry_max

    def _on_finished(self, run: Run) -> None:
        self._steps.add(partial(self.endings.finish, run))

    def _on_limit(self, run: Run, limit: str) -> None:
        self._steps.add(partial(self.endings.end_at_limit, run, limit))

    def _launch(self, run: Run) -> None:
        assert self._nursery is not None
        self._nursery.start_soon(run.supervise, name=f"penstock generation {run.generation_id}")
        limit_reached = partial(self._on_limit, run)
        self._nursery.start_soon(run.watch, self.hub, limit_reached, name=f"penstock watchdog {run.generation_id}")

    def close(self) -> None:
        """Leave memory: no further step is taken and what waits is turned away. Idempotent."""
        if not self.closed:
            self.closed = True
            self._steps.refuse_waiting(self._gone)
            self._steps.nudge()
            self._on_closed(self)

    def abandon(self) -> None:
        """Close, and give up the step under way: a repair that cannot succeed now is left to the next opening."""
        self.close()
        self.slot.fail(self._gone())
        self._life.cancel(reason="penstock: the engine closes")
        self.journal.close()

    def _gone(self) -> PenstockError:
        if self.deleted or self._deleting:
            return SessionDeleted("the session was deleted", session_id=self.session_id)
        return Draining("the engine is shutting down", session_id=self.session_id)

    def _check_open(self) -> None:
        if self.closed or self._draining or self._deleting:
            raise self._gone()
        self._check_writable()

    def _check_writable(self) -> None:
        self.journal.check()
        if self._repairing:
            raise WriteFailed("nothing can be stored at present", session_id=self.session_id)

    # --- what sessions are asked for

    async def start(self, request: StartRequest) -> Started | Queued:
        """Start in its turn."""
        self._check_open()
        return await self._steps.take(partial(self._start, request), subject=request)

    async def _start(self, request: StartRequest) -> Started | Queued:
        self._check_open()
        return await self.control.start(request)

    async def stop(self, generation_id: str | None, reason: str, queue: str) -> Stopped:
        """Stop in its turn; starts that wait before it are reached at once, their producers are never called."""
        if self.closed:
            raise self._gone()
        self._check_writable()
        self._steps.check_room()
        reached = self._waiting_starts(generation_id)
        for request in reached:
            request.stopped = True
        return await self._steps.take(partial(self.endings.stop, generation_id, reason, reached, queue))

    def _waiting_starts(self, generation_id: str | None) -> list[StartRequest]:
        starts = [subject for subject in self._steps.subjects() if isinstance(subject, StartRequest)]
        return [start for start in starts if generation_id in (None, start.generation_id)]

    async def post(self, message: MessageSnapshot, message_id: str, *, proposed: bool) -> Posted:
        """Append a whole message, beside the steps: a post does not wait for anybody's clean-up."""
        self._check_open()
        self._posting += 1
        try:
            return await self.messages.post(message, message_id, proposed=proposed)
        finally:
            self._posting -= 1

    async def step(self, work: Callable[[], Awaitable[T]]) -> T:
        """Have any other lifecycle step done in its turn."""
        self._check_open()
        return await self._steps.take(partial(self._checked, work))

    async def _checked(self, work: Callable[[], Awaitable[T]]) -> T:
        self._check_open()
        return await work()

    async def retract(self, message_id: str, *, and_after: bool) -> Cursor:
        """Take the message out of the transcript, and those behind it."""
        return await self.messages.retract(message_id, and_after=and_after, kept=self.slot.message_ids)

    async def fork(self, at: Cursor | str | None) -> ForkPoint:
        """What a fork begins with: flushed, and read at a cursor or up to a message's end."""
        await self.journal.wait_committed(self.journal.mark(), self._config.flush_timeout)
        return await self.reads.fork_point(at)

    async def input(
        self, generation_id: str, kind: str, content: JSONObject, *, input_id: str | None, by: str | None
    ) -> str:
        """Take in an input, beside the steps, and wait until it is durable."""
        self._check_open()
        taken = await self.control.input(generation_id, kind, content, input_id, by)
        await self.journal.wait_committed(self.journal.mark(), self._config.flush_timeout)
        return taken

    async def generation(self, generation_id: str) -> GenerationInfo:
        """Where the generation stands."""
        return self.slot.info(generation_id) or await self.reads.generation_info(generation_id)

    # --- delete and drain

    async def delete(self) -> None:
        """End what is live as ``deleted``, then this life of the session. Later requests get `SessionDeleted`."""
        if self.closed:
            raise self._gone()
        self._check_writable()
        self._steps.check_room()
        for request in self._waiting_starts(None):
            request.stopped = True
        await self._steps.take(self._delete)

    async def _delete(self) -> None:
        self.journal.check()
        self._deleting = True
        try:
            await self.endings.end_live("deleted")
            await self._remove()
        except BaseException:
            self._deleting = False
            raise

    async def _remove(self) -> None:
        """End this life in the log. When the disk hangs it ends whenever the log says so, without a caller."""
        refusals: list[PenstockError] = []
        reported = trio.Event()

        def report(error: PenstockError | None) -> None:
            # This life is over also when an earlier delete was stored and reported as failed.
            if error is None or isinstance(error, StaleEpoch):
                self._end("deleted")
            else:
                refusals.append(error)
            reported.set()

        self.journal.raise_token()
        delete = Delete(session_id=self.session_id, epoch=self.journal.epoch, token=self.journal.token)
        self._log.submit(delete, report)
        with trio.move_on_after(self._config.flush_timeout):
            await reported.wait()
        if refusals:
            raise refusals[0]
        if not reported.is_set():
            raise TimedOut("the log has not deleted the session yet", session_id=self.session_id)

    def _end(self, reason: str) -> None:
        self.deleted = True
        self.hub.close(Ended(reason))
        self.close()

    async def drain(self) -> None:
        """End what is live as ``shutdown``; nothing starts any more."""
        self._draining = True
        self._steps.refuse_waiting(self._gone)
        while not self.closed:
            try:
                await self._steps.take(partial(self.endings.end_live, "shutdown"))
            except WriteFailed:
                continue  # behind the repair, which ends what the log holds open
            return

    # --- storage trouble

    def _on_refused(self, error: PenstockError) -> None:
        """The log refused a write: what was stamped behind it is gone. Called in the log's report."""
        self.slot.fail(error)
        if self.closed:
            return
        logger.error("session %s: a write was refused: %s", self.session_id, error)
        self.hub.degrade(Degraded("WRITE_FAILED"))
        self._steps.refuse_waiting(lambda: WriteFailed("nothing can be stored at present", session_id=self.session_id))
        if not self._repairing:
            self._repairing = True
            self._steps.add(self._repair, first=True)

    async def _repair(self) -> None:
        """Go back to what is committed, as soon as the log takes writes; callers are turned away meanwhile."""
        await self.slot.forget()
        if not await self._settlement.retry("failed", "WRITE_FAILED"):
            self._end("deleted")
        self._repairing = False
        self.hub.recover()
