"""The sessions that one principal may read, in order of id, without looking at all the others.

A listing tells of no other session: not by what is in it, not by where its next page begins, and not by how long
it takes when a pattern begins with what its sessions have in common.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import final

from attrs import frozen

from penstock.engine import Engine, SessionInfo, encode_json

from ..requests.answers import ListedGeneration, ListedSession, as_json

__all__ = ["list_sessions"]

# Behind the last of the characters that an id may have, so behind every id that begins with what stands before it.
_BEHIND = "\x7f"


@final
@frozen(order=True)
class _Range:
    """The ids that begin with ``prefix``; with ``alone``, this one only."""

    prefix: str
    alone: bool

    def start(self) -> str:
        """What every id of the range stands behind, and no id stands between."""
        if not self.prefix:
            return ""
        return self.prefix[:-1] + chr(ord(self.prefix[-1]) - 1) + _BEHIND

    def __contains__(self, session_id: str) -> bool:
        return session_id == self.prefix if self.alone else session_id.startswith(self.prefix)


def _ranges(patterns: Iterable[str]) -> list[_Range]:
    """Where ids that match can be: in order, and none within another."""
    kept: list[_Range] = []
    for found in sorted({_Range(pattern.partition("*")[0], "*" not in pattern) for pattern in patterns}):
        if not any(found.prefix in other for other in kept):
            kept.append(found)
    return kept


async def list_sessions(
    engine: Engine, patterns: Iterable[str], permitted: Callable[[str], Awaitable[bool]], after: str, page_size: int
) -> tuple[list[bytes], str | None]:
    """A page of the sessions behind ``after`` that match one of ``patterns`` and are ``permitted``: each as JSON.

    So many of them, if there are, within `Config.snapshot_bytes` but for a single one; and the last one's id, if others
    come behind it.
    """
    found: list[bytes] = []
    last: str | None = None
    left = engine.config.snapshot_bytes
    for part in _ranges(patterns):
        behind = max(after, part.start())
        while True:
            page = await engine.sessions(behind, 1 if part.alone else page_size + 1, most_bytes=max(left, 0))
            inside = [session for session in page if session.session_id in part]
            for session in inside:
                if await permitted(session.session_id):
                    body = encode_json(as_json(_listed(session)))
                    left -= len(body)
                    if found and (len(found) == page_size or left < 0):
                        return found, last
                    found.append(body)
                    last = session.session_id
            if part.alone or not page or len(inside) < len(page):
                break
            behind = page[-1].session_id
    return found, None


def _listed(session: SessionInfo) -> ListedSession:
    live = session.generation_id
    return ListedSession(
        session_id=session.session_id,
        cursor=session.cursor,
        metadata=session.metadata,
        corrupt=session.corrupt or None,
        generation=None if live is None else ListedGeneration(generation_id=live),
    )
