"""How calls are answered in each phase of a session's life in memory: one table.

Owns the phases, which of them it is when several things are so at once, and what is said to whom. Pure.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, final

from attrs import define

from ..errors import CorruptSession, Draining, Moved, PenstockError, SessionDeleted

__all__ = ["ANSWERS", "Call", "Life", "Phase"]


class Phase(enum.Enum):
    OPEN = enum.auto()
    DRAINING = enum.auto()  # the engine shuts down: what is live ends, and nothing begins
    LEFT = enum.auto()  # likewise, and what was live is the next process's
    DELETING = enum.auto()  # until the log has ended this life, or could not
    CLOSED = enum.auto()  # it has left memory
    MOVED = enum.auto()  # another engine has it
    SET_ASIDE = enum.auto()  # what is stored of it cannot be read
    DELETED = enum.auto()


class Call(enum.Enum):
    WRITE = enum.auto()  # a start, a post, an input, chunks, a finish, and every step but a stop and a delete
    END = enum.auto()  # a stop, a delete
    BE_HERE = enum.auto()  # presence


# What each call is refused with; None where it is taken.
ANSWERS: Final[Mapping[Phase, Mapping[Call, type[PenstockError] | None]]] = MappingProxyType(
    {
        Phase.OPEN: {Call.WRITE: None, Call.END: None, Call.BE_HERE: None},
        Phase.DRAINING: {Call.WRITE: Draining, Call.END: None, Call.BE_HERE: None},
        Phase.LEFT: {Call.WRITE: Draining, Call.END: Draining, Call.BE_HERE: None},
        Phase.DELETING: {Call.WRITE: SessionDeleted, Call.END: None, Call.BE_HERE: SessionDeleted},
        Phase.CLOSED: {Call.WRITE: Draining, Call.END: Draining, Call.BE_HERE: Draining},
        Phase.MOVED: {Call.WRITE: Moved, Call.END: Moved, Call.BE_HERE: Moved},
        Phase.SET_ASIDE: {Call.WRITE: CorruptSession, Call.END: CorruptSession, Call.BE_HERE: CorruptSession},
        Phase.DELETED: {Call.WRITE: SessionDeleted, Call.END: SessionDeleted, Call.BE_HERE: SessionDeleted},
    }
)

_SAID: Final = {SessionDeleted: "the session was deleted", Draining: "the engine is shutting down"}


@final
@define
class Life:
    """One session's life in memory. What has become so stays so, but for ``deleting``, where that fails."""

    session_id: str
    draining: bool = False
    left: bool = False
    deleting: bool = False
    closed: bool = False
    deleted: bool = False
    moved_to: str | None = None  # the engine that has it
    moved: str = "another engine has the session"
    corrupt: CorruptSession | None = None

    @property
    def phase(self) -> Phase:
        """The first of these that holds."""
        if self.corrupt is not None:
            return Phase.SET_ASIDE
        if self.moved_to is not None:
            return Phase.MOVED
        if self.deleted or (self.deleting and self.closed):
            return Phase.DELETED
        if self.deleting:
            return Phase.DELETING
        if self.closed:
            return Phase.CLOSED
        if self.left:
            return Phase.LEFT
        return Phase.DRAINING if self.draining else Phase.OPEN

    def check(self, call: Call) -> None:
        """Raises what the call is refused with now."""
        if ANSWERS[self.phase][call] is not None:
            raise self.refusal()

    def refusal(self) -> PenstockError:
        """What who waits is told when nothing more is done for them."""
        if self.corrupt is not None:
            return CorruptSession(self.corrupt.detail, session_id=self.session_id)
        if self.moved_to is not None:
            return Moved(self.moved, owner=self.moved_to, session_id=self.session_id)
        kind: type[PenstockError] = ANSWERS[self.phase][Call.WRITE] or Draining
        return kind(_SAID[kind], session_id=self.session_id)
