"""The state of a session, folded event by event.

Owns the dispatch, the cursor, and generations, queue, approvals and inputs; messages are `transcript`'s. What
order a writer must keep is `lifecycle`'s; the fold only refuses what it cannot follow. Events of the application
and of types that this version does not know move the offset and nothing else.
"""

from __future__ import annotations

from typing import Final, Self, assert_never, final

from attrs import evolve

from ..errors import CallerError, InvalidBody
from ..events import (
    App,
    ApprovalRequested,
    ApprovalResolved,
    BlockClosed,
    BlockDelta,
    BlockOpened,
    Cursor,
    Event,
    GenerationCancelling,
    GenerationFinished,
    GenerationQueued,
    GenerationStarted,
    GenerationStatus,
    InputAccepted,
    InputApplied,
    InputReturned,
    JSONObject,
    MessageClosed,
    MessageOpened,
    MessageRetracted,
    MessageSnapshot,
    PresenceChanged,
    QueuePaused,
    QueueResumed,
    SessionCreated,
    SessionForked,
    SessionReset,
    SessionUpdated,
    Unknown,
)
from ..work import Work, at_once
from .content import GrowingBlock, GrowingMessage
from .folded import APPLIED, DUPLICATE, Folded, Gap, stamped
from .snapshot import ApprovalView, GenerationView, InputView, MessageView, QueuedView, QueueView, Snapshot
from .transcript import NOTHING, Again, Transcript, growing

__all__ = ["SessionState"]


@final
class SessionState:
    """The state of one session in one epoch, up to ``cursor``. A new epoch needs a new state."""

    def __init__(self, session_id: str, epoch: str) -> None:
        self.session_id: Final = session_id
        self.epoch: Final = epoch
        self.offset = 0
        self.turn = 0
        self.generation: GenerationView | None = None
        self.metadata: JSONObject = {}
        self.paused = False
        self._transcript = Transcript()
        self._queue: dict[str, QueuedView] = {}
        self._approvals: dict[str, ApprovalView] = {}

    @property
    def cursor(self) -> Cursor:
        return Cursor(self.epoch, self.offset)

    def applying(self, event: Event) -> Work[Folded]:
        """`apply`, block by block for the whole of a message. Nothing else may be applied meanwhile."""
        return self._apply(event, (yield from growing(event)))

    def apply(self, event: Event) -> Folded:
        """Fold one event. Events without an offset are ephemeral and change nothing.

        Raises `CallerError` for an event of another session, `InvalidBody` for one that lacks a part of its stamp.
        """
        return self._apply(event, None)

    def _apply(self, event: Event, blocks: list[GrowingBlock] | None) -> Folded:
        """``blocks`` are those of a ``message.snapshot``, if they were made already."""
        if event.session_id != self.session_id:
            raise CallerError(
                f"an event of session {event.session_id} was given to the fold of {self.session_id}",
                session_id=self.session_id,
            )
        offset = event.offset
        if offset is None:
            return APPLIED
        if offset <= self.offset:
            return DUPLICATE
        if offset == self.offset + 1:
            folded = self._fold(event, blocks)
        else:
            folded = self._fold_past_jump(event, blocks)
        if not isinstance(folded, Gap):
            self.offset = offset
        return folded

    def dismantling(self) -> Work[None]:
        """Let go of the messages, bit by bit. Nobody may use it from then on."""
        return self._transcript.dismantling()

    def evicting(self, most: int) -> Work[None]:
        """Let go of what older messages say: of closed ones, about so many bytes stay, and one at least.

        For whoever folded the log from its beginning and can read it again. Nothing may be applied meanwhile.
        """
        return self._transcript.evicting(most)

    @property
    def whole(self) -> bool:
        """Whether the cursor lies outside every compacted range, so that the state is all there is up to here."""
        return not self._transcript.waits_for_snapshot

    def message_ids(self, first: str | None = None) -> list[str]:
        """The messages in order, from ``first`` on. Raises `MessageNotFound`."""
        return self._transcript.ids(first)

    def snapshot(self, limit: int | None = None, before: str | None = None) -> Snapshot:
        """The state now, with the newest ``limit`` messages, or with those before the message ``before``.

        Costs what it returns, not what the session holds. Raises `MessageNotFound`, `InvalidBody`.
        """
        return at_once(self.taking_snapshot(limit, before))

    def taking_snapshot(
        self, limit: int | None = None, before: str | None = None, again: Again = NOTHING
    ) -> Work[Snapshot]:
        """`snapshot`, message by message. Nothing may be applied meanwhile.

        ``again``: what was read again of evicted messages. Raises `Missing` when it lacks some.
        """
        messages, more = yield from self._transcript.paging(limit, before, again)
        first = messages[0].message_id if messages else before
        return self._snapshot(messages, more, first if more else None)

    def encoding_snapshot(
        self, limit: int, before: str | None, most_bytes: int, again: Again = NOTHING, *, with_open: bool
    ) -> Work[tuple[Snapshot, bytes]]:
        """`taking_snapshot` of at most so many bytes, but of one message at least, and its JSON.

        ``with_open``: open messages that are older than the page are there, too, before it; what follows the snapshot
        goes on with them.
        """
        found, next_ = yield from self._transcript.encoding(limit, before, most_bytes, again, with_open=with_open)
        snapshot = self._snapshot(tuple(view for view, _ in found), next_ is not None, next_)
        return snapshot, snapshot.encoded([body for _, body in found])

    def _snapshot(self, messages: tuple[MessageView, ...], more: bool, next_: str | None) -> Snapshot:
        return Snapshot(
            session_id=self.session_id,
            cursor=self.cursor,
            messages=messages,
            generation=self.generation,
            queue=QueueView(paused=self.paused, items=tuple(self._queue.values())),
            approvals=tuple(self._approvals.values()),
            metadata=self.metadata,
            more=more,
            next=next_,
            turn=self.turn,
        )

    @classmethod
    def from_snapshot(cls, snapshot: Snapshot, *, older_seen_at: int = 0) -> Self:
        """Go on from a snapshot, also from one that leaves out older messages: what becomes of those is passed over.

        ``older_seen_at``: the offset at which older messages were read, if that was later than the snapshot.
        """
        state = cls(snapshot.session_id, snapshot.cursor.epoch)
        state.offset = snapshot.cursor.offset
        state.turn = snapshot.turn
        state.generation = snapshot.generation
        state.metadata = snapshot.metadata
        state.paused = snapshot.queue.paused
        for message in snapshot.messages:
            state._transcript.add(GrowingMessage.of(message))
        state._transcript.older, state._transcript.older_seen_at = snapshot.more, older_seen_at
        state._queue = {item.generation_id: item for item in snapshot.queue.items}
        state._approvals = {approval.approval_id: approval for approval in snapshot.approvals}
        return state

    def _fold_past_jump(self, event: Event, blocks: list[GrowingBlock] | None) -> Folded:
        if not self._transcript.note_jump():
            return Gap(f"offset {self.offset + 1}", f"offset {event.offset}")
        try:
            folded = self._fold(event, blocks)
        except InvalidBody:
            self._transcript.forget_jump()
            raise
        if isinstance(folded, Gap):
            self._transcript.forget_jump()
        return folded

    def _fold(self, event: Event, blocks: list[GrowingBlock] | None) -> Folded:
        data = event.data
        match data:
            case BlockDelta() | BlockOpened() | BlockClosed():
                return self._transcript.fold_block(event, data)
            case MessageOpened():
                return self._open_message(event, data)
            case MessageClosed() | MessageSnapshot() | MessageRetracted():
                return self._transcript.fold(event, blocks)
            case GenerationQueued():
                return self._queue_generation(event, data)
            case GenerationStarted():
                return self._start(event, data)
            case GenerationStatus() | GenerationCancelling():
                return self._move_generation(event, data)
            case GenerationFinished():
                return self._finish(event)
            case ApprovalRequested():
                return self._request_approval(event, data)
            case ApprovalResolved():
                if self._approvals.pop(data.approval_id, None) is None:
                    return Gap("an open approval", f"the answer to approval {data.approval_id}")
            case InputAccepted():
                return self._accept_input(event, data)
            case InputApplied() | InputReturned():
                return self._settle_input(event, data)
            case QueuePaused():
                self.paused = True
            case QueueResumed():
                self.paused = False
            case SessionCreated() | SessionUpdated() | SessionForked():
                self.metadata = data.metadata
            case SessionReset():
                return self._reset()
            case PresenceChanged() | App() | Unknown():
                pass
            case _:
                assert_never(data)
        return APPLIED

    def _open_message(self, event: Event, data: MessageOpened) -> Folded:
        if event.generation_id is not None and self._live(event.generation_id) is None:
            return Gap(f"generation.started of {event.generation_id}", f"its message {event.message_id}")
        return self._transcript.open_message(event, data)

    def _reset(self) -> Folded:
        if self.generation is not None:
            return Gap(f"generation.finished of {self.generation.generation_id}", "session.reset")
        self._transcript.clear()
        self._approvals.clear()
        self._queue.clear()
        return APPLIED

    # Generations

    def _live(self, generation_id: str) -> GenerationView | None:
        live = self.generation
        return live if live is not None and live.generation_id == generation_id else None

    def _queue_generation(self, event: Event, data: GenerationQueued) -> Folded:
        generation_id = stamped(event.generation_id, "generation_id", event)
        if generation_id in self._queue or self._live(generation_id) is not None:
            return Gap("a new generation", f"generation {generation_id} queued again")
        self._queue[generation_id] = QueuedView(
            generation_id=generation_id,
            producer=data.producer,
            policy=data.policy,
            job_id=event.job_id,
            metadata=data.metadata,
            text=data.text,
        )
        return APPLIED

    def _start(self, event: Event, data: GenerationStarted) -> Folded:
        generation_id = stamped(event.generation_id, "generation_id", event)
        turn = stamped(event.turn, "turn", event)
        if self.generation is not None:
            return Gap(f"generation.finished of {self.generation.generation_id}", f"{generation_id} started")
        if turn <= self.turn:
            return Gap(f"a turn above {self.turn}", f"turn {turn}")
        self._queue.pop(generation_id, None)
        self.turn = turn
        self.generation = GenerationView(
            generation_id=generation_id,
            turn=turn,
            state="live",
            job_id=event.job_id,
            producer=data.producer,
            metadata=data.metadata,
        )
        return APPLIED

    def _move_generation(self, event: Event, data: GenerationStatus | GenerationCancelling) -> Folded:
        generation_id = stamped(event.generation_id, "generation_id", event)
        live = self._live(generation_id)
        if live is None:
            return Gap(f"generation.started of {generation_id}", event.type)
        if isinstance(data, GenerationStatus):
            self.generation = evolve(live, status=data.status)
        else:
            self.generation = evolve(live, state="cancelling")
        return APPLIED

    def _finish(self, event: Event) -> Folded:
        generation_id = stamped(event.generation_id, "generation_id", event)
        live = self._live(generation_id)
        if live is None:
            if self._queue.pop(generation_id, None) is None:
                return Gap(f"generation.started of {generation_id}", "its end")
            return APPLIED
        for message in self._transcript.open.values():
            if message.generation_id == generation_id:
                return Gap(f"message.closed of message {message.message_id}", f"the end of generation {generation_id}")
        for approval in self._approvals.values():
            if approval.generation_id == generation_id:
                return Gap(f"approval.resolved of {approval.approval_id}", f"the end of generation {generation_id}")
        if live.inputs:
            return Gap(f"input.returned of {live.inputs[0].input_id}", f"the end of generation {generation_id}")
        self.generation = None
        return APPLIED

    # Approvals and inputs

    def _request_approval(self, event: Event, data: ApprovalRequested) -> Folded:
        if event.generation_id is not None and self._live(event.generation_id) is None:
            return Gap(f"generation.started of {event.generation_id}", event.type)
        if data.approval_id in self._approvals:
            return Gap("a new approval", f"approval {data.approval_id} requested again")
        self._approvals[data.approval_id] = ApprovalView(
            approval_id=data.approval_id,
            generation_id=event.generation_id,
            message_id=event.message_id,
            tool_call_id=data.tool_call_id,
            name=data.name,
            arguments=data.arguments,
            expires_at=data.expires_at,
        )
        return APPLIED

    def _accept_input(self, event: Event, data: InputAccepted) -> Folded:
        generation_id = stamped(event.generation_id, "generation_id", event)
        live = self._live(generation_id)
        if live is None:
            return Gap(f"generation.started of {generation_id}", event.type)
        if any(waiting.input_id == data.input_id for waiting in live.inputs):
            return Gap("a new input", f"input {data.input_id} accepted again")
        accepted = InputView(input_id=data.input_id, kind=data.kind, content=data.extra or None)
        self.generation = evolve(live, inputs=(*live.inputs, accepted))
        return APPLIED

    def _settle_input(self, event: Event, data: InputApplied | InputReturned) -> Folded:
        live = self.generation
        left = () if live is None else tuple(waiting for waiting in live.inputs if waiting.input_id != data.input_id)
        if live is None or len(left) == len(live.inputs):
            return Gap(f"input.accepted of {data.input_id}", event.type)
        self.generation = evolve(live, inputs=left)
        return APPLIED
