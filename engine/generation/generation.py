"""A producer's view of its run: what it was given, what it writes, what it is sent, and whom it hands off to.

How messages and blocks are written is `message`'s; the fence that every call passes is `run`'s.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from typing import Final, Protocol, TypeAlias, cast, final

import trio

from ..codec import own_json
from ..errors import InvalidBody
from ..events import (
    JSON,
    App,
    Cursor,
    GenerationStatus,
    InputApplied,
    JSONObject,
    MessageOpened,
    check_path_id,
    check_uuid,
)
from ..reducer import Snapshot
from ..rules.lifecycle import ROLES, Draft
from ..rules.merging import own_metadata
from ..shapes import check_object, check_text, shown
from ..supervision import protected
from .approvals import Approval
from .inputs import Input
from .message import Message, Writer

__all__ = ["Generation", "Producer", "Stage", "run_producer"]


class _Approvals(Protocol):
    async def ask(
        self, name: str, *, tool_call_id: str | None, arguments: JSON, expires_in: float
    ) -> Approval | None: ...


class _Inputs(Protocol):
    async def receive(self) -> Input | None: ...

    def receive_nowait(self) -> Input: ...


class Stage(Protocol):
    """What a producer's view needs of the run that it is a view of, in this process or in another one."""

    usage: JSONObject | None

    @property
    def writer(self) -> Writer: ...

    @property
    def metadata(self) -> JSONObject: ...

    @property
    def continues(self) -> str | None: ...

    @property
    def approvals(self) -> _Approvals: ...

    @property
    def inputs(self) -> _Inputs: ...

    @property
    def approval_timeout(self) -> float: ...

    @property
    def idle_limit(self) -> float: ...

    @property
    def take_snapshot(self) -> Callable[[int | None, str | None], Awaitable[Snapshot]]: ...

    @property
    def read_file(self) -> Callable[[str, int, int | None], Awaitable[bytes]]: ...

    def cleanup(self) -> trio.CancelScope: ...

    async def play(self, producer: str | Producer, generation: Generation) -> None:
        """Run a producer to its end, in the caller's task."""


@final
@protected
class Generation:
    """A producer's view of its own run. One that was handed off to has its own input, and nothing else of its own."""

    __slots__ = ("_input", "_into", "_run")

    def __init__(self, run: Stage, given: JSON, into: Message | None = None) -> None:
        self._run: Final = run
        self._input: Final = given
        self._into: Final = into

    @property
    def session_id(self) -> str:
        return self._run.writer.journal.session_id

    @property
    def generation_id(self) -> str:
        return self._run.writer.generation_id

    @property
    def turn(self) -> int:
        return self._run.writer.structure.turn

    @property
    def job_id(self) -> str | None:
        return self._run.writer.structure.job_id

    @property
    def input(self) -> JSON:
        """The JSON that the start, or the one who handed off, gave; or None."""
        return self._input

    @property
    def metadata(self) -> JSONObject:
        return self._run.metadata

    @property
    def continues(self) -> str | None:
        """The message that was cut off and is to be gone on with, if the start named one.

        What this generation writes is shown behind it, as one with it: its first message says so by itself.
        """
        return self._run.continues

    @property
    def idle_limit(self) -> float:
        """How many seconds it may write nothing before it ends as ``stalled``; infinite where there is no limit."""
        return self._run.idle_limit

    def message(
        self,
        *,
        role: str = "assistant",
        message_id: str | None = None,
        parent_message_id: str | None = None,
        metadata: JSONObject | None = None,
    ) -> Message:
        """A message of this generation, open as long as its ``async with`` lasts.

        With the id of a message that is still open in this generation it joins that one. ``parent_message_id``
        is the message that this one answers or continues, where that is not the one before it. Raises `InvalidBody`,
        `InvalidId`.
        """
        if check_text(role, "role") not in ROLES:
            raise InvalidBody(f"role must be one of {', '.join(ROLES)}, not {role!r:.80}")
        if message_id is not None:
            message_id = check_uuid(message_id, "message_id")
        elif self._into is not None and role == self._into.role:
            message_id = self._into.message_id
        if parent_message_id is not None:
            parent_message_id = check_uuid(parent_message_id, "parent_message_id")
        opened = MessageOpened(role=role, parent_message_id=parent_message_id, metadata=own_metadata(metadata))
        return Message(self._run.writer, opened, message_id)

    async def status(self, status: str, detail: JSON = None) -> None:
        """Tell readers what goes on: ``thinking``, ``working``, or a word of your own."""
        await self._run.writer.put(Draft(GenerationStatus(status=status, detail=detail)))

    async def app(self, type_: str, value: JSONObject) -> None:
        """Write an event of the application's own; its type begins with ``app.``."""
        if not check_text(type_, "type").startswith("app."):
            raise InvalidBody("the type of an application's event begins with 'app.'")
        await self._run.writer.put(Draft(App(type=type_, value=value)))

    def report_usage(self, usage: JSONObject) -> None:
        """What the generation cost, as it is now; told in its end. Raises `InvalidBody` for what is no JSON object."""
        self._run.usage = cast("JSONObject", own_json(check_object(usage, "usage"), "usage"))

    async def flush(self) -> None:
        """Wait until everything written so far is durable.

        Raises `WriteFailed` when it could not be stored and `TimedOut` after `Config.flush_timeout`.
        """
        await self._run.writer.flush()

    async def snapshot(self, limit: int | None = None, before: str | None = None) -> Snapshot:
        """The session's state: what was committed when it was asked for, this generation's own part included.

        ``limit`` and ``before`` as in `Session.snapshot`: of a long conversation, all of it may be far more than the
        producer has use for. Raises as that does.
        """
        return await self._run.take_snapshot(limit, before)

    async def read_file(self, file_id: str, *, limit: int | None = None) -> bytes:
        """One of the session's files, which a block of kind image, file or source names; at most ``limit`` bytes of it.

        Raises `FileNotFound`, `InvalidId`, `InvalidBody`.
        """
        if limit is not None and (type(limit) is not int or limit < 0):
            raise InvalidBody("limit is a whole number, 0 or more")
        return await self._run.read_file(check_path_id(file_id, "a file_id"), 0, limit)

    def cursor(self) -> Cursor:
        """The session's committed tail."""
        return self._run.writer.journal.cursor

    def cleanup(self) -> trio.CancelScope:
        """A shielded scope for what must still be awaited when the generation is cancelled, with a deadline.

        ``with generation.cleanup(): await client.aclose()``. What takes longer than `Config.cleanup_timeout`
        after the cancel is cancelled in turn.
        """
        return self._run.cleanup()

    # --- what others send

    async def approve(
        self,
        name: str,
        *,
        tool_call_id: str | None = None,
        arguments: JSON = None,
        expires_in: float | None = None,
    ) -> Approval:
        """Ask whether ``name`` may be done, with ``arguments``, and wait for the answer.

        Anything but an explicit yes is a no: ``expired`` after ``expires_in`` seconds (by default
        `Config.approval_timeout`), and refused by the engine when the generation ends. Cancelled by a scope of
        the producer's own, it is resolved as refused, reason ``cancelled``.
        """
        await self._run.writer.wait_room()
        seconds = self._run.approval_timeout if expires_in is None else expires_in
        approval = await self._run.approvals.ask(
            name, tool_call_id=tool_call_id, arguments=arguments, expires_in=seconds
        )
        return await self._run.writer.unless_fenced(approval)

    async def receive_input(self) -> Input:
        """The next input that somebody sent to this generation, as soon as there is one.

        What the producer makes use of it tells with `apply`; the rest is handed back at the end. Cancelling
        this loses nothing.
        """
        self._run.writer.check()
        return await self._run.writer.unless_fenced(await self._run.inputs.receive())

    def receive_input_nowait(self) -> Input:
        """The next input, if one waits: for a look between two steps. Raises `trio.WouldBlock`."""
        self._run.writer.check()
        return self._run.inputs.receive_nowait()

    def inputs(self) -> AsyncIterator[Input]:
        """Every input, as it comes; it does not end by itself: cancel it, or break out."""
        return _Incoming(self)

    async def apply(self, input: Input) -> None:  # noqa: A002  the protocol's name
        """Tell readers that the producer made use of this input. Once for each. Raises `InvalidBody`."""
        if not isinstance(input, Input):
            raise InvalidBody(f"what is applied is an Input, not {shown(input)}")
        await self._run.writer.put(Draft(InputApplied(input_id=input.input_id)))

    # --- other producers

    async def hand_off(
        self,
        producer: str | Producer,
        input: JSON = None,  # noqa: A002  the protocol's name
        *,
        into: Message | None = None,
    ) -> None:
        """Run another producer, registered or given, inside this generation, and return when it does.

        It has ``input`` for its input, and writes under this generation's stamp. ``into`` is an open message of
        this one's: messages of its role that the other opens join it, so that the answer goes on in one piece.
        What the other raises comes out here, as from any call. Raises `InvalidBody`, and `ProducerNotFound` for an
        unknown name.
        """
        self._run.writer.check()
        if not callable(producer):
            check_text(producer, "a producer's name")
        if into is not None and not isinstance(into, Message):
            raise InvalidBody(f"what another producer goes on in is a Message, not {shown(into)}")
        input = own_json(input, "input")  # noqa: A001
        if into is not None and into.message_id not in self._run.writer.open_messages:
            raise InvalidBody("the message to go on in is not open", message_id=into.message_id)
        await self._run.play(producer, Generation(self._run, input, into))


@final
@protected
class _Incoming(AsyncIterator[Input]):
    def __init__(self, generation: Generation) -> None:
        self._generation = generation

    async def __anext__(self) -> Input:
        return await self._generation.receive_input()


# An async function of a Generation, or an async generator function that yields text.
Producer: TypeAlias = Callable[[Generation], Awaitable[None] | AsyncIterable[str]]


@trio.lowlevel.disable_ki_protection  # a Ctrl-C reaches a producer that is busy
async def run_producer(producer: Producer, generation: Generation) -> None:
    """Run a producer to its end, in the caller's task; the pieces of a generator become one text.

    Raises what the producer raises, and `InvalidBody` for what is no producer.
    """
    result = producer(generation)
    if isinstance(result, AsyncIterable):
        try:
            async with generation.message() as message, message.text() as block:
                async for piece in result:
                    await block.write(piece)
        finally:
            aclose = getattr(result, "aclose", None)
            if aclose is not None:
                with generation.cleanup():
                    await aclose()
    elif isinstance(result, Awaitable):
        await result
    else:
        raise InvalidBody(f"the producer {producer!r} is neither an async function nor an async generator")
