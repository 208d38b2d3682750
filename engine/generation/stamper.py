"""Drafts become stamped events: the one place where session, time, offset, generation, turn, job and seq are set."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal, TypeAlias, final

from ..codec import PieceEncoder, Unstamped, check_data, encode_checked, encode_with
from ..events import Event, GenerationStarted, MessageRetracted, MessageSnapshot, encoded_now, now
from ..rules.lifecycle import Draft, OpenGeneration, WaitingGeneration
from ..rules.listing import changes_list, follow, without
from ..stream.journal import Journal, Mark
from ..work import Work

__all__ = ["Item", "LongPart", "PieceStamper", "Records", "stamp"]

# A draft with the generation that it belongs to, or None for the session's own.
Item: TypeAlias = tuple[OpenGeneration | WaitingGeneration | None, Draft]

# Records that go with a part; those that tell a cursor are made when the part's last offset is known.
Records: TypeAlias = Mapping[str, bytes | None] | Callable[[int], Mapping[str, bytes | None]]


def stamp(journal: Journal, items: Iterable[Item], records: Records | None = None) -> Mark:
    """Check, place, stamp, encode and append ``items`` with ``records`` as one indivisible part.

    Lazy iterables are asked for an item only when the one before is recorded. Raises `InvalidBody` where
    the content could not be read back, or the order of events does not allow it, and `WriteFailed` while the session is
    behind a refused write; nothing is written then. The structure keeps what was recorded before the item at fault: a
    part of several items is made of what was checked before, or placed in a trial.
    """
    journal.check()
    time = now()
    offset = journal.stamped
    bodies: list[bytes] = []
    listed = journal.listed
    for generation, draft in items:
        offset += 1
        bodies.append(encode_checked(_placed(journal, generation, draft, offset, time)))
        _record(generation, draft)
        listed = follow(listed, generation, draft, time)
    journal.summarize(listed)
    return journal.append(bodies, records(offset) if callable(records) else records)


def _placed(
    journal: Journal, generation: OpenGeneration | WaitingGeneration | None, draft: Draft, offset: int, time: str
) -> Event:
    check_data(draft.data)
    seq = None
    if generation is not None and type(draft.data) is not GenerationStarted:
        seq = generation.place(draft)
    return Event(
        data=draft.data,
        session_id=journal.session_id,
        time=time,
        offset=offset,
        generation_id=None if generation is None else generation.generation_id,
        turn=None if generation is None else generation.turn,
        job_id=None if generation is None else generation.job_id,
        message_id=draft.message_id,
        block_index=draft.block_index,
        seq=seq,
    )


def _record(generation: OpenGeneration | WaitingGeneration | None, draft: Draft) -> None:
    if generation is not None and type(draft.data) is not GenerationStarted:
        generation.record(draft)


@final
class LongPart:
    """`stamp` for a part that may have any number of items, as work that can be done in slices.

    `preparing` does all that can be refused. `stamp` then gives the part its place, without a wait: what is decided in
    the same turn of the loop holds. `writing` hands it to the log as one append; what others of the session stamp
    meanwhile stands behind it. A part that is short takes no more than one slice of each.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._events: list[Unstamped] = []
        self._followed: list[Item | set[str | None]] = []  # of retractions in a row, their messages
        self._mark: Mark | None = None
        self._time = b""

    def preparing(self, items: Iterable[Item]) -> Work[None]:
        """Check, place, encode and record the items. Raises as `stamp`; nothing but the structures has changed then."""
        self._journal.check()
        for generation, draft in items:
            self._events.append(Unstamped.of(_placed(self._journal, generation, draft, 1, "")))
            _record(generation, draft)
            if changes_list(draft.data):
                self._follow(generation, draft)
            yield

    def _follow(self, generation: OpenGeneration | WaitingGeneration | None, draft: Draft) -> None:
        if not isinstance(draft.data, MessageRetracted):
            self._followed.append((generation, draft))
        elif self._followed and isinstance(self._followed[-1], set):
            self._followed[-1].add(draft.message_id)
        else:
            self._followed.append({draft.message_id})

    def add_whole(self, message_id: str, message: MessageSnapshot, data: bytes) -> None:
        """A whole message of the session's own; ``data`` is what it says, as JSON, ``message`` some of it at least.

        Lists are told of it by `tell` alone.
        """
        event = _placed(self._journal, None, Draft(message, message_id), 1, "")
        self._events.append(Unstamped.made(encode_with(event, data)))

    def tell(self, message_id: str, message: MessageSnapshot) -> None:
        """Have lists told of a message that was added."""
        self._follow(None, Draft(message, message_id))

    def __len__(self) -> int:
        """How many events are prepared."""
        return len(self._events)

    def stamp(self, records: Records | None = None) -> Mark:
        """Give it its offsets, with ``records``. Raises `WriteFailed`; nothing is written then."""
        journal = self._journal
        last = journal.stamped + len(self._events)
        journal.check()
        self._time = encoded_now()
        listed, time = journal.listed, self._time.decode()
        for item in self._followed:
            listed = without(listed, item) if isinstance(item, set) else follow(listed, *item, time)
        journal.summarize(listed)
        self._mark = journal.reserve(len(self._events), records(last) if callable(records) else records)
        return self._mark

    def writing(self) -> Work[None]:
        """Append it. What was prepared is let go of meanwhile: of so much, all at once takes long."""
        assert self._mark is not None
        first = self._mark.offset + 1 - len(self._events)
        events, self._events = deque(self._events), []
        bodies: list[bytes] = []
        while events:
            bodies.append(events.popleft().at(first + len(bodies), self._time))
            yield
        self._journal.fill(self._mark, bodies)


@final
class PieceStamper:
    """`stamp` for one block's deltas of one string each: what they have in common is worked out once."""

    def __init__(
        self,
        journal: Journal,
        generation: OpenGeneration,
        message_id: str,
        block_index: int,
        field: Literal["text", "arguments"],
    ) -> None:
        """Raises `InvalidBody` when the block is not open, or takes no such pieces."""
        self._journal = journal
        self._generation = generation
        self._block = generation.block_for(field, message_id, block_index)
        encoder = PieceEncoder(
            session_id=journal.session_id,
            generation_id=generation.generation_id,
            turn=generation.turn,
            job_id=generation.job_id,
            message_id=message_id,
            block_index=block_index,
            field=field,
        )
        self._encode, self._encode_all = encoder.encode, encoder.encode_all

    def stamp(self, piece: str) -> None:
        """Place, stamp, encode and append one piece. Raises as `stamp`, and `StaleGeneration` after the end."""
        journal, block = self._journal, self._block
        if journal.refused is not None:
            journal.check()
        seq = self._generation.place_piece(block)
        journal.append_one(self._encode(journal.stamped + 1, encoded_now(), seq, piece))
        block.seq = seq
        if not block.begun:
            block.begin(piece)

    @property
    def next_seq(self) -> int:
        """The number of the next piece."""
        return self._block.seq + 1

    def stamp_all(self, pieces: Sequence[str], records: Mapping[str, bytes | None] | None = None) -> Mark:
        """`stamp` for several, with ``records``, as one indivisible part: nothing is written where it raises."""
        journal, block = self._journal, self._block
        journal.check()
        seq = self._generation.place_piece(block)
        mark = journal.append(self._encode_all(journal.stamped + 1, encoded_now(), seq, pieces), records)
        block.seq += len(pieces)
        if not block.begun:
            block.begin("".join(pieces))
        return mark
