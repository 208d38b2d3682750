"""What goes wrong, by seed: with one node at a time, and beside that with the store and the lines to it."""

from __future__ import annotations

import itertools
import random
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal, TypeAlias, final

import trio

from tests.e2e.nodes import Node
from tests.engine.proxy import FAULTS, FaultyProxy
from tests.engine.redis_server import RedisServer

from .watch import Watch

__all__ = ["CLOCK", "Faults", "Kind", "set_clock"]

# All that there are, none, or nothing but that all nodes are restarted in turn, in an orderly way.
Kind: TypeAlias = Literal["all", "none", "rolling"]

# Of each node, how often of all.
_OF_NODES: Final = {"kill": 4, "restart": 2, "short pause": 2, "long pause": 4, "cut off": 3, "clock": 3}

_OF_THE_STORE: Final = {"kill": 1, "pause": 1, "line": 8}

# The name of the file in a node's folder that says by how many seconds its wall clock is off.
CLOCK: Final = "clock"

# Seconds that a clock is set by.
_STEPS: Final = (-3600.0, -60.0, -2.0, 2.0, 60.0, 3600.0)

# The store is not away for as long as its nodes have patience with it.
_OUTAGE: Final = 4.0

# A line that is half open is given up by who waits for its answer.
_HALF_OPEN: Final = 5.0


@final
class Faults:
    """``spared`` is never killed, so that its memory can be looked at. ``clocks``: they can be set."""

    def __init__(
        self,
        seed: int,
        nodes: list[Node],
        proxies: dict[str, FaultyProxy],
        store: RedisServer,
        watch: Watch,
        *,
        kind: Kind,
        ttl: float,
        clocks: bool,
    ) -> None:
        self._nodes: Final = nodes
        self._proxies: Final = proxies
        self._store: Final = store
        self._watch: Final = watch
        self._kind: Final = kind
        self._ttl: Final = ttl
        self._chance: Final = random.Random(f"{seed} nodes")
        self._of_store: Final = random.Random(f"{seed} store")
        self._weights: Final = {name: weight for name, weight in _OF_NODES.items() if clocks or name != "clock"}
        self.counts: Final[Counter[str]] = Counter()
        self.wrong: Final[list[str]] = []

    @property
    def spared(self) -> Node:
        return self._nodes[0]

    async def run(self) -> None:
        """Until cancelled; then everything is put in order again."""
        async with trio.open_nursery() as nursery:
            if self._kind == "all":
                nursery.start_soon(self._with_nodes)
                nursery.start_soon(self._with_store)
            elif self._kind == "rolling":
                nursery.start_soon(self._in_turn)

    async def _in_turn(self) -> None:
        for node in itertools.cycle(self._nodes):
            await trio.sleep(self._ttl)
            self.counts["restart"] += 1
            with trio.CancelScope(shield=True):
                await self._befall(node, "restart")

    async def _with_nodes(self) -> None:
        while True:
            await trio.sleep(self._chance.uniform(1, 2.5 * self._ttl))
            (what,) = self._chance.choices(list(self._weights), list(self._weights.values()))
            node = self._chance.choice(self._nodes)
            if node is self.spared and what in ("kill", "restart"):
                what = "long pause"
            self.counts[what] += 1
            with trio.CancelScope(shield=True):  # each has an end, and leaves all in order
                await self._befall(node, what)

    async def _befall(self, node: Node, what: str) -> None:
        """One fault of a node's, from its beginning to its end."""
        self._watch.disturbed[node.name] = time.monotonic()
        match what:
            case "kill":
                await trio.to_thread.run_sync(node.kill)
                await trio.sleep(self._chance.choice([0, self._chance.uniform(0, 2 * self._ttl)]))
                await trio.to_thread.run_sync(node.start)
            case "restart":
                code = await trio.to_thread.run_sync(node.stop)
                if code != 0:
                    self.wrong.append(f"{node.name} ended on SIGTERM with {code}")
                await trio.to_thread.run_sync(node.start)
            case "short pause" | "long pause":
                least, most = (0.1, 0.9) if what == "short pause" else (1.1, 3.0)
                node.pause()
                await trio.sleep(self._ttl * self._chance.uniform(least, most))
                node.go_on()
            case "cut off":
                node.away_since = time.monotonic()
                self._proxies[node.name].cut_off()
                await trio.sleep(self._ttl * self._chance.uniform(0.5, 3))
                self._proxies[node.name].mend()
                node.away_since = None
            case _:
                set_clock(node.folder, self._chance.choice(_STEPS))
        self._watch.disturbed[node.name] = time.monotonic()

    async def _with_store(self) -> None:
        chance = self._of_store
        while True:
            await trio.sleep(chance.uniform(1, 2.5 * self._ttl))
            (what,) = chance.choices(list(_OF_THE_STORE), list(_OF_THE_STORE.values()))
            if what == "line":
                name = chance.choice(list(self._proxies))
                fault = chance.choice(FAULTS)
                self.counts[f"line {fault}"] += 1
                self._proxies[name].fault = fault
                hold = _HALF_OPEN if fault == "half open" else 1.0
                self._watch.disturbed[name] = max(self._watch.disturbed[name], time.monotonic() + hold)
                continue
            self.counts[f"store {what}"] += 1
            with trio.CancelScope(shield=True):
                self._watch.store_back = None
                outage = chance.uniform(0, _OUTAGE)
                if what == "kill":
                    await _away(self._store.kill, outage, self._store.start)
                else:
                    await _away(self._store.pause, outage, self._store.go_on)
                self._watch.store_back = time.monotonic()


async def _away(go: Callable[[], None], seconds: float, come: Callable[[], None]) -> None:
    await trio.to_thread.run_sync(go)
    await trio.sleep(seconds)
    await trio.to_thread.run_sync(come)


def set_clock(folder: Path, seconds: float) -> None:
    """How far the wall clock of the folder's node is off from now on; it reads that anew each second."""
    new = folder / f"{CLOCK}.new"
    new.write_text(f"{seconds:+g}\n")
    new.replace(folder / CLOCK)
