"""A session's whole state over HTTP, which gives it in pages of messages, the newest first."""

from __future__ import annotations

from typing import Final

from attrs import evolve

from penstock.engine import CallerError, GenerationInfo, MessageNotFound, Snapshot

from .commands import Commands
from .refusals import BadAnswer
from .wire import session_path

__all__ = ["generations_of", "read_page", "take_snapshot"]

# The most that the server gives in one page.
_PAGE: Final = 1000

# A message that is retracted between two pages makes us begin anew.
_TRIES: Final = 5


async def read_page(commands: Commands, session_id: str, limit: int | None, before: str | None) -> Snapshot:
    """One page, as the server has it now: ``limit`` messages, as many as there may be without it."""
    query = {"limit": str(_PAGE if limit is None else limit)} | ({} if before is None else {"before": before})
    answer, _ = await commands.ask("GET", session_path(session_id), query=query, repeatable=True)
    try:
        return Snapshot.from_json(answer)
    except CallerError as error:
        raise BadAnswer(f"the answer is no state of a session: {error.detail}") from error


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
                snapshot = evolve(
                    snapshot,
                    messages=page.messages + snapshot.messages,
                    generations=generations_of(snapshot, page),
                    more=page.more,
                    next=page.next,
                )
        except MessageNotFound:
            if not left:
                raise
            continue
        return snapshot
    raise AssertionError("unreachable")


def generations_of(snapshot: Snapshot, older: Snapshot) -> tuple[GenerationInfo, ...]:
    """Those of the snapshot and of a page of older messages, the oldest first.

    What the snapshot says of one stands, and what began behind its cursor, when the page was read, is left out.
    """
    found = {each.generation_id: each for each in (*older.generations, *snapshot.generations)}
    begun = (each for each in found.values() if _begin(each)[0] <= snapshot.cursor.offset)
    return tuple(sorted(begun, key=_begin))


def _begin(generation: GenerationInfo) -> tuple[int, int]:
    """The offset of its first event, 0 of one that came with a fork, and its turn."""
    first = generation.started or generation.finished
    return 0 if first is None else first.cursor.offset, generation.turn or 0
