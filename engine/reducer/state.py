"""The state of a session, folded event by event.

Owns the dispatch, the cursor, and the live generation, queue, approvals and inputs; messages are `transcript`'s, how
generations end is `generations`'s. What order a writer must keep is `lifecycle`'s; the fold only refuses what it cannot
follow. Events of the application and of types that this version does not know move the offset and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
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
    Version,
)
from ..work import Work, at_once
from .content import Again, Evicted, GrowingBlock, GrowingMessage, Missing
from .folded import APPLIED, DUPLICATE, Folded, Gap, stamped
from .generations import GenerationPlace, Generations, GrowingGeneration, by_begin
from .snapshot import (
    ApprovalView,
    GenerationInfo,
    GenerationView,
    InputView,
    MessageView,
    QueuedView,
    QueueView,
    Snapshot,
)
from .transcript import Transcript, growing

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
        self._reset_at = 0  # the offset of the last session.reset
        self._transcript = Transcript()
        self._generations = Generations()
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
        self, limit: int | None = None, before: str | None = None, again: Again | None = None
    ) -> Work[Snapshot]:
        """`snapshot`, message by message. Nothing may be applied meanwhile.

        ``again``: what was read again of what is evicted. Raises `Missing` when it lacks some.
        """
        again = again or Again()
        messages, more = yield from self._transcript.paging(limit, before, again)
        first = messages[0].message_id if messages else before
        return (yield from self._taking(messages, more, first if more else None, again))

    def encoding_snapshot(
        self, limit: int, before: str | None, most_bytes: int, again: Again | None = None, *, with_open: bool
    ) -> Work[tuple[Snapshot, bytes]]:
        """`taking_snapshot` of at most so many bytes, but of one message at least, and its JSON.

        ``with_open``: open messages that are older than the page are there, too, before it; what follows the snapshot
        goes on with them.
        """
        again = again or Again()
        found, next_ = yield from self._transcript.encoding(limit, before, most_bytes, again, with_open=with_open)
        messages = [message for message, _ in found]
        snapshot = yield from self._taking(messages, next_ is not None, next_, again)
        return snapshot, snapshot.encoded([body for _, body in found])

    def _taking(
        self, messages: Sequence[GrowingMessage], more: bool, next_: str | None, again: Again
    ) -> Work[Snapshot]:
        """A snapshot with these messages. Raises `Missing` for generations that ``again`` lacks."""
        views: list[MessageView] = []
        for message in messages:
            views.append((yield from message.viewing()))
            yield
        return Snapshot(
            session_id=self.session_id,
            cursor=self.cursor,
            messages=tuple(views),
            generations=(yield from self._finding_generations(messages, again)),
            generation=self.generation,
            queue=QueueView(paused=self.paused, items=tuple(self._queue.values())),
            approvals=tuple(self._approvals.values()),
            metadata=self.metadata,
            more=more,
            next=next_,
            turn=self.turn,
        )

    def _finding_generations(
        self, messages: Sequence[GrowingMessage], again: Again
    ) -> Work[tuple[GenerationInfo, ...]]:
        """Those that a snapshot with these messages shows. Raises `Missing` for those that ``again`` lacks."""
        found: dict[str, GrowingGeneration] = {}
        missing: dict[str, GenerationPlace] = {}
        known = {generation.info.generation_id: generation for generation in self._generations.kept}
        for message in messages:
            yield
            generation_id = message.generation_id
            if generation_id is None or generation_id in found:
                continue
            by = message.by or known.get(generation_id) or again.generations.get(generation_id)
            if by is not None:
                found[generation_id] = by
                missing.pop(generation_id, None)  # of another of its messages it was not known
            elif message.turn is not None:
                place = self._generations.place(generation_id, message.turn)
                if place is not None:
                    missing[generation_id] = place
        if missing:
            raise Missing(generations=tuple(missing.values()))
        shown: list[tuple[int, int, int, GenerationInfo]] = []
        for generation in {**found, **known}.values():
            shown.append((*by_begin(generation), len(shown), generation.info))
            yield
        shown.sort()
        return tuple(view for *_, view in shown)

    def is_vacant(self, left: int, behind: str | None) -> bool:
        """Whether what left at this offset could stand at the end again: what it stood behind is the last message."""
        return left > self._reset_at and self._transcript.newest == behind

    @property
    def unspoken(self) -> Version | None:
        """The version that the last generation was to write, where it has written none and nothing came behind it."""
        last = None if self._generations.last is None else self._generations.last.info
        if last is None or not last.silent or last.behind != self._transcript.newest:
            return None
        return last.version

    def version_of(self, of: str) -> str | None:
        """The message that stands here as one of these versions."""
        return self._transcript.version_of(of)

    def standing(self, message_id: str) -> tuple[str | None, GrowingMessage | Evicted]:
        """The message, and the id of the one before it. Raises `MessageNotFound`."""
        return self._transcript.standing(message_id)

    @property
    def question(self) -> str | None:
        """The message behind which the live generation began; None where nothing is live, or no message stood there."""
        return None if self.generation is None else self._generations.question

    def generation_info(self, generation_id: str) -> GenerationInfo | None:
        """How the generation stands, if it waits, was the last to start, or wrote no message and is still kept."""
        waiting = self._queue.get(generation_id)
        if waiting is not None:
            return GenerationInfo(generation_id=generation_id, state="queued", author=waiting.author)
        for kept in self._generations.kept:
            if kept.info.generation_id == generation_id:
                return kept.info
        return None

    def generation_place(self, generation_id: str, turn: int) -> GenerationPlace | None:
        """Where the log has this generation, the one of this turn, if it has started and ended."""
        return self._generations.place(generation_id, turn)

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
        state._take_generations(snapshot)
        state._transcript.older, state._transcript.older_seen_at = snapshot.more, older_seen_at
        state._queue = {item.generation_id: item for item in snapshot.queue.items}
        state._approvals = {approval.approval_id: approval for approval in snapshot.approvals}
        return state

    def _take_generations(self, snapshot: Snapshot) -> None:
        """The messages of a snapshot, and the generations beside them."""
        shown = {view.generation_id: GrowingGeneration(view) for view in snapshot.generations}
        live = snapshot.generation
        if live is not None:  # a server that is older than this tells of no others
            begun = GenerationInfo(generation_id=live.generation_id, state=live.state, turn=live.turn)
            self._generations.last = shown.setdefault(live.generation_id, GrowingGeneration(begun))
        else:
            started = (each for each in shown.values() if each.info.started is not None)
            self._generations.last = max(started, key=by_begin, default=None)
        self._generations.silent = [
            each for each in shown.values() if each.info.silent and each.info.state == "finished"
        ]
        for view in snapshot.messages:
            message = GrowingMessage.of(view)
            message.by = shown.get(view.generation_id or "")
            self._transcript.add(message)

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
            case MessageClosed():
                return self._transcript.fold(event)
            case MessageSnapshot():
                return self._take_whole(event, data, blocks)
            case MessageRetracted():
                return self._retract(event)
            case GenerationQueued():
                return self._queue_generation(event, data)
            case GenerationStarted():
                return self._start(event, data)
            case GenerationStatus() | GenerationCancelling():
                return self._move_generation(event, data)
            case GenerationFinished():
                return self._finish(event, data)
            case ApprovalRequested():
                return self._request_approval(event, data)
            case ApprovalResolved():
                asked = self._approvals.pop(data.approval_id, None)
                if asked is None:
                    return Gap("an open approval", f"the answer to approval {data.approval_id}")
                self._transcript.resolve(event, data, asked.name)
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
                return self._reset(event)
            case PresenceChanged() | App() | Unknown():
                pass
            case _:
                assert_never(data)
        return APPLIED

    def _open_message(self, event: Event, data: MessageOpened) -> Folded:
        if event.generation_id is not None and self._live(event.generation_id) is None:
            return Gap(f"generation.started of {event.generation_id}", f"its message {event.message_id}")
        folded = self._transcript.open_message(event, data)
        self._note_writer(event)
        return folded

    def _take_whole(self, event: Event, data: MessageSnapshot, blocks: list[GrowingBlock] | None) -> Folded:
        folded = self._transcript.take_whole(event, data, blocks)
        if self._note_writer(event) and data.silent is not None:
            self._generations.carry(GrowingGeneration.forked(data.silent), event.message_id)
        return folded

    def _note_writer(self, event: Event) -> bool:
        """Whether a message came into being with this event; it is of the generation whose stamp that bears, then."""
        message = self._transcript.find(event.message_id or "")
        if message is None or message.first != event.offset:
            return False
        if event.generation_id is not None:
            message.by = self._generations.wrote(event.generation_id)
        return True

    def _retract(self, event: Event) -> Folded:
        folded = self._transcript.retract(event)
        if not isinstance(folded, Gap):
            self._generations.retract(event.message_id or "")
        return folded

    def _reset(self, event: Event) -> Folded:
        if self.generation is not None:
            return Gap(f"generation.finished of {self.generation.generation_id}", "session.reset")
        self._transcript.clear()
        self._generations.clear()
        self._approvals.clear()
        self._queue.clear()
        self._reset_at = event.offset or 0
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
            author=data.author,
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
        begun = GrowingGeneration.begin(event, data, self.epoch)
        self._generations.start(begun, self._transcript.newest, data.version)
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
            self._generations.cancel()
        return APPLIED

    def _finish(self, event: Event, data: GenerationFinished) -> Folded:
        generation_id = stamped(event.generation_id, "generation_id", event)
        live = self._live(generation_id)
        if live is None:
            waited = self._queue.pop(generation_id, None)
            if waited is None:
                return Gap(f"generation.started of {generation_id}", "its end")
            ended = GrowingGeneration(GenerationInfo(generation_id=generation_id, state="queued", author=waited.author))
            ended.stand(self._transcript.newest)
            ended.end(event, data, self.epoch)
            self._generations.end(ended, event.offset or 0)
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
        if (last := self._generations.last) is not None and last.info.generation_id == generation_id:
            last.end(event, data, self.epoch)
            self._generations.end(last, event.offset or 0)
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
