"""A proxy for streams whose network is a bad one: connections are refused, cut, stalled, slowed and torn to pieces."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from functools import partial
from typing import TypeVar, final

import trio

__all__ = ["FATES", "StreamProxy", "in_thread"]

T = TypeVar("T")

# What happens to a connection, and how often of a hundred times.
FATES = {
    "refused": 8,  # closed before a byte
    "cut": 52,  # closed in the middle of whatever it is
    "stalled": 12,  # nothing more comes, and nothing closes
    "slowed": 13,  # pieces come late, then it is cut
    "torn": 15,  # byte by byte for a while, then it is cut
}

# Bytes from the server that a connection carries before its fate, at most: more than one frame has, or nobody would
# ever come by a page of the log.
_LONGEST = 150_000


@contextmanager
def in_thread(running: Callable[[], AbstractAsyncContextManager[T]]) -> Iterator[T]:
    """A proxy in a thread of its own: a browser is driven from this one."""
    ready, over = threading.Event(), trio.Event()
    made: list[tuple[T, trio.lowlevel.TrioToken]] = []

    async def serve() -> None:
        async with running() as proxy:
            made.append((proxy, trio.lowlevel.current_trio_token()))
            ready.set()
            await over.wait()

    thread = threading.Thread(target=trio.run, args=(serve,))
    thread.start()
    assert ready.wait(10)
    proxy, token = made[0]
    try:
        yield proxy
    finally:
        trio.from_thread.run_sync(over.set, trio_token=token)
        thread.join(10)


@final
class StreamProxy:
    """Forwards to ``upstream``. ``counts`` tells the fates; no connection is spared."""

    def __init__(self, chance: random.Random, upstream: int) -> None:
        self._chance = chance
        self._upstream = upstream
        self.counts = Counter[str]()
        self.connections = 0
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @asynccontextmanager
    async def running(self) -> AsyncIterator[StreamProxy]:
        async with trio.open_nursery() as nursery:
            listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
            self.port = listeners[0].socket.getsockname()[1]
            nursery.start_soon(partial(trio.serve_listeners, self._carry, listeners))
            yield self
            nursery.cancel_scope.cancel()

    async def _carry(self, client: trio.SocketStream) -> None:
        self.connections += 1
        (fate,) = self._chance.choices(list(FATES), list(FATES.values()))
        self.counts[fate] += 1
        async with client:
            if fate == "refused":
                return
            try:
                async with (
                    await trio.open_tcp_stream("127.0.0.1", self._upstream) as server,
                    trio.open_nursery() as nursery,
                ):
                    nursery.start_soon(self._up, client, server, nursery.cancel_scope)
                    await self._down(server, client, fate)
                    nursery.cancel_scope.cancel()
            except* (trio.BrokenResourceError, trio.ClosedResourceError, OSError):
                self.counts["connection broke"] += 1

    async def _up(self, client: trio.SocketStream, server: trio.SocketStream, scope: trio.CancelScope) -> None:
        while piece := await client.receive_some():
            await server.send_all(piece)
        scope.cancel()

    async def _down(self, server: trio.SocketStream, client: trio.SocketStream, fate: str) -> None:
        left = self._chance.randrange(_LONGEST)
        while piece := await server.receive_some(self._chance.randrange(1, 16_384)):
            piece = piece[:left]
            left -= len(piece)
            if fate == "torn":
                head, piece = piece[:200], piece[200:]
                for position in range(len(head)):
                    await client.send_all(head[position : position + 1])
            elif fate == "slowed":
                await trio.sleep(self._chance.uniform(0, 0.03))
            if piece:
                await client.send_all(piece)
            if left <= 0:
                if fate == "stalled":
                    await trio.sleep_forever()
                return
