"""A session in memory: its task, its steps, its live generation.

Owns the order of what happens to the session. Lifecycle steps run in `run`, one at a time; the live
generation writes beside them through the journal. The names that applications use are `session`'s.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TypeVar, final

import trio

from .advancing import Advance
from .chunks import Chunk, ProducerStamp
from .closing import Ending
from .config import Config
from .control import Control
from .deletion import Deletion
from .endings import Endings
from .errors import Draining, PenstockError, SessionDeleted, WriteFailed
from .events import Cursor, JSONObject, MessageSnapshot
from .generation import Run
from .hub import Degraded, Ended, Hub
from .idempotency import Answers
from .journal import Budget, Journal
from .lineup import Lineup, PendingStops
from .log.port import EventLog, Head
from .messages import Messages
from .observer import Observer
from .parts import StartRequest
from .presence import Presence
from .producing import Producer
from .reads import ForkPoint, Reads
from .remote import Remotes
from .results import ChunksAccepted, Finished, GenerationInfo, Posted, Queued, Started, Stopped
from .runs import Runs
from .settlement import Settlement
from .slot import Slot
from .steps import Steps
from .witness import Witness

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
        observer: Observer,
        on_closed: Callable[[Resident], None],
    ) -> None:
        self._log = log
        self._config = config
        self._on_closed = on_closed
        self._steps = Steps(config.max_steps)
        self.hub = Hub(config.subscriber_buffer, config.subscriber_bytes, witness=Witness(head.session_id, observer))
        self.presence = Presence(head.session_id, self.hub, config, launch=self._launch_clock)
        self.journal = Journal(log, head, hub=self.hub, budget=budget, config=config, on_refused=self._on_refused)
        self.reads = Reads(log, self.journal, self.hub, self.presence, config)
        self.messages = Messages(self.journal, self.reads, config, check_open=self._check_open)
        self.slot = Slot(self.journal, config, on_finished=self._on_finished, on_freed=self._steps.nudge)
        answers = Answers(self.journal, self.reads, config.idempotency_ttl)
        self.lineup = Lineup(self.journal, config, answers)
        pending_stops = PendingStops(config.pending_stop)
        self.endings = Endings(
            self.journal, self.reads, config, slot=self.slot, lineup=self.lineup, pending_stops=pending_stops
        )
        runs = Runs(
            self.journal,
            self.reads,
            config,
            slot=self.slot,
            messages=self.messages,
            find_producer=find_producer,
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
            runs=runs,
            launch=self._launch,
        )
        self.advance = Advance(
            self.journal,
            config,
            slot=self.slot,
            lineup=self.lineup,
            begin=self.control.begin_waiting,
            find_producer=find_producer,
        )
        self.remotes = Remotes(
            self.journal,
            self.reads,
            config,
            slot=self.slot,
            control=self.control,
            messages=self.messages,
            check_open=self._check_open,
            take_step=self.step,
        )
        self._deletion = Deletion(log, self.journal, config, endings=self.endings, on_deleted=self._end)
        self._settlement = Settlement(log, config, self.journal, control=self.control, runs=runs, lineup=self.lineup)
        self.closed = False
        self.deleted = False
        self._draining = False
        self._repairing = False
        self._using = 0
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
                within = self._config.flush_timeout
                if not await self._settlement.settle("lost", "LOST", keep_remote=True, within=within):
                    self._end()
            except PenstockError as error:
                self._failure = error
                self.close()
                return
            finally:
                self._opened.set()
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                if self.slot.live is not None:  # a remote one, which goes on
                    self.slot.live.launched = True
                    self._launch(self.slot.live)
                while not self.closed:
                    self._advance()
                    idle, retry = self._config.idle_session, self.advance.not_before - trio.current_time()
                    with trio.move_on_after(min(retry, idle) if retry > 0 else idle):
                        await self._steps.wait()
                    if len(self._steps):
                        await self._steps.run_next()
                    elif self._idle():
                        self.close()

    def _idle(self) -> bool:
        watched = len(self.hub) or len(self.presence) or self.reads.busy
        busy = self.control.busy or self.advance.possible or watched or self._using
        return not busy and self.journal.clean

    def _advance(self) -> None:
        """Let the next queued generation start, if its time has come; before all steps that wait."""
        if self.advance.due and not (self._draining or self._deletion.under_way or self.closed):
            self._steps.add(self.advance.start_next, first=True)

    def _on_finished(self, run: Run) -> None:
        self._steps.add(partial(self.endings.finish, run))

    def _on_limit(self, run: Run, limit: str) -> None:
        self._steps.add(partial(self.endings.end_at_limit, run, limit))

    def _launch(self, run: Run) -> None:
        assert self._nursery is not None
        self._nursery.start_soon(run.supervise, name=f"penstock generation {run.generation_id}")
        limit_reached = partial(self._on_limit, run)
        self._nursery.start_soon(run.watch, self.hub, limit_reached, name=f"penstock watchdog {run.generation_id}")

    def _launch_clock(self, work: Callable[[], Awaitable[None]]) -> None:
        assert self._nursery is not None
        self._nursery.start_soon(work, name=f"penstock presence {self.session_id}")

    def close(self) -> None:
        """Leave memory: no further step is taken and what waits is turned away. Idempotent."""
        if not self.closed:
            self.closed = True
            self._steps.refuse_waiting(self._gone)
            self._steps.nudge()
            self.presence.close()
            self._on_closed(self)

    def abandon(self) -> None:
        """Close, and give up the step under way: a repair that cannot succeed now is left to the next opening."""
        self.close()
        self.slot.fail(self._gone())
        self._life.cancel(reason="penstock: the engine closes")
        self.journal.close()

    def _gone(self) -> PenstockError:
        if self.deleted or self._deletion.under_way:
            return SessionDeleted("the session was deleted", session_id=self.session_id)
        return Draining("the engine is shutting down", session_id=self.session_id)

    def _check_open(self) -> None:
        if self.closed or self._draining or self._deletion.under_way:
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
        with self._in_use():
            return await self.messages.post(message, message_id, proposed=proposed)

    @contextmanager
    def _in_use(self) -> Iterator[None]:
        """Keep the session in memory for a caller that is not a step."""
        self._using += 1
        try:
            yield
        finally:
            self._using -= 1

    async def step(self, work: Callable[[], Awaitable[T]], *, subject: object = None) -> T:
        """Have any other lifecycle step done in its turn."""
        self._check_open()
        return await self._steps.take(partial(self._checked, work), subject=subject)

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

    # --- remote producers

    async def chunks(self, chunks: Sequence[Chunk], stamp: ProducerStamp | None) -> ChunksAccepted:
        """Take chunks of a remote producer, beside the steps unless they are its first."""
        with self._in_use():
            return await self.remotes.chunks(chunks, stamp)

    async def finish(self, generation_id: str, ending: Ending, stamp: ProducerStamp | None) -> Finished:
        """End a remote generation in its turn."""
        with self._in_use():
            return await self.remotes.finish(generation_id, ending, stamp)

    async def wait_fenced(self, generation_id: str) -> PenstockError:
        """What every write of the generation's producer raises, once there is such a thing."""
        with self._in_use():
            return await self.remotes.wait_fenced(generation_id)

    async def generation(self, generation_id: str) -> GenerationInfo:
        """Where the generation stands, of what is stored: one whose start is not was never seen."""
        stored = await self.reads.generation_info(generation_id)
        live = self.slot.info(generation_id)
        return live if live is not None and stored.turn is not None else stored

    # --- delete and drain

    async def delete(self) -> None:
        """End what is live as ``deleted``, then this life of the session. Later requests get `SessionDeleted`."""
        if self.closed:
            raise self._gone()
        self._check_writable()
        self._steps.check_room()
        for request in self._waiting_starts(None):
            request.stopped = True
        await self._steps.take(self._deletion.carry_out)

    def _end(self) -> None:
        self.deleted = True
        self.hub.close(Ended("deleted"))
        self.close()

    async def drain(self) -> None:
        """End what is live as ``shutdown``, but for a remote generation; nothing starts any more."""
        self._draining = True
        self._steps.refuse_waiting(self._gone)
        while not self.closed:
            try:
                await self._steps.take(self.endings.leave)
            except WriteFailed:
                continue  # behind the repair, which ends what the log holds open
            return

    # --- storage trouble

    def _on_refused(self, error: PenstockError) -> None:
        """The log refused a write: what was stamped behind it is gone. Called in the log's report."""
        self.slot.fail(error)
        if self.closed:
            return
        self.hub.witness.refused(error)
        self.hub.degrade(Degraded("WRITE_FAILED"))
        self._steps.refuse_waiting(lambda: WriteFailed("nothing can be stored at present", session_id=self.session_id))
        if not self._repairing:
            self._repairing = True
            self._steps.add(self._repair, first=True)

    async def _repair(self) -> None:
        """Go back to what is committed, as soon as the log takes writes; callers are turned away meanwhile."""
        await self.slot.forget()
        if not await self._settlement.retry("failed", "WRITE_FAILED"):
            self._end()
        self._repairing = False
        self.hub.recover()
        self.hub.witness.repaired()
