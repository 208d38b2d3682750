"""A session's whole state over HTTP, which gives it in pages of messages, the newest first."""

from __future__ import annotations

from typing import Final

from attrs import evolve

from engine import MessageNotFound, Snapshot

from .commands import Commands
from .wire import session_path

__all__ = ["read_snapshot", "whole_snapshot"]

# The most that the server gives in one page.
_PAGE: Final = 1000

# A message that is retracted between two pages makes us begin anew.
_TRIES: Final = 5


async def read_snapshot(commands: Commands, session_id: str, limit: int, before: str | None) -> Snapshot:
    """One page, as the server has it now."""
    query = {"limit": str(limit)} if before is None else {"limit": str(limit), "before": before}
    answer, _ = await commands.ask("GET", session_path(session_id), query=query, repeatable=True)
    return Snapshot.from_json(answer.value)


async def whole_snapshot(commands: Commands, session_id: str) -> Snapshot:
    """All of it, at the cursor of its newest page. Older messages are closed and do not change."""
    for left in reversed(range(_TRIES)):
        snapshot = page = await read_snapshot(commands, session_id, _PAGE, None)
        try:
            while page.more:
                page = await read_snapshot(commands, session_id, _PAGE, page.messages[0].message_id)
                snapshot = evolve(snapshot, messages=page.messages + snapshot.messages, more=page.more)
        except MessageNotFound:
            if not left:
                raise
            continue
        return snapshot
    raise AssertionError("unreachable")
