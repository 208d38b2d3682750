"""A proxy whose lines die without a word, as those of a phone that has another network: no byte comes, and no end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import final

import trio
from attrs import define

__all__ = ["BlackHole"]


@define(eq=False)
class _Line:
    dead: bool = False  # nothing passes, either way
    deaf: bool = False  # requests pass, and answers do not


@final
class BlackHole:
    """Forwards to the port ``upstream``. What is swallowed may be changed from another thread."""

    def __init__(self, upstream: int) -> None:
        self._upstream = upstream
        self._lines: list[_Line] = []
        self._deaf = False
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def connections(self) -> int:
        """How many there were."""
        return len(self._lines)

    def freeze(self) -> None:
        """The connections that there are go dead; new ones work."""
        for line in self._lines:
            line.dead = True

    def deafen(self) -> None:
        """Answers are swallowed, on the connections that there are for good, on new ones until `heal`."""
        self._deaf = True
        for line in self._lines:
            line.deaf = True

    def heal(self) -> None:
        """New connections work again."""
        self._deaf = False

    @asynccontextmanager
    async def running(self) -> AsyncIterator[BlackHole]:
        async with trio.open_nursery() as nursery:
            listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
            self.port = listeners[0].socket.getsockname()[1]
            nursery.start_soon(partial(trio.serve_listeners, self._carry, listeners))
            yield self
            nursery.cancel_scope.cancel()

    async def _carry(self, client: trio.SocketStream) -> None:
        line = _Line(deaf=self._deaf)
        self._lines.append(line)
        async with (
            client,
            await trio.open_tcp_stream("127.0.0.1", self._upstream) as server,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(_pass, client, server, lambda: line.dead, nursery.cancel_scope)
            nursery.start_soon(_pass, server, client, lambda: line.dead or line.deaf, nursery.cancel_scope)


async def _pass(
    source: trio.SocketStream, sink: trio.SocketStream, swallows: Callable[[], bool], scope: trio.CancelScope
) -> None:
    """Until one of them ends; of a line that swallows, the end is swallowed as well."""
    try:
        while piece := await source.receive_some():
            if not swallows():
                await sink.send_all(piece)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass  # reset; the other side learns it by the end of its own
    if swallows():
        await trio.sleep_forever()
    scope.cancel(reason="one side has ended")
