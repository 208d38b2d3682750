"""Where the chunks of a remote producer stand in its generation: what they open, what they repeat, what is missing.

Owns the numbers of blocks as their producer may name them, and the openings and closings that it may leave out. Nothing
is kept and nothing is stored here: whoever writes the drafts sees to it that the structure keeps no trace of them when
any chunk of a batch is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TypeAlias, final

from ..errors import GenerationMismatch, IdInUse, InvalidBody, PenstockError, SequenceGap
from ..events import (
    ApprovalRequested,
    BlockClosed,
    BlockDelta,
    BlockOpened,
    InputApplied,
    MessageClosed,
    MessageOpened,
    new_message_id,
)
from .chunks import ChunkBatch, Pieces, Proposal, blame
from .lifecycle import BlockShape, Draft, OpenGeneration

__all__ = ["Owners", "Placing"]

# Of messages that are not this generation's: the generation they belong to, None for a posted one.
Owners: TypeAlias = Mapping[str, str | None]

_BlockData: TypeAlias = BlockOpened | BlockDelta | BlockClosed


@final
class Placing:
    """One batch on its way into ``structure``. What it came to is told once `drafts` is used up."""

    def __init__(self, structure: OpenGeneration, batch: ChunkBatch | Pieces, owners: Owners) -> None:
        self._structure = structure
        self._proposals = batch.proposals
        self._owners = owners
        self._at: int | None = None  # the chunk under way
        self.accepted = 0
        self.duplicates = 0
        self.message_id: str | None = None  # of the last chunk that has one
        self.opened: list[str] = []
        self.asked: list[ApprovalRequested] = []
        self.applied = 0

    def drafts(self) -> Iterator[Draft]:
        """The events that the chunks make. Every draft is to be recorded before the next one is asked for.

        Raises `InvalidBody`, `SequenceGap`, `GenerationMismatch` for a message of another generation, `IdInUse` for a
        posted one.
        """
        for index, proposal in enumerate(self._proposals):
            self._at = index
            written = False
            for draft in self._place(proposal):
                written = True
                yield draft
            self.accepted += written
            self.duplicates += not written

    @contextmanager
    def blaming(self) -> Iterator[None]:
        """Errors from here, where the drafts are used, say which chunk they are about."""
        try:
            yield
        except PenstockError as error:
            if self._at is not None:
                blame(error, self._at, len(self._proposals))
                error.message_id = error.message_id or self._proposals[self._at].message_id
            raise

    def _place(self, proposal: Proposal) -> Iterator[Draft]:
        if proposal.message_id is not None:
            self._check_owner(proposal.message_id)  # before what is missing in it: that is nothing to send, then
        match proposal.data:
            case BlockOpened() | BlockDelta() | BlockClosed() as data:
                yield from self._block(proposal, data)
            case MessageOpened() as data:
                message_id = proposal.message_id or new_message_id()
                if message_id in self._structure.messages:
                    self.message_id = message_id
                else:
                    yield self._open(message_id, data)
            case MessageClosed() as data:
                message_id = self._named(proposal) or _missing()
                message = self._structure.messages.get(message_id)
                if message is None or message.open:
                    for index in () if message is None else sorted(message.open_blocks):
                        yield Draft(BlockClosed(), message_id, index)
                    yield Draft(data, message_id)
                self.message_id = message_id
            case ApprovalRequested() as data:
                if data.approval_id not in self._structure.approvals:
                    yield self._structure.asking(data)
                    self.asked.append(data)
            case InputApplied() as data:
                if self._structure.inputs.get(data.input_id) is not False:
                    yield Draft(data)
                    self.applied += 1
            case data:
                yield Draft(data)

    def _check_owner(self, message_id: str) -> None:
        # One of this generation's may have been opened since the log was asked whose it is.
        if message_id in self._structure.messages or message_id not in self._owners:
            return
        if self._owners[message_id] is None:
            raise IdInUse("a message that was posted has this id")
        raise GenerationMismatch("the message is another generation's")

    def _named(self, proposal: Proposal) -> str | None:
        """The message meant: by its id, or the only one that is open; None where none is."""
        if proposal.message_id is not None:
            return proposal.message_id
        open_ = self._structure.open_messages
        if len(open_) > 1:
            raise InvalidBody("more than one message is open: name one by its message_id")
        return next(iter(open_), None)

    def _open(self, message_id: str, opened: MessageOpened) -> Draft:
        self.message_id = message_id
        self.opened.append(message_id)
        return Draft(self._structure.opening(opened), message_id)

    def _block(self, proposal: Proposal, data: _BlockData) -> Iterator[Draft]:
        message_id = self._named(proposal) or new_message_id()
        index, seq = proposal.block_index, proposal.seq
        message = self._structure.messages.get(message_id)
        blocks = [] if message is None else message.blocks
        if index < len(blocks):
            self.message_id = message_id
            if not _is_repeated(blocks[index], seq):
                yield Draft(data, message_id, index)
            return
        if index > len(blocks):
            raise InvalidBody(f"the next block of this message is {len(blocks)}", message_id=message_id)
        opening = _opening(proposal, data)
        if message is None:
            yield self._open(message_id, MessageOpened(role=proposal.role or "assistant"))
        self.message_id = message_id
        yield Draft(opening, message_id, index)
        if opening is not data:
            yield Draft(data, message_id, index)


def _is_repeated(block: BlockShape, seq: int | None) -> bool:
    """Whether what has this number stands there already. Raises `SequenceGap` when something before it is missing."""
    if seq is None:
        return False
    if block.open and seq > block.seq + 1:
        raise SequenceGap(f"chunks are missing: {block.seq + 1} comes next", expected=block.seq + 1)
    return seq <= block.seq


def _opening(proposal: Proposal, data: _BlockData) -> BlockOpened:
    """What opens the block that ``data`` would be the first event of."""
    if isinstance(data, BlockOpened):
        return data
    if isinstance(data, BlockClosed):
        raise InvalidBody("the block is not open: nothing was written to it")
    if proposal.seq == 0:
        raise InvalidBody("0 is the number of a block's opening; its first delta is 1")
    if proposal.seq is not None and proposal.seq > 1:
        raise SequenceGap("chunks are missing: the block is not open, 1 opens it", expected=1)
    kind = proposal.kind or ("text" if data.value is None else "data")
    if kind in ("tool_call", "tool_result") or data.arguments is not None:
        raise InvalidBody("a tool's block is opened by a block.opened, with its tool_call_id")
    return BlockOpened(kind=kind)


def _missing() -> str:
    raise InvalidBody("no message is open: name one by its message_id")
