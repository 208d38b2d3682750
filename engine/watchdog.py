"""The limits of one generation: idle, total, and how long it may go on with nobody connected.

Owns when a limit is reached, not what follows from it. One task per generation that sleeps until the next
moment at which anything could be due, so that an event costs it nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol, final

import trio
from attrs import frozen

from .approvals import Approvals

__all__ = ["Audience", "Limits", "Watched", "watch"]


@final
@frozen(kw_only=True)
class Limits:
    """In seconds; infinite where there is none."""

    idle: float = math.inf
    total: float = math.inf
    disconnected: float = math.inf


class Watched(Protocol):
    """The generation, as the watchdog sees it."""

    approvals: Approvals
    changed: trio.lowlevel.ParkingLot  # unparked when an approval is asked for

    @property
    def last_event(self) -> float:
        """When the last one was written, by the trio clock."""

    @property
    def waits_for_others(self) -> bool:
        """Whether the idle clock stands still; an event begins it and an event ends it."""


class Audience(Protocol):
    """The subscribers of the session."""

    last_left: float  # when the last one left, by the trio clock; minus infinity if none ever did
    on_left: set[Callable[[], object]]  # called when the last one leaves

    def __len__(self) -> int: ...


async def watch(watched: Watched, audience: Audience, limits: Limits, reached: Callable[[str], None]) -> None:
    """Call ``reached`` with ``expired``, ``stalled`` or ``disconnected``, once. Expires approvals meanwhile."""
    nudge = watched.changed.unpark_all
    audience.on_left.add(nudge)
    try:
        reached(await _next_limit(watched, audience, limits))
    finally:
        audience.on_left.discard(nudge)


async def _next_limit(watched: Watched, audience: Audience, limits: Limits) -> str:
    begun = trio.current_time()
    while True:
        now = trio.current_time()
        watched.approvals.expire()
        # Nobody tells when the wait for others is over: at the earliest it is due a whole limit from now.
        idle_since = now if watched.waits_for_others else max(begun, watched.last_event)
        alone_since = math.inf if len(audience) else max(begun, audience.last_left)
        due = {
            "expired": begun + limits.total,
            "stalled": idle_since + limits.idle,
            "disconnected": alone_since + limits.disconnected,
        }
        limit = min(due, key=due.__getitem__)
        if due[limit] <= now:
            return limit
        with trio.move_on_at(min(due[limit], watched.approvals.next_expiry)):
            await watched.changed.park()
