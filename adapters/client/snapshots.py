"""A session's whole state over HTTP, which gives it in pages of messages, the newest first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from attrs import evolve

from penstock.engine import GenerationInfo, MessageNotFound, Snapshot

from .commands import Commands
from .wire import session_path

__all__ = ["completed", "take_snapshot"]

# The most that the server gives in one page.
_PAGE: Final = 1000

# A message that is retracted between two pages makes us begin anew.
_TRIES: Final = 5


async def _read(commands: Commands, session_id: str, limit: int, before: str | None) -> Snapshot:
    """One page, as the server has it now."""
    query = {"limit": str(limit)} if before is None else {"limit": str(limit), "before": before}
    answer, _ = await commands.ask("GET", session_path(session_id), query=query, repeatable=True)
    return Snapshot.from_json(answer)


async def take_snapshot(commands: Commands, session_id: str, limit: int | None, before: str | None) -> Snapshot:
    """So many messages, a page at most, the newest or those before ``before``; all of them where neither is said."""
    if limit is None and before is None:
        return await _whole(commands, session_id)
    return await _read(commands, session_id, _PAGE if limit is None else limit, before)


async def _whole(commands: Commands, session_id: str) -> Snapshot:
    """All of it, at the cursor of its newest page. Older messages are closed and do not change."""
    for left in reversed(range(_TRIES)):
        snapshot = page = await _read(commands, session_id, _PAGE, None)
        try:
            while page.more:
                page = await _read(commands, session_id, _PAGE, page.messages[0].message_id)
                snapshot = evolve(
                    snapshot,
                    messages=page.messages + snapshot.messages,
                    generations=_generations(snapshot, [page]),
                    more=page.more,
                )
        except MessageNotFound:
            if not left:
                raise
            continue
        return snapshot
    raise AssertionError("unreachable")


async def completed(commands: Commands, session_id: str, snapshot: Snapshot) -> tuple[Snapshot, int]:
    """The snapshot with the older messages that it leaves out, and the offset at which the last of those were read.

    What it says of a message stands, also where that stands among the older ones. Raises `MessageNotFound` when the
    message that a page is to end at was retracted meanwhile.
    """
    known = {message.message_id: message for message in snapshot.messages}
    pages: list[Snapshot] = []
    page, seen_at = snapshot, 0
    while page.more:
        page = await _read(commands, session_id, _PAGE, page.next or page.messages[0].message_id)
        if page.cursor.epoch != snapshot.cursor.epoch:
            raise MessageNotFound("the session began a new life meanwhile", session_id=session_id)
        pages.append(page)
        seen_at = max(seen_at, page.cursor.offset)
    older = {message.message_id: message for page in reversed(pages) for message in page.messages}
    messages = {message_id: known.get(message_id, message) for message_id, message in older.items()} | known
    generations = _generations(snapshot, pages[::-1])
    return evolve(snapshot, messages=tuple(messages.values()), generations=generations, more=False, next=None), seen_at


def _generations(snapshot: Snapshot, older: Sequence[Snapshot]) -> tuple[GenerationInfo, ...]:
    """Those of the snapshot and of pages of older messages, the oldest first.

    What the snapshot says of one stands, and what began behind its cursor, when the pages were read, is left out.
    """
    found = {each.generation_id: each for page in (*older, snapshot) for each in page.generations}
    begun = (each for each in found.values() if _begin(each)[0] <= snapshot.cursor.offset)
    return tuple(sorted(begun, key=_begin))


def _begin(generation: GenerationInfo) -> tuple[int, int]:
    """The offset of its first event, 0 of one that came with a fork, and its turn."""
    first = generation.started or generation.finished
    return 0 if first is None else first.cursor.offset, generation.turn or 0
