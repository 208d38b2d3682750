"""The small records that the engine keeps beside a session's events, written in the same part as they are.

====================  ====================================================================================
``session/turn``      `SessionRecord`
``open``              `OpenRecord` while a generation is live; the log's index of its holders is what
                      recovery reads
``queued``            whether the queue is paused, while it is not empty; recovery reads its holders, too
``queued/<number>``   a start that waits
``session/metadata``  the session's metadata, as it is
``dirty``             `DirtyRecord` from the end of a generation until its messages are compacted; the log's
                      index of its holders is what compaction reads
``compaction/done``   `CompactedRecord`
``generation/<id>``   `GenerationRecord`
``message/<id>``      `MessageRecord`
``version/<id>/<…>``  `VersionRecord` of each version, by its number, that was replaced; the id is the first
                      one's
``producer/<id>``     the last request that was taken of a remote producer: ``epoch`` and ``seq``
``idempotency/<…>``   the answer that a key got
``stops/pending``     stops that came before their start, where engines share the log
``file/<id>``         `FileRecord`
``part/<upload>/<n>`` some of a file's bytes, as they are: no JSON
``uploading``         `UploadsRecord` while files are on their way; opening the engine reads its holders, and
                      removes what a crash left of them
``copying``           `CopyingRecord` of a fork until it has its source's files; opening the engine reads its
                      holders, too
``claim/<token>``     `ClaimRecord` of an engine that claimed the session, by the token it got, in 16 digits; the log
                      writes it with the claim, and the newest 64 at least are kept
``incomplete``        in one session of a copy of a log, until the copy is whole; an engine does not open it
====================  ====================================================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, TypeVar, final

from attrs import frozen

from ..codec import decode_json, encode_record, structure
from ..errors import InvalidBody
from ..events import JSON, JSONObject
from .states import StateName

if TYPE_CHECKING:
    from attrs import AttrsInstance

__all__ = [
    "CLAIMS",
    "COMPACTED",
    "COPYING",
    "DIRTY",
    "FILES",
    "INCOMPLETE",
    "METADATA",
    "OPEN",
    "PART",
    "PARTS",
    "QUEUED",
    "READABLE",
    "SESSION",
    "UPLOADING",
    "ClaimRecord",
    "CompactedRecord",
    "CopyingRecord",
    "DirtyRecord",
    "FileRecord",
    "GenerationRecord",
    "MessageRecord",
    "OpenRecord",
    "SessionRecord",
    "UploadsRecord",
    "VersionRecord",
    "check_record",
    "dirty",
    "file_key",
    "generation_key",
    "message_key",
    "part_keys",
    "read_record",
    "state_of",
    "to_record",
    "version_key",
    "versions_prefix",
]

SESSION = "session/turn"
OPEN = "open"
DIRTY = "dirty"
COMPACTED = "compaction/done"
QUEUED = "queued"
METADATA = "session/metadata"
FILES = "file/"
UPLOADING = "uploading"
COPYING = "copying"
CLAIMS = "claim/"
PARTS = "part/"
INCOMPLETE = "incomplete"

# What the keys of all records begin with that say something by themselves: all but the parts of files, and
# `INCOMPLETE`, which a copy takes away at its end.
READABLE: Final = (
    *("session/", OPEN, QUEUED, DIRTY, "compaction/", "generation/", "message/", "version/", "producer/"),
    "idempotency/",
    "stops/",
    *(FILES, UPLOADING, COPYING, CLAIMS),
)

# Bytes of a file in one record: what is in memory of one that comes or goes, and a commit of a few milliseconds.
PART: Final = 256 * 1024

T = TypeVar("T")


def generation_key(generation_id: str) -> str:
    return f"generation/{generation_id}"


def message_key(message_id: str) -> str:
    return f"message/{message_id}"


def versions_prefix(of: str) -> str:
    return f"version/{of}/"


def version_key(of: str, index: int) -> str:
    return f"{versions_prefix(of)}{index:08d}"


def file_key(file_id: str) -> str:
    return f"{FILES}{file_id}"


def part_keys(upload: str, size: int) -> list[str]:
    """The keys of the parts of so many bytes, in order."""
    return [f"{PARTS}{upload}/{number:06d}" for number in range(-(-size // PART))]


def dirty(generation_id: str, time: str) -> dict[str, bytes | None]:
    """The record that goes with every end of a generation: there may be something to compact, from ``time`` on."""
    return {DIRTY: to_record(DirtyRecord(generation_id=generation_id, time=time))}


@final
@frozen(kw_only=True)
class SessionRecord:
    """``turn`` is the last one given; ``anew``: the generation that got it was to answer anew."""

    turn: int
    anew: bool = False


@final
@frozen(kw_only=True)
class OpenRecord:
    """The live generation; ``after`` is an offset before its first event.

    ``remote``: its producer is in another process, and may go on with whoever opens the log next. ``idle_limit``: 0
    stands for none.
    """

    generation_id: str
    turn: int
    after: int
    job_id: str | None = None
    remote: bool = False
    on_last_disconnect: float | None = None
    idle_limit: float | None = None


@final
@frozen(kw_only=True)
class DirtyRecord:
    """The last end of a generation since all that had ended was compacted; ``time`` as in an event."""

    generation_id: str
    time: str


@final
@frozen(kw_only=True)
class ClaimRecord:
    """From behind ``tail`` on the events are ``owner``'s, up to the next claim."""

    owner: str
    tail: int


@final
@frozen(kw_only=True)
class CompactedRecord:
    """Up to the offset ``done`` there is nothing left to compact."""

    done: int


@final
@frozen(kw_only=True)
class GenerationRecord:
    """A generation: ``turn`` once it has started, ``outcome`` once it has finished, and its ``code``.

    ``by`` is the id of the remote producer that finished it, empty for one without an id.
    """

    turn: int | None = None
    outcome: str | None = None
    code: str | None = None
    by: str | None = None


@final
@frozen(kw_only=True)
class MessageRecord:
    """A message: of a generation, or posted; ``digest`` tells whether a repeated post is the same.

    Of one that was replaced, ``of`` is the first of its versions, and ``index`` the number that it is among them.
    """

    generation_id: str | None = None
    digest: str | None = None
    of: str | None = None
    index: int | None = None


@final
@frozen(kw_only=True)
class VersionRecord:
    """Where the log has a message that was replaced, from ``first`` to ``last``, and what followed it by then.

    ``left`` is the offset of the event that took it out of the transcript; those behind that one tell what followed.
    ``behind`` is the message that it stood behind.
    """

    message_id: str
    first: int
    last: int
    left: int
    behind: str | None = None


@final
@frozen(kw_only=True)
class FileRecord:
    """A file that is kept whole; ``upload`` is what its parts are found by."""

    media_type: str
    size: int
    upload: str
    filename: str | None = None

    @property
    def part_keys(self) -> list[str]:
        return part_keys(self.upload, self.size)


@final
@frozen(kw_only=True)
class UploadsRecord:
    """Files on their way, with how many bytes each may have at most."""

    most: JSONObject


@final
@frozen(kw_only=True)
class CopyingRecord:
    """The files, by their ids, that a fork is still to get, and the life of the session that has them."""

    session_id: str
    epoch: str
    file_ids: JSON


def to_record(value: AttrsInstance) -> bytes:
    return encode_record(value)


def read_record(body: bytes, kind: type[T]) -> T:
    return structure(decode_json(body), kind)


def state_of(record: GenerationRecord) -> StateName:
    """Where a generation stands that the log knows; one that is being ended is live."""
    if record.outcome is not None:
        return "finished"
    return "queued" if record.turn is None else "live"


def check_record(key: str, body: bytes) -> None:
    """See that the record can be read. Raises `InvalidBody`."""
    kind = _KINDS.get(key) or _KINDS.get(key.partition("/")[0] + "/")
    if kind is not None:
        read_record(body, kind)
    elif not isinstance(decode_json(body), dict):
        raise InvalidBody(f"the record {key} is no object")


# By their key, or by what it begins with. Of the others whoever writes them knows what they are.
_KINDS: Final[Mapping[str, type]] = {
    SESSION: SessionRecord,
    OPEN: OpenRecord,
    DIRTY: DirtyRecord,
    COMPACTED: CompactedRecord,
    CLAIMS: ClaimRecord,
    generation_key(""): GenerationRecord,
    message_key(""): MessageRecord,
    "version/": VersionRecord,
    file_key(""): FileRecord,
    UPLOADING: UploadsRecord,
    COPYING: CopyingRecord,
}
