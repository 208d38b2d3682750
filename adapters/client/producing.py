"""A remote generation from its producer's side: the stage under an ordinary `Generation`, and how it begins and ends.

Owns the ends: flush, then finish, in this order and only if all before went well (a done that readers cannot see is
never told); a stop that goes out at once when the producer is cancelled; the fence that cancels the producer.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Final, final

import trio
from attrs import frozen

from penstock.engine import (
    JSON,
    CorruptSession,
    Generation,
    GenerationMismatch,
    JSONObject,
    PenstockError,
    Producer,
    ProducerError,
    ProducerNotFound,
    Queued,
    SessionDeleted,
    SessionNotFound,
    Snapshot,
    StaleGeneration,
    StaleProducer,
    Started,
    TimedOut,
    check_job_id,
    check_json,
    check_uuid,
    run_producer,
)

from ..requests.answers import ChunksAnswer
from .commands import Commands
from .farewell import Farewell
from .files import read_file
from .hearing import Approvals, Hearing, Inputs
from .numbering import Numbering
from .place import Place
from .reading import follow
from .refusals import Unreachable
from .sending import Sender, SendStatistics
from .snapshots import take_snapshot
from .wire import Wire, session_path
from .writer import RemoteWriter, Tail

__all__ = ["Opening", "Production"]

logger = logging.getLogger("penstock.client")

# Refusals that say that the generation is over, or was never ours: there is nothing left to end.
_OVER: Final = (StaleGeneration, GenerationMismatch, StaleProducer, SessionDeleted, CorruptSession, SessionNotFound)


@final
@frozen(kw_only=True)
class Opening:
    """What a remote generation begins with."""

    generation_id: str
    job_id: str | None
    input: JSON
    metadata: JSONObject
    listens: bool
    idle_limit: float | None = None  # seconds; None: the client's
    continues: str | None = None


@final
class Production:
    """One remote generation; `run` is its life."""

    def __init__(self, wire: Wire, session_id: str, opening: Opening, producers: Mapping[str, Producer]) -> None:
        generation_id = check_uuid(opening.generation_id, "generation_id")
        job_id = None if opening.job_id is None else check_job_id(opening.job_id)
        check_json(opening.input, "input")
        self._wire: Final = wire
        self._config: Final = wire.config
        self._session_id: Final = session_id
        self._opening: Final = opening
        self._producers: Final = producers
        self._commands: Final = Commands(wire)
        self._sender: Final = Sender(wire, session_id, generation_id, on_answer=self._answered, on_failed=self._failed)
        self._beside: trio.Nursery  # of the tasks that go on while the producer does
        self._body: Final = trio.CancelScope()
        self._registered: Final = trio.Event()
        self._starting = False
        self._farewell: Final = Farewell(wire, session_id, generation_id)
        self._stalled: TimedOut | None = None
        self._cancelled_at: float | None = None
        self.usage: JSONObject | None = None
        self.writer: Final = RemoteWriter(generation_id, Numbering(job_id), Tail(session_id), self._sender)
        self.writer.on_fenced = self._fenced
        self._hearing: Final = Hearing(self.writer, self._refuse, listens=opening.listens)

    # --- the stage of a `Generation`

    @property
    def metadata(self) -> JSONObject:
        return self._opening.metadata

    @property
    def continues(self) -> str | None:
        return self._opening.continues

    @property
    def approvals(self) -> Approvals:
        return self._hearing.approvals

    @property
    def inputs(self) -> Inputs:
        return self._hearing.inputs

    @property
    def approval_timeout(self) -> float:
        return self._config.approval_timeout

    @property
    def idle_limit(self) -> float:
        own = self._opening.idle_limit
        return self._config.idle_limit if own is None else own

    @property
    def take_snapshot(self) -> Callable[[int | None, str | None], Awaitable[Snapshot]]:
        return self._snapshot

    async def _snapshot(self, limit: int | None, before: str | None) -> Snapshot:
        await self.writer.flush()
        return await take_snapshot(self._commands, self._session_id, limit, before)

    @property
    def read_file(self) -> Callable[[str, int, int | None], Awaitable[bytes]]:
        return self._read_file

    async def _read_file(self, file_id: str, start: int, limit: int | None) -> bytes:
        content = await read_file(self._commands, self._session_id, file_id)
        return content[start : None if limit is None else start + limit]

    def cleanup(self) -> trio.CancelScope:
        begun = trio.current_time() if self._cancelled_at is None else self._cancelled_at
        return trio.CancelScope(shield=True, deadline=begun + self._config.cleanup_timeout)

    async def play(self, producer: str | Producer, generation: Generation) -> None:
        """Run a producer to its end, in the caller's task."""
        if isinstance(producer, str):
            if producer not in self._producers:
                raise ProducerNotFound(f"produce() was given no producer named {producer!r}")
            producer = self._producers[producer]
        await run_producer(producer, generation)

    def statistics(self) -> SendStatistics:
        return self._sender.statistics()

    # --- its life

    async def start(self, starting: Callable[[], Awaitable[Started | Queued]]) -> Started | Queued:
        """Begin with a start. One whose answer nobody gets is stopped, if it should yet be carried out."""
        self._starting = True
        try:
            return await starting()
        except (trio.Cancelled, Unreachable):
            await self.abandon()
            raise

    @asynccontextmanager
    async def run(self, tasks: trio.Nursery, started: Started | Queued | None) -> AsyncIterator[Generation]:
        """The producer's block, with what stands beside it in ``tasks``. See `RemoteSession.produce`."""
        self._beside = await tasks.start(_hold_open, name="penstock production")
        tasks.start_soon(self._sender.run, name="penstock sender")
        self._begin(started)
        try:
            if isinstance(started, Queued):
                await self._wait_turn()
            with self._body:
                self.writer.last_event = trio.current_time()
                self._beside.start_soon(self._watch, name="penstock producer's watchdog")
                yield Generation(self, self._opening.input)
        except GeneratorExit:
            raise
        except Exception as error:
            await self._end_raised(error)
            raise
        except BaseException:
            await self.abandon()
            raise
        else:
            await self._end()
        finally:
            self._sender.scope.cancel(reason="penstock: the producer is done")
            self._leave_alone()

    def _begin(self, started: Started | Queued | None) -> None:
        if started is not None:
            self.writer.journal.known = started.cursor
            self._registered.set()
        if isinstance(started, Started):
            self.writer.structure.turn = started.turn
            self._sender.keep()
        if self._opening.listens:
            self._beside.start_soon(self._listen, name="penstock listener")

    async def _wait_turn(self) -> None:
        try:
            await self._hearing.wait_started()
            self._sender.keep()
        except Exception as error:
            await self.abandon()
            self.writer.fence(error)
            raise

    async def _end(self) -> None:
        """The producer has come to its end, or was brought to it."""
        if self._stalled is not None and self.writer.refusal is None:
            logger.error("session %s: %s", self._session_id, self._stalled.detail)
            await self._finish({"outcome": "failed", "code": "STALLED", "message": self._stalled.detail})
            raise self._stalled
        await self._finish({"outcome": "completed"})

    async def _end_raised(self, error: Exception) -> None:
        """The producer has raised. Returns if its error is to come out."""
        if self.writer.refusal is not None:
            await self._tell_failed()
            if _only(error, self.writer.refusal):
                raise self.writer.refusal.with_traceback(None) from None
            return
        code, text = "PRODUCER_FAILED", "The producer raised an error."
        if isinstance(error, ProducerError):
            code, text = error.reason, error.detail
        try:
            await self._finish({"outcome": "failed", "code": code, "message": text})
        except PenstockError as also:
            logger.error("session %s: the failed generation has no end of its own: %s", self._session_id, also)

    async def _finish(self, body: dict[str, JSON]) -> None:
        """Flush, then finish. What could not be delivered is raised, and then nobody is told that it is done."""
        self._leave_alone()  # the end that is heard now is our own
        try:
            if self.writer.refusal is None:
                await self._sender.flush()
            self.writer.check()
            if not self._known:
                return  # nothing was ever said, and nobody knows of it
            if self.usage is not None:
                body["usage"] = self.usage
            try:
                await self._sender.finish(body)
            except PenstockError as error:
                self.writer.fence(error)
                raise
        except BaseException as error:
            if isinstance(error, trio.Cancelled):
                await self.abandon()
            elif isinstance(error, Exception):
                self.writer.fence(error)
                await self._tell_failed()
            raise

    async def _tell_failed(self) -> None:
        """What the producer wrote is not all there, and nobody else has said that it is over."""
        if isinstance(self.writer.refusal, _OVER) or not self._known:
            return
        self._sender.scope.cancel(reason="penstock: it cannot be delivered")
        await self._farewell.failed()

    async def abandon(self) -> None:
        """The producer was cancelled: what is under way is dropped, and the server told, once and at once."""
        self._sender.scope.cancel(reason="penstock: the producer was cancelled")
        if self.writer.refusal is None and self._known:
            await self._farewell.stopped()

    @property
    def _known(self) -> bool:
        """Whether the server may have heard of it."""
        return self._starting or self._sender.began

    # --- beside it

    def _answered(self, answer: ChunksAnswer) -> None:
        """A batch is durable."""
        self.writer.journal.known = answer.cursor
        if answer.turn is not None:
            self.writer.structure.turn = answer.turn
        self._registered.set()

    def _failed(self, error: Exception) -> None:
        self.writer.fence(error)

    def _fenced(self) -> None:
        self._cancelled_at = trio.current_time()
        self._hearing.close()
        self._body.cancel(reason=f"penstock: {self.writer.refusal}")

    def _leave_alone(self) -> None:
        self._beside.cancel_scope.cancel(reason="penstock: the producer has ended")

    async def _listen(self) -> None:
        await self._registered.wait()
        place = Place(self._session_id, self.writer.journal.known, snapshot=not self._starting)
        async with follow(self._beside, self._wire, place, "sse") as events:
            await self._hearing.listen(events)

    async def _watch(self) -> None:
        """Cancel a producer that writes nothing for too long."""
        limit, since = self.idle_limit, trio.current_time()
        while True:
            if self._hearing.approvals or self.writer.structure.awaits_result:
                since = trio.current_time()
            due = max(since, self.writer.last_event) + limit
            if due <= trio.current_time():
                break
            await trio.sleep_until(due)
        self._stalled = TimedOut(
            f"the producer wrote nothing for {limit} s",
            session_id=self._session_id,
            generation_id=self.writer.generation_id,
        )
        self._cancelled_at = trio.current_time()
        self._body.cancel(reason=f"penstock: {self._stalled.detail}")

    def _refuse(self, approval_id: str) -> None:
        """The producer does not wait for this answer any more."""

        async def refuse() -> None:
            body: dict[str, JSON] = {
                "kind": "approval",
                "approval_id": approval_id,
                "approved": False,
                "reason": "cancelled",
            }
            path = f"{session_path(self._session_id)}/generations/{self.writer.generation_id}/inputs"
            try:
                await self._sender.flush()
                await self._commands.ask("POST", path, body, repeatable=True)
            except PenstockError as error:
                logger.warning("session %s: an approval stays open: %s", self._session_id, error)

        self._beside.start_soon(refuse, name="penstock refusal")


async def _hold_open(task_status: trio.TaskStatus[trio.Nursery]) -> None:
    """A nursery until it is cancelled."""
    async with trio.open_nursery() as nursery:
        task_status.started(nursery)
        await trio.sleep_forever()


def _only(error: Exception, refusal: Exception) -> bool:
    """Whether a fenced producer's error is nothing but running into the fence."""
    if isinstance(error, ExceptionGroup):
        return all(_only(each, refusal) for each in error.exceptions)
    return type(error) is type(refusal)
