"""Engines that share a log, each through a log of its own that can be stopped as a process is."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final, TypeAlias, final

import trio

from penstock import engine
from penstock.engine import (
    Batch,
    Bus,
    Config,
    Engine,
    Entry,
    EventLog,
    Head,
    LocalBus,
    LogStatistics,
    MemoryLog,
    Observer,
    Peers,
    PenstockError,
    Producer,
    StorageError,
    Unanswered,
    WriteFailed,
    open_engine,
)
from penstock.engine.log import Append, Compact, Delete, Report, Write
from penstock.engine.log.port import BLOCK
from penstock.engine.stream.bus import Heard
from penstock.engine.stream.volatile import Noted, Place, Volatile
from penstock.engine.testing import KeptLog, check_acknowledged, check_kept

__all__ = ["Between", "LossyBus", "Node", "OwnBus", "PausedLog", "Writers", "check_writers", "nodes"]


Writers: TypeAlias = dict[tuple[str, int], set[str]]


def check_writers(writers: Writers) -> list[str]:
    """What breaks the rule that a block of tokens is one engine's."""
    shared = {block: names for block, names in writers.items() if len(names) > 1}
    return [f"{names} wrote in {session_id} under the block {block}" for (session_id, block), names in shared.items()]


class PausedLog(EventLog):
    """One engine's way to a log that it shares. While it is paused, nothing that is asked for or told goes through.

    Once it is dead, nothing of what its engine does goes through any more: as if its process had been killed.
    ``writers`` has the names of those that wrote, by session and block of tokens.
    """

    def __init__(self, inner: EventLog, name: str = "", writers: Writers | None = None) -> None:
        self.inner: Final = inner
        self.name: Final = name
        self.writers: Final[Writers] = {} if writers is None else writers
        self.dead = False
        self.compacted: Final[set[str]] = set()  # sessions
        self._running = trio.Event()
        self._running.set()
        self._held: list[Callable[[], None]] = []

    def pause(self) -> None:
        if self._running.is_set():
            self._running = trio.Event()

    def go_on(self) -> None:
        """In the order in which it came."""
        self._running.set()
        held, self._held = self._held, []
        for each in held:
            each()

    def die(self) -> None:
        self.dead = True
        self.go_on()

    async def _passed(self) -> EventLog:
        await self._running.wait()
        if self.dead:
            raise StorageError("its process was killed")
        return self.inner

    def _through(self, work: Callable[[], None]) -> None:
        if self._running.is_set():
            work()
        else:
            self._held.append(work)

    def submit(self, write: Write, report: Report) -> None:
        def reported(error: PenstockError | None) -> None:
            if error is None and isinstance(write, Compact):
                self.compacted.add(write.session_id)
            if error is None and isinstance(write, Append | Delete):
                self.writers.setdefault((write.session_id, write.token // BLOCK), set()).add(self.name)
            self._through(lambda: report(error))

        def hand_over() -> None:
            if self.dead:
                failed = WriteFailed("its process was killed", whole=True, session_id=write.session_id)
                trio.lowlevel.current_trio_token().run_sync_soon(report, failed)
            else:
                self.inner.submit(write, reported)

        self._through(hand_over)

    async def head(self, session_id: str) -> Head | None:
        return await (await self._passed()).head(session_id)

    async def read(self, session_id: str, epoch: str, *, after: int, limit: int, max_bytes: int) -> list[Entry]:
        return await (await self._passed()).read(session_id, epoch, after=after, limit=limit, max_bytes=max_bytes)

    async def records(self, session_id: str, epoch: str, prefix: str = "") -> dict[str, bytes]:
        return await (await self._passed()).records(session_id, epoch, prefix)

    async def record(self, session_id: str, epoch: str, key: str) -> bytes | None:
        return await (await self._passed()).record(session_id, epoch, key)

    async def holders(self, key: str, *, after: str = "", limit: int = 1000) -> list[tuple[str, bytes]]:
        return await (await self._passed()).holders(key, after=after, limit=limit)

    async def owned(self, owner: str, *, having: Sequence[str], after: str = "", limit: int = 1000) -> list[str]:
        return await (await self._passed()).owned(owner, having=having, after=after, limit=limit)

    async def heads(self, *, after: str = "", limit: int = 100) -> list[Head]:
        return await (await self._passed()).heads(after=after, limit=limit)

    async def ranked(self, *, prefix: str = "", behind: tuple[int, str] | None = None, limit: int = 100) -> list[Head]:
        return await (await self._passed()).ranked(prefix=prefix, behind=behind, limit=limit)

    async def doubt(self, missed: Head, *, proven: bool) -> bool:
        return await (await self._passed()).doubt(missed, proven=proven)

    async def doubt_all(self) -> bool:
        return await (await self._passed()).doubt_all()

    def statistics(self) -> LogStatistics:
        return self.inner.statistics()

    async def aclose(self) -> None:
        await self.inner.aclose()


@final
class LossyBus(Bus):
    """Between engines of one process; what ``loses`` is true of is told to nobody."""

    def __init__(self) -> None:
        self.inner: Final = LocalBus()
        self.loses: Callable[[], bool] = lambda: False
        self.lost = 0

    @property
    def volatile(self) -> Volatile:
        return self.inner.volatile

    async def beat(self, node: engine.Node, ttl: float) -> bool:
        return await self.inner.beat(node, ttl)

    async def nodes(self) -> Mapping[str, engine.Node | None]:
        return await self.inner.nodes()

    async def retire(self, name: str, incarnation: str | None = None) -> None:
        await self.inner.retire(name, incarnation)

    async def follow(self, session_id: str, heard: Heard) -> Callable[[], None]:
        return await self.inner.follow(session_id, heard)

    def tell(self, session_id: str, batch: Batch | None) -> None:
        if self.loses():
            self.lost += 1
        else:
            self.inner.tell(session_id, batch)


@final
class OwnBus(Bus):
    """One engine's way to the bus that it shares. While it is cut, nothing goes through, and its calls fail.

    While it is paused, nothing that is asked for or told goes through, and who asks waits.
    """

    def __init__(self, inner: Bus) -> None:
        self.inner = inner
        self.cut = False
        self._running = trio.Event()
        self._running.set()
        self._volatile = OwnVolatile(self)

    @property
    def volatile(self) -> OwnVolatile:
        return self._volatile

    def pause(self) -> None:
        if self._running.is_set():
            self._running = trio.Event()

    def go_on(self) -> None:
        self._running.set()

    async def passed(self) -> Bus:
        await self._running.wait()
        if self.cut:
            await trio.sleep(0.1)
            raise StorageError("the store is away")
        return self.inner

    async def beat(self, node: engine.Node, ttl: float) -> bool:
        return await (await self.passed()).beat(node, ttl)

    async def nodes(self) -> Mapping[str, engine.Node | None]:
        return await (await self.passed()).nodes()

    async def retire(self, name: str, incarnation: str | None = None) -> None:
        await (await self.passed()).retire(name, incarnation)

    async def follow(self, session_id: str, heard: Heard) -> Callable[[], None]:
        def through(batch: Batch | None) -> None:
            if self._arrives:
                heard(batch)

        return await self.inner.follow(session_id, through)

    def tell(self, session_id: str, batch: Batch | None) -> None:
        if self._arrives:
            self.inner.tell(session_id, batch)

    @property
    def _arrives(self) -> bool:
        return self._running.is_set() and not self.cut


@final
class OwnVolatile(Volatile):
    """What goes through an `OwnBus`, unless it is away. ``calls`` counts them by name."""

    def __init__(self, bus: OwnBus) -> None:
        self._bus = bus
        self.away = False
        self.calls = Counter[str]()

    async def _passed(self, call: str) -> Volatile:
        self.calls[call] += 1
        if self.away:
            raise StorageError("the store is away")
        return (await self._bus.passed()).volatile

    async def put(self, place: Place, key: str, value: bytes, *, ttl: float, limit: int | None = None) -> bool | None:
        return await (await self._passed("put")).put(place, key, value, ttl=ttl, limit=limit)

    async def drop(self, place: Place, keys: Sequence[str]) -> bool:
        return await (await self._passed("drop")).drop(place, keys)

    async def listed(self, asked: Sequence[Place]) -> Sequence[Mapping[str, bytes]]:
        return await (await self._passed("listed")).listed(asked)

    async def redeem(self, ticket_id: str, ttl: float) -> bool:
        return await (await self._passed("redeem")).redeem(ticket_id, ttl)

    async def note(self, session_ids: Sequence[str], *, keep: int) -> None:
        await (await self._passed("note")).note(session_ids, keep=keep)

    async def noted(self, after: int, *, limit: int = 1000) -> Noted:
        return await (await self._passed("noted")).noted(after, limit=limit)


@final
class Between(Peers):
    """How engines of one process ask each other, as they do over a network.

    The next questions meet what stands in ``fates``, one each: ``refused`` before anything was asked, ``lost`` on the
    way there, ``unheard`` where the answer is lost. ``asked`` has them all, but for the refused ones.
    """

    def __init__(self, chance: Callable[[], str] = lambda: "", within: float = math.inf) -> None:
        """``chance`` gives the fate of a question that has none; an answer is there ``within`` so many seconds."""
        self._chance = chance
        self._within = within
        self.engines: Final[dict[str, Engine]] = {}
        self.fates: Final[list[str]] = []
        self.asked: Final[list[tuple[str, str]]] = []
        self.before: Callable[[], Awaitable[None]] | None = None  # done once, when the next question is on its way

    async def ask(self, owner: str, session_id: str, command: str, body: bytes) -> bytes:
        before, self.before = self.before, None
        if before is not None:
            await before()
        fate = self.fates.pop(0) if self.fates else self._chance()
        if fate == "refused" or owner not in self.engines:
            raise Unanswered("nobody is there", asked=False)
        self.asked.append((owner, command))
        answer = b""
        with trio.move_on_after(self._within):
            if fate != "lost":
                answer = await self.engines[owner].carry_out(session_id, command, body)
        if fate or not answer:
            raise Unanswered("the connection broke", asked=True)
        return answer


@final
class Node:
    """An engine of the name ``name``, and its way to the log."""

    def __init__(self, name: str, log: PausedLog, engine: Engine) -> None:
        self.name: Final = name
        self.log: Final = log
        self.engine: Final = engine


@asynccontextmanager
async def nodes(
    *names: str,
    log: KeptLog | None = None,
    bus: Bus | None = None,
    buses: Mapping[str, Bus] | None = None,
    config: Config | None = None,
    producers: Mapping[str, Producer] | None = None,
    peers: Between | None = None,
    observer: Observer | None = None,
    last: bool = True,
) -> AsyncIterator[list[Node]]:
    """Engines of these names over one log. What they wrote must keep the rules when they are left.

    They share ``bus``, each through its own of ``buses`` where it has one.

    ``last``: no other engine is at work then, so nothing but a remote generation may be open.
    """
    kept = KeptLog(MemoryLog()) if log is None else log
    shared = LocalBus() if bus is None else bus
    writers: Writers = {}
    async with AsyncExitStack() as stack:
        opened: list[Node] = []
        for name in names:
            own = PausedLog(kept, name, writers)
            engine = await stack.enter_async_context(
                open_engine(
                    own,
                    owner=name,
                    bus=(buses or {}).get(name, shared),
                    config=config,
                    producers=producers,
                    peers=peers,
                    observer=observer,
                )
            )
            if peers is not None:
                peers.engines[name] = engine
            opened.append(Node(name, own, engine))
        yield opened
    broken = [*check_writers(writers), *map(str, check_kept(kept, closed=last, remote_stays=last))]
    assert not broken, broken
    assert await kept.check_claims() == []
    compacted = config is not None and config.compact_after is not None
    assert await check_acknowledged(kept.acknowledged, kept, compacted=compacted) == []
