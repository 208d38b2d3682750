"""Versions of a message that was regenerated, or edited and sent again: which there are, and what each says.

One that was replaced has left the transcript and stays in the log, also when that is compacted; a record tells where.
So nothing of it is in memory, and of one that is asked for only its own events are read. What is told of a version is
the message itself. What followed it comes back with it when it is restored (`session.versions`).
"""

from __future__ import annotations

from typing import Final, final

from attrs import evolve, frozen

from ..codec import encoding_blocks
from ..config import Config
from ..errors import MessageNotFound
from ..events import Version
from ..reducer import MessageView
from ..results import Versions
from ..rules.records import VersionRecord, version_key, versions_prefix
from .folding import Standing
from .history import History
from .slices import in_slices

__all__ = ["Found", "find", "list_versions", "record_of"]

# Versions in one page: nobody regenerates an answer so often by hand.
_MOST: Final = 1000


@final
@frozen
class Found:
    """A version: the ``index``-th of ``count``. ``standing`` is the one in the transcript; None where none is."""

    version: Version
    standing: Standing | None

    @property
    def stands(self) -> Version | None:
        """Which one is in the transcript."""
        return None if self.standing is None else version_of(self.standing.message)


def version_of(message: MessageView) -> Version:
    """Which version a message is that stands in the transcript: the only one, where nothing else is said."""
    return message.version or Version(of=message.message_id, index=1, count=1)


async def find(history: History, message_id: str) -> Found:
    """The version that the message of this id is, or was.

    Raises `MessageNotFound` for a message that nobody saw, that was retracted and not replaced, or whose place is gone:
    no version stands in the transcript, and others came behind what they stood behind.
    """
    try:
        standing = await history.ask(lambda fold: fold.standing(message_id))
        return Found(version_of(standing.message), standing)
    except MessageNotFound:
        known = await history.message(message_id)  # not before: it may be replaced at any moment
        if known is None or known.of is None or known.index is None:
            raise
    version = Version(of=known.of, index=known.index, count=known.index)
    stands = await history.ask(lambda fold: fold.standing_version(version.of))
    if stands is not None:
        return Found(evolve(version, count=version_of(stands.message).count), stands)
    records = await history.all_known(versions_prefix(version.of), VersionRecord)
    last = max(records.values(), key=lambda record: record.left, default=None)
    if last is None or not await history.ask_state(lambda state: state.is_vacant(last.left, last.behind)):
        raise MessageNotFound("no version of this message has its place in the transcript", message_id=message_id)
    return Found(evolve(version, count=len(records)), None)


async def record_of(history: History, version: Version) -> VersionRecord:
    """Where the log has a version that is not in the transcript. Raises `MessageNotFound`."""
    record = await history.known(version_key(version.of, version.index), VersionRecord)
    if record is None:
        raise MessageNotFound(f"there is no version {version.index} of this message", message_id=version.of)
    return record


async def list_versions(history: History, config: Config, message_id: str, after: int, limit: int | None) -> Versions:
    """The versions behind the number ``after``, oldest first: ``limit`` of them, within `Config.snapshot_bytes`.

    One at least, whatever its size. Raises `MessageNotFound`.
    """
    found = await find(history, message_id)
    listed: list[MessageView] = []
    bodies: list[bytes] = []
    left = config.snapshot_bytes
    last = min(found.version.count, after + (_MOST if limit is None else min(limit, _MOST)))
    for index in range(after + 1, last + 1):
        message = await _message_of(history, found, evolve(found.version, index=index))
        body = await in_slices(encoding_blocks(message, message.blocks))
        left -= len(body)
        if listed and left < 0:
            break
        listed.append(message)
        bodies.append(body)
    return Versions(versions=tuple(listed), more=after + len(listed) < found.version.count, bodies=tuple(bodies))


async def _message_of(history: History, found: Found, version: Version) -> MessageView:
    """What this version of those that were found says. Raises `MessageNotFound`."""
    if found.standing is not None and version_of(found.standing.message).index == version.index:
        return evolve(found.standing.message, version=version)
    record = await record_of(history, version)
    left = await history.ask(lambda fold: fold.left(record.message_id, record.first, record.last))
    return evolve(left, version=version)
