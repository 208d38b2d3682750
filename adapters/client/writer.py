"""A remote producer's writer: what a `Generation`'s messages and blocks write with, where the log is elsewhere.

Owns the way from an event to a chunk, and the fence. Numbers are `numbering`'s, delivery is `sending`'s.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Final, Literal, Protocol, TypeVar, final

import trio
from attrs import frozen

from penstock.engine import BlockClosed, BlockDelta, Cursor, Data, InvalidCursor, JSONObject, encode_data, encode_json

from ..halves import Halves
from .numbering import Numbering
from .sending import Sender

__all__ = ["Proposed", "RemoteWriter", "Tail"]

T = TypeVar("T")

# Writing gives the other tasks a turn this often, as in the engine.
_CHECKPOINT_EVERY: Final = 32


class Proposed(Protocol):
    """An event before its stamp."""

    @property
    def data(self) -> Data: ...

    @property
    def message_id(self) -> str | None: ...

    @property
    def block_index(self) -> int | None: ...


@final
@frozen
class _Piece:
    data: BlockDelta
    message_id: str
    block_index: int


class OpenMessage(Protocol):
    """A message of this generation that is open, as who joins it sees it."""

    @property
    def role(self) -> str: ...

    def finish(self, *, reason: str | None = None, usage: JSONObject | None = None) -> None: ...


@final
class Tail:
    """The session's committed tail, as the server told it last."""

    def __init__(self, session_id: str) -> None:
        self.session_id: Final = session_id
        self.known: Cursor | None = None

    @property
    def cursor(self) -> Cursor:
        if self.known is None:
            raise InvalidCursor("the server has not told a cursor yet; flush first", session_id=self.session_id)
        return self.known


@final
class RemoteWriter:
    """Every write of one remote producer passes here, until the fence is up; then it raises what the fence says."""

    def __init__(self, generation_id: str, structure: Numbering, journal: Tail, sender: Sender) -> None:
        self.generation_id: Final = generation_id
        self.structure: Final = structure
        self.journal: Final = journal
        self.open_messages: Final[dict[str, OpenMessage]] = {}
        self.last_event = trio.current_time()
        self.refusal: Exception | None = None
        self.on_fenced: Callable[[], None] = lambda: None
        self._sender: Final = sender
        self._unchecked = 0
        # Of blocks that text was written to: puts what is held back of it.
        self._text_ends: Final[dict[tuple[str, int], Callable[[], None]]] = {}

    def fence(self, refusal: Exception) -> None:
        """From here on every write raises this. The first fence stays."""
        if self.refusal is None:
            self.refusal = refusal
            self.on_fenced()

    def check(self) -> None:
        if self.refusal is not None:
            raise self.refusal.with_traceback(None)

    async def unless_fenced(self, found: T | None) -> T:
        """What a wait brought; one that the fence ended, with None, raises what the fence says, or `Cancelled`."""
        if found is None:
            await trio.lowlevel.checkpoint_if_cancelled()
            self.check()
            raise AssertionError("a wait ended, and the generation is not fenced")
        return found

    async def check_message_id(self, message_id: str, /) -> None:
        """Whether the session knows the id is the server's to say, when the message comes there."""
        await trio.lowlevel.checkpoint()

    def note_message(self, message_id: str) -> None:
        """Nothing to remember: the server keeps the ids."""

    async def wait_room(self) -> None:
        self.check()
        if self._sender.full:
            await self._sender.wait_room()
            self.check()

    async def put(self, draft: Proposed) -> None:
        if self._sender.full:
            await self.wait_room()
        self.put_nowait(draft)
        self._unchecked += 1
        if self._unchecked >= _CHECKPOINT_EVERY:
            self._unchecked = 0
            await trio.lowlevel.checkpoint()

    def pieces(
        self, message_id: str, block_index: int, field: Literal["text", "arguments"]
    ) -> Callable[[str], Awaitable[None]]:
        """How to put one more piece of an open block. Half a character at its end waits for its other half."""

        halves = Halves()

        def made(piece: str) -> _Piece:
            delta = BlockDelta(text=piece) if field == "text" else BlockDelta(arguments=piece)
            return _Piece(delta, message_id, block_index)

        def end() -> None:
            if rest := halves.rest():
                self.put_nowait(made(rest))

        async def put(piece: str) -> None:
            whole = halves.add(piece)
            if whole:
                await self.put(made(whole))
            else:
                self.check()

        self._text_ends[message_id, block_index] = end

        return put

    async def close(self, draft: Proposed) -> None:
        """As `put`; who is cancelled while it waits for room closes it, too."""
        try:
            await self.wait_room()
        except trio.Cancelled:
            self.part(draft)
            raise
        await self.put(draft)

    def put_nowait(self, draft: Proposed, records: Mapping[str, bytes | None] | None = None) -> None:
        """Number the event and have it sent. What cannot be encoded takes no number."""
        self.check()
        data = draft.data
        if isinstance(data, BlockClosed) and draft.message_id is not None and draft.block_index is not None:
            end = self._text_ends.pop((draft.message_id, draft.block_index), None)
            if end is not None:
                end()
        body = encode_data(data)
        seq = self.structure.number(data, draft.message_id, draft.block_index)
        head = {
            "generation_id": self.generation_id,
            "type": data.type,
            "job_id": self.structure.job_id,
            "message_id": draft.message_id,
            "block_index": draft.block_index,
            "seq": seq,
        }
        stamped = encode_json({name: value for name, value in head.items() if value is not None})
        self._sender.put(b'%b,"data":%b}' % (stamped[:-1], body))
        self.last_event = trio.current_time()

    def part(self, draft: Proposed) -> None:
        """An event that closes something on the way out; behind the fence that is left to the server."""
        if self.refusal is None:
            self.put_nowait(draft)

    async def flush(self) -> None:
        """Wait until everything written so far is durable. Raises what the fence says, or `TimedOut`."""
        self.check()
        self._unchecked = 0
        await self._sender.flush()
        self.check()
