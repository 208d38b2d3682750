"""The list of an engine's sessions: its pages, read from the log, and what is followed of it.

Owns what is told of a session in a list. None of them is brought into memory for it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Final, Literal, TypeAlias, final

from ..config import Config
from ..errors import CorruptSession, StaleEpoch
from ..events import Cursor, JSONObject
from ..log.port import EventLog, Head
from ..results import LastSaid, SessionInfo
from ..rules.compacting import seconds_of
from ..rules.listing import read_listed, title_of
from ..rules.records import METADATA
from ..stream.aside import Aside, read_metadata, sound
from ..stream.bus import Bus
from ..stream.notes import Notes
from ..stream.watch import Changes

__all__ = ["Listing", "Order"]

Order: TypeAlias = Literal["id", "updated"]

# Heads that are read at a time.
_AT_ONCE: Final = 1000

# Behind the last of the characters that an id may have, so behind every id that begins with what stands before it.
_BEHIND: Final = "\x7f"


@final
class Listing:
    """Of one engine. ``until_closed`` stands around every read, ``set_aside`` hears of sessions that cannot be read."""

    def __init__(
        self,
        log: EventLog,
        config: Config,
        aside: Aside,
        *,
        set_aside: Callable[[CorruptSession], None],
        until_closed: Callable[[], AbstractAsyncContextManager[None]],
        launch: Callable[[Callable[[], Awaitable[None]]], None],
        bus: Bus | None = None,
    ) -> None:
        self._log = log
        self._aside = aside
        self._set_aside = set_aside
        self._until_closed = until_closed
        self.changes: Final = Changes(self.told_of, config, launch=launch)
        if bus is not None:
            self.changes.notes = Notes(self.changes, bus)

    async def page(
        self, order: Order, after: str, updated: str | None, prefix: str, limit: int, most_bytes: float
    ) -> list[SessionInfo]:
        """Living sessions whose id begins with ``prefix``, behind ``after``: see `Engine.sessions`."""
        found: list[SessionInfo] = []
        if not (prefix.isascii() and prefix.isprintable()):
            return found  # no id begins so
        behind = None if updated is None else (round(seconds_of(updated) * 1000), after)
        if order == "id" and prefix and after < (before := _before(prefix)):
            after = before
        async with self._until_closed():
            while len(found) < limit:
                most = min(limit - len(found), _AT_ONCE)
                if order == "updated":
                    heads = await self._log.ranked(prefix=prefix, behind=behind, limit=most)
                else:
                    heads = await self._log.heads(after=after, limit=most)
                heads = [head for head in heads if head.session_id.startswith(prefix)]
                told = await self._read(heads, most_bytes)
                for session, size in told:
                    most_bytes -= size
                    if found and most_bytes < 0:
                        return found
                    if session is not None:
                        found.append(session)
                if len(told) == len(heads) < most:
                    break
                last = heads[len(told) - 1]
                after = last.session_id
                if order == "updated":
                    assert last.summary is not None  # it was found by that
                    behind = (last.summary.rank, after)
        return found

    async def told_of(self, session_ids: Sequence[str]) -> list[SessionInfo | None]:
        """What is listed of these now, in their order; None of those that do not live."""
        async with self._until_closed():
            heads = await self._log.living(session_ids)
            found = {
                session.session_id: session
                for session, _ in await self._read(list(heads.values()), float("inf"))
                if session is not None
            }
        return [found.get(session_id) for session_id in session_ids]

    async def _read(self, heads: Sequence[Head], most_bytes: float) -> list[tuple[SessionInfo | None, int]]:
        """What is told of each, None where it was deleted meanwhile, and the bytes of its metadata.

        Of the first of them, at least one, where all have more than ``most_bytes``.
        """
        readable = {head.session_id: head.epoch for head in heads if self._is_readable(head)}
        bodies = await self._log.each_record(METADATA, list(readable.items()), max_bytes=most_bytes)
        found = dict(zip(readable, bodies, strict=False))
        told: list[tuple[SessionInfo | None, int]] = []
        for head in heads:
            if head.session_id in found:
                body = found[head.session_id]
                told.append((self._info(head, body), len(body) if isinstance(body, bytes) else 0))
            elif head.session_id in readable:
                break
            else:
                told.append((_unreadable(head), 0))
        return told

    def _is_readable(self, head: Head) -> bool:
        if head.session_id in self._aside:
            return False
        try:
            sound(head)
        except CorruptSession as error:
            self._set_aside(error)
            return False
        return True

    def _info(self, head: Head, body: bytes | StaleEpoch | CorruptSession | None) -> SessionInfo | None:
        try:
            if isinstance(body, StaleEpoch):
                return None
            if isinstance(body, CorruptSession):
                raise body
            metadata = read_metadata(head.session_id, body)
        except CorruptSession as error:
            self._set_aside(error)
            return _unreadable(head)
        return _told(head, metadata)


def _told(head: Head, metadata: JSONObject) -> SessionInfo:
    listed = read_listed(None if head.summary is None else head.summary.body)
    return SessionInfo(
        session_id=head.session_id,
        cursor=Cursor(head.epoch, head.tail),
        metadata=metadata,
        generation_id=listed.running,
        created=listed.created,
        updated=listed.updated,
        title=title_of(metadata, listed),
        approvals=listed.approvals,
        last=None if listed.last is None else LastSaid(role=listed.last.role, text=listed.last.text),
    )


def _unreadable(head: Head) -> SessionInfo:
    return SessionInfo(session_id=head.session_id, cursor=Cursor(head.epoch, head.tail), metadata={}, corrupt=True)


def _before(prefix: str) -> str:
    """What every id with this prefix stands behind, and no id stands between."""
    return prefix[:-1] + chr(ord(prefix[-1]) - 1) + _BEHIND
