"""What a producer writes with: a generation opens messages, a message opens blocks, a block takes deltas.

Every write is stamped at once and durable soon; `Generation.flush` waits for that. A write waits only for the
disk, never for a reader. Once the generation is superseded or stopped, every write raises `StaleGeneration`,
in clean-up too.
"""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Final, Self, final

import trio

from .codec import check_json, encode_json
from .errors import InvalidBody
from .events import (
    JSON,
    App,
    BlockClosed,
    BlockDelta,
    BlockOpened,
    Cursor,
    GenerationStatus,
    JSONObject,
    MessageClosed,
    MessageOpened,
    check_uuid,
    new_message_id,
)
from .lifecycle import Draft
from .reducer import Snapshot

if TYPE_CHECKING:
    from .generation import Run

__all__ = ["Block", "Generation", "Message"]


@final
class Generation:
    """A producer's view of its own run."""

    def __init__(self, run: Run) -> None:
        self._run: Final = run

    @property
    def session_id(self) -> str:
        return self._run.journal.session_id

    @property
    def generation_id(self) -> str:
        return self._run.generation_id

    @property
    def turn(self) -> int:
        return self._run.structure.turn

    @property
    def job_id(self) -> str | None:
        return self._run.structure.job_id

    @property
    def input(self) -> JSON:
        """The JSON that the start gave, or None."""
        return self._run.input

    @property
    def metadata(self) -> JSONObject:
        return self._run.metadata

    def message(
        self,
        *,
        role: str = "assistant",
        message_id: str | None = None,
        parent_message_id: str | None = None,
        metadata: JSONObject | None = None,
    ) -> Message:
        """A message of this generation, open as long as its ``async with`` lasts."""
        if message_id is not None:
            message_id = check_uuid(message_id, "message_id")
        if parent_message_id is not None:
            parent_message_id = check_uuid(parent_message_id, "parent_message_id")
        if metadata is not None:
            check_json(metadata, "metadata")
        opened = MessageOpened(role=role, parent_message_id=parent_message_id, metadata=metadata)
        return Message(self._run, opened, message_id)

    async def status(self, status: str, detail: JSON = None) -> None:
        """Tell readers what goes on: ``thinking``, ``working``, or a word of your own."""
        await self._run.put(Draft(GenerationStatus(status=status, detail=check_json(detail, "detail"))))

    async def app(self, type_: str, value: JSONObject) -> None:
        """Write an event of the application's own; its type begins with ``app.``."""
        if not type_.startswith("app."):
            raise InvalidBody("the type of an application's event begins with 'app.'")
        check_json(value, "value")
        await self._run.put(Draft(App(type=type_, value=value)))

    def report_usage(self, usage: JSONObject) -> None:
        """What the generation cost; told in its end."""
        check_json(usage, "usage")
        self._run.usage = usage

    async def flush(self) -> None:
        """Wait until everything written so far is durable.

        Raises `WriteFailed` when it could not be stored and `TimedOut` after `Config.flush_timeout`.
        """
        await self._run.flush()

    async def snapshot(self) -> Snapshot:
        """The session's state: what was committed when it was asked for, this generation's own part included."""
        return await self._run.take_snapshot()

    def cursor(self) -> Cursor:
        """The session's committed tail."""
        return self._run.journal.cursor

    def cleanup(self) -> trio.CancelScope:
        """A shielded scope for what must still be awaited when the generation is cancelled, with a deadline.

        ``with generation.cleanup(): await client.aclose()``. What takes longer than `Config.cleanup_timeout`
        after the cancel is cancelled in turn.
        """
        return self._run.cleanup()


@final
class Message:
    """An open message: ``async with generation.message() as message``. Closes when the block is left.

    Left by an error or by a cancellation of the producer's own making, it closes as ``failed`` or
    ``cancelled``. When the engine ends the generation, the engine closes it.
    """

    def __init__(self, run: Run, opened: MessageOpened, message_id: str | None) -> None:
        self._run: Final = run
        self._opened: Final = opened
        self._proposed: Final = message_id is not None
        self.message_id: Final[str] = message_id or new_message_id()
        self._finish_reason: str | None = None
        self._usage: JSONObject | None = None

    async def __aenter__(self) -> Self:
        if self._proposed:
            self._run.check()
            await self._run.check_message_id(self.message_id)
        record = encode_json({"generation_id": self._run.generation_id})
        await self._run.put(Draft(self._opened, self.message_id), {f"message/{self.message_id}": record})
        return self

    def finish(self, *, reason: str | None = None, usage: JSONObject | None = None) -> None:
        """What the message's end shall say: why the model stopped, and what it cost."""
        if usage is not None:
            check_json(usage, "usage")
        self._finish_reason, self._usage = reason, usage

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            closed = MessageClosed(status="complete", finish_reason=self._finish_reason, usage=self._usage)
            await self._run.put(Draft(closed, self.message_id))
        elif not self._run.fenced and self._run.journal.refused is None:
            status = "failed" if issubclass(kind, Exception) else "cancelled"
            self._run.put_nowait(Draft(MessageClosed(status=status), self.message_id))

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

    def _block(self, opened: BlockOpened) -> Block:
        return Block(self._run, self.message_id, opened)


@final
class Block:
    """An open block: ``async with message.text() as block``. Closes when the block is left."""

    def __init__(self, run: Run, message_id: str, opened: BlockOpened) -> None:
        self._run: Final = run
        self._message_id: Final = message_id
        self._opened: Final = opened
        self._index = -1
        self._closed = BlockClosed()

    @property
    def index(self) -> int:
        """The block's index in its message; -1 before it is open."""
        return self._index

    async def __aenter__(self) -> Self:
        self._run.check()
        if self._run.journal.full:
            await self._run.journal.wait_room()
            self._run.check()
        # Between taking the index and writing it nothing waits: two blocks opened at once get two indexes.
        index = self._run.structure.next_block_index(self._message_id)
        self._run.put_nowait(Draft(self._opened, self._message_id, index))
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
            self._run.check()
            return
        delta = BlockDelta(arguments=text) if self._opened.kind == "tool_call" else BlockDelta(text=text)
        await self._run.put(Draft(delta, self._message_id, self._index))

    async def put(self, value: JSON) -> None:
        """Replace the value of a data block or a tool result; any JSON but null."""
        if value is None:
            raise InvalidBody("the value of a block must not be null")
        delta = BlockDelta(value=check_json(value, "value"))
        await self._run.put(Draft(delta, self._message_id, self._index))

    def finish(
        self, *, text: str | None = None, arguments: JSON = None, value: JSON = None, is_error: bool | None = None
    ) -> None:
        """Final fields for the block's end; each replaces what the pieces added up to."""
        for name, given in (("arguments", arguments), ("value", value)):
            check_json(given, name)
        self._closed = BlockClosed(text=text, arguments=arguments, value=value, is_error=is_error)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        draft = Draft(self._closed, self._message_id, self._index)
        if kind is None:
            await self._run.put(draft)
        elif not self._run.fenced and self._run.journal.refused is None:
            self._run.put_nowait(draft)
