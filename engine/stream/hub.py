"""Fan-out of one session's committed events to its subscribers.

Publishing is synchronous and never waits: each subscriber has a bounded memory channel, and one that is full
loses its place in the channel, not its events: its mailbox says `Lagged`, and the subscription goes back to
the log. What travels is one `Batch` per commit, shared by all subscribers and framed once for all of them.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, Protocol, TypeAlias, TypeVar, assert_never, final

import trio
from attrs import frozen

from ..codec import decode
from ..events import Cursor, Event
from ..log.port import Entry
from ..observers.reporting import SILENT, Reporter

__all__ = ["Aside", "Batch", "Degraded", "Drained", "Ended", "Hub", "Lagged", "Mail", "Mailbox", "Readers"]

T = TypeVar("T")


@final
class Batch:
    """Consecutive events of one session, in order, as stored; at least one."""

    __slots__ = ("__weakref__", "_framed", "_size", "entries", "epoch", "session_id")

    def __init__(self, session_id: str, epoch: str, entries: Sequence[Entry]) -> None:
        self.session_id: Final = session_id
        self.epoch: Final = epoch
        self.entries: Final = entries
        self._framed: dict[Callable[[Batch], Any], Any] = {}
        self._size: int | None = None

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def size(self) -> int:
        """The bytes of its events."""
        if self._size is None:
            self._size = sum(len(entry.body) for entry in self.entries)
        return self._size

    @property
    def first(self) -> int:
        return self.entries[0].offset

    @property
    def last(self) -> int:
        return self.entries[-1].offset

    @property
    def cursor(self) -> Cursor:
        """The cursor behind the batch's last event."""
        return Cursor(self.epoch, self.last)

    def after(self, offset: int) -> Batch:
        """The part of the batch that lies behind ``offset``."""
        return Batch(self.session_id, self.epoch, [e for e in self.entries if e.offset > offset])

    def events(self) -> Iterator[Event]:
        return (decode(entry.body) for entry in self.entries)

    def framed(self, frame: Callable[[Batch], T]) -> T:
        """``frame(self)``, computed once however many viewers ask."""
        made: T | None = self._framed.get(frame)
        if made is None:
            made = self._framed[frame] = frame(self)
        return made


@final
@frozen
class Aside:
    """An event that is not in the log, encoded; ``number`` counts those of one session in memory, from 1."""

    number: int
    body: bytes


@final
@frozen
class Degraded:
    """Nothing can be stored at present; what was committed can still be read."""

    code: str


@final
@frozen
class Ended:
    """Nothing will ever follow: this life of the session is over."""

    reason: str


@final
@frozen
class Drained:
    """The engine shuts down, or cannot go on from here; connect again later and resume by cursor."""

    reason: str


# Why readers come back to a session whose store went back: it has another epoch, or gets one.
WENT_BACK: Final = "went-back"


@final
@frozen
class Lagged:
    """Batches, and what was said aside, were passed over; read the log from where you stand."""


Mail: TypeAlias = Batch | Aside | Degraded | Lagged


@final
class Mailbox:
    """What one subscriber has not taken yet: at most ``bound`` events of ``most`` bytes, or one larger batch."""

    __slots__ = ("_bound", "_buffered", "_bytes", "_most", "_receive", "_send", "final", "lagged")

    def __init__(self, bound: int, most: float = math.inf) -> None:
        # Every item counts for one at least; `Lagged` counts for nothing, and stands there once.
        self._send, self._receive = trio.open_memory_channel[Mail](bound + 1)
        self._bound = bound
        self._most = most
        self._buffered = 0
        self._bytes = 0
        self.lagged = False
        self.final: Ended | Drained | None = None

    def put(self, mail: Batch | Aside | Degraded) -> None:
        """Hand over without waiting; on overflow empty the channel and leave `Lagged` in it, a notice behind it."""
        found_elsewhere = not isinstance(mail, Degraded)
        if (self.lagged and found_elsewhere) or self.final is not None:
            return
        count, size = _weight(mail)
        if self._buffered and (self._buffered + count > self._bound or self._bytes + size > self._most):
            self.overflow()
            if found_elsewhere:
                return
        self._buffered += count
        self._bytes += size
        self._send.send_nowait(mail)

    def overflow(self) -> None:
        """Pass over everything that waits; the reader finds it in the log, or in the list that follows the log."""
        self.lagged = True
        # What was handed to a reader that has not run since still counts, but is no longer in the channel.
        with contextlib.suppress(trio.WouldBlock):
            while True:
                self._take(self._receive.receive_nowait())
        self._send.send_nowait(Lagged())

    def rearm(self) -> None:
        """Take batches again. Call before reading the log's tail, so that nothing falls between."""
        self.lagged = False

    def close(self, final: Ended | Drained) -> None:
        """No batch will follow; what waits can still be taken."""
        if self.final is None:
            self.final = final
            self._send.close()

    async def receive(self) -> Mail:
        """The next item. Raises `trio.EndOfChannel` when closed and empty. Cancellation loses nothing."""
        mail = await self._receive.receive()
        self._take(mail)
        return mail

    def receive_ready(self) -> Mail | None:
        """The next item, if one that counts is here."""
        if not self._buffered:
            return None
        mail = self._receive.receive_nowait()
        self._take(mail)
        return mail

    def _take(self, mail: Mail) -> None:
        count, size = _weight(mail)
        self._buffered -= count
        self._bytes -= size


def _weight(mail: Mail) -> tuple[int, int]:
    """How many events, of how many bytes, it counts for."""
    match mail:
        case Batch():
            return len(mail), mail.size
        case Aside():
            return 1, len(mail.body)
        case Degraded():
            return 1, 0
        case Lagged():
            return 0, 0
        case _:
            assert_never(mail)


class Readers(Protocol):
    """What a generation wants to know of who reads it."""

    on_left: Callable[[], object] | None  # called when the last one leaves

    def __len__(self) -> int: ...

    @property
    def last_left(self) -> float:
        """When that was, by the trio clock."""


@final
class Hub:
    """The subscribers of one session in memory."""

    __slots__ = ("_bound", "_final", "_mailboxes", "_most", "_notice", "asides", "last_left", "on_left", "reporter")

    def __init__(self, bound: int, most: float = math.inf, *, reporter: Reporter = SILENT) -> None:
        self.reporter = reporter
        self.last_left = -math.inf  # when the last subscriber left, by the trio clock
        self.asides = 0  # how many were told
        self.on_left: Callable[[], object] | None = None  # called when the last subscriber leaves
        self._bound = bound
        self._most = most
        self._mailboxes: dict[Mailbox, None] = {}  # in the order they came
        self._final: Ended | Drained | None = None
        self._notice: Degraded | None = None

    def __len__(self) -> int:
        return len(self._mailboxes)

    @property
    def over(self) -> bool:
        """Whether nothing more is published."""
        return self._final is not None

    @property
    def drained(self) -> bool:
        """Whether that is because the engine closes."""
        return isinstance(self._final, Drained)

    def register(self) -> Mailbox:
        """A mailbox that gets everything published from now on; closed already if the hub is."""
        mailbox = Mailbox(self._bound, self._most)
        if self._notice is not None:
            mailbox.put(self._notice)
        if self._final is not None:
            mailbox.close(self._final)
        self._mailboxes[mailbox] = None
        return mailbox

    def unregister(self, mailbox: Mailbox) -> None:
        """Idempotent."""
        if mailbox not in self._mailboxes:
            return
        del self._mailboxes[mailbox]
        if not self._mailboxes:
            self.last_left = trio.current_time()
            if self.on_left is not None:
                self.on_left()

    def publish(self, batch: Batch) -> None:
        for mailbox in self._mailboxes:
            mailbox.put(batch)

    def tell(self, body: bytes) -> None:
        """Tell whoever watches now of an event that is not in the log."""
        self.asides += 1
        aside = Aside(self.asides, body)
        for mailbox in self._mailboxes:
            mailbox.put(aside)

    def degrade(self, notice: Degraded) -> None:
        """Tell every subscriber, and those who come while it lasts, once."""
        if self._notice is None:
            self._notice = notice
            for mailbox in self._mailboxes:
                mailbox.put(notice)

    def recover(self) -> None:
        """What `degrade` told is over."""
        self._notice = None

    def overflow(self) -> None:
        """Send every subscriber back to the log."""
        for mailbox in self._mailboxes:
            if not mailbox.lagged and mailbox.final is None:
                mailbox.overflow()

    def close(self, final: Ended | Drained) -> None:
        self._final = self._final or final
        for mailbox in self._mailboxes:
            mailbox.close(final)
