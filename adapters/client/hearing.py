"""What others send to a remote generation, heard in its session's own stream: stops, approvals' answers, inputs.

Owns what an event means to the producer. How it is followed is `following`'s, what a write raises the writer's.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final, final

import trio
from attrs import define, field, frozen
from uuid_utils import uuid7

from penstock.engine import (
    JSON,
    Approval,
    ApprovalRequested,
    ApprovalResolved,
    CorruptSession,
    Ended,
    Event,
    Gap,
    GenerationCancelling,
    GenerationFinished,
    GenerationStarted,
    Input,
    InputAccepted,
    InvalidBody,
    JSONObject,
    SessionDeleted,
    SessionNotFound,
    Snapshot,
    SnapshotTaken,
    StaleGeneration,
    check_json,
)

from .place import Arrived, Delivery
from .reading import Events
from .reconnecting import Lost
from .writer import RemoteWriter

__all__ = ["Approvals", "Hearing", "Inputs"]

logger = logging.getLogger("penstock.client")


@final
@frozen(kw_only=True)
class _Request:
    """An event as the writer takes it."""

    data: ApprovalRequested
    message_id: None = None
    block_index: None = None


@define(eq=False)
class _Open:
    request: ApprovalRequested
    resolved: trio.Event = field(factory=trio.Event)
    answer: Approval | None = None


@final
class Approvals:
    """Those that the producer waits for. ``refuse`` tells the server that one is not wanted any more."""

    def __init__(self, writer: RemoteWriter, hearing: Hearing, refuse: Callable[[str], None]) -> None:
        self._writer: Final = writer
        self._hearing: Final = hearing
        self._refuse: Final = refuse
        self._open: Final[dict[str, _Open]] = {}

    def __len__(self) -> int:
        return len(self._open)

    async def ask(self, name: str, *, tool_call_id: str | None, arguments: JSON, expires_in: float) -> Approval | None:
        """Write the request and wait until it is resolved; None when the generation is fenced first.

        Cancelled by the producer's own scope, it is refused, reason ``cancelled``.
        """
        self._hearing.check()
        request = ApprovalRequested(
            approval_id=str(uuid7()),
            tool_call_id=tool_call_id,
            name=name,
            arguments=check_json(arguments, "arguments"),
            expires_at=_expires_at(expires_in),
        )
        self._writer.put_nowait(_Request(data=request))
        waiting = self._open[request.approval_id] = _Open(request)
        try:
            await waiting.resolved.wait()
        finally:
            if self._open.pop(request.approval_id, None) is not None and self._writer.refusal is None:
                self._refuse(request.approval_id)
        if waiting.answer is None:
            self._hearing.check()
        return waiting.answer

    def resolve(self, told: ApprovalResolved) -> None:
        waiting = self._open.pop(told.approval_id, None)
        if waiting is None:
            return
        granted = waiting.request.arguments if told.arguments is None else told.arguments
        waiting.answer = Approval(
            approval_id=told.approval_id,
            approved=told.approved,
            reason=told.reason,
            arguments=granted if told.approved else None,
            by=told.by,
        )
        waiting.resolved.set()

    def close(self) -> None:
        """Nothing more will be heard."""
        open_ = list(self._open.values())
        self._open.clear()
        for waiting in open_:
            waiting.resolved.set()


@final
class Inputs:
    """Those that the producer has not taken. The server bounds how many there are."""

    def __init__(self, hearing: Hearing) -> None:
        self._hearing: Final = hearing
        self._waiting: Final[deque[Input]] = deque()
        self._known: Final[set[str]] = set()
        self._changed: Final = trio.lowlevel.ParkingLot()
        self._closed = False

    def add(self, input_id: str, kind: str, content: JSONObject) -> None:
        if input_id not in self._known:
            self._known.add(input_id)
            self._waiting.append(Input(input_id=input_id, kind=kind, content=content))
            self._changed.unpark_all()

    async def receive(self) -> Input | None:
        """The next input; None when the generation is fenced first. Cancellation loses nothing."""
        await trio.lowlevel.checkpoint()
        while not self._waiting:
            if self._closed:
                self._hearing.check()
                return None
            self._hearing.check()
            await self._changed.park()
        return self._waiting.popleft()

    def receive_nowait(self) -> Input:
        """The next input, if one waits. Raises `trio.WouldBlock`."""
        self._hearing.check()
        if not self._waiting:
            raise trio.WouldBlock
        return self._waiting.popleft()

    def close(self) -> None:
        self._closed = True
        self._changed.unpark_all()


@final
class Hearing:
    """The stream's side of one remote generation."""

    def __init__(self, writer: RemoteWriter, refuse: Callable[[str], None], *, listens: bool) -> None:
        self._writer: Final = writer
        self._listens: Final = listens
        self._failure: Exception | None = None
        self.approvals: Final = Approvals(writer, self, refuse)
        self.inputs: Final = Inputs(self)
        self.started: Final = trio.Event()

    def check(self) -> None:
        """Raises why nothing can be heard, if that is so."""
        if not self._listens:
            raise RuntimeError("approvals and inputs need produce(listen=True)")
        if self._failure is not None:
            raise self._failure.with_traceback(None)

    async def wait_started(self) -> None:
        """Until a generation that waited has started. Raises why that will not be heard, or what the fence says."""
        await self.started.wait()
        self.check()
        self._writer.check()

    def close(self) -> None:
        """The generation is fenced: who waits learns so."""
        self.approvals.close()
        self.inputs.close()
        self.started.set()

    async def listen(self, events: Events) -> None:
        """Hear until nothing follows. Raises nothing; what the stream is refused with, `check` does."""
        try:
            while True:
                delivery = await events.receive()
                if isinstance(delivery, Gap):
                    events.refresh()
                self._take(delivery)
        except trio.EndOfChannel:
            pass
        except (SessionDeleted, CorruptSession, SessionNotFound) as error:
            self._writer.fence(error)
        except Exception as error:  # noqa: BLE001  # the generation can go on; who wants to hear something learns
            logger.warning(
                "session %s: generation %s hears of stops only when it writes: %s",
                self._writer.journal.session_id,
                self._writer.generation_id,
                error,
            )
            self._failure = error
            self.close()

    def _take(self, delivery: Delivery | Lost) -> None:
        match delivery:
            case Arrived(events=events):
                for event in events:
                    if event.generation_id == self._writer.generation_id:
                        self._hear(event)
            case SnapshotTaken(snapshot=snapshot):
                self._catch_up(snapshot)
            case Ended(reason="corrupt"):
                self._writer.fence(
                    CorruptSession("the session cannot be read", session_id=self._writer.journal.session_id)
                )
            case Ended():
                self._writer.fence(
                    SessionDeleted("the session was deleted", session_id=self._writer.journal.session_id)
                )
            case _:
                pass

    def _hear(self, event: Event) -> None:
        match event.data:
            case GenerationStarted():
                self._writer.structure.turn = event.turn or 0
                self.started.set()
            case GenerationCancelling(reason=reason):
                self._fence(f"the generation was cancelled: {reason}")
            case GenerationFinished(outcome=outcome):
                self._fence(f"the generation has ended: {outcome}")
            case ApprovalResolved():
                self.approvals.resolve(event.data)
            case InputAccepted(input_id=input_id, kind=kind, extra=content):
                self.inputs.add(input_id, kind, content)
            case _:
                pass

    def _catch_up(self, snapshot: Snapshot) -> None:
        """What was told while nothing was heard."""
        live = snapshot.generation
        waits = any(item.generation_id == self._writer.generation_id for item in snapshot.queue.items)
        if live is not None and live.generation_id == self._writer.generation_id:
            self._writer.structure.turn = live.turn
            self.started.set()
            for waiting in live.inputs:
                self.inputs.add(waiting.input_id, waiting.kind, waiting.content or {})
        elif not waits:
            self._fence("the generation has ended")

    def _fence(self, why: str) -> None:
        self._writer.fence(
            StaleGeneration(why, session_id=self._writer.journal.session_id, generation_id=self._writer.generation_id)
        )


def _expires_at(seconds: float) -> str | None:
    """The moment as events carry it; None where there is none."""
    if not seconds > 0:
        raise InvalidBody("an approval expires in a number of seconds above 0")
    if seconds == math.inf:
        return None
    try:
        moment = datetime.now(UTC) + timedelta(seconds=seconds)
    except OverflowError:
        raise InvalidBody("an approval expires before the year 10000; an infinite time means never") from None
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
