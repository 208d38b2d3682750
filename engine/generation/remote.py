"""The producer, in this process, of a generation that another process drives.

It makes a remote generation a run like any other: there is a task to cancel, to watch and to wait for. What the other
process writes comes through `remote`.
"""

from __future__ import annotations

from typing import Final, final

import trio

from .generation import Generation
from .lease import Lease

__all__ = ["REMOTE", "RemoteProducer"]

# The name by which starts ask for it.
REMOTE: Final = "remote"


@final
class RemoteProducer:
    """Waits until the other process is done. ``adopted``: the generation was begun before this process was."""

    def __init__(self, *, adopted: bool = False) -> None:
        self.heard = False  # something of its producer was taken, in the life of this object
        self.lease: Lease | None = None  # most producers declare none
        self._adopted = adopted
        self._finished = trio.Event()

    async def __call__(self, _: Generation) -> None:
        await self._finished.wait()

    @property
    def is_lost(self) -> bool:
        """Whether nothing tells that the producer outlived the process that knew it."""
        return self._adopted and not self.heard

    def hear(self, seconds: float | None) -> bool:
        """A request of the producer's came; with ``seconds``, it declares a lease. Whether its times are sooner now."""
        lease = self.lease
        if lease is None:
            self.lease = None if seconds is None else Lease(seconds)
            return seconds is not None
        sooner = seconds is not None and seconds < lease.seconds
        lease.renew(lease.seconds if seconds is None else seconds)
        return sooner

    def finish(self) -> None:
        """The other process is done."""
        self._finished.set()
