"""What folding one event comes to."""

from __future__ import annotations

from typing import Final, TypeAlias, TypeVar, final

from attrs import frozen

from ..errors import InvalidBody
from ..events import Event

__all__ = ["APPLIED", "DUPLICATE", "Applied", "Duplicate", "Folded", "Gap", "stamped"]

_T = TypeVar("_T")


@final
@frozen
class Applied:
    """The event is part of the state now."""


@final
@frozen
class Duplicate:
    """The state holds this already. A block event under a new offset still moves the cursor."""


@final
@frozen
class Gap:
    """Something before this event is missing; the state is untouched: read on from its cursor.

    The texts are for a log or a person.
    """

    expected: str
    got: str


Folded: TypeAlias = Applied | Duplicate | Gap

APPLIED: Final = Applied()
DUPLICATE: Final = Duplicate()


def stamped(value: _T | None, name: str, event: Event) -> _T:
    """A part of the stamp that the event must bear. Raises `InvalidBody`."""
    if value is None:
        raise InvalidBody(f"{event.type} at offset {event.offset} has no {name}", session_id=event.session_id)
    return value
