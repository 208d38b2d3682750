"""How engines that share a log hear of each other: hints, beside the log that is the truth, and leases.

Owns what is told and to whom, and which of the engines are there. What a hint leads to is `session.views`: whoever
missed one finds in the log what it was about. What a lease leads to is `cluster.membership`: it says who is worth
waiting for, and gives nobody a right; the right to write is the token that the log knows.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping
from typing import Final, TypeAlias, final

import trio
from attrs import frozen

from ..codec import converter, decode_json, encode_json, structure
from ..errors import DatabaseInUse, InvalidBody
from .hub import Batch
from .volatile import LocalVolatile, Volatile

__all__ = ["REMEMBERED", "Bus", "Heard", "LocalBus", "Node", "name_taken"]

# Called with events that were committed, or with None: something else has happened to the session, look at the log.
Heard: TypeAlias = Callable[[Batch | None], None]

# Incarnations of one name that are remembered, so that none of those that were replaced comes back.
REMEMBERED: Final = 16


@final
@frozen(kw_only=True)
class Node:
    """An engine that shares its log, as it says of itself: ``name`` is the owner of its sessions in the log.

    ``incarnation`` is another one each time the engine is opened. ``url`` is where other nodes reach it: empty where
    they do not. ``since`` is when it was opened, in RFC 3339 and by its own clock: for people, and for nothing that is
    decided. ``ttl`` is how long its lease lasts without a beat, in seconds. One that is ``draining`` takes nothing more
    over. ``producers`` are the names that a start there may name.
    """

    name: str
    incarnation: str
    url: str = ""
    version: str = ""
    since: str = ""
    ttl: float = 0.0
    draining: bool = False
    producers: tuple[str, ...] = ()

    def encoded(self) -> bytes:
        """As `decoded` reads it, of this version or another."""
        return encode_json(converter.unstructure(self))

    @classmethod
    def decoded(cls, name: str, said: bytes) -> Node:
        """What a node of this name said of itself; of what cannot be read, that it is there."""
        try:
            return structure(decode_json(said), Node)
        except InvalidBody:
            return cls(name=name, incarnation="")


class Bus(abc.ABC):
    """Tells the engines that follow a session of what happened in it: at most once each, in any order, perhaps late.

    It also keeps the engines' leases. How old a lease is only the clock of the store says that holds it: no wall clock
    of two machines is ever compared. What can wait for the store raises `StorageError` where that stays away.
    """

    @property
    @abc.abstractmethod
    def volatile(self) -> Volatile:
        """What its engines know together for a while."""

    @abc.abstractmethod
    async def follow(self, session_id: str, heard: Heard) -> Callable[[], None]:
        """Have ``heard`` called, in the trio thread, of all that is told from when this returns until the result is.

        Also of what the same engine tells. ``heard`` must neither wait nor raise. Where what is told does not arrive
        for a while, it is called with None once it does again; so a store that is away is no reason to raise.
        """

    @property
    def listening(self) -> bool:
        """Whether all that is told now is heard; where it is not, the log is looked at more often."""
        return True

    @abc.abstractmethod
    def tell(self, session_id: str, batch: Batch | None) -> None:
        """Tell of it, behind its commit. Neither waits nor raises."""

    def hint(self, session_id: str) -> None:
        """Have ``heard`` called with None, for something that is not in the log. Neither waits nor raises."""
        self.tell(session_id, None)

    @abc.abstractmethod
    async def beat(self, node: Node, ttl: float) -> bool:
        """``node`` is there for ``ttl`` seconds more; whether it has been since its last beat.

        An incarnation that has not been heard of takes the name, and the one that had it is told at its next beat: it
        raises `DatabaseInUse`. Raises `StorageError`.
        """

    @abc.abstractmethod
    async def nodes(self) -> Mapping[str, Node | None]:
        """Every name that has beaten and may still own something: what it said last, or None where its lease is over.

        Raises `StorageError`.
        """

    @abc.abstractmethod
    async def retire(self, name: str, incarnation: str | None = None) -> None:
        """End the lease of this incarnation, which leaves on purpose.

        Without one, forget the name: nothing of it is left to own. That does nothing while it has a lease. A name that
        was forgotten may come back. Raises `StorageError`.
        """

    async def aclose(self) -> None:
        """Tell and hear nothing more. May be called again."""
        await trio.lowlevel.checkpoint()


def name_taken(name: str) -> DatabaseInUse:
    """What the incarnation of a name is told that another one has replaced."""
    return DatabaseInUse(f"another engine has begun under the name {name}: give each engine over a log its own name")


@final
class LocalBus(Bus):
    """Between engines of one process and one trio loop, whose clock decides how old a lease is."""

    def __init__(self) -> None:
        self._following: dict[str, dict[object, Heard]] = {}
        self._volatile = LocalVolatile()
        self._incarnations: dict[str, list[str]] = {}  # of each name, the newest last
        self._leases: dict[str, tuple[Node, float]] = {}  # until when

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

    async def beat(self, node: Node, ttl: float) -> bool:
        await trio.lowlevel.checkpoint()
        known = self._incarnations.setdefault(node.name, [])
        if node.incarnation in known[:-1]:
            raise name_taken(node.name)
        if node.incarnation not in known:
            known.append(node.incarnation)
            del known[:-REMEMBERED]
            self._leases.pop(node.name, None)
        held = self._lease(node.name) is not None
        self._leases[node.name] = (node, trio.current_time() + ttl)
        return held

    async def nodes(self) -> Mapping[str, Node | None]:
        await trio.lowlevel.checkpoint()
        return {name: self._lease(name) for name in self._incarnations}

    async def retire(self, name: str, incarnation: str | None = None) -> None:
        await trio.lowlevel.checkpoint()
        if incarnation is not None:
            if self._incarnations.get(name, [])[-1:] == [incarnation]:
                self._leases.pop(name, None)
        elif self._lease(name) is None:
            self._incarnations.pop(name, None)

    def _lease(self, name: str) -> Node | None:
        node, until = self._leases.get(name, (None, 0.0))
        return node if trio.current_time() < until else None
