"""R4: the order in which a generation's end closes what is open.

Where an end begins the log does not always tell: it begins at ``generation.cancelling``, from where the producer
writes nothing more, else at the first ``input.returned``, which only an end writes. Before that a producer closes
its own blocks and messages as it likes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, final

from attrs import define, field

from ..events import (
    ApprovalResolved,
    BlockClosed,
    BlockDelta,
    BlockOpened,
    Event,
    GenerationCancelling,
    GenerationFinished,
    InputReturned,
    MessageClosed,
    MessageOpened,
    MessageRetracted,
    MessageSnapshot,
)

__all__ = ["End"]

_CANCELLED: Final = ("superseded", "stopped", "reset", "deleted", "shutdown")
_RANKS: Final = (
    "approval.resolved",
    "input.returned",
    "block.closed",
    "message.closed",
    "the tool message",
    "message.retracted",
)
_TOOL_MESSAGE: Final = 4


@final
@define
class End:
    """One generation's end. ``read`` takes every event that bears the generation's stamp."""

    begun: bool = False
    _rank: int = 0
    _tool_messages: int = 0
    _closed: list[tuple[int | None, str]] = field(factory=list)  # offset and status, but of the tool message

    def read(self, event: Event, *, opened: bool, own: bool) -> Iterator[str]:
        """What is wrong with the event at its place.

        ``opened``: its message was opened before. ``own``: by this end, so it is the tool message.
        """
        data = event.data
        if isinstance(data, GenerationCancelling):
            if self.begun:
                yield "generation.cancelling stands within the end"
            self.begun = True
            return
        if isinstance(data, InputReturned):
            self.begun = True
        if not self.begun or isinstance(data, GenerationFinished):
            return
        rank = _rank(event, opened=opened, own=own)
        if rank is None:
            yield f"{event.type} stands within the end of its generation"
            return
        if rank < self._rank:
            yield f"{_RANKS[rank]} stands behind {_RANKS[self._rank]} in the end of its generation"
        self._rank = max(rank, self._rank)
        if rank == _TOOL_MESSAGE:
            self._tool_messages += not opened
            if not opened and self._tool_messages > 1:
                yield "an end has more than one tool message"
        elif isinstance(data, MessageClosed):
            self._closed.append((event.offset, data.status))
        elif isinstance(data, ApprovalResolved) and data.approved and data.by is None:
            yield f"approval {data.approval_id} is granted by the end of its generation"

    def finish(self, outcome: str) -> Iterator[tuple[int | None, str]]:
        """The messages, by the offset of their close, whose status does not follow from the outcome."""
        expected = "failed"
        if outcome == "completed":
            expected = "complete"
        elif outcome in _CANCELLED:
            expected = "cancelled"
        for offset, status in self._closed:
            if status != expected:
                yield offset, f"an end with outcome {outcome} closes a message as {status}, not {expected}"


def _rank(event: Event, *, opened: bool, own: bool) -> int | None:
    match event.data:
        case ApprovalResolved():
            return 0
        case InputReturned():
            return 1
        case BlockOpened() | BlockDelta() | BlockClosed() | MessageClosed() | MessageSnapshot() if own:
            return _TOOL_MESSAGE
        case BlockClosed():
            return 2
        case MessageSnapshot() if opened:  # compaction put it in the place of a block.closed
            return 2
        case MessageClosed():
            return 3
        case MessageOpened(role="tool") | MessageSnapshot(role="tool"):
            return _TOOL_MESSAGE
        case MessageRetracted():
            return 5
        case _:
            return None
