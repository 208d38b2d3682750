"""How engines that share a log hear of each other at once: a hint, beside the log that is the truth.

Owns what is told and to whom. What a hint leads to is `session.views`: whoever missed one finds in the log what it was
about.
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import TypeAlias, final

from .hub import Batch
from .volatile import LocalVolatile, Volatile

__all__ = ["Bus", "Heard", "LocalBus"]

# Called with events that were committed, or with None: something else has happened to the session, look at the log.
Heard: TypeAlias = Callable[[Batch | None], None]


class Bus(abc.ABC):
    """Tells the engines that follow a session of what happened in it: at most once each, in any order, perhaps late."""

    @property
    @abc.abstractmethod
    def volatile(self) -> Volatile:
        """What its engines know together for a while."""

    @abc.abstractmethod
    async def follow(self, session_id: str, heard: Heard) -> Callable[[], None]:
        """Have ``heard`` called, in the trio thread, of all that is told from when this returns until the result is.

        Also of what the same engine tells. ``heard`` must neither wait nor raise.
        """

    @abc.abstractmethod
    def tell(self, session_id: str, batch: Batch | None) -> None:
        """Tell of it, behind its commit. Neither waits nor raises.

        Where the log itself tells of events, this does so of None only.
        """


@final
class LocalBus(Bus):
    """Between engines of one process and one trio loop."""

    def __init__(self) -> None:
        self._following: dict[str, dict[object, Heard]] = {}
        self._volatile = LocalVolatile()

    @property
    def volatile(self) -> Volatile:
        return self._volatile

    async def follow(self, session_id: str, heard: Heard) -> Callable[[], None]:
        following = self._following.setdefault(session_id, {})
        key = object()
        following[key] = heard

        def leave() -> None:
            following.pop(key, None)
            if not following and self._following.get(session_id) is following:
                del self._following[session_id]

        return leave

    def tell(self, session_id: str, batch: Batch | None) -> None:
        for heard in list(self._following.get(session_id, {}).values()):
            heard(batch)
