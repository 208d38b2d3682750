"""Drafts become stamped events: the one place where session, time, offset, generation, turn, job and seq are set."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal, TypeAlias, final

from .codec import PieceEncoder, check_data, encode_checked
from .events import Event, GenerationStarted, now
from .journal import Journal, Mark
from .lifecycle import Draft, OpenGeneration, WaitingGeneration

__all__ = ["Item", "PieceStamper", "Records", "stamp"]

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
    for generation, draft in items:
        check_data(draft.data)
        seq = None
        starts = type(draft.data) is GenerationStarted
        if generation is not None and not starts:
            seq = generation.place(draft)
        offset += 1
        bodies.append(
            encode_checked(
                Event(
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
            )
        )
        if generation is not None and not starts:
            generation.record(draft)
    return journal.append(bodies, records(offset) if callable(records) else records)


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
        journal.append_one(self._encode(journal.stamped + 1, now(), seq, piece))
        block.seq = seq

    @property
    def next_seq(self) -> int:
        """The number of the next piece."""
        return self._block.seq + 1

    def stamp_all(self, pieces: Sequence[str], records: Mapping[str, bytes | None] | None = None) -> Mark:
        """`stamp` for several, with ``records``, as one indivisible part: nothing is written where it raises."""
        journal, block = self._journal, self._block
        journal.check()
        seq = self._generation.place_piece(block)
        mark = journal.append(self._encode_all(journal.stamped + 1, now(), seq, pieces), records)
        block.seq += len(pieces)
        return mark
