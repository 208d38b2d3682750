"""What is committed, and whether it keeps the rules."""

from __future__ import annotations

from penstock.engine import Event, EventLog, decode
from penstock.engine.rules.listing import Listed, read_listed
from penstock.engine.rules.records import OPEN, OpenRecord, read_record
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
    """R1 to R5 on every living session of the log, R9 if the engine is closed; and that lists tell what is so."""
    for head in await log.heads(limit=10_000):
        events = await events_of(log, head.session_id)
        assert_log(events, closed=closed)
        if head.summary is not None:
            open_ = await log.record(head.session_id, head.epoch, OPEN)
            assert_listed(read_listed(head.summary.body), events, open_)


def assert_listed(listed: Listed, events: list[Event], open_: bytes | None) -> None:
    """What is told in lists of the session with these events."""
    assert listed.running == (None if open_ is None else read_record(open_, OpenRecord).generation_id)
    assert listed.created == events[0].time
    assert listed.updated in {event.time for event in events}
    retracted = {event.message_id for event in events if event.data.type == "message.retracted"}
    assert {said.message_id for said in (listed.first, listed.last) if said is not None}.isdisjoint(retracted)
