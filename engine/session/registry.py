"""The sessions of one engine: found in the log, begun, brought into memory and let go.

Owns that a session is in memory once at most, who may enter while another does, and that an engine that shares its log
claims a session to write in it (`resident`), and none that is only read (`reader`). What is read and written of one
that is not in memory is `heads`', how it is claimed `claims`', what a store that went back means `doubts`'. What goes
on in a session is `resident`'s; the engine's life is `engine`'s.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from contextvars import copy_context
from functools import partial
from typing import Final, TypeVar, cast, final

import trio

from ..codec import encode
from ..config import Config
from ..errors import (
    CorruptSession,
    Draining,
    IdInUse,
    PenstockError,
    SessionDeleted,
    StaleToken,
    StorageError,
    WentBack,
    WriteFailed,
)
from ..events import Event, JSONObject, SessionCreated, SessionId, now
from ..facts import Observer
from ..generation.watchdog import Watchdog
from ..log.fence import went_back
from ..log.port import EventLog, Head
from ..rules.listing import begun
from ..rules.merging import own_metadata
from ..stream.aside import Aside
from ..stream.budget import Budget
from ..stream.bus import Bus
from ..stream.volatile import LocalVolatile, Volatile
from ..supervision import Supervisor
from .claims import Claims
from .commands import Command, DeleteSession
from .doubts import Doubts
from .forwarding import Forwarding
from .heads import Heads
from .listing import Listing
from .peers import Peers
from .producers import Producers
from .resident import Resident
from .views import View, Views

__all__ = ["Registry"]

logger = logging.getLogger("penstock.session")

T = TypeVar("T")


@final
class Registry:
    """Sessions in memory by id; `nursery` is where their tasks run."""

    def __init__(
        self,
        log: EventLog,
        config: Config,
        producers: Producers,
        observer: Observer,
        supervisor: Supervisor,
        owner: str = "",
        bus: Bus | None = None,
        peers: Peers | None = None,
    ) -> None:
        """Where others share its log, ``owner`` is the engine's name, ``bus`` how it hears of them, ``peers`` how it
        asks them.
        """
        self.log: Final = log
        self.owner: Final = owner
        self.bus: Final = bus
        self.config: Final = config
        self.volatile: Final[Volatile] = LocalVolatile() if bus is None else bus.volatile
        self.views: Final = None if bus is None else Views(log, bus, self)
        self.producers: Final = producers
        self.observer: Final = observer
        self.supervisor: Final = supervisor
        self.budget: Final = Budget(config.total_pending, 2 * config.checkpoint_every, config.total_pending_bytes)
        self.forwarding: Final = Forwarding(peers, owner, observer, config.flush_timeout)
        self.nursery: trio.Nursery | None = None
        self.draining = False
        self.closed = False  # nothing is read or written any more
        self.watchdog: Final = Watchdog(partial(self.launch_apart, name="penstock watchdog"))
        self._context = copy_context()
        self._residents: dict[str, Resident] = {}
        self._resting = OrderedDict[Resident, float]()  # since when nobody took a step, the longest first
        self._at_work: set[Resident] = set()  # those that have a task, also when they have left
        self._entering: dict[str, trio.Lock] = {}
        self.aside: Final = Aside(observer)
        self._rewritten: set[str] = set()  # by compaction, right now
        self.listing: Final = Listing(
            log,
            config,
            self.aside,
            set_aside=self.set_aside,
            until_closed=self.until_closed,
            launch=partial(self.launch_apart, name="penstock list"),
            bus=bus,
        )
        self.heads: Final = Heads(
            log,
            self.aside,
            owner,
            config.flush_timeout,
            set_aside=self.set_aside,
            touch=self.listing.changes.touch,
        )
        self.claims: Final = Claims(log, self.heads, owner, observer, bus)
        self.doubts: Final[Doubts] = Doubts(log, self)

    def in_memory(self, session_id: str) -> Resident | None:
        return self._residents.get(session_id)

    @property
    def residents(self) -> list[Resident]:
        """The sessions in memory."""
        return list(self._residents.values())

    @property
    def watched(self) -> list[Resident] | list[View]:
        """What has the readers of each session that has any, and perhaps others."""
        return self.residents if self.views is None else list(self.views)

    @property
    def tasks(self) -> list[Resident]:
        """Those, and the ones that have left it and still have a task: a straggler runs."""
        return list({*self._residents.values(), *self._at_work})

    async def create(self, sid: SessionId, metadata: JSONObject | None) -> bool:
        """Have the session in memory, made if there is none or it was deleted; whether it was made.

        Raises `InvalidBody`, `CorruptSession`, `WriteFailed`, `TimedOut`, `Draining`.
        """
        own = own_metadata(metadata) or {}
        created = False
        async with self.until_closed(), self.entrance(sid):
            while sid not in self._residents:
                head = await self.heads.find(sid)
                if head is not None and not head.deleted:
                    if self.views is None:
                        await self.enter(await self.claims.claim(sid, head, "") if head.doubted else head)
                    break
                try:
                    first = Event(data=SessionCreated(metadata=own), session_id=sid, time=now(), offset=1)
                    self.check_open()
                    head = await self.heads.begin(sid, head, [encode(first)], own, {}, begun(first.time))
                except (IdInUse, StaleToken):
                    continue  # a call was cancelled after it had handed its write over, or another engine was faster
                await self.enter(head)
                created = True
        try:
            await self.reader(sid)
        except SessionDeleted:
            resident = self._residents.get(sid)
            if resident is None or self.views is None:
                raise
            await resident.confirm()  # another engine has deleted it, which was not heard here
            return await self.create(sid, own)
        return created

    async def carry_out(self, session_id: SessionId, command: Command[T], *, forwarded: bool = False) -> T:
        """Do it in the session in memory, or have it done by the engine that has the session; see `Forwarding`."""

        async def here(asked: Command[T]) -> T:
            if isinstance(asked, DeleteSession):
                await self._delete(session_id)
                return cast("T", None)
            return await asked.carry_out(await self.resident(session_id))

        return await self.forwarding.carry_out(session_id, command, here, forwarded=forwarded)

    async def reader(self, session_id: SessionId, *, to_follow: bool = False) -> Resident | View:
        """What has the session's readers; where engines share the log it is not claimed, and as new as this call.

        ``to_follow``: for who begins to read; nothing may wait between this and the beginning. As `resident` for the
        rest.
        """
        if self.views is None:
            return await self.resident(session_id)
        while True:
            async with self.until_closed():
                known = self.views.known(session_id)
                head = await self.heads.living(session_id)
                lost = known is not None and went_back(head, known)
                if known is not None and lost:
                    await self.doubts.add(known, proven=True)
                view = self.views.met(head)
                if view is None:
                    async with self.entrance(session_id):
                        self.check_open()
                        view = await self.views.open(head)
            writer = view.resident
            if writer is not None and writer.owns and (lost or writer.overtaken(head)):
                await writer.confirm()
            elif not view.over or self.draining:
                if to_follow and not self.draining:
                    await view.catch_up()
                return view

    async def resident(self, session_id: SessionId, *, gone: str = "") -> Resident:
        """The session in memory, brought there if need be, and claimed where engines share the log.

        For `Session`: nothing may wait between this and the use of what it returns. Cancelling a caller does
        not cancel the session's opening. Raises `Moved` while another engine has something open in it, unless that is
        the one named ``gone``.
        """
        while True:
            self.aside.check(session_id)
            resident = self._residents.get(session_id)
            if resident is None:
                resident = await self._find(session_id, gone)
            with suppress(WentBack):  # since it was found: once more
                await resident.wait_open()
            if not resident.closed:
                return resident

    async def _find(self, session_id: SessionId, gone: str) -> Resident:
        async with self.until_closed(), self.entrance(session_id):
            resident = self._residents.get(session_id)
            if resident is not None:
                return resident
            head = await self.heads.living(session_id)
            if self.owner or head.doubted:
                self.check_open()
                head = await self.claims.claim(session_id, head, gone)
            return await self.enter(head)

    def reopen(self, session_id: str) -> None:
        """Have the session in memory again, and end what was live in it."""

        async def reopened() -> None:
            try:
                await self.resident(SessionId(session_id))
            except PenstockError as error:
                logger.warning("session %s: what was live is left to the next opening: %s", session_id, error)

        if not self.draining:
            self.launch_apart(reopened, f"penstock reopening of session {session_id}")

    async def _delete(self, sid: SessionId) -> None:
        """End this life of the session, whatever is stored of it.

        Raises `SessionNotFound`, `SessionDeleted`, `Moved`, `WriteFailed`, `TimedOut`, `Draining`.
        """
        while True:
            try:
                resident = await self.resident(sid)
            except (CorruptSession, WriteFailed):  # also when what it holds open cannot be ended: its life can
                await self._discard(sid)
                return
            try:
                await resident.delete()
            except CorruptSession:
                continue  # it was found out meanwhile
            return

    async def _discard(self, sid: SessionId) -> None:
        """End a life that cannot be brought into memory, in the log alone."""
        self.check_open()
        async with self.until_closed(), self.entrance(sid):
            resident = self._residents.get(sid)
            if resident is not None:  # its end is on its way
                resident.abandon()
            await self.heads.discard(sid)

    def is_aside(self, session_id: str) -> bool:
        """Whether there is nothing to be done in this session."""
        return session_id in self.aside

    def set_aside(self, error: CorruptSession) -> None:
        """What is stored of the session that ``error`` names cannot be read: leave it alone from here on."""
        assert error.session_id is not None
        self.aside.add(error.session_id, error)
        self.listing.changes.touch(error.session_id)
        resident = self._residents.get(error.session_id)
        if resident is not None:
            resident.set_aside(error)
        if self.views is not None:
            self.views.end(error.session_id, "corrupt")

    @contextmanager
    def rewriting(self, session_id: str) -> Iterator[None]:
        """See `SetsAside`. Pages from before are given to nobody afterwards."""
        self._rewritten.add(session_id)
        self._share_pages(session_id, shared=False)
        try:
            yield
        finally:
            self._rewritten.discard(session_id)
            self._share_pages(session_id, shared=True)

    def _share_pages(self, session_id: str, *, shared: bool) -> None:
        resident = self._residents.get(session_id)
        if resident is not None and resident.view is None:
            resident.history.share_pages(shared=shared)

    @asynccontextmanager
    async def entrance(self, session_id: str) -> AsyncIterator[None]:
        """One at a time per session: nobody else reads its head or brings it into memory."""
        lock = self._entering.setdefault(session_id, trio.Lock())
        try:
            async with lock:
                yield
        finally:
            if not lock.locked() and not lock.statistics().tasks_waiting:
                self._entering.pop(session_id, None)

    async def enter(self, head: Head) -> Resident:
        view = None if self.views is None else await self.views.open(head)
        self.check_open()
        assert self.nursery is not None
        resident = Resident(
            self.log,
            head,
            self.budget,
            self.config,
            observer=self.observer,
            registry=self,
            view=view,
        )
        self._residents[head.session_id] = resident
        if view is not None:
            view.resident = resident
        if head.session_id in self._rewritten and view is None:
            resident.history.share_pages(shared=False)
        resident.open()
        return resident

    # --- for those in memory

    def launch(self, work: Callable[[], Awaitable[None]], name: str) -> None:
        assert self.nursery is not None
        self.supervisor.start(self.nursery, work, name)

    def launch_apart(self, work: Callable[[], Awaitable[None]], name: str) -> None:
        self._context.run(self.launch, work, name)

    def wake(self, resident: Resident) -> None:
        self._resting.pop(resident, None)
        self._at_work.add(resident)
        self.launch_apart(resident.work, f"penstock session {resident.session_id}")

    def rested(self, resident: Resident) -> None:
        self._at_work.discard(resident)
        if not resident.closed:
            self._resting[resident] = trio.current_time()

    def expects(self, session_id: str) -> bool:
        return session_id in self._entering

    def left(self, resident: Resident) -> None:
        self._resting.pop(resident, None)
        if self._residents.get(resident.session_id) is resident:
            del self._residents[resident.session_id]
            if self.views is not None and resident.view is not None:
                self.views.rest(resident.view)
            elif resident.history.holds_messages and not self.draining:
                self.launch_apart(resident.history.release, f"penstock release {resident.session_id}")

    async def let_go(self) -> None:
        """Let sessions that nobody needs leave memory, each `Config.idle_session` after its last step."""
        while True:
            resident, since = next(iter(self._resting.items()), (None, trio.current_time()))
            await trio.sleep_until(since + self.config.idle_session)
            # Who has taken a step since does not rest, or rests behind all others.
            if resident is not None and self._resting.get(resident) == since and not resident.leave_if_idle():
                del self._resting[resident]
                self.rested(resident)

    def check_open(self) -> None:
        """Raises `Draining` when no session may be begun or brought into memory."""
        if self.draining:
            raise Draining("the engine is shutting down")

    @asynccontextmanager
    async def until_closed(self) -> AsyncIterator[None]:
        """What the log cannot do because it is closed, before or meanwhile, is refused as `Draining`."""
        if self.closed:
            self.check_open()
        try:
            yield
        except StorageError as error:
            if self.closed:
                raise Draining("the engine is shutting down") from error
            raise
