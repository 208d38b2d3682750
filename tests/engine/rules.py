"""What is committed, and whether it keeps the rules."""

from __future__ import annotations

from penstock.engine import Event, EventLog, decode
from penstock.engine.testing import assert_log

__all__ = ["assert_rules", "events_of"]


async def events_of(log: EventLog, session_id: str) -> list[Event]:
    """Everything that is committed of the session."""
    head = await log.head(session_id)
    assert head is not None
    events: list[Event] = []
    position = 0
    while entries := await log.read(session_id, head.epoch, after=position, limit=500, max_bytes=1 << 20):
        events.extend(decode(entry.body) for entry in entries)
        position = entries[-1].offset
    return events


async def assert_rules(log: EventLog, *, closed: bool) -> None:
    """R1 to R5 on every living session of the log, and R9 if the engine is closed."""
    for head in await log.heads(limit=10_000):
        assert_log(await events_of(log, head.session_id), closed=closed)
