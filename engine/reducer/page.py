"""A snapshot that is made and encoded once for all who ask at the same cursor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar, final

from .snapshot import Snapshot

__all__ = ["SnapshotPage"]

T = TypeVar("T")


@final
class SnapshotPage:
    """A snapshot, and ``body``, its JSON."""

    __slots__ = ("__weakref__", "_framed", "body", "snapshot")

    def __init__(self, snapshot: Snapshot, body: bytes) -> None:
        self.snapshot: Final = snapshot
        self.body: Final = body
        self._framed: dict[Callable[[SnapshotPage], Any], Any] = {}

    def framed(self, frame: Callable[[SnapshotPage], T]) -> T:
        """``frame(self)``, computed once however many readers ask."""
        made: T | None = self._framed.get(frame)
        if made is None:
            made = self._framed[frame] = frame(self)
        return made
