"""The load client that writes over HTTP, as a process: keep-alive connections with one request under way on each.

It takes an `Order` as JSON, and prints what was answered. Requests are made of bytes and answers are not parsed past
their head, so that it is seldom the bound: ``cpu`` says how near it came.
"""

from __future__ import annotations

import json
import re
import select
import socket
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal, final

import msgspec
from attrs import define, frozen

from tests.benchmarks.children import Child, python
from tests.benchmarks.payload import body, stamped
from tests.benchmarks.samples import Delays

__all__ = ["Order", "push", "writer"]

_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)

_PATIENCE: Final = 60.0


@final
@frozen(kw_only=True)
class Order:
    """What to write, and how much of it: ``count`` events on each connection, or as many as go in ``seconds``.

    Each connection has a stream of its own, as far as there are enough; where there are more, they take turns, which
    works with Durable Streams only. With a ``rate`` a connection sends so many requests a second from ``begin`` on, as
    long as it is answered in time.
    """

    kind: Literal["durable-streams", "penstock"]
    address: tuple[str, int]
    streams: tuple[str, ...]
    size: int
    connections: int = 1
    batch: int = 1
    count: int = 0
    seconds: float = 0
    rate: float = 0
    begin: int = 0


@contextmanager
def writer(folder: Path, order: Order) -> Iterator[Child]:
    """The process, with its order; it prints one line when it is done."""
    with Child(python("tests.benchmarks.writers"), folder, "writers") as child:
        child.tell(msgspec.json.encode(order).decode())
        yield child


def push(folder: Path, order: Order) -> dict[str, float]:
    """Carry out the order; ``events_per_s``, ``p50`` and ``p99`` of a request in seconds, ``cpu``."""
    with writer(folder, order) as child:
        return child.answer(order.seconds + _PATIENCE)


@define
class _Connection:
    place: int
    ids: tuple[str, str]
    socket: socket.socket
    buffer: bytes = b""
    requests: int = 0
    due: int = 0  # of the request that is under way, or of the next one
    waiting: bool = False


def _request(order: Order, connection: _Connection) -> bytes:
    stream = order.streams[(connection.place + connection.requests * order.connections) % len(order.streams)]
    first = connection.requests * order.batch + 1
    texts = [stamped(connection.due, order.size) for _ in range(order.batch)]
    if order.kind == "durable-streams":
        path = f"/v1/stream/{stream}"
        made = [body(stream, first + place, text) for place, text in enumerate(texts)]
        content = made[0] if order.batch == 1 else f"[{','.join(made)}]"
    else:
        path = f"/v1/sessions/{stream}/chunks"
        generation, message = connection.ids
        made = [
            f'{{"generation_id":"{generation}","message_id":"{message}","block_index":0,"seq":{first + place},'
            f'"data":{{"text":"{text}"}}}}'
            for place, text in enumerate(texts)
        ]
        content = made[0]
        if order.batch > 1:
            path, content = f"{path}/batch", f'{{"chunks":[{",".join(made)}]}}'
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(content)}\r\n\r\n{content}".encode()


@final
class _Writing:
    def __init__(self, order: Order) -> None:
        self._order = order
        self._poll = select.epoll()
        self._connections: dict[int, _Connection] = {}
        self.delays: list[int] = []
        for place in range(order.connections):
            made = socket.create_connection(order.address, timeout=_PATIENCE)
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._connections[made.fileno()] = _Connection(place, (str(uuid.uuid4()), str(uuid.uuid4())), made)
            self._poll.register(made, select.EPOLLIN)

    def run(self) -> float:
        """Write all of it; the seconds it took."""
        begun = time.monotonic_ns()
        last = begun
        begin = self._order.begin or begun
        end = begun + int(self._order.seconds * 1e9) if self._order.seconds else 0
        to_do = set(self._connections)
        for connection in self._connections.values():
            connection.due = begin
        while to_do:
            now = time.monotonic_ns()
            soonest = now + int(1e9)
            for fd in list(to_do):
                connection = self._connections[fd]
                if connection.waiting:
                    continue
                if (end and now >= end) or (not end and connection.requests * self._order.batch >= self._order.count):
                    to_do.discard(fd)
                elif self._order.rate and connection.due > now:
                    soonest = min(soonest, connection.due)
                else:
                    self._send(connection, now)
            if to_do:
                for fd, _ in self._poll.poll(max(0, soonest - now) / 1e9):
                    if self._receive(self._connections[fd]):
                        last = time.monotonic_ns()
        return (last - begun) / 1e9

    def _send(self, connection: _Connection, now: int) -> None:
        if not self._order.rate:
            connection.due = now
        connection.waiting = True
        connection.socket.sendall(_request(self._order, connection))

    def _receive(self, connection: _Connection) -> bool:
        """Whether the answer is there."""
        piece = connection.socket.recv(65536)
        if not piece:
            raise ConnectionError("the server closed a connection")
        connection.buffer += piece
        head, found, rest = connection.buffer.partition(b"\r\n\r\n")
        if not found:
            return False
        status = int(head[9:12])
        length = _LENGTH.search(head)
        if status != 204 and len(rest) < int(length[1] if length else 0):
            return False
        if status >= 300:
            raise ConnectionError(f"a request was answered with {connection.buffer!r:.400}")
        self.delays.append(time.monotonic_ns() - connection.due)
        connection.buffer, connection.waiting = b"", False
        connection.requests += 1
        if self._order.rate:
            connection.due = (self._order.begin or connection.due) + (
                int(connection.requests * 1e9 / self._order.rate) if self._order.begin else int(1e9 / self._order.rate)
            )
        return True

    def close(self) -> None:
        for connection in self._connections.values():
            connection.socket.close()
        self._poll.close()


def main() -> None:
    order = msgspec.json.decode(sys.stdin.buffer.read(), type=Order)
    writing = _Writing(order)
    try:
        used = time.process_time()
        seconds = writing.run()
        used = time.process_time() - used
    finally:
        writing.close()
    delays = Delays.of(writing.delays)
    events = len(writing.delays) * order.batch
    found = {
        "events": events,
        "seconds": seconds,
        "events_per_s": events / max(seconds, 1e-9),
        "p50": delays.p50,
        "p99": delays.p99,
        "cpu": used / max(seconds, 1e-9),
    }
    print(json.dumps(found), flush=True)  # noqa: T201  the pipe to the harness


if __name__ == "__main__":
    main()
