"""Who is there of the engines that share a log, as one of them sees it.

Owns this engine's lease, whose leases are over, and who of the others sees to what is left behind. What a session is
and how it is taken over is the engine's.

    beat           every quarter of the lease's time: here I am
    look           every half second: whose leases hold
    see to         what a node has left open whose lease is over; each its share
    look further   every five leases one of all: for what nodes own that nobody knows of any more

A lease says only who is worth waiting for. Two engines may see it differently, and both may be wrong: what keeps one
order of a session's events is the token in the log (`log.fence`), whoever believes what.

Nobody is judged before the store has answered all the time for one and a half leases: behind an outage every lease is
over, and their holders need the time to beat again. An engine that was stopped for a while judges nobody either, for
the same reason; and it asks the log first whether it still has what it believes to own.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable, Iterable, Mapping
from hashlib import blake2b
from typing import Final, final

import trio
from attrs import evolve

from ..errors import DatabaseInUse, PenstockError, StorageError
from ..stream.bus import Bus, Node

__all__ = ["Membership"]

logger = logging.getLogger("penstock.cluster")

# The longest time between two looks at the leases, and between two tries of a beat that failed: seconds.
_LOOK: Final = 0.5

# A lease has room for so many beats: two of them may be lost.
_BEATS: Final = 4

# In leases: for so long the store must have answered before a lease that is over means anything.
_SURE: Final = 1.5

# In leases: so often it is looked for what somebody owns who has no lease and is not known to have had one: an engine
# that took something up while its own was over, or all of them, where a store has forgotten them.
_FURTHER: Final = 5

# So long the store is given to hear that this node leaves: seconds. Its lease ends by itself all the same.
_LEAVE: Final = 1.0


@final
class Membership:
    """``confirm`` has the log say whether this engine still owns what is live in it. It must neither wait nor raise.

    ``inherit`` takes over what the named engine left open, in the sessions of whose ids it is told to; whether nothing
    of it is left. ``owners`` tells who has anything open. ``replaced`` is called when another engine has begun under
    this name.
    """

    def __init__(
        self,
        bus: Bus,
        node: Node,
        *,
        confirm: Callable[[], None],
        inherit: Callable[[str, Callable[[str], bool]], Awaitable[bool]],
        owners: Callable[[], Awaitable[Iterable[str]]],
        replaced: Callable[[DatabaseInUse], None],
    ) -> None:
        self.node = node
        self._bus: Final = bus
        self._confirm: Final = confirm
        self._inherit: Final = inherit
        self._owners: Final = owners
        self._replaced: Final = replaced
        self._known: Mapping[str, Node | None] = {}
        self._beaten = self._looked = self._answering_since = math.inf
        self._beat_now = trio.Event()
        self._see_to_now = trio.Event()
        self._failing: set[str] = set()  # what has been told to fail

    # --- what is known

    def nodes(self) -> list[Node]:
        """Those whose leases hold, this one too, in order of name. Not older than `_LOOK`, while the store answers."""
        known = {name: node for name, node in self._known.items() if node is not None}
        known[self.node.name] = self.node
        return [known[name] for name in sorted(known)]

    def find(self, name: str) -> Node | None:
        """The node of that name, if its lease holds."""
        return self.node if name == self.node.name else self._known.get(name)

    @property
    def beaten_ago(self) -> float:
        """Seconds since the store last took this engine's beat."""
        return max(0.0, trio.current_time() - self._beaten)

    def responsible(self, session_id: str) -> bool:
        """Whether this node is the one that sees to what nobody does of the session.

        Of all that know the same nodes exactly one is. (Rendezvous hashing: where one leaves, only its share moves.)
        """
        names = [node.name for node in self.nodes() if not node.draining]
        return self.node.name in names and self.node.name == max(names, key=lambda name: _weight(name, session_id))

    async def is_gone(self, name: str) -> bool:
        """Whether the engine of that name is gone, so that what it owns may be taken over. False when in doubt."""
        if self.find(name) is not None or not self._is_sure:
            return False
        try:
            await self._look()  # it may have come since
        except StorageError:
            return False
        return self.find(name) is None and self._is_sure

    @property
    def _is_sure(self) -> bool:
        return self._looked - self._answering_since >= _SURE * self.node.ttl

    # --- its life

    async def join(self) -> None:
        """Be there. Raises `StorageError`."""
        await self._bus.beat(self.node, self.node.ttl)
        self._beaten = self._looked = self._answering_since = trio.current_time()
        await self._look()

    async def run(self) -> None:
        """Stay there, and see to those that do not, until cancelled; or until another engine has this name."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep_looking)
            nursery.start_soon(self._see_to_others)
            nursery.start_soon(self._look_further)
            await self._keep_beating()
            nursery.cancel_scope.cancel(reason="another engine has this one's name")

    def drain(self) -> None:
        """Say that this node takes nothing more over."""
        self.node = evolve(self.node, draining=True)
        self._beat_now.set()

    async def leave(self) -> None:
        """Be gone: what is left open goes to others at once."""
        with trio.move_on_after(_LEAVE):
            try:
                await self._bus.retire(self.node.name, self.node.incarnation)
            except StorageError as error:
                logger.warning("the lease of %s ends by itself: %s", self.node.name, error)

    # --- beating

    async def _keep_beating(self) -> None:
        ttl = self.node.ttl
        pause = ttl / _BEATS
        confirmed = False
        while True:
            with trio.move_on_after(pause):
                await self._beat_now.wait()
            self._beat_now = trio.Event()
            if not confirmed and trio.current_time() - self._beaten > ttl / 2:
                # Stopped, or cut off. What producers write now is handed over behind the log's answer to this.
                self._confirm()
                confirmed = True
            try:
                held = await self._bus.beat(self.node, ttl)
            except DatabaseInUse as error:
                self._replaced(error)
                return
            except StorageError as error:
                self._fails("beat", error)
                pause = min(_LOOK, ttl / _BEATS)
                continue
            if not held:
                logger.warning("the lease of %s was over for a while: others may have its sessions", self.node.name)
                self._confirm()
            self._failing.discard("beat")
            self._beaten, confirmed, pause = trio.current_time(), False, ttl / _BEATS

    # --- looking

    async def _keep_looking(self) -> None:
        while True:
            await trio.sleep(min(_LOOK, self.node.ttl / 2 / _BEATS))
            try:
                await self._look()
            except StorageError as error:
                self._fails("look", error)
                continue
            self._failing.discard("look")
            if self._is_sure and self._gone():
                self._see_to_now.set()

    async def _look(self) -> None:
        try:
            known = await self._bus.nodes()
        except StorageError:
            self._answering_since = math.inf
            raise
        now = trio.current_time()
        if now - self._looked > self.node.ttl / 2 or self._answering_since > now:
            self._answering_since = now
        self._known, self._looked = known, now

    def _gone(self) -> list[str]:
        return [name for name, node in self._known.items() if node is None and name != self.node.name]

    # --- what others leave behind

    async def _see_to_others(self) -> None:
        while True:
            await self._see_to_now.wait()
            self._see_to_now = trio.Event()
            for name in self._gone():
                if self.node.draining or not self._is_sure:
                    break
                try:
                    if await self._inherit(name, self.responsible):
                        await self._bus.retire(name)
                    self._failing.discard(_taking(name))
                except PenstockError as error:
                    self._fails(_taking(name), error)

    async def _look_further(self) -> None:
        while True:
            await trio.sleep(_FURTHER * self.node.ttl)
            if not self._is_sure or not self.responsible(""):
                continue
            try:
                for name in await self._owners():
                    if name not in self._known and await self.is_gone(name):
                        await self._inherit(name, lambda _: True)
            except PenstockError as error:
                self._fails("look further", error)
            else:
                self._failing.discard("look further")

    def _fails(self, what: str, error: PenstockError) -> None:
        """Say so, once until it has been done again."""
        if what not in self._failing:
            self._failing.add(what)
            logger.warning("the node %s cannot %s for now: %s", self.node.name, what, error)


def _taking(name: str) -> str:
    return f"take over what {name} left"


def _weight(name: str, session_id: str) -> bytes:
    return blake2b(f"{name}/{session_id}".encode(), digest_size=8).digest()
