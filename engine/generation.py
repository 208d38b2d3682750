"""One generation at work: a producer in its cancel scope, under a supervisor, behind a fence.

Owns the scope, the fence and what became of the producer. Which end is written, and when, is the session's:
the task reports and never waits for a step.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import final

import trio

from .approvals import Approvals
from .closing import Ending
from .config import Config
from .errors import PenstockError, ProducerError, ProducerNotFound, StaleGeneration, WriteFailed
from .events import JSON, JSONObject
from .inputs import APPROVAL, Input, Inputs
from .journal import Journal, Mark
from .lifecycle import OpenGeneration
from .pen import Pen
from .producing import Generation, Producer, run_producer
from .reducer import Snapshot
from .standin import REMOTE, StandIn
from .watchdog import Audience, Limits, watch

__all__ = ["Run"]


@final
class Run:
    """A started generation. Its writes go through its `pen`; `supervise` is its task."""

    def __init__(
        self,
        structure: OpenGeneration,
        journal: Journal,
        config: Config,
        *,
        producer: Producer,
        producer_name: str,
        input: JSON,  # noqa: A002  the protocol's name
        metadata: JSONObject,
        take_snapshot: Callable[[], Awaitable[Snapshot]],
        check_message_id: Callable[[str], Awaitable[None]],
        note_message: Callable[[str, Mark], None],
        find_producer: Callable[[str], Producer],
        on_done: Callable[[Run], None],
        on_last_disconnect: float | None = None,
    ) -> None:
        self.pen = Pen(structure, journal, config, check_message_id=check_message_id, note_message=note_message)
        self.producer_name = producer_name
        self.metadata = metadata
        self.launched = False
        self.scope = trio.CancelScope()
        self.done = trio.Event()
        self.failure: Exception | None = None
        self.usage: JSONObject | None = None
        self.take_snapshot = take_snapshot
        self.changed = trio.lowlevel.ParkingLot()
        ids = journal.session_id, structure.generation_id
        self.approvals = Approvals(
            *ids, write=self.pen.put_nowait, part=self.pen.part, on_asked=self.changed.unpark_all
        )
        self.inputs = Inputs(*ids, bound=config.inputs, write=self.pen.put_nowait)
        self.approval_timeout = config.approval_timeout
        self._limits = Limits(
            idle=config.idle_limit,
            total=config.total_limit,
            disconnected=math.inf if on_last_disconnect is None else on_last_disconnect,
        )
        self._watching = trio.CancelScope()
        self._config = config
        self._producer = producer
        self._input = input
        self._find_producer = find_producer
        self._on_done = on_done
        self._cancelled_at: float | None = None

    @property
    def structure(self) -> OpenGeneration:
        return self.pen.structure

    @property
    def last_event(self) -> float:
        """When the generation wrote last, by the trio clock."""
        return self.pen.last_event

    @property
    def generation_id(self) -> str:
        return self.structure.generation_id

    @property
    def stand_in(self) -> StandIn | None:
        """What stands here for a producer in another process, if it is one."""
        return self._producer if isinstance(self._producer, StandIn) else None

    def fence(self, why: str) -> None:
        """From here on every write of this producer raises `StaleGeneration`. The first fence stays."""
        self.refuse(lambda: StaleGeneration(why, generation_id=self.generation_id))

    def fence_failed(self, error: PenstockError) -> None:
        """From here on every write of this producer raises `WriteFailed`: what it wrote before was not stored."""

        def refusal() -> PenstockError:
            failed = WriteFailed(
                "what the generation wrote could not be stored", session_id=self.pen.journal.session_id
            )
            failed.__cause__ = error
            return failed

        self.refuse(refusal)

    def refuse(self, refusal: Callable[[], PenstockError]) -> None:
        """From here on every write of this producer raises ``refusal()``. The first fence stays."""
        if self.pen.fence(refusal):
            self.approvals.close()
            self.inputs.close()
            self._watching.cancel(reason="penstock: the generation is fenced")

    def cancel(self, reason: str) -> None:
        """Cancel the producer's scope; its clean-up has `Config.cleanup_timeout` from now."""
        if self._cancelled_at is None:
            self._cancelled_at = trio.current_time()
            self.pen.journal.witness.cancelled(self.generation_id, reason)
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
        self.pen.check()
        if self.done.is_set():
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

    async def supervise(self) -> None:
        """Run the producer to its end and report. Lets only cancellation from outside and exits pass."""
        try:
            with self.scope:
                await self.play(self._producer, Generation(self, self._input))
        except Exception as error:  # noqa: BLE001  whatever a producer raises ends its generation, and is told
            self.failure = _without_refusals(error) if self.pen.fenced else error
        finally:
            self.done.set()
            self.pen.journal.witness.producer_done(
                self.generation_id, self.producer_name, cancelled=self.scope.cancel_called, error=self.failure
            )
            self._watching.cancel(reason="penstock: the producer is done")
            self._on_done(self)

    async def watch(self, audience: Audience, reached: Callable[[str], None]) -> None:
        """Call ``reached`` with the limit that the generation reaches, if it does before its end."""
        with self._watching:
            await watch(self, audience, self._limits, reached)

    @property
    def waits_for_others(self) -> bool:
        """Whether an approval is open, or a tool call awaits its result."""
        if len(self.approvals):
            return True
        if not self.structure.awaits_result:
            return False
        return self.stand_in is None or trio.current_time() < self.last_event + self._config.remote_silence

    async def play(self, producer: str | Producer, generation: Generation) -> None:
        """Run a producer to its end, in the caller's task. Raises `ProducerNotFound`, and what the producer raises."""
        called = self._find_producer(producer) if isinstance(producer, str) else producer
        if isinstance(called, StandIn) and called is not self._producer:
            raise ProducerNotFound(f"{REMOTE!r} is no producer that a generation can be handed to")
        await run_producer(called, generation)

    def ending(self) -> Ending:
        """How the generation ends by itself."""
        if self.failure is None:
            return Ending(outcome="completed", usage=self.usage)
        return self.failed_ending()

    def failed_ending(
        self, *, superseded_by: str | None = None, cleanup: str | None = None, retract: bool = False
    ) -> Ending:
        """The end of a producer that raised, with a text that is safe to show."""
        code, text = "PRODUCER_FAILED", "The producer raised an error."
        if isinstance(self.failure, ProducerError):
            code, text = self.failure.reason, self.failure.detail
        return Ending(
            outcome="failed",
            code=code,
            message=text,
            superseded_by=superseded_by,
            cleanup=cleanup,
            usage=self.usage,
            retract=retract,
        )


def _without_refusals(error: Exception) -> Exception | None:
    """What is left of a fenced producer's error besides running into the fence."""
    refusals = (StaleGeneration, WriteFailed)
    if isinstance(error, refusals):
        return None
    if isinstance(error, ExceptionGroup):
        return error.split(refusals)[1]
    return error
