"""A stored session read once from the start, page by page: what it holds, and whether it keeps the rules.

For logs that are too long to be held in memory, and for those that others write to meanwhile.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Final, final

from attrs import frozen

from ..codec import decode
from ..errors import InvalidBody
from ..events import GenerationFinished, GenerationStarted
from ..log.port import EventLog, Head
from ..records import OPEN, OpenRecord, read_record
from .log_rules import LogCheck
from .violation import Violation

__all__ = ["StoredSession", "check_session"]

_PAGE_EVENTS: Final = 512
_PAGE_BYTES: Final = 1 << 20


@final
@frozen(kw_only=True)
class StoredSession:
    """What a session held up to ``tail``.

    ``events`` and ``size`` (bytes) are of what is stored; compaction makes them less than offsets were given.
    ``live`` is the generation that has not ended, ``outcomes`` counts the others. ``violations`` is empty when
    every rule is kept.
    """

    session_id: str
    epoch: str
    tail: int
    events: int
    size: int
    generations: int
    live: str | None
    outcomes: Mapping[str, int]
    first_time: str | None
    last_time: str | None
    violations: tuple[Violation, ...]


async def check_session(log: EventLog, head: Head) -> StoredSession:
    """Read the session up to ``head`` and hold it against R1 to R5, R8, R9 and C.

    That nothing is left open (R9) is judged when nothing is live and nothing was written meanwhile. Raises
    `StaleEpoch` when the session was deleted meanwhile, `StorageError` when it cannot be read.
    """
    opened = await _open(log, head)
    check = LogCheck(compacted=True)
    unreadable: list[Violation] = []
    outcomes: Counter[str] = Counter()
    events = size = generations = position = 0
    live = first_time = last_time = None
    while position < head.tail:
        entries = await log.read(head.session_id, head.epoch, after=position, limit=_PAGE_EVENTS, max_bytes=_PAGE_BYTES)
        if not entries:
            unreadable.append(Violation("R1", None, f"the log ends at offset {position}, not at {head.tail}"))
            break
        for entry in entries:
            if entry.offset > head.tail:
                break
            events += 1
            size += len(entry.body)
            try:
                event = decode(entry.body)
            except InvalidBody as error:
                unreadable.append(Violation("stamp", entry.offset, f"the event cannot be read: {error}"))
                continue
            if event.offset != entry.offset:
                unreadable.append(Violation("R1", entry.offset, f"the event here says it is at {event.offset}"))
            check.read(event)
            first_time, last_time = first_time or event.time, event.time
            match event.data:
                case GenerationStarted():
                    generations += 1
                    live = event.generation_id
                case GenerationFinished(outcome=outcome):
                    outcomes[outcome] += 1
                    live = None if live == event.generation_id else live
                case _:
                    pass
        position = entries[-1].offset
    still = await log.head(head.session_id) == head and await _open(log, head) == opened
    check.end(closed=still and opened is None)
    if still and opened is not None and opened != live:
        unreadable.append(Violation("R9", None, f"the index says that generation {opened} is live, the log: {live}"))
    return StoredSession(
        session_id=head.session_id,
        epoch=head.epoch,
        tail=head.tail,
        events=events,
        size=size,
        generations=generations,
        live=live,
        outcomes=dict(outcomes),
        first_time=first_time,
        last_time=last_time,
        violations=(*check.found, *unreadable),
    )


async def _open(log: EventLog, head: Head) -> str | None:
    """The live generation, by the log's index."""
    body = await log.record(head.session_id, head.epoch, OPEN)
    return None if body is None else read_record(body, OpenRecord).generation_id
