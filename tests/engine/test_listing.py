"""The list of sessions: what it tells of each, in which order, and who follows it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from penstock.engine import (
    CaughtUp,
    Chunk,
    Config,
    Cursor,
    Drained,
    Engine,
    Gap,
    GapError,
    Generation,
    InvalidBody,
    LastSaid,
    ListChange,
    MemoryLog,
    Opened,
    SessionInfo,
    StorageError,
    Watch,
    new_generation_id,
    new_message_id,
    open_engine,
)
from tests.engine.faulty import Fail, FaultyLog
from tests.engine.living import copied
from tests.engine.producers import Steered, failing, saying

PRODUCERS = {"say": saying("Hel", "lo  ", "there"), "silent": saying(), "fails": failing(ValueError("no"))}


async def info(engine: Engine, session_id: str = "s") -> SessionInfo:
    (found,) = [each for each in await engine.sessions() if each.session_id == session_id]
    return found


async def settled(engine: Engine, session_id: str = "s") -> SessionInfo:
    """What is listed once nothing runs."""
    while (found := await info(engine, session_id)).running:  # noqa: ASYNC110  # as whoever has no stream
        await trio.sleep(0.1)
    return found


async def ids(engine: Engine, **asked: object) -> list[str]:
    return [each.session_id for each in await engine.sessions(**asked)]  # type: ignore[arg-type]


# --- what is told


async def test_a_turn_is_told_at_its_beginning_and_at_its_end(log: MemoryLog, autojump_clock: MockClock) -> None:
    live = Steered()
    async with open_engine(log, producers={"live": live}) as engine:
        session = await engine.create_session("s", metadata={"title": "T"})
        fresh = await info(engine)
        assert (fresh.title, fresh.running, fresh.approvals, fresh.last) == ("T", False, 0, None)
        assert fresh.created == fresh.updated is not None
        started = await session.start("live", text="  What\n is this? ")
        await live.started.wait()
        running = await info(engine)
        assert running.generation_id == started.generation_id
        assert running.last == LastSaid(role="user", text="What is this?")
        live.finish.set()
        over = await settled(engine)
        assert over.last == LastSaid(role="assistant", text="begun")
        assert over.created == fresh.created
        assert over.cursor.offset == (await session.cursor()).offset


async def test_nothing_is_stored_of_the_list_while_an_answer_is_written(
    log: MemoryLog, autojump_clock: MockClock
) -> None:
    faulty = FaultyLog(log)
    async with open_engine(faulty, producers={"say": saying(*["piece "] * 500, pause=0.01)}) as engine:
        session = await engine.create_session("s")
        await session.start("say", text="go")
        await settled(engine)
        told = [write for write in faulty.writes if getattr(write, "summary", None) is not None]
        assert len(told) == 3  # made, begun, ended
        assert len(faulty.writes) > 100


@pytest.mark.parametrize(
    ("metadata", "said", "title"),
    [
        ({}, [], None),
        ({}, ["first", "second"], "first"),
        ({"title": "T"}, ["first"], "T"),
        ({"title": " "}, ["first"], "first"),
        ({"title": 7}, ["first"], "first"),
        ({}, ["  \n ", "second"], "second"),
        ({}, ["🌍" * 150], "🌍" * 100),
        ({}, ["x" * 1_000_000], "x" * 100),
    ],
)
async def test_a_session_is_called_what_its_metadata_say_or_what_was_said_first(
    log: MemoryLog, autojump_clock: MockClock, metadata: dict[str, object], said: list[str], title: str | None
) -> None:
    async with open_engine(log) as engine:
        session = await engine.create_session("s", metadata=metadata)  # type: ignore[arg-type]
        for text in said:
            await session.post(text)
        assert (await info(engine)).title == title
        await session.update({"title": "New"})
        assert (await info(engine)).title == "New"


async def test_only_what_users_and_assistants_say_in_text_is_told(log: MemoryLog, autojump_clock: MockClock) -> None:
    async def uses_a_tool(generation: Generation) -> None:
        async with generation.message() as message:
            async with message.reasoning() as block:
                await block.write("thinking")
            async with message.tool_call("call", "rm") as call:
                await call.write("{}")

    async with open_engine(log, producers={"tool": uses_a_tool, **PRODUCERS}) as engine:
        session = await engine.create_session("s")
        await session.post("You are kind.", role="system")
        assert (await info(engine)).last is None
        await session.post(blocks=[{"kind": "data", "value": 1}, {"kind": "text", "text": "hi"}])
        assert (await info(engine)).last == LastSaid(role="user", text="hi")
        for producer in ("tool", "silent"):
            await session.start(producer)
            assert (await settled(engine)).last == LastSaid(role="user", text="hi")
        await session.start("fails")
        assert (await settled(engine)).last == LastSaid(role="assistant", text="so far")


async def test_of_a_message_without_words_what_is_attached_is_told(log: MemoryLog, autojump_clock: MockClock) -> None:
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        picture = {"kind": "image", "url": "https://example.org/a.png", "filename": "a.png"}
        await session.post(blocks=[picture])
        assert (await info(engine)).title == "a.png"
        again = await session.post(blocks=[picture, {"kind": "text", "text": "And?"}])
        assert (await info(engine)).last == LastSaid(role="user", text="And?")
        await session.retract(again.message_id)
        assert (await info(engine)).last == LastSaid(role="user", text="a.png")


async def test_what_is_taken_back_is_told_no_longer(log: MemoryLog, autojump_clock: MockClock) -> None:
    async with open_engine(log, producers=PRODUCERS) as engine:
        session = await engine.create_session("s")
        first = await session.post("a secret")
        second = await session.post("no secret")
        await session.retract(second.message_id)
        assert (await info(engine)).last == LastSaid(role="user", text="a secret")
        assert (await info(engine)).title == "a secret"
        await session.start("say", text="better", replaces=first.message_id)
        told = await settled(engine)
        assert (told.title, told.last) == ("better", LastSaid(role="assistant", text="Hello there"))
        await session.reset()
        told = await info(engine)
        assert (told.title, told.last, told.running) == (None, None, False)


@pytest.mark.parametrize("running", [False, True])
async def test_while_an_answer_is_made_anew_the_question_is_what_was_said_last(
    running: bool, log: MemoryLog, autojump_clock: MockClock
) -> None:
    """Also when the former answer was still running."""
    live = Steered()
    async with open_engine(log, producers={"live": live, **PRODUCERS}) as engine:
        session = await engine.create_session("s")
        await session.start(Steered() if running else "say", text="Who?")
        await wait_all_tasks_blocked() if running else await settled(engine)
        answer = (await session.snapshot()).messages[-1]
        await session.start("live", replaces=answer.message_id)
        await live.started.wait()
        assert (await info(engine)).last == LastSaid(role="user", text="Who?")
        live.finish.set()
        assert (await settled(engine)).last == LastSaid(role="assistant", text="begun")
        first = (await session.snapshot()).messages[0]
        await session.retract(first.message_id, and_after=True)
        told = await info(engine)
        assert (told.last, told.title) == (None, None)


async def test_a_turn_that_is_rolled_back_leaves_nothing_in_the_list(log: MemoryLog, autojump_clock: MockClock) -> None:
    live = Steered()
    async with open_engine(log, producers={"live": live, **PRODUCERS}) as engine:
        session = await engine.create_session("s")
        await session.start("live", text="one")
        await live.started.wait()
        await session.start("silent", policy="rollback")
        assert (await settled(engine)).last != LastSaid(role="assistant", text="begun")


async def test_open_approvals_are_counted_until_they_are_answered_or_the_turn_ends(
    log: MemoryLog, autojump_clock: MockClock
) -> None:
    async def asking(generation: Generation) -> None:
        async with trio.open_nursery() as nursery:
            for name in ("one", "two"):
                nursery.start_soon(generation.approve, name)

    async with open_engine(log, producers={"ask": asking}) as engine:
        session = await engine.create_session("s")
        started = await session.start("ask")
        await trio.sleep(1)
        assert (await info(engine)).approvals == 2
        approval = (await session.snapshot()).approvals[0]
        await session.input(started.generation_id, "approval", {"approval_id": approval.approval_id, "approved": True})
        assert (await info(engine)).approvals == 1
        await session.stop()
        assert (await info(engine)).approvals == 0
        assert not (await info(engine)).running


async def test_a_fork_is_listed_with_what_it_begins_with(log: MemoryLog, autojump_clock: MockClock) -> None:
    async with open_engine(log, producers=PRODUCERS) as engine:
        session = await engine.create_session("s")
        await session.start("say", text="Who?")
        await settled(engine)
        await session.fork("f")
        fork, source = await info(engine, "f"), await info(engine)
        assert (
            (fork.title, fork.last)
            == (source.title, source.last)
            == ("Who?", LastSaid(role="assistant", text="Hello there"))
        )
        assert not fork.running


async def test_a_remote_turn_is_told_as_any_other_and_goes_on_behind_a_crash(
    log: MemoryLog, autojump_clock: MockClock
) -> None:
    gid, mid = new_generation_id(), new_message_id()
    async with open_engine(log) as engine:
        session = await engine.create_session("s")
        await session.chunks([Chunk(generation_id=gid, message_id=mid, data={"text": "so "})])
        assert (await info(engine)).generation_id == gid
        left = await copied(log)
    async with open_engine(left) as engine:
        assert (await info(engine)).generation_id == gid
        session = await engine.session("s")
        await session.chunks([Chunk(generation_id=gid, message_id=mid, data={"text": "far"})])
        await session.finish(gid)
        told = await info(engine)
        assert (told.running, told.last) == (False, LastSaid(role="assistant", text="so far"))


async def test_what_a_crash_cuts_off_is_told_as_over(log: MemoryLog, autojump_clock: MockClock) -> None:
    live = Steered()
    async with open_engine(log, producers={"live": live}) as engine:
        session = await engine.create_session("s")
        await session.start("live", text="one")
        await live.started.wait()
        assert (await info(engine)).running
        left = await copied(log)
    async with open_engine(left) as engine:
        told = await info(engine)
        assert (told.running, told.last) == (False, LastSaid(role="assistant", text="begun"))


async def test_a_refused_write_leaves_what_is_stored_in_the_list(log: MemoryLog, autojump_clock: MockClock) -> None:
    faulty = FaultyLog(log)
    async with open_engine(faulty, producers=PRODUCERS) as engine:
        session = await engine.create_session("s")
        await session.post("stored")
        before = await info(engine)
        faulty.schedule = lambda _, __: Fail()
        with pytest.raises(StorageError):
            await session.post("not stored")
        assert await info(engine) == before
        faulty.schedule = None
        await trio.sleep(10)
        await session.post("again")
        assert (await info(engine)).last == LastSaid(role="user", text="again")


# --- in which order


async def test_sessions_are_listed_by_activity_with_and_without_a_prefix(log: MemoryLog) -> None:
    async with open_engine(log) as engine:
        for name in ("a-1", "b-1", "a-2", "a"):
            await engine.create_session(name)
            await trio.sleep(0.002)
        assert await ids(engine, order="updated") == ["a", "a-2", "b-1", "a-1"]
        assert await ids(engine, order="updated", prefix="a-") == ["a-2", "a-1"]
        assert await ids(engine, prefix="a-") == ["a-1", "a-2"]
        assert await ids(engine, prefix="a-", after="a-1") == ["a-2"]
        await (await engine.session("a-1")).post("x")
        (first,) = await engine.sessions(order="updated", limit=1)
        assert first.session_id == "a-1"
        rest = await engine.sessions(first.session_id, order="updated", updated=first.updated)
        assert [each.session_id for each in rest] == ["a", "a-2", "b-1"]
        for wrong in (
            {"order": "name"},
            {"order": "updated", "after": "a"},
            {"order": "updated", "updated": first.updated},
            {"updated": first.updated},
            {"order": "updated", "after": "a", "updated": "yesterday"},
        ):
            with pytest.raises(InvalidBody):
                await engine.sessions(**wrong)


async def test_a_page_has_no_more_metadata_than_asked_for(log: MemoryLog) -> None:
    async with open_engine(log) as engine:
        for name in "abcd":
            await engine.create_session(name, metadata={"x": "x" * 1000})
        assert await ids(engine, most_bytes=2500) == ["a", "b"]
        assert await ids(engine, most_bytes=1) == ["a"]
        assert await ids(engine, most_bytes=1, after="a") == ["b"]
        assert len(await ids(engine, order="updated", most_bytes=2500)) == 2


# --- who follows it


async def caught_up(watch: Watch) -> Cursor:
    """Read on until it is."""
    while not isinstance(delivery := await watch.receive(), CaughtUp):
        pass
    return delivery.cursor


async def changes(watch: Watch, count: int) -> list[tuple[str, bool]]:
    """The next changes: of which session, and whether it is still there."""
    found: list[tuple[str, bool]] = []
    while len(found) < count:
        delivery = await watch.receive()
        assert isinstance(delivery, ListChange)
        found.append((delivery.session_id, delivery.session is not None))
    return found


async def test_whoever_follows_is_told_of_each_session_that_changes(log: MemoryLog, autojump_clock: MockClock) -> None:
    async with open_engine(log, producers=PRODUCERS) as engine, engine.watch() as watch:
        assert isinstance(await watch.receive(), Opened)
        await caught_up(watch)
        session = await engine.create_session("s")
        assert await changes(watch, 1) == [("s", True)]
        await session.post("x")
        await session.update({"k": 1})
        await session.fork("f")
        assert {name for name, _ in await changes(watch, 2)} <= {"s", "f"}
        await trio.sleep(1)
        await session.delete()
        while (await changes(watch, 1)) != [("s", False)]:
            pass
        with trio.move_on_after(5) as limit:
            await watch.receive()
        assert limit.cancelled_caught


async def test_a_change_tells_what_is_listed(log: MemoryLog, autojump_clock: MockClock) -> None:
    live = Steered()
    async with open_engine(log, producers={"live": live}) as engine, engine.watch() as watch:
        await caught_up(watch)
        session = await engine.create_session("s")
        await session.start("live", text="hi")
        await live.started.wait()
        await trio.sleep(1)
        seen: list[SessionInfo | None] = []
        while len(seen) < 2:
            delivery = await watch.receive()
            assert isinstance(delivery, ListChange)
            seen.append(delivery.session)
        assert seen[-1] is not None
        assert seen[-1].running
        live.finish.set()
        delivery = await watch.receive()
        assert isinstance(delivery, ListChange)
        assert delivery.session == await info(engine)


async def test_whoever_comes_back_gets_each_session_that_changed_once(
    log: MemoryLog, autojump_clock: MockClock
) -> None:
    async with open_engine(log) as engine:
        for name in "abc":
            await engine.create_session(name)
        async with engine.watch() as watch:
            cursor = await caught_up(watch)
        for _ in range(5):
            for name in "ba":
                await (await engine.session(name)).post("x")
        await engine.delete_session("c")
        async with engine.watch(cursor) as watch:
            opened = await watch.receive()
            assert opened == Opened(cursor)
            assert await changes(watch, 3) == [("b", True), ("a", True), ("c", False)]
            now = await caught_up(watch)
        async with engine.watch(now) as watch:
            assert [await watch.receive(), await watch.receive()] == [Opened(now), CaughtUp(now)]


async def test_nobody_hears_of_sessions_that_they_do_not_want(log: MemoryLog, autojump_clock: MockClock) -> None:
    wants: Callable[[str], bool] = lambda session_id: session_id.startswith("a")  # noqa: E731
    async with open_engine(log) as engine:
        async with engine.watch(wants=wants) as watch:
            cursor = await caught_up(watch)
            for name in ("b-1", "a-1", "b-2", "a-2"):
                await engine.create_session(name)
            assert await changes(watch, 2) == [("a-1", True), ("a-2", True)]
        async with engine.watch(cursor, wants=wants) as watch:
            await watch.receive()
            assert await changes(watch, 2) == [("a-1", True), ("a-2", True)]


async def test_what_somebody_wants_and_cannot_say_is_their_trouble_alone(
    log: MemoryLog, autojump_clock: MockClock
) -> None:
    def wants(session_id: str) -> bool:
        raise LookupError(session_id)

    async with open_engine(log) as engine, engine.watch() as other, engine.watch(wants=wants) as watch:
        await caught_up(watch)
        await caught_up(other)
        await engine.create_session("s")
        with pytest.raises(LookupError, match="s"):
            await watch.receive()
        assert await changes(other, 1) == [("s", True)]
        await engine.create_session("t")
        assert await changes(other, 1) == [("t", True)]


@pytest.mark.parametrize("reason", ["unknown_epoch", "past_tail", "expired"])
async def test_a_cursor_that_fits_nothing_is_a_gap(log: MemoryLog, autojump_clock: MockClock, reason: str) -> None:
    async with open_engine(log, config=Config(watch_kept=2)) as engine:
        async with engine.watch() as watch:
            here = await caught_up(watch)
        for name in "abc":
            await engine.create_session(name)
        asked = {"unknown_epoch": Cursor("e", 1), "past_tail": Cursor(here.epoch, 10**9), "expired": here}[reason]
        async with engine.watch(asked) as watch:
            opened, gap = await watch.receive(), await watch.receive()
            assert isinstance(opened, Opened)
            assert gap == Gap(reason, str(asked), opened.cursor)
            assert await watch.receive() == CaughtUp(opened.cursor)
        async with engine.watch(asked) as watch:
            with pytest.raises(GapError):
                await anext(watch)
            await engine.create_session("d")
            assert (await anext(watch)).session_id == "d"


async def test_a_slow_reader_misses_states_in_between_and_no_session(log: MemoryLog, autojump_clock: MockClock) -> None:
    async with open_engine(log, config=Config(watch_buffer=4)) as engine, engine.watch() as watch:
        await caught_up(watch)
        for _ in range(3):
            for name in "abcdefgh":
                await (await engine.create_session(name)).post("x")
        await engine.delete_session("h")
        await trio.sleep(1)
        last: dict[str, SessionInfo | None] = {}
        while not isinstance(delivery := await watch.receive(), CaughtUp):
            assert isinstance(delivery, ListChange)
            last[delivery.session_id] = delivery.session
        assert last == {each.session_id: each for each in await engine.sessions()} | {"h": None}


async def test_more_changes_than_are_kept_are_a_gap_for_a_slow_reader(
    log: MemoryLog, autojump_clock: MockClock
) -> None:
    async with open_engine(log, config=Config(watch_buffer=1, watch_kept=3)) as engine, engine.watch() as watch:
        await caught_up(watch)
        for number in range(20):
            await engine.create_session(f"s{number}")
        await trio.sleep(1)
        assert isinstance(await watch.receive(), Gap)
        await caught_up(watch)
        await engine.create_session("then")
        assert await changes(watch, 1) == [("then", True)]


async def test_a_list_that_cannot_be_read_is_said_and_read_again(log: MemoryLog, autojump_clock: MockClock) -> None:
    faulty = FaultyLog(log)
    async with open_engine(faulty) as engine, engine.watch() as watch:
        session = await engine.create_session("s")
        await caught_up(watch)
        faulty.fail_reads = True
        await session.post("x")
        await trio.sleep(1)
        with pytest.raises(StorageError):
            await watch.receive()
        faulty.fail_reads = False
        assert await changes(watch, 1) == [("s", True)]


async def test_cancelling_whoever_follows_loses_nothing(log: MemoryLog, autojump_clock: MockClock) -> None:
    async with open_engine(log) as engine, engine.watch() as watch:
        seen: list[str] = []
        for number in range(30):
            await engine.create_session(f"s{number:02}")
            with trio.CancelScope() as scope:
                if number % 3:
                    scope.cancel()
                delivery = await watch.receive()
                if isinstance(delivery, ListChange):
                    seen.append(delivery.session_id)
        while len(seen) < 30:
            delivery = await watch.receive()
            if isinstance(delivery, ListChange):
                seen.append(delivery.session_id)
        assert sorted(set(seen)) == [f"s{number:02}" for number in range(30)]


async def test_following_ends_with_the_engine(log: MemoryLog, autojump_clock: MockClock) -> None:
    async with open_engine(log) as engine:
        async with engine.watch() as watch:
            await caught_up(watch)
            await engine.create_session("s")
            await wait_all_tasks_blocked()
            await engine.drain("over")
            assert await changes(watch, 1) == [("s", True)]
            assert await watch.receive() == Drained("over")
            for _ in range(2):
                with pytest.raises(trio.EndOfChannel):
                    await watch.receive()
        async with engine.watch() as watch:
            assert isinstance(await watch.receive(), Opened)
            assert await watch.receive() == Drained("over")


async def test_many_who_follow_share_what_is_read_and_framed(log: MemoryLog, autojump_clock: MockClock) -> None:
    framed: list[str] = []

    def frame(change: ListChange) -> str:
        framed.append(change.session_id)
        return change.session_id

    async with open_engine(log) as engine, trio.open_nursery() as nursery:
        got: list[str] = []

        def note(change: ListChange) -> None:
            got.append(change.framed(frame))

        async def follow() -> None:
            async with engine.watch() as watch:
                async for change in watch:
                    note(change)

        for _ in range(20):
            nursery.start_soon(follow)
        await wait_all_tasks_blocked()
        await engine.create_session("s")
        await trio.sleep(1)
        assert (got, framed) == (["s"] * 20, ["s"])
        nursery.cancel_scope.cancel()


async def test_many_who_follow_are_told_between_turns_of_others(log: MemoryLog, autojump_clock: MockClock) -> None:
    followers, turns = 1000, 0
    told = Counter[int]()  # how many of them, by the neighbour's turns until then

    async def follow() -> None:
        async with engine.watch() as watch:
            await anext(watch)
            told[turns] += 1

    async with open_engine(log) as engine, trio.open_nursery() as nursery:
        for _ in range(followers):
            nursery.start_soon(follow)
        await wait_all_tasks_blocked()
        nursery.start_soon(engine.create_session, "s")
        while told.total() < followers:
            await trio.lowlevel.checkpoint()
            turns += 1
    assert max(told.values()) <= 200  # a hundred at a time, and ours is anywhere among the tasks of one turn
