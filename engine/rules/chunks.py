"""What a remote producer sends: chunks, and the stamp that makes a request count once. Read strictly, placed elsewhere.

Owns the shape of a chunk: which types there are, what each may carry, what is filled in where something is left out.
What a chunk means in its generation is `placing`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Final, final, overload

from attrs import Attribute, evolve, field, frozen
from uuid_utils import uuid7

from ..codec import structure
from ..errors import InvalidBody, InvalidId, PenstockError
from ..events import (
    App,
    ApprovalRequested,
    BlockClosed,
    BlockDelta,
    BlockOpened,
    Data,
    GenerationStatus,
    InputApplied,
    JSONObject,
    MessageClosed,
    MessageOpened,
    check_job_id,
    check_uuid,
    is_uuid,
)
from ..shapes import check_object, is_text
from .admission import ProducerMark
from .lifecycle import ROLES
from .merging import own_metadata

__all__ = [
    "Chunk",
    "ChunkBatch",
    "Pieces",
    "ProducerStamp",
    "Proposal",
    "blame",
    "check_chunks",
    "read_batch",
    "read_pieces",
]

# Ids are words, not content.
_LENGTH: Final = 128

# What sqlite and JavaScript can both count to.
_LARGEST: Final = 2**53 - 1

# More chunks than any batch has.
_LARGEST_BATCH: Final = 2**32

_STATUSES: Final = ("complete", "cancelled", "failed")

# Which fields a type has beside its data; any other given is a mistake, and silence would hide it.
_BLOCK: Final = frozenset({"message_id", "block_index", "seq"})
_FIELDS: Final = {
    "message.opened": frozenset({"message_id", "role"}),
    "message.closed": frozenset({"message_id"}),
    "block.opened": _BLOCK | {"role", "kind"},
    "block.delta": _BLOCK | {"role", "kind"},
    "block.closed": _BLOCK,
    "generation.status": frozenset(),
    "approval.requested": frozenset(),
    "input.applied": frozenset(),
}
_OPTIONAL: Final = ("message_id", "block_index", "seq", "role", "kind")


@final
@frozen(kw_only=True)
class Chunk:
    """An event as a remote producer proposes it: without the server's part of the stamp.

    ``type`` is ``message.opened``, ``message.closed``, ``block.opened``, ``block.delta``, ``block.closed``,
    ``generation.status``, ``approval.requested``, ``input.applied`` or one of ``app.*``. ``role`` and ``kind`` are
    those of a message or block that it opens. ``seq``, where given, is checked: what was written is passed over.
    """

    generation_id: str
    data: JSONObject = field(factory=dict)
    job_id: str | None = None
    message_id: str | None = None
    block_index: int | None = None
    seq: int | None = None
    type: str = "block.delta"
    role: str | None = None
    kind: str | None = None


def _check_producer_id(_: object, __: Attribute[str], value: str) -> None:
    if type(value) is not str or not 1 <= len(value) <= _LENGTH or not all("!" <= each <= "~" for each in value):
        raise InvalidId(f"a producer's id is 1 to {_LENGTH} visible ASCII characters")


def _check_number(_: object, __: Attribute[int], value: int) -> None:
    if type(value) is not int or not 0 <= value <= _LARGEST:
        raise InvalidBody(f"a producer's epoch and seq are whole numbers from 0 to {_LARGEST}")


@final
@frozen
class ProducerStamp:
    """Which request of which producer this is: ``seq`` counts from 0 in each ``epoch``, one run of the producer.

    Kept per session and ``id``, 1 to 128 visible ASCII characters.
    """

    id: str = field(validator=_check_producer_id)
    epoch: int = field(validator=_check_number)
    seq: int = field(validator=_check_number)

    @property
    def mark(self) -> ProducerMark:
        return ProducerMark(self.epoch, self.seq)


@final
@frozen(kw_only=True)
class Proposal:
    """A chunk that was read: well-formed, its data of its type. Whether it may stand where it wants to is open."""

    data: Data
    message_id: str | None = None
    block_index: int = 0
    seq: int | None = None
    role: str | None = None
    kind: str | None = None


@final
@frozen(kw_only=True)
class ChunkBatch:
    """Chunks of one generation that are written all or not at all."""

    generation_id: str
    proposals: tuple[Proposal, ...]
    job_id: str | None = None

    @property
    def message_ids(self) -> frozenset[str]:
        """The messages that it names."""
        return frozenset(each.message_id for each in self.proposals if each.message_id is not None)


@final
@frozen(kw_only=True)
class Pieces(Sequence[Chunk]):
    """Chunks that are pieces of text for one block, one behind the other: nine of ten batches, by their texts alone.

    A sequence of chunks like any other, in a fraction of the time. ``seq`` is that of the first, if they have any.
    """

    generation_id: str
    message_id: str
    texts: tuple[str, ...]
    block_index: int | None = None
    seq: int | None = None
    job_id: str | None = None

    def __len__(self) -> int:
        return len(self.texts)

    @overload
    def __getitem__(self, place: int) -> Chunk: ...

    @overload
    def __getitem__(self, place: slice) -> list[Chunk]: ...

    def __getitem__(self, place: int | slice) -> Chunk | list[Chunk]:
        if isinstance(place, slice):
            return [self[each] for each in range(*place.indices(len(self)))]
        place = range(len(self.texts))[place]
        return Chunk(
            generation_id=self.generation_id,
            message_id=self.message_id,
            block_index=self.block_index,
            seq=None if self.seq is None else self.seq + place,
            job_id=self.job_id,
            data={"text": self.texts[place]},
        )

    @property
    def message_ids(self) -> frozenset[str]:
        """The message that they name."""
        return frozenset((self.message_id,))

    @property
    def proposals(self) -> tuple[Proposal, ...]:
        """What they are, read one by one; only of those that `read_pieces` gave."""
        return tuple(
            Proposal(
                data=BlockDelta(text=text),
                message_id=self.message_id,
                block_index=self.block_index or 0,
                seq=None if self.seq is None else self.seq + place,
            )
            for place, text in enumerate(self.texts)
        )


def check_chunks(given: object) -> None:
    """Raises `InvalidBody` for what is no sequence of chunks. What each of them says is looked at when it is read."""
    if type(given) is Pieces:
        if type(given.texts) is not tuple:
            raise InvalidBody(f"texts must be a tuple, not {type(given.texts).__name__}")
        if given.seq is not None and type(given.seq) is not int:
            raise InvalidBody(f"seq must be int, not {type(given.seq).__name__}")
    elif not isinstance(given, Sequence) or not set(map(type, given)) <= {Chunk}:
        raise InvalidBody("chunks are a list of Chunk")


def read_batch(chunks: Sequence[Chunk], *, expires_at: Callable[[], str | None]) -> ChunkBatch | Pieces:
    """The chunks, read. ``expires_at`` gives the time of an approval that brings none.

    Raises `InvalidBody`, `InvalidId`; of more than one chunk the text names the one at fault.
    """
    generation_id = check_uuid(chunks[0].generation_id, "generation_id")
    return read_pieces(chunks, generation_id) or _read_each(chunks, generation_id, expires_at)


def read_pieces(chunks: Sequence[Chunk], generation_id: str) -> Pieces | None:
    """The chunks, if they are pieces beyond any doubt; all others are read one by one.

    Nothing in them can be refused, then, but for where it wants to stand.
    """
    pieces = chunks if type(chunks) is Pieces else _as_pieces(chunks)
    if pieces is None or type(pieces.message_id) is not str or not is_uuid(pieces.message_id):
        return None
    if not (_counts(pieces.block_index) and _counts(pieces.seq)) or set(map(type, pieces.texts)) != {str}:
        return None
    if not all(map(is_text, pieces.texts)):
        return None
    try:
        if pieces.job_id is not None:
            check_job_id(pieces.job_id)
    except PenstockError:
        return None
    message_id = pieces.message_id.lower()
    if (pieces.generation_id, pieces.message_id) == (generation_id, message_id):
        return pieces
    return evolve(pieces, generation_id=generation_id, message_id=message_id)


def _as_pieces(chunks: Sequence[Chunk]) -> Pieces | None:
    """The chunks as pieces, if each goes on where the one before it ends and has nothing but text."""
    first = chunks[0]
    message_id, index, seq = first.message_id, first.block_index, first.seq
    if message_id is None or not (_counts(index) and _counts(seq)):
        return None
    texts: list[str] = []
    for place, chunk in enumerate(chunks):
        data, number = chunk.data, None if seq is None else seq + place
        if (
            chunk.type != "block.delta"
            or type(data) is not dict
            or len(data) != 1
            or type(text := data.get("text")) is not str
            or chunk.generation_id != first.generation_id
            or chunk.message_id != message_id
            or type(chunk.block_index) is not type(index)
            or chunk.block_index != index
            or type(chunk.seq) is not type(number)
            or chunk.seq != number
            or chunk.job_id != first.job_id
            or chunk.role is not None
            or chunk.kind is not None
        ):
            return None
        texts.append(text)
    return Pieces(
        generation_id=first.generation_id,
        message_id=message_id,
        block_index=index,
        seq=seq,
        texts=tuple(texts),
        job_id=first.job_id,
    )


def _counts(number: int | None) -> bool:
    """Whether no chunk of a batch that begins with it could be refused for its number."""
    return number is None or (type(number) is int and 0 <= number <= _LARGEST - _LARGEST_BATCH)


def _read_each(chunks: Sequence[Chunk], generation_id: str, expires_at: Callable[[], str | None]) -> ChunkBatch:
    job_id: str | None = None
    proposals: list[Proposal] = []
    for index, chunk in enumerate(chunks):
        try:
            if check_uuid(chunk.generation_id, "generation_id") != generation_id:
                raise InvalidBody("all chunks of a batch are of one generation")
            if chunk.job_id is not None:
                if job_id is not None and chunk.job_id != job_id:
                    raise InvalidBody("all chunks of a batch are of one job")
                job_id = check_job_id(chunk.job_id)
            proposals.append(_read(chunk, expires_at))
        except PenstockError as error:
            blame(error, index, len(chunks))
            raise
    return ChunkBatch(generation_id=generation_id, proposals=tuple(proposals), job_id=job_id)


def blame(error: PenstockError, index: int, count: int) -> None:
    """Have the error say which of ``count`` chunks it is about."""
    if count > 1:
        error.detail = f"chunks[{index}]: {error.detail}"
        error.args = (error.detail,)


def _read(chunk: Chunk, expires_at: Callable[[], str | None]) -> Proposal:
    _check_fields(chunk)
    return Proposal(
        data=_data(chunk, expires_at),
        message_id=None if chunk.message_id is None else check_uuid(chunk.message_id, "message_id"),
        block_index=chunk.block_index or 0,
        seq=chunk.seq,
        role=chunk.role,
        kind=chunk.kind,
    )


def _check_fields(chunk: Chunk) -> None:
    for name in ("type", "role", "kind"):
        given = getattr(chunk, name)
        if type(given) is not str and (given is not None or name == "type"):
            raise InvalidBody(f"{name} must be str, not {type(given).__name__}")
    allowed = frozenset() if chunk.type.startswith("app.") else _FIELDS.get(chunk.type)
    if allowed is None:
        raise InvalidBody(f"the type of a chunk is one of {', '.join(_FIELDS)} or app.*, not {chunk.type!r:.80}")
    for name in _OPTIONAL:
        if getattr(chunk, name) is not None and name not in allowed:
            raise InvalidBody(f"a {chunk.type} has no {name}")
    for name, number in (("block_index", chunk.block_index), ("seq", chunk.seq)):
        if number is not None and (type(number) is not int or not 0 <= number <= _LARGEST):
            raise InvalidBody(f"{name} is a whole number from 0")
    if chunk.role is not None and chunk.role not in ROLES:
        raise InvalidBody(f"role is one of {', '.join(ROLES)}")
    if chunk.type == "block.opened" and chunk.seq:
        raise InvalidBody("the seq of a block's opening is 0")


def _data(chunk: Chunk, expires_at: Callable[[], str | None]) -> Data:
    data = check_object(chunk.data, "data")
    match chunk.type:
        case "block.delta":
            text = data.get("text")
            if len(data) == 1 and type(text) is str:
                return BlockDelta(text=text)  # nine of ten chunks
            return structure(data, BlockDelta)
        case "block.opened":
            return structure(_filled(data, "kind", chunk.kind), BlockOpened)
        case "block.closed":
            return structure(data, BlockClosed)
        case "message.opened":
            opened = structure({"role": "assistant", **_filled(data, "role", chunk.role)}, MessageOpened)
            if opened.role not in ROLES:
                raise InvalidBody(f"role is one of {', '.join(ROLES)}")
            opened = evolve(opened, metadata=own_metadata(opened.metadata))
            if opened.parent_message_id is not None:
                opened = evolve(opened, parent_message_id=check_uuid(opened.parent_message_id, "parent_message_id"))
            if opened.continues is not None:
                opened = evolve(opened, continues=check_uuid(opened.continues, "continues"))
            return opened
        case "message.closed":
            closed = structure({"status": "complete", **data}, MessageClosed)
            if closed.status not in _STATUSES:
                raise InvalidBody(f"the status of a message is one of {', '.join(_STATUSES)}")
            return closed
        case "generation.status":
            return structure(data, GenerationStatus)
        case "approval.requested":
            return _approval(data, expires_at)
        case "input.applied":
            return structure(data, InputApplied)
        case _:
            return App(type=chunk.type, value=data)


def _filled(data: JSONObject, name: str, given: str | None) -> JSONObject:
    """``data`` with what stands beside it; said twice, it must be the same."""
    if given is None:
        return data
    if data.get(name, given) != given:
        raise InvalidBody(f"{name} is given twice, and not the same")
    return {**data, name: given}


def _approval(data: JSONObject, expires_at: Callable[[], str | None]) -> ApprovalRequested:
    asked = structure({"approval_id": str(uuid7()), **data}, ApprovalRequested)
    if not 1 <= len(asked.approval_id) <= _LENGTH or not asked.approval_id.isprintable():
        raise InvalidId(f"an approval_id is 1 to {_LENGTH} printable characters")
    if asked.expires_at is None:
        return evolve(asked, expires_at=expires_at())
    try:
        moment = datetime.fromisoformat(asked.expires_at)
        if moment.tzinfo is None:
            raise ValueError("no offset")
        utc = moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise InvalidBody("expires_at is a time with its offset, as in 2026-01-31T12:00:00Z") from None
    return evolve(asked, expires_at=utc.isoformat(timespec="milliseconds").replace("+00:00", "Z"))
