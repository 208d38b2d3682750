"""Producers in other processes: their chunks, taken into one session's generations.

Owns which generation a chunk is for, what a repetition gets for an answer, and whom an error is about. A chunk for the
live generation is written in the caller's task, from the judging of its number to its stamp without a wait; what begins
or ends a generation is a lifecycle step. The end is `finishing`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import final

import trio
from attrs import frozen

from ..errors import (
    GenerationMismatch,
    GenerationNotFound,
    InvalidBody,
    PenstockError,
    StaleGeneration,
    WriteFailed,
)
from ..events import check_uuid, is_uuid
from ..generation.approvals import expires_at
from ..generation.remote import REMOTE, RemoteProducer
from ..generation.run import Run
from ..generation.stamper import PieceStamper
from ..results import ChunksAccepted, Finished
from ..rules.chunks import Chunk, ChunkBatch, Pieces, ProducerStamp, read_batch
from ..rules.ending import Ending
from ..rules.lifecycle import OpenGeneration
from ..rules.placing import Owners, Placing
from ..rules.policy import Policy
from ..rules.records import MessageRecord, message_key, to_record
from ..stream.journal import Mark
from .core import Core
from .ending import finished_first
from .finishing import driven_from_elsewhere, finish, refusal, unfinished
from .life import Call
from .messages import wait_room
from .numbering import Numbering
from .starting import begin_written
from .steps import Steps
from .transaction import StartRequest

__all__ = ["Remotes"]


@final
@frozen(kw_only=True)
class _Request:
    """One request with chunks, as it was asked."""

    generation_id: str
    chunks: Sequence[Chunk]
    stamp: ProducerStamp | None

    @property
    def message_id(self) -> str | None:
        """The message that it names last."""
        named = (chunk.message_id for chunk in reversed(self.chunks))
        return next((mid.lower() for mid in named if isinstance(mid, str) and is_uuid(mid)), None)


@final
@frozen(kw_only=True)
class _Taken:
    """Chunks that were stamped."""

    mark: Mark
    turn: int
    accepted: int
    duplicates: int
    message_id: str | None


@final
class Remotes:
    """The remote producers of one session in memory."""

    def __init__(self, core: Core, steps: Steps) -> None:
        self._core = core
        self._steps = steps
        self._numbering = Numbering(core.journal, core.history)

    # --- chunks

    async def chunks(self, chunks: Sequence[Chunk], stamp: ProducerStamp | None, lease: float | None) -> ChunksAccepted:
        """Write them, all or none; durable when this returns. See `Session.chunks`."""
        gid = check_uuid(chunks[0].generation_id, "generation_id")
        request = _Request(generation_id=gid, chunks=chunks, stamp=stamp)
        try:
            return await self._chunks(request, lease)
        except PenstockError as error:
            self._named(error, gid, request.message_id)
            raise

    async def _chunks(self, request: _Request, lease: float | None) -> ChunksAccepted:
        gid = request.generation_id
        self._hear(gid, lease)  # whatever becomes of the request, its producer lives
        taken = await self._take(request)
        if (run := self._hear(gid, lease)) is not None:
            run.heard_again()
        if isinstance(taken, Mark):
            return await self._again(request, taken)
        if run is not None and run.remote is not None:
            run.remote.heard = True
        await self._core.settled(taken.mark)
        return ChunksAccepted(
            generation_id=gid,
            cursor=self._core.journal.cursor_at(taken.mark),
            accepted=taken.accepted,
            duplicates=taken.duplicates,
            message_id=taken.message_id,
            turn=taken.turn,
        )

    async def keep(self, generation_id: str | None, stamp: ProducerStamp | None, lease: float | None) -> ChunksAccepted:
        """Take a sign of life of the live generation's producer. See `Session.keep`."""
        live = self._core.live
        gid = generation_id or ("" if live is None or live.remote is None else live.generation_id)
        if not gid and lease is None:
            raise InvalidBody("a batch has chunks; one without them keeps a lease, and there is none")
        if not gid:
            raise GenerationNotFound("no generation is live that another process drives")
        with self._naming(gid):
            await self._numbering.learn(stamp)
            self._steps.check(Call.WRITE)
            mark = self._numbering.repeats(stamp)
            run = driven_from_elsewhere(self._core, gid)
            if mark is None:
                if run is None or run.remote is None:
                    record = await self._core.history.generation(gid)
                    raise (
                        GenerationNotFound("the session never saw this generation")
                        if record is None
                        else refusal(record)
                    )
                run.writer.check()
                if lease is None and run.remote.lease is None:
                    raise InvalidBody(
                        "a batch has chunks; one without them keeps a lease, and this producer declared none"
                    )
                if stamp is not None:
                    mark = self._core.journal.append((), self._numbering.records(stamp))
                    self._numbering.note(stamp, mark)
            if run is not None and run.remote is not None:
                run.hear(lease)
                run.heard_again()
                run.remote.heard = True
            await self._core.settled(mark)
            turn = None if run is None else run.structure.turn
            return ChunksAccepted(
                generation_id=gid,
                cursor=self._core.journal.cursor,
                accepted=0,
                duplicates=0,
                message_id=None,
                turn=turn,
            )

    def _hear(self, generation_id: str, lease: float | None) -> Run | None:
        """A request for this generation came. Returns the generation, if it is live and driven from elsewhere."""
        live = self._core.live
        if live is None or live.generation_id != generation_id or live.remote is None:
            return None
        live.hear(lease)
        return live

    async def _take(self, request: _Request) -> _Taken | Mark:
        """Stamp the chunks; the place of a request that was taken before."""
        batch: ChunkBatch | Pieces | None = None
        while True:
            # Whatever had to be waited for, all is judged again behind the wait.
            await self._numbering.learn(request.stamp)
            self._steps.check(Call.WRITE)
            before = self._numbering.repeats(request.stamp)
            if before is not None:
                return before
            if batch is None:
                batch = read_batch(request.chunks, expires_at=lambda: expires_at(self._core.config.approval_timeout))
                if self._core.journal.full:
                    await wait_room(self._core)  # once; what is written then waits for nothing
                    continue
            run = driven_from_elsewhere(self._core, request.generation_id)
            if run is None:
                taken = await self._begin(request, batch)
                if taken is not None:
                    return taken
                continue
            unknown = [mid for mid in batch.message_ids if mid not in run.structure.messages]
            owners: Owners = {}
            if unknown:
                owners = await self._core.message_ids.owners(unknown)
                if self._core.live is not run or self._must_judge_again(request.stamp):
                    continue
            return self._write(run, request, batch, owners)

    def _must_judge_again(self, stamp: ProducerStamp | None) -> bool:
        self._steps.check(Call.WRITE)
        return not self._numbering.knows(stamp) or self._numbering.repeats(stamp) is not None

    def _write(self, run: Run, request: _Request, batch: ChunkBatch | Pieces, owners: Owners) -> _Taken:
        """Judge and stamp, without a wait."""
        run.writer.check()
        if batch.job_id is not None and batch.job_id != run.structure.job_id:
            raise GenerationMismatch("the generation is another job's")
        taken = self._append(run, request, batch) if isinstance(batch, Pieces) else None
        if taken is not None:
            return taken
        placing = Placing(run.structure, batch, owners)
        with placing.blaming():
            mark = run.writer.put_all(placing.drafts(), self._records(request, placing))
        return self._noted(run, request, placing, mark)

    def _append(self, run: Run, request: _Request, pieces: Pieces) -> _Taken | None:
        """The same for pieces that come next in an open block, as nearly all do. None, and nothing done, for others."""
        try:
            stamper = PieceStamper(
                self._core.journal, run.structure, pieces.message_id, pieces.block_index or 0, "text"
            )
            if pieces.seq is not None and pieces.seq != stamper.next_seq:
                return None
            mark = stamper.stamp_all(pieces.texts, self._numbering.records(request.stamp))
        except PenstockError:
            return None  # `Placing` says which of them it is, and why
        run.writer.last_event = trio.current_time()
        self._numbering.note(request.stamp, mark)
        return _Taken(
            mark=mark,
            turn=run.structure.turn,
            accepted=len(pieces.texts),
            duplicates=0,
            message_id=pieces.message_id,
        )

    def _records(self, request: _Request, placing: Placing) -> Callable[[int], Mapping[str, bytes | None]]:
        """What is stored with the chunks, once they are all placed."""
        opened = to_record(MessageRecord(generation_id=request.generation_id))
        return lambda _: {
            **{message_key(message_id): opened for message_id in placing.opened},
            **self._numbering.records(request.stamp),
        }

    def _noted(self, run: Run, request: _Request, placing: Placing, mark: Mark) -> _Taken:
        self._numbering.note(request.stamp, mark)
        for message_id in placing.opened:
            self._core.message_ids.note(message_id, mark)
        for asked in placing.asked:
            run.approvals.note(asked)
        for _ in range(placing.applied):
            run.inputs.free()
        return _Taken(
            mark=mark,
            turn=run.structure.turn,
            accepted=placing.accepted,
            duplicates=placing.duplicates,
            message_id=placing.message_id,
        )

    async def _again(self, request: _Request, before: Mark) -> ChunksAccepted:
        """The answer to a request that was taken before: a success, whatever became of the generation."""
        await self._core.settled(before)
        live = self._core.live
        return ChunksAccepted(
            generation_id=request.generation_id,
            cursor=self._core.journal.cursor,
            accepted=0,
            duplicates=len(request.chunks),
            message_id=request.message_id,
            turn=live.structure.turn if live is not None and live.generation_id == request.generation_id else None,
        )

    # --- the first chunk

    async def _begin(self, request: _Request, batch: ChunkBatch | Pieces) -> _Taken | None:
        """Have the generation begun by its first chunks, in its turn; None when it is to be judged again."""
        gid = request.generation_id
        record = await self._core.history.generation(gid)
        if driven_from_elsewhere(self._core, gid) is not None:
            return None
        if record is not None:
            raise refusal(record)
        start = StartRequest(
            generation_id=gid,
            proposed=True,
            producer=RemoteProducer(),
            producer_name=REMOTE,
            registered=True,
            policy=Policy.REJECT,
            job_id=batch.job_id,
        )
        taken = await self._steps.take(partial(self._register, start, request, batch), subject=start)
        if isinstance(taken, Mark):
            await self._core.settled(taken)
            raise StaleGeneration("the generation was stopped before it began")
        return taken

    async def _register(
        self, start: StartRequest, request: _Request, batch: ChunkBatch | Pieces
    ) -> _Taken | Mark | None:
        """Write the start and the chunks as one part. A step.

        Returns where a start stands that a stop had reached: none of the chunks is written. None: judge it again.
        """
        gid = request.generation_id
        if driven_from_elsewhere(self._core, gid) is not None:
            return None  # another request of its producer came first
        # What the log says of the ids is all there is to say, then.
        await self._core.settled()
        record = await self._core.history.generation(gid)
        if record is not None:
            raise refusal(record)
        owners = await self._core.message_ids.owners(batch.message_ids)
        if self._must_judge_again(request.stamp):
            return None
        live = finished_first(self._core)
        if live is not None:
            raise GenerationMismatch("another generation is live")
        self._core.check_stragglers()
        structure = OpenGeneration(gid, self._core.turn + 1, batch.job_id)
        placing = Placing(structure, batch, owners)
        with placing.blaming():
            mark, run = begin_written(self._core, start, structure, placing.drafts(), self._records(request, placing))
        return mark if run is None else self._noted(run, request, placing, mark)

    # --- the end

    async def finish(self, generation_id: str, ending: Ending, stamp: ProducerStamp | None) -> Finished:
        """End the generation in its producer's name; durable when this returns. See `Session.finish`."""
        with self._naming(generation_id):
            try:
                mark, repeated = await self._steps.take(
                    partial(finish, self._core, self._numbering, generation_id, ending, stamp)
                )
                await self._core.journal.wait_committed(mark, self._core.config.finish_timeout)
            except WriteFailed as error:
                raise unfinished() from error
            cursor = self._core.journal.cursor if repeated else self._core.journal.cursor_at(mark)
            return Finished(generation_id=generation_id, cursor=cursor, repeated=repeated)

    # --- the fence

    async def wait_fenced(self, generation_id: str) -> PenstockError:
        """What its producer's next write raises, as soon as there is such a thing. See `Session.wait_fenced`."""
        with self._naming(generation_id):
            live = self._core.live
            if live is None or live.generation_id != generation_id:
                record = await self._core.history.generation(generation_id)
                live = self._core.live  # it may have begun meanwhile
                if live is None or live.generation_id != generation_id:
                    if record is None:
                        raise GenerationNotFound("the session never saw this generation")
                    past = refusal(record)
                    if isinstance(past, GenerationMismatch):
                        raise past
                    return self._named(past, generation_id)
            return self._named(await live.writer.wait_fenced(), generation_id)

    # --- whom an error is about

    @contextmanager
    def _naming(self, generation_id: str) -> Iterator[None]:
        """Errors from here name the session and the generation that the request is about."""
        try:
            yield
        except PenstockError as error:
            self._named(error, generation_id)
            raise

    def _named(self, error: PenstockError, generation_id: str, message_id: str | None = None) -> PenstockError:
        error.session_id = error.session_id or self._core.session_id
        error.generation_id = error.generation_id or generation_id
        error.message_id = error.message_id or message_id
        return error
