"""Standing on what the log says: on opening a session, and after the log refused a write of it.

Owns what is found again, from its index and never by a full read: the last turn, the queue, and the generation that the
log holds open, whose structure is rebuilt from its events.
"""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Sequence
from typing import Final, final

import trio
from attrs import evolve, frozen

from ..config import Config
from ..errors import CorruptSession, InvalidBody, Moved, StaleError, StorageError, WentBack
from ..events import ApprovalRequested, Event, GenerationStarted, InputAccepted
from ..generation.inputs import Input
from ..generation.remote import REMOTE, RemoteProducer
from ..log.port import BLOCK, Claim, Entry, EventLog, Head, life_of
from ..rules.ending import SAFE_TEXTS, Ending
from ..rules.lifecycle import OpenGeneration
from ..rules.policy import Policy
from ..rules.queue import Queue
from ..rules.records import OPEN, QUEUED, SESSION, OpenRecord, SessionRecord, read_record
from ..rules.states import GenerationState, Outcome
from ..stream.aside import check_page, read_event, reading, sound
from ..stream.slices import SLICE
from .core import Core
from .starting import make_run
from .stops import STOPPED, StoppedRecord
from .transaction import StartRequest, ended

__all__ = ["Found", "claim_anew", "find", "retry", "settle", "used_up"]

logger = logging.getLogger("penstock.session")

# Tokens of a block that are left when the session is claimed anew: more than one step takes.
_LEFT: Final = 1024


@final
@frozen(kw_only=True)
class Found:
    """The session's last turn and queue, and the generation it holds open."""

    turn: int
    anew: bool
    queue: Queue
    open: OpenGeneration | None = None  # its structure, rebuilt from its events
    record: OpenRecord | None = None
    approvals: tuple[ApprovalRequested, ...] = ()  # those that are open
    inputs: tuple[Input, ...] = ()  # all that were taken in

    @property
    def remote(self) -> bool:
        """Whether the producer of what is open may go on: it is in another process, and nobody cancelled it."""
        return (
            self.record is not None
            and self.record.remote
            and self.open is not None
            and self.open.state is GenerationState.LIVE
        )


async def settle(
    core: Core, outcome: Outcome, code: str, *, keep_remote: bool = False, within: float = math.inf
) -> bool:
    """Stand on what is committed and end what it holds open; False when this life of the session is over.

    With ``keep_remote`` a remote generation stays open, for its producer to go on.

    Raises `CorruptSession`, `StorageError`, `Moved` when another engine has claimed the session, `WentBack` when it
    needs another epoch or has one, and `TimedOut` when the end was not committed ``within`` seconds.
    """
    head = await core.log.head(core.session_id)
    if head is None or head.deleted or life_of(head.epoch) != life_of(core.journal.epoch):
        return False
    if head.doubted or head.epoch != core.journal.epoch:
        raise WentBack("the store went back", session_id=core.session_id)
    if core.owner and head.owner != core.owner:
        raise Moved("another engine has the session", owner=head.owner, session_id=core.session_id)
    try:
        found = await find(core.log, head, core.config)
    except CorruptSession:
        # Several reads: another engine that claims and writes between them makes them disagree.
        if await core.log.head(core.session_id) == head:
            raise
        return await settle(core, outcome, code, keep_remote=keep_remote, within=within)
    core.journal.restart(head)
    core.history.stand_on(core.journal)
    core.journal.raise_token()
    core.turn, core.anew, core.queue = found.turn, found.anew, found.queue
    if core.owner:
        core.stops.restore(await core.history.known(STOPPED, StoppedRecord))
    if keep_remote and found.remote:
        with reading(core.session_id):
            _adopt(core, found)
    elif found.open is not None:
        ending = Ending(outcome=outcome, code=code, message=SAFE_TEXTS[outcome])
        with reading(core.session_id):
            mark = core.commit(ended(found.open, ending))
        await core.journal.wait_committed(mark, within)
    return True


async def retry(core: Core, outcome: Outcome, code: str) -> bool:
    """As `settle`, again and again until the log takes it; ever longer pauses, up to `Config.retry_max`.

    Raises `CorruptSession`, `Moved`, `WentBack`.
    """
    pause = core.config.retry_min
    while True:
        try:
            return await settle(core, outcome, code)
        except (CorruptSession, Moved, WentBack):
            raise  # it stays as it is
        except (StorageError, StaleError) as error:
            logger.warning("session %s: still cannot be written: %s", core.session_id, error)
            await trio.sleep(pause * random.uniform(0.5, 1.5))
            pause = min(2 * pause, core.config.retry_max)


def used_up(core: Core) -> bool:
    """Whether the session needs a new block of tokens, where it was given one."""
    return bool(core.owner) and core.journal.token % BLOCK >= BLOCK - _LEFT


async def claim_anew(core: Core) -> None:
    """Get a new block of tokens. What is written meanwhile waits. A step.

    Raises `StaleToken` when another engine has claimed the session, `StorageError`.
    """
    journal = core.journal
    async with journal.held():
        head = await core.log.head(core.session_id)
        if journal.refused is None and head is not None and head.owner == core.owner:
            claim = Claim(session_id=core.session_id, epoch=journal.epoch, seen=head.token, owner=core.owner)
            await core.log.write(claim)
            journal.token = claim.token


def _adopt(core: Core, found: Found) -> None:
    """Have a remote generation that the log holds open go on as the live one; it is to be launched."""
    assert found.open is not None
    assert found.record is not None
    request = StartRequest(
        generation_id=found.open.generation_id,
        proposed=True,
        producer=RemoteProducer(adopted=True),
        producer_name=REMOTE,
        registered=True,
        policy=Policy.REJECT,
        job_id=found.open.job_id,
        on_last_disconnect=found.record.on_last_disconnect,
        idle_limit=found.record.idle_limit,
    )
    run = make_run(core, found.open, request)
    for asked in found.approvals:
        run.approvals.note(asked)
    told = core.journal.listed
    if (told.running, told.approvals) != (found.open.generation_id, len(found.approvals)):  # of an older version
        told = evolve(told, running=found.open.generation_id, approvals=len(found.approvals))
        core.journal.summarize(told)
    for given in found.inputs:
        run.inputs.adopt(given, waiting=found.open.inputs.get(given.input_id, False))
    core.hold(run)


async def find(log: EventLog, head: Head, config: Config) -> Found:
    """What the log knows of a session. Reads two records and the open generation's pages.

    Raises `CorruptSession`, `StorageError`.
    """
    session_id = head.session_id
    sound(head)
    if not head.tail:
        raise CorruptSession("it has no events", session_id=session_id)
    session = await log.record(session_id, head.epoch, SESSION)
    standing = await log.record(session_id, head.epoch, QUEUED)
    waiting = {} if standing is None else await log.records(session_id, head.epoch, Queue.prefix())
    body = await log.record(session_id, head.epoch, OPEN)
    with reading(session_id):
        last = SessionRecord(turn=0) if session is None else read_record(session, SessionRecord)
        queue = Queue.load(waiting, standing)
        if body is None:
            return Found(turn=last.turn, anew=last.anew, queue=queue)
        record = read_record(body, OpenRecord)
        found = _Finding(record, head)
    while found.position < head.tail:
        entries = await log.read(
            session_id, head.epoch, after=found.position, limit=config.page_events, max_bytes=config.page_bytes
        )
        with reading(session_id):
            found.check(entries)
        for start in range(0, len(entries), SLICE):
            if start:
                await trio.lowlevel.checkpoint()
            with reading(session_id):
                found.take(entries[start : start + SLICE])
    with reading(session_id):
        return found.found(last, queue)


@final
class _Finding:
    """The open generation, found again from its events."""

    def __init__(self, record: OpenRecord, head: Head) -> None:
        if not 0 <= record.after < head.tail:
            raise InvalidBody(f"the index says that what is open begins behind offset {record.after}")
        self.position = record.after
        self._record = record
        self._tail = head.tail
        self._structure = OpenGeneration(record.generation_id, record.turn, record.job_id)
        self._started = False
        self._asked: dict[str, ApprovalRequested] = {}
        self._inputs: list[Input] = []

    def check(self, page: Sequence[Entry]) -> None:
        if not page:
            raise InvalidBody(f"the log ends at offset {self.position}, its index says {self._tail}")
        check_page(page, self.position)

    def take(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            event = read_event(entry)
            self._structure.replay(event)
            if event.generation_id == self._record.generation_id:
                self._take_own(event)
        self.position = entries[-1].offset

    def _take_own(self, event: Event) -> None:
        match event.data:
            case GenerationStarted():
                self._started = event.turn == self._record.turn
            case ApprovalRequested() as asked:
                self._asked[asked.approval_id] = asked
            case InputAccepted() as given:
                # A copy: without content it is no dict, and then JSON does not take it.
                self._inputs.append(Input(input_id=given.input_id, kind=given.kind, content=dict(given.extra)))
            case _:
                pass

    def found(self, last: SessionRecord, queue: Queue) -> Found:
        structure_ = self._structure
        if not self._started or structure_.state is GenerationState.FINISHED:
            raise InvalidBody(f"the index says that {structure_.generation_id} is open, the log does not")
        return Found(
            turn=max(last.turn, structure_.turn),
            anew=last.anew,
            queue=queue,
            open=structure_,
            record=self._record,
            approvals=tuple(self._asked[approval_id] for approval_id, open_ in structure_.approvals.items() if open_),
            inputs=tuple(self._inputs),
        )
