"""What `penstock.engine.testing` offers to applications: its examples run as they stand, and it fails what must."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Awaitable, Callable
from textwrap import dedent

import pytest
import trio
from trio.testing import MockClock

from penstock import engine
from penstock.engine import App, CaughtUp, Config, Cursor, GenerationActive, MemoryLog, StaleGeneration
from penstock.engine.testing import KeptLog, ScriptedProducer, StubbornProducer, open_test_engine

EXAMPLES = [ScriptedProducer, StubbornProducer, open_test_engine]


@pytest.mark.parametrize("documented", EXAMPLES, ids=lambda documented: documented.__name__)
async def test_the_examples_run_as_they_stand(documented: object, autojump_clock: MockClock) -> None:
    text = inspect.getdoc(documented)
    assert text is not None
    example = re.search(r"^Example::\n\n((?:    .*\n?|\n)+)", text, re.MULTILINE)
    assert example is not None
    names: dict[str, object] = {**vars(engine), **vars(engine.testing), "math": math, "MockClock": MockClock}
    exec(compile(dedent(example[1]), "<example>", "exec"), names)
    (test,) = (value for name, value in names.items() if name.startswith("test_"))
    run: Callable[[MockClock], Awaitable[None]] = test  # type: ignore[assignment]
    await run(autojump_clock)


async def test_a_script_is_carried_out_in_order(autojump_clock: MockClock) -> None:
    reached, go_on = trio.Event(), trio.Event()
    second = ScriptedProducer().say("handed over")
    script = (
        ScriptedProducer()
        .status("thinking")
        .think("hm")
        .say("a", "b", pause=1)
        .data({"rows": 2})
        .call_tool("call-1", "look", {"at": "it"})
        .tool_result("call-1", "nothing", is_error=True)
        .message(metadata={"part": 2})
        .say("c")
        .hand_off(second, same_message=True)
        .app("app.note", {"n": 1})
        .flush()
        .signal(reached)
        .wait(go_on)
        .receive_input()
        .receive_input(apply=False)
        .sleep(1)
    )
    async with open_test_engine(producers={"script": script}) as test:
        session = await test.engine.create_session()
        watcher = await test.watch(session)
        started = await session.start(text="go")
        run = await script.run()
        await reached.wait()
        await run.wait_done(12)
        go_on.set()
        for text in ("left", "right"):
            await session.input(started.generation_id, "steer", {"text": text})
        await run.over.wait()
        assert run.completed
        assert [given.content for given in run.inputs] == [{"text": "left"}, {"text": "right"}]
        await test.settle()
        snapshot = await session.snapshot()
        assert [(m.role, [b.kind for b in m.blocks]) for m in snapshot.messages] == [
            ("user", ["text"]),
            ("assistant", ["reasoning", "text", "data", "tool_call"]),
            ("tool", ["tool_result"]),
            ("assistant", ["text", "text"]),
        ]
        assert [b.text for b in snapshot.messages[-1].blocks] == ["c", "handed over"]
        assert snapshot.messages[-1].metadata == {"part": 2}
        assert second.runs[0].completed
    assert [event.type for event in watcher.events].count("input.returned") == 1
    assert any(isinstance(event.data, App) for event in watcher.events)


async def test_a_run_knows_what_ended_it(autojump_clock: MockClock) -> None:
    fails = ScriptedProducer().say("so far").fail(ValueError("no"))
    waits = ScriptedProducer().say("so far").sleep(math.inf)
    refused = ScriptedProducer().approve("rm", expires_in=1, or_fail=True)
    async with open_test_engine() as test:
        session = await test.engine.create_session()
        for script in (fails, waits, refused):
            await session.start(script)
            await trio.sleep(5)
        assert [script.runs[0].completed for script in (fails, waits, refused)] == [False] * 3
        assert isinstance(fails.runs[0].error, ValueError)
        assert waits.runs[0].cancelled
        assert isinstance(refused.runs[0].error, PermissionError)
        with pytest.raises(RuntimeError):
            await fails.runs[0].wait_done(2)


async def test_a_stubborn_producer_that_is_quick_enough_ends_cleanly(autojump_clock: MockClock) -> None:
    stubborn = StubbornProducer(1)
    async with open_test_engine(config=Config(cleanup_timeout=2)) as test:
        session = await test.engine.create_session()
        await session.start(stubborn)
        await stubborn.started.wait()
        assert (await session.stop()).state == "stopped"
        assert [type(error) for error in stubborn.errors] == [StaleGeneration]


async def test_an_error_in_the_block_comes_out_as_it_is(autojump_clock: MockClock) -> None:
    async def refused() -> None:
        async with open_test_engine() as test:
            session = await test.engine.create_session()
            await session.start(StubbornProducer(0))
            await session.start(StubbornProducer(0), policy="reject")

    with pytest.raises(GenerationActive):
        await refused()


async def test_a_broken_rule_fails_the_test(autojump_clock: MockClock) -> None:
    async with open_test_engine() as test:
        session = await test.engine.create_session("s")
        watcher = await test.watch(session)
        await session.post("hello")
        await test.settle()
        assert not test.violations()
        watcher.received.reverse()
        assert {violation.rule for violation in test.violations()} == {"R1"}
        watcher.received.reverse()
        epoch = (await session.cursor()).epoch
        watcher.take(CaughtUp(Cursor(epoch, 99)))
        assert [(violation.rule, violation.offset) for violation in test.violations()] == [("R6", 99)]
        watcher.early.clear()
        test.log._lives["s", epoch].pop(0)
        assert {violation.rule for violation in test.violations()} >= {"R1", "R7"}
        broken = KeptLog(MemoryLog())
        broken._lives = dict(test.log._lives)
        with pytest.raises(AssertionError, match="R1"):
            async with open_test_engine(log=broken):
                pass
        test.log._lives.clear()


async def test_a_deleted_life_is_checked_too(autojump_clock: MockClock) -> None:
    log: KeptLog | None = None
    async with open_test_engine() as test:
        log = test.log
        session = await test.engine.create_session("s")
        watcher = await test.watch(session)
        await session.start(StubbornProducer(1))
        await session.delete()
        again = await test.engine.create_session("s")
        assert len(await test.events(again)) == 1
        await watcher.over.wait()
    lives = list(log.lives())
    assert [session_id for session_id, _ in lives] == ["s", "s"]
    assert len(watcher.received) == len(log.kept(*lives[0])) > 2
