"""Everything that a producer, an observer or a task of the engine's may raise, and producers that have a last word.

A log that says ``completed`` over an answer that was cut off looks like any other. So the producers here say when they
have come to their end, and `cut_short` finds generations that are told as completed and did not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Final, final

import trio

from penstock.engine import (
    App,
    ApprovalResolved,
    Event,
    Generation,
    GenerationFinished,
    GenerationStarted,
    InputAccepted,
    InputReturned,
    decode,
)
from penstock.engine.testing import KeptLog

__all__ = [
    "EXITS",
    "LAST_WORD",
    "OWN",
    "TROUBLES",
    "Half",
    "Panic",
    "cut_short",
    "cut_short_in",
    "leaked",
    "say_last_word",
    "talk",
    "trouble",
    "wrapped",
]

LAST_WORD: Final = "app.last_word"


@final
class Panic(BaseException):
    """What an extension module raises when it is broken inside: no `Exception`, so that nobody catches it."""


async def leaked() -> BaseException:
    """A `trio.Cancelled` of a scope that is gone."""
    with trio.CancelScope() as scope:
        scope.cancel()
        try:
            await trio.lowlevel.checkpoint()
        except trio.Cancelled as error:
            return error
    raise AssertionError("a checkpoint under a cancelled scope returns")


def wrapped(*errors: BaseException) -> BaseException:
    """A group in a group."""
    return BaseExceptionGroup("outer", [BaseExceptionGroup("inner", errors), ValueError("beside")])


# What is the raiser's own trouble.
TROUBLES: Final[Mapping[str, Callable[[], BaseException]]] = {
    "an error": lambda: ValueError("inside"),
    "asyncio's CancelledError": asyncio.CancelledError,
    "GeneratorExit": GeneratorExit,
    "a panic": lambda: Panic("index out of bounds"),
    "StopAsyncIteration": StopAsyncIteration,
    "a group of errors": lambda: ExceptionGroup("several", [ValueError("one"), TypeError("two")]),
    "a group with a panic": lambda: BaseExceptionGroup("several", [Panic("one"), ValueError("two")]),
    "groups in a group": lambda: wrapped(Panic("one"), asyncio.CancelledError()),
}

# The names of all that is the raiser's own trouble.
OWN: Final = (*TROUBLES, "a leaked Cancelled", "a leaked Cancelled in a group")

# What ends the process.
EXITS: Final[Mapping[str, Callable[[], BaseException]]] = {
    "KeyboardInterrupt": KeyboardInterrupt,
    "SystemExit": lambda: SystemExit(3),
    "a group with KeyboardInterrupt": lambda: BaseExceptionGroup("several", [ValueError("one"), KeyboardInterrupt()]),
    "SystemExit in groups in a group": lambda: wrapped(Panic("one"), SystemExit(3)),
}


async def trouble(kind: str) -> BaseException:
    """The one of this name, of `TROUBLES`, `EXITS`, or ``a leaked Cancelled``, alone or ``in a group``."""
    if kind.startswith("a leaked Cancelled"):
        error = await leaked()
        return wrapped(error, Panic("beside")) if kind.endswith("in a group") else error
    return {**TROUBLES, **EXITS}[kind]()


async def say_last_word(generation: Generation) -> None:
    """To be called as the last thing that a producer does."""
    await generation.app(LAST_WORD, {})


async def talk(generation: Generation) -> None:
    """Says one thing to its end."""
    async with generation.message() as message, message.text() as block:
        await block.write("after all")
    await say_last_word(generation)


def cut_short(events: Sequence[Event]) -> list[str]:
    """The generations of one life of a session that are told as completed without their producer's last word."""
    found = []
    last: dict[str, Event] = {}
    remote: set[str] = set()
    for event in events:
        gid = event.generation_id
        if gid is None:
            continue
        match event.data:
            case GenerationStarted(producer="remote"):
                remote.add(gid)
            case GenerationFinished(outcome="completed") if gid not in remote:
                if gid not in last or not (isinstance(last[gid].data, App) and last[gid].type == LAST_WORD):
                    found.append(gid)
            case ApprovalResolved() | InputReturned():  # which the engine writes before an end
                pass
            case InputAccepted():  # which comes from elsewhere, at any time until the end
                pass
            case _:
                last[gid] = event
    return found


def cut_short_in(log: KeptLog) -> list[str]:
    """`cut_short`, of every life of every session."""
    found = []
    for session_id, epoch in log.lives():
        events = [decode(entry.body) for entry in log.kept(session_id, epoch)]
        found += [f"generation {gid} of {session_id} completed without its last word" for gid in cut_short(events)]
    return found


@final
class Half:
    """A neighbour: in the middle of its answer, between two messages, until it is let go on; it has a last word.

    ``swallows``: it takes no notice of its cancellation but to return.
    """

    def __init__(self, *, swallows: bool = False) -> None:
        self.begun = trio.Event()
        self.go_on = trio.Event()
        self._swallows = swallows

    async def __call__(self, generation: Generation) -> None:
        async with generation.message() as message, message.text() as block:
            await block.write("step 1 of 2")
        self.begun.set()
        try:
            await self.go_on.wait()
        except trio.Cancelled:
            if self._swallows:
                return
            raise
        async with generation.message() as message, message.text() as block:
            await block.write("step 2 of 2")
        await say_last_word(generation)
