"""The numbers of one generation's blocks: indexes in their messages, and each block's own seq.

Pure. What is closed is forgotten but for its message's id, so that a long generation holds only what is open. What
kind of piece fits which block is the server's to say.
"""

from __future__ import annotations

from typing import Final, final

from penstock.engine import (
    BlockClosed,
    BlockOpened,
    Data,
    InvalidBody,
    MessageClosed,
    MessageOpened,
)

__all__ = ["Numbering"]


@final
class _Blocks:
    """Of an open message: how many there were, and the seq that each open one gets next."""

    __slots__ = ("next_index", "seqs")

    def __init__(self) -> None:
        self.next_index = 0
        self.seqs: dict[int, int] = {}


@final
class Numbering:
    """``turn`` is 0 until the server has told it."""

    def __init__(self, job_id: str | None) -> None:
        self.turn = 0
        self.job_id: Final = job_id
        self._open: dict[str, _Blocks] = {}
        self._ids: set[str] = set()
        self._calls: set[str] = set()

    @property
    def message_ids(self) -> frozenset[str] | set[str]:
        """All messages that were opened, also those that are closed."""
        return self._ids

    @property
    def open(self) -> int:
        """How many messages are open."""
        return len(self._open)

    @property
    def awaits_result(self) -> bool:
        """Whether a tool call has no result yet."""
        return bool(self._calls)

    def next_block_index(self, message_id: str) -> int:
        """Raises `InvalidBody` when the message is not open."""
        return self._blocks(message_id).next_index

    def opening(self, opened: MessageOpened) -> MessageOpened:
        """As it is: the server adds what it knows."""
        return opened

    def number(self, data: Data, message_id: str | None, block_index: int | None) -> int | None:
        """Take note of an event that is written now; its seq, if it has one. Raises `InvalidBody`; then it is not."""
        if message_id is None:
            return None
        if isinstance(data, MessageOpened):
            if message_id in self._ids:
                raise InvalidBody("this message was opened before", message_id=message_id)
            self._ids.add(message_id)
            self._open[message_id] = _Blocks()
            return None
        blocks = self._blocks(message_id)
        if isinstance(data, MessageClosed):
            del self._open[message_id]
            return None
        if block_index is None:
            return None
        if isinstance(data, BlockOpened):
            if block_index != blocks.next_index:
                raise InvalidBody(f"the next block is {blocks.next_index}, not {block_index}", message_id=message_id)
            blocks.next_index += 1
            blocks.seqs[block_index] = 1
            self._note_call(data)
            return 0
        seq = blocks.seqs.get(block_index)
        if seq is None:
            raise InvalidBody(f"block {block_index} is not open", message_id=message_id)
        if isinstance(data, BlockClosed):
            del blocks.seqs[block_index]
        else:
            blocks.seqs[block_index] = seq + 1
        return seq

    def _blocks(self, message_id: str) -> _Blocks:
        blocks = self._open.get(message_id)
        if blocks is None:
            raise InvalidBody("this message is not open", message_id=message_id)
        return blocks

    def _note_call(self, data: BlockOpened) -> None:
        if data.tool_call_id is not None:
            if data.kind == "tool_call":
                self._calls.add(data.tool_call_id)
            elif data.kind == "tool_result":
                self._calls.discard(data.tool_call_id)
