"""What can be compacted: closed messages whose block events one ``message.snapshot`` can stand for (rule C).

Owns the decision and the snapshot, from a session's events read in order. When it is done, and in which pieces it goes
into the log, is `compaction`'s. What the fold says is the content is the content; a message that it cannot
follow, or whose events carry fields that this version does not know, is left as it is, and so is one so large that a
single event with all of it would be a burden to everybody who reads it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import datetime
from typing import Final, final

from attrs import define, evolve, field, frozen

from ..codec import encode_with, encoding_blocks
from ..errors import InvalidBody
from ..events import (
    BlockClosed,
    BlockDelta,
    BlockOpened,
    Event,
    MessageClosed,
    MessageOpened,
    MessageSnapshot,
)
from ..reducer import BlockView, Gap, MessageView
from ..reducer.transcript import Transcript
from ..work import Work

__all__ = ["Compaction", "Scan", "seconds_of"]

# A message with fewer block events than this has nothing to save: its snapshot is an event as well.
_WORTH: Final = 2

# A message with more stays in pieces, of which readers take a page at a time: its whole content would be one event.
# These are as large as a request may be, of blocks with hardly anything in them or of a single one.
_MOST_BLOCKS: Final = 1024
_MOST_CHARACTERS: Final = 1024 * 1024


def seconds_of(time: str) -> float:
    """An event's time in seconds since 1970. Raises `InvalidBody`."""
    try:
        return datetime.fromisoformat(time).timestamp()
    except (ValueError, OverflowError, OSError) as error:
        raise InvalidBody(f"{time!r} is no time") from error


@final
@frozen(kw_only=True)
class Compaction:
    """One message: its whole content is to stand in place of its last event, and the events of ``runs`` are to go.

    ``content`` is None where it stands there already: somebody was interrupted. ``runs`` are first and last offsets,
    in order, all of them below the last event's.
    """

    last: Event
    content: Transcript | None
    runs: tuple[tuple[int, int], ...]

    @property
    def events(self) -> int:
        """How many events are to go."""
        return sum(last - first + 1 for first, last in self.runs)

    def encoding(self) -> Work[bytes | None]:
        """The whole content, as it is to be stored."""
        if self.content is None:
            return None
        (message,), _ = yield from self.content.paging(None, None)
        view = message.view()
        whole = _whole(view)
        data = yield from encoding_blocks(whole, map(BlockView.whole, view.blocks))
        return encode_with(evolve(self.last, data=whole, block_index=None, seq=None), data)

    def pieces(self, size: int) -> Iterator[tuple[int, ...]]:
        """The offsets to remove, from the back to the front: at least one piece, none larger than ``size``.

        Removed in this order, what is left of the message is at any time its beginning, and the whole.
        """
        piece: list[int] = []
        for first, last in reversed(self.runs):
            for offset in range(last, first - 1, -1):
                piece.append(offset)
                if len(piece) == size:
                    yield tuple(piece)
                    piece = []
        if piece or not self.runs:
            yield tuple(piece)


@define
class _Message:
    opened: int
    # Its own part of the fold; None once it is clear that the message stays as it is.
    transcript: Transcript | None
    runs: list[list[int]] = field(factory=list)
    blocks: int = 0
    characters: int = 0
    last: Event | None = None
    whole: bool = False  # as it was compacted, but for what is still to go

    def add(self, event: Event, offset: int) -> None:
        if self.runs and self.runs[-1][1] == offset - 1:
            self.runs[-1][1] = offset
        else:
            self.runs.append([offset, offset])
        self.last = event
        match event.data:
            case BlockOpened():
                self.blocks += 1
            case BlockDelta(text=text, arguments=arguments):
                self.characters += len(text or arguments or "")
            case _:
                pass

    @property
    def is_large(self) -> bool:
        return self.blocks > _MOST_BLOCKS or self.characters > _MOST_CHARACTERS


@final
class Scan:
    """Reads a session's events behind the offset ``after``, where nothing is left to do, and finds what to compact.

    ``before``: a message that was closed later (seconds since 1970) is too young; the scan ends there. All
    events must be of generations that have ended: of one that is live, single events may still be needed.
    """

    def __init__(self, *, after: int, before: float = math.inf) -> None:
        self._before = before
        self._position = after
        self._open: dict[str, _Message] = {}
        self.ended = False

    @property
    def settled(self) -> int:
        """Up to this offset nothing is left to do, once what was found has been done."""
        return min((message.opened - 1 for message in self._open.values()), default=self._position)

    def take(self, event: Event) -> Compaction | None:
        """The next event; what can be compacted now that it has come. Raises `InvalidBody`."""
        offset, message_id = event.offset, event.message_id
        if offset is None or self.ended:
            return None
        found = None
        if message_id is not None:
            data = event.data
            message = self._open.get(message_id)
            match data:
                case MessageOpened():
                    self._open_message(event, data, message_id, offset)
                case BlockOpened() | BlockDelta() | BlockClosed() if message is not None:
                    message.add(event, offset)
                    if message.transcript and (message.is_large or not _fold_block(message.transcript, event, data)):
                        message.transcript = None
                case MessageSnapshot() if message is not None:
                    message.whole = True
                    if message.transcript and isinstance(message.transcript.take_whole(event, data), Gap):
                        message.transcript = None
                case MessageClosed() if message is not None:
                    if seconds_of(event.time) > self._before:
                        self.ended = True
                        return None
                    del self._open[message_id]
                    found = _close(message, event, data)
                case _:
                    pass
        self._position = offset
        return found

    def _open_message(self, event: Event, data: MessageOpened, message_id: str, offset: int) -> None:
        transcript = Transcript()
        transcript.open_message(event, data)
        self._open[message_id] = _Message(offset, transcript)


def _fold_block(transcript: Transcript, event: Event, data: BlockOpened | BlockDelta | BlockClosed) -> bool:
    if event.extra or data.extra:
        return False
    try:
        return not isinstance(transcript.fold_block(event, data), Gap)
    except InvalidBody:
        return False


def _close(message: _Message, event: Event, data: MessageClosed) -> Compaction | None:
    transcript, last = message.transcript, message.last
    if transcript is None or last is None or last.offset is None:
        return None
    if isinstance(transcript.close_message(event, data), Gap):
        return None
    if message.whole:
        runs = tuple((first, end) for first, end in message.runs)
        return Compaction(last=last, content=None, runs=runs)
    if sum(end - first + 1 for first, end in message.runs) < _WORTH:
        return None
    message.runs[-1][1] -= 1
    runs = tuple((first, end) for first, end in message.runs if first <= end)
    return Compaction(last=last, content=transcript, runs=runs)


def _whole(view: MessageView) -> MessageSnapshot:
    """The content of the message but for its blocks."""
    return MessageSnapshot(
        role=view.role,
        status=view.status,
        blocks=(),
        parent_message_id=view.parent_message_id,
        metadata=view.metadata,
    )
