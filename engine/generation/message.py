"""What a producer writes with: messages, and blocks in them that take deltas.

Every write is stamped at once and durable soon; `Generation.flush` waits for that. A write waits only for the
disk, never for a reader. Once the generation is superseded or stopped, every write raises `StaleGeneration`,
in clean-up too.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, MutableMapping
from types import TracebackType
from typing import Final, Literal, Protocol, Self, TypeVar, cast, final

import trio

from ..codec import check_data, own_json
from ..errors import IdInUse, InvalidBody
from ..events import (
    JSON,
    BlockClosed,
    BlockDelta,
    BlockOpened,
    Cursor,
    JSONObject,
    MessageClosed,
    MessageOpened,
    new_message_id,
)
from ..rules.lifecycle import Draft
from ..rules.records import MessageRecord, message_key, to_record
from ..shapes import check_object, checked_text
from ..supervision import protected, without
from .writer import OpenMessage

__all__ = ["Block", "Message", "Outline", "Tail", "Writer"]

T = TypeVar("T")


# What ends a producer that did not fail.
_CUT_OFF: Final = (trio.Cancelled, KeyboardInterrupt, SystemExit)


class Outline(Protocol):
    """What a producer's view asks of the generation's structure."""

    turn: int

    @property
    def job_id(self) -> str | None: ...

    @property
    def message_ids(self) -> Collection[str]:
        """All messages that it opened, also those that are closed."""

    def next_block_index(self, message_id: str) -> int:
        """The index that the message's next block gets. Raises `InvalidBody` when it is not open."""

    def opening(self, opened: MessageOpened, /) -> MessageOpened:
        """What opens the next message, with what is known of it beside what its producer says."""


class Tail(Protocol):
    """The session's committed tail."""

    @property
    def session_id(self) -> str: ...

    @property
    def cursor(self) -> Cursor: ...


class Writer(Protocol):
    """What a producer's view writes with: a `GenerationWriter` in the engine, or from another process."""

    @property
    def generation_id(self) -> str: ...

    @property
    def structure(self) -> Outline: ...

    @property
    def journal(self) -> Tail: ...

    @property
    def open_messages(self) -> MutableMapping[str, OpenMessage]: ...

    def check(self) -> None: ...

    def check_message_id(self, message_id: str, /) -> Awaitable[None]: ...

    def note_message(self, message_id: str) -> None: ...

    async def wait_room(self) -> None: ...

    async def put(self, draft: Draft) -> None: ...

    def pieces(
        self, message_id: str, block_index: int, field: Literal["text", "arguments"]
    ) -> Callable[[str], Awaitable[None]]:
        """How to put one more piece of an open block. Raises `InvalidBody`."""

    async def close(self, draft: Draft) -> None: ...

    def put_nowait(self, draft: Draft, records: Mapping[str, bytes | None] | None = None) -> None: ...

    def part(self, draft: Draft) -> None: ...

    async def flush(self) -> None: ...

    async def unless_fenced(self, found: T | None) -> T: ...


@final
@protected
class Message:
    """An open message: ``async with generation.message() as message``. Closes when the block is left.

    Left by an error or by a cancellation of the producer's own making, it closes as ``failed`` or
    ``cancelled``. When the engine ends the generation, the engine closes it.

    One that names a message still open in this generation joins it: nothing is written, its blocks come behind
    those that are there, and leaving it closes nothing. Who opened the message closes it.
    """

    def __init__(self, writer: Writer, opened: MessageOpened, message_id: str | None) -> None:
        self._writer: Final = writer
        self._opened: Final = opened
        self._proposed: Final = message_id is not None
        self.message_id: Final[str] = message_id or new_message_id()
        self._joined: OpenMessage | None = None
        self._finish_reason: str | None = None
        self._usage: JSONObject | None = None

    @property
    def role(self) -> str:
        return self._opened.role

    async def __aenter__(self) -> Self:
        """Raises `IdInUse` when the id names a message that is not open in this generation."""
        await self._writer.wait_room()
        if self._proposed and self.message_id not in self._writer.open_messages:
            if self.message_id in self._writer.structure.message_ids:
                raise IdInUse("this message is closed", message_id=self.message_id)
            try:
                await self._writer.check_message_id(self.message_id)
            except IdInUse:
                if self.message_id not in self._writer.open_messages:  # else opened in this generation meanwhile
                    raise
        # Nothing waits between these looks and the write: of two that open the same message, one joins the other.
        opener = self._writer.open_messages.get(self.message_id)
        if opener is not None:
            self._join(opener)
            return self
        record = to_record(MessageRecord(generation_id=self._writer.generation_id))
        opened = self._writer.structure.opening(self._opened)
        self._writer.put_nowait(Draft(opened, self.message_id), {message_key(self.message_id): record})
        if self._proposed:
            self._writer.note_message(self.message_id)
        self._writer.open_messages[self.message_id] = self
        return self

    def _join(self, opener: OpenMessage) -> None:
        if opener is self:
            raise InvalidBody("this message was entered before", message_id=self.message_id)
        if opener.role != self.role:
            raise InvalidBody(f"the open message is one of role {opener.role}", message_id=self.message_id)
        self._joined = opener

    def finish(self, *, reason: str | None = None, usage: JSONObject | None = None) -> None:
        """What the message's end shall say: why the model stopped, and what it cost. The last word counts."""
        if usage is not None:
            usage = cast("JSONObject", own_json(check_object(usage, "usage"), "usage"))
        checked_text(reason, "reason")
        if self._joined is not None:
            self._joined.finish(reason=reason, usage=usage)
        self._finish_reason, self._usage = reason, usage

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._joined is not None:
            return
        del self._writer.open_messages[self.message_id]
        if kind is None:
            closed = MessageClosed(status="complete", finish_reason=self._finish_reason, usage=self._usage)
            await self._writer.close(Draft(closed, self.message_id))
        else:
            cut_off = error is not None and without(error, _CUT_OFF) is not error
            status = "cancelled" if cut_off else "failed"
            self._writer.part(Draft(MessageClosed(status=status), self.message_id))

    def text(self) -> Block:
        return self._block(BlockOpened(kind="text"))

    def reasoning(self) -> Block:
        return self._block(BlockOpened(kind="reasoning"))

    def tool_call(self, tool_call_id: str, name: str) -> Block:
        """A call whose arguments' JSON is written piece by piece; `Block.finish` may give them parsed."""
        return self._block(BlockOpened(kind="tool_call", tool_call_id=tool_call_id, name=name))

    def tool_result(self, tool_call_id: str, *, name: str | None = None) -> Block:
        return self._block(BlockOpened(kind="tool_result", tool_call_id=tool_call_id, name=name))

    def data(self, *, name: str | None = None) -> Block:
        """A value of the application's own; each write replaces it."""
        return self._block(BlockOpened(kind="data", name=name))

    async def image(
        self,
        *,
        file_id: str | None = None,
        url: str | None = None,
        media_type: str | None = None,
        filename: str | None = None,
    ) -> None:
        """A picture: one of the session's files, or what stands at an http or https address. Raises `InvalidBody`."""
        said = BlockOpened(kind="image", file_id=file_id, url=url, media_type=media_type, filename=filename)
        await self._whole(said)

    async def file(
        self,
        *,
        file_id: str | None = None,
        url: str | None = None,
        media_type: str | None = None,
        filename: str | None = None,
    ) -> None:
        """As `image`, of anything else."""
        await self._whole(BlockOpened(kind="file", file_id=file_id, url=url, media_type=media_type, filename=filename))

    async def source(self, *, url: str | None = None, file_id: str | None = None, title: str | None = None) -> None:
        """What the message draws on: an address, or one of the session's files. Raises `InvalidBody`."""
        await self._whole(BlockOpened(kind="source", file_id=file_id, url=url, title=title))

    async def _whole(self, opened: BlockOpened) -> None:
        async with self._block(opened):
            pass

    def _block(self, opened: BlockOpened) -> Block:
        return Block(self._writer, self.message_id, opened)


@final
@protected
class Block:
    """An open block: ``async with message.text() as block``. Closes when the block is left."""

    def __init__(self, writer: Writer, message_id: str, opened: BlockOpened) -> None:
        self._writer: Final = writer
        self._message_id: Final = message_id
        self._opened: Final = opened
        self._index = -1
        self._write: Callable[[str], Awaitable[None]] | None = None
        self._closed = BlockClosed()

    @property
    def index(self) -> int:
        """The block's index in its message; -1 before it is open."""
        return self._index

    async def __aenter__(self) -> Self:
        await self._writer.wait_room()
        # Between taking the index and writing it nothing waits: two blocks opened at once get two indexes.
        index = self._writer.structure.next_block_index(self._message_id)
        self._writer.put_nowait(Draft(self._opened, self._message_id, index))
        self._index = index
        return self

    async def write(self, text: str) -> None:
        """One more piece: text, or for a tool call a piece of its arguments' JSON. An empty piece writes nothing.

        Waits for room when the disk is behind, never for readers. Raises `StaleGeneration` behind the fence,
        `WriteFailed` when something written before could not be stored.
        """
        if type(text) is not str:
            raise InvalidBody(f"a piece of text is a str, not {type(text).__name__}")
        if not text:
            self._writer.check()
            return
        if self._write is None:
            field: Literal["text", "arguments"] = "arguments" if self._opened.kind == "tool_call" else "text"
            self._writer.check()
            self._write = self._writer.pieces(self._message_id, self._index, field)
        await self._write(text)

    async def put(self, value: JSON) -> None:
        """Replace the value of a data block or a tool result; any JSON but null."""
        if value is None:
            raise InvalidBody("the value of a block must not be null")
        await self._writer.put(Draft(BlockDelta(value=value), self._message_id, self._index))

    def finish(
        self, *, text: str | None = None, arguments: JSON = None, value: JSON = None, is_error: bool | None = None
    ) -> None:
        """Final fields for the block's end; each replaces what the pieces added up to."""
        closed = BlockClosed(
            text=checked_text(text, "text"),
            arguments=own_json(arguments, "arguments"),
            value=own_json(value, "value"),
            is_error=is_error,
        )
        check_data(closed)
        self._closed = closed

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        draft = Draft(self._closed, self._message_id, self._index)
        if kind is None:
            await self._writer.close(draft)
        else:
            self._writer.part(draft)
