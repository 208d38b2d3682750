"""What the log still holds open: found again after a crash or a refused write, from its index, never by a full read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import trio
from attrs import frozen

from ..aside import check_page, read_event, reading, sound
from ..config import Config
from ..errors import CorruptSession, InvalidBody
from ..events import ApprovalRequested, Event, GenerationStarted, InputAccepted
from ..generation.inputs import Input
from ..log.port import Entry, EventLog, Head
from ..rules.lifecycle import OpenGeneration
from ..rules.queue import Queue
from ..rules.records import OPEN, QUEUED, SESSION, OpenRecord, SessionRecord, read_record
from ..rules.states import GenerationState
from ..slices import SLICE

__all__ = ["Found", "find"]


@final
@frozen(kw_only=True)
class Found:
    """The session's last turn and queue, and the generation it holds open."""

    turn: int
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
        turn = 0 if session is None else read_record(session, SessionRecord).turn
        queue = Queue.load(waiting, standing)
        if body is None:
            return Found(turn=turn, queue=queue)
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
        return found.found(turn, queue)


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

    def found(self, turn: int, queue: Queue) -> Found:
        structure_ = self._structure
        if not self._started or structure_.state is GenerationState.FINISHED:
            raise InvalidBody(f"the index says that {structure_.generation_id} is open, the log does not")
        return Found(
            turn=max(turn, structure_.turn),
            queue=queue,
            open=structure_,
            record=self._record,
            approvals=tuple(self._asked[approval_id] for approval_id, open_ in structure_.approvals.items() if open_),
            inputs=tuple(self._inputs),
        )
