"""Which sessions change, and who follows that: a list of conversations that stays true.

A session whose summary was stored, or that was deleted, is touched. It gets the next number, and none of its former
numbers is kept: what is known is which sessions changed, in the order of their last change. What is to be told of one
is read from the log, so it is never more than what is stored:

    touch        a commit, in its report: the session gets the next number
       │
    the teller   one task, while anybody follows: reads what is listed of those that were touched, many in one read,
       │         and hands it out to some at a time, so that a thousand who follow hold nobody up; then it pauses, so
       │         that a session that changes and changes is told of some times a second
    mailboxes    of those who want to hear of that session; each bounded

Whoever follows stands at a number, which is the offset of their cursor; the cursor's epoch is the engine's own, from
its opening to its end, or where engines share the log, that of the store which numbers for all of them (`notes`). They
begin with what was touched behind their number, and read that by themselves. A mailbox that is full is emptied, and its
reader does so again. So a slow reader costs a full mailbox and a read, and nobody waits for one; what it misses are
states in between, of which only the last is of interest in a list. As many sessions are remembered as
`Config.watch_kept` says: who stands before the first of them meets a gap, and has to read the list anew.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Self, TypeAlias, TypeVar, final

import trio

from ..config import Config
from ..errors import GapError, PenstockError
from ..events import Cursor, new_epoch
from ..results import SessionInfo
from ..supervision import protected
from .hub import Drained, Ended
from .notes import Notes
from .subscription import CaughtUp, Gap, Opened
from .volatile import Noted

__all__ = ["Changes", "ListChange", "ListDelivery", "Watch"]

logger = logging.getLogger("penstock.engine")

T = TypeVar("T")

# Sessions that are read at a time.
_AT_ONCE: Final = 100

# So many of those who follow are told before everybody else has a turn. Each of them takes some 40 µs to send it on
# (measured), so a thousand at once would hold the loop for 40 ms.
_LOT: Final = 25

# Seconds from one time that something is told to the next, for a session may change a thousand times in a second, and
# each time costs everybody who follows. Nobody sees a list change more often.
_PAUSE: Final = 0.05

# Of each of these sessions what is listed now, None where it is gone, in their order.
_Read: TypeAlias = Callable[[Sequence[str]], Awaitable[Sequence[SessionInfo | None]]]


@final
class ListChange:
    """A session has changed: ``session`` is what is listed of it now, None where it was deleted."""

    __slots__ = ("_framed", "cursor", "session", "session_id")

    def __init__(self, session_id: str, session: SessionInfo | None, cursor: Cursor) -> None:
        self.session_id: Final = session_id
        self.session: Final = session
        self.cursor: Final = cursor
        self._framed: dict[Callable[[ListChange], Any], Any] = {}

    def __repr__(self) -> str:
        return f"ListChange({self.session_id!r}, {self.session!r}, {str(self.cursor)!r})"

    def framed(self, frame: Callable[[ListChange], T]) -> T:
        """``frame(self)``, computed once however many follow."""
        made: T | None = self._framed.get(frame)
        if made is None:
            made = self._framed[frame] = frame(self)
        return made


ListDelivery: TypeAlias = Opened | Gap | CaughtUp | ListChange | Drained


@final
class Changes:
    """The changes of one engine's list. ``read`` reads what is listed, ``launch`` starts the teller's task."""

    def __init__(self, read: _Read, config: Config, *, launch: Callable[[Callable[[], Awaitable[None]]], None]) -> None:
        self.read: Final = read
        self.config: Final = config
        self.epoch = new_epoch()
        self.notes: Notes | None = None  # where engines share the log
        self.lives = 0  # how often it began anew
        self.number = 0  # of the last change
        self.forgotten = 0  # which sessions changed up to here is not known any more
        self.final: Drained | None = None
        self._launch = launch
        self._numbers = OrderedDict[str, int]()  # of each session's last change, the oldest first
        self._told = 0  # the teller came up to here
        self._telling = False
        self._touched = trio.Event()
        self._watches: dict[Watch, None] = {}

    def __len__(self) -> int:
        return len(self._watches)

    @property
    def cursor(self) -> Cursor:
        """Behind the last change."""
        return Cursor(self.epoch, self.number)

    def touch(self, session_id: str) -> None:
        """What is listed of the session has changed, and is stored."""
        if self.notes is not None:
            self.notes.touch(session_id)
        else:
            self._give(session_id, self.number + 1)

    def _give(self, session_id: str, number: int) -> None:
        self.number = number
        self._numbers.pop(session_id, None)
        self._numbers[session_id] = number
        if len(self._numbers) > self.config.watch_kept:
            _, self.forgotten = self._numbers.popitem(last=False)
        self._touched.set()

    def follows(self, noted: Noted) -> bool:
        """Whether these numbers go on from those that are known here. If not, the store has lost what it numbered."""
        return noted.epoch == self.epoch and noted.number >= self.number

    def learn(self, noted: Noted) -> None:
        """The store has numbered these, behind the last number known here."""
        if not self.follows(noted):
            self.epoch, self.number, self.forgotten = noted.epoch, 0, 0
            self.lives += 1
            self._numbers.clear()
            self._send_back()
        for number, session_id in noted.sessions:
            if number > self.number:
                self._give(session_id, number)
        self.forgotten = max(self.forgotten, min(noted.forgotten, self.number))

    def behind(self, number: int) -> list[tuple[str, int]]:
        """The next sessions that changed behind ``number``, a page of them, each with the number of its last change."""
        found: list[tuple[str, int]] = []
        for session_id in reversed(self._numbers):
            last = self._numbers[session_id]
            if last <= number:
                break
            found.append((session_id, last))
        return found[: -_AT_ONCE - 1 : -1]

    def add(self, watch: Watch) -> None:
        self._watches[watch] = None
        if self.final is not None:
            watch.close(self.final)
        elif not self._telling:
            self._telling = True
            self._told = self.number  # who comes reads by itself what was before
            self._launch(self._tell)

    def remove(self, watch: Watch) -> None:
        """Idempotent."""
        self._watches.pop(watch, None)
        self._touched.set()

    def close(self, final: Drained) -> None:
        """Nothing is told any more."""
        self.final = self.final or final
        for watch in self._watches:
            watch.close(self.final)
        self._touched.set()

    async def _tell(self) -> None:
        try:
            while self._watches and self.final is None:
                if self.forgotten > self._told:
                    self._send_back()  # more changed at once than is kept
                page = self.behind(self._told)
                if not page:
                    self._touched = trio.Event()
                    await self._touched.wait()
                    continue
                try:
                    listed = await self.read([session_id for session_id, _ in page])
                except PenstockError as error:
                    logger.warning("the list of sessions cannot be read: %s", error)
                    self._send_back()  # each reader learns it by its own read
                    continue
                for (session_id, number), session in zip(page, listed, strict=True):
                    await self._hand_out(ListChange(session_id, session, Cursor(self.epoch, number)))
                self._told = page[-1][1]
                if len(page) < _AT_ONCE:
                    await trio.sleep(_PAUSE)
        finally:
            self._telling = False

    async def _hand_out(self, change: ListChange) -> None:
        """To all who follow by now: who comes meanwhile reads by themselves what was before."""
        for told, watch in enumerate(list(self._watches), 1):
            watch.put(change)
            if not told % _LOT:
                await trio.lowlevel.checkpoint()

    def _send_back(self) -> None:
        """Have everybody read by themselves what changed up to now."""
        self._told = self.number
        for watch in self._watches:
            watch.lag()


@final
@protected
class Watch:
    """Follows the list. Use as ``async with``; then `receive`, or iterate over the changes.

    ``wants`` says of which sessions, by their ids. Cancelling `receive` and calling it again loses nothing and repeats
    nothing. One task may receive at a time.
    """

    def __init__(self, changes: Changes, after: Cursor | None, wants: Callable[[str], bool]) -> None:
        self._changes = changes
        self._after = after
        self._wants = wants
        self._ready: list[ListDelivery] = []
        # None: there is something to be read.
        self._send, self._receive = trio.open_memory_channel[ListChange | None](changes.config.watch_buffer)
        self._replaying = True
        self._position = changes.number
        self._epoch, self._life = changes.epoch, changes.lives
        self._final: Drained | Ended | None = None

    async def __aenter__(self) -> Self:
        changes, after = self._changes, self._after
        if changes.notes is not None:
            await changes.notes.read()
            changes.notes.wake()
        self._position, self._life, self._epoch = changes.number, changes.lives, changes.epoch
        gap: str | None = None
        if after is not None and after.epoch != changes.epoch:
            gap = "unknown_epoch"
        elif after is not None and after.offset > changes.number:
            gap = "past_tail"
        elif after is not None and after.offset < changes.forgotten:
            gap = "expired"
        elif after is not None:
            self._position = after.offset
        self._ready.append(Opened(self._cursor))
        if gap is not None:
            self._ready.append(Gap(gap, str(after), self._cursor))
        changes.add(self)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._changes.remove(self)
        self._ready.clear()
        self.close(Ended("left"))  # wakes who waits; nobody is told that

    @property
    def _cursor(self) -> Cursor:
        return Cursor(self._epoch, self._position)

    # --- for `Changes`

    def put(self, change: ListChange) -> None:
        """Take it, without a wait, if it is wanted."""
        if self._replaying or self._final is not None:
            return
        try:
            if self._wants(change.session_id):
                self._send.send_nowait(change)
        except Exception:  # noqa: BLE001  # no room; or what `wants` raises, and its reader then meets by itself
            self.lag()

    def lag(self) -> None:
        """Forget what waits, and have the reader look by itself."""
        if self._replaying or self._final is not None:
            return
        self._replaying = True
        try:
            while True:
                self._receive.receive_nowait()
        except trio.WouldBlock:
            self._send.send_nowait(None)

    def close(self, final: Drained | Ended) -> None:
        """Nothing comes any more behind what is there."""
        if self._final is None:
            self._final = final
            self._send.close()

    # --- for the reader

    async def receive(self) -> ListDelivery:
        """The next delivery, as soon as there is one. A checkpoint.

        The first is `Opened`, behind it a `Gap` where what was asked for cannot be given: then the list has to be read
        anew, as it has where nothing was asked for. `CaughtUp` follows what had changed by then. Raises
        `trio.EndOfChannel` when nothing will follow, and `StorageError` when the log cannot be read.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        while not self._ready:
            if self._replaying and self._final is None:
                await self._replay()
                continue
            try:
                change = await self._receive.receive()
            except trio.EndOfChannel:
                if not isinstance(self._final, Drained):
                    raise
                final, self._final = self._final, Ended("told")
                return final
            if change is not None and change.cursor.offset > self._position:
                self._position = change.cursor.offset
                return change
        delivery = self._ready.pop(0)
        await trio.lowlevel.cancel_shielded_checkpoint()
        return delivery

    def receive_ready(self) -> ListDelivery | None:
        """The next change, if it need not be waited for. None, too, where `receive` has something else to say first."""
        while not (self._ready or self._replaying):
            try:
                change = self._receive.receive_nowait()
            except (trio.WouldBlock, trio.EndOfChannel):
                return None
            if change is not None and change.cursor.offset > self._position:
                self._position = change.cursor.offset
                return change
        return None

    async def _replay(self) -> None:
        """Read the next of what changed behind the position; or it is caught up."""
        changes = self._changes
        anew = self._life != changes.lives
        if anew or self._position < changes.forgotten:
            asked, self._position = self._cursor, changes.number
            self._epoch, self._life = changes.epoch, changes.lives
            self._ready.append(Gap("unknown_epoch" if anew else "expired", str(asked), self._cursor))
            return
        page = changes.behind(self._position)
        if not page:
            self._replaying = False
            self._ready.append(CaughtUp(self._cursor))
            return
        wanted = [(session_id, number) for session_id, number in page if self._wants(session_id)]
        if wanted:
            listed = await changes.read([session_id for session_id, _ in wanted])
            self._ready.extend(
                ListChange(session_id, session, Cursor(changes.epoch, number))
                for (session_id, number), session in zip(wanted, listed, strict=True)
            )
        else:
            await trio.lowlevel.checkpoint()
        self._position = page[-1][1]

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ListChange:
        """The next change. Raises `GapError` where a gap is met: read the list anew, and iterate on behind it."""
        while True:
            try:
                delivery = await self.receive()
            except trio.EndOfChannel:
                raise StopAsyncIteration from None
            if isinstance(delivery, ListChange):
                return delivery
            if isinstance(delivery, Gap):
                raise GapError(
                    f"the list cannot be followed from {delivery.asked}: {delivery.reason}",
                    asked=delivery.asked,
                    resumed_at=str(delivery.resumed),
                )
