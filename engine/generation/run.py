"""One generation at work: a producer in its cancel scope, under a supervisor, behind a fence.

Owns the scope, the fence and what became of the producer. Which end is written, and when, is the session's:
the task reports and never waits for a step.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Literal, TypeAlias, final

import trio
from attrs import frozen

from ..config import Config
from ..errors import Moved, PenstockError, ProducerError, ProducerNotFound, StaleGeneration, WriteFailed
from ..events import JSON, GenerationStatus, JSONObject
from ..reducer import Snapshot
from ..rules.ending import PRODUCER_FAILED, SAFE_TEXTS, Ending, writable
from ..rules.lifecycle import Draft, OpenGeneration
from ..rules.states import Outcome
from ..stream.hub import Readers
from ..stream.journal import Journal
from ..stream.message_ids import MessageIds
from ..supervision import Supervisor, split, without
from .approvals import Approvals
from .generation import Generation, Producer, run_producer
from .inputs import APPROVAL, Input, Inputs
from .lease import SILENT, Lease
from .remote import REMOTE, RemoteProducer
from .watchdog import Watch, Watchdog
from .writer import GenerationWriter

__all__ = ["LimitName", "Run", "RunContext"]

LimitName: TypeAlias = Literal["expired", "stalled", "lost", "disconnected"]


@final
@frozen(kw_only=True)
class RunContext:
    """What all runs of one session have in common.

    ``on_done``: its producer's task is over; called in that task. ``on_limit``: it reached this limit; called in the
    watchdog's task.
    """

    readers: Readers
    message_ids: MessageIds
    find_producer: Callable[[str], Producer]
    take_snapshot: Callable[[int | None, str | None], Awaitable[Snapshot]]
    read_file: Callable[[str, int, int | None], Awaitable[bytes]]
    on_done: Callable[[Run], None]
    on_limit: Callable[[Run, LimitName], None]


@final
class Run:
    """A started generation. Its writes go through its `writer`; `supervise` is its task."""

    __slots__ = (
        "_approvals",
        "_awaited",
        "_cancelled_at",
        "_config",
        "_context",
        "_input",
        "_inputs",
        "_on_last_disconnect",
        "_producer",
        "_watch",
        "_watched_since",
        "approval_timeout",
        "done",
        "ends_as",
        "failure",
        "idle_limit",
        "launched",
        "metadata",
        "producer_name",
        "remote",
        "returned",
        "scope",
        "usage",
        "writer",
    )

    def __init__(
        self,
        structure: OpenGeneration,
        journal: Journal,
        config: Config,
        context: RunContext,
        *,
        producer: Producer,
        producer_name: str,
        input: JSON,  # noqa: A002  the protocol's name
        metadata: JSONObject,
        on_last_disconnect: float | None = None,
        idle_limit: float | None = None,
    ) -> None:
        self.writer = GenerationWriter(structure, journal, config, context.message_ids)
        self.producer_name = producer_name
        self.metadata = metadata
        self.launched = False
        self.scope = trio.CancelScope()
        self.done = False
        self._awaited: trio.Event | None = None  # while somebody waits for it to be done
        self.ends_as: Outcome = "shutdown"  # when it is cut off, and nobody says as what it ends
        self.returned = False  # by itself: nobody had cancelled it
        self.failure: BaseException | None = None
        self.usage: JSONObject | None = None
        self._approvals: Approvals | None = None  # most generations ask for none, and are sent nothing
        self._inputs: Inputs | None = None
        self.approval_timeout = config.approval_timeout
        self._watch: Watch | None = None
        self._watched_since = 0.0  # by the trio clock
        self._config = config
        self._producer = producer
        self.remote = producer if isinstance(producer, RemoteProducer) else None  # for a producer in another process
        self._input = input
        self._context = context
        self._on_last_disconnect = on_last_disconnect
        if idle_limit is None:
            idle_limit = config.idle_limits.get(producer_name, config.idle_limit)
        self.idle_limit = idle_limit or math.inf  # as it is stored, 0 stands for none
        self._cancelled_at: float | None = None

    @property
    def approvals(self) -> Approvals:
        """Made when the first is asked for or answered."""
        if self._approvals is None:
            self._approvals = Approvals(self.writer, on_asked=self._nudge)
        return self._approvals

    @property
    def inputs(self) -> Inputs:
        """Made when the first is sent or waited for."""
        if self._inputs is None:
            self._inputs = Inputs(self.writer, bound=self._config.inputs)
            if self.writer.fenced:
                self._inputs.close()
        return self._inputs

    @property
    def take_snapshot(self) -> Callable[[int | None, str | None], Awaitable[Snapshot]]:
        return self._context.take_snapshot

    @property
    def read_file(self) -> Callable[[str, int, int | None], Awaitable[bytes]]:
        return self._context.read_file

    @property
    def structure(self) -> OpenGeneration:
        return self.writer.structure

    @property
    def generation_id(self) -> str:
        return self.structure.generation_id

    @property
    def continues(self) -> str | None:
        """The message that it goes on with."""
        return self.structure.continues

    def fence(self, why: str) -> None:
        """From here on every write of this producer raises `StaleGeneration`. The first fence stays."""
        self.refuse(lambda: StaleGeneration(why, generation_id=self.generation_id))

    def fence_failed(self, error: PenstockError) -> None:
        """From here on every write of this producer raises `WriteFailed`: what it wrote before was not stored."""

        def refusal() -> PenstockError:
            failed = WriteFailed(
                "what the generation wrote could not be stored", session_id=self.writer.journal.session_id
            )
            failed.__cause__ = error
            return failed

        self.refuse(refusal)

    def refuse(self, refusal: Callable[[], PenstockError]) -> None:
        """From here on every write of this producer raises ``refusal()``. The first fence stays."""
        if self.writer.fence(refusal):
            if self._approvals is not None:
                self._approvals.close()
            if self._inputs is not None:
                self._inputs.close()
            self._unwatch()

    def cancel(self, reason: str) -> None:
        """Cancel the producer's scope; its clean-up has `Config.cleanup_timeout` from now."""
        if self._cancelled_at is None:
            self._cancelled_at = trio.current_time()
            self.writer.journal.reporter.cancelled(self.generation_id, reason)
            self.scope.cancel(reason=f"penstock: {reason}")

    @property
    def seconds_cancelled(self) -> float:
        """The time since its cancellation."""
        return 0.0 if self._cancelled_at is None else trio.current_time() - self._cancelled_at

    def take_input(self, kind: str, content: JSONObject, input_id: str | None, by: str | None) -> str:
        """Take in what somebody sent: an answer to an approval, or an input for the producer. Returns its id.

        The same input again changes nothing. Raises `InvalidBody`, `InvalidId`, `IdInUse`, `QueueFull`,
        `ApprovalNotFound`, `StaleGeneration` and `WriteFailed`; nothing was written then.
        """
        given = Input.checked(kind, content, input_id)
        self.writer.check()
        if self.done:
            raise StaleGeneration("the generation has ended", generation_id=self.generation_id)
        if not self.inputs.knows(given):
            if given.kind == APPROVAL:
                self.approvals.answer(given.content, by)
            else:
                self.inputs.add(given)
            self.inputs.note(given)
        return given.input_id

    def cleanup(self) -> trio.CancelScope:
        """A shielded scope that ends when the clean-up's time is over: from the cancel on, else from now."""
        begun = trio.current_time() if self._cancelled_at is None else self._cancelled_at
        return trio.CancelScope(shield=True, deadline=begun + self._config.cleanup_timeout)

    def set_done(self) -> None:
        """Its producer has returned, or is never run."""
        self.done = True
        if self._awaited is not None:
            self._awaited.set()

    async def wait_done(self) -> None:
        """Wait until its producer has returned."""
        if not self.done:
            if self._awaited is None:
                self._awaited = trio.Event()
            await self._awaited.wait()

    @property
    def task_name(self) -> str:
        return f"penstock generation {self.generation_id}"

    # A Ctrl-C does not strike in here, but in the producer.
    @trio.lowlevel.enable_ki_protection
    async def supervise(self, supervisor: Supervisor) -> None:
        """Run the producer to its end and report, as a task of its own. Raises cancellation from outside only."""
        passed_on: BaseException | None = None
        try:
            with self.scope:
                await run_producer(self._called(self._producer), Generation(self, self._input))
            cut_off = self.scope.cancel_called or trio.current_effective_deadline() == -math.inf
            self.returned = not cut_off
        except BaseException as error:  # noqa: BLE001  whatever a producer raises ends its generation, and is told
            raised = split(error)
            self.failure, passed_on = raised.own, raised.exit or raised.cancelled
            if self.failure is not None and self.writer.fenced:  # then it may have run into the fence
                self.failure = without(self.failure, (StaleGeneration, WriteFailed, Moved))
        supervisor.call(self._report, self.task_name)
        if passed_on is not None:
            supervisor.settle(passed_on, self.task_name)

    def _report(self) -> None:
        """Its producer has returned."""
        self.set_done()
        how: Literal["raised", "returned", "cancelled"] = "returned" if self.returned else "cancelled"
        self.writer.journal.reporter.producer_done(
            self.generation_id, self.producer_name, how if self.failure is None else "raised", self.failure
        )
        self._unwatch()
        self._context.on_done(self)

    # --- limits

    def begin_watch(self, watchdog: Watchdog) -> None:
        """From here on its limits hold, until the fence is up or its producer is done."""
        if self.writer.fenced:
            return
        self._watched_since = trio.current_time()
        _, due = self._next_limit()
        self._watch = watchdog.watch(self.look, min(due, self._next_duty))
        if self._on_last_disconnect is not None:
            self._context.readers.on_left = self._nudge

    def look(self) -> float | None:
        """Do what is due by now. Returns when to look again, by the trio clock; None when a limit was reached."""
        self.attend()
        limit, due = self._next_limit()
        if due <= trio.current_time():
            self.limit_reached(limit)
            return None
        return min(due, self._next_duty)

    def limit_reached(self, limit: LimitName) -> None:
        self._context.on_limit(self, limit)

    def _next_limit(self) -> tuple[LimitName, float]:
        """Which is reached first if nothing happens until then, and when, by the trio clock."""
        begun, readers, alone, lease = self._watched_since, self._context.readers, self._on_last_disconnect, self._lease
        # Nobody tells when the wait for others is over: at the earliest it is due a whole limit from now.
        idle_since = trio.current_time() if self._waits_for_others else max(begun, self.writer.last_event)
        due: dict[LimitName, float] = {
            "expired": begun + self._config.total_limit,
            # With a lease, the producer itself says when it is taken for dead.
            "stalled": idle_since + self.idle_limit if lease is None else math.inf,
            "lost": math.inf if lease is None else lease.ends_at,
            "disconnected": math.inf if alone is None or len(readers) else max(begun, readers.last_left) + alone,
        }
        limit = min(due, key=due.__getitem__)
        return limit, due[limit]

    @property
    def _lease(self) -> Lease | None:
        return None if self.remote is None else self.remote.lease

    @property
    def _next_duty(self) -> float:
        """When `attend` has something to do, by the trio clock; infinite if nothing is expected."""
        expiry = math.inf if self._approvals is None else self._approvals.next_expiry
        return expiry if self._lease is None else min(expiry, self._lease.silent_at)

    def attend(self) -> None:
        """Refuse the approvals whose time is over; tell that the producer elsewhere is silent."""
        if self._approvals is not None:
            self._approvals.expire()
        lease = self._lease
        if lease is not None and lease.silent_at <= trio.current_time():
            lease.told = True
            self.writer.part(Draft(GenerationStatus(status=SILENT, detail={"seconds": lease.seconds})))

    def hear(self, lease: float | None) -> None:
        """A request of its producer elsewhere came; with ``lease`` it may be silent for so long from now."""
        assert self.remote is not None
        if self.remote.hear(lease):
            self._nudge()

    def heard_again(self) -> None:
        """Take back that the producer is silent, where readers were told so."""
        lease = self._lease
        if lease is not None and lease.told:
            lease.told = False
            self.writer.part(Draft(GenerationStatus(status="working")))
            self._nudge()

    def _nudge(self) -> None:
        if self._watch is not None:
            self._watch.nudge()

    def _unwatch(self) -> None:
        if self._watch is not None:
            self._watch.end()
            self._watch = None
            if self._on_last_disconnect is not None:
                self._context.readers.on_left = None

    @property
    def _waits_for_others(self) -> bool:
        """Whether the idle clock stands still: an approval is open, or a tool call awaits its result."""
        if self._approvals is not None and len(self._approvals):
            return True
        if not self.structure.awaits_result:
            return False
        return self.remote is None or trio.current_time() < self.writer.last_event + self._config.remote_silence

    async def play(self, producer: str | Producer, generation: Generation) -> None:
        """Run a producer to its end, in the caller's task. Raises `ProducerNotFound`, and what the producer raises."""
        await run_producer(self._called(producer), generation)

    def _called(self, producer: str | Producer) -> Producer:
        called = self._context.find_producer(producer) if isinstance(producer, str) else producer
        if isinstance(called, RemoteProducer) and called is not self._producer:
            raise ProducerNotFound(f"{REMOTE!r} is no producer that a generation can be handed to")
        return called

    def ending(
        self,
        outcome: Outcome | None = None,
        *,
        by: str | None = None,
        cleanup: str | None = None,
        retract: bool = False,
        author: str | None = None,
    ) -> Ending:
        """How the generation ends: as ``outcome``, or by itself; but a producer that raised has failed.

        By itself it has ``completed`` only if its producer returned. One that was cut off ends as what it was wound
        down for, or as ``shutdown``. What an answer that did not complete has cost by then is marked as ``partial``.
        """
        code: str | None
        message: str | None
        retryable: bool | None = None
        if self.failure is not None:
            outcome, (code, message, retryable) = "failed", _told(self.failure)
        elif outcome is None and self.returned:
            outcome, code, message = "completed", None, None
        else:
            outcome = outcome or self.ends_as
            code, message = outcome.upper(), SAFE_TEXTS[outcome].format(idle=self.idle_limit)
        ending = Ending(
            outcome=outcome,
            code=code,
            message=message,
            superseded_by=by,
            cleanup=cleanup,
            usage=self.usage if self.usage is None or outcome == "completed" else {**self.usage, "partial": True},
            retract=retract,
            retryable=retryable,
            author=author,
        )
        # All else in it is of the engine's own making.
        return ending if self.failure is None and self.usage is None else writable(ending)


def _told(failure: BaseException) -> tuple[str, str, bool | None]:
    """The code and the text that readers may see of it, and whether it may go well when it is tried again."""
    if isinstance(failure, ProducerError):
        with suppress(AttributeError):  # its raiser took them away
            return failure.reason, failure.detail, failure.again
    return *PRODUCER_FAILED, None
