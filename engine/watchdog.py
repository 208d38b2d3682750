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

__all__ = ["Limits", "Watched", "watch"]


@final
@frozen(kw_only=True)
class Limits:
    """In seconds; infinite where there is none."""

    idle: float = math.inf
    total: float = math.inf
    disconnected: float = math.inf


class Watched(Protocol):
    """What the watchdog looks at. Times are of the trio clock."""

    @property
    def last_event(self) -> float:
        """When the generation last wrote or was written to."""

    @property
    def waits_for_others(self) -> bool:
        """Whether an approval is open or a tool call awaits its result: the idle clock stands still."""

    @property
    def connected(self) -> bool:
        """Whether anybody is subscribed to the session."""

    @property
    def last_left(self) -> float:
        """When the last subscriber left; 0 if none ever did."""

    @property
    def next_expiry(self) -> float:
        """When the next open approval expires; infinite if none does."""

    async def wait_approval(self) -> None:
        """Until another approval is asked for."""


async def watch(watched: Watched, limits: Limits, reached: Callable[[str], None]) -> None:
    """Call ``reached`` with ``stalled``, ``expired`` or ``disconnected``, once, and return.

    Before that, with ``approval`` as often as an approval's time is over; ``reached`` must then resolve it.
    """
    begun = trio.current_time()
    while True:
        now = trio.current_time()
        # Who stands still, or is connected, can at the earliest be due a whole limit from now.
        idle_since = now if watched.waits_for_others else watched.last_event
        left = now if watched.connected else max(begun, watched.last_left)
        due = {
            "approval": watched.next_expiry,
            "expired": begun + limits.total,
            "stalled": idle_since + limits.idle,
            "disconnected": left + limits.disconnected,
        }
        name = min(due, key=due.__getitem__)
        if due[name] > now:
            with trio.move_on_at(due[name]):
                await watched.wait_approval()
            continue
        reached(name)
        if name != "approval":
            return
