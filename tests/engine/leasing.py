"""Engines that share a log and hold leases: each may be stopped, cut off, or killed, as its process would be."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final, final

from penstock.engine import (
    Bus,
    Config,
    Engine,
    LocalBus,
    Observer,
    Producer,
)
from penstock.engine.testing import KeptLog
from tests.engine.sharing import OwnBus, PausedLog, nodes

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
    shared = LocalBus() if bus is None else bus
    ways = {name: OwnBus(shared) for name in names}
    async with nodes(*names, log=log, buses=ways, config=config, producers=producers, observer=observer) as opened:
        yield [Member(node.name, node.log, ways[node.name], node.engine) for node in opened]
