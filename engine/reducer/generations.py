"""The generations' part of the fold: how each of those stands that a reader of the messages needs to know of.

Owns which of them are kept: the last that started, the newest that ended without a message of their own, and what the
messages hold of those that wrote them. Of all that have ended, their places in the log are kept besides, 24 bytes each:
whoever lets go of messages reads their generations again from there.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from typing import Final, Self, final

from attrs import define, evolve, frozen

from ..events import (
    Cursor,
    Event,
    ForkedGeneration,
    GenerationFinished,
    GenerationStarted,
    Moment,
    Version,
)
from .snapshot import GenerationInfo

__all__ = ["SILENT_KEPT", "GenerationPlace", "Generations", "GrowingGeneration", "by_begin"]

# So many that ended and wrote no message are kept. A person tries again a few times; a program that starts what fails
# at once, for ever, must fill neither the memory nor each snapshot.
SILENT_KEPT: Final = 32


@final
@define(eq=False)
class GrowingGeneration:
    """A generation from its start to its end; its messages share it. ``info`` is how it stands."""

    info: GenerationInfo

    @classmethod
    def begin(cls, event: Event, data: GenerationStarted, epoch: str) -> Self:
        """With its first event."""
        return cls(
            GenerationInfo(
                generation_id=event.generation_id or "",
                state="live",
                turn=event.turn,
                author=data.author,
                started=_moment(event, epoch),
            )
        )

    @classmethod
    def forked(cls, said: ForkedGeneration) -> Self:
        """As a message that it wrote tells of it, carried over."""
        return cls(
            GenerationInfo(
                generation_id=said.generation_id,
                state="finished",
                turn=said.turn,
                outcome=said.outcome,
                code=said.code,
                message=said.message,
                retryable=said.retryable,
                usage=said.usage,
                author=said.author,
                started=said.started,
                finished=said.finished,
            )
        )

    def end(self, event: Event, data: GenerationFinished, epoch: str) -> None:
        """With its last event."""
        self.info = evolve(
            self.info,
            state="finished",
            outcome=data.outcome,
            code=data.code,
            message=data.message,
            retryable=data.retryable,
            usage=data.usage,
            finished=_moment(event, epoch),
        )

    def stand(self, behind: str | None, version: Version | None = None) -> None:
        """It has opened no message, and stands behind this one; its first would be this version."""
        self.info = evolve(self.info, silent=True, behind=behind, version=version)

    def speak(self) -> None:
        """It stands behind no message any more."""
        if self.info.silent:
            self.info = evolve(self.info, silent=False, behind=None, version=None)

    @property
    def begun(self) -> int:
        """The offset of its first event here, 0 where that is not known."""
        first = self.info.started or self.info.finished
        return 0 if first is None else first.cursor.offset


@final
@frozen(kw_only=True)
class GenerationPlace:
    """Where the log has the first and the last event of a generation that has ended."""

    generation_id: str
    begun: int
    ended: int


@final
class Generations:
    """Those of one session, as far as they are kept; those of messages are held by the messages."""

    def __init__(self) -> None:
        self.last: GrowingGeneration | None = None
        self.question: str | None = None  # the message behind which the last one began, if that was folded here
        self.silent: list[GrowingGeneration] = []
        # Of those that started and ended, in order.
        self._turns: Final = array("Q")
        self._begun: Final = array("Q")
        self._ended: Final = array("Q")

    @property
    def kept(self) -> list[GrowingGeneration]:
        """Those that are told of whichever messages are shown."""
        return self.silent if self.last is None else [*self.silent, self.last]

    def clear(self) -> None:
        self.last = self.question = None
        self.silent.clear()
        for column in (self._turns, self._begun, self._ended):
            del column[:]

    def start(self, started: GrowingGeneration, behind: str | None, version: Version | None) -> None:
        """It begins behind this message, and has opened none; its first will be this version."""
        started.stand(behind, version)
        self.last, self.question = started, behind

    def wrote(self, generation_id: str | None) -> GrowingGeneration | None:
        """A message comes of this one. Returns it, if it is the last."""
        last = self.last
        if last is None or last.info.generation_id != generation_id:
            return None
        last.speak()
        return last

    def cancel(self) -> None:
        """The last one is being ended."""
        if self.last is not None:
            self.last.info = evolve(self.last.info, state="cancelling")

    def end(self, ended: GrowingGeneration, offset: int) -> None:
        """It has ended with the event at this offset."""
        if ended.info.silent:
            self._keep_silent(ended)
        if ended.info.turn is not None and ended.begun:
            self._turns.append(ended.info.turn)
            self._begun.append(ended.begun)
            self._ended.append(offset)

    def carry(self, forked: GrowingGeneration, behind: str | None) -> None:
        """One that wrote no message came with a fork, and stands behind this message."""
        forked.stand(behind)
        self._keep_silent(forked)

    def _keep_silent(self, ended: GrowingGeneration) -> None:
        # In the order of their begin, as snapshots show them: one that only waited may end while another runs.
        self.silent = sorted([*self.silent, ended], key=by_begin)[-SILENT_KEPT:]

    def retract(self, message_id: str) -> None:
        """The message is gone, and with it those that stood behind it; the last one stands nowhere, then."""
        self.silent = [silent for silent in self.silent if silent.info.behind != message_id]
        last = self.last
        if last is not None and last.info.behind == message_id:
            last.speak()

    def place(self, generation_id: str, turn: int) -> GenerationPlace | None:
        """Where the log has the generation of this turn, if it has started and ended."""
        at = bisect_left(self._turns, turn)
        if at == len(self._turns) or self._turns[at] != turn:
            return None
        return GenerationPlace(generation_id=generation_id, begun=self._begun[at], ended=self._ended[at])


def by_begin(generation: GrowingGeneration) -> tuple[int, int]:
    """What orders them, the oldest first: those of a fork's source are before all that begin in it, by their turns."""
    return generation.begun, generation.info.turn or 0


def _moment(event: Event, epoch: str) -> Moment:
    return Moment(cursor=Cursor(epoch, event.offset or 0), time=event.time)
