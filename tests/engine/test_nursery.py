"""Each session runs in its own nursery: seen from outside, in Trio's own tree of tasks."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import trio
from trio.lowlevel import Task
from trio.testing import MockClock, wait_all_tasks_blocked

from penstock.engine import Config, Drained, Generation, MemoryLog, open_engine
from tests.engine.rules import events_of


def tree(task: Task) -> Iterator[Task]:
    yield task
    for nursery in task.child_nurseries:
        for child in nursery.child_tasks:
            yield from tree(child)


def everything() -> list[Task]:
    root = trio.lowlevel.current_root_task()
    assert root is not None
    return list(tree(root))


def named(name: str) -> list[Task]:
    return [task for task in everything() if task.name.startswith(name)]


def only(name: str) -> Task:
    (task,) = named(name)
    return task


class Producers:
    """Each lasts until it is cancelled, and tells the task that it ran in."""

    def __init__(self) -> None:
        self.tasks: dict[str, Task] = {}
        self.cleaned: list[str] = []

    async def __call__(self, generation: Generation) -> None:
        sid = generation.session_id
        self.tasks[sid] = trio.lowlevel.current_task()
        try:
            async with generation.message() as message, message.text() as block:
                await block.write("begun")
                await trio.sleep_forever()
        finally:
            self.cleaned.append(sid)


async def test_producers_of_two_sessions_are_children_of_their_sessions_tasks(
    log: MemoryLog, autojump_clock: MockClock
) -> None:
    producers = Producers()
    async with open_engine(log, producers={"p": producers}) as engine:
        for sid in ("a", "b"):
            await (await engine.create_session(sid)).start("p")
        await wait_all_tasks_blocked()
        parents = {sid: producers.tasks[sid].parent_nursery for sid in ("a", "b")}
        assert parents["a"] is not parents["b"]
        for sid, nursery in parents.items():
            assert nursery is not None
            assert nursery.parent_task is only(f"penstock session {sid}")
            assert nursery.parent_task.parent_nursery is only("penstock session b").parent_nursery


@pytest.mark.parametrize("present", [False, True])
async def test_cancelling_one_sessions_scope_ends_everything_of_it_and_nothing_else(
    log: MemoryLog, autojump_clock: MockClock, present: bool
) -> None:
    producers = Producers()
    async with open_engine(log, producers={"p": producers}) as engine:
        for sid in ("a", "b"):
            session = await engine.create_session(sid)
            await session.start("p")
            await session.start("p", text="behind it", policy="queue")
            if present:
                await session.put_presence("somebody", "phone")
        await wait_all_tasks_blocked()
        nursery = producers.tasks["a"].parent_nursery
        assert nursery is not None
        async with (await engine.session("a")).subscribe() as watched:
            nursery.cancel_scope.cancel()
            while not isinstance(delivery := await watched.receive(), Drained):
                pass
            assert delivery.reason == "error"
        assert producers.cleaned[0] == "a"
        await wait_all_tasks_blocked()
        ended = [event for event in await events_of(log, "a") if event.type == "generation.finished"]
        assert [getattr(event.data, "outcome", None) for event in ended] == ["shutdown"]
        assert engine.statistics().live_generations == 1
        assert len(named("penstock session b")) == 1
        assert not [event for event in await events_of(log, "b") if event.type == "generation.finished"]
        # Whoever comes next opens it anew, and what waited goes on.
        await (await engine.session("a")).cursor()
        await wait_all_tasks_blocked()
        assert engine.statistics().live_generations == 2


async def test_at_rest_the_tree_holds_no_session(log: MemoryLog, autojump_clock: MockClock) -> None:
    producers = Producers()
    async with open_engine(log, producers={"p": producers}, config=Config(presence_ttl=10)) as engine:
        await wait_all_tasks_blocked()
        before = len(everything())
        session = await engine.create_session("s")
        await wait_all_tasks_blocked()
        assert len(everything()) == before

        await session.start("p")
        await wait_all_tasks_blocked()
        assert len(named("penstock session")) == 1
        await session.stop()
        await wait_all_tasks_blocked()
        assert len(everything()) == before

        await session.put_presence("somebody", "phone")
        await wait_all_tasks_blocked()
        assert only("penstock presence").parent_nursery is not None
        assert only("penstock presence").parent_nursery.parent_task is only("penstock session s")  # type: ignore[union-attr]
        await trio.sleep(11)
        assert len(everything()) == before


async def test_a_deleted_session_keeps_its_task_while_a_straggler_runs_and_a_new_life_has_its_own(
    log: MemoryLog, autojump_clock: MockClock
) -> None:
    let_go = trio.Event()

    async def stubborn(generation: Generation) -> None:
        with trio.CancelScope(shield=True):
            await let_go.wait()

    async with open_engine(log, producers={"p": stubborn}, config=Config(cleanup_timeout=1)) as engine:
        session = await engine.create_session("s")
        await session.start("p")
        await wait_all_tasks_blocked()
        former = only("penstock session s")
        await session.delete()
        assert engine.statistics().stragglers == 1
        anew = await engine.create_session("s")
        await anew.start("p")
        await wait_all_tasks_blocked()
        assert former in named("penstock session s")
        assert len(named("penstock session s")) == 2
        assert engine.statistics().sessions == 1
        let_go.set()
        await wait_all_tasks_blocked()
        assert named("penstock session") == []
        assert engine.statistics().stragglers == 0
