"""What the log still holds open: found again after a crash or a refused write, from its index, never by a full read."""

from __future__ import annotations

from typing import final

import trio
from attrs import frozen

from .codec import decode
from .config import Config
from .errors import CorruptDatabase
from .events import ApprovalRequested, InputAccepted
from .inputs import Input
from .lifecycle import OpenGeneration
from .log.port import EventLog, Head
from .records import OPEN, QUEUED, SESSION, OpenRecord, SessionRecord, read_record
from .slices import SLICE
from .states import GenerationState
from .waiting import Queue

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
    """What the log knows of a session. Reads two records and the open generation's pages. Raises `StorageError`."""
    session = await log.record(head.session_id, head.epoch, SESSION)
    turn = 0 if session is None else read_record(session, SessionRecord).turn
    standing = await log.record(head.session_id, head.epoch, QUEUED)
    waiting = {} if standing is None else await log.records(head.session_id, head.epoch, Queue.prefix())
    queue = Queue.load(waiting, standing)
    body = await log.record(head.session_id, head.epoch, OPEN)
    if body is None:
        return Found(turn=turn, queue=queue)
    record = read_record(body, OpenRecord)
    structure_ = OpenGeneration(record.generation_id, record.turn, record.job_id)
    asked: dict[str, ApprovalRequested] = {}
    inputs: list[Input] = []
    position = record.after
    while position < head.tail:
        entries = await log.read(
            head.session_id, head.epoch, after=position, limit=config.page_events, max_bytes=config.page_bytes
        )
        if not entries:
            raise CorruptDatabase(
                f"the log ends at offset {position}, its index says {head.tail}", session_id=head.session_id
            )
        for number, entry in enumerate(entries, 1):
            if number % SLICE == 0:
                await trio.lowlevel.checkpoint()
            event = decode(entry.body)
            structure_.replay(event)
            if event.generation_id == record.generation_id and isinstance(event.data, ApprovalRequested):
                asked[event.data.approval_id] = event.data
            elif event.generation_id == record.generation_id and isinstance(event.data, InputAccepted):
                data = event.data
                # A copy: without content it is no dict, and then JSON does not take it.
                inputs.append(Input(input_id=data.input_id, kind=data.kind, content=dict(data.extra)))
        position = entries[-1].offset
    return Found(
        turn=turn,
        queue=queue,
        open=structure_,
        record=record,
        approvals=tuple(asked[approval_id] for approval_id, open_ in structure_.approvals.items() if open_),
        inputs=tuple(inputs),
    )
