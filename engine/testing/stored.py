"""A stored session read once from the start, page by page: what it holds, and whether it keeps the rules.

For logs that are too long to be held in memory, and for those that others write to meanwhile.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Final, final

from attrs import frozen

from ..config import Config
from ..errors import CorruptSession, InvalidBody
from ..events import Event, GenerationFinished, GenerationStarted
from ..log.port import BLOCK, EventLog, Head
from ..reducer import Gap, SessionState
from ..rules.records import CLAIMS, OPEN, READABLE, ClaimRecord, OpenRecord, check_record, read_record
from ..session.recovery import find
from ..stream.aside import check_page, read_event, reading, sound
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
    every rule is kept. ``claims`` are those that are kept, the newest last: who wrote what stands behind their tails.
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
    claims: tuple[ClaimRecord, ...] = ()

    @property
    def corrupt(self) -> bool:
        """Whether an engine sets it aside, once it comes to what cannot be read."""
        return any(violation.rule == "stored" for violation in self.violations)


async def check_session(log: EventLog, head: Head) -> StoredSession:
    """Read the session up to ``head`` and hold it against R1 to R5, R8, R9, R10 and C.

    That nothing is left open (R9) is judged when nothing is live and nothing was written meanwhile. What cannot be read
    is a violation of ``stored``. Raises `StaleEpoch` when the session was deleted meanwhile, `StorageError` when the
    store cannot be read.
    """
    try:
        return await _check(log, head)
    except CorruptSession as error:
        return _unreadable(head, error.detail)


def _unreadable(head: Head, why: str) -> StoredSession:
    return StoredSession(
        session_id=head.session_id,
        epoch=head.epoch,
        tail=head.tail,
        events=0,
        size=0,
        generations=0,
        live=None,
        outcomes={},
        first_time=None,
        last_time=None,
        violations=(Violation("stored", None, why),),
    )


async def _check(log: EventLog, head: Head) -> StoredSession:
    sound(head)
    opened = await _open(log, head)
    check = LogCheck(compacted=True)
    unreadable: list[Violation] = []
    outcomes: Counter[str] = Counter()
    events = size = generations = position = 0
    fold = _Fold(head)
    live = first_time = last_time = None
    while position < head.tail:
        entries = await log.read(head.session_id, head.epoch, after=position, limit=_PAGE_EVENTS, max_bytes=_PAGE_BYTES)
        if not entries:
            unreadable.append(Violation("stored", None, f"the log ends at offset {position}, not at {head.tail}"))
            break
        with reading(head.session_id):
            check_page(entries, position)
        for entry in entries:
            if entry.offset > head.tail:
                break
            events += 1
            size += len(entry.body)
            try:
                event = read_event(entry)
            except InvalidBody as error:
                unreadable.append(Violation("stored", entry.offset, str(error)))
                continue
            check.read(event)
            fold.read(event)
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
    unreadable.extend(fold.found)
    unreadable.extend(await _check_records(log, head))
    claims, strays = await _claims(log, head)
    unreadable.extend(strays)
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
        claims=claims,
    )


@final
class _Fold:
    """Whether the events add up, up to the first that does not."""

    def __init__(self, head: Head) -> None:
        self._state = SessionState(head.session_id, head.epoch)
        self.found: list[Violation] = []

    def read(self, event: Event) -> None:
        if self.found:
            return
        try:
            with reading(event.session_id):
                result = self._state.apply(event)
                if isinstance(result, Gap):
                    raise InvalidBody(f"the log does not add up: {result}")
        except CorruptSession as error:
            self.found.append(Violation("stored", event.offset, error.detail))


async def _check_records(log: EventLog, head: Head) -> list[Violation]:
    """What of the records, and of what is open, could not be read."""
    found: list[Violation] = []
    for prefix in READABLE:
        for key, body in (await log.records(head.session_id, head.epoch, prefix)).items():
            try:
                with reading(head.session_id):
                    check_record(key, body)
            except CorruptSession as error:
                found.append(Violation("stored", None, f"the record {key} cannot be read: {error.detail}"))
    if not found:
        try:
            await find(log, head, Config())
        except CorruptSession as error:
            found.append(Violation("stored", None, error.detail))
    return found


async def _claims(log: EventLog, head: Head) -> tuple[tuple[ClaimRecord, ...], list[Violation]]:
    """Who claimed the session up to its head, and what of that cannot be so (R10). One that cannot be read is none."""
    found: list[Violation] = []
    claims: list[ClaimRecord] = []
    last = 0
    for key, body in (await log.records(head.session_id, head.epoch, CLAIMS)).items():
        number = key.removeprefix(CLAIMS)
        token = int(number) if number.isdecimal() else 0
        if token > head.token:  # since the head was read
            break
        try:
            with reading(head.session_id):
                claim = read_record(body, ClaimRecord)
        except CorruptSession:
            continue
        if token % BLOCK or not token:
            found.append(Violation("R10", None, f"the claim {key} has no block's first token"))
        if claim.tail > head.tail or (claims and claim.tail < claims[-1].tail):
            found.append(
                Violation("R10", None, f"the claim {key} was made at {claim.tail}, which is no tail there was")
            )
        claims.append(claim)
        last = token
    if claims and head.owner not in ("", claims[-1].owner) and head.token // BLOCK == last // BLOCK:
        found.append(Violation("R10", None, f"the session is {head.owner}'s, and {claims[-1].owner} claimed it last"))
    return tuple(claims), found


async def _open(log: EventLog, head: Head) -> str | None:
    """The live generation, by the log's index."""
    body = await log.record(head.session_id, head.epoch, OPEN)
    with reading(head.session_id):
        return None if body is None else read_record(body, OpenRecord).generation_id
