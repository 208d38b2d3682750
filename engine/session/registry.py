"""The sessions of one engine: found in the log, begun, brought into memory and let go.

Owns that a session is in memory once at most, who may enter while another does, and that an engine that shares its log
claims a session to write in it (`resident`), and none that is only read (`reader`). What goes on in a session is
`resident`'s; the engine's life is `engine`'s.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from contextvars import copy_context
from functools import partial
from typing import Final, TypeVar, cast, final

import trio
from attrs import evolve
from outcome import Error, Outcome, Value

from ..codec import encode, encode_json
from ..config import Config
from ..errors import (
    CorruptSession,
    Draining,
    IdInUse,
    Moved,
    PenstockError,
    SessionDeleted,
    SessionNotFound,
    StaleEpoch,
    StaleToken,
    StorageError,
    TimedOut,
    WentBack,
    WriteFailed,
)
from ..events import Cursor, Event, JSONObject, SessionCreated, SessionId, new_epoch, now
from ..facts import Observer, SessionClaimed, StoreWentBack
from ..generation.watchdog import Watchdog
from ..log.fence import went_back
from ..log.port import BLOCK, Append, Claim, Delete, EventLog, Head, Keep, Summary, next_block, rebased
from ..rules.forking import beginning
from ..rules.listing import Listed, begun
from ..rules.records import CLAIMS, COPYING, METADATA, OPEN, CopyingRecord, to_record
from ..stream.aside import Aside, sound
from ..stream.budget import Budget
from ..stream.bus import Bus
from ..stream.slices import in_slices
from ..stream.volatile import LocalVolatile, Volatile
from ..supervision import Supervisor, own_failure
from ..upkeep.files import copy_files
from .commands import Command, DeleteSession
from .forwarding import Forwarding
from .listing import Listing
from .peers import Peers
from .producers import Producers
from .resident import Resident
from .views import View, Views

__all__ = ["Registry"]

logger = logging.getLogger("penstock.session")

T = TypeVar("T")

# Of a session's claims so many are kept in records at least, and looked at by each so many-th.
_CLAIMS_KEPT: Final = 64
_SWEPT_EACH: Final = 16


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
        self._log = log
        log.on_went_back = self._went_back
        # Whether the engine of that name is gone; None where that cannot be known.
        self.is_gone: Callable[[str], Awaitable[bool]] | None = None
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
            until_closed=self._until_closed,
            launch=partial(self.launch_apart, name="penstock list"),
            bus=bus,
        )

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

    async def create(self, sid: SessionId, metadata: JSONObject) -> bool:
        """Have the session in memory, made if there is none or it was deleted; whether it was made.

        Raises `CorruptSession`, `WriteFailed`, `TimedOut`, `Draining`.
        """
        created = False
        async with self._until_closed(), self._entrance(sid):
            while sid not in self._residents:
                head = await self._head(sid)
                if head is not None and not head.deleted:
                    if self.views is None:
                        await self._enter(await self._claim(sid, head, "") if head.doubted else head)
                    break
                try:
                    first = Event(data=SessionCreated(metadata=metadata), session_id=sid, time=now(), offset=1)
                    head = await self._begin(sid, head, [encode(first)], metadata, {}, begun(first.time))
                except (IdInUse, StaleToken):
                    continue  # a call was cancelled after it had handed its write over, or another engine was faster
                await self._enter(head)
                created = True
        try:
            await self.reader(sid)
        except SessionDeleted:
            resident = self._residents.get(sid)
            if resident is None or self.views is None:
                raise
            await resident.confirm()  # another engine has deleted it, which was not heard here
            return await self.create(sid, metadata)
        return created

    async def fork(
        self, sid: SessionId, source: SessionId, at: Cursor | str | None, metadata: JSONObject | None
    ) -> None:
        """Begin a session with what ``source`` holds, in a task of the engine's: a caller may leave.

        Raises `IdInUse`, `InvalidCursor`, `MessageNotFound` and what the source's being gone raises.
        """
        self.check_open()
        done = trio.Event()
        came_to: Outcome[None] = Error(Draining("the engine is shutting down"))  # unless it comes to its end

        async def carry_out() -> None:
            nonlocal came_to
            try:
                await self._fork(sid, source, at, metadata)
                came_to = Value(None)
            except BaseException as error:  # noqa: BLE001  the caller's
                came_to = Error(own_failure(error))
            finally:
                done.set()

        self.launch(carry_out, f"penstock fork of {source}")
        await done.wait()
        came_to.unwrap()

    async def _fork(
        self, sid: SessionId, source: SessionId, at: Cursor | str | None, metadata: JSONObject | None
    ) -> None:
        point = await (await self.reader(source)).fork_point(at)
        metadata = point.metadata if metadata is None else metadata
        begins = await in_slices(
            beginning(
                point.messages,
                point.generations,
                session_id=sid,
                source=source,
                cursor=point.cursor,
                metadata=metadata,
                time=now(),
            )
        )
        files = CopyingRecord(session_id=source, epoch=point.cursor.epoch, file_ids=begins.file_ids)
        records = {**begins.records, COPYING: to_record(files)} if begins.file_ids else begins.records
        async with self._until_closed(), self._entrance(sid):
            head = await self._head(sid)
            if head is not None and not head.deleted:
                raise IdInUse("a session has this id already; choose another for the fork", session_id=sid)
            head = await self._begin(sid, head, begins.events, metadata, records, begins.listed)
            try:
                if begins.file_ids:
                    await copy_files(self._log, sid, head.epoch, files)
            except PenstockError:  # then there is no fork; if that cannot be stored either, its files come later
                gone = Delete(session_id=sid, epoch=head.epoch, token=head.token + 1)
                await self._written(gone, partial(self.listing.changes.touch, sid))
                raise
            await self._enter(head)
        await self.reader(sid)

    async def _begin(
        self,
        session_id: SessionId,
        former: Head | None,
        events: Sequence[bytes],
        metadata: JSONObject,
        records: Mapping[str, bytes | None],
        listed: Listed,
    ) -> Head:
        """Write a session's first events. Raises `IdInUse` when it exists."""
        self.check_open()
        epoch = new_epoch()
        token = next_block(0 if former is None else former.token)
        if metadata:
            records = {**records, METADATA: encode_json(metadata)}
        write = Append(
            session_id=session_id,
            epoch=epoch,
            expected_tail=0,
            token=token,
            events=events,
            records=records,
            summary=Summary(listed.rank, listed.encoded()),
            create=True,
            owner=self.owner,
        )
        if not await self._written(write, partial(self.listing.changes.touch, session_id)):
            raise TimedOut("the log has not stored the session yet", session_id=session_id)
        return Head(
            session_id=session_id,
            epoch=epoch,
            tail=len(events),
            token=token,
            owner=self.owner,
            summary=write.summary,
        )

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
            async with self._until_closed():
                known = self.views.known(session_id)
                head = await self._living(session_id)
                lost = known is not None and went_back(head, known)
                if known is not None and lost:
                    await self._doubt(known, proven=True)
                view = self.views.met(head)
                if view is None:
                    async with self._entrance(session_id):
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

    async def _head(self, session_id: SessionId) -> Head | None:
        """Where the session stands in the log. Raises `CorruptSession`."""
        self.aside.check(session_id)
        try:
            return sound(await self._log.head(session_id))
        except CorruptSession as error:
            self.set_aside(error)
            raise

    async def _living(self, session_id: SessionId) -> Head:
        """As `_head`. Raises `SessionNotFound`, `SessionDeleted`."""
        head = await self._head(session_id)
        if head is None:
            raise SessionNotFound("there is no session with this id", session_id=session_id)
        if head.deleted:
            raise SessionDeleted("the session was deleted", session_id=session_id)
        return head

    async def _find(self, session_id: SessionId, gone: str) -> Resident:
        async with self._until_closed(), self._entrance(session_id):
            resident = self._residents.get(session_id)
            if resident is not None:
                return resident
            head = await self._living(session_id)
            if self.owner or head.doubted:
                self.check_open()
                head = await self._claim(session_id, head, gone)
            return await self._enter(head)

    async def _claim(self, session_id: SessionId, head: Head, gone: str) -> Head:
        """Make it this engine's, in a new epoch if it is in doubt; what it had before, but for that.

        Where it stands is to be read again behind this: others may have written meanwhile.
        """
        open_ = False
        while True:
            anew = rebased(head.epoch) if head.doubted else None
            claim = Claim(session_id=session_id, epoch=head.epoch, seen=head.token, owner=self.owner, anew=anew)
            try:
                open_ = False
                if self.owner and head.owner not in ("", self.owner):
                    # What begins behind this look raises the token, and then the claim is refused.
                    open_ = await self._log.record(session_id, head.epoch, OPEN) is not None
                    if open_ and head.owner != gone and (self.is_gone is None or not await self.is_gone(head.owner)):
                        raise Moved("another engine has the session", owner=head.owner, session_id=session_id)
                if not await self._written(claim, lambda: None):
                    raise TimedOut("the log has not said yet whose the session is", session_id=session_id)
                break
            except (StaleToken, StaleEpoch):
                head = await self._living(session_id)
        await self._sweep_claims(claim)
        if self.owner:
            self.observer.observe(SessionClaimed(session_id=session_id, former=head.owner, gone=open_))
        if self.bus is not None:
            self.bus.tell(session_id, None)  # for the former owner
        if anew is None:
            return head
        self.observer.observe(StoreWentBack(session_id=session_id, epoch=anew))
        return evolve(head, epoch=anew, token=next_block(head.token), doubted=False)

    # --- a store that went back

    def missed(self, known: Head, *, proven: bool = True) -> None:
        """The log does not have all of a session that there was, as this engine knows, or as somebody says."""
        if not self.closed:
            self.launch_apart(partial(self._missed, known, proven=proven), f"penstock doubt of {known.session_id}")

    async def _missed(self, known: Head, *, proven: bool) -> None:
        try:
            await self._doubt(known, proven=proven)
        except StorageError as error:  # who meets it next says it again
            logger.warning("session %s: what the store has lost is not in doubt yet: %s", known.session_id, error)

    async def _doubt(self, known: Head, *, proven: bool) -> None:
        """Have what may be lost doubted, and let go of what is known here of this session. Raises `StorageError`."""
        if not await self._log.doubt(known, proven=proven) and not proven:
            return
        resident = self._residents.get(known.session_id)
        if self.views is not None:
            self.views.lose(known.session_id)
        elif resident is not None and resident.owns:
            resident.journal.probe()

    def _went_back(self) -> None:
        """The log has found it out by itself: have it say so to those that are in memory."""
        for resident in self.residents:
            if resident.owns:
                resident.journal.probe()

    def reopen(self, session_id: str) -> None:
        """Have the session in memory again, and end what was live in it."""

        async def reopened() -> None:
            try:
                await self.resident(SessionId(session_id))
            except PenstockError as error:
                logger.warning("session %s: what was live is left to the next opening: %s", session_id, error)

        if not self.draining:
            self.launch_apart(reopened, f"penstock reopening of session {session_id}")

    async def _sweep_claims(self, last: Claim) -> None:
        """Remove the records of claims that are too old to be kept. Where that fails, they stay until the next time."""
        if last.token // BLOCK % _SWEPT_EACH:
            return
        with suppress(PenstockError):
            epoch = last.anew or last.epoch
            claims = list(await self._log.records(last.session_id, epoch, CLAIMS))
            if old := dict.fromkeys(claims[:-_CLAIMS_KEPT]):
                self._log.submit(Keep(session_id=last.session_id, epoch=epoch, records=old), lambda _: None)

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

        def on_stored() -> None:
            self.aside.remove(sid)
            self.listing.changes.touch(sid)

        async with self._until_closed(), self._entrance(sid):
            resident = self._residents.get(sid)
            if resident is not None:  # its end is on its way
                resident.abandon()
            head = await self._log.head(sid)
            token = next_block(0 if head is None else head.token)
            write = Delete(session_id=sid, epoch=new_epoch(), token=token, forced=True)
            if not await self._written(write, on_stored):
                raise TimedOut("the log has not deleted the session yet", session_id=sid)

    async def _written(self, write: Append | Claim | Delete, on_stored: Callable[[], None]) -> bool:
        """Hand the write over, and wait for its report, at most `Config.flush_timeout`; whether it came.

        ``on_stored`` is called in that report, also when the caller has left by then. Raises what the log refuses with.
        """
        reported = trio.Event()
        refusals: list[PenstockError] = []

        def report(error: PenstockError | None) -> None:
            if error is None:
                on_stored()
            else:
                refusals.append(error)
            reported.set()

        self._log.submit(write, report)
        with trio.move_on_after(self.config.flush_timeout):
            await reported.wait()
        if refusals:
            raise refusals[0]
        return reported.is_set()

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
    async def _entrance(self, session_id: str) -> AsyncIterator[None]:
        """One at a time per session: nobody else reads its head or brings it into memory."""
        lock = self._entering.setdefault(session_id, trio.Lock())
        try:
            async with lock:
                yield
        finally:
            if not lock.locked() and not lock.statistics().tasks_waiting:
                self._entering.pop(session_id, None)

    async def _enter(self, head: Head) -> Resident:
        view = None if self.views is None else await self.views.open(head)
        self.check_open()
        assert self.nursery is not None
        resident = Resident(
            self._log,
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
    async def _until_closed(self) -> AsyncIterator[None]:
        """What the log cannot do because it is closed, before or meanwhile, is refused as `Draining`."""
        if self.closed:
            self.check_open()
        try:
            yield
        except StorageError as error:
            if self.closed:
                raise Draining("the engine is shutting down") from error
            raise
