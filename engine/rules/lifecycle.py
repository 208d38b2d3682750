"""What may follow what inside a generation, and the seq it gets: first placed, then recorded.

A reader can trust the order of a generation's events: a block is opened before its first delta and closed before its
message, a message is closed before the generation finishes, and the events of a block are numbered without a hole.
`OpenGeneration` is where that is decided, for producers in this process and in others alike. It knows the structure of
one generation: which messages and blocks there are, which of them are open, the last seq of each block, which tool
calls have no result yet, which approvals and inputs are open. Of its content it knows no more than what each text
begins with, for lists of sessions show that.

A write happens in two moves:

    place(draft)     may it come now, and with which seq? changes nothing; raises `InvalidBody` or `StaleGeneration`
        │
    encode           the event's bytes; may be refused as well
        │
    record(draft)    carry it out; cannot fail
        │
    append           to the journal

With one move, an event that was allowed and then could not be encoded would leave a number that nobody has. With two,
what is refused has left no trace. What is placed:

    message.opened       with an id that the generation has not used
    block.opened         in an open message, with the next index; its seq is 0
    block.delta          of an open block, a piece that its kind takes; the next seq
    block.closed         of an open block; the next seq, and the last
    message.closed       of an open message that has no open block
    approvals, inputs    asked for or taken in once, and resolved, applied or returned once

Some writes consist of several drafts of which all count or none: a request of a remote producer, the end of a
generation with all that it closes. There each draft must be placed behind the ones before it, so those have to be
recorded already. Inside `OpenGeneration.trial` every change is noted with how to undo it (`changes`), and when the
block raises, they are undone. A trial costs what changes in it, not what the structure holds. Nobody else may record
meanwhile: it is held across a wait only where the fence is up (the end of a superseded generation).

The structure is never stored. After a crash, or after the log has refused a write, it is rebuilt by recording the
generation's stored events (`replay`), which need no placing: they were placed when they were written.

The states are one table (`states`): queued, live, cancelling, finished, and which event leads from which to which.
While it is cancelling a generation may still say things, for its clean-up runs; the fence, not the structure, is what
stops a producer that was superseded.

Deltas are nine of ten events. For them there is a short way, and each step of it says the same as the long one: a
block that is written piece by piece is found once (`block_for`), and each piece is placed by its block alone
(`place_piece`). Placing and recording cost the same however long the generation is.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Final, Literal, final

from attrs import define, evolve, field, frozen

from ..errors import InvalidBody, StaleGeneration
from ..events import (
    App,
    ApprovalRequested,
    ApprovalResolved,
    BlockClosed,
    BlockDelta,
    BlockOpened,
    BlockSnapshot,
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
    Version,
)
from .attachments import NAMING_KINDS, check_named
from .changes import Changes
from .states import GenerationState, next_state

__all__ = [
    "BLOCK_KINDS",
    "ROLES",
    "TOOL_KINDS",
    "BlockShape",
    "Draft",
    "MessageShape",
    "OpenGeneration",
    "Said",
    "WaitingGeneration",
    "check_kind",
    "first_words",
]

# Who can speak in a message.
ROLES: Final = ("assistant", "user", "tool", "system")

# What each kind's deltas may carry.
BLOCK_KINDS: Final[Mapping[str, frozenset[str]]] = {
    "text": frozenset({"text"}),
    "reasoning": frozenset({"text"}),
    "tool_call": frozenset({"arguments"}),
    "tool_result": frozenset({"text", "value"}),
    "data": frozenset({"value"}),
    **dict.fromkeys(NAMING_KINDS, frozenset()),
}

# The kinds that belong to a call of a tool, and name it.
TOOL_KINDS: Final = ("tool_call", "tool_result")


# Who says something that a list of sessions shows, and how much of it: code points, as they stand there and as shown.
_SPEAKERS: Final = frozenset({"user", "assistant"})
_BEGINNING: Final = 400
_SHOWN: Final = 100


@final
@frozen(kw_only=True)
class Said:
    """The first words of a message."""

    message_id: str
    role: str
    text: str


def first_words(message_id: str | None, role: str, texts: Iterable[str | None]) -> Said | None:
    """What a message of these texts begins with, in one line. None where it says nothing that is shown."""
    if message_id is None or role not in _SPEAKERS:
        return None
    for text in texts:
        words = " ".join((text or "")[:_BEGINNING].split())[:_SHOWN]
        if words:
            return Said(message_id=message_id, role=role, text=words)
    return None


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
@define
class BlockShape:
    """A block without its content, but for what a text begins with."""

    kind: str
    tool_call_id: str | None = None
    seq: int = 0  # of its last event
    open: bool = True
    begins: str = ""
    begun: bool = True  # nothing of what is still written belongs to that

    def begin(self, piece: str) -> None:
        """Take a piece of a text that has not `begun`."""
        self.begins = (self.begins + piece)[:_BEGINNING]
        self.begun = len(self.begins) == _BEGINNING


@final
@define
class MessageShape:
    """A message without its content. Nothing of a closed one changes any more."""

    number: int  # in the order they were opened
    role: str  # empty when it was retracted
    open: bool = True
    begins: str = ""  # of one that came whole, and has no blocks here
    blocks: list[BlockShape] = field(factory=list)
    open_blocks: dict[int, BlockShape] = field(factory=dict)  # by their index


@final
@define
class _Call:
    """A tool call: the message that it stands in, its block, and whether it has a result."""

    message_id: str
    block: BlockShape
    answered: bool = False


@final
@define
class OpenGeneration:
    """The structure of one generation that has started and not finished."""

    generation_id: str
    turn: int
    job_id: str | None = None
    state: GenerationState = GenerationState.LIVE
    continues: str | None = None  # the message that its first one goes on with
    question: str | None = None  # the user's message that came with its start, where that is known
    version: Version | None = None  # what its first message is
    _messages: dict[str, MessageShape] = field(factory=dict, init=False)
    _open_messages: dict[str, MessageShape] = field(factory=dict, init=False)
    _calls: dict[str, _Call] = field(factory=dict, init=False)
    _approvals: dict[str, bool] = field(factory=dict, init=False)  # id → still open
    _asked: dict[str, tuple[str | None, str | None]] = field(factory=dict, init=False)  # id → tool call, message
    _inputs: dict[str, bool] = field(factory=dict, init=False)
    _changes: Changes = field(factory=Changes, init=False, eq=False, repr=False)

    @property
    def messages(self) -> Mapping[str, MessageShape]:
        """Every message of this generation, in the order they were opened; to be looked at only."""
        return self._messages

    @property
    def open_messages(self) -> Mapping[str, MessageShape]:
        """Those that are open, in no order."""
        return self._open_messages

    @property
    def approvals(self) -> Mapping[str, bool]:
        """Every approval that was asked for, and whether it is open."""
        return self._approvals

    @property
    def asked_in(self) -> set[str | None]:
        """The messages that the approvals which are open stay with."""
        return {self._asked[approval_id][1] for approval_id, open_ in self._approvals.items() if open_}

    def resolving(self, resolved: ApprovalResolved) -> Draft:
        """What resolves an approval that was asked for: it names the tool call and bears the message of the request."""
        tool_call_id, message_id = self._asked[resolved.approval_id]
        return Draft(evolve(resolved, tool_call_id=tool_call_id), message_id)

    def asking(self, request: ApprovalRequested) -> Draft:
        """What asks for an approval: it bears the message of its tool call, else the newest one, else the question."""
        call = None if request.tool_call_id is None else self._calls.get(request.tool_call_id)
        return Draft(request, next(reversed(self._messages), self.question) if call is None else call.message_id)

    def opening(self, opened: MessageOpened) -> MessageOpened:
        """What opens a message: the first one says which version it is, and, if it is an answer, what it continues.

        No producer says which version it is.
        """
        first = not self._messages
        continues, version = opened.continues, self.version if first else None
        if first and continues is None and opened.role == "assistant":
            continues = self.continues
        if continues is opened.continues and version is opened.version:
            return opened
        return evolve(opened, continues=continues, version=version)

    @property
    def inputs(self) -> Mapping[str, bool]:
        """Every input that was taken in, and whether it is neither applied nor returned."""
        return self._inputs

    def trial(self) -> AbstractContextManager[None]:
        """What is recorded inside stays when the block ends, and leaves no trace when the block raises.

        Costs what is recorded, however much is open. Not to be nested; nobody else may record meanwhile.
        """
        return self._changes.trial()

    @property
    def message_ids(self) -> Collection[str]:
        """Every message of this generation, in the order they were opened; to be looked at only."""
        return self._messages.keys()

    def last_said(self) -> Said | None:
        """The first words of the last message that says something."""
        for message_id, message in reversed(self._messages.items()):
            if message.role not in _SPEAKERS:
                continue  # a tool's, or retracted: of these there may be any number
            texts = (message.begins, *(block.begins for block in message.blocks))
            said = first_words(message_id, message.role, texts)
            if said is not None:
                return said
        return None

    @property
    def calls(self) -> Mapping[str, str]:
        """Every tool call of this generation that has no result yet, with the message it stands in."""
        return {call_id: call.message_id for call_id, call in self._calls.items() if not call.answered}

    @property
    def awaits_result(self) -> bool:
        """Whether a tool call that is written to its end has no result yet."""
        return any(not call.answered and not call.block.open for call in self._calls.values())

    def next_block_index(self, message_id: str) -> int:
        """The index that the message's next block must have. Raises `InvalidBody` if the message is not open."""
        return len(self._open_message(message_id).blocks)

    def place(self, draft: Draft) -> int | None:
        """The seq that ``draft`` gets now, or None where it bears none. Changes nothing.

        Raises `InvalidBody` where the order of events does not allow it, `StaleGeneration` after the end.
        """
        self._check_live()
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
                if data.role not in ROLES:
                    raise InvalidBody(f"role must be one of {', '.join(ROLES)}, not {data.role!r:.80}")
                if _named(message_id) in self._messages:
                    raise InvalidBody("the message was opened before", message_id=message_id)
            case MessageClosed():
                if self._open_message(_named(message_id)).open_blocks:
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
        data, message_id, changes = draft.data, draft.message_id, self._changes
        match data:
            case BlockDelta():
                block = self._block(draft)
                changes.set(block, "seq", block.seq + 1)
                if not block.begun and data.text is not None:
                    begins = (block.begins + data.text)[:_BEGINNING]
                    changes.set(block, "begins", begins)
                    changes.set(block, "begun", len(begins) == _BEGINNING)
            case BlockClosed():
                assert draft.block_index is not None
                block = self._block(draft)
                changes.set(block, "seq", block.seq + 1)
                changes.set(block, "open", False)
                changes.drop(self._messages[_named(message_id)].open_blocks, draft.block_index)
            case BlockOpened():
                self._record_block(data, _named(message_id))
            case MessageOpened():
                message = MessageShape(number=len(self._messages), role=data.role)
                changes.put(self._messages, _named(message_id), message)
                changes.put(self._open_messages, _named(message_id), message)
            case MessageSnapshot():
                begins = next((block.text for block in data.blocks if block.kind == "text" and block.text), "")
                message = MessageShape(
                    number=len(self._messages), role=data.role, open=False, begins=begins[:_BEGINNING]
                )
                changes.put(self._messages, _named(message_id), message)
            case MessageClosed():
                changes.set(self._messages[_named(message_id)], "open", False)
                changes.drop(self._open_messages, _named(message_id))
            case MessageRetracted():
                changes.set(self._messages[_named(message_id)], "role", "")
            case ApprovalRequested():
                changes.put(self._approvals, data.approval_id, True)
                changes.put(self._asked, data.approval_id, (data.tool_call_id, message_id))
            case ApprovalResolved():
                changes.put(self._approvals, data.approval_id, False)
            case InputAccepted():
                changes.put(self._inputs, data.input_id, True)
            case InputApplied() | InputReturned():
                changes.put(self._inputs, data.input_id, False)
            case GenerationCancelling() | GenerationFinished():
                changes.set(self, "state", next_state(self.state, type(data)))
            case _:
                pass

    def _record_block(self, data: BlockOpened, message_id: str) -> None:
        message, changes = self._messages[message_id], self._changes
        block = BlockShape(data.kind, data.tool_call_id, begun=data.kind != "text")
        changes.put(message.open_blocks, len(message.blocks), block)
        changes.append(message.blocks, block)
        if data.tool_call_id is None:
            return
        if data.kind == "tool_call":
            changes.put(self._calls, data.tool_call_id, _Call(message_id, block))
        elif data.tool_call_id in self._calls:
            changes.set(self._calls[data.tool_call_id], "answered", True)

    def block_for(self, field: Literal["text", "arguments"], message_id: str, index: int) -> BlockShape:
        """The open block to be written with `place_piece`.

        Raises `InvalidBody`, also when it takes no such pieces, and `StaleGeneration` after the end.
        """
        self._check_live()
        block = self._open_block(message_id, index)
        _check_delta(block.kind, BlockDelta(text="") if field == "text" else BlockDelta(arguments=""))
        return block

    def place_piece(self, block: BlockShape) -> int:
        """As `place`, for a delta of a block that `block_for` gave. It is recorded by setting the block's seq."""
        if self.state is GenerationState.FINISHED:
            self._check_live()
        if not block.open:
            raise InvalidBody("the block is not open any more")
        return block.seq + 1

    def replay(self, event: Event) -> None:
        """Record a stored event of this generation; events of others are passed over."""
        if event.generation_id != self.generation_id:
            return
        if isinstance(event.data, GenerationStarted):
            self.continues, self.version = event.data.continues, event.data.version
        else:
            self.record(Draft(event.data, event.message_id, event.block_index))

    def _check_live(self) -> None:
        if self.state is GenerationState.FINISHED:
            raise StaleGeneration("the generation has ended", generation_id=self.generation_id)

    def _check_kind(self, data: BlockOpened) -> None:
        check_kind(data)
        if data.kind == "tool_call" and data.tool_call_id in self._calls:
            raise InvalidBody(f"the tool call {data.tool_call_id!r} was opened before")

    def _open_message(self, message_id: str) -> MessageShape:
        message = self._messages.get(message_id)
        if message is None or not message.open:
            raise InvalidBody("the message is not open in this generation", message_id=message_id)
        return message

    def _open_block(self, message_id: str | None, index: int | None) -> BlockShape:
        blocks = self._open_message(_named(message_id)).blocks
        if index is None or not 0 <= index < len(blocks) or not blocks[index].open:
            raise InvalidBody(f"block {index} of the message is not open", message_id=message_id)
        return blocks[index]

    def _block(self, draft: Draft) -> BlockShape:
        assert draft.message_id is not None
        assert draft.block_index is not None
        return self._messages[draft.message_id].blocks[draft.block_index]


def check_kind(block: BlockOpened | BlockSnapshot) -> None:
    """Raises `InvalidBody` for a kind that there is not, and for a block that does not say whose, or what, it is."""
    if block.kind not in BLOCK_KINDS:
        raise InvalidBody(f"kind must be one of {', '.join(BLOCK_KINDS)}, not {block.kind!r:.80}")
    if block.kind in TOOL_KINDS and not block.tool_call_id:
        raise InvalidBody(f"a {block.kind} block needs a tool_call_id")
    if block.kind == "tool_call" and not block.name:
        raise InvalidBody("a tool_call block needs the tool's name")
    check_named(block)


def _check_delta(kind: str, data: BlockDelta) -> None:
    allowed = BLOCK_KINDS[kind]
    if data.text is not None and data.arguments is data.value is None and "text" in allowed:
        return  # nearly all
    if not allowed:
        raise InvalidBody(f"a block of kind {kind} is opened and closed, and takes nothing in between")
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
