"""A message while it grows, and what is kept of one whose content is not in memory any more.

Owns what content looks like inside the fold; which event may change it is `transcript`'s. Pieces of text are kept
as they came and joined when somebody looks, so that a message of a million deltas costs a million appends. The
view of a message or of a block that did not change is kept.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import ClassVar, Final, Self, final

from attrs import define, evolve, field, frozen

from ..events import (
    JSON,
    BlockClosed,
    BlockDelta,
    BlockSnapshot,
    Event,
    GenerationFinished,
    GenerationStarted,
    JSONObject,
    Version,
)
from ..work import Work, at_once, emptying
from .generations import GenerationPlace, GrowingGeneration
from .snapshot import BlockView, MessageView, ResolvedView

__all__ = ["Again", "Evicted", "GrowingBlock", "GrowingMessage", "Missing"]

# Bytes that a message and a block take beside what they say, with the views of them (measured with `sys.getsizeof`).
_MESSAGE: Final = 1024
_BLOCK: Final = 768

# Values inside a JSON value that are weighed in one bit of work.
_WEIGHED: Final = 64


def _joined(pieces: list[str]) -> str | None:
    if len(pieces) > 1:
        pieces[:] = ["".join(pieces)]
    return pieces[0] if pieces else None


@final
@define(kw_only=True, eq=False)
class GrowingBlock:
    """A block and its watermark ``seq``. ``arguments`` are pieces until a value stands in ``parsed``.

    ``head`` is what its opening said, and nothing that came since. Whoever changes the block sets ``kept`` to None.
    """

    head: BlockView
    seq: int
    open: bool
    is_error: bool | None = None
    text: list[str] = field(factory=list)
    arguments: list[str] = field(factory=list)
    parsed: JSON = None
    value: JSON = None
    kept: BlockView | None = None

    @classmethod
    def of(cls, content: BlockView | BlockSnapshot) -> Self:
        """The block with this content; a block of a ``message.snapshot`` is closed."""
        is_open = isinstance(content, BlockView) and content.open
        arguments = content.arguments
        pieces = [arguments] if is_open and isinstance(arguments, str) else []
        return cls(
            head=BlockView.opened(content),
            seq=content.seq,
            open=is_open,
            is_error=content.is_error,
            text=[] if content.text is None else [content.text],
            arguments=pieces,
            parsed=None if pieces else arguments,
            value=content.value,
        )

    def add(self, delta: BlockDelta) -> None:
        if delta.text is not None:
            self.text.append(delta.text)
        if delta.arguments is not None:
            self.arguments.append(delta.arguments)
        if delta.value is not None:
            self.value = delta.value

    def close(self, final_: BlockClosed) -> None:
        self.open = False
        if final_.text is not None:
            self.text = [final_.text]
        if final_.arguments is not None:
            self.parsed = final_.arguments
            self.arguments = []
        if final_.value is not None:
            self.value = final_.value
        if final_.is_error is not None:
            self.is_error = final_.is_error

    def weighing(self) -> Work[int]:
        """About how many bytes it takes in memory."""
        weight = _BLOCK + sys.getsizeof(_joined(self.text)) + sys.getsizeof(_joined(self.arguments))
        for value in (self.parsed, self.value):
            if value is not None:
                weight += yield from _weighing(value)
        return weight

    def view(self) -> BlockView:
        if self.kept is None:
            self.kept = evolve(
                self.head,
                seq=self.seq,
                open=self.open,
                text=_joined(self.text),
                arguments=_joined(self.arguments) if self.parsed is None else self.parsed,
                value=self.value,
                is_error=self.is_error,
            )
        return self.kept


@final
@define(kw_only=True, eq=False)
class GrowingMessage:
    """A message. Whoever changes it or one of its blocks sets ``kept`` to None.

    ``whole``: a ``message.snapshot`` gave the content, no block event of it will come any more. ``first`` and ``last``
    are the offsets between which the log has all of it, 0 where it was taken from a snapshot. ``ordinal`` is above that
    of the message before it: ``first``, where the log has it. ``weight`` is about how many bytes it takes in memory, 0
    until that was worked out. ``by`` is the generation that wrote it, where that is known.
    """

    message_id: str
    role: str
    status: str = "open"
    blocks: list[GrowingBlock] = field(factory=list)
    parent_message_id: str | None = None
    metadata: JSONObject | None = None
    generation_id: str | None = None
    turn: int | None = None
    job_id: str | None = None
    finish_reason: str | None = None
    usage: JSONObject | None = None
    time: str | None = None
    closed: str | None = None
    author: str | None = None
    continues: str | None = None
    version: Version | None = None
    approvals: tuple[ResolvedView, ...] = ()
    by: GrowingGeneration | None = None
    whole: bool = False
    ordinal: int = 0
    first: int = 0
    last: int = 0
    weight: int = 0
    kept: MessageView | None = None

    @classmethod
    def of(cls, view: MessageView) -> Self:
        return cls(
            message_id=view.message_id,
            role=view.role,
            status=view.status,
            blocks=[GrowingBlock.of(block) for block in view.blocks],
            parent_message_id=view.parent_message_id,
            metadata=view.metadata,
            generation_id=view.generation_id,
            turn=view.turn,
            job_id=view.job_id,
            finish_reason=view.finish_reason,
            usage=view.usage,
            time=view.time,
            closed=view.closed,
            author=view.author,
            continues=view.continues,
            version=view.version,
            approvals=view.approvals,
        )

    @property
    def open(self) -> bool:
        return self.status == "open"

    def view(self) -> MessageView:
        return at_once(self.viewing())

    def viewing(self) -> Work[MessageView]:
        """`view`, block by block. Nothing may change meanwhile."""
        if self.kept is None:
            blocks: list[BlockView] = []
            for block in self.blocks:
                blocks.append(block.view())
                yield
            self.kept = MessageView(
                message_id=self.message_id,
                role=self.role,
                status=self.status,
                blocks=tuple(blocks),
                parent_message_id=self.parent_message_id,
                metadata=self.metadata,
                generation_id=self.generation_id,
                turn=self.turn,
                job_id=self.job_id,
                finish_reason=self.finish_reason,
                usage=self.usage,
                time=self.time,
                closed=self.closed,
                author=self.author,
                continues=self.continues,
                version=self.version,
                approvals=self.approvals,
            )
        return self.kept

    def weighing(self) -> Work[int]:
        """About how many bytes it takes in memory. Nothing may change meanwhile."""
        weight = _MESSAGE + _BLOCK * len(self.approvals)
        for block in self.blocks:
            weight += yield from block.weighing()
            yield
        for value in (self.metadata, self.usage, *(resolved.arguments for resolved in self.approvals)):
            if value is not None:
                weight += yield from _weighing(value)
        return weight

    def dismantling(self) -> Work[None]:
        """Let go of the content, bit by bit: of a large one, all at once takes long."""
        self.kept = None
        while self.blocks:
            self.blocks.pop()
            yield


@final
@frozen(kw_only=True)
class Evicted:
    """The place of a closed message whose content is not in memory: the offsets between which the log has it."""

    message_id: str
    first: int
    last: int
    weight: int

    open: ClassVar[bool] = False

    @property
    def ordinal(self) -> int:
        return self.first


@final
@define
class Again:
    """What somebody has read again, by the ids: messages, and generations that have ended."""

    messages: dict[str, GrowingMessage] = field(factory=dict)
    generations: dict[str, GrowingGeneration] = field(factory=dict)
    _begun: dict[str, GrowingGeneration] = field(factory=dict, init=False)

    def note(self, event: Event, epoch: str) -> None:
        """An event that was passed: it may tell how a generation began, or ended."""
        generation_id = event.generation_id or ""
        match event.data:
            case GenerationStarted() as data:
                self._begun[generation_id] = GrowingGeneration.begin(event, data, epoch)
            case GenerationFinished() as data if generation_id in self._begun:
                ended = self.generations[generation_id] = self._begun.pop(generation_id)
                ended.end(event, data, epoch)
            case _:
                pass

    def dismantling(self) -> Work[None]:
        """Let go of it, bit by bit: of so much, all at once takes long."""
        while self.messages:
            _, message = self.messages.popitem()
            yield from message.dismantling()
            yield
        yield from emptying(self.generations)


@final
class Missing(Exception):
    """What somebody must read again before a snapshot can be made: messages, in order, or generations."""

    def __init__(self, messages: Sequence[Evicted] = (), generations: Sequence[GenerationPlace] = ()) -> None:
        super().__init__("what a snapshot needs is not in memory")
        self.messages: Final = messages
        self.generations: Final = generations


def _weighing(value: JSON) -> Work[int]:
    """About how many bytes a JSON value takes in memory."""
    weight = 0
    left: list[JSON] = [value]
    while left:
        for _ in range(min(len(left), _WEIGHED)):
            one = left.pop()
            weight += sys.getsizeof(one)
            if isinstance(one, Mapping):
                left += one  # its keys
                left += one.values()
            elif isinstance(one, Sequence) and not isinstance(one, str):
                left += one
        yield
    return weight
