"""How long a producer in another process may be silent, where it has said so.

Owns when its silence is told, and when it is taken for dead. Any request of the producer's is a sign of life; without a
lease only its events are, and the idle limit counts. Kept in memory: after a restart of the engine the producer's next
request brings it again.
"""

from __future__ import annotations

import math
from typing import Final, cast, final

import trio

from ..errors import InvalidBody

__all__ = ["SILENT", "Lease", "check_lease"]

# What readers are told when the producer was silent for the time of its lease; for twice as long, it is lost.
SILENT: Final = "producer-silent"

# A day: who is silent for longer is not waited for.
_LONGEST: Final = 86_400


def check_lease(given: object) -> float | None:
    """How long a producer may be silent, in seconds; None where it does not say. Raises `InvalidBody`."""
    if given is None:
        return None
    if type(given) not in (int, float) or not 0 < cast("float", given) <= _LONGEST:
        raise InvalidBody(f"a producer's lease is a number of seconds above 0, {_LONGEST} at most")
    return float(cast("float", given))


@final
class Lease:
    """``seconds`` without a request are silence."""

    __slots__ = ("heard_at", "seconds", "told")

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.heard_at = trio.current_time()
        self.told = False  # readers know of the silence

    def renew(self, seconds: float) -> None:
        """A request came, with these seconds."""
        self.seconds = seconds
        self.heard_at = trio.current_time()

    @property
    def silent_at(self) -> float:
        """When readers are to be told, by the trio clock; infinite once they were."""
        return math.inf if self.told else self.heard_at + self.seconds

    @property
    def ends_at(self) -> float:
        """When the producer is lost."""
        return self.heard_at + 2 * self.seconds
