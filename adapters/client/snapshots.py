"""A session's whole state over HTTP, which gives it in pages of messages, the newest first."""

from __future__ import annotations

from typing import Final

from attrs import evolve

from penstock.engine import MessageNotFound, Snapshot

from .commands import Commands
from .wire import session_path

__all__ = ["read_page", "take_snapshot"]

# The most that the server gives in one page.
_PAGE: Final = 1000

# A message that is retracted between two pages makes us begin anew.
_TRIES: Final = 5


async def read_page(commands: Commands, session_id: str, limit: int | None, before: str | None) -> Snapshot:
    """One page, as the server has it now: ``limit`` messages, as many as there may be without it."""
    query = {"limit": str(_PAGE if limit is None else limit)} | ({} if before is None else {"before": before})
    answer, _ = await commands.ask("GET", session_path(session_id), query=query, repeatable=True)
    return Snapshot.from_json(answer)


async def take_snapshot(commands: Commands, session_id: str, limit: int | None, before: str | None) -> Snapshot:
    """So many messages, a page at most, the newest or those before ``before``; all of them where neither is said."""
    if limit is None and before is None:
        return await _whole(commands, session_id)
    return await read_page(commands, session_id, limit, before)


async def _whole(commands: Commands, session_id: str) -> Snapshot:
    """All of it, at the cursor of its newest page. Older messages are closed and do not change."""
    for left in reversed(range(_TRIES)):
        snapshot = page = await read_page(commands, session_id, None, None)
        try:
            while page.more:
                page = await read_page(commands, session_id, None, page.messages[0].message_id)
                snapshot = evolve(snapshot, messages=page.messages + snapshot.messages, more=page.more)
        except MessageNotFound:
            if not left:
                raise
            continue
        return snapshot
    raise AssertionError("unreachable")
