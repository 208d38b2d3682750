"""Ctrl-C into a plain `trio.run`: out comes KeyboardInterrupt, and the log that is left is whole and tells no lies.

The application is `tests.engine.interrupted`, in processes of its own. Longer runs: ``python -m
tests.engine.interrupted FOLDER random SEED 200``, and ``… lines 1 1`` for every line.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from types import FrameType
from typing import Final

import pytest
import trio
from trio.testing import MockClock

from penstock import engine
from penstock.engine import Chunk, Generation, MemoryLog, open_engine
from tests.extent import examples

ROOT: Final = Path(__file__).parents[2]
ENGINE: Final = str(Path(engine.__file__).parent)


def interrupted(folder: Path, mode: str, first: int, second: int) -> list[str]:
    """What came out of each run."""
    command = [sys.executable, "-m", "tests.engine.interrupted", str(folder), mode, str(first), str(second)]
    child = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110, check=False)
    *runs, done = child.stdout.splitlines() or [""]
    assert done == f"done {len(runs)}", child.stdout + child.stderr
    return runs


@pytest.mark.further
@pytest.mark.parametrize("seed", [1, 2])
def test_a_signal_at_any_time_leaves_a_whole_log_and_no_answer_that_was_cut_off_is_complete(
    seed: int, tmp_path: Path
) -> None:
    runs = interrupted(tmp_path, "random", seed, examples(12))
    assert runs == ["KeyboardInterrupt"] * examples(12)


@pytest.mark.long
def test_a_signal_at_any_line_of_stamp_commit_and_end_waits_for_the_next_checkpoint(tmp_path: Path) -> None:
    runs = interrupted(tmp_path, "lines", 5, 71)
    assert len(runs) > 50
    assert set(runs) == {"KeyboardInterrupt"}


async def everything(generation: Generation) -> None:
    async with generation.message() as message:
        async with message.text() as text:
            for _ in range(40):
                await text.write("x")
        async with message.data() as data:
            await data.put({"a": 1})
        async with message.tool_call("call", "look") as call:
            await call.write("{}")
            call.finish(arguments={})
        message.finish(reason="stop", usage={"tokens": 1})
    await generation.status("working", {"n": 1})
    await generation.app("app.note", {})
    generation.report_usage({"tokens": 1})
    await generation.snapshot()
    await generation.flush()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(generation.approve, "look")
        async for given in generation.inputs():
            await generation.apply(given)
            break
        nursery.cancel_scope.cancel()
    await generation.hand_off(pieces)


async def pieces(_: Generation) -> AsyncIterator[str]:
    yield "one"
    yield "two"


async def application(log: MemoryLog) -> None:
    async with open_engine(log, producers={"everything": everything}) as opened:
        session = await opened.create_session("s", metadata={"a": 1})
        await session.update({"b": 2})
        posted = await session.post("hello")
        started = await session.start("everything", text="go")
        await session.start("everything", policy="queue")
        async with session.subscribe(snapshot=True, live=False) as events:
            await events.receive()
        async with session.subscribe() as events:
            async for event in events:
                if event.type == "approval.requested":
                    await session.input(started.generation_id, "steer", {})
                if event.type == "generation.finished":
                    break
        await session.queue_next()
        await session.stop(queue="clear")
        await session.put_presence("anna", "phone")
        await session.presence()
        await session.drop_presence("anna")
        await session.retract(posted.message_id)
        remote = await session.start("remote")
        await session.chunks([Chunk(generation_id=remote.generation_id, data={"text": "x"})])
        await session.finish(remote.generation_id)
        await session.generation(started.generation_id)
        await session.snapshot()
        await session.fork("fork")
        await session.reset()
        await session.delete()
        await opened.sessions()
        opened.statistics()
        await opened.drain()


async def test_nothing_of_the_engine_can_be_struck_but_a_producer_that_is_busy(autojump_clock: MockClock) -> None:
    """Whatever runs of the engine when an application uses all of it, Trio says that no signal is raised in there."""
    struck: set[str] = set()
    called = 0

    def look(frame: FrameType, event: str, _: object) -> None:
        nonlocal called
        if event == "call" and frame.f_code.co_filename.startswith(ENGINE):
            called += 1
            if not trio.lowlevel.currently_ki_protected():  # it asks for the frame that called us, and its callers
                struck.add(frame.f_code.co_qualname)

    log = MemoryLog()
    sys.setprofile(look)
    try:
        await application(log)
    finally:
        sys.setprofile(None)
    assert called > 1000
    # Where a producer is run, the one that stands in for another process, and what only looks.
    assert struck == {"run_producer", "RemoteProducer.__call__", "Event.type"}


async def test_a_producer_that_is_busy_can_be_struck() -> None:
    protected: list[bool] = []

    async def producer(_: Generation) -> None:
        protected.append(trio.lowlevel.currently_ki_protected())

    async with open_engine(MemoryLog()) as opened:
        await (await opened.create_session("s")).start(producer)
        await trio.testing.wait_all_tasks_blocked()
    assert protected == [False]
