"""A reader's place in a session, over any number of connections: what to ask for next, and what of a frame is new.

Pure. Nothing is let through twice, nothing of another session, and nothing of another life of this one without the
`Gap` that tells of it.
"""

from __future__ import annotations

import logging
from typing import Final, TypeAlias, final

from attrs import frozen

from penstock.engine import CaughtUp, Cursor, Event, Gap, Opened, SnapshotTaken

from ..forms.controls import Control
from .frames import Bunch, Frame, Later
from .refusals import BadAnswer

__all__ = ["Arrived", "Asks", "Delivery", "Place"]

logger = logging.getLogger("penstock.client")


@final
@frozen
class Arrived:
    """New events, in order; those that are not in the log have no offset. ``cursor`` stands behind the last."""

    events: tuple[Event, ...]
    cursor: Cursor


@final
@frozen
class Asks:
    """What the next connection asks for: the state, with ``limit`` messages at most, or what lies behind ``after``."""

    after: str | None
    snapshot: bool
    limit: int | None = None


Delivery: TypeAlias = Opened | SnapshotTaken | Arrived | Control


@final
class Place:
    """Begins behind ``after`` (a cursor, ``now``, or the start), or with a snapshot of at most ``limit`` messages."""

    def __init__(
        self, session_id: str, after: Cursor | str | None, *, snapshot: bool, limit: int | None = None
    ) -> None:
        self.session_id: Final = session_id
        self.cursor: Cursor | None = after if isinstance(after, Cursor) else None
        self.duplicates = 0
        self.gaps = 0
        self._from_now = after == "now"
        self._snapshot = snapshot
        self._limit: Final = limit

    @property
    def asks(self) -> Asks:
        if self._snapshot:
            return Asks(None, True, self._limit)
        if self.cursor is not None:
            return Asks(str(self.cursor), False)
        return Asks("now" if self._from_now else None, False)

    def want_snapshot(self) -> None:
        """What was read does not add up: the next connection begins with the state."""
        self._snapshot = True

    def take(self, frame: Frame) -> Delivery | None:
        """What of the frame a reader has not had; None if nothing. Raises `BadAnswer`."""
        match frame:
            case Bunch():
                return self._take_events(frame)
            case Opened(cursor=cursor):
                if self.cursor is not None or self._snapshot:
                    return None  # where it begins was known, or comes with the snapshot or the gap
                self.cursor = cursor
            case SnapshotTaken(snapshot=snapshot):
                self.cursor, self._snapshot = snapshot.cursor, False
            case CaughtUp(cursor=cursor):
                if self.cursor is not None and cursor != self.cursor:
                    raise BadAnswer(f"the replay ended at {cursor}, and the last event was at {self.cursor}")
            case Gap(resumed=resumed):
                self.cursor = resumed
                self.gaps += 1
            case Later():
                return None
            case _:
                pass
        return frame

    def _take_events(self, bunch: Bunch) -> Arrived | None:
        fresh: list[Event] = []
        for cursor, event in bunch.items:
            if event.session_id != self.session_id:
                logger.warning(
                    "an event of session %.128s came in the stream of %s and is left out",
                    event.session_id,
                    self.session_id,
                )
            elif cursor is None:
                fresh.append(event)
            elif self._is_new(cursor):
                self.cursor = cursor
                fresh.append(event)
        if not fresh or self.cursor is None:
            return None
        return Arrived(tuple(fresh), self.cursor)

    def _is_new(self, cursor: Cursor) -> bool:
        here = self.cursor
        if here is None:
            return True
        if cursor.epoch != here.epoch:
            raise BadAnswer(f"the stream went from {here} to {cursor} and told of no gap")
        if cursor.offset <= here.offset:
            self.duplicates += 1
            return False
        return True
