"""The seam between replay and tail: what of a live batch is new to a reader who stands at a position.

A reader registers first, then replays, then drains what was published meanwhile. The batches it drains may
lie before, across or behind its position; this is the one place that tells which.
"""

from __future__ import annotations

import enum

__all__ = ["Seam", "seam"]


class Seam(enum.Enum):
    SEEN = enum.auto()  # wholly behind the reader: drop it
    NEXT = enum.auto()  # begins right after the position: take it whole
    OVERLAP = enum.auto()  # begins before, ends after: take what lies after the position
    HOLE = enum.auto()  # begins too late: something between is only in the log


def seam(position: int, first: int, last: int) -> Seam:
    """How a batch of offsets ``first`` to ``last`` meets a reader that has everything up to ``position``."""
    if last <= position:
        return Seam.SEEN
    if first == position + 1:
        return Seam.NEXT
    return Seam.OVERLAP if first <= position else Seam.HOLE
