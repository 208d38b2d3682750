"""Many clients at once, a disk that fails, hangs and dies, callers that leave: the rules hold, and no answer was a lie.

Nothing is foretold here, that is `test_model`'s: what was told is held against the log in the end. A longer run:
``PENSTOCK_EXAMPLES=10000 pytest tests/engine/test_storm.py``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Final, TypeAlias, final

import pytest
import trio
import trio.lowlevel
import trio.testing
from attrs import evolve, field, frozen
from hypothesis import given
from hypothesis import strategies as st

from penstock.engine import (
    Batch,
    BlockDelta,
    Config,
    Cursor,
    Engine,
    Entry,
    GapError,
    Generation,
    GenerationFinished,
    Head,
    JSONObject,
    MemoryLog,
    Opened,
    PenstockError,
    Producer,
    Session,
    SessionState,
    Snapshot,
    SnapshotTaken,
    decode,
    new_generation_id,
    open_engine,
)
from penstock.engine.testing import KeptLog, Violation, Watcher, check_acknowledged, check_kept, check_log
from tests.engine.actors import ACTORS
from tests.engine.exploring import explore, exploring, folded, quiet  # noqa: F401  a fixture
from tests.engine.faulty import Fail, FaultyLog, Hold
from tests.engine.ledger import Ledger, Told
from tests.engine.operations import (
    IDS,
    POSTS,
    SESSIONS,
    Create,
    Delete,
    Dequeue,
    Expire,
    Fork,
    GiveInput,
    Operation,
    Post,
    QueueNext,
    Reset,
    Restore,
    Retract,
    Start,
    Stop,
    Update,
    request,
)
from tests.engine.remotes import Remote
from tests.engine.trouble import cut_short_in

CONFIG: Final = Config(
    cleanup_timeout=2.0,
    flush_timeout=4.0,
    max_stragglers=2,
    queue_limit=3,
    inputs=2,
    max_steps=12,
    pending_stop=60.0,
    idle_limit=50.0,
    total_limit=200.0,
    idle_session=5.0,
    subscriber_buffer=5,
    page_events=4,
    fold_bytes=3000,
    session_pending=6,
    total_pending=12,
    checkpoint_every=2,
)


@final
@frozen
class Act:
    """One client: after a while it asks for something; it may leave before it is told."""

    delay: float
    operation: Operation
    patience: float | None


@final
@frozen
class Trouble:
    """For so many seconds no write succeeds, or none is reported (``hangs``), or none is even begun."""

    delay: float
    seconds: float
    kind: str


@final
@frozen
class Crash:
    """The process dies; the next one opens the log."""

    delay: float


@final
@frozen
class Interrupt:
    """A producer raises what ends the process; the next one opens the log."""

    delay: float


@final
@frozen
class Join:
    """A reader comes, slow or not; after so many deliveries it drops, and comes again by its cursor."""

    delay: float
    session: int
    pause: float
    drops: int
    snapshot: bool


@final
@frozen
class Produce:
    """A producer in another process: so many requests, each asked for again until it is answered, then its finish."""

    delay: float
    session: int
    requests: int
    pause: float


@final
@frozen
class Produced:
    """What a remote producer sent, request by request, what of it was acknowledged, and whether its finish was."""

    session_id: str
    generation_id: str
    acknowledged: list[str] = field(factory=list)
    finished: list[bool] = field(factory=list)


Happening: TypeAlias = Act | Trouble | Crash | Interrupt | Join | Produce

_DELAY = st.sampled_from([0.0, 0.0, 0.0, 0.0, 0.1, 1.0, 2.5, 7.0, 31.0])
_ACT: st.SearchStrategy[Happening] = st.builds(
    Act, _DELAY, request, st.sampled_from([None, None, None, 0.0, 0.0001, 0.5])
)
_READER: st.SearchStrategy[Happening] = st.builds(
    Join,
    _DELAY,
    st.sampled_from([0, 0, 1]),
    st.sampled_from([0.0, 0.0, 0.4, 3.0]),
    st.sampled_from([1000, 2, 7]),
    st.booleans(),
)
_TROUBLE: st.SearchStrategy[Happening] = st.builds(
    Trouble, _DELAY, st.sampled_from([0.05, 1.0, 6.0]), st.sampled_from(["fails", "hangs", "waits"])
)
_CRASH: st.SearchStrategy[Happening] = st.builds(Crash, _DELAY)
_INTERRUPT: st.SearchStrategy[Happening] = st.builds(Interrupt, _DELAY)
_PRODUCER: st.SearchStrategy[Happening] = st.builds(
    Produce, _DELAY, st.sampled_from([0, 0, 1]), st.integers(0, 5), st.sampled_from([0.0, 0.0, 0.3, 2.0])
)
_KINDS: Final = [_ACT] * 30 + [_READER] * 4 + [_PRODUCER] * 4 + [_TROUBLE, _CRASH, _INTERRUPT]
_HAPPENING = st.sampled_from(range(len(_KINDS))).flatmap(_KINDS.__getitem__)
happenings = st.lists(st.lists(_HAPPENING, min_size=1, max_size=15), max_size=15).map(
    lambda parts: [happening for part in parts for happening in part]
)


@final
class Storm:
    """One example."""

    def __init__(self, compact_after: float | None) -> None:
        self.config = evolve(CONFIG, compact_after=compact_after)
        self.log = KeptLog(MemoryLog())
        self.ledger = Ledger(self.log)
        self.watchers: list[Watcher] = []
        self.cursors: dict[str, list[Cursor]] = {}
        self.generations: dict[str, list[str]] = {session_id: [] for session_id in SESSIONS}
        self.messages: dict[str, list[str]] = {session_id: [] for session_id in SESSIONS}
        self.done: Counter[str] = Counter()
        self.produced: list[Produced] = []
        self.expired: list[Head] = []  # where sessions stood that were deleted for their age
        self.troubles = 0  # under way
        self.producers: Mapping[str, Producer] = {name: self._watched(actor) for name, actor in ACTORS.items()}

    def _watched(self, actor: Producer) -> Producer:
        async def producer(generation: Generation) -> None:
            if generation.input is None:  # nobody handed off to it
                self.ledger.called.append((generation.session_id, generation.generation_id))
                self.generations[generation.session_id].append(generation.generation_id)
            await actor(generation)  # type: ignore[misc]  # none of them is a generator

        producer.__name__ = actor.__name__
        return producer

    async def run(self, rest: Iterator[Happening]) -> None:
        more = True
        while more:
            more = False
            wire = FaultyLog(self.log)
            async with trio.open_nursery() as clients:
                last = "drain"
                with suppress(KeyboardInterrupt):
                    async with open_engine(wire, producers=self.producers, config=self.config) as engine:
                        for session_id in SESSIONS:
                            await engine.create_session(session_id)
                        for happening in rest:
                            await trio.sleep(happening.delay)
                            if isinstance(happening, Crash):
                                # What waits to be carried out is lost or not, what comes is.
                                wire.schedule = lambda _number, _write: Fail(whole=True)
                                last = "crash"
                                break
                            if isinstance(happening, Interrupt):
                                if await self.interrupted(engine):
                                    last = "interrupt"
                                    await trio.sleep_forever()
                                continue
                            self.troubles += isinstance(happening, Trouble)
                            clients.start_soon(self.happen, engine, wire, happening)
                self.done[last] += 1
                more = last != "drain"
                troubled = self.troubles > 0
                clients.cancel_scope.deadline = trio.current_time() + 1000
            assert not clients.cancel_scope.cancelled_caught, "somebody waits for ever"
            await trio.testing.wait_all_tasks_blocked()
            if not troubled:  # what a disk that hangs was never given stays where it is
                await self.settled(engine, closed=True)
        await self.check()

    async def interrupted(self, engine: Engine) -> bool:
        """Start a producer that ends the process; False where the log does not take the start."""
        try:
            session = await engine.create_session("interrupted")
            await session.start(_interrupts)
        except PenstockError:
            return False
        return True

    async def settled(self, engine: Engine, *, closed: bool) -> None:
        statistics = engine.statistics()
        assert statistics.pending_events == 0
        assert statistics.live_generations == 0 or not closed
        assert statistics.stragglers == 0

    async def happen(self, engine: Engine, wire: FaultyLog, happening: Happening) -> None:
        match happening:
            case Act():
                await self.act(engine, happening)
            case Trouble():
                if wire.schedule is None:
                    hold = Hold(stored=happening.kind == "hangs")
                    fault = Fail() if happening.kind == "fails" else hold
                    schedule = wire.schedule = lambda _number, _write: fault
                    await trio.sleep(happening.seconds)
                    if wire.schedule is schedule:
                        wire.schedule = None
                    hold.release()
                self.troubles -= 1
            case Join():
                await self.read(engine, happening)
            case Produce():
                await self.produce(engine, happening)
            case Crash() | Interrupt():
                raise AssertionError("is the storm's own")

    # --- clients

    async def act(self, engine: Engine, act: Act) -> None:
        name = type(act.operation).__name__
        with trio.CancelScope() as scope:
            if act.patience is not None:
                scope.deadline = trio.current_time() + act.patience
            try:
                await self.ask(engine, act.operation)
                self.done[name] += 1
            except PenstockError as error:
                self.done[f"{name} {error.code}"] += 1
        if scope.cancelled_caught:
            self.done[f"{name} left"] += 1

    async def ask(self, engine: Engine, asked: Operation) -> None:
        if isinstance(asked, Create):
            await engine.create_session(SESSIONS[asked.session], metadata=asked.metadata)
            return
        if isinstance(asked, Expire):
            await self.expire(engine, SESSIONS[asked.session])
            return
        session_id = SESSIONS[getattr(asked, "session", 0)]
        session = await engine.session(session_id)
        snapshot = await session.snapshot()
        assert snapshot.cursor.offset <= self.log.tail(session_id, snapshot.cursor.epoch)
        cursor = await session.cursor()
        assert cursor.offset <= self.log.tail(session_id, cursor.epoch)
        shown = [message.message_id for message in snapshot.messages]
        generation_id, message_id = self.proposed(asked, session_id, shown)
        begun = trio.current_time()
        answer: object
        try:
            answer = await self.call(session, asked, generation_id, message_id)
        except PenstockError as error:
            answer = error
            raise
        finally:
            if "answer" in locals():
                told = Told(asked, session_id, answer, generation_id, message_id, begun, trio.current_time())
                self.ledger.told.append(told)

    def proposed(self, asked: Operation, session_id: str, shown: list[str]) -> tuple[str | None, str | None]:
        """The ids that the operation is about, or that it proposes."""
        ids = [*reversed(self.generations[session_id][-4:]), *IDS]
        messages = [*reversed(shown[-4:]), *reversed(self.messages[session_id][-2:]), *POSTS]
        match asked:
            case Start():
                proposed = None if asked.proposed is None else IDS[asked.proposed]
                if asked.proposed == 3:
                    proposed = new_generation_id()
                if proposed is not None:
                    self.ledger.proposed[proposed] += 1
                return proposed, None if asked.replaces is None else messages[asked.replaces % len(messages)]
            case Stop() | GiveInput():
                return None if asked.which is None else ids[asked.which % len(ids)], None
            case Dequeue():
                return ids[asked.which % len(ids)], None
            case Post():
                return None, None if asked.message is None else messages[asked.message % len(messages)]
            case Retract() | Restore():
                return None, messages[asked.message % len(messages)]
            case _:
                return None, None

    async def call(
        self, session: Session, asked: Operation, generation_id: str | None, message_id: str | None
    ) -> object:
        match asked:
            case Start():
                started = await session.start(
                    asked.producer if asked.registered else self.producers[asked.producer],
                    text=None if asked.policy == "join" else asked.text,
                    policy=asked.policy,
                    generation_id=generation_id,
                    replaces=message_id,
                    on_last_disconnect=asked.on_last_disconnect,
                    idempotency_key=asked.key,
                )
                self.generations[session.session_id].append(started.generation_id)
                if message_id is not None:
                    self.messages[session.session_id].append(message_id)  # it may be restored
                return started
            case Stop():
                return await session.stop(generation_id, queue=asked.queue)  # type: ignore[arg-type]
            case QueueNext():
                return await session.queue_next()
            case Dequeue():
                assert generation_id is not None
                await session.dequeue(generation_id)
                return None
            case Post():
                posted = await session.post(asked.text, message_id=message_id)
                self.messages[session.session_id].append(posted.message_id)
                return posted
            case Retract():
                assert message_id is not None
                return await session.retract(message_id, and_after=asked.and_after)
            case Restore():
                assert message_id is not None
                return await session.restore(message_id)
            case Update():
                return await session.update(asked.patch)
            case GiveInput():
                return await self.give_input(session, asked, generation_id)
            case Reset():
                return await session.reset()
            case Delete():
                await session.delete()
                return None
            case Fork():
                into = None if asked.into == 0 else SESSIONS[asked.into]
                return (await session.fork(into, metadata=asked.metadata)).session_id
            case _:
                await trio.lowlevel.checkpoint()
                return None

    async def expire(self, engine: Engine, session_id: str) -> None:
        """The walk over old sessions comes by; if it deletes this one, then nothing came behind what it had seen."""
        head = await self.log.head(session_id)
        if head is not None and not head.deleted and await engine._background.delete_unchanged(head):
            self.done["Expire deleted"] += 1
            self.expired.append(head)

    async def give_input(self, session: Session, asked: GiveInput, generation_id: str | None) -> str:
        snapshot = await session.snapshot()
        if generation_id is None:
            generation_id = IDS[0] if snapshot.generation is None else snapshot.generation.generation_id
        content: JSONObject = {} if asked.kind == "continue" else {"do": asked.do}
        if asked.kind == "approval" and snapshot.approvals:
            content = {"approval_id": snapshot.approvals[0].approval_id, "approved": asked.do == "yes"}
        return await session.input(generation_id, asked.kind, content, input_id=asked.input_id)

    # --- remote producers

    async def produce(self, engine: Engine, asked: Produce) -> None:
        """Send numbered requests in order; give up where the error says that asking again is of no use."""
        session_id = SESSIONS[asked.session]
        remote = Remote(new_generation_id())
        remote.producer_id = remote.generation_id
        produced = Produced(session_id, remote.generation_id)
        self.produced.append(produced)
        self.generations[session_id].append(remote.generation_id)
        try:
            session = await engine.session(session_id)
            for number in range(asked.requests):
                text = f"<{number}>"
                await self.insist(lambda text=text: remote.say(session, text))  # type: ignore[misc]
                produced.acknowledged.append(text)
                await trio.sleep(asked.pause)
            await self.insist(lambda: remote.finish(session))
            produced.finished.append(True)
            self.done["Produce"] += 1
        except PenstockError as error:
            self.done[f"Produce {error.code}"] += 1

    async def insist(self, ask: Callable[[], Awaitable[object]]) -> None:
        for _ in range(3):
            try:
                await ask()
            except PenstockError as error:
                if not error.retryable:
                    raise
                await trio.sleep(0.2)
            else:
                return
        await ask()

    def untold(self, produced: Produced) -> Iterator[str]:
        """What was acknowledged and is not in the log, or is there twice, or out of order."""
        acknowledged: set[str] = set()
        for session_id, epoch in self.log.lives():
            if session_id != produced.session_id:
                continue
            events = [decode(entry.body) for entry in self.log.kept(session_id, epoch)]
            mine = [event for event in events if event.generation_id == produced.generation_id]
            said = [str(event.data.text) for event in mine if isinstance(event.data, BlockDelta)]
            acknowledged |= set(said)
            if sorted(set(said)) != said:
                yield f"{produced}: the log has {said}"
            ends = [event.data.outcome for event in mine if isinstance(event.data, GenerationFinished)]
            if produced.finished and ends and ends != ["completed"]:
                yield f"{produced}: it ended as {ends}"
        if not acknowledged.issuperset(produced.acknowledged):
            yield f"{produced}: the log has {acknowledged}"

    # --- readers

    async def read(self, engine: Engine, join: Join) -> None:
        """Read until the stream ends, with a new connection now and then."""
        session_id = SESSIONS[join.session]
        watcher: Watcher | None = None
        cursor: Cursor | None = None
        over = False
        before, pause = cursor, 0.01
        while not over:
            try:
                session = await engine.session(session_id)
                async with session.subscribe(cursor, snapshot=join.snapshot and cursor is None) as subscription:
                    over = True
                    for _ in range(join.drops):
                        delivery = await subscription.receive()
                        if isinstance(delivery, Opened) and (watcher is None or watcher.epoch != delivery.cursor.epoch):
                            watcher = Watcher(self.log, session_id, f"reader {len(self.watchers)}")
                            self.watchers.append(watcher)
                        if watcher is not None:
                            watcher.take(delivery)
                        if isinstance(delivery, Opened | Batch):
                            cursor = delivery.cursor
                        await trio.sleep(join.pause)
                    over = False
            except (trio.EndOfChannel, PenstockError, GapError):
                over = True
            pause = 2 * pause if cursor == before else 0.01
            before = cursor
            await trio.sleep(pause)

    # --- afterwards

    async def check(self) -> None:
        async with open_engine(self.log, producers=self.producers, config=self.config) as engine:
            for head in await self.log.heads():
                session = await engine.session(head.session_id)
                await trio.sleep(1000)
                assert await folded(session) == await session.snapshot()
            await self.settled(engine, closed=False)
        # What was compacted between two connections comes in another form: what it adds up to is checked instead.
        found = check_kept(self.log, () if self.config.compact_after == 0 else self.watchers, closed=True)
        for watcher in self.watchers:
            found += folds(watcher)
        compacted = self.config.compact_after is not None
        found += await check_acknowledged(self.log.acknowledged, self.log, compacted=compacted)
        for head in await self.log.heads():
            entries = await self.log.read(head.session_id, head.epoch, after=0, limit=1 << 20, max_bytes=1 << 30)
            found += check_log([decode(entry.body) for entry in entries], closed=True, compacted=True)
            if self.config.compact_after is None:
                assert entries == self.log.kept(head.session_id, head.epoch)
            assert fold_of(head, entries) == fold_of(head, self.log.kept(head.session_id, head.epoch))
        assert not found, "\n".join(map(str, found))
        lies = [
            *self.ledger.lies(),
            *cut_short_in(self.log),
            *(lie for produced in self.produced for lie in self.untold(produced)),
            *(
                f"{head} was deleted"
                for head in self.expired
                if self.log.tail(head.session_id, head.epoch) != head.tail
            ),
        ]
        assert not lies, "\n".join(lies)


async def _interrupts(_: Generation) -> None:
    await trio.lowlevel.checkpoint()
    raise KeyboardInterrupt


def fold_of(head: Head, entries: Sequence[Entry]) -> Snapshot:
    state = SessionState(head.session_id, head.epoch)
    for entry in entries:
        state.apply(decode(entry.body))
    return state.snapshot()


def folds(watcher: Watcher) -> Iterator[Violation]:
    """What a reader got adds up, from the start or from the snapshot that it began with."""
    state: SessionState | None = None
    for delivery in watcher.deliveries:
        match delivery:
            case SnapshotTaken(snapshot=snapshot):
                state = SessionState.from_snapshot(snapshot)
            case Opened(cursor=cursor) if state is None:
                state = SessionState(watcher.session_id, cursor.epoch)
            case Batch():
                assert state is not None
                for one in delivery.events():
                    folded = state.apply(one)
                    if state.offset != one.offset:
                        yield Violation("R7", one.offset, f"{watcher.name} cannot fold it: {folded}")
            case _:
                pass


#
@pytest.mark.usefixtures("quiet")
@exploring(150)
@given(happenings, st.sampled_from([None, 0.0]))
def test_rules_hold_and_no_answer_is_a_lie(asked: list[Happening], compact_after: float | None) -> None:
    explore(partial(example, asked, compact_after))


async def example(asked: list[Happening], compact_after: float | None) -> Counter[str]:
    storm = Storm(compact_after)
    await storm.run(iter(asked))
    return storm.done
