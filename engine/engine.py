"""The engine: its producers and its sessions, opening, recovery and drain."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Final, final

import trio
from attrs import frozen

from .cluster.membership import Membership
from .cluster.opening import open_bus, this_node
from .config import Config
from .errors import (
    CorruptSession,
    DatabaseInUse,
    InvalidBody,
    PenstockError,
    StorageError,
)
from .events import Cursor, JSONObject, SessionId, check_path_id, check_session_id, new_session_id
from .facts import Observer
from .generation.generation import Producer
from .log import open_log
from .log.port import EventLog, LogStatistics
from .log.using import using
from .observers.log_lines import LogLines
from .observers.reporting import Observers
from .results import ProducerInfo, SessionInfo
from .session.arguments import checked_choice, checked_count, checked_cursor, checked_ttl
from .session.background import Background
from .session.commands import DeleteSession
from .session.inheritance import Inheritance
from .session.listing import Order
from .session.peers import Peers, read_command, tell_answer, tell_error
from .session.producers import Producers
from .session.registry import Registry
from .session.resident import Resident
from .session.session import Session
from .shapes import check_text, checked_text
from .stream.bus import Bus, LocalBus, Node
from .stream.hub import Drained
from .stream.watch import Watch
from .supervision import EXITS, Exit, Supervisor, both, find_exit, protected, without

__all__ = ["Engine", "EngineStatistics", "open_engine"]

logger = logging.getLogger("penstock.engine")

# What other engines are told of the list at the end may take so long: seconds.
_FAREWELL: Final = 2.0

# An engine that shares a store has written in it so many seconds ago at most, or it is not ready.
_STORED_WITHIN: Final = 3.0


@final
@frozen(kw_only=True)
class EngineStatistics:
    """A moment's figures. ``pending_events``, of so many ``pending_bytes``, are stamped and not committed.

    ``set_aside`` counts the sessions of which what is stored cannot be read. Where engines share the log, ``seats`` are
    those in memory that this one has, ``views`` those that are read here, and ``lease_age`` is how many seconds ago the
    store last took this engine's word that it is there.
    """

    sessions: int
    live_generations: int
    stragglers: int
    subscribers: int
    present: int
    pending_events: int
    pending_bytes: int
    degraded_sessions: int
    set_aside: int
    draining: bool
    log: LogStatistics
    seats: int = 0
    views: int = 0
    lease_age: float | None = None


@final
@protected
class Engine:
    """Runs sessions. Made by `open_engine`."""

    def __init__(
        self,
        log: EventLog,
        *,
        owns_log: bool,
        producers: Producers,
        config: Config,
        observer: Observer | None = None,
        owner: str = "",
        bus: Bus | None = None,
        peers: Peers | None = None,
        owns_bus: bool = False,
        node: Node | None = None,
    ) -> None:
        """``node`` is what it says of itself to the others, where it shares ``bus`` with them."""
        self.config: Final = config
        self._log = log
        self._owns_log = owns_log
        self._owns_bus = owns_bus
        observers = Observers((LogLines(),) if observer is None else (LogLines(), observer), self._leave_with)
        self._supervisor = Supervisor(self._leave_with)
        self._registry = Registry(log, config, producers, observers, self._supervisor, owner, bus, peers)
        self._inheritance = Inheritance(log, self._registry)
        self._background = Background(log, self._registry, self._sees_to)
        self._membership: Final = (
            None
            if bus is None or node is None
            else Membership(
                bus,
                node,
                confirm=self._inheritance.confirm,
                inherit=self._inheritance.inherit,
                owners=self._inheritance.owners,
                replaced=self._leave_name,
            )
        )
        if self._membership is not None:
            self._registry.claims.is_gone = self._membership.is_gone
        self.application: Final = trio.CancelScope()
        self.exit: Exit | None = None  # what ended it
        self.replaced: DatabaseInUse | None = None  # likewise: another engine has its name
        self._opened = trio.Event()
        self._closing = trio.Event()
        self._there = trio.CancelScope()  # as a node
        self._drained = trio.Event()
        self.closed = trio.Event()

    # --- sessions

    async def create_session(self, session_id: str | None = None, *, metadata: JSONObject | None = None) -> Session:
        """The session with this id, made if there is none; ``created`` tells. A deleted one begins a new life.

        ``metadata`` is used only when the session is made. Raises `InvalidId`, `InvalidBody`, `CorruptSession`,
        `WriteFailed`, `TimedOut`, `Draining`.
        """
        sid = new_session_id() if session_id is None else check_session_id(session_id)
        return Session(self._registry, sid, created=await self._registry.create(sid, metadata))

    async def session(self, session_id: str) -> Session:
        """The session with this id. Raises `SessionNotFound`, `SessionDeleted`, `InvalidId`.

        One that is set aside has a handle, too, to be deleted by; all else that it is asked raises `CorruptSession`.
        """
        sid = check_session_id(session_id)
        with suppress(CorruptSession):
            await self._registry.reader(sid)
        return Session(self._registry, sid)

    async def sessions(
        self,
        after: str = "",
        limit: int = 100,
        *,
        order: Order = "id",
        updated: str | None = None,
        prefix: str = "",
        most_bytes: int | None = None,
    ) -> list[SessionInfo]:
        """Living sessions behind the one with the id ``after``; none of them is brought into memory.

        In order of id, or with ``order`` ``updated`` the last active first, of one time in order of id; then
        ``updated`` is what the session ``after`` was listed with, and both are left out for the first page. Only those
        whose id begins with ``prefix``. With ``most_bytes`` as many as have no more bytes of metadata, but one at
        least: nothing comes behind the last session only. Raises `InvalidBody`.
        """
        check_text(after, "after")
        check_text(prefix, "prefix")
        checked_text(updated, "updated")
        checked_choice(order, ("id", "updated"), "order")
        if order == "id" and updated is not None:
            raise InvalidBody("updated goes with the order updated")
        if order == "updated" and (updated is None) != (not after):
            raise InvalidBody("in the order updated a page begins behind a time and an id, or at the first session")
        checked_count(limit, "limit")
        most = math.inf if most_bytes is None else checked_count(most_bytes, "most_bytes")
        return await self._registry.listing.page(order, after, updated, prefix, limit, most)

    def watch(self, after: Cursor | str | None = None, *, wants: Callable[[str], bool] | None = None) -> Watch:
        """Follow the list of sessions: those that are made, change or are deleted, and of which ``wants`` is true.

            async with engine.watch() as changes:
                listed = await engine.sessions(order="updated")
                async for change in changes:
                    ...  # `change.session` takes the place of what was listed of it; None: it is gone

        ``after`` is the cursor of the last change that was seen: what changed since comes first, each session once.
        Where that is not known any more, a `Gap` says so, and the list has to be read anew. ``wants`` is asked with an
        id, often, and must not wait. Raises `InvalidCursor`.
        """
        asked: object = wants
        if asked is not None and not callable(asked):
            raise InvalidBody("wants is a function of a session's id")
        cursor = None if after is None else checked_cursor(after)
        return Watch(self._registry.listing.changes, cursor, wants or (lambda _: True))

    async def resident(self, session_id: SessionId) -> Resident:
        """The session in memory; see `Registry.resident`."""
        return await self._registry.resident(session_id)

    async def delete_session(self, session_id: str) -> None:
        """As `Session.delete`, for one that cannot be brought into memory, too.

        Raises `SessionNotFound`, `SessionDeleted`, `InvalidId`, `WriteFailed`, `TimedOut`, `Draining`.
        """
        await self._registry.carry_out(check_session_id(session_id), DeleteSession())

    async def carry_out(self, session_id: str, command: str, body: bytes) -> bytes:
        """Do what another engine of the log asks for by `Peers.ask`, and give what it comes to: an error, too.

        It is done here, or refused with who has the session: never asked for elsewhere. Cancelling the caller loses the
        answer, not what it asked for.
        """
        try:
            sid = check_session_id(session_id)
            asked = read_command(command, body, self._registry.producers)
            return tell_answer(await self._registry.carry_out(sid, asked, forwarded=True))
        except PenstockError as error:
            return tell_error(error)
        except Exception as error:
            logger.exception("%s of session %r, for another engine, failed", command, session_id)
            return tell_error(error)

    async def redeem(self, ticket_id: str, ttl: float) -> bool:
        """Use a ticket up, which is remembered for ``ttl`` seconds; whether nobody had used up one with this id before.

        In none of the engines that share the log; of one alone, in this one. Never True twice; after an answer of the
        store's that was lost it may be False for the one who did. Raises `InvalidId`, `InvalidBody`, `StorageError`,
        `Draining`.
        """
        check_path_id(ticket_id, "a ticket's id")
        self._registry.check_open()
        return await self._registry.volatile.redeem(ticket_id, checked_ttl(ttl))

    async def take_over(self, owner: str) -> None:
        """End as ``lost`` what the engine of that name has open, and let its queues go on here: it is gone.

        For engines that share a log. One that is not gone steps down: it writes nothing more in these sessions.
        Raises `InvalidId`, `StorageError`, `Draining`.
        """
        check_path_id(owner, "an owner")
        self._registry.check_open()
        await self._inheritance.take_over(owner)

    # --- the engines that share the log

    @property
    def node(self) -> Node | None:
        """This engine as the others know it; None where it shares nothing with any."""
        return None if self._membership is None else self._membership.node

    def nodes(self) -> list[Node]:
        """The engines that share the log and are there, this one too, in order of name; as of half a second ago."""
        return [] if self._membership is None else self._membership.nodes()

    def find_node(self, name: str) -> Node | None:
        """The engine of that name, such as the owner that `Moved` tells of, if it is there. Raises `InvalidId`."""
        check_path_id(name, "a node")
        return None if self._membership is None else self._membership.find(name)

    # --- state

    @property
    def producers(self) -> tuple[str, ...]:
        """The names of the producers that a start may name, in order; ``"remote"`` is not among them."""
        return self._registry.producers.names

    @property
    def producer_infos(self) -> tuple[ProducerInfo, ...]:
        """The same, with what each says of itself."""
        return self._registry.producers.infos

    @property
    def draining(self) -> bool:
        return self._registry.draining

    @property
    def degraded(self) -> bool:
        """Whether the log, or a session in memory, cannot be written at present."""
        return self._log.statistics().trouble is not None or any(
            not resident.writable for resident in self._registry.residents
        )

    @property
    def failing(self) -> tuple[str, ...]:
        """Why this engine should be sent nothing now; empty where it should.

        ``draining``; ``store``: nothing can be stored, or a session here cannot be written. Where engines share the
        log, a session's own trouble is none of the engine's, and all of them would have it: then ``store`` is a store
        that has taken no write of this engine's for 3 s, or for one beat where that is longer; ``lease``: the others
        may believe that this engine is gone; ``bus``: it hears late of what they do.
        """
        found = ["draining"] if self.draining else []
        membership, bus = self._membership, self._registry.bus
        if membership is None or bus is None:
            return (*found, "store") if self.degraded else tuple(found)
        ttl = membership.node.ttl
        if self._log.statistics().trouble is not None or membership.beaten_ago > max(_STORED_WITHIN, ttl / 2):
            found.append("store")
        if membership.beaten_ago > ttl:
            found.append("lease")
        if not bus.listening:
            found.append("bus")
        return tuple(found)

    def statistics(self) -> EngineStatistics:
        residents, watched = self._registry.residents, self._registry.watched
        return EngineStatistics(
            sessions=len(residents),
            live_generations=sum(resident.core.live is not None for resident in residents),
            stragglers=sum(len(resident.core.stragglers) for resident in self._registry.tasks),
            subscribers=sum(len(each.hub) for each in watched),
            present=sum(len(each.presence) for each in watched),
            pending_events=self._registry.budget.used,
            pending_bytes=self._registry.budget.bytes,
            degraded_sessions=sum(not resident.writable for resident in residents),
            set_aside=len(self._registry.aside),
            draining=self.draining,
            log=self._log.statistics(),
            seats=len(residents) if self._registry.owner else 0,
            views=0 if self._registry.views is None else len(watched),
            lease_age=None if self._membership is None else self._membership.beaten_ago,
        )

    # --- life

    def _leave_with(self, exit_: Exit) -> None:
        """A task raised what ends the process: close in order, and have the application's block left with it."""
        if self.exit is None:
            self.exit = exit_
            self._closing.set()
            self.application.cancel(reason=f"penstock: {type(exit_).__name__}")

    async def drain(self, reason: str = "shutdown") -> None:
        """End every generation as ``shutdown``, commit, and tell every subscriber. Nothing starts any more.

        Bounded by `Config.drain_timeout`. Idempotent: a second call waits for the first. Cancelling a caller
        does not stop it.
        """
        check_text(reason, "reason")
        if not self._registry.draining:
            self._registry.draining = True
            if self._membership is not None:
                self._membership.drain()
            self._registry.launch(partial(self._drain, reason), "penstock drain")
        await self._drained.wait()

    async def _drain(self, reason: str) -> None:
        try:
            with trio.move_on_after(self.config.drain_timeout) as limit:
                async with trio.open_nursery() as nursery:
                    for resident in self._registry.residents:
                        name = f"penstock drain of session {resident.session_id}"
                        self._supervisor.start(nursery, resident.drain, name)
            if limit.cancelled_caught:
                logger.error("the drain took more than %s s; what is left ends as lost", self.config.drain_timeout)
        finally:
            for each in self._registry.watched:
                self._supervisor.call(partial(each.hub.close, Drained(reason)), "telling readers of the drain")
            self._registry.listing.changes.close(Drained(reason))
            self._drained.set()

    async def _run(self) -> None:
        """The engine's task, the home of all others, from before the recovery until the last of them is over.

        Shielded, so that an application that is cancelled, while it opens the engine too, still ends its
        generations. What the shield protects is bounded once the application leaves: the drain by its timeout, the
        log's close by the disk. Only stragglers can take longer; Trio cannot abandon a task.
        """
        with trio.CancelScope(shield=True):
            try:
                async with trio.open_nursery() as nursery:
                    self._registry.nursery = nursery
                    self._opened.set()
                    await self._closing.wait()
                    await self.drain()
                    await self._note_changes()
                    self._background.close()
                    self._registry.closed = True
                    for resident in self._registry.tasks:  # also those that were closed in the middle of a repair
                        self._supervisor.call(resident.abandon, f"the end of session {resident.session_id}")
                    if self._membership is not None:
                        self._there.cancel(reason="the engine closes")
                        await self._membership.leave()
                    await self._close_log()
                    for run in (run for resident in self._registry.tasks for run in resident.core.stragglers):
                        logger.warning(
                            "waiting for the producer %s of generation %s", run.producer_name, run.generation_id
                        )
            finally:
                await self._close_log()

    async def _note_changes(self) -> None:
        """Tell the engines that share the log what the drain has changed in the list."""
        notes = self._registry.listing.changes.notes
        if notes is not None:
            with trio.move_on_after(_FAREWELL):
                try:
                    await notes.flush()
                except StorageError as error:
                    logger.warning("other engines are not told of the last changes of the list: %s", error)

    async def _close_log(self) -> None:
        try:
            if self._owns_log and not self.closed.is_set():
                await self._log.aclose()
            if self._owns_bus and self._registry.bus is not None:
                await self._registry.bus.aclose()
        finally:
            self.closed.set()

    async def _recover(self) -> None:
        """Begin: be there for the others, end what was left open, and only then see to the rest in the background.

        In the task of who opens the engine: it may be cancelled, and what began meanwhile is drained.
        """
        await self._inheritance.check_whole()
        if self._membership is not None:
            await self._membership.join()
            self._registry.launch_apart(self._be_there, "penstock membership")
        await self._inheritance.recover()
        self._registry.launch_apart(self._background.run, "penstock upkeep")

    def _sees_to(self, session_id: str) -> bool:
        """Whether this engine, and no other that shares its log, sees to what nobody does of the session."""
        return self._membership is None or self._membership.responsible(session_id)

    async def _be_there(self) -> None:
        assert self._membership is not None
        with self._there:
            await self._membership.run()

    def _leave_name(self, error: DatabaseInUse) -> None:
        logger.error("%s", error)
        self.replaced = error
        self._closing.set()
        self.application.cancel(reason="penstock: another engine has its name")


@asynccontextmanager
@trio.lowlevel.enable_ki_protection
async def open_engine(
    log: str | os.PathLike[str] | EventLog,
    *,
    producers: Mapping[str, Producer] | None = None,
    default_producer: str | None = None,
    config: Config | None = None,
    observer: Observer | None = None,
    owner: str | None = None,
    bus: str | Bus | None = None,
    peers: Peers | None = None,
    node_url: str = "",
) -> AsyncIterator[Engine]:
    """Open an engine over a database file, ``":memory:"``, a store or an open log, and run it until the block is left.

    A Redis is named by its URL, ``redis://[user:password@]host[:port][/db][?prefix=penstock&shards=64]``, and takes the
    extra ``penstock[redis]``. ``rediss`` is the same over TLS, ``redis+cluster`` and ``rediss+cluster`` a Redis Cluster
    of which the host is a node. All its keys begin with the prefix; the number of shards is fixed when something is
    stored under a prefix for the first time. A Postgres is ``postgres://[user:password@]host[:port]/database``, with
    the extra ``penstock[postgres]``; behind a ``?`` may stand what libpq knows, and ``schema=penstock``, in which all
    is stored. Nothing keeps a second engine without a name (``owner``) from opening either: see to it that there is
    none.

    Generations that a dead process left open have ended as ``lost`` when this returns; remote ones stay open, and
    go on with their producer's next chunk. Leaving the block, by whatever way, drains: every generation but the remote
    ones ends, every end is committed, the log is closed. A log that was
    handed in open stays open. ``observer`` hears what happens in the engine, beside its log lines.

    With a name, ``owner``, it shares the log with engines of other names. A session belongs to the one that created or
    last wrote in it; to write in it another one claims it, unless something is open in it: then that one is asked, by
    ``peers``, and its answer is given as if it were done here. Without them, and where it cannot be asked, that raises
    `Moved`, which says who has it; a producer that is a function cannot be carried there, which is `InvalidBody`. What
    was left open by an engine of the same name has ended when this returns, other engines' is left alone. Any of them
    can read any session. ``bus`` is how they hear of each other: one `LocalBus` for all that are opened over one
    `MemoryLog`, or the URL of a Redis. A log in a Redis has one already. Over it they hold leases
    (`Config.lease_ttl`): what an engine left open that is gone, others take over. ``node_url`` is what they are told of
    where this one is reached (`Engine.find_node`). Without a bus they see within 5 s what others write, and take
    nothing over but by `Engine.take_over`.

    Raises `DatabaseError` when the log or the bus cannot be opened, or an engine is open over ``log`` already, unless
    both have names and not the same; `InvalidId` for a name that is none; `WriteFailed` when it cannot be written. When
    another engine begins under the same name, the block is cancelled and raises `DatabaseInUse`. What leaves
    the block comes out as it is; where closing raises as well, such as `StorageError`, both come out in an exception
    group.
    """
    name = "" if owner is None else check_path_id(owner, "an owner")
    known = Producers({} if producers is None else producers, default_producer)
    config = config or Config()
    opened = (
        log
        if isinstance(log, EventLog)
        else await open_log(
            log,
            patience=config.log_patience,
            allow_weak_store=config.allow_weak_store,
            replicas=config.log_replicas,
        )
    )
    try:
        shared = await open_bus(bus, opened, patience=config.log_patience) if name else None
    except BaseException:
        if opened is not log:
            await opened.aclose()
        raise
    engine = Engine(
        opened,
        owns_log=opened is not log,
        producers=known,
        config=config,
        observer=observer,
        owner=name,
        bus=(LocalBus() if shared is None else shared) if name else None,
        peers=peers if name else None,
        owns_bus=shared is not bus,
        node=None
        if shared is None
        else this_node(name, node_url, config.lease_ttl, [info.name for info in known.infos]),
    )
    raised: BaseException | None = None
    closing: BaseException | None = None
    try:
        with using(opened, name), engine.application:
            try:
                async with trio.open_nursery() as nursery:
                    try:
                        nursery.start_soon(engine._run)  # not `start`, which would wait for it when cancelled
                        await engine._opened.wait()
                        await engine._recover()
                        yield engine
                    except BaseException as error:  # noqa: BLE001  carried around the nursery, which would wrap it
                        raised = error
                    finally:
                        engine._closing.set()
            except BaseException as error:  # noqa: BLE001  what came on the way out, to stand beside it
                engine.exit = engine.exit or find_exit(error)  # a Ctrl-C while it closed
                closing = without(error, EXITS)
            failure = engine.replaced or both(raised, closing)
            if failure is not None:
                raise failure
    finally:
        if engine.exit is not None:
            raise engine.exit  # as it is, whatever the application raised that was cancelled for it
