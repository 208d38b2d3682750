"""Where a session lies, and what is sent of a write.

Sessions are spread over shards, whose number is fixed when the first is stored. All keys of a shard lie in one slot of
a Redis Cluster, so a script can change them together: whatever a round of writes to one shard changes, indexes
included. One server has all slots, and there one script may go over all shards.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, TypeAlias, assert_never, final
from zlib import crc32

import msgspec
from attrs import frozen

from ...errors import CorruptSession, PenstockError, StorageError, WriteFailed
from ..fence import Standing, admit, admit_compact
from ..port import MOST, NOWHERE, Append, Claim, Compact, Delete, Head, Keep, Release, Write, head_of

__all__ = ["Layout", "Packable", "head_from", "pack", "packed", "place_of", "refusal"]

Packable: TypeAlias = str | int | msgspec.Raw | list["Packable"] | dict[str, "Packable"]

_DAMAGED: Final = "what is stored of it has another type than it must have"


@final
@frozen
class Layout:
    """``apart``: in a cluster, where a script may go to one shard only."""

    prefix: str
    shards: int
    apart: bool

    def base(self, session_id: str) -> str:
        """What all keys of the session's shard begin with."""
        return self._base(crc32(session_id.encode()) % self.shards)

    def _base(self, shard: int) -> str:
        return f"{{{self.prefix}:{shard}}}"

    @property
    def lanes(self) -> list[list[str]]:
        """The bases of all shards, those together that one script may go over."""
        bases = [self._base(shard) for shard in range(self.shards)]
        return [[base] for base in bases] if self.apart else [bases]

    def lane(self, session_id: str) -> int:
        """Which of `lanes` the session's shard is in."""
        return crc32(session_id.encode()) % self.shards if self.apart else 0


def pack(value: Packable) -> bytes:
    return msgspec.msgpack.encode(value)


def place_of(rank: int) -> str:
    """A rank as 16 characters, the highest first in the order of bytes."""
    return f"{MOST - rank:016x}"


def packed(write: Write, base: str) -> dict[str, Packable]:
    """A write as ``write.lua`` reads it."""
    made: dict[str, Packable] = {"base": base, "session": write.session_id}
    if not isinstance(write, Release):
        made["epoch"] = write.epoch
    match write:
        case Append():
            made |= {
                "kind": "create" if write.create else "append",
                "token": write.token,
                "tail": write.expected_tail,
                "owner": write.owner,
                "events": [_bytes(body) for body in write.events],
            }
            if write.summary is not None:
                made |= {"place": place_of(write.summary.rank), "body": _bytes(write.summary.body)}
        case Keep():
            made["kind"] = "keep"
        case Claim():
            made |= {"kind": "claim", "token": write.token, "seen": write.seen, "owner": write.owner}
            made |= {"key": write.key, "said": _bytes(write.said)}
            if write.anew is not None:
                made["anew"] = write.anew
        case Release():
            made |= {"kind": "release", "token": write.token, "owner": write.owner}
        case Delete():
            made |= {"kind": "delete", "token": write.token}
            if write.forced:
                made["forced"] = 1
        case Compact():
            made |= {
                "kind": "compact",
                "replace": [[offset, _bytes(body)] for offset, body in write.replace.items()],
                "remove": list(write.remove),
                "forget": [[key, _bytes(value)] for key, value in write.forget.items()],
            }
        case _:
            assert_never(write)
    if isinstance(write, Append | Keep | Compact) and write.records:
        made["records"] = list(_pairs(write.records))
    return made


def _pairs(records: Mapping[str, bytes | None]) -> Iterable[Packable]:
    for key, value in records.items():
        yield [key] if value is None else [key, _bytes(value)]


def _bytes(body: bytes) -> msgspec.Raw:
    """As a msgpack string, which it need not be: Redis's cmsgpack knows no other form of bytes."""
    return msgspec.Raw(b"\xdb" + len(body).to_bytes(4, "big") + body)


def refusal(write: Write, verdict: object) -> PenstockError | None:
    """What ``write.lua`` said of a write: None when it landed."""
    if verdict == 0:
        return None
    if verdict == 1:
        return CorruptSession(_DAMAGED, session_id=write.session_id)
    standing = _standing(verdict)
    told = admit_compact(standing, write) if isinstance(write, Compact) else admit(standing, write)
    if isinstance(told, PenstockError):
        return told
    # `write.lua` and `fence` do not agree: a mistake in one of them.
    return WriteFailed("the store refused what it should have taken", session_id=write.session_id)


def _standing(verdict: object) -> Standing | None:
    match verdict:
        case []:
            return None
        case [bytes(epoch), int(tail), int(token), bytes(owner), int(deleted), int(doubted)]:
            return Standing(epoch.decode(), tail, token, bool(deleted), owner.decode(), bool(doubted))
        case _:
            raise StorageError("the store's answer cannot be read")


def head_from(session_id: str, answer: object) -> Head | None:
    """What ``heads.lua`` said of a session."""
    match answer:
        case 0:
            return None
        case 1:
            return Head(session_id=session_id, epoch=NOWHERE, tail=0, token=0, damage=_DAMAGED)
        case [epoch, tail, token, owner, deleted, place, body, doubted]:
            return head_of(
                session_id,
                _text(epoch),
                _number(tail),
                _number(token),
                deleted=deleted is not None,
                owner="" if owner is None else _text(owner),
                doubted=doubted is not None,
                rank=_rank(place),
                body=body,
            )
        case _:
            raise StorageError("the store's answer cannot be read")


def _text(value: object) -> str | None:
    try:
        return value.decode() if isinstance(value, bytes) else None
    except UnicodeDecodeError:
        return None


def _number(value: object) -> int | None:
    return int(value) if isinstance(value, bytes) and value.isdigit() else None


def _rank(place: object) -> int | None:
    try:
        return MOST - int(place, 16) if isinstance(place, bytes) else None
    except ValueError:
        return None
