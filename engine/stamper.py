"""Drafts become stamped events: the one place where session, time, offset, generation, turn, job and seq are set."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TypeAlias

from .codec import PieceEncoder, encode
from .events import Event, GenerationStarted, now
from .journal import Journal, Mark
from .lifecycle import Draft, OpenGeneration, WaitingGeneration

__all__ = ["Item", "Records", "stamp", "stamp_piece"]

# A draft with the generation that it belongs to, or None for the session's own.
Item: TypeAlias = tuple[OpenGeneration | WaitingGeneration | None, Draft]

# Records that go with a part; those that tell a cursor are made when the part's last offset is known.
Records: TypeAlias = Mapping[str, bytes | None] | Callable[[int], Mapping[str, bytes | None]]


def stamp(journal: Journal, items: Iterable[Item], records: Records | None = None) -> Mark:
    """Place, stamp, encode and append ``items`` with ``records`` as one indivisible part.

    Lazy iterables are asked for an item only when the one before is recorded. Raises `InvalidBody` where
    the order of events or the content does not allow the first item, `WriteFailed` while the session is
    behind a refused write; nothing is written then.
    """
    journal.check()
    time = now()
    offset = journal.stamped
    bodies: list[bytes] = []
    for generation, draft in items:
        seq = None
        starts = type(draft.data) is GenerationStarted
        if generation is not None and not starts:
            seq = generation.place(draft)
        offset += 1
        bodies.append(
            encode(
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


def stamp_piece(journal: Journal, generation: OpenGeneration, draft: Draft, piece: str, encoder: PieceEncoder) -> None:
    """As `stamp`, for a delta of one string: place, encode and append ``draft``, whose string is ``piece``."""
    journal.check()
    seq = generation.place(draft)
    assert seq is not None
    journal.append_one(encoder.encode(journal.stamped + 1, now(), seq, piece))
    generation.record(draft)
