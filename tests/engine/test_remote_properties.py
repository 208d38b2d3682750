"""However requests are lost, repeated, overtaken and cut off by crashes: what was sent stands there once, in order."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, TypeAlias, final

import pytest
import trio
from attrs import evolve, frozen
from hypothesis import given
from hypothesis import strategies as st

from penstock.engine import (
    Chunk,
    Config,
    MemoryLog,
    PenstockError,
    ProducerStamp,
    SequenceGap,
    Session,
    StaleProducer,
    new_generation_id,
    new_message_id,
    open_engine,
)
from penstock.engine.rules.chunks import read_pieces
from penstock.engine.testing import assert_log
from tests.engine.exploring import explore, exploring, quiet  # noqa: F401  a fixture
from tests.engine.remotes import body, texts_of
from tests.engine.rules import events_of
from tests.engine.slow import SlowLog, turns

GID: Final = new_generation_id()
MESSAGES: Final = (new_message_id(), new_message_id())
CONFIG: Final = Config(session_pending=3, total_pending=4, page_events=3, idle_session=1.0)


@final
@frozen
class Send:
    """The next request; so many at the same time; who waits leaves after so many turns of the loop."""

    copies: int
    patience: int | None


@final
@frozen
class Repeat:
    """A request that was answered before, from so far back."""

    back: int


@final
@frozen
class Skip:
    """The one after the next."""


@final
@frozen
class Restart:
    """The producer begins a new epoch, or with ``late`` its former one speaks up again."""

    late: bool


Act: TypeAlias = Send | Repeat | Skip | Restart

_SEND: st.SearchStrategy[Act] = st.builds(
    Send, st.sampled_from([1, 1, 1, 2, 3]), st.sampled_from([None, None, 0, 1, 2, 3, 5, 8])
)
_ACT: st.SearchStrategy[Act] = st.one_of(
    _SEND, _SEND, _SEND, st.builds(Repeat, st.integers(0, 3)), st.just(Skip()), st.builds(Restart, st.booleans())
)
_REQUEST = st.lists(st.tuples(st.integers(0, 1), st.sampled_from("abcdef")), min_size=1, max_size=3)


@final
class Producer:
    """Sends its requests in order, and knows of each only what it was told."""

    def __init__(self, requests: list[list[tuple[int, str]]], numbered: bool) -> None:
        self.requests: list[list[Chunk]] = []
        self.meant = dict.fromkeys(MESSAGES, "")
        for request in requests:
            chunks: list[Chunk] = []
            for message, text in request:
                mid = MESSAGES[message]
                self.meant[mid] += text
                seq = len(self.meant[mid]) if numbered else None
                chunks.append(body(GID, text, message_id=mid, seq=seq))
            self.requests.append(chunks)
        self.next = 0
        self.epoch = 0
        self.begun = 0  # the request that this epoch began with
        self.numbered = numbered
        self.unanswered = False  # the last request may have been taken
        self.done: Counter[str] = Counter()

    @property
    def in_doubt(self) -> bool:
        """Whether a new epoch could say something twice: only the numbers of its chunks would tell, then."""
        return self.unanswered and not self.numbered

    def stamp(self, number: int) -> ProducerStamp:
        return ProducerStamp("p", self.epoch, number - self.begun)

    async def act(self, session: Session, act: Act) -> None:
        match act:
            case Send(copies, patience):
                await self.send(session, copies, patience)
            case Repeat(back):
                number = self.next - 1 - back
                if number >= self.begun:
                    answer = await session.chunks(self.requests[number], stamp=self.stamp(number))
                    assert (answer.accepted, answer.duplicates) == (0, len(self.requests[number]))
                    self.done["repeated"] += 1
            case Skip():
                if self.next + 1 < len(self.requests):
                    await self.skip(session)
            case Restart(late):
                if late and self.epoch:
                    with pytest.raises(StaleProducer):
                        await session.chunks(self.requests[0], stamp=ProducerStamp("p", self.epoch - 1, 99))
                elif self.begun < self.next < len(self.requests) and not self.in_doubt:
                    self.epoch, self.begun = self.epoch + 1, self.next
                    await self.send(session, 1, None)  # of a new epoch the log must hear before the next
                    self.done["epochs"] += 1

    async def skip(self, session: Session) -> None:
        expected: int | None = None
        try:
            await session.chunks(self.requests[self.next + 1], stamp=self.stamp(self.next + 1))
        except SequenceGap as gap:
            expected = gap.expected
        if expected is None:
            self.next += 2
            self.unanswered = False  # the one before was taken, and cut off from its answer
        else:
            assert expected == self.next - self.begun
            self.done["gaps"] += 1

    async def send(self, session: Session, copies: int, patience: int | None) -> None:
        number = self.next
        if number == len(self.requests):
            return
        accepted: list[int] = []

        async def one(scope: trio.CancelScope) -> None:
            with scope:
                answer = await session.chunks(self.requests[number], stamp=self.stamp(number))
                accepted.append(answer.accepted)
                self.next = number + 1

        async with trio.open_nursery() as nursery:
            scopes = [trio.CancelScope() for _ in range(copies)]
            for scope in scopes:
                nursery.start_soon(one, scope)
            if patience is not None:
                await turns(patience)
                for scope in scopes:
                    scope.cancel()
        assert sum(count > 0 for count in accepted) <= 1
        self.unanswered = not accepted
        self.done["answered" if accepted else "cut off"] += 1


@pytest.mark.usefixtures("quiet")
@exploring(60)
@given(
    st.lists(_REQUEST, min_size=1, max_size=8),
    st.booleans(),
    st.lists(st.lists(_ACT, max_size=8), max_size=4),
    st.lists(st.integers(0, 3), min_size=1, max_size=5),
    st.none() | st.integers(0, 8),
)
def test_what_was_sent_stands_there_once_and_in_order(
    requests: list[list[tuple[int, str]]],
    numbered: bool,
    lives: list[list[Act]],
    slowness: list[int],
    patience: int | None,
) -> None:
    async def example() -> Counter[str]:
        producer = Producer(requests, numbered)
        left = MemoryLog()
        for life in lives:
            left = await live(left, slowness, lambda session, life=life: each(producer, session, life))  # type: ignore[misc]

        async def finish(session: Session) -> None:
            while producer.next < len(producer.requests):
                await producer.send(session, 1, None)
            stamp = producer.stamp(producer.next)
            if patience is None:
                assert not (await session.finish(GID, stamp=stamp)).repeated
            else:
                await leaving(partial(session.finish, GID, stamp=stamp), patience)
                await session.finish(GID, stamp=stamp)
            assert (await session.finish(GID, stamp=stamp)).repeated

        left = await live(left, slowness, finish)
        events = await events_of(left, "s")
        assert_log(events, closed=True)
        texts = texts_of(events)
        assert {mid: texts.get(mid, "") for mid in MESSAGES} == producer.meant
        return producer.done

    explore(example)


async def leaving(call: Callable[[], Awaitable[object]], patience: int) -> None:
    """Ask for it, and leave after so many turns of the loop."""

    async def ask() -> None:
        with scope:
            await call()

    scope = trio.CancelScope()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await turns(patience)
        scope.cancel()


async def each(producer: Producer, session: Session, life: list[Act]) -> None:
    for act in life:
        await producer.act(session, act)


async def live(log: MemoryLog, slowness: list[int], during: Callable[[Session], Awaitable[None]]) -> MemoryLog:
    """One life of a process, which dies behind ``during``; what it leaves."""
    slow = SlowLog()
    slow.inner._lives = log._lives
    slow.turns.extend(slowness)
    async with open_engine(slow, config=CONFIG) as engine:
        session = await engine.create_session("s")
        await during(session)
        left = MemoryLog()
        left._lives = copy.deepcopy(slow.inner._lives)
    return left


_TEXT = st.sampled_from(["a", "b", "", "\ud800"])
_CHUNK = st.builds(
    lambda text, **fields: body(GID, text, **fields),
    _TEXT,
    message_id=st.sampled_from([*MESSAGES, MESSAGES[0]]),
    block_index=st.sampled_from([None, None, 0, 1]),
)
_END = st.builds(
    lambda type_, **fields: body(GID, type=type_, **fields),
    st.sampled_from(["block.closed", "message.closed"]),
    message_id=st.sampled_from(MESSAGES),
)
_TOOL = st.just(
    body(GID, type="block.opened", kind="tool_call", message_id=MESSAGES[0], data={"tool_call_id": "c", "name": "n"})
)


@st.composite
def _writes(draw: st.DrawFn) -> list[tuple[list[Chunk], ProducerStamp | None]]:
    writes: list[tuple[list[Chunk], ProducerStamp | None]] = []
    for number in range(draw(st.integers(1, 8))):
        if draw(st.integers(0, 3)):
            chunk, first = draw(_CHUNK), draw(st.sampled_from([None, None, 1, 2, 3, 4, 5, 6]))
            count = draw(st.integers(1, 3))
            chunks = [evolve(chunk, seq=None if first is None else first + place) for place in range(count)]
            if draw(st.booleans()):
                chunks[-1] = evolve(chunks[-1], data={"text": draw(_TEXT)})
        else:
            chunks = draw(st.lists(st.one_of(_CHUNK, _END, _TOOL), min_size=1, max_size=3))
        if draw(st.integers(0, 5)) == 0:
            chunks = [evolve(chunk, job_id=draw(st.sampled_from(["job", "other"]))) for chunk in chunks]
        stamp = ProducerStamp("p", 0, number) if draw(st.integers(0, 3)) == 0 else None
        writes.append((chunks, stamp))
    return writes


# Pieces that come next are written by a way of their own: to the same events, answers and errors.
@exploring(200)
@given(writes=_writes(), stops=st.booleans())
def test_pieces_are_written_as_other_chunks_are(
    writes: list[tuple[list[Chunk], ProducerStamp | None]], stops: bool
) -> None:
    async def written(*, as_pieces: bool = False) -> tuple[list[object], list[object]]:
        log, told = MemoryLog(), list[object]()
        async with open_engine(log) as engine:
            session = await engine.create_session("s")
            for place, (chunks, stamp) in enumerate(writes):
                if stops and place == len(writes) - 1:
                    await session.stop(GID)
                try:
                    pieces = read_pieces(chunks, GID) if as_pieces else None
                    answer = await session.chunks(chunks if pieces is None else pieces, stamp=stamp)
                except PenstockError as error:
                    told.append((repr(error), error.session_id, error.generation_id, error.message_id))
                else:
                    told.append(
                        (answer.accepted, answer.duplicates, answer.message_id, answer.turn, answer.cursor.offset)
                    )
        return told, [
            evolve(event, time="", message_id=event.message_id if event.message_id in MESSAGES else None)
            for event in await events_of(log, "s")
        ]

    async def example() -> Counter[str]:
        short = await written()
        assert await written(as_pieces=True) == short
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("penstock.engine.rules.chunks.read_pieces", lambda *_: None)
            assert await written() == short
        return Counter(type(one).__name__ for one in short[0])

    explore(example)
