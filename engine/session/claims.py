"""Claims: how an engine makes a session its own, in order to write in it.

Owns when a session is another engine's, and how many of its claims are kept as records.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final, final

from attrs import evolve

from ..errors import Moved, PenstockError, StaleEpoch, StaleToken, TimedOut
from ..events import SessionId
from ..facts import Observer, SessionClaimed, StoreWentBack
from ..log.port import BLOCK, Claim, EventLog, Head, Keep, next_block, rebased
from ..rules.records import CLAIMS, OPEN
from ..stream.bus import Bus
from .heads import Heads

__all__ = ["Claims"]

# Of a session's claims so many are kept in records at least, and looked at by each so many-th.
_CLAIMS_KEPT: Final = 64
_SWEPT_EACH: Final = 16


@final
class Claims:
    """Of one engine, named ``owner`` where others share its log, which hear of them over ``bus``."""

    def __init__(self, log: EventLog, heads: Heads, owner: str, observer: Observer, bus: Bus | None) -> None:
        self._log = log
        self._heads = heads
        self._owner = owner
        self._observer = observer
        self._bus = bus
        # Whether the engine of that name is gone; None where that cannot be known.
        self.is_gone: Callable[[str], Awaitable[bool]] | None = None

    async def claim(self, session_id: SessionId, head: Head, gone: str) -> Head:
        """Make it this engine's, in a new epoch if it is in doubt; what it had before, but for that.

        Where it stands is to be read again behind this: others may have written meanwhile.
        """
        open_ = False
        while True:
            anew = rebased(head.epoch) if head.doubted else None
            claim = Claim(session_id=session_id, epoch=head.epoch, seen=head.token, owner=self._owner, anew=anew)
            try:
                open_ = False
                if self._owner and head.owner not in ("", self._owner):
                    # What begins behind this look raises the token, and then the claim is refused.
                    open_ = await self._log.record(session_id, head.epoch, OPEN) is not None
                    if open_ and head.owner != gone and (self.is_gone is None or not await self.is_gone(head.owner)):
                        raise Moved("another engine has the session", owner=head.owner, session_id=session_id)
                if not await self._heads.written(claim, lambda: None):
                    raise TimedOut("the log has not said yet whose the session is", session_id=session_id)
                break
            except (StaleToken, StaleEpoch):
                head = await self._heads.living(session_id)
        await self._sweep(claim)
        if self._owner:
            self._observer.observe(SessionClaimed(session_id=session_id, former=head.owner, gone=open_))
        if self._bus is not None:
            self._bus.tell(session_id, None)  # for the former owner
        if anew is None:
            return head
        self._observer.observe(StoreWentBack(session_id=session_id, epoch=anew))
        return evolve(head, epoch=anew, token=next_block(head.token), doubted=False)

    async def _sweep(self, last: Claim) -> None:
        """Remove the records of claims that are too old to be kept. Where that fails, they stay until the next time."""
        if last.token // BLOCK % _SWEPT_EACH:
            return
        with suppress(PenstockError):
            epoch = last.anew or last.epoch
            claims = list(await self._log.records(last.session_id, epoch, CLAIMS))
            if old := dict.fromkeys(claims[:-_CLAIMS_KEPT]):
                self._log.submit(Keep(session_id=last.session_id, epoch=epoch, records=old), lambda _: None)
