"""Producers that a model can foretell: what each does and how it behaves when it is cancelled, by name.

``<does>/<clean-up>`` is the name of each; `ACTORS` has all of them. Each that comes to its end has a last word.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import trio

from penstock.engine import Generation, PenstockError, Producer, StaleGeneration, WriteFailed
from tests.engine.trouble import Panic, leaked, say_last_word, wrapped

__all__ = ["ACTORS", "APPROVAL_EXPIRES", "CLEANUPS", "CLEANUP_SECONDS", "DOES", "SHIELDED", "SLOW"]

# No sum of these is another one: what is due at the same moment has no order that could be foretold.
SLOW: Final = 3.137
APPROVAL_EXPIRES: Final = 20.913
CLEANUP_SECONDS: Final = 1.291
SHIELDED: Final = 30.717


async def _says(generation: Generation) -> None:
    await generation.status("working")
    async with generation.message() as message, message.text() as block:
        await block.write("one")
        await block.write(" two")


async def _slow(generation: Generation) -> None:
    async with generation.message() as message, message.text() as block:
        await block.write("one")
        await trio.sleep(SLOW)
        await block.write(" two")


async def _waits(generation: Generation) -> None:
    async with generation.message() as message, message.text() as block:
        await block.write("begun")
        async for given in generation.inputs():
            do = given.content.get("do")
            if do == "drop":
                continue
            await generation.apply(given)
            if do == "finish":
                return
            if do == "fail":
                raise ValueError("told to")
            if do == "panic":
                raise wrapped(Panic("told to"))


async def _asks(generation: Generation) -> None:
    async with generation.message() as message, message.tool_call("call", "look") as call:
        await call.write('{"n": 1}')
    approval = await generation.approve("look", tool_call_id="call", expires_in=APPROVAL_EXPIRES)
    async with generation.message(role="tool") as message, message.tool_result("call") as result:
        await result.write("yes" if approval.approved else "no")


async def _calls(generation: Generation) -> None:
    async with generation.message() as message, message.tool_call("call", "look") as call:
        await call.write("{}")
    await trio.sleep_forever()


async def _nothing(_: Generation) -> None:
    await trio.sleep_forever()


async def _hands(generation: Generation) -> None:
    await generation.hand_off("says/prompt", {"from": "another"})


async def _fails_0(_: Generation) -> None:
    raise ValueError("at once")


async def _fails_1(generation: Generation) -> None:
    await generation.status("thinking")
    await generation.flush()
    raise ValueError("after a word")


async def _fails_2(generation: Generation) -> None:
    async with generation.message() as message, message.text() as block:
        await block.write("so far")
        await trio.lowlevel.checkpoint()
        raise ValueError("in a block")


async def _fails_3(generation: Generation) -> None:
    async with generation.message() as message, message.text() as block:
        await block.write("so far")
    await generation.snapshot()
    raise ValueError("behind a message")


async def _fails_4(_: Generation) -> None:
    raise asyncio.CancelledError


async def _fails_5(generation: Generation) -> None:
    await generation.status("thinking")
    await generation.flush()
    raise wrapped(await leaked())  # alone, the actor would take it for its own cancellation


async def _fails_6(generation: Generation) -> None:
    async with generation.message() as message, message.text() as block:
        await block.write("so far")
        await trio.lowlevel.checkpoint()
        raise Panic("in a block")


async def _fails_7(generation: Generation) -> None:
    async with generation.message() as message, message.text() as block:
        await block.write("so far")
    await generation.snapshot()
    raise wrapped(GeneratorExit(), Panic("behind a message"))


DOES: Final[Mapping[str, Callable[[Generation], Awaitable[None]]]] = {
    "says": _says,
    "slow": _slow,
    "waits": _waits,
    "asks": _asks,
    "calls": _calls,
    "nothing": _nothing,
    "hands": _hands,
    "fails_0": _fails_0,
    "fails_1": _fails_1,
    "fails_2": _fails_2,
    "fails_3": _fails_3,
    "fails_4": _fails_4,
    "fails_5": _fails_5,
    "fails_6": _fails_6,
    "fails_7": _fails_7,
}


async def _prompt(_: Generation) -> None:
    pass


async def _bounded(generation: Generation) -> None:
    with generation.cleanup():
        await trio.sleep(CLEANUP_SECONDS)


async def _overruns(generation: Generation) -> None:
    with trio.move_on_after(SHIELDED, shield=True):
        await trio.sleep_forever()
    try:
        await generation.status("late")
    except (StaleGeneration, WriteFailed):
        pass
    else:
        raise AssertionError("a straggler could write")


async def _raises(_: Generation) -> None:
    raise ValueError("in the clean-up")


async def _panics(_: Generation) -> None:
    raise Panic("in the clean-up")


CLEANUPS: Final[Mapping[str, Callable[[Generation], Awaitable[None]]]] = {
    "prompt": _prompt,
    "bounded": _bounded,
    "overruns": _overruns,
    "raises": _raises,
    "panics": _panics,
}


def _actor(does: str, cleanup: str) -> Producer:
    async def producer(generation: Generation) -> None:
        try:
            await DOES[does](generation)
        except (trio.Cancelled, PenstockError) as error:
            if isinstance(error, trio.Cancelled):
                await CLEANUPS[cleanup](generation)
            raise
        await say_last_word(generation)

    producer.__name__ = f"{does}/{cleanup}"
    return producer


ACTORS: Final[Mapping[str, Producer]] = {
    f"{does}/{cleanup}": _actor(does, cleanup) for does in DOES for cleanup in CLEANUPS
}
