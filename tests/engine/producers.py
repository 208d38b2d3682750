"""Producers for tests, steered from outside."""

from __future__ import annotations

import trio

from penstock.engine import Generation, Producer

__all__ = ["Steered", "failing", "saying", "shielding"]


def saying(*pieces: str, pause: float = 0.0) -> Producer:
    """Says the pieces as one message."""

    async def producer(generation: Generation) -> None:
        async with generation.message() as message, message.text() as block:
            for piece in pieces:
                await block.write(piece)
                await trio.sleep(pause)

    return producer


def failing(error: BaseException, *, after: str = "so far") -> Producer:
    """Says something, then raises."""

    async def producer(generation: Generation) -> None:
        async with generation.message() as message, message.text() as block:
            await block.write(after)
            raise error

    return producer


class Steered:
    """A producer that writes what it is told to, until it is told to finish; remembers what befell it."""

    def __init__(self, *, shield: float = 0.0) -> None:
        self.started = trio.Event()
        self.finish = trio.Event()
        self.cancelled = trio.Event()
        self.over = trio.Event()
        self.let_go = trio.Event()  # ends its clean-up before the time
        self.errors: list[BaseException] = []
        self._shield = shield

    async def __call__(self, generation: Generation) -> None:
        try:
            async with generation.message() as message, message.text() as block:
                await block.write("begun")
                self.started.set()
                try:
                    await self.finish.wait()
                except trio.Cancelled:
                    self.cancelled.set()
                    if self._shield:
                        with trio.move_on_after(self._shield, shield=True):
                            await self.let_go.wait()
                    try:
                        await block.write("late")
                    except Exception as error:
                        self.errors.append(error)
                        raise
                    raise
        finally:
            self.over.set()


def shielding(seconds: float) -> Steered:
    """A producer whose clean-up cannot be cancelled for so long, and which writes behind it."""
    return Steered(shield=seconds)
