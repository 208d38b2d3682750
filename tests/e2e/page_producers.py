"""Producers for tests of the page: one that goes wrong in the way it is asked to, one that pours, and one that asks."""

from __future__ import annotations

import itertools
from typing import Final

import trio

from penstock.engine import Generation, ProducerError

__all__ = ["CUT", "REST", "WRONG_KEY", "asking", "flood", "wayward"]

WRONG_KEY: Final = "The model's provider does not accept this server's key."

# A text that is cut off within code, and what goes on with it.
CUT: Final = "It goes like this:\n\n```py\nfor drop in wa"
REST: Final = "ter:\n    wheel.turn(drop)\n```\n\nThat is **all**."

# A piece each 1/600 s, and a new paragraph each 60.
_PIECES: Final = 6000
_RATE: Final = 600

_asked: Final[set[str]] = set()


async def wayward(generation: Generation) -> None:
    """Do what the last message names: ``wrong key``, ``wrong once``, ``silence``, ``nothing``, ``break``, ``cut``.

    With ``no word`` it says nothing the first time; ``tool`` has one give its result before that, and with ``alone``
    no message comes behind it.
    """
    asked = [message for message in (await generation.snapshot(limit=20)).messages if message.role == "user"]
    said = "".join(block.text or "" for block in asked[-1].blocks) if asked else ""
    first = said not in _asked
    _asked.add(said)
    if "wrong key" in said or ("wrong once" in said and first):
        raise ProducerError(WRONG_KEY, reason="MODEL_AUTH")
    if "silence" in said:
        await trio.sleep_forever()
    if "nothing" in said:
        return
    if "no word" in said and first:
        if "tool" in said:
            await _looked(generation)
        if "alone" not in said:
            async with generation.message() as message:
                message.finish(reason="stop", usage={"input_tokens": 7, "output_tokens": 0})
        return
    async with generation.message() as message, message.text() as block:
        if "cut" in said:
            await block.write(REST if generation.continues else CUT)
            message.finish(reason="stop" if generation.continues else "length")
        elif "break" in said and first:
            await block.write("So far")
            raise ProducerError("The model's answer broke off before its end.", reason="MODEL_INTERRUPTED", again=True)
        else:
            await block.write(f"You said {said}.")


async def _looked(generation: Generation) -> None:
    """A tool is called, and gives its result."""
    async with generation.message() as message, message.tool_call("call", "look") as call:
        await call.write("{}")
    result = generation.message(role="tool", parent_message_id=message.message_id)
    async with result, result.tool_result("call") as block:
        await block.write("found")


async def flood(generation: Generation) -> None:
    """Write pieces of a long text, quickly."""
    at = trio.current_time()
    async with generation.message() as message, message.text() as block:
        for number in itertools.islice(itertools.count(), _PIECES):
            at += 1 / _RATE
            await trio.sleep_until(at)
            await block.write(f"word{number} " + ("\n\n" if number % 60 == 59 else ""))


async def asking(generation: Generation) -> None:
    """Ask whether it may, and then wait for what is sent into it."""
    await generation.approve("open_gate", arguments={"percent": 10})
    async with generation.message() as message, message.text() as block:
        while True:
            sent = await generation.receive_input()
            await block.write(str(sent.content.get("text")))
