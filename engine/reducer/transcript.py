"""The messages' part of the fold: in order, by id, paged from the newest.

Owns which message and block events fit what is known. Every method that folds an event gives a `Gap` or a
duplicate before it changes anything.

Whoever can read the log again may let go of what older messages say (`Transcript.evicting`): of such a message only its
place is kept, of the oldest in columns (`places`), and what needs the content tells what is missing.

Compaction (rule C) leaves missing offsets: only while a message is open, and one of those that were open must then
come whole, as ``message.snapshot``, before it closes. The transcript keeps account of that.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterator
from itertools import chain, islice
from operator import attrgetter
from typing import final

from attrs import evolve

from ..codec import encoding_blocks
from ..errors import InvalidBody, MessageNotFound
from ..events import (
    ApprovalRequested,
    ApprovalResolved,
    BlockClosed,
    BlockDelta,
    BlockOpened,
    Event,
    MessageClosed,
    MessageOpened,
    MessageRetracted,
    MessageSnapshot,
    is_uuid,
)
from ..work import Work
from .content import Again, Evicted, GrowingBlock, GrowingMessage, Missing
from .folded import APPLIED, DUPLICATE, Folded, Gap, stamped
from .generations import GrowingGeneration
from .places import BLOCK, NO_PLACES
from .snapshot import BlockView, ResolvedView

__all__ = ["Transcript", "growing"]

_by_ordinal = attrgetter("ordinal")


@final
class Transcript:
    """Messages by id and in order; those that are open are found without a search."""

    def __init__(self) -> None:
        self.older = False  # there are messages before the first that are not here
        self.older_seen_at = 0  # the offset at which those that are here, from pages behind the first, were looked at
        self.open: dict[str, GrowingMessage] = {}
        self._old = NO_PLACES  # of the messages before those in `_in_order`
        self._by_id: dict[str, GrowingMessage | Evicted] = {}  # those in `_in_order`
        self._in_order: list[GrowingMessage | Evicted] = []
        # Those that are closed and have their content, in the order in which they were closed; what is weighed of them.
        self._held: dict[str, GrowingMessage] = {}
        self._weight = 0
        # For every jump of the offset that no message.snapshot has explained yet, the messages that may.
        self._unexplained: list[set[str]] = []
        self._asked: dict[str, str | None] = {}  # what each approval is for, where nobody else keeps account of that
        self._versions: dict[str, str] = {}  # the message that is one of these versions, or was the last to be

    def add(self, message: GrowingMessage) -> None:
        """Append a message whose id is new. Its ``ordinal`` is given here and never changes."""
        message.ordinal = max(message.first, self._in_order[-1].ordinal + 1 if self._in_order else 0)
        if message.version is not None:
            self._versions[message.version.of] = message.message_id
        self._by_id[message.message_id] = message
        self._in_order.append(message)
        if message.open:
            self.open[message.message_id] = message
        else:
            self._held[message.message_id] = message

    def clear(self) -> None:
        self.open.clear()
        self._held.clear()
        self._weight = 0
        self._old = NO_PLACES
        self._by_id.clear()
        self._in_order.clear()
        self._unexplained.clear()
        self._asked.clear()
        self._versions.clear()
        self.older, self.older_seen_at = False, 0

    def dismantling(self) -> Work[None]:
        """Let go of all of it, bit by bit: of a large one, all at once takes long, too."""
        self._by_id.clear()
        while self._in_order:
            message = self._in_order.pop()
            self._held.pop(message.message_id, None)
            if isinstance(message, GrowingMessage):
                yield from message.dismantling()
            yield
        self.clear()

    def evicting(self, most: int) -> Work[None]:
        """Let go of what messages say until it is about ``most`` bytes; not of open ones, nor of the one closed last.

        What was closed longest ago goes first. Only where the transcript was folded from the log's beginning. Nothing
        may be folded meanwhile.
        """
        for message in reversed(self._held.values()):
            if message.weight:
                break  # and those that were closed before it, too
            message.weight = yield from message.weighing()
            self._weight += message.weight
        while self._weight > most and len(self._held) > 1:
            message = next(iter(self._held.values()))
            self._drop(message)
            evicted = Evicted(
                message_id=message.message_id, first=message.first, last=message.last, weight=message.weight
            )
            self._by_id[message.message_id] = self._in_order[self._recent(message)] = evicted
            yield from message.dismantling()
        while len(self._in_order) - len(self._held) - len(self.open) >= BLOCK:
            first = self._in_order[:BLOCK]
            places = [message for message in first if isinstance(message, Evicted) and is_uuid(message.message_id)]
            if len(places) < BLOCK:
                break  # one of them is open still, or is used
            self._old = self._old.with_block(places)
            del self._in_order[:BLOCK]
            for place in places:
                del self._by_id[place.message_id]
            yield

    def _hold(self, message: GrowingMessage) -> None:
        """It is closed, or what it says is another now."""
        self._drop(message)
        message.weight = 0
        self._held[message.message_id] = message

    def _drop(self, message: GrowingMessage) -> None:
        if self._held.pop(message.message_id, None) is not None:
            self._weight -= message.weight

    def paging(
        self, limit: int | None, before: str | None, again: Again | None = None
    ) -> Work[tuple[list[GrowingMessage], bool]]:
        """The newest ``limit`` messages, or those before the message ``before``, and whether older ones exist.

        Each has its view. Costs what it returns. Nothing may be folded meanwhile. Raises `MessageNotFound` for an
        unknown ``before``, `InvalidBody` for a limit below 0, `Missing` for evicted messages that ``again`` lacks.
        """
        again = again or Again()
        start, end = self._range(limit, before)
        found: list[GrowingMessage] = []
        for message in self._between(start, end):
            there = message if isinstance(message, GrowingMessage) else again.messages.get(message.message_id)
            if there is None:
                raise Missing((yield from self._missing(start, end, again, math.inf)))
            yield from there.viewing()
            found.append(there)
            yield
        return found, start > 0 or self.older

    def encoding(
        self, limit: int, before: str | None, most_bytes: int, again: Again | None = None, *, with_open: bool
    ) -> Work[tuple[list[tuple[GrowingMessage, bytes]], str | None]]:
        """As `paging`, each with its JSON, within so many bytes but for a single one; and what older ones are before.

        ``with_open``: open messages before the page stand before it, for what follows them comes.
        """
        again = again or Again()
        start, end = self._range(limit, before)
        found: list[tuple[GrowingMessage, bytes]] = []
        size = 0
        for message in islice(self._backwards(end), end - start):
            there = message if isinstance(message, GrowingMessage) else again.messages.get(message.message_id)
            if there is None:
                raise Missing((yield from self._missing(start, end, again, most_bytes)))
            view = yield from there.viewing()
            body = yield from encoding_blocks(view, view.blocks)
            size += len(body)
            if found and size > most_bytes:
                break
            found.append((there, body))
            end -= 1
            yield
        first = found[-1][0].message_id if found else before
        more = end > 0 or self.older
        if with_open:
            for left in sorted(self.open.values(), key=_by_ordinal, reverse=True):
                if self._index(left) < end:
                    view = yield from left.viewing()
                    found.append((left, (yield from encoding_blocks(view, view.blocks))))
        return found[::-1], first if more else None

    def _range(self, limit: int | None, before: str | None) -> tuple[int, int]:
        """The places of the newest ``limit`` messages, or of those before the message ``before``."""
        if limit is not None and limit < 0:
            raise InvalidBody("a limit is 0 or more")
        end = len(self._old) + len(self._in_order)
        if before is not None:
            message = self._known(before)
            if message is None:
                raise MessageNotFound("no message has this id; page from one that a snapshot showed", message_id=before)
            end = self._index(message)
        return 0 if limit is None else max(0, end - limit), end

    def _missing(self, start: int, end: int, again: Again, most: float) -> Work[list[Evicted]]:
        """Of the evicted ones in this range, but for those in ``again``: the newest, one or about so many bytes."""
        missing: list[Evicted] = []
        for message in islice(self._backwards(end), end - start):
            if isinstance(message, Evicted) and message.message_id not in again.messages:
                most -= message.weight
                if missing and most < 0:
                    break
                missing.append(message)
            yield
        return missing[::-1]

    def ids(self, first: str | None) -> list[str]:
        """Ids in order, from ``first`` on. Raises `MessageNotFound`."""
        start = 0
        if first is not None:
            message = self._known(first)
            if message is None:
                raise MessageNotFound("the session has no message with this id", message_id=first)
            start = self._index(message)
        old = len(self._old)
        return self._old.ids(start) + [message.message_id for message in self._in_order[max(0, start - old) :]]

    @property
    def newest(self) -> str | None:
        """The last message's id."""
        last = self._in_order[-1] if self._in_order else next(self._old.backwards(len(self._old)), None)
        return None if last is None else last.message_id

    def version_of(self, of: str) -> str | None:
        """The message that stands here as one of these versions."""
        message_id = self._versions.get(of, of)
        return None if self._known(message_id) is None else message_id

    def standing(self, message_id: str) -> tuple[str | None, GrowingMessage | Evicted]:
        """The message, and the id of the one before it. Raises `MessageNotFound`."""
        message = self._known(message_id)
        if message is None:
            raise MessageNotFound("the session has no message with this id", message_id=message_id)
        at = self._index(message)
        before = next(self._backwards(at), None)
        return None if before is None else before.message_id, message

    def find(self, message_id: str) -> GrowingMessage | None:
        """The message, if what it says is in memory."""
        message = self._by_id.get(message_id)
        return message if isinstance(message, GrowingMessage) else None

    @property
    def waits_for_snapshot(self) -> bool:
        """Whether offsets were missing that a ``message.snapshot`` has yet to stand for."""
        return bool(self._unexplained)

    def note_jump(self) -> bool:
        """The next event's offset jumps. False: no message is open whose compaction could be the reason."""
        candidates = {message.message_id for message in self.open.values() if not message.whole}
        if candidates:
            self._unexplained.append(candidates)
        return bool(candidates)

    def forget_jump(self) -> None:
        """The event that jumped was not applied."""
        self._unexplained.pop()

    def fold(self, event: Event, blocks: list[GrowingBlock] | None = None) -> Folded:
        """Fold any event of a message; ``blocks`` as `growing` made them. Others change nothing."""
        match event.data:
            case BlockDelta() | BlockOpened() | BlockClosed() as data:
                return self.fold_block(event, data)
            case MessageOpened() as data:
                return self.open_message(event, data)
            case MessageClosed() as data:
                return self.close_message(event, data)
            case MessageSnapshot() as data:
                return self.take_whole(event, data, blocks)
            case MessageRetracted():
                return self.retract(event)
            case ApprovalRequested() as data:
                self._asked[data.approval_id] = data.name
            case ApprovalResolved() as data:
                self.resolve(event, data, self._asked.pop(data.approval_id, None))
            case _:
                pass
        return APPLIED

    def fold_block(self, event: Event, data: BlockDelta | BlockOpened | BlockClosed) -> Folded:
        """Blocks of a message are opened by their index without a hole; each has its own seq."""
        message_id = stamped(event.message_id, "message_id", event)
        index = stamped(event.block_index, "block_index", event)
        seq = stamped(event.seq, "seq", event)
        message = self._known(message_id)
        if message is None:
            return Gap(f"message.opened of message {message_id}", event.type)
        if isinstance(message, Evicted):
            return _complete(message, event)
        if event.generation_id != message.generation_id:
            return _foreign(message, event)
        blocks = message.blocks
        block = blocks[index] if index < len(blocks) else None
        if block is not None and seq <= block.seq:
            return DUPLICATE
        if not message.open or message.whole:
            return Gap(f"no more of message {message_id}, which is whole", f"{event.type} of block {index}")
        if isinstance(data, BlockOpened):
            if index != len(blocks) or seq != 0:
                return Gap(f"block {len(blocks)} with seq 0", f"block {index} opened with seq {seq}")
            blocks.append(GrowingBlock(head=BlockView.opened(data), seq=0, open=True))
        else:
            if block is None:
                return Gap(f"block.opened of block {index}", f"{event.type} with seq {seq}")
            if not block.open:
                return Gap(f"no more of block {index}, which is closed", f"{event.type} with seq {seq}")
            if seq != block.seq + 1:
                return Gap(f"seq {block.seq + 1} in block {index}", f"seq {seq}")
            if isinstance(data, BlockDelta):
                block.add(data)
            else:
                block.close(data)
            block.seq = seq
            block.kept = None
        message.kept = None
        return APPLIED

    def open_message(self, event: Event, data: MessageOpened) -> Folded:
        message_id = stamped(event.message_id, "message_id", event)
        if self._known(message_id) is not None:
            return Gap("a new message", f"message {message_id} opened again")
        self.add(
            GrowingMessage(
                message_id=message_id,
                role=data.role,
                parent_message_id=data.parent_message_id,
                metadata=data.metadata,
                generation_id=event.generation_id,
                turn=event.turn,
                job_id=event.job_id,
                time=event.time,
                continues=data.continues,
                version=data.version,
                first=event.offset or 0,
            )
        )
        return APPLIED

    def close_message(self, event: Event, data: MessageClosed) -> Folded:
        """Every block must be closed, and every jump explained that only this message could have explained."""
        message_id = stamped(event.message_id, "message_id", event)
        message = self.open.get(message_id)
        if message is None:
            return Gap("the end of an open message", f"the end of message {message_id}")
        if event.generation_id != message.generation_id:
            return _foreign(message, event)
        for index, block in enumerate(message.blocks):
            if block.open:
                return Gap(f"block.closed of block {index}", f"the end of its message {message_id}")
        if {message_id} in self._unexplained:
            return Gap(f"message.snapshot of message {message_id}, of which offsets are missing", "its end")
        for candidates in self._unexplained:
            candidates.discard(message_id)
        message.status = data.status
        message.closed = event.time
        message.last = event.offset or 0
        message.kept = None
        del self.open[message_id]
        self._hold(message)
        message.finish_reason = data.finish_reason
        message.usage = data.usage
        return APPLIED

    def take_whole(self, event: Event, data: MessageSnapshot, blocks: list[GrowingBlock] | None = None) -> Folded:
        """A new message, or the whole content of a known one, of which it must cover all that is known.

        ``blocks`` are those of ``data``, if they were made already.
        """
        message_id = stamped(event.message_id, "message_id", event)
        message = self._known(message_id)
        forked = data.generation if event.generation_id is None else None
        generation_id, turn = event.generation_id, event.turn
        if forked is not None:
            generation_id, turn = forked.generation_id, forked.turn
        if blocks is None:
            blocks = [GrowingBlock.of(block) for block in data.blocks]
        if message is None:
            self.add(
                GrowingMessage(
                    message_id=message_id,
                    role=data.role,
                    status=data.status,
                    blocks=blocks,
                    parent_message_id=data.parent_message_id,
                    metadata=data.metadata,
                    generation_id=generation_id,
                    turn=turn,
                    job_id=event.job_id,
                    finish_reason=data.finish_reason,
                    usage=data.usage,
                    time=event.time,
                    author=data.author,
                    continues=data.continues,
                    version=data.version,
                    by=None if forked is None else GrowingGeneration.forked(forked),
                    whole=True,
                    first=event.offset or 0,
                    last=event.offset or 0,
                )
            )
            return APPLIED
        if isinstance(message, Evicted):
            return _complete(message, event)
        if generation_id != message.generation_id:
            return _foreign(message, event)
        for index, known in enumerate(message.blocks):
            if index >= len(blocks) or blocks[index].seq < known.seq:
                return Gap(f"block {index} up to seq {known.seq} or further", f"less in the snapshot of {message_id}")
        message.blocks = blocks
        message.whole = True
        message.kept = None
        if not message.open:  # an open one stays so until message.closed, as it was before compaction
            message.status = data.status
            message.last = event.offset or 0
            self._hold(message)
        self._unexplained = [candidates for candidates in self._unexplained if message_id not in candidates]
        return APPLIED

    def retract(self, event: Event) -> Folded:
        message_id = stamped(event.message_id, "message_id", event)
        message = self._by_id.get(message_id)
        if message is None:
            try:
                self._old = self._old.without(message_id)
            except KeyError:
                if self.older or (event.offset or 0) <= self.older_seen_at:
                    return APPLIED  # one that was left out, or was gone when it would have been read
                return Gap("a known message", f"message {message_id} retracted")
        elif message.open:
            return Gap(f"message.closed of message {message_id}", "its retraction")
        else:
            if isinstance(message, GrowingMessage):
                self._drop(message)
            del self._in_order[self._recent(message)], self._by_id[message_id]
        return APPLIED

    def resolve(self, event: Event, data: ApprovalResolved, name: str | None) -> None:
        """The approval for ``name`` is resolved; it stays with the message that the event is stamped with.

        The log has all of that message only with this event, then. One that is not here is passed over.
        """
        message = None if event.message_id is None else self._known(event.message_id)
        if message is None:
            return
        offset = event.offset or 0
        if isinstance(message, GrowingMessage):
            resolved = ResolvedView(
                approval_id=data.approval_id,
                approved=data.approved,
                tool_call_id=data.tool_call_id,
                name=name,
                arguments=data.arguments,
                reason=data.reason,
                by=data.by,
            )
            message.approvals = (*message.approvals, resolved)
            message.kept = None
            if not message.open:
                message.last = offset
                self._hold(message)
        elif message.message_id in self._by_id:
            place = evolve(message, last=offset)
            self._by_id[message.message_id] = self._in_order[self._recent(message)] = place
        else:
            self._old = self._old.with_last(message.message_id, offset)

    # --- where a message stands

    def _known(self, message_id: str) -> GrowingMessage | Evicted | None:
        message = self._by_id.get(message_id)
        return self._old.get(message_id) if message is None else message

    def _index(self, message: GrowingMessage | Evicted) -> int:
        """How many messages are before this one."""
        if message.message_id not in self._by_id:
            return self._old.index(message.message_id)
        return len(self._old) + self._recent(message)

    def _recent(self, message: GrowingMessage | Evicted) -> int:
        return bisect_left(self._in_order, message.ordinal, key=_by_ordinal)

    def _between(self, start: int, end: int) -> Iterator[GrowingMessage | Evicted]:
        old = len(self._old)
        return chain(self._old.between(start, end), self._in_order[max(0, start - old) : max(0, end - old)])

    def _backwards(self, end: int) -> Iterator[GrowingMessage | Evicted]:
        """Those before the first ``end``, the last one first."""
        recent = range(end - len(self._old) - 1, -1, -1)
        return chain(map(self._in_order.__getitem__, recent), self._old.backwards(end))


def growing(event: Event) -> Work[list[GrowingBlock]]:
    """The blocks of a ``message.snapshot``, one by one; none of any other event."""
    blocks: list[GrowingBlock] = []
    for block in event.data.blocks if isinstance(event.data, MessageSnapshot) else ():
        blocks.append(GrowingBlock.of(block))
        yield
    return blocks


def _foreign(message: GrowingMessage, event: Event) -> Gap:
    """An event that bears another generation than its message; what came late from one is never another's."""
    return Gap(f"generation {message.generation_id} in message {message.message_id}", f"{event.generation_id}")


def _complete(message: Evicted, event: Event) -> Gap:
    return Gap(f"no more of message {message.message_id}, which is closed", event.type)
