"""What can be read of a session in memory: pages of its log, its records, and its snapshot. Committed state only."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final, Protocol, TypeVar, final

from attrs import frozen

from ..config import Config
from ..errors import (
    CorruptSession,
    Draining,
    GenerationNotFound,
    InvalidBody,
    InvalidCursor,
    MessageNotFound,
    SessionDeleted,
    StaleEpoch,
    StorageError,
    WentBack,
)
from ..events import Cursor, JSONObject
from ..log.fence import went_back
from ..log.port import Entry, EventLog, Head, life_of
from ..reducer import GenerationInfo, MessageView, SessionState, Snapshot, SnapshotPage
from ..results import Present
from ..rules.records import (
    COMPACTED,
    METADATA,
    CompactedRecord,
    GenerationRecord,
    MessageRecord,
    generation_key,
    message_key,
    read_record,
    state_of,
)
from .aside import check_page, check_readable, read_metadata, reading
from .folding import Fold, fold_to
from .hub import Batch, Hub
from .pages import Pages
from .presence import Presence
from .slices import in_slices

__all__ = ["ForkPoint", "History", "Tail"]

T = TypeVar("T")

# Of a session, once it is in memory: 2 ms of work, and more events than most sessions have.
_LOOKED_AT: Final = 4096


@final
@frozen(kw_only=True)
class ForkPoint:
    """What a fork begins with. ``generations`` are those of the messages, and perhaps others.

    Both are for who makes the fork to use up: so many are not let go of at once.
    """

    cursor: Cursor
    messages: deque[MessageView]
    generations: deque[GenerationInfo]
    metadata: JSONObject


class Tail(Protocol):
    """Where the log of one life of a session ends: its journal, or what follows another engine's."""

    session_id: str
    epoch: str
    committed: int

    @property
    def cursor(self) -> Cursor: ...


@final
class History:
    """The readers' side of one session; the source of its subscriptions. ``tail`` tells where its log ends."""

    __slots__ = (
        "_config",
        "_fold",
        "_inherited",
        "_log",
        "_looked_at",
        "_on_corrupt",
        "_on_missed",
        "_pages",
        "_presence",
        "_shared",
        "_sound",
        "hub",
        "tail",
    )

    def __init__(
        self,
        log: EventLog,
        tail: Tail,
        hub: Hub,
        presence: Presence,
        config: Config,
        *,
        on_corrupt: Callable[[CorruptSession], None],
        on_missed: Callable[[Head], None],
    ) -> None:
        """``on_missed`` is told where the session stood, when the log does not have all of it any more."""
        self.hub = hub
        self._on_corrupt = on_corrupt
        self._on_missed = on_missed
        self._inherited = tail.committed  # up to here others wrote it
        self._sound = 0  # up to here it was looked through
        self._looked_at = 0  # so many events
        self._presence = presence
        self._log = log
        self.tail = tail
        self._config = config
        self._fold: Fold | None = None  # made for whom asks first
        self._pages: Pages | None = None  # made for the first page
        self._shared = True

    def stand_on(self, tail: Tail) -> None:
        """From here on ``tail`` tells where the log ends, of the same life; it is not behind the one before."""
        if tail is not self.tail:
            if tail.committed != self.tail.committed:
                self.hub.overflow()
            self.tail = tail
            self._inherited = tail.committed

    @property
    def session_id(self) -> str:
        return self.tail.session_id

    @property
    def cursor(self) -> Cursor:
        """The committed tail."""
        return self.tail.cursor

    @property
    def present(self) -> tuple[Present, ...]:
        """All who are here now."""
        return self._presence.listed()

    @property
    def busy(self) -> bool:
        """Whether somebody reads right now; subscribers count at the hub."""
        return self._fold is not None and self._fold.busy

    def _folded(self) -> Fold:
        if self._fold is None:
            self._fold = Fold(self.session_id, self.tail.epoch, self._read, lambda: self.tail.committed, self._config)
        return self._fold

    async def page(self, after: int) -> Batch | None:
        """One page of the log behind ``after``; None at the tail. Raises `StaleEpoch`, `CorruptSession`.

        Whoever comes to the same place while others are there gets the same page: it is read once, and framed once.
        """
        if self.hub.over or not self._shared:
            return await self._batch(after, self._config.page_events)
        if self._pages is None:
            self._pages = Pages(self._batch, self._config.page_events)
        return await self._pages.page(after)

    def share_pages(self, *, shared: bool) -> None:
        """Whether readers who are at the same place get the same page; one that was read before, nobody gets any more.

        A page behind one from which compaction has taken events must have what stands for them: a reader who got the
        first from the log and the next from another reader would miss it. While events are rewritten, none is shared.
        """
        self._shared = shared
        self._pages = None  # who waits in there had asked before

    async def _batch(self, after: int, limit: int) -> Batch | None:
        tail = self.tail.committed
        try:
            entries = await self._read(after, limit)
            if after < self._inherited:
                await self._look_through(entries, after)
            elif not entries and after < tail:
                raise CorruptSession(f"the log ends at offset {after}, not at {tail}", session_id=self.session_id)
        except CorruptSession as error:
            self._on_corrupt(error)
            raise
        return Batch(self.session_id, self.tail.epoch, entries) if entries else None

    async def _look_through(self, page: Sequence[Entry], after: int) -> None:
        """See that a page which another process wrote is one that readers can be given: it goes to them as it is.

        So many of a session are looked at one by one: to look at all takes a long replay a quarter of its time more.
        Whether the events add up is not asked here, unless some are missing that compaction does not account for.
        """
        if page and page[-1].offset <= self._sound:
            return
        with reading(self.session_id):
            if not page:
                raise InvalidBody(f"the log ends at offset {after}, not at {self._inherited}")
            check_page(page, after)
            if self._looked_at < _LOOKED_AT:
                self._looked_at += len(page)
                check_readable(page)
        last = page[-1].offset
        if last - after != len(page):
            body = await self._log.record(self.session_id, self.tail.epoch, COMPACTED)
            with reading(self.session_id):
                compacted = 0 if body is None else read_record(body, CompactedRecord).done
            if compacted < last:
                await self._folded().go_on()
        if after <= self._sound:
            self._sound = last

    async def _read(self, after: int, limit: int | None = None) -> list[Entry]:
        """What one page holds, of at most ``limit`` events; empty at the tail. Raises `StaleEpoch`, `WentBack`."""
        config = self._config
        tail = self.tail.committed
        try:
            page = await self._log.read(
                self.session_id,
                self.tail.epoch,
                after=after,
                limit=limit or config.page_events,
                max_bytes=config.page_bytes,
            )
        except StaleEpoch:
            await self._look_back(tail)
            raise
        if not page and after < tail:
            await self._look_back(tail)
        # What is stored and not reported yet is not shown: its cursor would be past the tail that we tell others.
        tail = self.tail.committed
        with reading(self.session_id):
            return page if not page or page[-1].offset <= tail else [entry for entry in page if entry.offset <= tail]

    async def _look_back(self, tail: int) -> None:
        """Raises `WentBack` where the log does not go as far as ``tail`` any more, or has given it a new epoch."""
        head = await self._log.head(self.session_id)
        missed = Head(session_id=self.session_id, epoch=self.tail.epoch, tail=tail, token=0)
        if head is None or head.damage is not None or life_of(head.epoch) != life_of(missed.epoch):
            return
        if head.epoch != missed.epoch or went_back(head, missed):
            self._on_missed(missed)
            raise WentBack("the store went back", session_id=self.session_id)

    async def snapshot(self, limit: int | None = None, before: str | None = None) -> Snapshot:
        """The fold of the log up to the committed tail. Kept, and folded on from next time.

        ``limit`` is the number of messages, the newest or those before the message ``before``. Cancelled,
        it keeps what it has folded.
        """
        return await self.ask(lambda fold: fold.snapshot(limit, before))

    async def snapshot_page(
        self, limit: int | None = None, before: str | None = None, *, with_open: bool = False
    ) -> SnapshotPage:
        """A snapshot within `Config.snapshot_messages` and `snapshot_bytes`, and its JSON, made once for all who ask.

        ``with_open`` as in `SessionState.encoding_snapshot`. Raises `SessionDeleted`, `MessageNotFound`.
        """
        most = self._config.snapshot_messages
        count = most if limit is None else min(limit, most)
        return await self.ask(lambda fold: fold.page(count, before, with_open=with_open))

    @property
    def holds_messages(self) -> bool:
        """Whether there is something for `release` to let go of."""
        return self._fold is not None

    async def release(self) -> None:
        """Let go of what was folded, in slices."""
        fold, self._fold = self._fold, None
        if fold is not None:
            await fold.dismantle()

    async def message_ids(self, first: str | None = None) -> list[str]:
        """The transcript's messages in order, from ``first`` on. Raises `MessageNotFound`."""
        return await self.ask_state(lambda state: state.message_ids(first))

    async def state_at(self, offset: int) -> SessionState:
        """A fold of its own, up to an earlier ``offset``. Raises `InvalidCursor` inside a compacted range."""
        state = SessionState(self.session_id, self.tail.epoch)
        with self._living():
            await fold_to(state, offset, self._read)
        if state.cursor.offset != offset or not state.whole:
            raise InvalidCursor("what stood at this cursor was compacted: use a message's id, or a later cursor")
        return state

    async def fork_point(self, at: Cursor | str | None) -> ForkPoint:
        """The messages at a cursor, up to and with the message of this id, or now.

        Raises `InvalidCursor` for a cursor of another life, past the tail, or inside a compacted range, and
        `MessageNotFound`.
        """
        tail = self.tail.cursor
        if isinstance(at, Cursor):
            if at.epoch != tail.epoch or not 1 <= at.offset <= tail.offset:
                raise InvalidCursor("the cursor is of another life of this session, or past its tail")
            state = await self.state_at(at.offset)
            snapshot = await in_slices(state.taking_snapshot())
            await in_slices(state.dismantling())
            return _fork_point(snapshot, snapshot.messages)
        snapshot = await self.snapshot()
        messages = snapshot.messages
        if at is not None:
            ids = [message.message_id for message in messages]
            if at not in ids:
                raise MessageNotFound("the session has no message with this id", message_id=at)
            messages = messages[: ids.index(at) + 1]
        return _fork_point(snapshot, messages)

    @contextmanager
    def _living(self) -> Iterator[None]:
        """What is asked for between a delete and its report, or the log's closing, is asked of what is gone."""
        try:
            yield
        except StaleEpoch as error:
            raise SessionDeleted("the session was deleted", session_id=self.session_id) from error
        except CorruptSession as error:
            self._on_corrupt(error)
            raise
        except StorageError as error:
            if self.hub.drained:
                raise Draining("the engine is shutting down", session_id=self.session_id) from error
            raise

    async def generation(self, generation_id: str) -> GenerationRecord | None:
        """What the log knows of the generation."""
        return await self.known(generation_key(generation_id), GenerationRecord)

    async def found(self, generation_id: str) -> GenerationRecord:
        """What the log knows of the generation. Raises `GenerationNotFound`."""
        record = await self.generation(generation_id)
        if record is None:
            raise GenerationNotFound(
                "the session never saw this generation", session_id=self.session_id, generation_id=generation_id
            )
        return record

    async def generation_info(self, generation_id: str) -> GenerationInfo:
        """How the generation stands, as snapshots tell it. Raises `GenerationNotFound`.

        Of one from before a reset, and of one that waited in vain long ago, only what its record has.
        """
        record = await self.found(generation_id)
        info = await self.ask(lambda fold: fold.generation_info(generation_id, record.turn))
        if info is not None:
            return info
        return GenerationInfo(
            generation_id=generation_id,
            state=state_of(record),
            turn=record.turn,
            outcome=record.outcome,
            code=record.code,
        )

    async def ask(self, question: Callable[[Fold], Awaitable[T]]) -> T:
        """What the fold says to one question. Behind it the session may leave memory, and the fold is let go of."""
        with self._living():
            return await question(self._folded())

    async def ask_state(self, question: Callable[[SessionState], T]) -> T:
        """What the state at the tail says to one question."""
        return await self.ask(lambda fold: fold.ask(question))

    async def record(self, key: str) -> bytes | None:
        """One of the session's records, as it is."""
        with self._living():
            return await self._log.record(self.session_id, self.tail.epoch, key)

    async def known(self, key: str, kind: type[T]) -> T | None:
        """What one of the session's records says."""
        with self._living():
            body = await self._log.record(self.session_id, self.tail.epoch, key)
            with reading(self.session_id):
                return None if body is None else read_record(body, kind)

    async def records(self, prefix: str) -> dict[str, bytes]:
        """Those under ``prefix``, as they are."""
        with self._living():
            return await self._log.records(self.session_id, self.tail.epoch, prefix)

    async def all_known(self, prefix: str, kind: type[T]) -> dict[str, T]:
        """What those under ``prefix`` say."""
        bodies = await self.records(prefix)
        with self._living(), reading(self.session_id):
            return {key: read_record(body, kind) for key, body in bodies.items()}

    async def metadata(self) -> JSONObject:
        """The session's metadata."""
        with self._living():
            return read_metadata(self.session_id, await self.record(METADATA))

    async def message(self, message_id: str) -> MessageRecord | None:
        """What the log knows of the message."""
        return await self.known(message_key(message_id), MessageRecord)


def _fork_point(snapshot: Snapshot, messages: tuple[MessageView, ...]) -> ForkPoint:
    return ForkPoint(
        cursor=snapshot.cursor,
        messages=deque(messages),
        generations=deque(snapshot.generations),
        metadata=snapshot.metadata,
    )
