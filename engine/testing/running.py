"""`open_test_engine`: an engine in memory that is held against all rules when it is left."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final, final

import trio

from .. import (
    Batch,
    CaughtUp,
    Config,
    Cursor,
    Delivery,
    Engine,
    Entry,
    Event,
    MemoryLog,
    Opened,
    Producer,
    Session,
    SessionState,
    SnapshotTaken,
    Subscription,
    decode,
    open_engine,
)
from .delivery_rules import Received, Recording, check_deliveries
from .kept import KeptLog
from .log_rules import check_log
from .violation import Violation

__all__ = ["EngineUnderTest", "Watcher", "check_kept", "open_test_engine"]


@final
class Watcher:
    """What one subscriber got, in order. Made by `EngineUnderTest.watch`, or fed by hand through `take`.

    ``early`` has what was told before its commit (R6); `check_kept` has it among what it finds.
    """

    def __init__(self, log: KeptLog, session_id: str, name: str = "watcher") -> None:
        self.session_id: Final = session_id
        self.name: Final = name
        self.deliveries: list[Delivery] = []
        self.received: list[Received] = []
        self.over: Final = trio.Event()
        self.epoch: str | None = None
        self.early: list[Violation] = []
        self._log = log
        self._after = 0

    def take(self, delivery: Delivery) -> None:
        """Note one delivery. One watcher sees one life of its session, across as many connections as you like."""
        self.deliveries.append(delivery)
        if isinstance(delivery, Opened) and self.epoch is None:
            self.epoch, self._after = delivery.cursor.epoch, delivery.cursor.offset
        if isinstance(delivery, Opened | CaughtUp):
            self._check_told(delivery.cursor)
        elif isinstance(delivery, SnapshotTaken):
            self._check_told(delivery.snapshot.cursor)
        if isinstance(delivery, Batch):
            committed = self._log.tail(delivery.session_id, delivery.epoch)
            self.received.extend(
                Received(session_id=delivery.session_id, offset=entry.offset, body=entry.body, committed=committed)
                for entry in delivery.entries
            )

    def _check_told(self, cursor: Cursor) -> None:
        committed = self._log.tail(self.session_id, cursor.epoch)
        if cursor.offset > committed:
            text = f"{self.name} of {self.session_id} was told {cursor} while the committed tail was {committed}"
            self.early.append(Violation("R6", cursor.offset, text))

    @property
    def events(self) -> list[Event]:
        """The events so far."""
        return [decode(received.body) for received in self.received]

    @property
    def recording(self) -> Recording:
        """As `check_deliveries` takes it."""
        return Recording(
            subscriber=self.name,
            sessions=frozenset({self.session_id}),
            received=self.received,
            after={self.session_id: self._after},
        )

    async def follow(
        self,
        session: Session,
        after: Cursor | str | None = None,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Take what comes until the stream ends."""
        try:
            async with session.subscribe(after) as subscription:
                task_status.started()
                await self._take_all(subscription)
        finally:
            self.over.set()

    async def _take_all(self, subscription: Subscription) -> None:
        while True:
            try:
                self.take(await subscription.receive())
            except trio.EndOfChannel:
                return


@final
class EngineUnderTest:
    """An engine, its log, and whoever watches. Made by `open_test_engine`."""

    def __init__(self, engine: Engine, log: KeptLog, nursery: trio.Nursery) -> None:
        self.engine: Final = engine
        self.log: Final = log
        self.watchers: list[Watcher] = []
        self._nursery = nursery

    async def watch(self, session: Session, after: Cursor | str | None = None) -> Watcher:
        """Subscribe, and record what comes until the stream ends; checked when the engine is left."""
        watcher = Watcher(self.log, session.session_id, f"watcher {len(self.watchers) + 1}")
        await self._nursery.start(watcher.follow, session, after)
        self.watchers.append(watcher)
        return watcher

    async def events(self, session: Session) -> list[Event]:
        """Everything that is committed in the session's present life."""
        epoch = (await session.cursor()).epoch
        return [decode(entry.body) for entry in self.log.kept(session.session_id, epoch)]

    async def settle(self) -> None:
        """Let everything happen that can without time going by."""
        import trio.testing  # noqa: PLC0415  it brings pytest with it, which `penstock inspect` has no use for

        await trio.testing.wait_all_tasks_blocked()

    def violations(self, *, closed: bool = False) -> list[Violation]:
        """What breaks a rule so far. ``closed``: the engine was left: nothing but a remote generation may be open."""
        return check_kept(self.log, self.watchers, closed=closed, remote_stays=closed)


def check_kept(
    log: KeptLog, watchers: Sequence[Watcher] = (), *, closed: bool = False, remote_stays: bool = False
) -> list[Violation]:
    """What breaks a rule: R1 to R10 on every life of every session of the log, and on what the watchers got.

    ``closed`` and ``remote_stays`` as in `check_log`.
    """
    found = [*log.strays, *(violation for watcher in watchers for violation in watcher.early)]
    for session_id, epoch in log.lives():
        entries = log.kept(session_id, epoch)
        events = [decode(entry.body) for entry in entries]
        found += check_log(events, closed=closed, remote_stays=remote_stays)
        found += _fold(session_id, epoch, events)
        recordings = [w.recording for w in watchers if (w.session_id, w.epoch) == (session_id, epoch)]
        committed: dict[str, list[Entry]] = {session_id: entries}
        found += check_deliveries(recordings, committed)
    return found


def _fold(session_id: str, epoch: str, events: Sequence[Event]) -> list[Violation]:
    state = SessionState(session_id, epoch)
    for event in events:
        folded = state.apply(event)
        if state.offset != event.offset:
            return [Violation("R7", event.offset, f"the log of {session_id} cannot be folded: {folded}")]
    return []


@asynccontextmanager
async def open_test_engine(
    *,
    producers: Mapping[str, Producer] | None = None,
    default_producer: str | None = None,
    config: Config | None = None,
    log: KeptLog | None = None,
) -> AsyncIterator[EngineUnderTest]:
    """An engine over a log in memory. Leaving it drains, and raises AssertionError if any rule was broken.

    Checked are R1 to R5 and R9 on every session, deleted ones included, and R6 to R8 on what `EngineUnderTest.watch`
    recorded. No thread and no file is in play: under `trio.testing.MockClock` with autojump, time costs nothing. Hand
    the ``log`` of one to the next to see what a restart makes of it.

    Example::

        async def test_a_queued_answer_survives_a_restart(autojump_clock: MockClock) -> None:
            say = ScriptedProducer().say("Here I am.")
            wait = ScriptedProducer().sleep(math.inf)
            producers = {"say": say, "wait": wait}
            async with open_test_engine(producers=producers) as test:
                session = await test.engine.create_session("s")
                await session.start("wait")
                queued = await session.start("say", policy="queue")
            async with open_test_engine(producers=producers, log=test.log) as test:
                session = await test.engine.session("s")
                watcher = await test.watch(session)
                await test.settle()
                assert (await session.generation(queued.generation_id)).outcome == "completed"
            assert watcher.events[-1].type == "generation.finished"
    """
    kept = KeptLog(MemoryLog()) if log is None else log
    raised: BaseException | None = None
    test: EngineUnderTest | None = None
    async with (
        trio.open_nursery() as nursery,
        open_engine(kept, producers=producers, default_producer=default_producer, config=config) as engine,
    ):
        test = EngineUnderTest(engine, kept, nursery)
        try:
            yield test
        except BaseException as error:  # noqa: BLE001  carried around the nursery, which would wrap it in a group
            raised = error
    if raised is not None:
        raise raised
    found = test.violations(closed=True)
    if found:
        raise AssertionError("\n".join(["what the engine did breaks its rules", *map(str, found)]))
