"""What clients were told, held against what the log says in the end: every answer must have been true.

Owns what each kind of answer promises. The log is `KeptLog`'s, with the lives that are gone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import final

from attrs import define, field, frozen

from penstock.engine import (
    ApprovalResolved,
    Cursor,
    Draining,
    Event,
    GenerationFinished,
    GenerationQueued,
    GenerationStarted,
    InputAccepted,
    MessageOpened,
    MessageRetracted,
    MessageSnapshot,
    PenstockError,
    Posted,
    Queued,
    QueueNext,
    Restored,
    SessionForked,
    SessionReset,
    SessionUpdated,
    StaleError,
    Started,
    Stopped,
    StorageError,
    TimedOut,
    Updated,
    decode,
)
from penstock.engine.testing import KeptLog
from tests.engine.operations import (
    Delete,
    Fork,
    GiveInput,
    Operation,
    Post,
    Reset,
    Retract,
    Start,
    Stop,
)

__all__ = ["Ledger", "Told"]

# Behind these errors it is open what became of what was asked for.
_UNKNOWN = (StorageError, TimedOut, Draining, StaleError)


@final
@frozen
class Told:
    """One answer: to what, of which session, with the ids that were proposed, and when it was asked for and given."""

    operation: Operation
    session_id: str
    answer: object
    generation_id: str | None = None
    message_id: str | None = None
    asked_at: float = 0.0
    told_at: float = 0.0


@final
@define
class _Facts:
    """What one generation's log says of it."""

    queued: int | None = None
    started: int | None = None
    turn: int | None = None
    finished: int | None = None
    end: GenerationFinished | None = None


@final
@define
class _Life:
    events: Sequence[Event]
    generations: dict[str, _Facts] = field(factory=dict)

    def at(self, offset: int) -> Event | None:
        return self.events[offset - 1] if 1 <= offset <= len(self.events) else None


@final
class Ledger:
    """All that was told; `lies` says what was not so."""

    def __init__(self, log: KeptLog) -> None:
        self.told: list[Told] = []
        self.called: list[tuple[str, str]] = []  # session and generation of every call of a producer
        self.proposed: Counter[str] = Counter()  # ids of generations, by how many starts they were proposed
        self._log = log

    def lies(self) -> Iterator[str]:
        lives = {key: _read([decode(entry.body) for entry in self._log.kept(*key)]) for key in self._log.lives()}
        for told in self.told:
            for lie in self._check(told, lives):
                yield f"{told}: {lie}"
        first = [told for told in self.told if isinstance(told.answer, Started) and not told.answer.joined]
        made = [told.answer.generation_id for told in first if isinstance(told.answer, Started)]
        fresh = [
            told.answer.generation_id
            for told in first
            if isinstance(told.answer, Started) and not told.answer.repeated and told.generation_id is None
        ]
        if len(fresh) != len(set(fresh)):
            yield f"one generation was started for two who asked: {made}"
        for session_id, generation_id in self.called:
            found = [life.generations.get(generation_id) for key, life in lives.items() if key[0] == session_id]
            if not any(facts is not None and facts.started is not None for facts in found):
                yield f"the producer of generation {generation_id} ran, and the log knows no start of it"
        if len(self.called) != len(set(self.called)):
            # A proposed id may be used again in the next life of a session, and nowhere else.
            for call in {call for call in self.called if self.called.count(call) > 1}:
                held = sum(call[1] in life.generations for key, life in lives.items() if key[0] == call[0])
                if self.called.count(call) > held:
                    yield f"the producer of generation {call[1]} was called {self.called.count(call)} times"

    def _check(self, told: Told, lives: dict[tuple[str, str], _Life]) -> Iterator[str]:
        mine = [life for key, life in lives.items() if key[0] == told.session_id]
        answer = told.answer
        match answer:
            case Started() | Queued() | QueueNext() | Posted() | Updated() | Restored():
                life = lives.get((told.session_id, answer.cursor.epoch))
                if life is None or life.at(answer.cursor.offset) is None:
                    yield "its cursor is not in the log"
                else:
                    yield from _check_in(told, life)
            case Cursor():
                life = lives.get((told.session_id, answer.epoch))
                event = None if life is None else life.at(answer.offset)
                if event is None:
                    yield "its cursor is not in the log"
                elif (isinstance(told.operation, Reset) and not isinstance(event.data, SessionReset)) or (
                    isinstance(told.operation, Retract) and not isinstance(event.data, MessageRetracted)
                ):
                    yield f"what stands at its cursor is {event.type}"
            case Stopped():
                yield from _check_stopped(told, answer, mine)
            case PenstockError():
                if isinstance(told.operation, Start) and not isinstance(answer, _UNKNOWN):
                    yield from self._check_refused(told, answer, mine)
            case _:
                yield from self._check_rest(told, mine, lives)

    def _check_rest(self, told: Told, mine: list[_Life], lives: dict[tuple[str, str], _Life]) -> Iterator[str]:
        match told.operation:
            case GiveInput():
                if not any(
                    (isinstance(event.data, InputAccepted) and event.data.input_id == told.answer)
                    or (isinstance(event.data, ApprovalResolved) and told.operation.kind == "approval")
                    for life in mine
                    for event in life.events
                ):
                    yield "the input is not in the log"
            case Fork():
                if not any(
                    isinstance(life.events[0].data, SessionForked)
                    and life.events[0].data.source_session_id == told.session_id
                    for key, life in lives.items()
                    if key[0] == told.answer
                ):
                    yield "the fork is not in the log"
            case Delete() | _:
                pass

    def _check_refused(self, told: Told, error: PenstockError, mine: list[_Life]) -> Iterator[str]:
        """Nothing was written of a start that was refused."""
        if told.generation_id is None or self.proposed[told.generation_id] > 1:
            return
        if any(told.generation_id in life.generations for life in mine):
            yield f"{error.code} was raised, and the generation is in the log"


def _check_in(told: Told, life: _Life) -> Iterator[str]:
    """What stands in the life that the answer's cursor is of."""
    match told.answer:
        case Started() as started:
            facts = life.generations.get(started.generation_id, _Facts())
            offset = started.cursor.offset
            if facts.started is None or facts.started > offset or facts.turn != started.turn:
                yield f"the log says {facts}"
            elif started.joined:
                if facts.finished is not None and facts.finished <= offset:
                    yield f"it had ended, the log says {facts}"
            else:
                yield from _check_started(started, facts, life)
                if isinstance(told.operation, Start) and told.operation.policy == "rollback":
                    yield from _check_rolled_back(started, life)
        case Queued() as queued:
            facts = life.generations.get(queued.generation_id, _Facts())
            if facts.queued is None or facts.queued > queued.cursor.offset:
                yield f"the log says {facts}"
        case QueueNext() as following:
            if following.generation_id is not None:
                facts = life.generations.get(following.generation_id, _Facts())
                if facts.started is None or facts.started > following.cursor.offset:
                    yield f"the log says {facts}"
        case Posted() as posted:
            events = [
                e for e in life.events if isinstance(e.data, MessageSnapshot) and e.message_id == posted.message_id
            ]
            if not events or (posted.created and events[0].offset != posted.cursor.offset):
                yield f"the log has {events}"
            assert isinstance(told.operation, Post)
        case Restored() as restored:
            told_by = [e for e in life.events if e.offset is not None and e.offset <= restored.cursor.offset]
            came = {e.message_id for e in told_by if isinstance(e.data, MessageOpened | MessageSnapshot)}
            missing = [message_id for message_id in restored.message_ids if message_id not in came]
            if missing or not restored.message_ids:
                yield f"the messages {missing} are not in the log by then"
        case Updated() as updated:
            event = life.at(updated.cursor.offset)
            if event is None or event.data != SessionUpdated(metadata=updated.metadata):
                yield f"the log has {event}"
        case _:
            raise AssertionError(told)


def _check_started(started: Started, facts: _Facts, life: _Life) -> Iterator[str]:
    assert facts.started is not None
    if started.message_id is not None:
        before = life.at(facts.started - 1)
        if before is None or before.message_id != started.message_id:
            yield f"before the start stands {before}"
    if started.superseded is not None:
        old = life.generations.get(started.superseded.generation_id, _Facts())
        if (
            old.end is None
            or old.finished is None
            or old.finished > facts.started
            or (old.end.superseded_by, old.end.cleanup) != (started.generation_id, started.superseded.cleanup)
        ):
            yield f"the log says {old} of the one that was superseded"


def _check_rolled_back(started: Started, life: _Life) -> Iterator[str]:
    if started.superseded is None:
        return
    old = [e for e in life.events if e.generation_id == started.superseded.generation_id]
    said = {event.message_id for event in old if isinstance(event.data, MessageOpened | MessageSnapshot)}
    kept = said - {event.message_id for event in life.events if isinstance(event.data, MessageRetracted)}
    if kept:
        yield f"the messages {kept} of the one that was rolled back stand"


def _check_stopped(told: Told, stopped: Stopped, mine: list[_Life]) -> Iterator[str]:
    found = [life.generations[gid] for life in mine if (gid := stopped.generation_id) in life.generations]
    ends = [facts.end for facts in found if facts.end is not None]
    assert isinstance(told.operation, Stop)
    match stopped.state:
        case "stopped" | "stopping":
            cleanup = {"stopped": (None, "clean"), "stopping": ("overran",)}[stopped.state]
            if not any(end.outcome == "stopped" and end.cleanup in cleanup for end in ends):
                yield f"the log says {found}"
        case "already_done":
            if not ends:
                yield f"the log says {found}"
        case "pending":
            # Whatever begins with this id while the stop is remembered is stopped before it runs.
            for facts in found:
                if facts.queued is None and facts.started is None:
                    yield f"the log says {facts}"
        case "nothing_active":
            if stopped.generation_id is not None:
                yield "it names one all the same"


def _read(events: Sequence[Event]) -> _Life:
    life = _Life(events)
    for event in events:
        if event.generation_id is None:
            continue
        facts = life.generations.setdefault(event.generation_id, _Facts())
        match event.data:
            case GenerationQueued():
                facts.queued = event.offset
            case GenerationStarted():
                facts.started, facts.turn = event.offset, event.turn
            case GenerationFinished() as end:
                facts.finished, facts.end = event.offset, end
            case _:
                pass
    return life
