"""R11: what was acknowledged is in every later read of its life.

For whoever keeps a ledger of what a log, or a server, has said was stored, and holds it against what is stored later:
behind a restart or a fail-over, in another store, in a copy.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..errors import StaleEpoch
from ..log.port import Entry, EventLog
from .violation import Violation

__all__ = ["check_acknowledged"]

_PAGE = 512
_BYTES = 1 << 20


async def check_acknowledged(
    acknowledged: Mapping[tuple[str, str], Iterable[Entry]], log: EventLog, *, compacted: bool = False
) -> list[Violation]:
    """What of the ledger is not, or not so, in ``log``; empty when all is.

    ``acknowledged`` has the events by session id and epoch, without those of lives that whoever keeps it has seen
    deleted. A life that the log says was deleted, or that another has followed, is over and is passed over; one that it
    knows nothing of is missing. ``compacted``: events may be missing, or others, where a tail is not behind them:
    `check_session` holds that against rule C. Raises `StorageError`.
    """
    found: list[Violation] = []
    for (session_id, epoch), entries in acknowledged.items():
        head = await log.head(session_id)
        if head is None:
            found.append(Violation("R11", None, f"session {session_id} was acknowledged and is not there"))
            continue
        if head.deleted or head.epoch != epoch:
            continue
        try:
            stored = None if compacted else await _stored(log, session_id, epoch)
        except StaleEpoch:
            continue
        for offset, body in entries:
            if offset > head.tail:
                wrong = f"is behind its tail, {head.tail}"
            elif stored is not None and offset not in stored:
                wrong = "is not there"
            elif stored is not None and stored[offset] != body:
                wrong = "is another"
            else:
                continue
            found.append(Violation("R11", offset, f"what was acknowledged of session {session_id} {wrong}"))
    return found


async def _stored(log: EventLog, session_id: str, epoch: str) -> dict[int, bytes]:
    stored: dict[int, bytes] = {}
    after = 0
    while page := await log.read(session_id, epoch, after=after, limit=_PAGE, max_bytes=_BYTES):
        stored.update(page)
        after = page[-1].offset
    return stored
