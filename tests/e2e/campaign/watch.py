"""What is looked at in the store while everything goes on: who owns what, under which tokens, and what nobody does.

- R10, as far as it can be seen from outside: a session's token never goes down, and a block of tokens is one owner's.
- A generation is not open for longer than a lease and `SLACK` behind the end of its owner.
"""

from __future__ import annotations

import time
from typing import Final, final

import trio

from penstock.engine import EventLog, Head, StaleEpoch, StorageError
from penstock.engine.log.port import BLOCK
from penstock.engine.rules.records import OPEN
from tests.e2e.nodes import Life, Node

__all__ = ["SLACK", "Watch"]

# Behind the end of a lease: the next look of the others, their claim, and its commit.
SLACK: Final = 2.0

_PAUSE: Final = 0.5

# A process takes longer than that until it can claim anything.
_STARTING: Final = 0.6


@final
class Watch:
    """``disturbed``: by node, when something last went wrong with it, or was over.

    Nobody is judged before the others and the store were left alone for one and a half leases: after an outage every
    lease is old, and who has to take over may be the one that something goes wrong with.
    """

    def __init__(self, log: EventLog, nodes: list[Node], ttl: float) -> None:
        self._log: Final = log
        self._nodes: Final = {node.name: node for node in nodes}
        self._ttl: Final = ttl
        self._tokens: Final[dict[str, int]] = {}
        self._owners: Final[dict[tuple[str, int], str]] = {}
        self._held: Final[dict[tuple[str, int], Life]] = {}  # by session and block: whose process claimed it
        self._told: Final[set[tuple[str, int]]] = set()
        self.store_back: float | None = 0.0  # None: it is away
        self.disturbed: Final[dict[str, float]] = {node.name: 0.0 for node in nodes}
        self.looks = 0
        self.longest = 0.0  # seconds that a generation was open without an owner
        self.faults: Final[list[str]] = []

    async def run(self) -> None:
        """Look until cancelled."""
        last = time.monotonic()
        while True:
            await trio.sleep(_PAUSE)
            now = time.monotonic()
            if now - last > 2 * _PAUSE + 0.5:  # the machine stood still, and nodes with it
                for name, since in self.disturbed.items():
                    self.disturbed[name] = max(since, now)
            last = now
            if self.store_back is not None:
                try:
                    with trio.move_on_after(5):
                        await self._look()
                        self.looks += 1
                except (StaleEpoch, StorageError):  # a session was deleted between two questions; the store is away
                    pass

    async def _look(self) -> None:
        after = ""
        while held := await self._log.holders(OPEN, after=after):
            for session_id, _ in held:
                head = await self._log.head(session_id)
                # What was ended between the two is no holder any more.
                if head is not None and await self._log.record(session_id, head.epoch, OPEN) is not None:
                    self._judge(head, time.monotonic())
            after = held[-1][0]

    def _judge(self, head: Head, now: float) -> None:
        block = head.token // BLOCK
        key = (head.session_id, block)
        if head.token < self._tokens.get(head.session_id, 0):
            self.faults.append(f"R10: the token of {head.session_id} went down to {head.token}")
        self._tokens[head.session_id] = head.token
        owner = self._owners.setdefault(key, head.owner) if head.owner else ""  # given back, within the block
        if owner != head.owner:
            self.faults.append(f"R10: {owner} and {head.owner} had {head.session_id} under the block {block}")
        node = next((node for name, node in self._nodes.items() if _is(head.owner, name)), None)
        if node is None:
            return  # nobody's, or of a service with one node
        life = self._held.setdefault(key, _life(node, now))
        gone = node.away_since if life.ended is None else life.ended
        if gone is None:
            return
        others = [since for name, since in self.disturbed.items() if name != node.name]
        judged = max(*others, self.store_back or 0.0)
        alone = now - max(gone, judged + self._ttl / 2)
        self.longest = max(self.longest, alone)
        if alone > self._ttl + SLACK and key not in self._told:
            self._told.add(key)
            self.faults.append(
                f"{head.session_id} is open under {head.owner}, which is gone for {now - gone:.1f} s; nothing has "
                f"befallen the others for {now - judged:.1f} s"
            )


def _life(node: Node, now: float) -> Life:
    """Whose process has claimed what is seen now for the first time: a new one claims nothing in its first moments."""
    return next((life for life in reversed(node.lives) if life.began < now - _STARTING), node.lives[0])


def _is(owner: str, name: str) -> bool:
    """Whether the owner is a process of the node with this name."""
    return owner == name or (owner.startswith(name) and not owner[len(name)].isalnum())
