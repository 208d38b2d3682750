"""What is asked of a session that another engine has: done there, answered here, as if there were one engine."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final, TypeAlias

import pytest
import trio
from attrs import frozen
from trio.testing import MockClock, wait_all_tasks_blocked

from penstock.engine import (
    Chunk,
    Config,
    Generation,
    GenerationActive,
    InvalidBody,
    LocalBus,
    MemoryLog,
    Moved,
    PenstockError,
    Pieces,
    Posted,
    Producer,
    ProducerStamp,
    Session,
    Started,
    StorageError,
    TimedOut,
    errors,
    open_engine,
    request_id,
)
from penstock.engine import Node as Node_
from penstock.engine.session.peers import COMMANDS, read_answer, tell_answer, tell_error
from penstock.engine.testing import KeptLog
from tests.engine.producers import Steered, saying
from tests.engine.rules import events_of
from tests.engine.sharing import Between, Node, nodes

QUESTION, QUEUED, GENERATION = (f"0198c0de-7a11-7abc-8def-01234567{number}" for number in ("0001", "0002", "0003"))
UNSEEN = "0198c0de-7a11-7abc-8def-012345670004"

Call: TypeAlias = Callable[[Session], Awaitable[object]]


def piece(generation_id: str = GENERATION, text: str = "more", **fields: object) -> Chunk:
    return Chunk(generation_id=generation_id, data={"text": text}, **fields)  # type: ignore[arg-type]


async def parts(*pieces: bytes) -> AsyncIterator[bytes]:
    for each in pieces:
        yield each


# Each is made of a session in which a producer of the engine's, or one elsewhere, is at work.
CALLS: Final[dict[str, Call]] = {
    "start": lambda s: s.start("say"),
    "start, with all that there is": lambda s: s.start(
        "say",
        message={"blocks": [{"kind": "text", "text": "and?"}], "metadata": {"a": [None]}},
        input={"deep": [1, 2.5, None, "ü"]},
        job_id="job",
        metadata={"b": {"c": None}},
        on_last_disconnect=3.0,
        idle_limit=7,
        idempotency_key="once",
        principal="ann",
        author="ann",
    ),
    "start, an input that is null": lambda s: s.start("say", input=None),
    "start, again": lambda s: twice(lambda: s.start("say", text="x", idempotency_key="once")),
    "start, reject": lambda s: s.start("say", policy="reject"),
    "start, queue": lambda s: s.start("say", text="x", policy="queue"),
    "start, latest": lambda s: s.start("say", policy="latest"),
    "start, join": lambda s: s.start("say", policy="join"),
    "start, rollback": lambda s: s.start("say", policy="rollback"),
    "start, of an unknown producer": lambda s: s.start("nobody"),
    "start, of none": lambda s: s.start(),
    "start, remote": lambda s: s.start("remote"),
    "start, in place of a message": lambda s: s.start("say", replaces=QUESTION, text="else"),
    "start, in place of no message": lambda s: s.start("say", replaces=UNSEEN),
    "start, under an id": lambda s: s.start("say", generation_id=UNSEEN),
    "start, under an id that is taken": lambda s: s.start("say", generation_id=GENERATION),
    "start, of a message that is taken": lambda s: s.start(
        "say", message={"blocks": [{"kind": "text", "text": "?"}], "message_id": QUESTION}
    ),
    "start, whose message names no file": lambda s: s.start(
        "say", message={"blocks": [{"kind": "image", "file_id": "none"}]}
    ),
    "stop": lambda s: s.stop(),
    "stop, by its id": lambda s: s.stop(GENERATION, reason="enough", author="ann", queue="continue"),
    "stop, of what waits": lambda s: s.stop(QUEUED),
    "stop, of what is not seen yet": lambda s: s.stop(UNSEEN),
    "stop, and clear": lambda s: s.stop(queue="clear"),
    "queue_next": lambda s: s.queue_next(),
    "dequeue": lambda s: s.dequeue(QUEUED),
    "dequeue, of nothing": lambda s: s.dequeue(UNSEEN),
    "post": lambda s: s.post("hello", author="ann"),
    "post, of an assistant's": lambda s: s.post(
        blocks=[{"kind": "text", "text": "a"}, {"kind": "data", "value": {"x": [None]}}],
        role="assistant",
        message_id=UNSEEN,
        metadata={"m": 1},
    ),
    "post, again": lambda s: twice(lambda: s.post("hello", message_id=UNSEEN)),
    "post, under an id that is taken": lambda s: s.post("other", message_id=QUESTION),
    "post, of no file": lambda s: s.post(blocks=[{"kind": "file", "file_id": "none"}]),
    "retract": lambda s: s.retract(QUESTION),
    "retract, of nothing": lambda s: s.retract(UNSEEN, and_after=True),
    "restore": lambda s: s.restore(QUESTION),
    "restore, of nothing": lambda s: s.restore(UNSEEN, idempotency_key="k", principal="ann"),
    "update": lambda s: s.update({"title": "t", "gone": None, "deep": {"x": 1}}),
    "reset": lambda s: s.reset("anew"),
    "reset, without a reason": lambda s: s.reset(),
    "delete": lambda s: s.delete(),
    "input": lambda s: s.input(GENERATION, "steer", {"text": "left", "n": None}, by="ann"),
    "input, again": lambda s: twice(lambda: s.input(GENERATION, "steer", {"text": "left"}, input_id="one")),
    "input, to nothing": lambda s: s.input(UNSEEN, "steer", {}),
    "input, to what waits": lambda s: s.input(QUEUED, "steer", {}),
    "input, of no kind": lambda s: s.input(GENERATION, "", {}),
    "input, to no approval": lambda s: s.input(GENERATION, "approval", {"approval_id": UNSEEN, "approved": True}),
    "keep_file": lambda s: s.keep_file(b"\x00\n{}" * 50_000, media_type="text/plain", filename="a\nb.txt"),
    "keep_file, in parts": lambda s: s.keep_file(parts(b"one\n", b"two"), media_type="text/plain", size=7),
    "keep_file, of another size": lambda s: s.keep_file(parts(b"one", b"two"), media_type="text/plain", size=9),
    "keep_file, too large": lambda s: s.keep_file(parts(b"x" * 300_000, b"x"), media_type="text/plain"),
    "keep_file, that says so": lambda s: s.keep_file(parts(b""), media_type="text/plain", size=300_001),
    "keep_file, larger than it says": lambda s: s.keep_file(parts(b"xx", b"yy"), media_type="text/plain", size=3),
    "keep_file, that is no picture": lambda s: s.keep_file(b"x" * 20, media_type="image/png"),
    "keep_file, of no bytes": lambda s: s.keep_file(parts("x"), media_type="text/plain"),  # type: ignore[arg-type]
    "chunks": lambda s: s.chunks([piece(message_id=UNSEEN), piece(text=" ü", message_id=UNSEEN)]),
    "chunks, as pieces": lambda s: s.chunks(
        Pieces(generation_id=GENERATION, message_id=UNSEEN, texts=("a", "b"), block_index=0)
    ),
    "chunks, with a stamp": lambda s: twice(
        lambda: s.chunks([piece(message_id=UNSEEN, block_index=0, seq=0)], stamp=ProducerStamp("p", 0, 0), lease=5.0)
    ),
    "chunks, with a gap": lambda s: s.chunks([piece(message_id=UNSEEN)], stamp=ProducerStamp("p", 0, 3)),
    "chunks, of another generation": lambda s: s.chunks([piece(UNSEEN, message_id=UNSEEN)]),
    "chunks, of an unknown type": lambda s: s.chunks([piece(type="nothing")]),
    "chunks, of other types": lambda s: s.chunks(
        [
            piece(type="message.opened", message_id=UNSEEN),
            Chunk(generation_id=GENERATION, type="app.x", data={"a": [None]}),
        ]
    ),
    "keep": lambda s: s.keep(GENERATION, lease=9.0),
    "keep, without a lease": lambda s: s.keep(),
    "finish": lambda s: twice(lambda: s.finish(GENERATION, usage={"tokens": 3})),
    "finish, as failed": lambda s: s.finish(GENERATION, outcome="failed", code="X", message="broke"),
    "finish, of nothing": lambda s: s.finish(UNSEEN),
    "wait_fenced, of nothing": lambda s: s.wait_fenced(UNSEEN),
    "wait_fenced, of what waits": lambda s: s.wait_fenced(QUEUED),
}


# Wherever the session is.
REFUSED_AT_ONCE: Final = ("start, of none", "keep_file, of no bytes")


async def twice(call: Callable[[], Awaitable[object]]) -> object:
    return await call(), await call()


@frozen
class CameTo:
    """What a call came to, and what stands in the log behind it; without what chance made."""

    answer: str
    events: tuple[str, ...]


def without_chance(text: str, epoch: str) -> str:
    text = text.replace(epoch, "EPOCH")
    known = (QUESTION, QUEUED, GENERATION, UNSEEN)
    text = re.sub(
        r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", lambda found: found[0] if found[0] in known else "ID", text
    )
    return re.sub(r'(seconds=|"time":")[-0-9.e:TZ]+', r"\1", text)


async def come_to(name: str, at: str, *, remote: bool) -> CameTo:
    log = KeptLog(MemoryLog())
    peers = Between()
    producers: dict[str, Producer] = {"hold": Steered(), "say": saying("said")}
    config = Config(file_bytes=300_000)
    async with nodes("a", "b", log=log, peers=peers, config=config, producers=producers) as both:
        owner = await both[0].engine.create_session("s")
        epoch = (await owner.cursor()).epoch
        await owner.post("what?", message_id=QUESTION)
        await owner.start("remote" if remote else "hold", generation_id=GENERATION)
        await owner.start("hold", generation_id=QUEUED, policy="queue")
        await wait_all_tasks_blocked()
        session = await next(node.engine for node in both if node.name == at).session("s")
        try:
            answer = repr(await CALLS[name](session))
        except PenstockError as error:
            answer = f"{type(error).__name__} {error.args} {vars(error)}"
        await wait_all_tasks_blocked()
        assert bool(peers.asked) is (at == "b" and name not in REFUSED_AT_ONCE)
        events = [entry.body.decode() for entry in log.kept("s", epoch)]
    return CameTo(without_chance(answer, epoch), tuple(without_chance(event, epoch) for event in events))


@pytest.mark.parametrize("remote", [False, True], ids=["here", "remote"])
@pytest.mark.parametrize("name", CALLS)
async def test_a_call_comes_to_the_same_in_every_engine(name: str, remote: bool, autojump_clock: MockClock) -> None:
    assert await come_to(name, "b", remote=remote) == await come_to(name, "a", remote=remote)


def test_every_command_is_among_the_calls() -> None:
    assert {name.split(",")[0] for name in CALLS} == COMMANDS.keys()


# --- where a question or its answer is lost


async def two(log: KeptLog, peers: Between, **producers: Producer) -> AsyncIterator[tuple[Node, Node]]:
    """Of which ``a`` has a generation live in the session ``s``, by the producer ``hold``."""
    made: dict[str, Producer] = {"hold": Steered(), "say": saying("said"), **producers}
    async with nodes("a", "b", log=log, peers=peers, producers=made) as (a, b):
        await (await a.engine.create_session("s")).start("hold", generation_id=GENERATION)
        await wait_all_tasks_blocked()
        yield a, b


@pytest.fixture
def log() -> KeptLog:
    return KeptLog(MemoryLog())


@pytest.fixture
def peers() -> Between:
    return Between()


@pytest.fixture
async def both(log: KeptLog, peers: Between, autojump_clock: MockClock) -> AsyncIterator[tuple[Node, Node]]:
    async for each in two(log, peers):
        yield each


@pytest.fixture
async def there(both: tuple[Node, Node]) -> Session:
    """The session in the engine that does not have it."""
    return await both[1].engine.session("s")


def types_of(events: object) -> list[str]:
    assert isinstance(events, list)
    return [event.type for event in events]


@pytest.mark.parametrize("fate", ["lost", "unheard", "refused"])
async def test_a_start_whose_answer_is_lost_is_asked_for_again_and_begins_once(
    fate: str, peers: Between, log: KeptLog, there: Session, autojump_clock: MockClock
) -> None:
    peers.fates[:] = [fate, fate]
    started = await there.start("say", text="x")
    assert isinstance(started, Started)
    assert not started.repeated
    assert started.superseded is not None
    assert types_of(await events_of(log, "s")).count("generation.started") == 2
    assert started.turn == 2


@pytest.mark.parametrize("fate", ["lost", "unheard"])
async def test_what_has_an_id_is_asked_for_again_and_done_once(
    fate: str, log: KeptLog, peers: Between, there: Session, autojump_clock: MockClock
) -> None:
    calls: list[Call] = [
        lambda s: s.post("x"),
        lambda s: s.input(GENERATION, "steer", {"text": "x"}),
        lambda s: s.keep_file(b"x", media_type="text/plain"),
        lambda s: s.stop(GENERATION),
    ]
    for call in calls:
        peers.fates[:] = [fate]
        answer = await call(there)
        assert not peers.fates
        if isinstance(answer, Posted):
            assert answer.created
    asked = [command for _, command in peers.asked]
    assert asked[:6] == ["post", "post", "input", "input", "keep_file", "keep_file"]
    assert set(asked[6:]) == {"stop"}  # behind the end it is claimed, and done, here
    types = types_of(await events_of(log, "s"))
    assert [types.count(f"{each}") for each in ("message.snapshot", "input.accepted", "generation.finished")] == [1] * 3


@pytest.mark.parametrize("fate", ["lost", "unheard"])
async def test_what_has_none_is_asked_for_once_and_its_caller_is_told_that_nobody_knows(
    fate: str, peers: Between, there: Session, autojump_clock: MockClock
) -> None:
    calls: dict[str, Call] = {
        "queue_next": lambda s: s.queue_next(),
        "update": lambda s: s.update({}),
        "retract": lambda s: s.retract(UNSEEN),
        "dequeue": lambda s: s.dequeue(UNSEEN),
        "chunks": lambda s: s.chunks([piece()]),
        "reset": lambda s: s.reset(),
    }
    for call in calls.values():
        peers.fates[:] = [fate]
        with pytest.raises(TimedOut, match="may have been done"):
            await call(there)
        if fate == "unheard":
            await wait_all_tasks_blocked()
    if fate == "lost":
        assert [command for _, command in peers.asked] == list(calls)


async def test_an_engine_that_never_answers_costs_a_bounded_time(
    peers: Between, there: Session, autojump_clock: MockClock
) -> None:
    for fates, error, call in (
        (["refused"], Moved, there.stop),
        (["lost"], TimedOut, lambda: there.post("x")),
        (["unheard", "refused"], TimedOut, lambda: there.post("y")),
    ):
        peers.fates[:] = [*fates, *fates[-1:] * 1000]
        began = trio.current_time()
        with pytest.raises(error):
            await call()
        assert 9 < trio.current_time() - began <= 10


async def test_without_peers_and_with_an_owner_that_cannot_be_asked_it_is_as_it_was(
    both: tuple[Node, Node], there: Session, peers: Between, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async def ask(*_: object) -> bytes:
        raise Moved("it has no address", owner="a", session_id="s")

    monkeypatch.setattr(peers, "ask", ask)
    began = trio.current_time()
    with pytest.raises(Moved) as caught:
        await there.stop()
    assert caught.value.owner == "a"
    assert trio.current_time() == began


# --- where the session goes on meanwhile


async def test_an_owner_that_steps_down_meanwhile_names_the_next_and_that_one_does_it(
    log: KeptLog, peers: Between, both: tuple[Node, Node], there: Session, autojump_clock: MockClock
) -> None:
    async with nodes("c", log=log, peers=peers, producers={"hold": Steered()}, last=False) as (c,):

        async def move() -> None:
            await c.engine.take_over("a")
            await (await c.engine.session("s")).start("hold")

        peers.before = move
        posted = await there.post("x")
        assert posted.created
        assert ("c", "post") in peers.asked
        assert await (await c.engine.session("s")).cursor() == posted.cursor


async def test_where_nothing_is_open_any_more_it_is_done_here(
    peers: Between, both: tuple[Node, Node], there: Session, autojump_clock: MockClock
) -> None:
    async def end() -> None:
        await (await both[0].engine.session("s")).stop()
        await both[0].engine.drain()

    peers.before = end
    began = trio.current_time()
    assert (await there.post("x")).created
    assert trio.current_time() - began < 1
    assert [message.role for message in (await there.snapshot()).messages] == ["assistant", "user"]


async def test_of_starts_at_once_in_two_engines_all_come_about_in_one_order(
    log: KeptLog, peers: Between, autojump_clock: MockClock
) -> None:
    async with nodes("a", "b", log=log, peers=peers, producers={"hold": Steered()}) as engines:
        await engines[0].engine.create_session("s")
        came_to: list[object] = []

        async def start(node: Node) -> None:
            came_to.append(await (await node.engine.session("s")).start("hold"))

        async with trio.open_nursery() as nursery:
            for number in range(6):
                nursery.start_soon(start, engines[number % 2])
        turns = sorted(each.turn for each in came_to if isinstance(each, Started))
        assert turns == [1, 2, 3, 4, 5, 6]
        ended = [event for event in await events_of(log, "s") if event.type == "generation.finished"]
        assert len(ended) == 5


async def test_a_policy_holds_over_all_engines(peers: Between, there: Session, autojump_clock: MockClock) -> None:
    with pytest.raises(GenerationActive):
        await there.start("say", policy="reject")
    joined = await there.start("say", policy="join")
    assert (joined.generation_id, joined.joined) == (GENERATION, True)


async def test_what_was_carried_here_is_not_carried_on(
    peers: Between, both: tuple[Node, Node], there: Session, autojump_clock: MockClock
) -> None:
    with pytest.raises(Moved) as caught:
        read_answer(await both[1].engine.carry_out("s", "stop", b'{"reason":"x","queue":"pause"}'))
    assert caught.value.owner == "a"
    assert peers.asked == []


async def test_who_waits_for_a_fence_hears_of_it_wherever_the_session_is(
    peers: Between, both: tuple[Node, Node], there: Session, autojump_clock: MockClock
) -> None:
    found: list[PenstockError] = []

    async def wait() -> None:
        found.append(await there.wait_fenced(GENERATION))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.sleep(50)
        assert not found
        await (await both[0].engine.session("s")).stop()
    assert [type(error).__name__ for error in found] == ["StaleGeneration"]
    assert len(peers.asked) == 3


async def test_a_caller_that_leaves_loses_the_answer_only(
    log: KeptLog, peers: Between, both: tuple[Node, Node], there: Session, autojump_clock: MockClock
) -> None:
    with trio.CancelScope() as scope:

        async def leave() -> None:
            scope.cancel()

        peers.before = leave
        await there.stop(GENERATION)
    await wait_all_tasks_blocked()
    assert "generation.finished" in types_of(await events_of(log, "s"))


# --- producers


async def test_a_producer_that_is_a_function_cannot_be_carried(
    peers: Between, there: Session, autojump_clock: MockClock
) -> None:
    with pytest.raises(InvalidBody, match="register it"):
        await there.start(saying("x"))
    assert peers.asked == []


async def test_whether_a_producer_is_known_is_for_the_engine_to_say_that_runs_it(
    log: KeptLog, peers: Between, autojump_clock: MockClock
) -> None:
    ran: list[str | None] = []

    async def own(_: Generation) -> None:
        ran.append(request_id.get())

    async with (
        nodes("a", log=log, peers=peers, producers={"hold": Steered(), "of a": own}, last=False) as (a,),
        nodes("b", log=log, peers=peers, producers={"of b": own}, last=False) as (b,),
    ):
        await (await a.engine.create_session("s")).start("hold")
        there = await b.engine.session("s")
        with pytest.raises(PenstockError, match="registered: hold, of a"):
            await there.start("of b")
        await there.start("of a")
        await wait_all_tasks_blocked()
        assert ran == [None]
        await wait_all_tasks_blocked()
        with pytest.raises(PenstockError, match="registered: of b"):
            await there.start("of a")


# --- what is told


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"{}", b"null", b'{"request":1}', b"\xff", b'{"chunks":[{}]}', b"\n\n"]
)
@pytest.mark.parametrize("command", [*COMMANDS, "", "nothing", "../start"])
async def test_what_no_engine_asks_is_refused(
    command: str, body: bytes, both: tuple[Node, Node], autojump_clock: MockClock
) -> None:
    for session_id in ("s", "", "none"):
        answer = await both[0].engine.carry_out(session_id, command, body)
        assert b"the engine that has the session failed" not in answer


def test_errors_are_told_whole() -> None:
    for name in errors.__all__:
        kind = getattr(errors, name)
        assert issubclass(kind, PenstockError)
        error = kind.__new__(kind)
        PenstockError.__init__(error, "half \ud800", session_id="s", generation_id="g")
        vars(error).update(owner="a", expected=3, epoch=2, again=None)
        with pytest.raises(kind) as caught:
            read_answer(tell_error(error))
        assert type(caught.value) is kind
        assert vars(caught.value) == {**vars(error), "detail": "half \\ud800"}


def test_what_is_nobodys_fault_tells_nothing_of_the_inside() -> None:
    with pytest.raises(PenstockError, match=r"^the engine that has the session failed$") as caught:
        read_answer(tell_error(RuntimeError("the inside")))
    assert caught.value.code == "INTERNAL"


def test_nothing_is_an_answer_too() -> None:
    assert read_answer(tell_answer(None)) is None


# --- whether an engine should be sent anything


async def test_an_engine_says_what_is_not_as_it_should_be(autojump_clock: MockClock) -> None:
    class Away(LocalBus):  # type: ignore[misc]  # final for others
        away = False
        deaf = False

        async def beat(self, node: Node_, ttl: float) -> bool:
            if self.away:
                raise StorageError("it is away")
            return await super().beat(node, ttl)

        @property
        def listening(self) -> bool:
            return not self.deaf

    bus = Away()
    async with open_engine(MemoryLog(), owner="a", bus=bus, config=Config(lease_ttl=8)) as engine:
        await trio.sleep(100)
        assert list(engine.failing) == []
        assert engine.statistics().lease_age is not None
        bus.away = True
        await trio.sleep(5)
        assert list(engine.failing) == ["store"]
        await trio.sleep(5)
        assert list(engine.failing) == ["store", "lease"]
        bus.away, bus.deaf = False, True
        await trio.sleep(3)
        assert list(engine.failing) == ["bus"]
        await engine.drain()
        assert list(engine.failing) == ["draining", "bus"]
    async with open_engine(":memory:") as engine:
        assert list(engine.failing) == []
        await engine.drain()
        assert list(engine.failing) == ["draining"]
