"""The whole of it: the store, the nodes and their lines, the load, the faults, the report and the verdict."""

from __future__ import annotations

import itertools
import math
import random
import statistics
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Final, final

import trio
from attrs import define

from penstock.adapters.client import Client, ClientConfig, connect
from penstock.engine import Cursor, EventLog, Head
from penstock.engine.log.opening import open_log
from penstock.engine.testing import check_session
from tests.e2e.nodes import Balancer, Node, as_nodes, clock_library
from tests.e2e.soak import memory_of
from tests.engine.proxy import FaultyProxy
from tests.engine.redis_server import RedisServer

from .conversation import Conversation, patiently
from .faults import CLOCK, Faults, Kind, set_clock
from .script import Script
from .watch import Watch

__all__ = ["Campaign", "Plan"]

# A line that says nothing for 2.5 s is left: nodes that are paused say nothing.
_CLIENT: Final = ClientConfig(heartbeat=1.0, longest_pause=2.0, attempt_timeout=4.0)

# Memory is looked at once a second, and told by the median of each minute.
_MINUTE: Final = 60.0


@define(kw_only=True)
class Plan:
    """What a run is. ``growth``: of the memory of the node that lives on, from its third minute to its last."""

    folder: Path
    seed: int
    minutes: float
    nodes: int = 3
    conversations: int = 4  # at a time
    ttl: float = 3.0  # of a lease, in seconds
    growth: float = 1.25
    faults: Kind = "all"


@final
class Campaign:
    """One run. ``say`` takes a line of the report."""

    client: Client
    script: Script
    log: EventLog

    def __init__(self, plan: Plan, say: Callable[[str], None]) -> None:
        self._plan: Final = plan
        self._say: Final = say
        self._store = RedisServer(plan.folder)
        self._library: Final = clock_library()
        self._nodes: list[Node] = []
        self._proxies: dict[str, FaultyProxy] = {}
        self._ended: list[tuple[str, Cursor]] = []  # conversations that are over and were not deleted
        self._memory: list[float] = []  # MiB, by the minute, of the node that lives on
        self.counts: Counter[str] = Counter()
        self.faults: list[str] = []
        self.slowest = 0.0

    def url(self, chance: random.Random) -> str:
        return chance.choice([node for node in self._nodes if node.up] or self._nodes).url

    async def run(self) -> None:
        """Load for so long; then rest, and the look at all that is there. Ends whatever it has started."""
        plan = self._plan
        store_folder = plan.folder / "store"
        store_folder.mkdir()
        self._store = RedisServer(store_folder)
        try:
            await trio.to_thread.run_sync(self._store.start)
            async with trio.open_nursery() as lines:
                await self._start_nodes(lines)
                balancer = Balancer(lambda: self._nodes)
                await lines.start(balancer.run)
                async with AsyncExitStack() as stack:
                    self.log = await open_log(self._store.url(prefix="campaign"), patience=1)
                    stack.push_async_callback(self.log.aclose)
                    self.client = await stack.enter_async_context(connect(balancer.url, config=_CLIENT))
                    self.script = await Script.open(balancer.url, plan.folder / "script.log", lines)
                    await self._load()
                    await self._judge()
                await trio.to_thread.run_sync(self._stop_nodes)
                lines.cancel_scope.cancel(reason="the campaign is over")
        finally:
            for node in self._nodes:
                node.kill()
            self._store.kill()

    async def _start_nodes(self, lines: trio.Nursery) -> None:
        plan = self._plan
        for name in "abcdefghi"[: plan.nodes]:
            proxy = self._proxies[name] = FaultyProxy(self._store.port)
            await lines.start(proxy.run)
            more = as_nodes(plan.folder, name, plan.ttl) if plan.nodes > 1 else []
            folder = plan.folder / name
            folder.mkdir()
            node = Node(
                name,
                folder,
                self._store.url(prefix="campaign", port=proxy.port),
                *(*more, "--log-level", "warning", "--drain-timeout", "5"),
                variables=self._clock(folder),
            )
            self._nodes.append(node)
            await trio.to_thread.run_sync(node.start)

    def _clock(self, folder: Path) -> dict[str, str]:
        if self._library is None:
            return {}
        set_clock(folder, 0)
        return {
            "LD_PRELOAD": self._library,
            "FAKETIME_TIMESTAMP_FILE": str(folder / CLOCK),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
        }

    async def _load(self) -> None:
        plan = self._plan
        watch = Watch(self.log, self._nodes, plan.ttl)
        faults = Faults(
            plan.seed,
            self._nodes,
            self._proxies,
            self._store,
            watch,
            kind=plan.faults,
            ttl=plan.ttl,
            clocks=self._library is not None,
        )
        if self._library is None:
            self._say("clocks are not set: libfaketime is not installed (apt-get install faketime)")
        chance = random.Random(plan.seed)
        end = trio.current_time() + plan.minutes * 60
        async with trio.open_nursery() as beside:
            beside.start_soon(watch.run)
            beside.start_soon(self._report, watch, faults)
            async with trio.open_nursery() as failing:
                failing.start_soon(faults.run)
                async with trio.open_nursery() as talking:
                    numbers = itertools.count(1)
                    for _ in range(plan.conversations):
                        talking.start_soon(self._converse, random.Random(chance.random()), numbers, end)
                failing.cancel_scope.cancel(reason="nobody talks any more")
            await trio.sleep(plan.ttl + 2)  # so that what the last fault has left is seen
            beside.cancel_scope.cancel(reason="nothing goes on any more")
        self._tell(watch, faults)
        self.faults += [*watch.faults, *faults.wrong]

    async def _converse(self, chance: random.Random, numbers: itertools.count[int], end: float) -> None:
        while (left := end - trio.current_time()) > 1:
            one = Conversation(
                session_id=f"talk-{next(numbers)}",
                seconds=min(chance.uniform(5, 40), left),
                chance=chance,
                world=self,
            )
            await one.run()
            if one.tail is not None:
                self._ended.append((one.session_id, one.tail))

    # --- what is told

    async def _report(self, watch: Watch, faults: Faults) -> None:
        begun = time.monotonic()
        for minute in itertools.count(1):
            samples: list[int] = []
            while time.monotonic() < begun + minute * _MINUTE:
                await trio.sleep(1)
                with suppress(AssertionError, OSError):  # it is being restarted
                    samples.append(memory_of(faults.spared.server.process.pid))
            self._memory.append(statistics.median(samples or [0]) / 1024)
            self._tell(watch, faults)

    def _tell(self, watch: Watch, faults: Faults) -> None:
        done = {name: self.counts[name] for name in ("conversations", "events", "acknowledged", "read", "met")}
        lives = [len(node.lives) for node in self._nodes]
        memory = self._memory[-1] if self._memory else math.nan
        wrong = len(self.faults) + len(watch.faults) + len(faults.wrong)
        self._say(
            f"minute {len(self._memory)}: {done}, faults {dict(faults.counts)}, lives {lives}, looks {watch.looks}, "
            f"longest without an owner {watch.longest:.1f} s, slowest reader {self.slowest:.1f} s, "
            f"memory {memory:.0f} MiB, wrong {wrong}"
        )

    async def _judge(self) -> None:
        """Every log that is left keeps the rules, and what was acknowledged is still there."""
        heads: dict[str, Head] = {}
        after = ""
        while page := await patiently(partial(self.log.heads, after=after, limit=100)):
            heads |= {head.session_id: head for head in page}
            after = page[-1].session_id
        for head in heads.values():
            stored = await patiently(partial(check_session, self.log, head))
            self.faults += [f"{head.session_id}: {violation}" for violation in stored.violations]
            if stored.live is not None:
                self.faults.append(f"{head.session_id}: {stored.live} is live at the end")
        for session_id, cursor in self._ended:
            last = heads.get(session_id)
            if last is None or last.epoch != cursor.epoch or last.tail < cursor.offset:
                self.faults.append(f"{session_id} was at {cursor}, and is {last} at the end")
        if len(self._memory) > 3 and self._memory[-1] > self._plan.growth * self._memory[2]:
            self.faults.append(
                f"the memory of {self._nodes[0].name} grew: {[round(each) for each in self._memory]} MiB"
            )

    def _stop_nodes(self) -> None:
        for node in self._nodes:
            code = node.stop()
            log = (node.folder / "server.log").read_text()
            if code != 0:
                self.faults.append(f"{node.name} ended with {code} at the end")
            if "Traceback" in log:
                self.faults.append(f"{node.name} told: {log[log.index('Traceback') :][:3000]}")

    def verdict(self) -> list[str]:
        """What is said at the end: what was done and refused, and what is wrong."""
        refused = {name: count for name, count in sorted(self.counts.items()) if ": " in name}
        asked = {name: count for name, count in sorted(self.counts.items()) if ": " not in name}
        return [f"done: {asked}", f"refused: {refused}", f"{len(self.faults)} faults", *self.faults[:50]]
