"""Many starts at once, and a stop that meets a start at every moment: one order, true answers, nothing left behind."""

from __future__ import annotations

import gc
import random
from collections import Counter
from typing import Final

import pytest
import trio
import trio.testing
from attrs import frozen
from trio.testing import MockClock, wait_all_tasks_blocked

from penstock.engine import (
    Config,
    Engine,
    EngineStatistics,
    Event,
    Generation,
    GenerationFinished,
    GenerationStarted,
    MemoryLog,
    PolicyName,
    Session,
    Started,
    Stopped,
    new_generation_id,
    new_message_id,
    open_engine,
)
from penstock.engine.testing import StubbornProducer, open_test_engine
from tests.engine.producers import saying
from tests.engine.remotes import Remote
from tests.engine.slow import turns
from tests.extent import some

SESSIONS: Final = 50
CLIENTS: Final = 20
STARTS: Final = 1000


async def answer(generation: Generation) -> None:
    async with generation.message() as message, message.text() as block:
        for piece in ("once", " upon", " a", " time"):
            await block.write(piece)
            await trio.sleep(0.01)


async def rush(engine: Engine, seed: int) -> Counter[str]:
    """Every client starts generations in sessions of its choice, as fast as it is answered."""
    policies: list[PolicyName] = ["supersede", "supersede", "rollback", "queue", "latest", "join"]
    outcomes: Counter[str] = Counter()

    async def client(number: int) -> None:
        choice = random.Random(seed * CLIENTS + number)
        for _ in range(STARTS // CLIENTS):
            session = await engine.create_session(f"s{choice.randrange(SESSIONS)}")
            started = await session.start("answer", policy=choice.choice(policies))
            outcomes[type(started).__name__] += 1

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            for number in range(CLIENTS):
                nursery.start_soon(client, number)
    return outcomes


def at_rest(statistics: EngineStatistics) -> bool:
    return (
        statistics.live_generations,
        statistics.stragglers,
        statistics.subscribers,
        statistics.pending_events,
        statistics.degraded_sessions,
    ) == (0, 0, 0, 0, 0)


async def test_a_thousand_starts_from_twenty_clients_hang_nowhere(autojump_clock: MockClock) -> None:
    async with open_test_engine(producers={"answer": answer}, config=Config(compact_after=None)) as test:
        for number in range(3):
            await test.watch(await test.engine.create_session(f"s{number}"))
        outcomes = await rush(test.engine, 0)
        assert outcomes.total() == STARTS
        await trio.sleep(60)
        events = [event for number in range(3) for event in test.watchers[number].events]
        assert not test.violations()
        finished = Counter(event.data.outcome for event in events if isinstance(event.data, GenerationFinished))
        assert finished.total() == sum(isinstance(event.data, GenerationStarted) for event in events) + sum(
            isinstance(event.data, GenerationFinished) and event.turn is None for event in events
        )
        assert set(finished) == {"completed", "superseded"}


@pytest.mark.long
async def test_memory_returns_to_its_start(autojump_clock: MockClock) -> None:
    """Sessions that are at rest leave; what a thousand starts needed is free again."""
    config = Config(idle_session=10, compact_after=None)
    async with open_engine(MemoryLog(), producers={"answer": answer}, config=config) as engine:
        counts: list[int] = []
        tasks: list[int] = []
        for round_ in range(4):
            await rush(engine, round_)
            await trio.sleep(100)
            await wait_all_tasks_blocked()  # what the engine does each minute is done
            statistics = engine.statistics()
            assert at_rest(statistics)
            assert statistics.sessions == 0
            tasks.append(trio.lowlevel.current_statistics().tasks_living)
            counts.append(objects_of_the_engine())
        assert len(set(tasks)) == 1
        # The log itself grows, by entries and records; nothing else may, after the first round.
        assert counts[1:] == counts[:1] * 3


@pytest.mark.long
async def test_a_session_that_stays_keeps_nothing_of_its_remote_generations(autojump_clock: MockClock) -> None:
    """A thousand generations, each of a producer and with a message of its own, under the eyes of a reader."""
    async with open_engine(MemoryLog(), config=Config(compact_after=None)) as engine:
        session = await engine.create_session("s")
        async with session.subscribe("now"):
            counts: list[int] = []
            for round_ in range(4):
                for number in range(STARTS // 4):
                    remote = Remote(new_generation_id(), producer_id=f"p-{round_}-{number}")
                    await remote.say(session, "once", " upon", message_id=new_message_id())
                    await remote.finish(session)
                await wait_all_tasks_blocked()
                counts.append(objects_of_the_engine())
        # The numbers of the last producers are kept: how many they are, up to a bound, depends on the moment.
        assert max(counts) - min(counts) < STARTS // 4, counts


# Where the classes of what runs are; what is kept by itself, up to a bound, is not counted.
RUNTIME: Final = tuple(f"penstock.engine.{package}." for package in ("session", "generation", "stream"))
KEPT: Final = ("penstock.engine.session.numbering", "penstock.engine.stream.folding")


def objects_of_the_engine() -> int:
    """Objects of the runtime's classes: sessions in memory, generations, journals, subscriptions, whatever there is.

    And locks, of which there is one for each session that somebody is on the way to; and what Trio has for tasks.
    """
    gc.collect()
    gc.collect()
    kinds = Counter(map(type, gc.get_objects()))
    ours = {kind: count for kind, count in kinds.items() if _is_runtime(kind)}
    assert any(kind.__module__.startswith(RUNTIME) for kind in ours)
    return sum(ours.values())


def _is_runtime(kind: type) -> bool:
    module = str(kind.__module__)
    trios = kind is trio.Lock or module in ("trio._core._run", "trio._sync", "trio._channel")
    return trios or (module.startswith(RUNTIME) and module not in KEPT)


# --- a stop from one client while another starts anew


@frozen
class Meeting:
    """How the old one takes its cancel, what the new one is asked as, and what the stop names."""

    cleanup: float
    policy: PolicyName
    names: str  # nothing, the old one, the new one

    def __str__(self) -> str:
        return f"{self.policy} behind {self.cleanup} s, stop names {self.names}"


MEETINGS: Final = [
    Meeting(cleanup, policy, names)
    for cleanup in (0.0, 0.3, 9.0)
    for policy in ("supersede", "rollback", "queue", "latest")
    for names in ("nothing", "the old one", "the new one")
]
# When the stop comes, seen from the start: turns of the loop before it (below 0) or behind it, then moments.
TURNS: Final = [(count, 0.0) for count in range(-6, 25)]
MOMENTS: Final = [(count, seconds) for seconds in (0.1, 0.3, 0.499, 0.5, 0.6) for count in (0, 1, 3)]


#
@pytest.mark.further
@pytest.mark.parametrize("meeting", MEETINGS, ids=str)
def test_a_stop_meets_a_start_at_any_moment(meeting: Meeting) -> None:
    for count, seconds in some((*TURNS, *MOMENTS), str(meeting)):
        trio.run(meet, meeting, count, seconds, clock=MockClock(autojump_threshold=0))


async def meet(meeting: Meeting, count: int, seconds: float) -> None:
    told: dict[str, object] = {}
    new = new_generation_id()
    producers = {"new": saying("new", pause=1)}
    config = Config(cleanup_timeout=0.5, compact_after=None)
    async with open_test_engine(producers=producers, config=config) as test:
        session = await test.engine.create_session("s")
        old_producer = StubbornProducer(meeting.cleanup)
        old = await session.start(old_producer)
        await old_producer.started.wait()
        await test.settle()
        named = {"nothing": None, "the old one": old.generation_id, "the new one": new}[meeting.names]

        async def start() -> None:
            await pause(-count)
            told["start"] = await session.start("new", policy=meeting.policy, generation_id=new, text="again")

        async def stop() -> None:
            await pause(count, seconds)
            told["stop"] = await session.stop(named)

        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(start)
                nursery.start_soon(stop)
            await trio.sleep(20)
        events = await test.events(session)
        check_answers(events, told, old.generation_id, new, meeting)
        if test.engine.statistics().live_generations:  # the stop was meant for the other one
            await session.stop(old.generation_id, queue="continue")
            await trio.sleep(20)
        assert at_rest(test.engine.statistics())
        await session.queue_next()
        await trio.sleep(20)
        await check_last_word(session, new)


async def pause(count: int, seconds: float = 0.0) -> None:
    if seconds:
        await trio.sleep(seconds)
    await turns(count)


def check_answers(events: list[Event], told: dict[str, object], old: str, new: str, meeting: Meeting) -> None:
    """What each was told stands in the log, and in one order that fits both."""
    at: dict[tuple[str, str | None], int] = {}
    ends: dict[str | None, GenerationFinished] = {}
    for event in events:
        at[event.type, event.generation_id] = event.offset or 0
        if isinstance(event.data, GenerationFinished):
            ends[event.generation_id] = event.data
    started, stopped = told["start"], told["stop"]
    assert isinstance(stopped, Stopped)
    if isinstance(started, Started):
        assert at["generation.started", new] <= started.cursor.offset
        assert at["generation.finished", old] < at["generation.started", new]
        if started.superseded is not None:
            assert started.superseded.generation_id == old
            assert ends[old].outcome == "superseded"
            assert ends[old].superseded_by == new
    else:
        assert at["generation.queued", new] > 0
    match stopped.state:
        case "stopped" | "stopping":
            assert stopped.generation_id in (old, new)
            assert ends[stopped.generation_id].outcome == "stopped"
            overran = stopped.generation_id == old and meeting.cleanup > 0.5
            assert (stopped.state == "stopping") is overran
        case "already_done":
            assert stopped.generation_id == old
            assert ends[old].outcome == "superseded"
        case "pending":
            assert stopped.generation_id == new
            assert ends[new].outcome == "stopped"
        case "nothing_active":
            raise AssertionError("there was always one, or one on its way")
    if meeting.names != "the old one" or stopped.generation_id == old:
        assert "stopped" in {end.outcome for end in ends.values()} or stopped.state == "already_done"


async def check_last_word(session: Session, new: str) -> None:
    """In the end nothing hangs: the new one ran or was stopped."""
    info = await session.generation(new)
    assert info.outcome in ("completed", "stopped")
    assert (await session.snapshot()).generation is None
