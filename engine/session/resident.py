"""A session in memory: its task, its nursery, its steps, its live generation.

Owns the order of what happens to the session. Whatever goes on in it is one task with a nursery: the task carries out
lifecycle steps, one at a time; the producers and the clock of who is present are the nursery's children, and cancelling
its scope ends all of them. When there is nothing to do the nursery closes, and the session rests in memory without a
task until the next step. The live generation writes beside the steps, through the journal. The names that applications
use are `session`'s.
"""

from __future__ import annotations

import logging
import math
from collections.abc import AsyncIterable, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, TypeVar, final

import trio
from attrs import evolve

from ..config import Config
from ..errors import (
    CorruptSession,
    Draining,
    GenerationMismatch,
    Moved,
    PenstockError,
    SessionDeleted,
    StaleGeneration,
    StaleToken,
    TimedOut,
    WentBack,
    WriteFailed,
)
from ..events import Cursor, JSONObject, MessageSnapshot
from ..facts import Observer, SteppedDown
from ..generation.run import LimitName, Run, RunContext
from ..log.port import EventLog, Head, Release
from ..observers.reporting import Reporter
from ..reducer import Snapshot
from ..results import ChunksAccepted, FileKept, Finished, GenerationInfo, Posted, Queued, Started, Stopped
from ..rules.chunks import Chunk, ProducerStamp
from ..rules.ending import Ending
from ..rules.records import state_of
from ..stream.budget import Budget
from ..stream.history import ForkPoint, History
from ..stream.hub import WENT_BACK, Degraded, Drained, Ended, Hub
from ..stream.journal import Journal
from ..stream.message_ids import MessageIds
from ..stream.presence import LocalPresence, Presence
from ..supervision import EXITS, own_failure
from .arguments import checked_page
from .core import Core
from .ending import end_at_limit, end_corrupt, end_live, finish, forget, leave, remove, stop
from .files import Files, read_file
from .idempotency import Answers
from .life import Call, Life, Phase
from .messages import post
from .queue import due, may_start, start_next
from .recovery import claim_anew, retry, settle, used_up
from .remote import Remotes
from .starting import start
from .steps import Steps
from .stops import PendingStops
from .transaction import StartRequest

if TYPE_CHECKING:
    from .registry import Registry
    from .views import View

__all__ = ["Resident"]

logger = logging.getLogger("penstock.session")

T = TypeVar("T")


@final
class Resident:
    """One session in memory, from its opening to its eviction, deletion or the engine's end."""

    __slots__ = (
        "_config",
        "_failure",
        "_files",
        "_nursery",
        "_opening",
        "_registry",
        "_remotes",
        "_repairing",
        "_stepping",
        "_using",
        "_working",
        "core",
        "history",
        "hub",
        "journal",
        "life",
        "presence",
        "steps",
        "view",
    )

    def __init__(
        self,
        log: EventLog,
        head: Head,
        budget: Budget,
        config: Config,
        *,
        observer: Observer,
        registry: Registry,
        view: View | None = None,
    ) -> None:
        """``view`` has its readers, where other engines share the log; they stay there when it leaves memory."""
        self._config = config
        self._registry = registry
        self.view = view
        self.steps = Steps(config.max_steps, check=self.check, on_arrival=self._see_to_steps)
        if view is None:
            reporter = Reporter(head.session_id, observer)
            self.hub = Hub(config.subscriber_buffer, config.subscriber_bytes, reporter=reporter)
            self.presence: Presence = LocalPresence(head.session_id, self.hub, config, launch=self._launch_clock)
        else:
            self.hub, self.presence = view.hub, view.presence
        self.journal = Journal(
            log,
            head,
            hub=self.hub,
            budget=budget,
            config=config,
            on_refused=self._on_refused,
            on_listed=registry.listing.changes.touch,
            bus=registry.bus,
        )
        if view is None:
            self.history = History(
                log,
                self.journal,
                self.hub,
                self.presence,
                config,
                on_corrupt=registry.set_aside,
                on_missed=registry.doubts.missed,
            )
        else:
            self.history = view.history
        message_ids = MessageIds(self.journal, self.history, config)
        self.core = Core(
            log=log,
            config=config,
            journal=self.journal,
            history=self.history,
            message_ids=message_ids,
            answers=Answers(self.journal, self.history, config.idempotency_ttl),
            stops=PendingStops(config.pending_stop),
            context=RunContext(
                readers=self.hub if view is None else view.audience,
                message_ids=message_ids,
                find_producer=registry.producers.named,
                take_snapshot=self.take_snapshot,
                read_file=self.read_file,
                on_done=self.on_done,
                on_limit=self.on_limit,
            ),
            launch=self._launch,
            owner=registry.owner,
        )
        self._remotes: Remotes | None = None  # most sessions have none, and are never deleted
        self._files: Files | None = None  # likewise
        self.life = Life(head.session_id)
        self._repairing = False
        self._using = 0
        self._working = False  # there is its task
        self._nursery: trio.Nursery | None = None  # while anything may be started in it
        self._stepping: trio.CancelScope | None = None  # around the steps, for as long
        self._opening: trio.Event | None = trio.Event()
        self._failure: PenstockError | None = None

    @property
    def session_id(self) -> str:
        return self.journal.session_id

    @property
    def closed(self) -> bool:
        """Whether it has left memory."""
        return self.life.closed

    @property
    def remotes(self) -> Remotes:
        """Its remote producers; made when the first is heard of."""
        if self._remotes is None:
            self._remotes = Remotes(self.core, self.steps)
        return self._remotes

    @property
    def files(self) -> Files:
        """The files that it keeps; made when the first is asked for."""
        if self._files is None:
            self._files = Files(self.core, partial(self.check, Call.WRITE))
        return self._files

    @property
    def writable(self) -> bool:
        """Whether the log took the session's last write, and nothing is being repaired."""
        return self.journal.refused is None and not self._repairing

    @property
    def owns(self) -> bool:
        """Whether it writes in the session, as far as it knows: it is open, and has not left memory."""
        return self._opening is None and not self.closed

    # --- the task that carries out steps

    async def wait_open(self) -> None:
        """Wait until the session can be used; at once, without a checkpoint, when it can.

        Raises `CorruptSession`, `StorageError` when the log cannot be read, or what a dead process left open cannot be
        ended, and `WentBack` when the store went back meanwhile.
        """
        if self._opening is not None:
            with self._in_use():
                await self._opening.wait()
        if self._failure is not None:
            raise self._failure

    def open(self) -> None:
        """Take over from whoever wrote before, in a task of its own; `wait_open` tells when that is done."""
        self._see_to_steps()

    def _see_to_steps(self) -> None:
        if not self._working and not self.closed:
            self._working = True
            self._registry.wake(self)

    async def work(self) -> None:
        """Its task, until there is nothing to do in it."""
        try:
            while True:
                async with trio.open_nursery() as nursery:
                    await self._live(nursery)
                if self.closed or not len(self.steps):
                    return
        finally:
            self._working = False
            self._registry.rested(self)
            if len(self.steps):  # they came while the nursery waited for the last of its children
                self._see_to_steps()

    async def _live(self, nursery: trio.Nursery) -> None:
        """Carry out steps, as long as any come, or anything runs in the nursery that they may be for.

        They are shielded from the nursery's scope. That one ends what runs in it; to write down the end is a step.
        """
        self._nursery = nursery
        try:
            with trio.CancelScope(shield=True) as self._stepping:
                while True:
                    try:
                        await self._take_steps(nursery)
                        break
                    except EXITS as exit_:  # the engine's, which ends this session in its turn
                        self._registry.supervisor.settle(exit_, f"a step of session {self.session_id}")
        except BaseException as error:
            failure = own_failure(error)
            self.core.fail(self.life.refusal())
            self._leave_memory(repr(failure))
            raise
        finally:
            self._nursery = self._stepping = None

    async def _take_steps(self, nursery: trio.Nursery) -> None:
        if self._opening is not None:
            await self._open()
        while not self.closed:
            if nursery.cancel_scope.cancel_called and self.core.live is None:
                await self._retire()
                continue
            if used_up(self.core):
                await self.steps.run(partial(claim_anew, self.core))
            if self._advances and due(self.core):  # before all steps that wait
                await self.steps.run(partial(start_next, self.core))
            elif len(self.steps):
                await self.steps.run_next()
            elif self._advances:
                await self.steps.wait_until(self.core.retry_at)
            elif nursery.child_tasks:
                await self.steps.wait_until(math.inf)
            else:
                break
        if self.life.moved_to is not None:
            await forget(self.core)

    async def _open(self) -> None:
        """Stand on what the log says, and let a remote generation that it holds open go on."""
        try:
            within = self._config.flush_timeout
            if self.closed:
                return
            if not await settle(self.core, "lost", "LOST", keep_remote=True, within=within):
                self._end()
            elif self.core.live is not None:
                self.core.live.launched = True
                self._launch(self.core.live)
        except BaseException as error:
            self._failure = Draining("the session was closed", session_id=self.session_id)  # unless it failed by itself
            self.close()
            failure = own_failure(error)
            if not isinstance(failure, PenstockError):
                logger.error("session %s cannot be opened", self.session_id, exc_info=failure)
                failure = CorruptSession(f"it cannot be opened: {failure!r}", session_id=self.session_id)
            if isinstance(failure, CorruptSession):
                self._registry.set_aside(failure)
            self._failure = failure
        finally:
            opening, self._opening = self._opening, None
            if opening is not None:
                opening.set()

    def leave_if_idle(self) -> bool:
        """Leave memory, unless there is something that the session must stay for."""
        held = self.used if self.view is None else self._busy  # a view keeps its readers
        if not self._working and not held and self.journal.clean:
            self._release()
            self.close()
        return self.closed

    def _release(self) -> None:
        """Let whoever comes next claim it, also while this engine lives."""
        if self.core.owner and self.journal.clean:
            write = Release(session_id=self.session_id, owner=self.core.owner, token=self.journal.token)
            self.core.log.submit(write, lambda error: None)

    @property
    def _advances(self) -> bool:
        """Whether the next queued generation is to start, now or when it is tried again."""
        return self.life.phase is Phase.OPEN and may_start(self.core)

    # --- for its runs

    def take_snapshot(self, limit: int | None, before: str | None) -> Awaitable[Snapshot]:
        return self.history.snapshot(*checked_page(limit, before))

    def on_done(self, run: Run) -> None:
        """Its producer is done: the end is a step. A straggler's was written; what waits may start now."""
        core = self.core
        if run in core.stragglers:
            core.stragglers -= {run}
            self.journal.reporter.straggler_ended(run.generation_id, run.producer_name, run.seconds_cancelled)
        elif core.live is run:
            self.steps.add(partial(finish, core, run))
        self.steps.nudge()

    def on_limit(self, run: Run, limit: LimitName) -> None:
        self.steps.add(partial(end_at_limit, self.core, run, limit))

    def _launch(self, run: Run) -> None:
        run.begin_watch(self._registry.watchdog)
        assert self._nursery is not None  # it begins in a step
        self._nursery.start_soon(run.supervise, self._registry.supervisor, name=run.task_name)

    def _launch_clock(self, work: Callable[[], Awaitable[None]]) -> None:
        if self._nursery is None:
            self.steps.add(partial(self._start_clock, work))
        else:
            clock = partial(self._keep_clock, work)
            self._registry.supervisor.start(self._nursery, clock, f"penstock presence {self.session_id}")

    async def _start_clock(self, work: Callable[[], Awaitable[None]]) -> None:
        self._launch_clock(work)

    async def _keep_clock(self, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        finally:
            self.steps.nudge()  # there may be nothing left to do

    def close(self) -> None:
        """Leave memory: no further step is taken and what waits is turned away. Idempotent."""
        if not self.closed:
            self.life.closed = True
            self.steps.refuse_waiting(self.life.refusal)
            self.steps.nudge()
            if self.view is None:
                self.presence.close()
            self._registry.left(self)

    def abandon(self) -> None:
        """Close, and give up the step under way: a repair that cannot succeed now is left to the next opening."""
        self.close()
        self.core.fail(self.life.refusal())
        if self._nursery is not None and self._stepping is not None:
            for scope in (self._stepping, self._nursery.cancel_scope):
                scope.cancel(reason="penstock: the engine closes")
        self.journal.close()

    def set_aside(self, error: CorruptSession) -> None:
        """What is stored of it cannot be read: nothing more is done in it, and what is live ends. Idempotent."""
        if self.closed or self.life.corrupt is not None:
            return
        self.life.corrupt = error
        self.hub.close(Ended("corrupt"))
        self.steps.refuse_waiting(self.life.refusal)
        if self._opening is not None:
            return  # the opening fails
        if self.core.live is None:
            self.close()
        else:
            self.steps.add(self._end_corrupt, first=True)

    async def _end_corrupt(self) -> None:
        """End what is live, if that can be stored, and leave memory."""
        try:
            if self.journal.refused is None:
                await end_corrupt(self.core)
        except PenstockError as error:
            logger.warning(
                "session %s: the end of what was live is left to the next opening: %s", self.session_id, error
            )
        finally:
            self.core.fail(self.life.refusal())
            self.close()

    def check(self, call: Call) -> None:
        """Raises what the call is refused with."""
        self.life.check(call)
        if call is not Call.BE_HERE:
            self.journal.check()
            if self._repairing:
                raise WriteFailed("nothing can be stored at present", session_id=self.session_id)

    # --- what sessions are asked for

    async def keep_file(
        self, content: bytes | AsyncIterable[bytes], media_type: str, filename: str | None, size: int | None
    ) -> FileKept:
        """Take a file in, beside the steps."""
        self.check(Call.WRITE)
        with self._in_use():
            return await self.files.keep(content, media_type, filename, size)

    async def read_file(self, file_id: str, start: int, limit: int | None) -> bytes:
        return await read_file(self.history, file_id, start, limit)

    async def start(self, request: StartRequest) -> Started | Queued:
        """Start in its turn."""
        if request.message is not None:
            with self._in_use():
                request.message = await self.files.named(request.message)
        return await self.steps.take(partial(start, self.core, request), subject=request)

    async def stop(self, generation_id: str | None, reason: str, queue: str, author: str | None) -> Stopped:
        """Stop in its turn; starts that wait before it are reached at once, their producers are never called."""
        self.check(Call.END)
        self.steps.check_room()
        reached = self._waiting_starts(generation_id)
        for request in reached:
            request.stopped = True
        return await self.steps.take(
            partial(stop, self.core, generation_id, reason, reached, queue, author), call=Call.END
        )

    def _waiting_starts(self, generation_id: str | None) -> list[StartRequest]:
        starts = [subject for subject in self.steps.subjects() if isinstance(subject, StartRequest)]
        return [start for start in starts if generation_id in (None, start.generation_id)]

    async def post(self, message: MessageSnapshot, message_id: str, *, proposed: bool) -> Posted:
        """Append a whole message, beside the steps: a post does not wait for anybody's clean-up."""
        self.check(Call.WRITE)
        with self._in_use():
            message = await self.files.named(message)
            return await post(self.core, self.steps, message, message_id, proposed=proposed)

    @contextmanager
    def _in_use(self) -> Iterator[None]:
        """Keep the session in memory for a caller that is not a step."""
        self._using += 1
        try:
            yield
        finally:
            self._using -= 1

    async def fork_point(self, at: Cursor | str | None) -> ForkPoint:
        """What a fork begins with, in its turn: flushed, and read at a cursor or up to a message's end."""
        return await self.steps.take(partial(self._fork_point, at))

    async def _fork_point(self, at: Cursor | str | None) -> ForkPoint:
        await self.core.settled()
        return await self.history.fork_point(at)

    async def input(
        self, generation_id: str, kind: str, content: JSONObject, *, input_id: str | None, by: str | None
    ) -> str:
        """Take in an input, beside the steps, and wait until it is durable."""
        self.check(Call.WRITE)
        state = "live"
        if self.core.info(generation_id) is None:
            state = state_of(await self.history.found(generation_id))
        live = self.core.live  # it may have begun meanwhile
        if live is None or live.generation_id != generation_id:
            error = GenerationMismatch if state == "queued" else StaleGeneration
            detail = "the generation has not begun" if state == "queued" else "the generation has ended"
            raise error(detail, session_id=self.session_id, generation_id=generation_id)
        taken = live.take_input(kind, content, input_id, by)
        await self.core.settled()
        return taken

    # --- remote producers

    async def chunks(self, chunks: Sequence[Chunk], stamp: ProducerStamp | None, lease: float | None) -> ChunksAccepted:
        """Take chunks of a remote producer, beside the steps unless they are its first."""
        self._using += 1  # as `_in_use`: asked for so often that a context manager is too much
        try:
            return await self.remotes.chunks(chunks, stamp, lease)
        finally:
            self._using -= 1

    async def keep(self, generation_id: str | None, stamp: ProducerStamp | None, lease: float | None) -> ChunksAccepted:
        """Take a sign of life of a remote producer."""
        with self._in_use():
            return await self.remotes.keep(generation_id, stamp, lease)

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
        found = await self.history.generation_info(generation_id)
        live = self.core.info(generation_id)
        return found if live is None or found.turn is None else evolve(found, state=live.state)

    # --- delete and drain

    async def delete(self) -> None:
        """End what is live as ``deleted``, then this life of the session. Later requests get `SessionDeleted`."""
        self.check(Call.END)
        self.steps.check_room()
        for request in self._waiting_starts(None):
            request.stopped = True
        await self.steps.take(self._delete, call=Call.END)

    async def delete_unused(self, cursor: Cursor) -> bool:
        """Delete it, if it still ends there and nobody uses it when the turn of that has come; whether it was deleted.

        Whoever comes later learns that it was deleted; nobody is told that something was done in it, and loses it.
        """
        return await self.steps.take(partial(self._delete_unused, cursor))

    async def _delete_unused(self, cursor: Cursor) -> bool:
        # Between this and the deletion's beginning nothing waits.
        if self.used or self.history.cursor != cursor or not self.journal.clean:
            return False
        await self._delete()
        return True

    @property
    def used(self) -> bool:
        """Whether it is watched, or something is done in it or waits; the step that asks does not count."""
        return bool(len(self.hub) or len(self.presence) or self.history.busy or self._busy)

    @property
    def _busy(self) -> bool:
        """The same, but for who only reads."""
        asked = self._using or len(self.steps) or self._registry.expects(self.session_id)
        core = self.core
        busy = core.live is not None or core.stragglers or len(core.stops) or may_start(core)
        return bool(busy or asked)

    async def _delete(self) -> None:
        """End what is live as ``deleted``, then this life. A step. Raises `WriteFailed`, `TimedOut`."""
        self.journal.check()
        self.life.deleting = True
        try:
            await end_live(self.core, "deleted")
            await remove(self.core, self._end)
        except BaseException as error:
            self.life.deleting = False
            if isinstance(error, StaleToken) and self.view is not None:
                self._step_down(error.owner)
                raise self.life.refusal() from error
            raise

    def _end(self) -> None:
        self.life.deleted = True
        self._registry.listing.changes.touch(self.session_id)
        self.hub.close(Ended("deleted"))
        if self._registry.bus is not None:
            self._registry.bus.tell(self.session_id, None)
        self.close()

    async def drain(self) -> None:
        """End what is live as ``shutdown``, but for a remote generation; nothing starts any more."""
        self.life.draining = True
        self.steps.refuse_waiting(self.life.refusal)
        while not self.closed:
            try:
                await self.steps.take(self._leave, call=None)
            except (WriteFailed, SessionDeleted, CorruptSession, Moved):
                continue  # behind the repair, which ends what the log holds open, or it is closed by now
            self._release()
            return

    async def _leave(self) -> None:
        self.life.left = self.core.live is not None and self.core.live.remote is not None
        await leave(self.core)

    async def _retire(self) -> None:
        """Its scope was cancelled, and nothing is live any more: leave memory, behind what is on its way to the log."""
        with suppress(PenstockError):  # it has been told of
            await self.core.settled()
        self._leave_memory("its scope was cancelled")

    def _leave_memory(self, why: str) -> None:
        """It cannot go on from here. Readers come back, and whoever comes first opens it anew."""
        logger.error("session %s leaves memory: %s", self.session_id, why)
        self.hub.close(Drained("error"))
        self.close()

    # --- storage trouble

    def _on_refused(self, error: PenstockError) -> None:
        """The log refused a write: what was stamped behind it is gone. Called in the log's report."""
        if isinstance(error, StaleToken) and self.view is not None and not self.closed:
            self._step_down(error.owner)
            return
        if isinstance(error, WentBack) and not self.closed:
            self._begin_anew()
            return
        self.core.fail(error)
        if self.closed:
            return
        if isinstance(error, CorruptSession):
            self._registry.set_aside(error)
            return
        self.hub.reporter.refused(error)
        self.hub.degrade(Degraded("WRITE_FAILED"))
        self.steps.refuse_waiting(lambda: WriteFailed("nothing can be stored at present", session_id=self.session_id))
        if not self._repairing:
            self._repairing = True
            self.steps.add(self._repair, first=True)

    async def _repair(self) -> None:
        """Go back to what is committed, as soon as the log takes writes; callers are turned away meanwhile."""
        await forget(self.core)
        try:
            living = await retry(self.core, "failed", "WRITE_FAILED")
        except CorruptSession as error:
            self._registry.set_aside(error)
            self.close()
            return
        except Moved as error:
            self._step_down(error.owner)
            return
        except WentBack:
            self._begin_anew()
            return
        except BaseException as error:
            if not self.closed:  # else the engine closes, and it is cancelled
                self._leave_memory(repr(error))
            raise
        if not living:
            self._end()
        self._repairing = False
        self.hub.recover()
        self.hub.reporter.repaired()

    # --- another engine has claimed the session

    def overtaken(self, head: Head) -> bool:
        """Whether what the log says of the session means that its next write will be refused for good."""
        return head.owner != self.core.owner and head.token > self.journal.token

    async def confirm(self) -> None:
        """Once it is `overtaken`: have the log refuse a write, and wait for the step down. Raises `TimedOut`."""
        with trio.move_on_after(self._config.flush_timeout):
            while not self.closed:
                self.journal.probe()
                await self.journal.next_report()
        if not self.closed:
            raise TimedOut("the log has not said yet whose the session is", session_id=self.session_id)

    def _step_down(self, owner: str) -> None:
        """Write nothing more, not even an end, and leave memory: the session is ``owner``'s. Its readers stay.

        What is live is fenced and cancelled; its clean-up has its time, in the session's task, which ends behind it.
        """
        if self.closed:
            return
        self._give_up(owner)
        self.hub.recover()
        self._registry.observer.observe(SteppedDown(session_id=self.session_id, owner=owner))
        self.close()

    def _give_up(self, owner: str) -> None:
        self.life.moved_to = owner
        self.journal.give_up(Moved(self.life.moved, owner=owner, session_id=self.session_id))
        if self.core.live is not None:
            self.core.live.refuse(self.life.refusal)
            self.core.live.cancel(self.life.moved)

    # --- the store went back

    def _begin_anew(self) -> None:
        """What is known here of the session may be gone: leave memory, and have it opened anew, in a new epoch.

        As `_step_down`, but for the readers: they come back, and learn that their cursors fit nothing. What was live is
        ended by the new opening, and who waits for an answer is carried out there (`Registry.carry_out`).
        """
        if self.closed:
            return
        self.life.moved = "the store went back: the session goes on in a new epoch"
        self._give_up(self.core.owner)
        self.hub.close(Drained(WENT_BACK))
        self.close()
        if self.core.live is not None or self.core.queue.items:
            self._registry.reopen(self.session_id)
