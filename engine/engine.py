"""The engine: sessions found and created, brought into memory and let go; opening, recovery and drain."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final, cast, final

import trio
from attrs import frozen

from .codec import check_json, decode_json, encode, encode_json
from .config import Config
from .errors import (
    Draining,
    IdInUse,
    InvalidBody,
    PenstockError,
    ProducerNotFound,
    SessionDeleted,
    SessionNotFound,
    StaleEpoch,
    TimedOut,
)
from .events import (
    Cursor,
    Data,
    Event,
    JSONObject,
    MessageSnapshot,
    SessionCreated,
    SessionId,
    check_session_id,
    new_epoch,
    new_session_id,
    now,
)
from .forking import fork_events
from .generation import Producer
from .hub import Drained
from .journal import Budget
from .log import MemoryLog, open_sqlite
from .log.port import Append, EventLog, Head, LogStatistics
from .parts import digest
from .reads import ForkPoint
from .records import METADATA, OPEN, QUEUED, MessageRecord, OpenRecord, message_key, read_record, to_record
from .resident import Resident
from .results import SessionInfo
from .session import Session

__all__ = ["Engine", "EngineStatistics", "open_engine"]

logger = logging.getLogger("penstock.engine")

# How many sessions recovery ends at a time: enough for the log to commit them together.
_RECOVERY_WIDTH: Final = 32


@final
@frozen(kw_only=True)
class EngineStatistics:
    """A moment's figures. ``pending_events`` are stamped and not committed."""

    sessions: int
    live_generations: int
    stragglers: int
    subscribers: int
    pending_events: int
    degraded_sessions: int
    draining: bool
    log: LogStatistics


@final
class Engine:
    """Runs sessions. Made by `open_engine`."""

    def __init__(
        self,
        log: EventLog,
        *,
        owns_log: bool,
        producers: Mapping[str, Producer],
        default_producer: str | None,
        config: Config,
    ) -> None:
        self.config: Final = config
        self._log = log
        self._owns_log = owns_log
        self._producers = dict(producers)
        self._default = default_producer
        self._budget = Budget(config.total_pending)
        self._residents: dict[str, Resident] = {}
        self._tasks: set[Resident] = set()
        self._entering: dict[str, trio.Lock] = {}
        self._nursery: trio.Nursery | None = None
        self._closing = trio.Event()
        self._drained = trio.Event()
        self._drain_begun = False
        self._failure: PenstockError | None = None
        self.closed = trio.Event()

    # --- sessions

    async def create_session(self, session_id: str | None = None, *, metadata: JSONObject | None = None) -> Session:
        """The session with this id, made if there is none; ``created`` tells. A deleted one begins a new life.

        ``metadata`` is used only when the session is made. Raises `InvalidId`, `InvalidBody`, `WriteFailed`,
        `Draining`.
        """
        sid = new_session_id() if session_id is None else check_session_id(session_id)
        check_json(metadata, "metadata")
        created = False
        given = metadata or {}
        async with self._entrance(sid):
            while sid not in self._residents:
                head = await self._log.head(sid)
                if head is not None and not head.deleted:
                    self._enter(head)
                    break
                try:
                    head = await self._begin(sid, head, [(SessionCreated(metadata=given), None)], given, {})
                except IdInUse:
                    continue  # an earlier call was cancelled after it had handed its write over
                self._enter(head)
                created = True
        await self.resident(sid)
        return Session(self, sid, created=created)

    async def fork_session(
        self, session_id: str | None, source: str, point: ForkPoint, metadata: JSONObject | None
    ) -> Session:
        """A new session that begins with what ``point`` holds. For `Session.fork`. Raises `IdInUse`."""
        sid = new_session_id() if session_id is None else check_session_id(session_id)
        metadata = point.metadata if metadata is None else metadata
        events = list(fork_events(point.messages, source=source, cursor=point.cursor, metadata=metadata))
        records = {
            message_key(mid): to_record(MessageRecord(digest=digest(data)))
            for data, mid in events
            if mid is not None and isinstance(data, MessageSnapshot)
        }
        async with self._entrance(sid):
            head = await self._log.head(sid)
            if head is not None and not head.deleted:
                raise IdInUse("a session has this id already; choose another for the fork", session_id=sid)
            self._enter(await self._begin(sid, head, events, metadata, records))
        await self.resident(sid)
        return Session(self, sid, created=True)

    async def _begin(
        self,
        session_id: SessionId,
        former: Head | None,
        events: Sequence[tuple[Data, str | None]],
        metadata: JSONObject,
        records: Mapping[str, bytes | None],
    ) -> Head:
        """Write a session's first events. Raises `IdInUse` when it exists."""
        self._check_open()
        epoch, time = new_epoch(), now()
        bodies = [
            encode(Event(data=data, session_id=session_id, time=time, offset=number, message_id=mid))
            for number, (data, mid) in enumerate(events, 1)
        ]
        token = 1 if former is None else former.token + 1
        if metadata:
            records = {**records, METADATA: encode_json(metadata)}
        write = Append(
            session_id=session_id,
            epoch=epoch,
            expected_tail=0,
            token=token,
            events=bodies,
            records=records,
            create=True,
        )
        with trio.move_on_after(self.config.flush_timeout) as limit:
            await self._log.write(write)
        if limit.cancelled_caught:
            raise TimedOut("the log has not stored the session yet", session_id=session_id)
        return Head(session_id=session_id, epoch=epoch, tail=len(bodies), token=token)

    async def session(self, session_id: str) -> Session:
        """The session with this id. Raises `SessionNotFound`, `SessionDeleted`, `InvalidId`."""
        sid = check_session_id(session_id)
        await self.resident(sid)
        return Session(self, sid)

    async def resident(self, session_id: SessionId) -> Resident:
        """The session in memory, brought there if need be.

        For `Session`: nothing may wait between this and the use of what it returns. Cancelling a caller does
        not cancel the session's opening.
        """
        while True:
            resident = self._residents.get(session_id)
            if resident is None:
                resident = await self._find(session_id)
            await resident.wait_open()
            if not resident.closed:
                return resident

    async def _find(self, session_id: SessionId) -> Resident:
        async with self._entrance(session_id):
            resident = self._residents.get(session_id)
            if resident is not None:
                return resident
            head = await self._log.head(session_id)
            if head is None:
                raise SessionNotFound("there is no session with this id", session_id=session_id)
            if head.deleted:
                raise SessionDeleted("the session was deleted", session_id=session_id)
            return self._enter(head)

    @asynccontextmanager
    async def _entrance(self, session_id: str) -> AsyncIterator[None]:
        """One at a time per session: nobody else reads its head or brings it into memory."""
        lock = self._entering.setdefault(session_id, trio.Lock())
        try:
            async with lock:
                yield
        finally:
            if not lock.locked() and not lock.statistics().tasks_waiting:
                self._entering.pop(session_id, None)

    def _enter(self, head: Head) -> Resident:
        self._check_open()
        assert self._nursery is not None
        resident = Resident(
            self._log,
            head,
            self._budget,
            self.config,
            find_producer=lambda name: self.producer(name)[0],
            on_closed=self._left,
        )
        self._residents[head.session_id] = resident
        self._nursery.start_soon(self._keep, resident, name=f"penstock session {head.session_id}")
        return resident

    async def _keep(self, resident: Resident) -> None:
        """A session's task; it outlasts the session's place in `_residents` while stragglers run."""
        self._tasks.add(resident)
        try:
            await resident.run()
        finally:
            self._tasks.discard(resident)

    def _left(self, resident: Resident) -> None:
        if self._residents.get(resident.session_id) is resident:
            del self._residents[resident.session_id]

    async def sessions(self, after: str = "", limit: int = 100) -> list[SessionInfo]:
        """Living sessions in order of id, behind ``after``; none of them is brought into memory."""
        found: list[SessionInfo] = []
        for head in await self._log.heads(after=after, limit=limit):
            try:
                metadata = await self._log.record(head.session_id, head.epoch, METADATA)
                open_ = await self._log.record(head.session_id, head.epoch, OPEN)
            except StaleEpoch:
                continue  # deleted meanwhile
            found.append(
                SessionInfo(
                    session_id=head.session_id,
                    cursor=Cursor(head.epoch, head.tail),
                    metadata={} if metadata is None else cast("JSONObject", decode_json(metadata)),
                    generation_id=None if open_ is None else read_record(open_, OpenRecord).generation_id,
                )
            )
        return found

    def producer(self, wanted: str | Producer | AsyncIterable[str] | None) -> tuple[Producer, str]:
        """The producer meant, and its name in the log. Raises `ProducerNotFound`, `InvalidBody`."""
        if wanted is None:
            if self._default is None:
                raise ProducerNotFound("name a producer: this engine has no default one")
            wanted = self._default
        if isinstance(wanted, str):
            found = self._producers.get(wanted)
            if found is None:
                known = ", ".join(sorted(self._producers)) or "none"
                raise ProducerNotFound(f"no producer is registered as {wanted!r}; registered: {known}")
            return found, wanted
        if isinstance(wanted, AsyncIterable):
            pieces = wanted
            return (lambda _: pieces), type(pieces).__name__
        if not callable(wanted):
            raise InvalidBody("a producer is a name, an async function, an async generator function or async iterable")
        return wanted, getattr(wanted, "__name__", type(wanted).__name__)

    # --- state

    @property
    def draining(self) -> bool:
        return self._drain_begun

    @property
    def degraded(self) -> bool:
        """Whether a session in memory cannot be written at present."""
        return any(not resident.writable for resident in self._residents.values())

    def statistics(self) -> EngineStatistics:
        residents = self._residents.values()
        return EngineStatistics(
            sessions=len(residents),
            live_generations=sum(resident.slot.live is not None for resident in residents),
            stragglers=sum(len(resident.slot.stragglers) for resident in self._tasks),
            subscribers=sum(len(resident.hub) for resident in residents),
            pending_events=self._budget.used,
            degraded_sessions=sum(not resident.writable for resident in residents),
            draining=self.draining,
            log=self._log.statistics(),
        )

    def _check_open(self) -> None:
        if self._drain_begun:
            raise Draining("the engine is shutting down")

    # --- life

    async def drain(self, reason: str = "shutdown") -> None:
        """End every generation as ``shutdown``, commit, and tell every subscriber. Nothing starts any more.

        Bounded by `Config.drain_timeout`. Idempotent: a second call waits for the first. Cancelling a caller
        does not stop it.
        """
        if not self._drain_begun:
            assert self._nursery is not None
            self._drain_begun = True
            self._nursery.start_soon(self._drain, reason, name="penstock drain")
        await self._drained.wait()

    async def _drain(self, reason: str) -> None:
        try:
            with trio.move_on_after(self.config.drain_timeout) as limit:
                async with trio.open_nursery() as nursery:
                    for resident in list(self._residents.values()):
                        nursery.start_soon(_drain_one, resident)
            if limit.cancelled_caught:
                logger.error("the drain took more than %s s; what is left ends as lost", self.config.drain_timeout)
        finally:
            for resident in list(self._residents.values()):
                resident.hub.close(Drained(reason))
            self._drained.set()

    async def _run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """The engine's task: shielded, so that an application that is cancelled still ends its generations.

        What the shield protects is bounded once the application leaves: the drain by its timeout, the log's
        close by the disk. Only stragglers can take longer; Trio cannot abandon a task.
        """
        with trio.CancelScope() as scope:
            try:
                async with trio.open_nursery() as nursery:
                    self._nursery = nursery
                    await self._recover()
                    scope.shield = True
                    if self._failure is None:
                        task_status.started()
                        await self._closing.wait()
                    await self.drain()
                    for resident in list(self._residents.values()):
                        resident.abandon()
                    await self._close_log()
                    for run in (run for resident in self._tasks for run in resident.slot.stragglers):
                        logger.warning(
                            "waiting for the producer %s of generation %s", run.producer_name, run.generation_id
                        )
            finally:
                await self._close_log()
        if self._failure is not None:
            raise self._failure

    async def _close_log(self) -> None:
        try:
            if self._owns_log and not self.closed.is_set():
                await self._log.aclose()
        finally:
            self.closed.set()

    async def _recover(self) -> None:
        """End as ``lost`` what a dead process left open, and let its queues go on: being in memory does it."""

        async def bring(session_id: str) -> None:
            try:
                await self.resident(SessionId(session_id))
            except PenstockError as error:
                self._failure = error

        for key in (OPEN, QUEUED):
            await self._bring_holders(key, bring)

    async def _bring_holders(self, key: str, bring: Callable[[str], Awaitable[None]]) -> None:
        after = ""
        while self._failure is None:
            try:
                holders = await self._log.holders(key, after=after, limit=_RECOVERY_WIDTH)
            except PenstockError as error:
                self._failure = error
                return
            if not holders:
                return
            async with trio.open_nursery() as nursery:
                for session_id, _ in holders:
                    nursery.start_soon(bring, session_id)
            after = holders[-1][0]


async def _drain_one(resident: Resident) -> None:
    try:
        await resident.drain()
    except PenstockError as error:
        logger.error("session %s could not be drained: %s", resident.session_id, error)


@asynccontextmanager
async def open_engine(
    log: str | os.PathLike[str] | EventLog,
    *,
    producers: Mapping[str, Producer] | None = None,
    default_producer: str | None = None,
    config: Config | None = None,
) -> AsyncIterator[Engine]:
    """Open an engine over a database file, ``":memory:"``, or an open log, and run it until the block is left.

    Generations that a dead process left open have ended as ``lost`` when this returns. Leaving the block, by
    whatever way, drains: every generation ends, every end is committed, the log is closed. A log that was
    handed in open stays open.

    Raises `DatabaseError` when the file cannot be opened and `WriteFailed` when it cannot be written.
    """
    if default_producer is None and producers and len(producers) == 1:
        default_producer = next(iter(producers))
    if default_producer is not None and default_producer not in (producers or {}):
        raise ProducerNotFound(f"the default producer {default_producer!r} is not registered")
    if isinstance(log, EventLog):
        opened: EventLog = log
    elif os.fspath(log) == ":memory:":
        opened = MemoryLog()
    else:
        opened = await open_sqlite(os.fspath(log))
    engine = Engine(
        opened,
        owns_log=opened is not log,
        producers=producers or {},
        default_producer=default_producer,
        config=config or Config(),
    )
    raised: BaseException | None = None
    async with trio.open_nursery() as nursery:
        try:
            await nursery.start(engine._run)
            yield engine
        except BaseException as error:  # noqa: BLE001  carried around the nursery, which would wrap it in a group
            raised = error
        finally:
            engine._closing.set()
    if raised is not None:
        raise raised
