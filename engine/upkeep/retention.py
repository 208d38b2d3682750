"""The age limit of whole sessions: which are too old to be kept. Deleting them is the caller's."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Awaitable, Callable

from ..codec import decode
from ..errors import CorruptSession, PenstockError, StaleEpoch
from ..log.port import EventLog, Head
from ..rules.compacting import seconds_of
from ..stream.aside import SetsAside, reading, sound

__all__ = ["expire_sessions"]

logger = logging.getLogger("penstock.retention")

# A page is one read of the index and one small read per session.
_SESSIONS = 100


async def expire_sessions(
    log: EventLog,
    older_than: float,
    *,
    delete: Callable[[Head], Awaitable[object]],
    aside: SetsAside | None = None,
    mine: Callable[[str], bool] = lambda _: True,
    wall: Callable[[], float] = time.time,
) -> int:
    """Walk once over all sessions, and have those deleted whose last event is older than ``older_than`` seconds.

    ``delete`` gets where the session stood: something may have been written since, and with False it says that it left
    the session alone. What it raises of the engine's own errors is logged, and the walk goes on. Returns how many were
    deleted. Only sessions are looked at of whose ids ``mine`` is true. One that has no event yet, or whose last event
    cannot be read, stays; ``aside`` hears of the latter. Raises `StorageError` when the store cannot be read.
    """
    before = wall() - older_than
    deleted = 0
    last = ""
    while heads := await log.heads(after=last, limit=_SESSIONS):
        for head in heads:
            if not mine(head.session_id) or (aside is not None and aside.is_aside(head.session_id)):
                continue
            if await _last_event(log, head, aside) < before:
                try:
                    deleted += await delete(head) is not False
                except PenstockError as error:
                    logger.warning("session %s is too old and could not be deleted: %s", head.session_id, error)
        last = heads[-1].session_id
    return deleted


async def _last_event(log: EventLog, head: Head, aside: SetsAside | None) -> float:
    """The time of the last event, in seconds since 1970; infinite when there is none to tell it."""
    try:
        sound(head)
        # One session that was appended to since is not old either, whichever of its events is read here.
        entries = await log.read(head.session_id, head.epoch, after=head.tail - 1, limit=1, max_bytes=1)
        with reading(head.session_id):
            return seconds_of(decode(entries[0].body).time) if entries else math.inf
    except StaleEpoch:
        return math.inf
    except CorruptSession as error:
        if aside is None:
            logger.warning("the last event of session %s cannot be read: %s", head.session_id, error)
        else:
            aside.set_aside(error)
        return math.inf
