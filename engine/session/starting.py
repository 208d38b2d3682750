"""One session's generations: how one starts in place of another, or is put behind it.

Owns the turn and what becomes of a start. Every public coroutine but `input` is a lifecycle step: the session runs
them one at a time. What is refused is refused before anything is cancelled or written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from itertools import chain
from typing import final

from ..config import Config
from ..errors import (
    GenerationActive,
    GenerationMismatch,
    IdInUse,
    InvalidBody,
    MessageNotFound,
    PenstockError,
    QueueFull,
    StaleGeneration,
    TimedOut,
)
from ..events import JSONObject
from ..generation.generation import Producer
from ..generation.run import Run
from ..generation.stamper import LongPart, stamp
from ..results import Queued, Started, Superseded
from ..rules.ending import SAFE_TEXTS, Ending
from ..rules.lifecycle import Draft, OpenGeneration
from ..rules.policy import Enqueue, Join, Refuse, Situation, Start, Supersede, decide
from ..rules.queue import QueuedStart
from ..slices import in_slices
from ..stream.history import Reads
from ..stream.journal import Journal, Mark
from .idempotency import Answers
from .messages import Messages
from .queue import Lineup, PendingStops, request_of
from .runs import Runs
from .slot import Slot
from .transaction import (
    NOTHING,
    StartRequest,
    end_part,
    joined,
    replaced_part,
    start_part,
)

__all__ = ["Control"]


@final
class Control:
    """Starts and queues the generations of one session in memory."""

    __slots__ = (
        "_answers",
        "_config",
        "_journal",
        "_launch",
        "_lineup",
        "_messages",
        "_pending_stops",
        "_reads",
        "_runs",
        "_slot",
        "_unsettled",
        "turn",
    )

    def __init__(
        self,
        journal: Journal,
        reads: Reads,
        config: Config,
        *,
        slot: Slot,
        lineup: Lineup,
        answers: Answers,
        pending_stops: PendingStops,
        messages: Messages,
        runs: Runs,
        launch: Callable[[Run], None],
    ) -> None:
        self._journal = journal
        self._reads = reads
        self._config = config
        self._slot = slot
        self._messages = messages
        self._runs = runs
        self._launch = launch
        self._lineup = lineup
        self._answers = answers
        self._pending_stops = pending_stops
        self.turn = 0
        self._unsettled: tuple[Mark, ...] = ()  # of starts that the log may not know yet

    @property
    def busy(self) -> bool:
        """Whether the session must stay in memory for its generations' sake."""
        return self._slot.live is not None or bool(self._slot.stragglers) or bool(len(self._pending_stops))

    # --- start

    async def start(self, request: StartRequest) -> Started | Queued:
        """Start a generation, or queue it; the live one ends first if the policy says so. Returns after the commit."""
        await self._settle(request)
        answer = await self._answers.find(request)
        if answer is not None:
            return answer
        await self._check_ids(request)
        old = self._slot.finished_first()
        decision = self._decide(request, old)
        match decision:
            case Join():
                assert old is not None
                return await self._join(request, old)
            case Enqueue():
                request.stopped = self._pending_stops.take(request.generation_id) or request.stopped
                return await self._lineup.add(request, decision)
            case Supersede(retract=retract):
                assert old is not None
                ending, seconds = await self._slot.wind_down(
                    old, "superseded", by=request.generation_id, retract=retract
                )
                superseded = Superseded(
                    generation_id=old.generation_id, cleanup=ending.cleanup or "clean", seconds=seconds
                )
                try:
                    return await self._begin(request, old=old, ending=ending, superseded=superseded)
                except PenstockError:
                    # What is fenced and cancelled ends all the same, and as what it was; a repair ends it itself.
                    if self._slot.live is old and self._journal.refused is None:
                        self._slot.write_end(old, ending)
                    raise
            case Start():
                return await self._begin(request)

    async def _join(self, request: StartRequest, old: Run) -> Started:
        """Answer with the live one, and keep the answer for a repetition that comes behind its end."""
        gid, turn = old.generation_id, old.structure.turn
        # One that its first chunk began may not be stored yet.
        mark = self._journal.mark()
        if request.idempotency_key is not None:
            records = self._answers.records(request, {}, turn=turn, joined=gid)
            mark = self._journal.append((), records(mark.offset))
            self._is_unsettled(mark)
        await self._journal.wait_committed(mark, self._config.flush_timeout)
        return Started(generation_id=gid, turn=turn, cursor=self._journal.cursor_at(mark), joined=True)

    async def _settle(self, request: StartRequest) -> None:
        """A start that may be a repetition waits for those that the log may not know yet."""
        if not (request.proposed or request.idempotency_key):
            return
        for mark in self._unsettled:
            if not self._journal.settled(mark):
                await self._journal.wait_committed(mark, self._config.flush_timeout)

    def _is_unsettled(self, mark: Mark) -> None:
        """Its caller was told `TimedOut`, or does not wait in the step."""
        self._unsettled = (*(m for m in self._unsettled if not self._journal.settled(m)), mark)

    async def _check_ids(self, request: StartRequest) -> None:
        gid = request.generation_id
        if request.proposed and (
            (self._slot.live is not None and self._slot.live.generation_id == gid)
            or await self._reads.generation(gid) is not None
        ):
            raise IdInUse("a generation had this id before", session_id=self._journal.session_id, generation_id=gid)
        if request.replaces is not None:
            await self._journal.wait_committed(self._journal.mark(), self._config.flush_timeout)
            await self._reads.message_ids(request.replaces)

    def _decide(self, request: StartRequest, old: Run | None) -> Start | Supersede | Enqueue | Join:
        """Every refusal of a start, before anything is cancelled or written."""
        session_id = self._journal.session_id
        decision = decide(
            request.policy,
            Situation(
                live=None if old is None else old.generation_id,
                queued=self._lineup.queue.generation_ids,
                queue_limit=self._config.queue_limit,
                queueable=request.registered,
                brings_content=request.brings_content,
            ),
        )
        match decision:
            case Refuse(code="GENERATION_ACTIVE"):
                raise GenerationActive(
                    "a generation is live",
                    session_id=session_id,
                    generation_id=None if old is None else old.generation_id,
                )
            case Refuse(code="QUEUE_FULL"):
                raise QueueFull(f"{len(self._lineup.queue)} generations wait already", session_id=session_id)
            case Refuse():
                raise InvalidBody(
                    "only a registered producer, by its name, can wait in the queue", session_id=session_id
                )
            case Start() | Supersede():
                self._slot.check_stragglers()
            case Enqueue() | Join():
                pass
        return decision

    async def _begin(
        self,
        request: StartRequest,
        *,
        old: Run | None = None,
        ending: Ending | None = None,
        superseded: Superseded | None = None,
        waited: QueuedStart | None = None,
    ) -> Started:
        """Write the old one's end and the start as one part; run the producer once that is durable."""
        gid = request.generation_id
        retracted = await self._retracted(request)
        request.stopped = self._pending_stops.take(gid) or request.stopped
        end = retract = leave = NOTHING
        if old is not None and ending is not None:
            end = end_part(old.structure, ending)
        if request.replaces is not None:
            retract = replaced_part(
                retracted, None if old is None else old.structure, rolled_back=ending is not None and ending.retract
            )
        if waited is not None:
            leave = (iter(()), self._lineup.queue.remove(waited))
        structure = OpenGeneration(gid, self.turn + 1, request.job_id)
        items, records = joined(
            end,
            retract,
            leave,
            start_part(
                structure,
                request,
                supersedes=None if superseded is None else superseded.generation_id,
                after=self._journal.stamped,
            ),
        )
        run = self._runs.make(structure, request)
        part = LongPart(self._journal)  # it may retract any number of messages
        with nullcontext() if old is None else self._slot.ending(old):
            await in_slices(part.preparing(items))
            self._journal.raise_token()
            mark = part.stamp(self._answers.records(request, records, turn=structure.turn, superseded=superseded))
        self.turn = structure.turn
        self._slot.live = None if request.stopped else run
        if request.text is not None:
            self._messages.note(request.message_id, mark)
        await in_slices(part.writing())
        await self._committed_or_ended(mark, run)
        if self._slot.live is run:
            run.launched = True
            self._launch(run)
        return Started(
            generation_id=gid,
            turn=structure.turn,
            cursor=self._journal.cursor_at(mark),
            message_id=None if request.text is None else request.message_id,
            superseded=superseded,
        )

    async def begin_waiting(self, waited: QueuedStart, producer: Producer) -> None:
        """Start one that waited, its turn come; part of a step. It leaves the queue in the same append."""
        await self._begin(request_of(waited, producer), waited=waited)

    def begin_written(
        self,
        request: StartRequest,
        structure: OpenGeneration,
        drafts: Iterator[Draft],
        records: Callable[[int], Mapping[str, bytes | None]],
    ) -> tuple[Mark, Run | None]:
        """Write a start and the first that its producer wrote, ``drafts``, as one part. Nothing may be live.

        It runs before it is durable: its producer is elsewhere, and hears of nothing that is not. If a stop came
        first, it is written as started and stopped, without the drafts; there is no run, then. What the drafts
        raise leaves no trace. Without a wait.
        """
        self._journal.check()
        request.stopped = self._pending_stops.take(request.generation_id) or request.stopped
        run = None if request.stopped else self._runs.make(structure, request)
        items, started = start_part(structure, request, supersedes=None, after=self._journal.stamped)
        self._journal.raise_token()
        if run is None:
            mark = stamp(self._journal, items, started)
        else:
            first = ((structure, draft) for draft in drafts)
            mark = stamp(self._journal, chain(items, first), lambda offset: {**started, **records(offset)})
            self._slot.live = run
            run.launched = True
            self._launch(run)
        self.turn = structure.turn
        self._is_unsettled(mark)
        return mark, run

    async def _retracted(self, request: StartRequest) -> list[str]:
        """The messages that the start takes out: the one it replaces, and what follows."""
        if request.replaces is None:
            return []
        await self._journal.wait_committed(self._journal.mark(), self._config.flush_timeout)
        try:
            return await self._reads.message_ids(request.replaces)
        except MessageNotFound:
            return []  # it left the transcript while the start waited

    async def _committed_or_ended(self, mark: Mark, run: Run) -> None:
        """Wait for a start's commit; when the disk hangs, put the end right behind it and do not run it."""
        try:
            await self._journal.wait_committed(mark, self._config.flush_timeout)
        except TimedOut:
            if self._slot.live is run:
                run.set_done()
                ending = Ending(outcome="failed", code="WRITE_FAILED", message=SAFE_TEXTS["failed"])
                mark = self._slot.write_end(run, ending)
            self._is_unsettled(mark)
            raise

    # --- inputs

    async def input(
        self, generation_id: str, kind: str, content: JSONObject, input_id: str | None, by: str | None
    ) -> str:
        """Take in an input for the live generation; not a step. Returns its id, behind its stamp.

        Raises what `Run.take_input` does, and `GenerationNotFound`, `GenerationMismatch` for one that waits.
        """
        live = self._slot.live
        if live is not None and live.generation_id == generation_id:
            return live.take_input(kind, content, input_id, by)
        state = (await self._reads.generation_info(generation_id)).state
        live = self._slot.live
        if live is not None and live.generation_id == generation_id:  # it began meanwhile
            return live.take_input(kind, content, input_id, by)
        error = GenerationMismatch if state == "queued" else StaleGeneration
        detail = "the generation has not begun" if state == "queued" else "the generation has ended"
        raise error(detail, session_id=self._journal.session_id, generation_id=generation_id)
