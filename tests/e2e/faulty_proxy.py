"""A proxy for HTTP/1.1 whose network is a bad one: requests and answers are lost, cut, held up, sent twice and late."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import final

import h11
import trio
from attrs import frozen

__all__ = ["FATES", "FaultyProxy"]

_READ = 64 * 1024

# What may happen to a request, and how often of a hundred times; each happens once among the first.
FATES = {
    "passed": 62,
    "request lost": 5,
    "request cut": 4,
    "answer lost": 7,
    "answer cut": 4,
    "held up": 6,
    "sent twice": 6,
    "sent twice at once": 3,
    "sent again later": 3,
}


@final
@frozen
class _Request:
    head: bytes
    body: bytes


@final
class FaultyProxy:
    """Forwards to the port that ``upstream`` names at the time; ``counts`` tells what it has done to requests."""

    def __init__(self, chance: random.Random, upstream: Callable[[], int]) -> None:
        self._chance = chance
        self._first = chance.sample(list(FATES), len(FATES))
        self._upstream = upstream
        self._nursery: trio.Nursery
        self.counts = Counter[str]()
        self.port = 0

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled; `port` is set once it is started."""
        async with trio.open_nursery() as self._nursery:
            listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
            self.port = listeners[0].socket.getsockname()[1]
            self._nursery.start_soon(partial(trio.serve_listeners, self._converse, listeners))
            task_status.started()
            await trio.sleep_forever()

    async def _converse(self, stream: trio.SocketStream) -> None:
        """One request for each connection: what the peer sends next it sends on another."""
        async with stream:
            try:
                request = await _read_request(stream)
                if request is not None:
                    answer = await self._meet_fate(request)
                    if answer:
                        await stream.send_all(answer)
            except (trio.BrokenResourceError, OSError, h11.RemoteProtocolError):
                self.counts["connection broke"] += 1

    async def _meet_fate(self, request: _Request) -> bytes:
        fate = self._first.pop() if self._first else self._chance.choices(list(FATES), list(FATES.values()))[0]
        self.counts[fate] += 1
        match fate:
            case "request lost":
                return b""
            case "request cut":
                whole = request.head + request.body
                async with await trio.open_tcp_stream("127.0.0.1", self._upstream()) as stream:
                    await stream.send_all(whole[: self._chance.randrange(1, len(whole))])
                return b""
            case "answer lost":
                await self._exchange(request)
                return b""
            case "answer cut":
                answer = await self._exchange(request)
                return answer[: self._chance.randrange(len(answer))] if answer else b""
            case "held up":
                await trio.sleep(self._chance.uniform(0, 0.05))
                answer = await self._exchange(request)
                await trio.sleep(self._chance.uniform(0, 0.05))
                return answer
            case "sent twice":
                answers = [await self._exchange(request), await self._exchange(request)]
                return self._chance.choice(answers)
            case "sent twice at once":
                self._nursery.start_soon(self._repeat, request, 0.0)
                return await self._exchange(request)
            case "sent again later":
                self._nursery.start_soon(self._repeat, request, self._chance.uniform(0.01, 0.3))
                return await self._exchange(request)
        return await self._exchange(request)

    async def _repeat(self, request: _Request, delay: float) -> None:
        await trio.sleep(delay)
        try:
            await self._exchange(request)
        except OSError:
            self.counts["a repetition found nobody"] += 1

    async def _exchange(self, request: _Request) -> bytes:
        """The server's whole answer; what there is of it where the server died."""
        received = b""
        async with await trio.open_tcp_stream("127.0.0.1", self._upstream()) as stream:
            try:
                await stream.send_all(request.head + request.body)
                while piece := await stream.receive_some(_READ):
                    received += piece
            except trio.BrokenResourceError:
                pass
        return received


async def _read_request(stream: trio.SocketStream) -> _Request | None:
    connection = h11.Connection(h11.SERVER)
    head, body = b"", b""
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await stream.receive_some(_READ))
        elif isinstance(event, h11.Request):
            lines = [event.method + b" " + event.target + b" HTTP/1.1"]
            kept = [(name, value) for name, value in event.headers.raw_items() if name.lower() != b"connection"]
            lines += [name + b": " + value for name, value in [*kept, (b"Connection", b"close")]]
            head = b"\r\n".join(lines) + b"\r\n\r\n"
        elif isinstance(event, h11.Data):
            body += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            return _Request(head, body)
        else:
            return None
