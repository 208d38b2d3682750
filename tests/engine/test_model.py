"""The engine and a plain model of it are given the same operations: they must answer the same and end up the same.

Operations come one after the other, as many as the example has, with time going by between them, restarts, crashes,
and subscribers that are slow, leave and come back. What several clients do at once is `test_storm`'s. A longer run:
``PENSTOCK_EXAMPLES=10000 pytest tests/engine/test_model.py``.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Final, final

import pytest
import trio
import trio.testing
from attrs import define, evolve, field
from hypothesis import given

from penstock.engine import (
    Batch,
    Chunk,
    Config,
    Cursor,
    Engine,
    IdInUse,
    JSONObject,
    MemoryLog,
    MessageView,
    Opened,
    ProducerStamp,
    Queued,
    Session,
    Snapshot,
    Started,
    Subscription,
    new_generation_id,
    open_engine,
)
from penstock.engine.testing import KeptLog, Watcher, check_acknowledged, check_kept
from tests.engine import model as said
from tests.engine.actors import ACTORS
from tests.engine.exploring import explore, exploring, folded, quiet  # noqa: F401  a fixture
from tests.engine.faulty import Fail, FaultyLog
from tests.engine.model import Model, Refused, Said, StartOf
from tests.engine.operations import (
    IDS,
    POSTS,
    REMOTE_POSTS,
    SESSIONS,
    Chunks,
    Create,
    Delete,
    Dequeue,
    Expire,
    Finish,
    Fork,
    GiveInput,
    Leave,
    Operation,
    Pass,
    Post,
    QueueNext,
    Reset,
    Restart,
    Restore,
    Retract,
    Say,
    Start,
    Stop,
    Take,
    Update,
    Watch,
    operations,
)
from tests.engine.remotes import body
from tests.engine.trouble import cut_short_in

CONFIG: Final = Config(
    cleanup_timeout=said.CLEANUP_TIMEOUT,
    max_stragglers=said.MAX_STRAGGLERS,
    queue_limit=said.QUEUE_LIMIT,
    inputs=said.INPUTS,
    pending_stop=said.PENDING_STOP,
    idle_limit=said.IDLE,
    total_limit=said.TOTAL,
    subscriber_buffer=6,
    page_events=7,
    fold_bytes=3000,
    session_pending=5,
    checkpoint_every=2,
    compact_after=None,
)


@final
@define(eq=False)
class Reader:
    """A subscriber across its connections; one recording for each life of its session that it saw."""

    session_id: str
    eager: bool
    watchers: list[Watcher] = field(factory=list)
    connection: AbstractAsyncContextManager[Subscription] | None = None
    subscription: Subscription | None = None
    scope: trio.CancelScope = field(factory=trio.CancelScope)
    cursor: Cursor | None = None


@final
class Driver:
    """One example: an engine that is restarted now and then, the model beside it, and the readers."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.log = KeptLog(MemoryLog())
        self.wire = FaultyLog(self.log)
        self.model = Model()
        self.readers: list[Reader] = []
        self.seen: dict[str, list[tuple[Cursor, list[said.Message], dict[str, object]]]] = {}
        self.done: Counter[str] = Counter()
        self._nursery = nursery
        self._numbers = iter(range(1, 1 << 32))
        self._engine: Engine | None = None

    @property
    def engine(self) -> Engine:
        assert self._engine is not None
        return self._engine

    async def run(self, asked: list[Operation]) -> None:
        rest = iter([Create(0, None), Create(1, {"b": {"c": 1}}), *asked])
        more = True
        while more:
            more = False
            async with open_engine(self.wire, producers=ACTORS, config=CONFIG) as self._engine:
                await self.settle()
                for operation in rest:
                    if isinstance(operation, Restart):
                        more = True
                        if operation.crash:
                            self.wire.schedule = lambda _number, _write: Fail(whole=True)
                        break
                    answer = type(operation).__name__
                    try:
                        await self.carry_out(operation)
                    except Refused as refused:
                        answer += f" {refused.error.__name__}"
                    self.done[answer] += 1
                    await self.settle()
                else:
                    await self.stop_remotes()
                crash = self.wire.schedule is not None
                await self.leave_all()
            for session in self.model.living().values():
                session.restart("lost" if crash else "shutdown")
            self.wire = FaultyLog(self.log)
            self.done["crash" if crash else "restart"] += 1
            for session in self.model.living().values():
                session.now = trio.current_time()
                session.adopt()

    async def stop_remotes(self) -> None:
        """At the last: of nothing else does the next process let the producer go on."""
        for session_id, model in self.model.living().items():
            if model.live is not None and model.live.does == "remote":
                model.stop(None, "pause")
                await (await self.engine.session(session_id)).stop()

    async def settle(self) -> None:
        """Let happen what can happen, also clean-ups that are under way; then the two must look the same."""
        await trio.testing.wait_all_tasks_blocked()
        for session in self.model.living().values():
            session.advance(trio.current_time())
        while ending := [s.live.ends[0] for s in self.model.living().values() if s.live and s.live.ends]:
            await trio.sleep_until(min(ending) + 0.001)
            await trio.testing.wait_all_tasks_blocked()
            for session in self.model.living().values():
                session.advance(trio.current_time())
        for session_id in self.model.living():
            await self.compare(session_id)
        statistics = self.engine.statistics()
        living = self.model.living().values()
        assert statistics.pending_events == 0
        assert statistics.live_generations == sum(session.live is not None for session in living)
        assert statistics.subscribers == sum(session.watchers for session in living)

    async def compare(self, session_id: str) -> None:
        session = await self.engine.session(session_id)
        model = self.model.session(session_id)
        snapshot = await session.snapshot()
        assert view(snapshot) == model.view()
        assert snapshot.turn == model.turn
        for real, plain in zip(snapshot.messages, model.messages, strict=True):
            assert plain.message_id in (None, real.message_id)
            plain.message_id = real.message_id
            text = plain.blocks[0][1] if plain.role == "user" else None
            assert model.posts.setdefault(real.message_id, text) == text
            assert (real.version is None) == (plain.place is None)
            if real.version is not None and plain.place is not None:
                heads = model.heads(plain.place)
                assert (real.version.index, real.version.count) == (plain.index, len(heads))
                versions = (await session.versions(real.message_id)).versions
                assert [looks(each) for each in versions] == [head.view()[:3] for head in heads]
        seen = self.seen.setdefault(session_id, [])
        if not seen or seen[-1][0] != snapshot.cursor:
            seen.append((snapshot.cursor, copy.deepcopy(model.messages), copy.deepcopy(model.metadata)))
        for generation_id, plain_generation in model.generations.items():
            found = await session.generation(generation_id)
            assert (found.state, found.outcome) == (plain_generation.state, plain_generation.outcome)
            assert found.turn == plain_generation.turn or (found.turn is None and plain_generation.carried)

    async def ask(self, work: Callable[[], Awaitable[object]], expected: Callable[[], object]) -> None:
        """Both are asked; the engine must answer or raise what the model says, in the time that it says."""
        try:
            wanted: object = expected()
        except Refused as refused:
            with pytest.raises(refused.error):
                await work()
            raise
        assert await work() == wanted

    async def carry_out(self, operation: Operation) -> None:
        match operation:
            case Pass(seconds=seconds):
                await trio.sleep(seconds)
            case Create():
                await self.create(operation)
            case Watch():
                await self.watch(operation)
            case Leave(watcher=index):
                if self.readers:
                    await self.leave(self.readers[index % len(self.readers)])
            case Take(watcher=index, count=count):
                if self.readers:
                    await self.take(self.readers[index % len(self.readers)], count)
            case Restart():
                raise AssertionError("is the driver's")
            case _:
                session_id = SESSIONS[operation.session]
                if operation.session == 0 and self.model.living():
                    session_id = next(iter(self.model.living()))  # most of them shall find something to do
                try:
                    model = self.model.session(session_id)
                except Refused as refused:
                    with pytest.raises(refused.error):
                        await self.engine.session(session_id)
                    raise
                await self.carry_out_on(operation, await self.engine.session(session_id), model)

    async def carry_out_on(self, operation: Operation, session: Session, model: said.Session) -> None:
        match operation:
            case Start():
                await self.start(operation, session, model)
            case Stop(which=which, queue=choice):
                generation_id = None if which is None else self.generation_id(model, which)

                async def stop() -> object:
                    stopped = await session.stop(generation_id, queue=choice)  # type: ignore[arg-type]
                    return stopped.state, stopped.generation_id

                await self.ask(stop, lambda: model.stop(generation_id, choice))
            case QueueNext():

                async def queue_next() -> object:
                    return (await session.queue_next()).generation_id

                await self.ask(queue_next, model.queue_next)
            case Dequeue(which=which):
                generation_id = self.generation_id(model, which)
                await self.ask(lambda: session.dequeue(generation_id), lambda: model.dequeue(generation_id))
            case Post(text=text, message=message):
                ids = [*POSTS, *(m.message_id for m in model.messages)]
                message_id = None if message is None else ids[message % len(ids)]

                async def post() -> object:
                    return (await session.post(text, message_id=message_id)).created

                await self.ask(post, lambda: model.post(text, message_id))
            case Retract(message=message, and_after=and_after):
                message_id = self.message_id(model, message)

                async def retract() -> None:
                    await session.retract(message_id, and_after=and_after)

                await self.ask(retract, lambda: model.retract(message_id, and_after=and_after))
            case Restore(message=message):
                known = [*reversed(model.replaced), self.message_id(model, message)]
                restored_id = known[message % len(known)]

                async def restore() -> object:
                    return len((await session.restore(restored_id)).message_ids)

                await self.ask(restore, lambda: model.restore(restored_id))
            case Update(patch=patch):

                async def update() -> object:
                    return (await session.update(patch)).metadata

                def updated() -> object:
                    model.metadata = merged(model.metadata, patch)
                    return model.metadata

                await self.ask(update, updated)
            case GiveInput():
                await self.give_input(operation, session, model)
            case Chunks():
                await self.send(operation, session, model)
            case Finish():
                finished_id = self.remote_id(model, operation.which)
                number = self.number(model, operation.number)

                async def finish() -> object:
                    stamp = None if number is None else ProducerStamp("p", *number)
                    finished = await session.finish(finished_id, outcome=operation.outcome, stamp=stamp)  # type: ignore[arg-type]
                    return finished.repeated

                await self.ask(finish, lambda: model.finish(finished_id, operation.outcome, number))
            case Reset():

                async def reset() -> None:
                    await session.reset()

                await self.ask(reset, model.reset)
            case Delete():
                await session.delete()
                self.model.sessions[session.session_id] = None
                self.seen.pop(session.session_id, None)
                for reader in self.readers:
                    if reader.session_id == session.session_id:
                        await self.leave(reader)
            case Expire():
                await self.expire(session.session_id, model)
            case Fork():
                await self.fork(operation, session, model)
            case _:
                raise AssertionError(operation)

    def generation_id(self, model: said.Session, index: int) -> str:
        """One of those that may be proposed, or one that there was."""
        ids = [*reversed(model.generations), *IDS]
        return ids[index % len(ids)]

    def message_id(self, model: said.Session, index: int) -> str:
        ids = [*(m.message_id or "" for m in reversed(model.messages)), POSTS[0]]
        return ids[index % len(ids)]

    async def start(self, operation: Start, session: Session, model: said.Session) -> None:
        if operation.policy == "join" and operation.text is not None:
            operation = evolve(operation, text=None)
        asked = StartOf(
            generation_id=None if operation.proposed is None else IDS[operation.proposed],
            producer=operation.producer,
            registered=operation.registered,
            policy=operation.policy,
            text=operation.text,
            replaces=None if operation.replaces is None else self.message_id(model, operation.replaces),
            on_last_disconnect=operation.on_last_disconnect,
        )
        made: list[str] = []

        async def start() -> object:
            answer = await session.start(
                asked.producer if asked.registered else ACTORS[asked.producer],
                text=asked.text,
                policy=asked.policy,
                generation_id=asked.generation_id,
                replaces=asked.replaces,
                on_last_disconnect=asked.on_last_disconnect,
                idempotency_key=operation.key,
            )
            made.append(answer.generation_id)
            return answer_of(answer)

        # The id that the engine makes is not known before; the model takes it over afterwards.
        stand_in = f"new {next(self._numbers)}"
        model.new_id = lambda: stand_in
        try:
            wanted = model.start(asked, operation.key)
        except Refused as refused:
            with pytest.raises(refused.error):
                await start()
            raise
        answer = await start()
        (generation_id,) = made
        if stand_in in model.generations:
            rename(model, stand_in, generation_id)
        if wanted.get("generation_id") == stand_in:
            wanted["generation_id"] = generation_id
        wanted = {"superseded": None, "joined": False, "repeated": False, **wanted}
        if "position" in wanted:
            wanted.pop("superseded")
            wanted.pop("joined")
        assert answer == wanted

    async def expire(self, session_id: str, model: said.Session) -> None:
        head = await self.log.head(session_id)
        assert head is not None
        expired = model.unused
        assert await self.engine._background.delete_unchanged(head) == expired
        if expired:
            self.model.sessions[session_id] = None
            self.seen.pop(session_id, None)

    async def give_input(self, operation: GiveInput, session: Session, model: said.Session) -> None:
        if operation.which is None and model.live is not None:
            generation_id = model.live.generation_id
        else:
            generation_id = self.generation_id(model, operation.which or 0)
        input_id = operation.input_id or f"i-{next(self._numbers)}"
        content: JSONObject = {"do": operation.do}
        do = operation.do
        if operation.kind == "continue":
            content, do = {}, ""
        if operation.kind == "approval":
            open_ = (await session.snapshot()).approvals
            content = {
                "approval_id": open_[0].approval_id if open_ else "none",
                "approved": operation.do == "yes",
                "note": operation.do,
            }
            live = model.live
            if live is not None and input_id in live.inputs and live.inputs[input_id][0] == "approval":
                input_id = f"i-{next(self._numbers)}"  # its content named an approval that is gone

        async def give() -> None:
            assert await session.input(generation_id, operation.kind, content, input_id=input_id) == input_id

        await self.ask(give, lambda: model.input(generation_id, operation.kind, do, input_id))

    # --- remote producers

    def remote_id(self, model: said.Session, which: int | None) -> str:
        """The live one's, or a new one, unless another is meant."""
        if which is not None:
            return self.generation_id(model, which)
        return new_generation_id() if model.live is None else model.live.generation_id

    def number(self, model: said.Session, number: str | None) -> tuple[int, int] | None:
        epoch, last = model.number or (0, -1)
        match number:
            case "next":
                return epoch, last + 1
            case "again" if last >= 0:
                return epoch, last
            case "hole":
                return epoch, last + 2
            case "epoch":
                return epoch + 1, 0
            case "late" if epoch:
                return epoch - 1, 0
            case _:
                return None

    async def send(self, operation: Chunks, session: Session, model: said.Session) -> None:
        generation_id = self.remote_id(model, operation.which)
        number = self.number(model, operation.number)
        says = [self.chunk_said(model, say) for say in operation.says]

        async def send() -> object:
            stamp = None if number is None else ProducerStamp("p", *number)
            answer = await session.chunks([chunk_of(generation_id, each) for each in says], stamp=stamp)
            return {"accepted": answer.accepted, "duplicates": answer.duplicates, "turn": answer.turn}

        await self.ask(send, lambda: model.chunks(generation_id, says, number))

    def chunk_said(self, model: said.Session, say: Say) -> Said:
        live = model.live
        text, message_id, seq = say.text, None, None
        if say.kind == "applied":
            given = [] if live is None else [*live.open_inputs, *sorted(live.applied)]
            text = given[(say.message or 0) % len(given)] if given else "none"
        elif say.kind in ("delta", "close") and say.message is not None:
            message_id = [*REMOTE_POSTS, POSTS[0]][say.message]
        if say.kind == "delta" and say.seq is not None:
            messages = [] if live is None else live.messages
            there = next((m.seq for m in messages if m.message_id == message_id is not None), 0)
            seq = max(1, there + {"next": 1, "again": 0, "hole": 3}[say.seq])
        return Said(kind=say.kind, message_id=message_id, text=text, seq=seq)

    async def create(self, operation: Create) -> None:
        session_id = SESSIONS[operation.session]
        session = await self.engine.create_session(session_id, metadata=operation.metadata)
        made = self.model.sessions.get(session_id) is None
        assert session.created == made
        if made:
            metadata: dict[str, object] = dict(operation.metadata or {})
            self.model.sessions[session_id] = said.Session(now=trio.current_time(), new_id=str, metadata=metadata)
            self.seen.pop(session_id, None)

    async def fork(self, operation: Fork, session: Session, model: said.Session) -> None:
        into = SESSIONS[operation.into]
        points = [*range(len(model.messages)), *self.seen[session.session_id]]
        point = None if operation.at is None else points[operation.at % len(points)]
        at: Cursor | str | None
        messages, metadata = model.messages, model.metadata
        if point is None:
            at = None
        elif isinstance(point, int):
            at, messages = model.messages[point].message_id, messages[: point + 1]
        else:
            at, messages, metadata = point
        given: dict[str, object] = copy.deepcopy(metadata)
        if operation.metadata is not None:
            given = dict(operation.metadata)
        made = said.Session(now=trio.current_time(), new_id=str, metadata=given)
        for message in copy.deepcopy(messages):
            message.generation_id = None
            message.place, message.index = None, 1
            message.status = "cancelled" if message.status == "open" else message.status
            made.messages.append(message)
            if message.message_id is not None:
                made.owners[message.message_id] = None

        def fork() -> object:
            if self.model.sessions.get(into) is not None:
                raise Refused(IdInUse)
            self.model.sessions[into] = made
            self.seen.pop(into, None)
            return None

        async def forked() -> None:
            fork = await session.fork(into, at=at, metadata=operation.metadata)
            assert fork.created
            assert fork.session_id == into
            for each in (await fork.snapshot()).generations:  # what it tells of others' ends, it knows
                assert each.outcome is not None
                made.generations[each.generation_id] = said.carried(each.generation_id, each.turn, each.outcome)

        await self.ask(forked, fork)

    # --- readers

    async def watch(self, operation: Watch) -> None:
        reader: Reader | None = None
        if operation.resumed is not None and self.readers:
            reader = self.readers[operation.resumed % len(self.readers)]
            await self.leave(reader)
        else:
            reader = Reader(SESSIONS[operation.session], operation.eager)
        model = self.model.session(reader.session_id)
        session = await self.engine.session(reader.session_id)
        if reader not in self.readers:
            self.readers.append(reader)
        reader.connection = session.subscribe(reader.cursor)
        reader.subscription = await reader.connection.__aenter__()
        model.watchers += 1
        if reader.eager:
            reader.scope = trio.CancelScope()
            self._nursery.start_soon(self.follow, reader)

    async def follow(self, reader: Reader) -> None:
        with reader.scope:
            while await self.take_one(reader):
                pass

    async def take(self, reader: Reader, count: int) -> None:
        if not reader.eager and reader.subscription is not None:
            for _ in range(count):
                with trio.move_on_after(0.001):
                    await self.take_one(reader)

    async def take_one(self, reader: Reader) -> bool:
        assert reader.subscription is not None
        try:
            delivery = await reader.subscription.receive()
        except trio.EndOfChannel:
            return False
        last = reader.watchers[-1] if reader.watchers else None
        if isinstance(delivery, Opened) and (last is None or last.epoch != delivery.cursor.epoch):
            last = Watcher(self.log, reader.session_id, f"reader {self.readers.index(reader)}")
            reader.watchers.append(last)
        assert last is not None
        last.take(delivery)
        if isinstance(delivery, Opened | Batch):
            reader.cursor = delivery.cursor
        return True

    async def leave(self, reader: Reader) -> None:
        if reader.connection is None:
            return
        reader.scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        await reader.connection.__aexit__(None, None, None)
        reader.connection = reader.subscription = None
        living = self.model.living().get(reader.session_id)
        if living is not None and living.watchers:
            living.watchers -= 1
            if not living.watchers:
                living.last_left = trio.current_time()

    async def leave_all(self) -> None:
        for reader in self.readers:
            await self.leave(reader)

    async def check(self) -> None:
        """When the last engine is gone: every rule, on every life and on everything that anybody got."""
        watchers = [watcher for reader in self.readers for watcher in reader.watchers]
        found = check_kept(self.log, watchers, closed=True)
        assert not found, "\n".join(map(str, found))
        async with open_engine(self.wire, producers=ACTORS, config=CONFIG) as self._engine:
            await self.settle()
            for session_id in self.model.living():
                session = await self.engine.session(session_id)
                assert await folded(session) == await session.snapshot()
            await self.stop_remotes()
        found = check_kept(self.log, watchers, closed=True)
        assert not found, "\n".join(map(str, found))
        assert (
            await check_acknowledged(self.log.acknowledged, self.log, compacted=CONFIG.compact_after is not None) == []
        )
        assert cut_short_in(self.log) == []
        living = {head.session_id: head for head in await self.log.heads()}
        assert living.keys() == self.model.living().keys()
        for head in living.values():
            assert self.log.tail(head.session_id, head.epoch) == head.tail


def looks(message: MessageView) -> tuple[object, ...]:
    return message.role, message.status, tuple((block.kind, block.text) for block in message.blocks)


def view(snapshot: Snapshot) -> dict[str, object]:
    """What the model knows of a snapshot. Of a fork's messages it knows nothing of whose they were."""
    live = snapshot.generation
    begun_here = {each.generation_id for each in snapshot.generations if each.started is not None}
    return {
        "messages": [
            (*looks(message), message.generation_id if message.generation_id in begun_here else None)
            for message in snapshot.messages
        ],
        "live": None
        if live is None
        else (live.generation_id, live.turn, tuple(given.input_id for given in live.inputs)),
        "queue": (snapshot.queue.paused, [item.generation_id for item in snapshot.queue.items]),
        "approvals": len(snapshot.approvals),
        "metadata": dict(snapshot.metadata),
    }


def answer_of(answer: Started | Queued) -> dict[str, object]:
    if isinstance(answer, Queued):
        return {"generation_id": answer.generation_id, "position": answer.position, "repeated": answer.repeated}
    old = answer.superseded
    return {
        "generation_id": answer.generation_id,
        "turn": answer.turn,
        "superseded": None if old is None else (old.generation_id, old.cleanup, round(old.seconds, 3)),
        "joined": answer.joined,
        "repeated": answer.repeated,
    }


def chunk_of(generation_id: str, each: Said) -> Chunk:
    type_, data = {
        "delta": ("block.delta", {"text": each.text}),
        "close": ("message.closed", {}),
        "status": ("generation.status", {"status": "working"}),
        "ask": ("approval.requested", {"approval_id": "a", "expires_at": "2999-01-01T00:00:00Z"}),
        "applied": ("input.applied", {"input_id": each.text}),
    }[each.kind]
    return body(generation_id, type=type_, data=data, message_id=each.message_id, seq=each.seq)


def rename(model: said.Session, remote: str, generation_id: str) -> None:
    generation = model.generations.pop(remote)
    generation.generation_id = generation_id
    model.generations[generation_id] = generation
    for message in generation.messages:
        message.generation_id = generation_id
    for _, answer in model.keys.values():
        if answer.get("generation_id") == remote:
            answer["generation_id"] = generation_id


def merged(target: dict[str, object], patch: JSONObject) -> dict[str, object]:
    """RFC 7396, as the RFC says it."""
    made = dict(target)
    for name, value in patch.items():
        if value is None:
            made.pop(name, None)
        elif isinstance(value, dict):
            before = made.get(name)
            made[name] = merged(before if isinstance(before, dict) else {}, value)
        else:
            made[name] = value
    return made


@pytest.mark.usefixtures("quiet")
@exploring(300)
@given(operations)
def test_engine_and_model_agree(asked: list[Operation]) -> None:
    explore(partial(example, asked))


async def example(asked: list[Operation]) -> Counter[str]:
    async with trio.open_nursery() as nursery:
        driver = Driver(nursery)
        await driver.run(asked)
        await driver.check()
    return driver.done
