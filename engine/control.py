"""One session's generations: how one starts in place of another, and how it ends.

Owns the live generation, the turn, the stragglers and the stops that came before their start. Every public
coroutine here is a lifecycle step: the session runs them one at a time. What is refused is refused before anything
is cancelled or written.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Final, final

import trio

from .config import Config
from .errors import GenerationActive, IdInUse, InvalidBody, PenstockError, TimedOut, TooManyStragglers
from .events import GenerationCancelling
from .generation import Run
from .journal import Journal, Mark
from .lifecycle import Draft, Ending, GenerationState, OpenGeneration
from .messages import Messages
from .parts import Part, StartRequest, end_part, start_part
from .policy import Enqueue, Join, Refuse, Situation, Supersede, decide
from .reads import Reads
from .results import GenerationInfo, Started, Stopped, Superseded
from .stamper import stamp

__all__ = ["SAFE_TEXTS", "Control"]

logger = logging.getLogger("penstock.session")

# Stops that name generations nobody has seen; a client that invents more than this gains nothing.
_MAX_PENDING_STOPS: Final = 64

_NOTHING: Final[Part] = (iter(()), {})

# What an end says of itself to readers.
SAFE_TEXTS: Final = {
    "superseded": "A newer answer took its place.",
    "stopped": "Stopped.",
    "deleted": "The session was deleted.",
    "shutdown": "The server shut down.",
    "lost": "The process that produced it ended.",
    "failed": "What it wrote could not be stored.",
}


@final
class Control:
    """Starts, stops and ends the generations of one session in memory."""

    def __init__(
        self,
        journal: Journal,
        reads: Reads,
        config: Config,
        *,
        messages: Messages,
        launch: Callable[[Run], None],
        on_finished: Callable[[Run], None],
    ) -> None:
        self._journal = journal
        self._reads = reads
        self._config = config
        self._messages = messages
        self._launch = launch
        self._on_finished = on_finished
        self.live: Run | None = None
        self.turn = 0
        self.stragglers: set[Run] = set()
        self._pending_stops: dict[str, float] = {}
        self._hanging: dict[str, Mark] = {}  # starts whose callers were told `TimedOut`, with their end's place

    @property
    def busy(self) -> bool:
        """Whether the session must stay in memory for its generations' sake."""
        now = trio.current_time()
        self._pending_stops = {gid: until for gid, until in self._pending_stops.items() if until > now}
        return self.live is not None or bool(self.stragglers) or bool(self._pending_stops)

    def live_info(self, generation_id: str) -> GenerationInfo | None:
        """The live generation's state, if it is this one."""
        if self.live is None or self.live.generation_id != generation_id:
            return None
        structure = self.live.structure
        state = GenerationState.LIVE if structure.state is GenerationState.LIVE else GenerationState.CANCELLING
        return GenerationInfo(generation_id=generation_id, state=state.value, turn=structure.turn)

    def fail_live(self, error: PenstockError) -> None:
        """What the live generation wrote could not be stored: fence and cancel it. Synchronous."""
        if self.live is not None:
            self.live.fence_failed(error)
            self.live.cancel("its writes cannot be stored")

    async def forget_live(self) -> None:
        """Let go of a generation that `fail_live` cancelled, after its clean-up; the log tells how it ends."""
        live, self.live = self.live, None
        if live is not None and live.launched and not live.done.is_set():
            await self._await_cleanup(live)

    # --- start

    async def start(self, request: StartRequest) -> Started:
        """Start a generation, ending the live one first if the policy says so. Returns after the commit."""
        gid = request.generation_id
        if request.proposed:
            await self._check_new_generation(request)
        old = self._finished_first()
        decision = self._decide(request, old)
        if isinstance(decision, Started):
            return decision
        superseded: Superseded | None = None
        end: Part = _NOTHING
        if old is not None:
            ending, seconds = await self._wind_down(old, "superseded", by=gid, retract=decision)
            superseded = Superseded(generation_id=old.generation_id, cleanup=ending.cleanup or "clean", seconds=seconds)
            end = end_part(old.structure, ending)
        self._apply_pending_stop(request)
        structure = OpenGeneration(gid, self.turn + 1, request.job_id)
        supersedes = None if old is None else old.generation_id
        start = start_part(structure, request, supersedes=supersedes, after=self._journal.stamped)
        run = self._make_run(structure, request)
        self._journal.raise_token()
        mark = stamp(self._journal, chain(end[0], start[0]), {**end[1], **start[1]})
        self.turn = structure.turn
        self.live = None if request.stopped else run
        if request.text is not None:
            self._messages.note(request.message_id, mark)
        await self._committed_or_ended(mark, run)
        if self.live is run:
            run.launched = True
            self._launch(run)
        return Started(
            generation_id=gid,
            turn=structure.turn,
            cursor=self._journal.cursor_at(mark),
            message_id=None if request.text is None else request.message_id,
            superseded=superseded,
        )

    async def _check_new_generation(self, request: StartRequest) -> None:
        gid = request.generation_id
        hanging = self._hanging.get(gid)
        if hanging is not None and not self._journal.settled(hanging):
            await self._journal.wait_committed(hanging, self._config.flush_timeout)
        self._hanging = {g: mark for g, mark in self._hanging.items() if not self._journal.settled(mark)}
        if await self._reads.generation(gid) is not None or (self.live and self.live.generation_id == gid):
            raise IdInUse("a generation had this id before", session_id=self._journal.session_id, generation_id=gid)

    def _decide(self, request: StartRequest, old: Run | None) -> Started | bool:
        """Every refusal of a start, before anything is cancelled or written; True if the old one is retracted."""
        retract = False
        if old is not None:
            match decide(request.policy, Situation(live=old.generation_id, brings_content=request.brings_content)):
                case Refuse(code="INVALID_BODY"):
                    raise InvalidBody(
                        "a start that joins brings neither text nor input", session_id=self._journal.session_id
                    )
                case Refuse():
                    raise GenerationActive(
                        "a generation is live", session_id=self._journal.session_id, generation_id=old.generation_id
                    )
                case Join():
                    return Started(
                        generation_id=old.generation_id, turn=old.structure.turn, cursor=self._journal.cursor
                    )
                case Enqueue():
                    raise InvalidBody("this version has no queue", session_id=self._journal.session_id)
                case Supersede(retract=retract):
                    pass
        if len(self.stragglers) >= self._config.max_stragglers:
            raise TooManyStragglers(
                f"{len(self.stragglers)} producers of this session were cancelled and still run",
                session_id=self._journal.session_id,
            )
        return retract

    def _apply_pending_stop(self, request: StartRequest) -> None:
        until = self._pending_stops.pop(request.generation_id, None)
        if until is not None and until > trio.current_time():
            request.stopped = True

    def _make_run(self, structure: OpenGeneration, request: StartRequest) -> Run:
        return Run(
            structure,
            self._journal,
            self._config,
            producer=request.producer,
            producer_name=request.producer_name,
            input=request.input,
            metadata=request.metadata or {},
            take_snapshot=self._reads.snapshot,
            check_message_id=self._messages.check_new,
            on_done=self._on_done,
        )

    async def _committed_or_ended(self, mark: Mark, run: Run) -> None:
        """Wait for a start's commit; when the disk hangs, put the end right behind it and do not run it."""
        try:
            await self._journal.wait_committed(mark, self._config.flush_timeout)
        except TimedOut:
            if self.live is run:
                run.done.set()
                ending = Ending(outcome="failed", code="WRITE_FAILED", message=SAFE_TEXTS["failed"])
                mark = self._write_end(run, ending)
            self._hanging[run.generation_id] = mark
            raise

    # --- the end of a generation

    def _finished_first(self) -> Run | None:
        """The live generation; one whose producer is done and whose end was not written yet is ended now."""
        if self.live is not None and self.live.done.is_set():
            self._write_end(self.live, self.live.ending())
        return self.live

    async def _wind_down(
        self, run: Run, outcome: str, *, by: str | None = None, reason: str | None = None, retract: bool = False
    ) -> tuple[Ending, float]:
        """Fence, cancel, wait for the clean-up at most `Config.cleanup_timeout`. Writes all but the end.

        The fence rises at `generation.cancelling`'s place in the session's order: what the producer wrote
        before stands before it, and nothing of it comes after.
        """
        begun = trio.current_time()
        self._journal.raise_token()
        cancelling = Draft(GenerationCancelling(reason=reason or outcome, by=by))
        stamp(self._journal, [(run.structure, cancelling)])
        run.fence(f"the generation was {outcome}")
        run.cancel(reason or outcome)
        cleanup = await self._await_cleanup(run)
        seconds = trio.current_time() - begun
        if run.failure is not None:
            return run.failed_ending(superseded_by=by, cleanup=cleanup, retract=retract), seconds
        ending = Ending(
            outcome=outcome,
            code=outcome.upper(),
            message=SAFE_TEXTS[outcome],
            superseded_by=by,
            cleanup=cleanup,
            usage=run.usage,
            retract=retract,
        )
        return ending, seconds

    async def _await_cleanup(self, run: Run) -> str:
        with trio.move_on_after(self._config.cleanup_timeout):
            await run.done.wait()
        if run.done.is_set():
            return "clean"
        self.stragglers.add(run)
        logger.warning(
            "the clean-up of generation %s in session %s (producer %s) overran %s s and goes on, fenced",
            run.generation_id,
            self._journal.session_id,
            run.producer_name,
            self._config.cleanup_timeout,
        )
        return "overran"

    def _write_end(self, run: Run, ending: Ending) -> Mark:
        run.fence(f"the generation has ended as {ending.outcome}")
        self._journal.raise_token()
        items, records = end_part(run.structure, ending)
        mark = stamp(self._journal, items, records)
        self.live = None
        return mark

    def _on_done(self, run: Run) -> None:
        """A producer's task is over. Called in that task; the end is written in the session's."""
        if run in self.stragglers:
            self.stragglers.discard(run)
            logger.info("the overrun clean-up of generation %s ended", run.generation_id)
        elif self.live is run:
            self._on_finished(run)

    async def finish(self, run: Run) -> None:
        """Write the end of a generation whose producer is done, unless another step was there first."""
        if self.live is run and self._journal.refused is None:
            self._write_end(run, run.ending())

    # --- stop

    async def stop(self, generation_id: str | None, reason: str, reached: Sequence[StartRequest]) -> Stopped:
        """Stop the live generation, or tell what became of the one meant.

        ``reached`` are the starts that were caught while they waited.
        """
        live = self._finished_first()
        if live is not None and generation_id in (None, live.generation_id):
            ending, _ = await self._wind_down(live, "stopped", reason=reason)
            mark = self._write_end(live, ending)
            await self._journal.wait_committed(mark, self._config.flush_timeout)
            return Stopped(
                state="stopped" if ending.cleanup == "clean" else "stopping", generation_id=live.generation_id
            )
        await self._journal.wait_committed(self._journal.mark(), self._config.flush_timeout)
        for request in reversed(reached):
            record = await self._reads.generation(request.generation_id)
            if record is not None and record.outcome == "stopped":
                return Stopped(state="stopped", generation_id=request.generation_id)
        if generation_id is None:
            return Stopped(state="nothing_active")
        if await self._reads.generation(generation_id) is not None:
            return Stopped(state="already_done", generation_id=generation_id)
        while len(self._pending_stops) >= _MAX_PENDING_STOPS:
            del self._pending_stops[next(iter(self._pending_stops))]
        self._pending_stops[generation_id] = trio.current_time() + self._config.pending_stop
        return Stopped(state="pending", generation_id=generation_id)

    async def end_live(self, outcome: str) -> None:
        """End what is live, whatever it is, and wait until everything written so far is durable."""
        live = self._finished_first()
        if live is not None:
            ending, _ = await self._wind_down(live, outcome)
            self._write_end(live, ending)
        await self._journal.wait_committed(self._journal.mark(), self._config.flush_timeout)
