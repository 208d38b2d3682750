"""What remote producers push, in HTTP bodies and WebSocket frames alike: read strictly, carried out, answered.

Owns the shapes of chunks, batches and finishes. What a chunk means in its session is the
engine's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final, Literal, cast, final

import msgspec
from attrs import frozen
from msgspec import UNSET, UnsetType

from penstock.engine import JSON, Chunk, InvalidBody, JSONObject, Pieces, ProducerStamp, Session, check_lease

from .answers import ChunksAnswer, FinishAnswer
from .bodies import read_body

__all__ = [
    "SECONDS",
    "FinishBody",
    "SignOfLife",
    "finish",
    "push",
    "read_batch",
    "read_chunk",
    "read_lease",
    "read_pieces",
    "read_stamp",
    "read_strictly",
]

# A sequence number in a header: what a client counts, far below where JSON's numbers lose their units.
_NUMBER: Final = re.compile(r"(0|[1-9][0-9]{0,15})", re.ASCII)

# A lease in a header: seconds above 0, in decimals if need be, a day at most.
SECONDS: Final = (
    r"([1-9][0-9]{0,3}|[1-7][0-9]{4}|8[0-5][0-9]{3}|86[0-3][0-9]{2})(\.[0-9]{1,6})?"
    r"|86400(\.0{1,6})?|0\.0{0,5}[1-9][0-9]{0,5}"
)
_SECONDS: Final = re.compile(SECONDS, re.ASCII)

_OUTCOMES: Final = ("completed", "failed")


# What is of these kinds is of the shape: the converter is asked for what is wrong only, a tenth as fast.
_KINDS: Final[Mapping[str, type]] = {
    "generation_id": str,
    "data": dict,
    "job_id": str,
    "message_id": str,
    "block_index": int,
    "seq": int,
    "type": str,
    "role": str,
    "kind": str,
}


@final
@frozen(kw_only=True)
class FinishBody:
    """How a remote producer ends its generation; ``code`` and ``message`` where it failed."""

    outcome: str = "completed"
    code: str | None = None
    message: str | None = None
    usage: JSONObject | None = None


def read_chunk(value: JSON, *, aside: frozenset[str] = frozenset()) -> Chunk:
    """One chunk. Raises `InvalidBody`, naming the field."""
    if not aside and type(value) is dict and "data" in value and "generation_id" in value:
        for name, item in value.items():
            if type(item) is not _KINDS.get(name):
                break
        else:
            return Chunk(**value)  # each is of its kind
    return read_strictly(value, aside=aside)


def read_strictly(value: JSON, *, aside: frozenset[str] = frozenset()) -> Chunk:
    """`read_chunk`, by the converter that says of everything else what is wrong with it."""
    return read_body(value, Chunk, aside=aside)


@final
class _Text(msgspec.Struct, forbid_unknown_fields=True):
    text: str


@final
class _Piece(msgspec.Struct, forbid_unknown_fields=True):
    generation_id: str
    message_id: str
    data: _Text
    block_index: int | UnsetType = UNSET
    seq: int | UnsetType = UNSET
    job_id: str | UnsetType = UNSET
    type: Literal["block.delta"] = "block.delta"


@final
class _Pieces(msgspec.Struct, forbid_unknown_fields=True):
    chunks: list[_Piece]


_decode_pieces: Final = msgspec.json.Decoder(_Pieces).decode


def read_pieces(body: bytes) -> Pieces | None:
    """What `read_batch` would make of this JSON, in an eighth of its time; None where it is more than pieces of text.

    Nothing is refused here: whatever is not exactly so, right or wrong, is `read_batch`'s to judge.
    """
    try:
        found = _decode_pieces(body).chunks
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if not found:
        return None
    first = found[0]
    for place, piece in enumerate(found):
        if (
            piece.generation_id != first.generation_id
            or piece.message_id != first.message_id
            or piece.block_index != first.block_index
            or piece.seq != (UNSET if first.seq is UNSET else first.seq + place)
            or piece.job_id != first.job_id
        ):
            return None
    return Pieces(
        generation_id=first.generation_id,
        message_id=first.message_id,
        texts=tuple(piece.data.text for piece in found),
        block_index=None if first.block_index is UNSET else first.block_index,
        seq=None if first.seq is UNSET else first.seq,
        job_id=None if first.job_id is UNSET else first.job_id,
    )


@final
@frozen
class SignOfLife:
    """A batch without chunks: its producer lives. ``generation_id``: what it writes; else what is live."""

    generation_id: str | None


def read_batch(value: JSON, *, aside: frozenset[str] = frozenset()) -> Sequence[Chunk] | SignOfLife:
    """A batch: ``{chunks: […]}``; an empty one may name its generation. Raises `InvalidBody`, naming what is wrong."""
    if not isinstance(value, Mapping):
        raise InvalidBody("the body must be a JSON object")
    given = value.get("chunks")
    known = {"chunks"} if given else {"chunks", "generation_id"}
    unknown = sorted(value.keys() - aside - known)
    if unknown:
        raise InvalidBody(f"there is no field {unknown[0]!r} here; there is {', '.join(sorted(known))}")
    if given == []:
        generation_id = value.get("generation_id")
        if "generation_id" in value and not isinstance(generation_id, str):
            raise InvalidBody("generation_id must be a string")
        return SignOfLife(cast("str | None", generation_id))
    if not isinstance(given, list):
        raise InvalidBody("chunks must be a list of chunks")
    read: list[Chunk] = []
    for number, item in enumerate(given):
        try:
            read.append(read_chunk(item))
        except InvalidBody as error:
            raise InvalidBody(f"chunks[{number}]: {error.detail}") from error
    return read


def read_stamp(producer_id: JSON, epoch: JSON, seq: JSON) -> ProducerStamp | None:
    """What makes a request exactly-once: three values or none of them, the numbers also as text.

    Raises `InvalidBody`.
    """
    if producer_id is None and epoch is None and seq is None:
        return None
    if not isinstance(producer_id, str) or epoch is None or seq is None:
        raise InvalidBody("the producer's id, epoch and seq are given together or not at all")
    return ProducerStamp(id=producer_id, epoch=_number("epoch", epoch), seq=_number("seq", seq))


def read_lease(given: JSON) -> float | None:
    """How many seconds the producer may be silent for; a number, or one as text. Raises `InvalidBody`."""
    return check_lease(float(given) if isinstance(given, str) and _SECONDS.fullmatch(given) else given)


def _number(name: str, given: JSON) -> int:
    if isinstance(given, str) and _NUMBER.fullmatch(given):
        return int(given)
    if type(given) is int and _NUMBER.fullmatch(str(given)):
        return given
    raise InvalidBody(f"the producer's {name} is a whole number from 0")


async def push(
    session: Session, batch: Sequence[Chunk] | SignOfLife, stamp: ProducerStamp | None, lease: float | None
) -> ChunksAnswer:
    """Write the chunks, all or none of them; where there are none, tell that their producer lives."""
    if isinstance(batch, SignOfLife):
        written = await session.keep(batch.generation_id, stamp=stamp, lease=lease)
    else:
        written = await session.chunks(batch, stamp=stamp, lease=lease)
    return ChunksAnswer(
        session_id=session.session_id,
        generation_id=written.generation_id,
        cursor=written.cursor,
        accepted=written.accepted,
        duplicates=written.duplicates,
        turn=written.turn,
        message_id=written.message_id,
    )


async def finish(session: Session, generation_id: str, body: FinishBody, stamp: ProducerStamp | None) -> FinishAnswer:
    """End the generation as its producer says; also what it is told when it says so again."""
    if body.outcome == "completed" and (body.code is not None or body.message is not None):
        raise InvalidBody("code and message tell why a generation failed")
    if body.outcome not in _OUTCOMES:
        raise InvalidBody(f"outcome must be one of {', '.join(_OUTCOMES)}, not {body.outcome!r}")
    finished = await session.finish(
        generation_id,
        outcome="completed" if body.outcome == "completed" else "failed",
        code=body.code,
        message=body.message,
        usage=body.usage,
        stamp=stamp,
    )
    return FinishAnswer(session_id=session.session_id, generation_id=finished.generation_id, cursor=finished.cursor)
