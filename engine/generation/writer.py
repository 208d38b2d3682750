"""Writing under one generation's stamp, behind its fence.

Owns the fence and the way from a draft into the journal. Who raises the fence, and why, is the session's; what is
written is `message`'s.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Literal, Protocol, TypeVar, final

import trio

from ..config import Config
from ..errors import PenstockError
from ..events import JSONObject
from ..rules.lifecycle import Draft, OpenGeneration
from ..stream.journal import Journal, Mark
from ..stream.message_ids import MessageIds
from .stamper import PieceStamper, stamp

__all__ = ["GenerationWriter", "OpenMessage"]

T = TypeVar("T")


class OpenMessage(Protocol):
    """A message of this generation that is open, as who joins it sees it."""

    @property
    def role(self) -> str: ...

    def finish(self, *, reason: str | None = None, usage: JSONObject | None = None) -> None: ...


@final
class GenerationWriter:
    """Every write of one producer passes here, until the fence is up; then it raises what the fence says."""

    __slots__ = (
        "_config",
        "_fenced",
        "_message_ids",
        "_refusal",
        "_time",
        "_unchecked",
        "journal",
        "last_event",
        "open_messages",
        "structure",
    )

    def __init__(
        self,
        structure: OpenGeneration,
        journal: Journal,
        config: Config,
        message_ids: MessageIds,
    ) -> None:
        self.structure = structure
        self.journal = journal
        self.open_messages: dict[str, OpenMessage] = {}  # by who opened them
        self._time = trio.lowlevel.current_clock().current_time  # `trio.current_time`, without the way there
        self.last_event = self._time()
        self._message_ids = message_ids
        self._config = config
        self._refusal: Callable[[], PenstockError] | None = None
        self._fenced: trio.Event | None = None  # while somebody waits for it
        self._unchecked = 0

    @property
    def session_id(self) -> str:
        return self.journal.session_id

    @property
    def generation_id(self) -> str:
        return self.structure.generation_id

    @property
    def fenced(self) -> bool:
        return self._refusal is not None

    def fence(self, refusal: Callable[[], PenstockError]) -> bool:
        """Raise the fence: from here on every write raises ``refusal()``. False if one was up; that one stays."""
        if self._refusal is not None:
            return False
        self._refusal = refusal
        if self._fenced is not None:
            self._fenced.set()
        return True

    async def wait_fenced(self) -> PenstockError:
        """Wait until the fence is up, and return what it says."""
        if self._refusal is None:
            if self._fenced is None:
                self._fenced = trio.Event()
            await self._fenced.wait()
        else:
            await trio.lowlevel.checkpoint()
        assert self._refusal is not None
        return self._refusal()

    def check(self) -> None:
        """Raises what the fence says, if it is up."""
        if self._refusal is not None:
            raise self._refusal()

    async def unless_fenced(self, found: T | None) -> T:
        """What a wait brought; one that the fence ended, with None, raises what the fence says, or `Cancelled`."""
        if found is None:
            await trio.lowlevel.checkpoint_if_cancelled()
            self.check()
            raise AssertionError("a wait ended, and the generation is not fenced")
        return found

    async def wait_room(self) -> None:
        """Pass the fence, waiting for room when the disk is behind. What is written next waits for nothing."""
        self.check()
        if self.journal.full:
            await self.journal.wait_room()
            self.check()

    async def put(self, draft: Draft) -> None:
        """Stamp one event behind the fence, waiting for room when the disk is behind."""
        if self.journal.full:
            await self.wait_room()
        self.put_nowait(draft)
        self._unchecked += 1
        if self._unchecked >= self._config.checkpoint_every:
            self._unchecked = 0
            await trio.lowlevel.checkpoint()

    def pieces(
        self, message_id: str, block_index: int, field: Literal["text", "arguments"]
    ) -> Callable[[str], Awaitable[None]]:
        """How to put one more piece of this open block: as `put`, for the events of which there are the most.

        Raises `InvalidBody` when the block is not open, or takes no such pieces.
        """
        journal, every = self.journal, self._config.checkpoint_every
        stamp_piece = PieceStamper(journal, self.structure, message_id, block_index, field).stamp

        async def put(piece: str) -> None:
            if journal.full:
                await self.wait_room()
            elif self._refusal is not None:
                raise self._refusal()
            stamp_piece(piece)
            self.last_event = self._time()
            self._unchecked += 1
            if self._unchecked >= every:
                self._unchecked = 0
                await trio.lowlevel.checkpoint()

        return put

    async def close(self, draft: Draft) -> None:
        """As `put`, for an event that closes something: who is cancelled while it waits for room closes it, too."""
        try:
            await self.wait_room()
        except trio.Cancelled:
            self.part(draft)
            raise
        await self.put(draft)

    def put_nowait(self, draft: Draft, records: Mapping[str, bytes | None] | None = None) -> None:
        """Stamp one event behind the fence without waiting for room: behind `wait_room`, or to close things."""
        self.check()
        stamp(self.journal, [(self.structure, draft)], records)
        self.last_event = self._time()

    def put_all(self, drafts: Iterable[Draft], records: Callable[[int], Mapping[str, bytes | None]]) -> Mark:
        """Stamp events behind the fence as one part; where one is refused, nothing of it, and nothing is changed."""
        self.check()
        structure = self.structure
        with structure.trial():
            mark = stamp(self.journal, ((structure, draft) for draft in drafts), records)
        self.last_event = self._time()
        return mark

    def part(self, draft: Draft) -> None:
        """Stamp an event that closes something on the way out, unless that is left to the engine's end."""
        if not self.fenced and self.journal.refused is None:
            self.put_nowait(draft)

    def check_message_id(self, message_id: str) -> Awaitable[None]:
        """Raises `IdInUse` when the session knows a message with this id. Holds until the caller waits again."""
        return self._message_ids.check_new(message_id)

    def note_message(self, message_id: str) -> None:
        """The event written last opened a message whose id was chosen by the producer."""
        self._message_ids.note(message_id, self.journal.mark())

    async def flush(self) -> None:
        """Wait until everything written so far is durable. Raises `WriteFailed`, `StaleGeneration` or `TimedOut`."""
        self.check()
        try:
            await self.journal.wait_committed(self.journal.mark(), self._config.flush_timeout)
        finally:
            self._unchecked = 0
