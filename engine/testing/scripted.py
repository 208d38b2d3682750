"""`ScriptedProducer`: a producer that does what a list of steps says, and records what befell it.

Owns the steps. What a step does it does through the public `Generation`, as any producer would.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Final, Self, final

import trio

from .. import JSON, Approval, Generation, Input, JSONObject, Message, Producer

__all__ = ["ScriptedProducer", "ScriptedRun"]


@final
class ScriptedProducer:
    """Carries out its steps, in order, each time it is called. Every method adds a step and returns the producer.

    What is said goes into one assistant message until a step begins another one; results of tools go into a message
    of role ``tool``. ``runs`` has one record per call.

    Example::

        async def test_the_answer_asks_before_it_searches(autojump_clock: MockClock) -> None:
            answer = (
                ScriptedProducer()
                .status("thinking")
                .say("Let me look. ")
                .call_tool("call-1", "search", {"q": "penstocks"})
                .approve("search", tool_call_id="call-1")
                .tool_result("call-1", "three pages")
                .say("Found ", "them.", pause=0.1)
            )
            async with open_test_engine(producers={"answer": answer}) as test:
                session = await test.engine.create_session()
                started = await session.start(text="What are penstocks?")
                run = await answer.run()
                await test.settle()
                (asked,) = (await session.snapshot()).approvals
                yes = {"approval_id": asked.approval_id, "approved": True}
                await session.input(started.generation_id, "approval", yes, by="ann")
                await run.over.wait()
                assert run.completed
                assert [approval.by for approval in run.approvals] == ["ann"]
    """

    def __init__(self) -> None:
        self.runs: list[ScriptedRun] = []
        self._steps: list[tuple[str, Callable[[ScriptedRun], Awaitable[None]]]] = []
        self._called = trio.lowlevel.ParkingLot()

    async def __call__(self, generation: Generation) -> None:
        run = ScriptedRun(generation)
        self.runs.append(run)
        self._called.unpark_all()
        await run._carry_out(self._steps)

    async def run(self, number: int = 0) -> ScriptedRun:
        """The record of the call with this number, once it was called so often."""
        while len(self.runs) <= number:
            await self._called.park()
        return self.runs[number]

    # --- what it writes

    def say(self, *pieces: str, pause: float = 0.0) -> Self:
        """A text block of these pieces, with so many seconds after each."""

        async def step(run: ScriptedRun) -> None:
            async with (await run._message("assistant")).text() as block:
                for piece in pieces:
                    await block.write(piece)
                    await trio.sleep(pause)

        return self._add(f"say {''.join(pieces)!r}", step)

    def think(self, *pieces: str, pause: float = 0.0) -> Self:
        """A reasoning block, as `say`."""

        async def step(run: ScriptedRun) -> None:
            async with (await run._message("assistant")).reasoning() as block:
                for piece in pieces:
                    await block.write(piece)
                    await trio.sleep(pause)

        return self._add(f"think {''.join(pieces)!r}", step)

    def status(self, status: str, detail: JSON = None) -> Self:
        return self.then(lambda generation: generation.status(status, detail), name=f"status {status!r}")

    def call_tool(self, tool_call_id: str, name: str, arguments: JSONObject) -> Self:
        """A whole tool call; `tool_result` answers it, or the engine does at the end."""

        async def step(run: ScriptedRun) -> None:
            async with (await run._message("assistant")).tool_call(tool_call_id, name) as block:
                block.finish(arguments=arguments)

        return self._add(f"call_tool {tool_call_id!r}", step)

    def tool_result(self, tool_call_id: str, text: str, *, is_error: bool = False) -> Self:
        async def step(run: ScriptedRun) -> None:
            async with (await run._message("tool")).tool_result(tool_call_id) as block:
                await block.write(text)
                if is_error:
                    block.finish(is_error=True)

        return self._add(f"tool_result {tool_call_id!r}", step)

    def data(self, value: JSON) -> Self:
        """A data block with this value."""

        async def step(run: ScriptedRun) -> None:
            async with (await run._message("assistant")).data() as block:
                await block.put(value)

        return self._add("data", step)

    def app(self, type_: str, value: JSONObject) -> Self:
        """An event of the application's own."""
        return self.then(lambda generation: generation.app(type_, value), name=f"app {type_!r}")

    def message(self, *, role: str = "assistant", metadata: JSONObject | None = None) -> Self:
        """Close the message that is open, if one is, and open another."""

        async def step(run: ScriptedRun) -> None:
            await run._message(role, metadata=metadata, fresh=True)

        return self._add(f"message of role {role!r}", step)

    def flush(self) -> Self:
        """Wait until everything written so far is durable."""
        return self.then(lambda generation: generation.flush(), name="flush")

    # --- what it waits for

    def approve(
        self,
        name: str,
        *,
        tool_call_id: str | None = None,
        arguments: JSON = None,
        expires_in: float | None = None,
        or_fail: bool = False,
    ) -> Self:
        """Ask, and wait for the answer: ``run.approvals`` has it. With ``or_fail`` a no raises `PermissionError`."""

        async def step(run: ScriptedRun) -> None:
            approval = await run.generation.approve(
                name, tool_call_id=tool_call_id, arguments=arguments, expires_in=expires_in
            )
            run.approvals.append(approval)
            if or_fail and not approval.approved:
                raise PermissionError(name)

        return self._add(f"approve {name!r}", step)

    def receive_input(self, *, apply: bool = True) -> Self:
        """Wait for an input: ``run.inputs`` has it. Without ``apply`` it is handed back at the end."""

        async def step(run: ScriptedRun) -> None:
            received = await run.generation.receive_input()
            run.inputs.append(received)
            if apply:
                await run.generation.apply(received)

        return self._add("receive_input", step)

    def wait(self, event: trio.Event) -> Self:
        """Until the test sets this event."""
        return self.then(lambda _: event.wait(), name="wait")

    def sleep(self, seconds: float) -> Self:
        """So many seconds; `math.inf` is until the generation is cancelled."""

        async def step(_: ScriptedRun) -> None:
            await trio.sleep(seconds)

        return self._add(f"sleep {seconds}", step)

    # --- how it goes on

    def signal(self, event: trio.Event) -> Self:
        """Set an event that the test waits for."""

        async def step(_: ScriptedRun) -> None:
            event.set()

        return self._add("signal", step)

    def fail(self, error: Exception) -> Self:
        """Raise this."""

        async def step(_: ScriptedRun) -> None:
            raise error

        return self._add(f"fail {error!r}", step)

    def hand_off(self, producer: str | Producer, input: JSON = None, *, same_message: bool = False) -> Self:  # noqa: A002
        """Have another producer go on; with ``same_message`` in the message that is open."""

        async def step(run: ScriptedRun) -> None:
            into = await run._message("assistant") if same_message else None
            await run.generation.hand_off(producer, input, into=into)

        return self._add("hand_off", step)

    def then(self, function: Callable[[Generation], Awaitable[None]], *, name: str | None = None) -> Self:
        """A step of your own: any async function of a `Generation`."""

        async def step(run: ScriptedRun) -> None:
            await function(run.generation)

        return self._add(name or "a step of its own", step)

    def _add(self, name: str, step: Callable[[ScriptedRun], Awaitable[None]]) -> Self:
        self._steps.append((name, step))
        return self


@final
class ScriptedRun:
    """What befell one call of a `ScriptedProducer`.

    ``done`` names the steps that were carried out; ``error`` is what ended the call before the last of them:
    `trio.Cancelled`, what a step raised, what a write was refused with. ``over`` is set at the end.
    """

    def __init__(self, generation: Generation) -> None:
        self.generation: Final = generation
        self.done: list[str] = []
        self.approvals: list[Approval] = []
        self.inputs: list[Input] = []
        self.error: BaseException | None = None
        self.over: Final = trio.Event()
        self._open: Message | None = None
        self._went_on = trio.lowlevel.ParkingLot()

    @property
    def completed(self) -> bool:
        """Whether every step was carried out."""
        return self.over.is_set() and self.error is None

    @property
    def cancelled(self) -> bool:
        return isinstance(self.error, trio.Cancelled)

    async def wait_done(self, count: int) -> None:
        """Until so many steps were carried out. Raises `RuntimeError` when the call ends before that."""
        while len(self.done) < count and not self.over.is_set():
            await self._went_on.park()
        if len(self.done) < count:
            raise RuntimeError(f"the producer ended behind its steps {self.done}: {self.error!r}")

    async def _carry_out(self, steps: list[tuple[str, Callable[[ScriptedRun], Awaitable[None]]]]) -> None:
        try:
            async with _LastMessage(self):
                for name, step in steps:
                    await step(self)
                    self.done.append(name)
                    self._went_on.unpark_all()
        except BaseException as error:
            self.error = error
            raise
        finally:
            self.over.set()
            self._went_on.unpark_all()

    async def _message(self, role: str, *, metadata: JSONObject | None = None, fresh: bool = False) -> Message:
        """The open message, if it is of this role; else another one."""
        if self._open is not None and (fresh or self._open.role != role):
            message, self._open = self._open, None
            await message.__aexit__(None, None, None)
        if self._open is None:
            message = self.generation.message(role=role, metadata=metadata)
            self._open = await message.__aenter__()
        return self._open


@final
class _LastMessage:
    """Leaves the message that is open at the end as ``async with`` would."""

    def __init__(self, run: ScriptedRun) -> None:
        self._run = run

    async def __aenter__(self) -> None:
        pass

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        message, self._run._open = self._run._open, None
        if message is not None:
            await message.__aexit__(kind, error, traceback)
