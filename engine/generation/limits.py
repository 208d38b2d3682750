"""The limits of a generation: idle, total, its producer's lease, and how long it may go on with nobody connected."""

from __future__ import annotations

from typing import Literal, TypeAlias, final

from attrs import frozen

__all__ = ["LimitName", "Limits"]

LimitName: TypeAlias = Literal["expired", "stalled", "lost", "disconnected"]


@final
@frozen(kw_only=True)
class Limits:
    """In seconds; infinite where there is none."""

    idle: float
    total: float
    disconnected: float

    def first(self, *, begun: float, idle_since: float, alone_since: float, lost_at: float) -> tuple[LimitName, float]:
        """Which is reached first if nothing happens until then, and when.

        Moments are of one clock. Infinite: somebody is connected, no lease was declared.
        """
        due: dict[LimitName, float] = {
            "expired": begun + self.total,
            "stalled": idle_since + self.idle,
            "lost": lost_at,
            "disconnected": alone_since + self.disconnected,
        }
        limit = min(due, key=due.__getitem__)
        return limit, due[limit]
