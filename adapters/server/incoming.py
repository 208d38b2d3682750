"""A request's body as it comes in from the connection: what is there already need not be waited for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import final

import trio
from hypercorn.typing import ASGIReceiveEvent

__all__ = ["Incoming"]


@final
class Incoming:
    """ASGI's ``receive`` for one request.

    Under another server there is none. It spares who reads a body that came with its head, as nearly all do, a deadline
    for the wait: of a request with one chunk that was a twentieth.
    """

    __slots__ = ("_events",)

    def __init__(self, events: trio.MemoryReceiveChannel[ASGIReceiveEvent]) -> None:
        self._events = events

    async def __call__(self) -> ASGIReceiveEvent:
        return await self._events.receive()

    def arrived(self) -> Iterator[ASGIReceiveEvent]:
        """What has come; each is taken as it is given."""
        with suppress(trio.WouldBlock):
            while True:
                yield self._events.receive_nowait()
