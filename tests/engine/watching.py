"""A subscriber that keeps what it got, for the rules of deliveries."""

from __future__ import annotations

from typing import final

import trio

from penstock.engine import Batch, Delivery, MemoryLog, Session
from penstock.engine.testing import Received, Recording, assert_log, check_deliveries
from tests.engine.rules import events_of

__all__ = ["Watcher", "assert_watched", "committed_tail", "watch"]


def committed_tail(log: MemoryLog, session_id: str) -> int:
    """What is committed of the session at this very moment, without waiting."""
    life = log._lives.get(session_id)
    return 0 if life is None else life.standing.tail


@final
class Watcher:
    """Everything one subscriber got from one session, in order; each event with the tail at that moment."""

    def __init__(self, log: MemoryLog, session_id: str, name: str = "watcher") -> None:
        self._log = log
        self.session_id = session_id
        self.name = name
        self.deliveries: list[Delivery] = []
        self.received: list[Received] = []
        self._taken = trio.lowlevel.ParkingLot()

    async def wait_for(self, kind: type[Delivery]) -> None:
        """Until one of this kind has come."""
        with trio.fail_after(600):
            while not any(isinstance(delivery, kind) for delivery in self.deliveries):
                await self._taken.park()

    def take(self, delivery: Delivery) -> None:
        self._taken.unpark_all()
        self.deliveries.append(delivery)
        if isinstance(delivery, Batch):
            tail = committed_tail(self._log, self.session_id)
            self.received.extend(
                Received(session_id=delivery.session_id, offset=e.offset, body=e.body, committed=tail)
                for e in delivery.entries
            )

    @property
    def recording(self) -> Recording:
        return Recording(subscriber=self.name, sessions=frozenset({self.session_id}), received=self.received)

    async def follow(self, session: Session, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Take what comes until the stream ends."""
        async with session.subscribe() as subscription:
            task_status.started()
            while True:
                try:
                    self.take(await subscription.receive())
                except trio.EndOfChannel:
                    return


async def watch(nursery: trio.Nursery, log: MemoryLog, session: Session) -> Watcher:
    watcher = Watcher(log, session.session_id)
    await nursery.start(watcher.follow, session)
    return watcher


async def assert_watched(log: MemoryLog, *watchers: Watcher, whole: bool = True, closed: bool = True) -> None:
    """R1 to R9 on the sessions' logs and on what the watchers got of them."""
    entries = {}
    for session_id in {watcher.session_id for watcher in watchers}:
        head = await log.head(session_id)
        assert head is not None
        entries[session_id] = await log.read(session_id, head.epoch, after=0, limit=1 << 20, max_bytes=1 << 30)
        assert_log(await events_of(log, session_id), closed=closed)
    found = check_deliveries([watcher.recording for watcher in watchers], entries, whole=whole)
    assert not found, "\n".join(map(str, found))
