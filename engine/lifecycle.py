"""What may follow what inside a generation: seq, and the closing of what is open.

Owns the structure of one live generation (`OpenGeneration`), without its content. Nothing here waits or
stores. A write happens in two moves: `place` decides (and changes nothing), `record` carries it out, so
that an event that cannot be encoded leaves no hole. After a crash or a refused commit the structure is
rebuilt by recording the generation's stored events.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final, final

from attrs import define, field, frozen

from .errors import InvalidBody, StaleGeneration
from .events import (
    App,
    ApprovalRequested,
    ApprovalResolved,
    BlockClosed,
    BlockDelta,
    BlockOpened,
    Data,
    Event,
    GenerationCancelling,
    GenerationFinished,
    GenerationStarted,
    GenerationStatus,
    InputAccepted,
    InputApplied,
    InputReturned,
    MessageClosed,
    MessageOpened,
    MessageRetracted,
    MessageSnapshot,
)
from .states import OUTCOMES, GenerationState, next_state

__all__ = [
    "BLOCK_KINDS",
    "Draft",
    "Ending",
    "OpenGeneration",
    "WaitingGeneration",
]

# What each kind's deltas may carry.
BLOCK_KINDS: Final[Mapping[str, frozenset[str]]] = {
    "text": frozenset({"text"}),
    "reasoning": frozenset({"text"}),
    "tool_call": frozenset({"arguments"}),
    "tool_result": frozenset({"text", "value"}),
    "data": frozenset({"value"}),
}


@final
@define
class WaitingGeneration:
    """The structure of a generation that is queued: it has no turn and writes nothing itself."""

    generation_id: str
    job_id: str | None = None
    state: GenerationState | None = None
    turn: None = field(default=None, init=False)

    def place(self, draft: Draft) -> None:
        """Raises `InvalidBody` for an event that a queued generation does not take."""
        next_state(self.state, type(draft.data))

    def record(self, draft: Draft) -> None:
        self.state = next_state(self.state, type(draft.data))


@final
@frozen
class Draft:
    """An event before its stamp."""

    data: Data
    message_id: str | None = None
    block_index: int | None = None


@final
@frozen(kw_only=True)
class Ending:
    """How a generation ends. ``retract``: its messages leave the transcript (rollback)."""

    outcome: str
    code: str | None = None
    message: str | None = None
    superseded_by: str | None = None
    cleanup: str | None = None
    usage: Mapping[str, object] | None = None
    retract: bool = False


@define
class _Block:
    kind: str
    tool_call_id: str | None = None
    seq: int = 0  # of its last event
    open: bool = True


@define
class _Message:
    open: bool = True
    blocks: list[_Block] = field(factory=list)


@final
@define
class OpenGeneration:
    """The structure of one generation that has started and not finished."""

    generation_id: str
    turn: int
    job_id: str | None = None
    state: GenerationState = GenerationState.LIVE
    _messages: dict[str, _Message] = field(factory=dict, init=False)
    _calls: dict[str, str] = field(factory=dict, init=False)  # tool calls without a result → their message
    _call_ids: set[str] = field(factory=set, init=False)
    _approvals: dict[str, bool] = field(factory=dict, init=False)  # id → still open
    _inputs: dict[str, bool] = field(factory=dict, init=False)

    @property
    def message_ids(self) -> list[str]:
        """Every message of this generation, in the order they were opened."""
        return list(self._messages)

    @property
    def unanswered(self) -> bool:
        """Whether a tool call of this generation has no result yet."""
        return bool(self._calls)

    @property
    def awaits_result(self) -> bool:
        """Whether a tool call that is written to its end has no result yet."""
        return bool(self._calls) and any(
            block.tool_call_id in self._calls and not block.open and block.kind == "tool_call"
            for message in self._messages.values()
            for block in message.blocks
        )

    def next_block_index(self, message_id: str) -> int:
        """The index that the message's next block must have. Raises `InvalidBody` if the message is not open."""
        return len(self._open_message(message_id).blocks)

    def place(self, draft: Draft) -> int | None:
        """The seq that ``draft`` gets now, or None where it bears none. Changes nothing.

        Raises `InvalidBody` where the order of events does not allow it, `StaleGeneration` after the end.
        """
        if self.state is GenerationState.FINISHED:
            raise StaleGeneration("the generation has ended", generation_id=self.generation_id)
        data, message_id = draft.data, draft.message_id
        if type(data) is BlockDelta:  # nine of ten events
            block = self._open_block(message_id, draft.block_index)
            _check_delta(block.kind, data)
            return block.seq + 1
        match data:
            case BlockClosed():
                return self._open_block(message_id, draft.block_index).seq + 1
            case BlockOpened():
                if draft.block_index != self.next_block_index(_named(message_id)):
                    raise InvalidBody(f"the next block of this message is {self.next_block_index(_named(message_id))}")
                self._check_kind(data)
                return 0
            case MessageOpened() | MessageSnapshot():
                if _named(message_id) in self._messages:
                    raise InvalidBody("the message was opened before", message_id=message_id)
            case MessageClosed():
                if any(block.open for block in self._open_message(_named(message_id)).blocks):
                    raise InvalidBody("a block of the message is still open", message_id=message_id)
            case MessageRetracted():
                message = self._messages.get(_named(message_id))
                if message is None or message.open:
                    raise InvalidBody("only a closed message of this generation is retracted", message_id=message_id)
            case ApprovalRequested():
                _fresh(self._approvals, data.approval_id, "approval")
            case ApprovalResolved():
                _opened(self._approvals, data.approval_id, "approval")
            case InputAccepted():
                _fresh(self._inputs, data.input_id, "input")
            case InputApplied() | InputReturned():
                _opened(self._inputs, data.input_id, "input")
            case GenerationCancelling() | GenerationFinished():
                next_state(self.state, type(data))
            case GenerationStatus() | App():
                pass
            case _:
                raise InvalidBody(f"{data.type} is not an event of a live generation")
        return None

    def record(self, draft: Draft) -> None:
        """Carry out what `place` allowed."""
        data, message_id = draft.data, draft.message_id
        if type(data) is BlockDelta:
            self._block(draft).seq += 1
            return
        match data:
            case BlockClosed():
                block = self._block(draft)
                block.seq += 1
                block.open = False
            case BlockOpened():
                mid = _named(message_id)
                self._messages[mid].blocks.append(_Block(data.kind, data.tool_call_id))
                if data.tool_call_id is not None and data.kind == "tool_call":
                    self._calls[data.tool_call_id] = mid
                    self._call_ids.add(data.tool_call_id)
                elif data.tool_call_id is not None:
                    self._calls.pop(data.tool_call_id, None)
            case MessageOpened():
                self._messages[_named(message_id)] = _Message()
            case MessageSnapshot():
                self._messages[_named(message_id)] = _Message(open=False)
            case MessageClosed():
                self._messages[_named(message_id)].open = False
            case ApprovalRequested():
                self._approvals[data.approval_id] = True
            case ApprovalResolved():
                self._approvals[data.approval_id] = False
            case InputAccepted():
                self._inputs[data.input_id] = True
            case InputApplied() | InputReturned():
                self._inputs[data.input_id] = False
            case GenerationCancelling() | GenerationFinished():
                self.state = next_state(self.state, type(data))
            case _:
                pass

    def replay(self, event: Event) -> None:
        """Record a stored event of this generation; events of others are passed over."""
        if event.generation_id == self.generation_id and type(event.data) is not GenerationStarted:
            self.record(Draft(event.data, event.message_id, event.block_index))

    def closing(self, ending: Ending, *, new_message_id: Callable[[], str]) -> Iterator[Draft]:
        """The drafts that end this generation: what is open is closed, in the order of rule R4, then `finished`.

        Every draft is to be placed and recorded before the next one is asked for.
        """
        status = OUTCOMES[ending.outcome]
        for approval_id in [a for a, still in self._approvals.items() if still]:
            yield Draft(ApprovalResolved(approval_id=approval_id, approved=False, reason=ending.outcome))
        for input_id in [i for i, still in self._inputs.items() if still]:
            yield Draft(InputReturned(input_id=input_id))
        for message_id, message in self._messages.items():
            for index, block in enumerate(message.blocks):
                if block.open:
                    yield Draft(BlockClosed(), message_id, index)
        for message_id, message in self._messages.items():
            if message.open:
                yield Draft(MessageClosed(status=status, finish_reason=ending.outcome), message_id)
        if self._calls:
            yield from self._results(status, ending.outcome, new_message_id())
        if ending.retract:
            for message_id in self.message_ids:
                yield Draft(MessageRetracted(reason=ending.outcome), message_id)
        yield Draft(
            GenerationFinished(
                outcome=ending.outcome,
                code=ending.code,
                message=ending.message,
                superseded_by=ending.superseded_by,
                cleanup=ending.cleanup,
                usage=ending.usage,  # type: ignore[arg-type]
            )
        )

    def _results(self, status: str, outcome: str, message_id: str) -> Iterator[Draft]:
        """A result for every call that has none: model providers refuse a transcript with a dangling call."""
        calls = dict(self._calls)
        yield Draft(MessageOpened(role="tool", parent_message_id=next(reversed(calls.values()))), message_id)
        for index, call in enumerate(calls):
            yield Draft(BlockOpened(kind="tool_result", tool_call_id=call), message_id, index)
            yield Draft(
                BlockClosed(text=f"No result: the answer ended as {outcome}.", is_error=True), message_id, index
            )
        yield Draft(MessageClosed(status=status), message_id)

    def _check_kind(self, data: BlockOpened) -> None:
        if data.kind not in BLOCK_KINDS:
            raise InvalidBody(f"kind must be one of {', '.join(BLOCK_KINDS)}, not {data.kind!r}")
        if data.kind in ("tool_call", "tool_result") and not data.tool_call_id:
            raise InvalidBody(f"a {data.kind} block needs a tool_call_id")
        if data.kind == "tool_call" and not data.name:
            raise InvalidBody("a tool_call block needs the tool's name")
        if data.kind == "tool_call" and data.tool_call_id in self._call_ids:
            raise InvalidBody(f"the tool call {data.tool_call_id!r} was opened before")

    def _open_message(self, message_id: str) -> _Message:
        message = self._messages.get(message_id)
        if message is None or not message.open:
            raise InvalidBody("the message is not open in this generation", message_id=message_id)
        return message

    def _open_block(self, message_id: str | None, index: int | None) -> _Block:
        blocks = self._open_message(_named(message_id)).blocks
        if index is None or not 0 <= index < len(blocks) or not blocks[index].open:
            raise InvalidBody(f"block {index} of the message is not open", message_id=message_id)
        return blocks[index]

    def _block(self, draft: Draft) -> _Block:
        assert draft.message_id is not None
        assert draft.block_index is not None
        return self._messages[draft.message_id].blocks[draft.block_index]


def _check_delta(kind: str, data: BlockDelta) -> None:
    allowed = BLOCK_KINDS[kind]
    given = 0
    for name, value in (("text", data.text), ("arguments", data.arguments), ("value", data.value)):
        if value is not None:
            given += 1
            if name not in allowed:
                raise InvalidBody(f"a {kind} block takes {' or '.join(sorted(allowed))}, not {name}")
    if given != 1:
        raise InvalidBody(f"a delta of a {kind} block carries one of {', '.join(sorted(allowed))}")


def _named(message_id: str | None) -> str:
    if message_id is None:
        raise InvalidBody("the event needs a message_id")
    return message_id


def _fresh(known: Mapping[str, bool], id_: str, what: str) -> None:
    if id_ in known:
        raise InvalidBody(f"the {what} {id_!r} was opened before")


def _opened(known: Mapping[str, bool], id_: str, what: str) -> None:
    if not known.get(id_):
        raise InvalidBody(f"no open {what} {id_!r}")
