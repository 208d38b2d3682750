"""Engines that share a log and hold leases: each may be stopped, cut off, or killed, as its process would be."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final, final

from penstock.engine import (
    Bus,
    Config,
    Engine,
    LocalBus,
    MemoryLog,
    Observer,
    Producer,
    open_engine,
)
from penstock.engine.testing import KeptLog, check_kept
from tests.engine.sharing import OwnBus, PausedLog, Writers, check_writers

__all__ = ["TTL", "Member", "members"]

TTL: Final = 6.0


@final
class Member:
    """An engine of the name ``name``, and its ways to the log and the bus."""

    def __init__(self, name: str, log: PausedLog, bus: OwnBus, engine: Engine) -> None:
        self.name: Final = name
        self.log: Final = log
        self.bus: Final = bus
        self.engine: Final = engine
        self.dead = False
        self.stopped = False

    @property
    def well(self) -> bool:
        return not self.dead and not self.stopped and not self.bus.cut

    def stop(self) -> None:
        """As SIGSTOP, as far as anybody else can tell."""
        self.stopped = True
        self.log.pause()
        self.bus.pause()

    def go_on(self) -> None:
        if not self.dead:
            self.stopped = False
            self.log.go_on()
            self.bus.go_on()

    def kill(self) -> None:
        """As kill -9: neither what it does nor what it believes gets anywhere any more."""
        self.dead = True
        self.bus.cut = True
        self.bus.go_on()
        self.log.die()


@asynccontextmanager
async def members(
    *names: str,
    log: KeptLog | None = None,
    bus: Bus | None = None,
    config: Config | None = None,
    producers: Mapping[str, Producer] | None = None,
    observer: Observer | None = None,
) -> AsyncIterator[list[Member]]:
    """Engines of these names over one log and one bus; the last of them that lives ends in order.

    What they wrote must keep the rules when they are left.
    """
    kept = KeptLog(MemoryLog()) if log is None else log
    shared = LocalBus() if bus is None else bus
    writers: Writers = {}
    async with AsyncExitStack() as stack:
        opened: list[Member] = []
        for name in names:
            own, way = PausedLog(kept, name, writers), OwnBus(shared)
            engine = await stack.enter_async_context(
                open_engine(own, owner=name, bus=way, config=config or Config(), producers=producers, observer=observer)
            )
            opened.append(Member(name, own, way, engine))
        yield opened
    assert [*check_writers(writers), *map(str, check_kept(kept, remote_stays=True))] == []
