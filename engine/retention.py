"""The age limit of whole sessions: which are too old to be kept. Deleting them is the caller's."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable

from .codec import decode
from .compacting import seconds_of
from .errors import InvalidBody, PenstockError, StaleEpoch
from .log.port import EventLog, Head

__all__ = ["expire_sessions"]

logger = logging.getLogger("penstock.retention")

# A page is one read of the index and one small read per session.
_SESSIONS = 100


async def expire_sessions(
    log: EventLog,
    older_than: float,
    *,
    delete: Callable[[Head], Awaitable[object]],
    wall: Callable[[], float] = time.time,
) -> int:
    """Walk once over all sessions, and have those deleted whose last event is older than ``older_than`` seconds.

    ``delete`` gets where the session stood: something may have been written since. What it raises of
    the engine's own errors is logged, and the walk goes on. Returns how many were deleted. One that has no event
    yet, or whose last event cannot be read, stays. Raises `StorageError` when the store cannot be read.
    """
    before = wall() - older_than
    deleted = 0
    last = ""
    while heads := await log.heads(after=last, limit=_SESSIONS):
        for head in heads:
            if await _last_event(log, head) < before:
                try:
                    await delete(head)
                    deleted += 1
                except PenstockError as error:
                    logger.warning("session %s is too old and could not be deleted: %s", head.session_id, error)
        last = heads[-1].session_id
    return deleted


async def _last_event(log: EventLog, head: Head) -> float:
    """The time of the last event, in seconds since 1970; infinite when there is none to tell it."""
    try:
        # One session that was appended to since is not old either, whichever of its events is read here.
        entries = await log.read(head.session_id, head.epoch, after=head.tail - 1, limit=1, max_bytes=1)
        return seconds_of(decode(entries[0].body).time) if entries else float("inf")
    except StaleEpoch:
        return float("inf")
    except InvalidBody as error:
        logger.warning("the last event of session %s cannot be read: %s", head.session_id, error)
        return float("inf")
