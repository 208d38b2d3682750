"""The load client that reads: many readers of event streams in one thread of a process of its own, on sockets alone.

It counts events by their mark and does not parse them, so that it is seldom the bound: `Viewed.cpu` says how near it
came. The process takes its orders as JSON, says ``ready`` when every connection follows its stream, and then prints
what came.
"""

from __future__ import annotations

import gc
import select
import socket
import sys
import time
from array import array
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, final

import msgspec
from attrs import Factory, define, frozen

from tests.benchmarks.children import Child, python
from tests.benchmarks.payload import LONGEST, MARK, STAMP
from tests.benchmarks.samples import Delays

__all__ = ["Viewed", "Viewer", "view", "watch"]

# For the process itself, before it connects and behind its last read.
_START: Final = 30.0

_READ: Final = 256 * 1024

# What comes past the last event that was expected is waited for so long: it would be one too many.
_GRACE: Final = 0.2


@final
@frozen(kw_only=True)
class Viewer:
    """One connection: what it sends, at once and once it has been answered; how many events it waits for."""

    sends: tuple[bytes, ...]
    expected: int
    ready: bytes = b"\r\n\r\n"  # behind which it follows its stream


@final
@frozen(kw_only=True)
class Viewed:
    """What came. Times are in seconds."""

    expected: int
    received: int  # each connection counts as far as it was expected to
    extra: int  # events that nobody expected
    broken: int  # connections that ended too early
    since_due: float  # from when the first event was due to the last that was received
    since_asked: float  # from the first request
    since_ready: float  # from when all were ready
    delays: Delays  # received, after it was due
    transits: Delays  # received, after it was written
    lateness: Delays  # written, after it was due: the source's own
    cpu: float  # of this process while events came, as a part of a core


@final
@frozen(kw_only=True)
class _Order:
    """What the process is told: the arguments of `view`."""

    address: tuple[str, int]
    viewers: tuple[Viewer, ...]
    seconds: float
    stamps: bool


def watch(
    folder: Path,
    address: tuple[str, int],
    viewers: Sequence[Viewer],
    *,
    seconds: float,
    stamps: bool,
    on_ready: Callable[[], object] = lambda: None,
) -> Viewed:
    """As `view`, in a process of its own. Raises `ChildFailed`."""
    order = _Order(address=address, viewers=tuple(viewers), seconds=seconds, stamps=stamps)
    with Child(python("tests.benchmarks.viewers"), folder, "viewers") as child:
        child.tell(msgspec.json.encode(order).decode())
        child.line(seconds + _START)
        on_ready()
        return msgspec.json.decode(child.line(seconds + _START), type=Viewed)


@define
class _Connection:
    viewer: Viewer
    socket: socket.socket
    carry: bytes = b""
    received: int = 0
    ready: bool = False
    sent: int = 1


@define
class _Reading:
    """All connections, and what was read of them."""

    stamps: bool
    due: array[int] = Factory(lambda: array("q"))
    transit: array[int] = Factory(lambda: array("q"))
    late: array[int] = Factory(lambda: array("q"))
    first_due: int = 0
    last: int = 0

    def take(self, connection: _Connection, data: bytes) -> None:
        now = time.monotonic_ns()
        if not self.first_due and (found := STAMP.search(data)):
            self.first_due = int(found[1])
        if self.stamps:
            count, end = 0, 0
            for count, found in enumerate(STAMP.finditer(data), 1):  # noqa: B007
                due, written, end = int(found[1]), int(found[2]), found.end()
                self.due.append(now - due)
                self.transit.append(now - written)
                self.late.append(written - due)
            connection.carry = data[max(end, len(data) - LONGEST + 1) :]
        else:
            count = data.count(MARK)
            connection.carry = data[-len(MARK) + 1 :]
        if count:
            self.last = now
            connection.received += count


def view(
    address: tuple[str, int],
    viewers: Sequence[Viewer],
    *,
    seconds: float,
    stamps: bool,
    on_ready: Callable[[], object] = lambda: None,
) -> Viewed:
    """Connect all, call ``on_ready`` when each follows its stream, and read until all has come or time is up.

    There are ``seconds`` for the one, and as many for the other. With ``stamps`` the times of every event are read,
    without them those of the first. Raises `TimeoutError` when not all follow their streams in time.
    """
    reading = _Reading(stamps=stamps)
    poll = select.epoll()
    connections: dict[int, _Connection] = {}
    end = time.monotonic() + seconds
    asked = time.monotonic_ns()
    try:
        for viewer in viewers:
            connection = _Connection(viewer, socket.create_connection(address, timeout=seconds))
            connection.socket.sendall(viewer.sends[0])
            connection.socket.setblocking(False)
            connections[connection.socket.fileno()] = connection
            poll.register(connection.socket, select.EPOLLIN)
        broken = _get_ready(poll, connections, end)
        begun, used = time.monotonic_ns(), time.process_time()
        on_ready()
        broken += _read(poll, connections, time.monotonic() + seconds, reading)
        used = time.process_time() - used
        elapsed = time.monotonic_ns() - begun
        wanted = {c.viewer.expected for c in connections.values()} != {0}
        if wanted and not broken:
            _read(poll, connections, time.monotonic() + _GRACE, reading, beyond=True)
    finally:
        for connection in connections.values():
            connection.socket.close()
        poll.close()
    received = [min(c.received, c.viewer.expected) for c in connections.values()]
    since_due = max(0, reading.last - reading.first_due)
    return Viewed(
        expected=sum(viewer.expected for viewer in viewers),
        received=sum(received),
        extra=sum(c.received for c in connections.values()) - sum(received),
        broken=broken,
        since_due=since_due / 1e9,
        since_asked=max(0, reading.last - asked) / 1e9,
        since_ready=max(0, reading.last - begun) / 1e9,
        delays=Delays.of(reading.due),
        transits=Delays.of(reading.transit),
        lateness=Delays.of(reading.late),
        cpu=used * 1e9 / max(1, min(elapsed, since_due or elapsed)),
    )


def _get_ready(poll: select.epoll, connections: dict[int, _Connection], end: float) -> int:
    """Read until every connection follows its stream; how many ended before. What comes behind is kept."""
    waiting, broken = len(connections), 0
    while waiting and time.monotonic() < end:
        for fd, _ in poll.poll(0.1):
            connection = connections[fd]
            data = _receive(connection)
            if not data:
                poll.unregister(fd)
                waiting -= not connection.ready
                broken += 1
                continue
            connection.carry += data
            if connection.ready:
                continue
            if connection.sent < len(connection.viewer.sends) and b"\r\n\r\n" in connection.carry:
                connection.socket.sendall(connection.viewer.sends[connection.sent])
                connection.sent += 1
            if connection.viewer.ready in connection.carry:
                connection.ready = True
                waiting -= 1
    if waiting:
        raise TimeoutError(f"{waiting} of {len(connections)} connections were not answered in time")
    return broken


def _read(
    poll: select.epoll, connections: dict[int, _Connection], end: float, reading: _Reading, *, beyond: bool = False
) -> int:
    """Read until each has what it expects, or with ``beyond`` until the end; how many broke off before."""
    short = {fd for fd, c in connections.items() if c.ready and c.received < c.viewer.expected}
    broken = 0
    if not beyond:
        for connection in connections.values():
            if connection.carry:  # what came in one piece with the answer
                reading.take(connection, connection.carry)
        short = {fd for fd in short if connections[fd].received < connections[fd].viewer.expected}
    while (short or beyond) and (left := end - time.monotonic()) > 0:
        for fd, _ in poll.poll(min(left, 0.5)):
            connection = connections[fd]
            data = _receive(connection)
            if not data:
                poll.unregister(fd)
                broken += fd in short
                short.discard(fd)
                continue
            reading.take(connection, connection.carry + data)
            if connection.received >= connection.viewer.expected:
                short.discard(fd)
    return broken


def _receive(connection: _Connection) -> bytes:
    """What there is; nothing when the connection is over."""
    try:
        return connection.socket.recv(_READ)
    except BlockingIOError:
        raise AssertionError("epoll said that there is something to read") from None
    except OSError:
        return b""


def main() -> None:
    gc.disable()  # a collection of all that was received stops it for 30 ms, which would be the server's delay
    order = msgspec.json.decode(sys.stdin.buffer.read(), type=_Order)
    viewed = view(
        order.address,
        order.viewers,
        seconds=order.seconds,
        stamps=order.stamps,
        on_ready=lambda: print("ready", flush=True),  # noqa: T201  the pipe to the harness
    )
    print(msgspec.json.encode(viewed).decode(), flush=True)  # noqa: T201  as above


if __name__ == "__main__":
    main()
