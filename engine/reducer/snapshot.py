"""What a session looks like at one cursor: frozen views, and their JSON as ``GET`` and the stream show it.

Owns the shape only. `state` makes snapshots and goes on from them; `content` is what grows meanwhile.
A field that does not apply is None here and absent in JSON; fields that this version does not know are ignored.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Self, final

from attrs import frozen

from ..codec import converter, encode_json, structure
from ..events import JSON, BlockOpened, BlockSnapshot, Cursor, JSONObject, Moment, Version

__all__ = [
    "ApprovalView",
    "BlockView",
    "GenerationInfo",
    "GenerationView",
    "InputView",
    "MessageView",
    "QueueView",
    "QueuedView",
    "ResolvedView",
    "Snapshot",
]


@final
@frozen(kw_only=True)
class BlockView:
    """One block. ``seq`` is the last one folded; ``arguments`` is text while a tool call streams, then its value.

    An image, a file or a source is one of the session's files, ``file_id``, or stands at ``url``.
    """

    kind: str
    seq: int
    open: bool = False
    text: str | None = None
    arguments: JSON = None
    value: JSON = None
    tool_call_id: str | None = None
    name: str | None = None
    is_error: bool | None = None
    media_type: str | None = None
    file_id: str | None = None
    url: str | None = None
    filename: str | None = None
    title: str | None = None

    @classmethod
    def opened(cls, said: BlockOpened | BlockSnapshot | BlockView) -> Self:
        """The block with nothing in it: what its opening says, which stays."""
        return cls(
            kind=said.kind,
            seq=0,
            tool_call_id=said.tool_call_id,
            name=said.name,
            media_type=said.media_type,
            file_id=said.file_id,
            url=said.url,
            filename=said.filename,
            title=said.title,
        )

    def whole(self) -> BlockSnapshot:
        """The block as a ``message.snapshot`` has it."""
        return BlockSnapshot(
            kind=self.kind,
            seq=self.seq,
            text=self.text,
            arguments=self.arguments,
            value=self.value,
            tool_call_id=self.tool_call_id,
            name=self.name,
            is_error=self.is_error,
            media_type=self.media_type,
            file_id=self.file_id,
            url=self.url,
            filename=self.filename,
            title=self.title,
        )


@final
@frozen(kw_only=True)
class ResolvedView:
    """How an approval was resolved. ``name`` is what was asked for, ``arguments`` are there if they were changed."""

    approval_id: str
    approved: bool
    tool_call_id: str | None = None
    name: str | None = None
    arguments: JSON = None
    reason: str | None = None
    by: str | None = None


@final
@frozen(kw_only=True)
class MessageView:
    """One message. ``status``: open, complete, cancelled or failed. ``blocks`` stand by their index.

    ``time`` is that of its first event, ``closed`` that of its end, both as events carry it; one that came whole has
    no end of its own. ``approvals`` are those that are resolved and whose events bear its id. ``author`` is who posted
    it, ``continues`` the message that it goes on with. ``version`` tells which one it is of a message that was
    regenerated, or edited and sent again.
    """

    message_id: str
    role: str
    status: str
    blocks: tuple[BlockView, ...]
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


@final
@frozen(kw_only=True)
class GenerationInfo:
    """Where a generation stands, and how it ended: ``outcome`` once it has finished, ``turn`` once it has started.

    ``message`` says why it did not complete, ``retryable`` whether the same may go well later, as far as is known.
    ``author`` is who started it. ``silent``: it has opened no message, and stands behind the message ``behind``, if
    there was one; ``version`` is what its message would be, where it answers anew.
    """

    generation_id: str
    state: Literal["queued", "live", "cancelling", "finished"]
    turn: int | None = None
    outcome: str | None = None
    code: str | None = None
    message: str | None = None
    retryable: bool | None = None
    usage: JSONObject | None = None
    author: str | None = None
    started: Moment | None = None
    finished: Moment | None = None
    silent: bool = False
    behind: str | None = None
    version: Version | None = None


@final
@frozen(kw_only=True)
class InputView:
    """An input taken in, neither applied nor returned yet."""

    input_id: str
    kind: str
    content: JSONObject | None = None


@final
@frozen(kw_only=True)
class GenerationView:
    """The live generation. ``status`` is the last one its producer told."""

    generation_id: str
    turn: int
    state: Literal["live", "cancelling"]
    job_id: str | None = None
    producer: str
    status: str | None = None
    metadata: JSONObject | None = None
    inputs: tuple[InputView, ...] = ()


@final
@frozen(kw_only=True)
class QueuedView:
    """A generation that waits; its place in the queue is its position."""

    generation_id: str
    producer: str
    policy: str
    job_id: str | None = None
    metadata: JSONObject | None = None
    text: str | None = None
    author: str | None = None


@final
@frozen(kw_only=True)
class QueueView:
    paused: bool
    items: tuple[QueuedView, ...]


@final
@frozen(kw_only=True)
class ApprovalView:
    """An approval asked for and not yet resolved."""

    approval_id: str
    generation_id: str | None = None
    message_id: str | None = None
    tool_call_id: str | None = None
    name: str | None = None
    arguments: JSON = None
    expires_at: str | None = None


@final
@frozen(kw_only=True)
class _Body:
    """The JSON's shape."""

    session_id: str
    cursor: str
    messages: tuple[MessageView, ...]
    generations: tuple[GenerationInfo, ...] = ()
    generation: GenerationView | None = None
    queue: QueueView
    approvals: tuple[ApprovalView, ...]
    metadata: JSONObject
    more: bool
    next: str | None = None


@final
@frozen(kw_only=True)
class Snapshot:
    """The fold of a session's log up to ``cursor``.

    ``messages`` are in order, the oldest first; ``more`` tells that older ones were left out, which are before the
    message ``next``. ``generations``, the oldest first, are those of the messages, the last one that started, and the
    newest that ended and wrote no message. ``turn`` is the last turn given; the JSON has it only while a generation is
    live, and reading it back yields 0 otherwise.
    """

    session_id: str
    cursor: Cursor
    messages: tuple[MessageView, ...]
    generation: GenerationView | None
    queue: QueueView
    approvals: tuple[ApprovalView, ...]
    metadata: JSONObject
    more: bool = False
    next: str | None = None
    turn: int = 0
    generations: tuple[GenerationInfo, ...] = ()

    def to_json(self) -> dict[str, JSON]:
        """The snapshot as ``GET`` answers it. What it holds belongs to the fold: do not change it."""
        return {
            "session_id": self.session_id,
            "cursor": str(self.cursor),
            "messages": [converter.unstructure(message) for message in self.messages],
            **self._beside(),
        }

    def encoded(self, messages: Sequence[bytes]) -> bytes:
        """The JSON of `to_json`, of which that of the ``messages`` is made."""
        head = encode_json({"session_id": self.session_id, "cursor": str(self.cursor)})
        return b'%b,"messages":[%b],%b' % (head[:-1], b",".join(messages), encode_json(self._beside())[1:])

    def _beside(self) -> dict[str, JSON]:
        made: dict[str, JSON] = {
            "generations": [converter.unstructure(generation) for generation in self.generations],
            "queue": {"paused": self.queue.paused, "items": [converter.unstructure(item) for item in self.queue.items]},
            "approvals": [converter.unstructure(approval) for approval in self.approvals],
            "metadata": dict(self.metadata),
            "more": self.more,
        }
        if self.next is not None:
            made["next"] = self.next
        if self.generation is not None:
            generation: dict[str, JSON] = converter.unstructure(self.generation)
            made["generation"] = generation
        return made

    @classmethod
    def from_json(cls, value: JSON) -> Self:
        """Read a snapshot back, strictly. Raises `InvalidBody` or `InvalidCursor`."""
        body = structure(value, _Body)
        generation = body.generation
        return cls(
            session_id=body.session_id,
            cursor=Cursor.parse(body.cursor),
            messages=body.messages,
            generations=body.generations,
            generation=generation,
            queue=body.queue,
            approvals=body.approvals,
            metadata=body.metadata,
            more=body.more,
            next=body.next,
            turn=0 if generation is None else generation.turn,
        )
