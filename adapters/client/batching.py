"""Chunks on their way into batches: what waits, when the next batch is due, and when a producer must wait.

Pure: time is given, nothing waits here, and nothing is ever dropped. Batches go one after the other, so that no chunk
overtakes another; while one is under way, the next gathers.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Final, final

from attrs import frozen

__all__ = ["Batch", "Batcher"]


@final
@frozen
class Batch:
    """Encoded chunks that go together, in order."""

    chunks: tuple[bytes, ...]

    @property
    def body(self) -> bytes:
        return b'{"chunks":[%b]}' % b",".join(self.chunks)


@final
class Batcher:
    """At most ``count`` chunks and ``size`` bytes a batch, each at most ``linger`` seconds old when it goes, unless
    another is under way. From ``bound`` unacknowledged chunks on it is `full`."""

    def __init__(self, *, linger: float, count: int, size: int, bound: int) -> None:
        self._linger: Final = linger
        self._count: Final = count
        self._size: Final = size
        self._bound: Final = bound
        self._waiting: deque[tuple[float, bytes]] = deque()
        self._bytes = 0
        self._hasty = 0
        self._under_way = 0
        self.put_count = 0
        self.acknowledged = 0

    @property
    def full(self) -> bool:
        """Whether who writes must wait."""
        return self.put_count - self.acknowledged >= self._bound

    def put(self, chunk: bytes, now: float) -> None:
        self._waiting.append((now, chunk))
        self._bytes += len(chunk)
        self.put_count += 1

    def hasten(self) -> None:
        """What waits now shall go without lingering: somebody waits for it."""
        self._hasty = self.put_count

    @property
    def due(self) -> float:
        """When the next batch is to go; infinite when nothing waits or one is under way."""
        if not self._waiting or self._under_way:
            return math.inf
        hurried = self._hasty > self.acknowledged
        if hurried or len(self._waiting) >= self._count or self._bytes >= self._size:
            return -math.inf
        return self._waiting[0][0] + self._linger

    def take(self) -> Batch:
        """The next batch, which is under way from here until `delivered`."""
        chunks: list[bytes] = []
        size = 0
        while self._waiting and len(chunks) < self._count:
            length = len(self._waiting[0][1])
            if chunks and size + length > self._size:
                break
            chunks.append(self._waiting.popleft()[1])
            size += length
        self._bytes -= size
        self._under_way = len(chunks)
        return Batch(tuple(chunks))

    def delivered(self) -> None:
        """The server has acknowledged the batch under way."""
        self.acknowledged += self._under_way
        self._under_way = 0
