"""Valid random logs, written by a small generator that shares nothing with the engine but the event types.

`logs()` draws whole sessions: generations, interleaved blocks, tool calls, approvals, inputs, supersedes, posts,
resets, retractions, versions that are restored, queues. `compact()` swaps the block events of closed messages for
snapshots, as rule C says.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from attrs import define, evolve, field, fields
from hypothesis import strategies as st

from penstock.engine.events import (
    JSON,
    App,
    ApprovalRequested,
    ApprovalResolved,
    BlockClosed,
    BlockDelta,
    BlockOpened,
    BlockSnapshot,
    Cursor,
    Data,
    Event,
    ForkedGeneration,
    GenerationCancelling,
    GenerationFinished,
    GenerationQueued,
    GenerationStarted,
    GenerationStatus,
    InputAccepted,
    InputApplied,
    InputReturned,
    MessageClosed,
    MessageOpened,
    MessageRetracted,
    MessageSnapshot,
    Moment,
    QueuePaused,
    QueueResumed,
    SessionCreated,
    SessionForked,
    SessionReset,
    SessionUpdated,
    Unknown,
    Version,
)

__all__ = ["EPOCH", "SESSION", "compact", "json_objects", "json_values", "logs"]

SESSION = "s-1"
EPOCH = "e1"

_texts = st.text(max_size=6)
json_values: st.SearchStrategy[JSON] = st.recursive(
    st.booleans() | st.integers(-9, 9) | st.floats(allow_nan=False, allow_infinity=False) | _texts,
    lambda inner: st.lists(inner | st.none(), max_size=2) | st.dictionaries(_texts, inner | st.none(), max_size=2),
    max_leaves=4,
)
json_objects: st.SearchStrategy[dict[str, JSON]] = st.dictionaries(_texts, json_values, max_size=2)

_versions = st.none() | st.builds(Version, of=st.just("first"), index=st.integers(1, 3), count=st.just(3))

# Kinds of blocks that are opened and closed, with nothing in between.
NAMING = ("image", "file", "source")

_CANCELLED = {"superseded", "stopped", "shutdown", "reset"}


@define
class _Block:
    kind: str
    seq: int = 0
    open: bool = True


@define
class _Message:
    message_id: str
    blocks: list[_Block] = field(factory=list)

    @property
    def open_blocks(self) -> list[int]:
        return [index for index, block in enumerate(self.blocks) if block.open]


@define
class _Generation:
    generation_id: str
    job_id: str | None
    turn: int | None = None
    messages: list[str] = field(factory=list)
    open: list[_Message] = field(factory=list)
    calls: list[str] = field(factory=list)  # without a result
    approvals: list[str] = field(factory=list)
    inputs: list[str] = field(factory=list)
    author: str | None = None
    started: Moment | None = None


class _Session:
    """Writes a session step by step; `steps` says which steps are possible now."""

    def __init__(self, draw: st.DrawFn, epoch: str) -> None:
        self.draw = draw
        self.epoch = epoch
        self.ended: list[ForkedGeneration] = []
        self.events: list[Event] = []
        self.live: _Generation | None = None
        self.queue: list[_Generation] = []
        self.closed: list[str] = []  # messages that may be retracted
        self.turn = 0
        self.paused = False
        self.of_approvals: dict[str, str | None] = {}  # the message of each
        self.ids = 0
        if draw(st.booleans()):
            self.put(SessionCreated(metadata=draw(json_objects)))
        else:
            self.put(SessionForked(source_session_id="s-0", source_cursor="e-0000000000000007", metadata={}))
            for _ in range(draw(st.integers(1, 3))):
                self.post(source=True)

    def put(
        self, data: Data, of: _Generation | None = None, message_id: str | None = None, index: int | None = None
    ) -> None:
        seq = None
        if index is not None:
            assert of is not None
            message = next(m for m in of.open if m.message_id == message_id)
            block = message.blocks[index]
            seq = block.seq
        self.events.append(
            Event(
                data=data,
                session_id=SESSION,
                offset=len(self.events) + 1,
                time=f"2025-03-01T10:00:{len(self.events) % 60:02d}.000Z",
                generation_id=of.generation_id if of else None,
                turn=of.turn if of else None,
                job_id=of.job_id if of else None,
                message_id=message_id,
                block_index=index,
                seq=seq,
            )
        )

    def new_id(self) -> str:
        self.ids += 1
        return f"00000000-0000-7000-8000-{self.ids:012x}"

    # What may happen at any time

    def post(self, *, source: bool = False, wrote: ForkedGeneration | None = None) -> None:
        """With ``source`` as a fork begins with it; with ``wrote`` as a version is restored."""
        kinds = self.draw(st.lists(st.sampled_from(["text", "data"]), max_size=2))
        blocks = tuple(
            BlockSnapshot(kind="text", seq=1, text=self.draw(_texts))
            if kind == "text"
            else BlockSnapshot(kind="data", seq=0, value=self.draw(json_values))
            for kind in kinds
        )
        message_id = self.new_id()
        role = self.draw(st.sampled_from(["user", "system"]))
        metadata = self.draw(st.none() | json_objects)
        said = MessageSnapshot(
            role=role, status="complete", blocks=blocks, metadata=metadata, author=self.draw(st.none() | st.just("ann"))
        )
        if wrote is not None:
            said = evolve(said, generation=wrote, version=self.draw(_versions))
        if source:
            others = st.sampled_from([_forked(1, "superseded"), _forked(2, "failed")])
            said = evolve(said, generation=self.draw(st.none() | others))
            if self.draw(st.booleans()):
                said = evolve(said, silent=_forked(len(self.events) + 2, "stalled"))
        self.put(said, None, message_id)
        self.closed.append(message_id)

    def restore(self) -> None:
        """A version comes back, with all that is told of the generation that wrote it."""
        self.post(wrote=self.draw(st.sampled_from(self.ended)))

    def update(self) -> None:
        self.put(SessionUpdated(metadata=self.draw(json_objects)))

    def app(self) -> None:
        self.put(App(type="app.note", value=self.draw(json_objects)), self.live)

    def unknown(self) -> None:
        self.put(Unknown(type="future.thing", value=self.draw(json_objects)), self.live)

    def enqueue(self) -> None:
        waiting = _Generation(self.new_id(), self.draw(st.none() | st.just("job")))
        queued = GenerationQueued(
            producer="p",
            policy="queue",
            position=len(self.queue) + 1,
            text=self.draw(st.none() | st.just("and then?")),
            metadata=self.draw(st.none() | json_objects),
            author=self.draw(st.none() | st.just("bob")),
        )
        self.put(queued, waiting)
        self.queue.append(waiting)

    def unqueue(self) -> None:
        ended = GenerationFinished(outcome="stopped", author=self.draw(st.none() | st.just("bob")))
        self.put(ended, self.queue.pop(self.draw(st.sampled_from([0, -1]))))

    def pause(self) -> None:
        self.put(QueueResumed() if self.paused else QueuePaused(reason="stopped"))
        self.paused = not self.paused

    def retract(self) -> None:
        message_id = self.draw(st.sampled_from(self.closed))
        self.closed.remove(message_id)
        self.put(MessageRetracted(reason="edited"), None, message_id)

    # Between generations

    def start(self, supersedes: str | None = None) -> None:
        if len(self.queue) > 0 and self.draw(st.booleans()):
            live = self.queue.pop(0)
        else:
            live = _Generation(self.new_id(), self.draw(st.none() | st.just("job")))
        self.turn += self.draw(st.sampled_from([1, 1, 2]))
        live.turn = self.turn
        metadata = self.draw(st.none() | json_objects)
        author = self.draw(st.none() | st.just("ann"))
        started = GenerationStarted(
            producer="p",
            policy="supersede",
            supersedes=supersedes,
            metadata=metadata,
            author=author,
            version=self.draw(_versions),
        )
        self.put(started, live)
        live.author, live.started = author, self.moment()
        self.live = live

    def reset(self) -> None:
        self.put(SessionReset(reason="again"))
        self.closed.clear()
        self.queue.clear()

    # What a producer does

    def status(self) -> None:
        self.put(GenerationStatus(status=self.draw(st.sampled_from(["thinking", "working"]))), self.live)

    def open_message(self, role: str = "assistant") -> _Message:
        live = self._live()
        message = _Message(self.new_id())
        parent = live.messages[-1] if live.messages else None
        live.open.append(message)
        live.messages.append(message.message_id)
        metadata = self.draw(st.none() | json_objects)
        continues = self.draw(st.sampled_from([None, *self.closed]))
        opened = MessageOpened(
            role=role,
            parent_message_id=parent,
            metadata=metadata,
            continues=continues,
            version=self.draw(_versions),
        )
        self.put(opened, live, message.message_id)
        return message

    def open_block(self) -> None:
        live = self._live()
        kinds = ["text", "reasoning", "data", "tool_call", *NAMING, *(["tool_result"] if live.calls else [])]
        kind = self.draw(st.sampled_from(kinds))
        call = name = None
        if kind in NAMING:
            self._open_block(self._pick(live.open), self._naming(kind))
            return
        if kind == "tool_call":
            call, name = f"call-{self.new_id()}", "search"
            live.calls.append(call)
        elif kind == "tool_result":
            call = live.calls.pop(self.draw(st.sampled_from([0, -1])))
        self._open_block(self._pick(live.open), BlockOpened(kind=kind, tool_call_id=call, name=name))

    def _naming(self, kind: str) -> BlockOpened:
        """Of an image, a file or a source."""
        file_id, url = self.draw(st.sampled_from((("f-1", None), (None, "https://example.org/水"))))
        if kind == "source":
            return BlockOpened(kind=kind, title=self.draw(st.none() | _texts), file_id=file_id, url=url)
        type_, name = self.draw(st.sampled_from(((None, "a.png"), ("image/png", None), ("image/png", "水.png"))))
        return BlockOpened(kind=kind, media_type=type_, filename=name, file_id=file_id, url=url)

    def _open_block(self, message: _Message, data: BlockOpened) -> int:
        message.blocks.append(_Block(data.kind))
        self.put(data, self.live, message.message_id, len(message.blocks) - 1)
        return len(message.blocks) - 1

    def delta(self) -> None:
        message, index = self._pick_block()
        block = message.blocks[index]
        if block.kind in NAMING:  # it takes none
            self.close_block()
            return
        block.seq += 1
        if block.kind in ("text", "reasoning"):
            data = BlockDelta(text=self.draw(_texts))
        elif block.kind == "tool_call":
            data = BlockDelta(arguments=self.draw(_texts))
        else:
            data = BlockDelta(value=self.draw(json_values))
        self.put(data, self.live, message.message_id, index)

    def close_block(self) -> None:
        message, index = self._pick_block()
        kind = message.blocks[index].kind
        data = BlockClosed()
        if kind == "tool_call":
            data = BlockClosed(arguments=self.draw(json_values))
        elif kind == "tool_result":
            data = BlockClosed(text=self.draw(_texts), is_error=self.draw(st.booleans()))
        elif kind == "text" and self.draw(st.booleans()):
            data = BlockClosed(text=self.draw(_texts))
        self._close_block(message, index, data)

    def _close_block(self, message: _Message, index: int, data: BlockClosed) -> None:
        message.blocks[index].seq += 1
        message.blocks[index].open = False
        self.put(data, self.live, message.message_id, index)

    def close_message(self) -> None:
        message = self._pick([m for m in self._live().open if m.blocks and not m.open_blocks])
        usage = self.draw(st.none() | st.just({"tokens": 3}))
        self._close_message(message, MessageClosed(status="complete", finish_reason="stop", usage=usage))

    def _close_message(self, message: _Message, data: MessageClosed) -> None:
        self.put(data, self.live, message.message_id)
        self._live().open.remove(message)
        self.closed.append(message.message_id)

    def request_approval(self) -> None:
        approval_id = f"approval-{self.new_id()}"
        live = self._live()
        # As it was before such events bore a message, or of any that the generation wrote: it may be retracted by then.
        of = self.draw(st.sampled_from([None, *live.messages]))
        live.approvals.append(approval_id)
        self.of_approvals[approval_id] = of
        asked = ApprovalRequested(
            approval_id=approval_id,
            tool_call_id=self.draw(st.none() | st.just("call")),
            name="rm",
            arguments=self.draw(json_values),
            expires_at=self.draw(st.none() | st.just("2026-03-01T10:00:00.000Z")),
        )
        self.put(asked, live, of)

    def resolve_approval(self) -> None:
        approval_id = self._take(self._live().approvals)
        resolved = ApprovalResolved(
            approval_id=approval_id,
            approved=self.draw(st.booleans()),
            by="ann",
            arguments=self.draw(json_values),
            tool_call_id=self.draw(st.none() | st.just("call")),
        )
        self.put(resolved, self.live, self.of_approvals[approval_id])

    def accept_input(self) -> None:
        input_id = f"input-{self.new_id()}"
        self._live().inputs.append(input_id)
        extra = self.draw(st.just({}) | st.just({"text": "shorter"}))
        self.put(InputAccepted(input_id=input_id, kind="steer", extra=extra), self.live)

    def apply_input(self) -> None:
        self.put(InputApplied(input_id=self._take(self._live().inputs)), self.live)

    # How it ends

    def finish(self) -> None:
        self._end(self.draw(st.sampled_from(["completed", "failed", "stalled", "expired", "lost"])))

    def stop(self) -> None:
        self.put(GenerationCancelling(reason="stopped"), self.live)
        if self.draw(st.booleans()):
            self.post()  # others go on while it cleans up
        self._end("stopped")

    def supersede(self) -> None:
        old = self._live()
        self.put(GenerationCancelling(reason="superseded", by="00000000-0000-7000-8000-0000000000ff"), old)
        self._end("superseded", retract=self.draw(st.booleans()))
        self.start(supersedes=old.generation_id)

    def _end(self, outcome: str, *, retract: bool = False) -> None:
        live = self._live()
        status = "complete" if outcome == "completed" else "cancelled" if outcome in _CANCELLED else "failed"
        for approval_id in live.approvals:
            resolved = ApprovalResolved(approval_id=approval_id, approved=False, reason=outcome)
            self.put(resolved, live, self.of_approvals[approval_id])
        for input_id in live.inputs:
            self.put(InputReturned(input_id=input_id), live)
        for message in live.open:
            for index in message.open_blocks:
                self._close_block(message, index, BlockClosed())
        for message in list(live.open):
            self._close_message(message, MessageClosed(status=status))
        if live.calls:
            answer = self.open_message("tool")
            for call in live.calls:
                index = self._open_block(answer, BlockOpened(kind="tool_result", tool_call_id=call))
                self._close_block(answer, index, BlockClosed(text="no result", is_error=True))
            self._close_message(answer, MessageClosed(status=status))
        if retract:
            for message_id in live.messages:
                if message_id in self.closed:
                    self.closed.remove(message_id)
                    self.put(MessageRetracted(reason=outcome), live, message_id)
        code = self.draw(st.none() | st.just("MODEL_AUTH")) if outcome == "failed" else None
        ended = GenerationFinished(
            outcome=outcome,
            code=code,
            message=None if code is None else "the key is wrong",
            cleanup="clean" if outcome in _CANCELLED else None,
            usage=self.draw(st.none() | st.just({"tokens": 1, "partial": True})),
            retryable=self.draw(st.none() | st.booleans()),
        )
        self.put(ended, live)
        assert live.turn is not None
        all_that_is_told = ForkedGeneration(
            generation_id=live.generation_id,
            turn=live.turn,
            outcome=outcome,
            code=code,
            message=ended.message,
            started=live.started,
            finished=self.moment(),
            retryable=ended.retryable,
            usage=ended.usage,
            author=live.author,
        )
        if live.messages:
            self.ended.append(all_that_is_told)
        self.live = None

    def moment(self) -> Moment:
        """Of the last event."""
        return Moment(cursor=Cursor(self.epoch, len(self.events)), time=self.events[-1].time)

    def _live(self) -> _Generation:
        assert self.live is not None
        return self.live

    def _pick(self, messages: list[_Message]) -> _Message:
        return self.draw(st.sampled_from(messages))

    def _pick_block(self) -> tuple[_Message, int]:
        message = self._pick([m for m in self._live().open if m.open_blocks])
        return message, self.draw(st.sampled_from(message.open_blocks))

    def _take(self, ids: list[str]) -> str:
        return ids.pop(self.draw(st.integers(0, len(ids) - 1)))

    def steps(self) -> list[Callable[[], object]]:
        """What may come next; what is to come often stands there more than once."""
        others: list[Callable[[], object]] = [self.post, self.update, self.app, self.unknown, self.enqueue, self.pause]
        if self.queue:
            others.append(self.unqueue)
        if self.closed:
            others.append(self.retract)
        if self.ended:
            others.append(self.restore)
        live = self.live
        if live is None:
            return [*([self.start] * 12), self.reset, *others]
        steps = [*others, self.status, self.request_approval, self.accept_input, self.finish, self.stop, self.supersede]
        steps += [self.open_message] * (2 if live.open else 20)
        if live.open:
            blocks = sum(len(message.blocks) for message in live.open)
            steps += [self.open_block] * (4 if blocks else 20)
        if any(m.open_blocks for m in live.open):
            steps += [self.delta] * 16 + [self.close_block] * 4
        if any(not m.open_blocks and m.blocks for m in live.open):
            steps += [self.close_message] * 4
        if live.approvals:
            steps.append(self.resolve_approval)
        if live.inputs:
            steps.append(self.apply_input)
        return steps


def _forked(number: int, outcome: str) -> ForkedGeneration:
    generation_id = f"00000000-0000-7000-8000-0000000001{number:02x}"
    return ForkedGeneration(generation_id=generation_id, turn=number, outcome=outcome)


@st.composite
def logs(draw: st.DrawFn, *, max_steps: int = 40, closed: bool = False, epoch: str = EPOCH) -> list[Event]:
    """A valid log of the session `SESSION`; with ``closed`` nothing is live at its end."""
    session = _Session(draw, epoch)
    for _ in range(draw(st.integers(0, max_steps))):
        draw(st.sampled_from(session.steps()))()
    if closed and session.live is not None:
        session.finish()
    return session.events


def compact(events: Sequence[Event], message_ids: set[str]) -> list[Event]:
    """The log after the compaction of these messages, as far as they have blocks and are closed."""
    closed = {event.message_id for event in events if isinstance(event.data, MessageClosed)}
    opened = {event.message_id: event.data for event in events if isinstance(event.data, MessageOpened)}
    status = {event.message_id: event.data.status for event in events if isinstance(event.data, MessageClosed)}
    swapped = {e.message_id for e in events if e.seq is not None and e.message_id in message_ids & closed}
    last = {event.message_id: event.offset for event in events if event.seq is not None}
    compacted = []
    for event in events:
        message_id = event.message_id
        if event.seq is None or message_id not in swapped:
            compacted.append(event)
        elif event.offset == last[message_id]:
            blocks = _blocks([e for e in events if e.message_id == message_id and e.seq is not None])
            data = MessageSnapshot(
                role=opened[message_id].role,
                status=status[message_id],
                blocks=blocks,
                parent_message_id=opened[message_id].parent_message_id,
                metadata=opened[message_id].metadata,
            )
            compacted.append(evolve(event, data=data, block_index=None, seq=None))
    return compacted


def _blocks(events: Sequence[Event]) -> tuple[BlockSnapshot, ...]:
    blocks: dict[int, BlockSnapshot] = {}
    for event in events:
        index, seq, data = event.block_index, event.seq, event.data
        assert index is not None
        assert seq is not None
        match data:
            case BlockOpened():
                said = {each.name: getattr(data, each.name) for each in fields(BlockOpened)}
                blocks[index] = BlockSnapshot(seq=0, **said)
            case BlockDelta(text=str(text)):
                blocks[index] = evolve(blocks[index], seq=seq, text=(blocks[index].text or "") + text)
            case BlockDelta(arguments=str(piece)):
                so_far = blocks[index].arguments or ""
                assert isinstance(so_far, str)
                blocks[index] = evolve(blocks[index], seq=seq, arguments=so_far + piece)
            case BlockDelta():
                blocks[index] = evolve(blocks[index], seq=seq, value=data.value)
            case BlockClosed():
                final = {k: getattr(data, k) for k in ("text", "arguments", "value", "is_error")}
                given = {k: v for k, v in final.items() if v is not None}
                blocks[index] = evolve(blocks[index], seq=seq, **given)
            case _:
                raise AssertionError(data)
    return tuple(blocks[index] for index in sorted(blocks))
