"""R1 to R5, R9 and C on one session's log, read once from the start.

The order of an end (R4) is `end_rules`'; that everything is closed, resolved and answered before
``generation.finished`` is checked here, at every end.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import final

from attrs import define, field

from ..events import (
    ApprovalRequested,
    ApprovalResolved,
    BlockClosed,
    BlockDelta,
    BlockOpened,
    Event,
    GenerationFinished,
    GenerationQueued,
    GenerationStarted,
    InputAccepted,
    InputApplied,
    InputReturned,
    MessageClosed,
    MessageOpened,
    MessageRetracted,
    MessageSnapshot,
    SessionReset,
)
from .end_rules import End
from .violation import Rule, Violation

__all__ = ["LogCheck", "assert_log", "check_log"]

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
_OF_A_BLOCK = (BlockOpened, BlockDelta, BlockClosed)
_OF_A_MESSAGE = (MessageOpened, MessageClosed, MessageSnapshot, MessageRetracted, *_OF_A_BLOCK)


def check_log(
    events: Sequence[Event], *, closed: bool = False, remote_stays: bool = False, compacted: bool = False
) -> list[Violation]:
    """What the log breaks, in the order of the log; empty when it keeps every rule.

    ``closed``: nothing may be left open at its end (R9); with ``remote_stays`` nothing but a remote generation, whose
    producer may go on with the next engine. ``compacted``: offsets may be missing where rule C allows it.
    """
    log = LogCheck(compacted=compacted)
    for event in events:
        log.read(event)
    log.end(closed=closed, remote_stays=remote_stays)
    return log.found


def assert_log(events: Sequence[Event], *, closed: bool = False, compacted: bool = False) -> None:
    """Raise AssertionError with everything that `check_log` finds."""
    found = check_log(events, closed=closed, compacted=compacted)
    if found:
        raise AssertionError("\n".join(["the log breaks its rules", *map(str, found)]))


@define
class _Block:
    seq: int
    open: bool = True


@define
class _Message:
    offset: int | None
    generation_id: str | None
    open: bool = True
    of_an_end: bool = False  # the engine wrote it at the end of a generation
    whole_at: int | None = None
    blocks: dict[int, _Block] = field(factory=dict)


@define
class _Generation:
    offset: int | None
    job_id: str | None
    turn: int | None = None  # None until it started
    remote: bool = False
    finished: bool = False
    end: End = field(factory=End)
    calls: set[str] = field(factory=set)  # the ids of its tool calls; some models count from 0 in every generation
    answered: set[str] = field(factory=set)

    @property
    def may_go_on(self) -> bool:
        """Whether its producer is in another process, and nobody has begun to end it."""
        return self.remote and not self.end.begun


@final
class LogCheck:
    """As `check_log`, for a log that is read page by page: `read` every event, then `end`; ``found`` has it all."""

    def __init__(self, *, compacted: bool = False) -> None:
        self.found: list[Violation] = []
        self._compacted = compacted
        self._session_id: str | None = None
        self._offset = 0
        self._at: int | None = None  # the offset of the event that is being read
        self._turn = 0
        self._live: str | None = None
        self._holes: list[tuple[int, int]] = []
        self._generations: dict[str, _Generation] = {}
        self._messages: dict[str, _Message] = {}
        self._approvals: dict[str, str | None] = {}
        self._inputs: dict[str, str | None] = {}

    def read(self, event: Event) -> None:
        """The next event."""
        self._at = event.offset
        self._check_offset(event)
        self._check_stamp(event)
        generation = self._check_generation(event)
        if generation is not None:
            self._check_end(event, generation)
        self._follow(event, generation)
        if generation is not None and isinstance(event.data, GenerationFinished):
            self._finish(event, event.data, generation)

    def end(self, *, closed: bool = False, remote_stays: bool = False) -> None:
        """There are no more; ``closed`` and ``remote_stays`` as in `check_log`."""
        self._at = None
        for first, last in self._holes:
            if not any(
                message.offset is not None
                and message.whole_at is not None
                and message.offset < first
                and last < message.whole_at
                for message in self._messages.values()
            ):
                self.found.append(Violation("R1", first, f"offsets {first} to {last} are missing"))
        for message_id, message in self._messages.items():
            if message.open and message.whole_at is not None:
                self._break("C", f"message {message_id} was compacted and is not closed")
        if not closed:
            return
        stays: str | None = None
        if self._live is not None and remote_stays and self._generations[self._live].may_go_on:
            stays = self._live
        elif self._live is not None:
            self.found.append(
                Violation("R9", self._generations[self._live].offset, f"generation {self._live} has no end")
            )
        for message_id, message in self._messages.items():
            if stays is not None and message.generation_id == stays:
                continue
            left = [f"block {index} of message {message_id}" for index in _open_blocks(message)]
            if message.open:
                left.append(f"message {message_id}")
            self.found.extend(Violation("R9", message.offset, f"{what} is left open") for what in left)

    def _break(self, rule: Rule, text: str) -> None:
        self.found.append(Violation(rule, self._at, text))

    def _check_offset(self, event: Event) -> None:
        offset = event.offset
        if offset is None:
            self._break("R1", f"a logged {event.type} has no offset")
            return
        if offset <= self._offset:
            self._break("R1", f"offset {offset} stands behind {self._offset}")
        elif offset > self._offset + 1:
            if self._compacted:
                self._holes.append((self._offset + 1, offset - 1))
            else:
                self._break("R1", f"offset {offset} stands where {self._offset + 1} had to")
        self._offset = max(self._offset, offset)

    def _check_stamp(self, event: Event) -> None:
        if self._session_id is None:
            self._session_id = event.session_id
        if event.session_id != self._session_id:
            self._break("R8", f"an event of session {event.session_id} in the log of {self._session_id}")
        if not _TIME.fullmatch(event.time):
            self._break("stamp", f"time {event.time!r} is not RFC 3339 in UTC with milliseconds")
        if event.generation_id is None:
            if event.type.startswith("generation."):
                self._break("stamp", f"{event.type} has no generation_id")
            if event.turn is not None or event.job_id is not None:
                self._break("stamp", f"{event.type} has a turn or a job_id without a generation_id")
        if isinstance(event.data, _OF_A_MESSAGE) and event.message_id is None:
            self._break("stamp", f"{event.type} has no message_id")
        of_a_block = isinstance(event.data, _OF_A_BLOCK)
        if of_a_block != (event.block_index is not None) or of_a_block != (event.seq is not None):
            self._break("stamp", f"{event.type} {'lacks' if of_a_block else 'bears'} a block_index or a seq")

    def _check_generation(self, event: Event) -> _Generation | None:
        """The generation whose stamp the event bears, if it may bear it."""
        generation_id = event.generation_id
        if generation_id is None:
            return None
        generation = self._generations.get(generation_id)
        match event.data:
            case GenerationQueued():
                if generation is not None:
                    self._break("R3", f"generation {generation_id} is queued, and was known before")
                else:
                    generation = self._generations[generation_id] = _Generation(event.offset, event.job_id)
            case GenerationStarted():
                generation = self._start(event, generation_id, generation)
            case _ if generation is None:
                self._break("R3", f"{event.type} of generation {generation_id}, which has not started")
                return None
            case _ if generation.finished:
                self._break("R3", f"{event.type} bears the stamp of generation {generation_id}, which has finished")
                return None
            case GenerationFinished():
                pass
            case _ if generation.turn is None:
                self._break("R3", f"{event.type} of generation {generation_id}, which has not started")
                return None
        if event.job_id != generation.job_id:
            self._break("stamp", f"job_id is {event.job_id}, that of its generation {generation.job_id}")
        if event.turn != generation.turn:
            self._break("R5", f"turn is {event.turn}, that of its generation {generation.turn}")
        return generation

    def _start(self, event: Event, generation_id: str, generation: _Generation | None) -> _Generation:
        if generation is None:
            generation = self._generations[generation_id] = _Generation(event.offset, event.job_id)
        elif generation.turn is not None or generation.finished:
            self._break("R3", f"generation {generation_id} starts again")
        if self._live is not None and self._live != generation_id:
            self._break("R5", f"generation {generation_id} starts while {self._live} is live")
        if event.turn is None:
            self._break("stamp", "generation.started has no turn")
        elif event.turn <= self._turn:
            self._break("R5", f"turn {event.turn} stands behind turn {self._turn}")
        self._turn = max(self._turn, event.turn or 0)
        generation.turn = event.turn
        generation.remote = isinstance(event.data, GenerationStarted) and event.data.producer == "remote"
        self._live = generation_id
        return generation

    def _follow(self, event: Event, generation: _Generation | None) -> None:
        data, message_id = event.data, event.message_id or ""
        match data:
            case MessageOpened():
                if message_id in self._messages:
                    self._break("R2", f"message {message_id} is opened again")
                message = self._messages[message_id] = _Message(event.offset, event.generation_id)
                message.of_an_end = generation is not None and generation.end.begun
            case MessageSnapshot():
                self._take_whole(event, data, message_id, generation)
            case MessageClosed():
                closing = self._message(event, message_id)
                if closing is not None:
                    closing.open = False
                    for index in _open_blocks(closing):
                        self._break("R2", f"message {message_id} is closed, its block {index} is not")
            case MessageRetracted():
                if message_id not in self._messages:
                    self._break("R2", f"message {message_id} is retracted and was never opened")
                elif self._messages[message_id].open:
                    self._break("R4", f"message {message_id} is retracted while it is open")
            case BlockOpened() | BlockDelta() | BlockClosed():
                self._follow_block(event, data, message_id, generation)
            case ApprovalRequested():
                self._approvals[data.approval_id] = event.generation_id
            case ApprovalResolved():
                self._settle(self._approvals, data.approval_id, "approval")
            case InputAccepted():
                self._inputs[data.input_id] = event.generation_id
            case InputApplied() | InputReturned():
                self._settle(self._inputs, data.input_id, "input")
            case SessionReset():
                if self._live is not None:
                    self._break("R4", f"the session is reset while generation {self._live} is live")
                self._approvals.clear()
            case _:
                pass

    def _settle(self, waiting: dict[str, str | None], id_: str, what: str) -> None:
        if id_ not in waiting:
            self._break("R4", f"{what} {id_} is settled and is not open")
        waiting.pop(id_, None)

    def _message(self, event: Event, message_id: str) -> _Message | None:
        message = self._messages.get(message_id)
        if message is None or not message.open:
            self._break("R2", f"{event.type} of message {message_id}, which is not open")
            return None
        if event.generation_id != message.generation_id:
            self._break("stamp", f"{event.type} bears another generation than its message {message_id}")
        return message

    def _follow_block(
        self,
        event: Event,
        data: BlockOpened | BlockDelta | BlockClosed,
        message_id: str,
        generation: _Generation | None,
    ) -> None:
        message = self._message(event, message_id)
        index, seq = event.block_index, event.seq
        if message is None or index is None or seq is None:
            return
        if message.whole_at is not None:
            self._break("C", f"{event.type} of message {message_id} behind its message.snapshot")
            return
        block = message.blocks.get(index)
        if isinstance(data, BlockOpened):
            if block is not None or index != len(message.blocks):
                self._break("R2", f"block {index} is opened where block {len(message.blocks)} had to be")
            if seq != 0:
                self._break("R2", f"block {index} is opened with seq {seq}")
            message.blocks[index] = _Block(seq)
            self._note_tool(data.kind, data.tool_call_id, message, generation)
            return
        if block is None:
            self._break("R2", f"{event.type} of block {index}, which was not opened")
            return
        if not block.open:
            self._break("R2", f"{event.type} of block {index}, which is closed")
        if seq != block.seq + 1:
            self._break("R2", f"seq {seq} stands where {block.seq + 1} had to")
        block.seq = seq
        if isinstance(data, BlockClosed):
            block.open = False
            if message.of_an_end and data.is_error is not True:
                self._break("R4", "the result that an end gives to a tool call is no error")

    def _take_whole(self, event: Event, data: MessageSnapshot, message_id: str, generation: _Generation | None) -> None:
        message = self._messages.get(message_id)
        if message is None:
            message = _Message(event.offset, event.generation_id, open=False)
            message.of_an_end = generation is not None and generation.end.begun
            self._messages[message_id] = message
        elif not self._compacted:
            self._break("C", f"a message.snapshot of message {message_id}, which was opened, in a log never compacted")
        elif not message.open:
            self._break("C", f"a message.snapshot of message {message_id} behind its end")
        else:
            for index, known in message.blocks.items():
                if index >= len(data.blocks) or data.blocks[index].seq < known.seq:
                    self._break("C", f"the message.snapshot of {message_id} has less than seq {known.seq} of {index}")
            message.whole_at = event.offset
        for index, block in enumerate(data.blocks):
            if index not in message.blocks:
                self._note_tool(block.kind, block.tool_call_id, message, generation)
            message.blocks[index] = _Block(block.seq, open=False)
            if message.of_an_end and block.is_error is not True:
                self._break("R4", "the result that an end gives to a tool call is no error")

    def _note_tool(
        self, kind: str, tool_call_id: str | None, message: _Message, generation: _Generation | None
    ) -> None:
        if message.of_an_end:
            known = generation is not None and tool_call_id in generation.calls
            if generation is None or kind != "tool_result" or not known or tool_call_id in generation.answered:
                self._break("R4", f"an end gives a {kind} for {tool_call_id}, which is no tool call without a result")
        if tool_call_id is None or generation is None:
            return
        if kind == "tool_result":
            generation.answered.add(tool_call_id)
        elif kind == "tool_call":
            generation.calls.add(tool_call_id)

    def _check_end(self, event: Event, generation: _Generation) -> None:
        message = self._messages.get(event.message_id or "")
        own = message is not None and message.of_an_end
        for text in generation.end.read(event, opened=message is not None, own=own):
            self._break("R4", text)

    def _finish(self, event: Event, data: GenerationFinished, generation: _Generation) -> None:
        generation.finished = True
        if self._live == event.generation_id:
            self._live = None
        for left in self._left_open(event.generation_id, generation):
            self._break("R4", f"the generation ends and {left}")
        for offset, text in generation.end.finish(data.outcome):
            self.found.append(Violation("R4", offset, text))

    def _left_open(self, generation_id: str | None, generation: _Generation) -> Iterator[str]:
        for what, waiting in (("approval", self._approvals), ("input", self._inputs)):
            for id_, of in waiting.items():
                if of == generation_id:
                    yield f"{what} {id_} is open"
        for message_id, message in self._messages.items():
            if message.generation_id == generation_id and message.open:
                yield f"message {message_id} is open"
        for tool_call_id in sorted(generation.calls):
            if tool_call_id not in generation.answered:
                yield f"tool call {tool_call_id} has no result"


def _open_blocks(message: _Message) -> list[int]:
    return [index for index, block in message.blocks.items() if block.open]
