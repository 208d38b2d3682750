"""Clients that nobody wants, as a process of its own: run with a port and three counts.

The first never finish their request's head, the second ask for a flood and never read, the third connect and
leave in a tight loop. Whoever is cut comes back. Says "ready" when all have connected once, and what it counted,
as JSON, when its standard input ends.
"""

from __future__ import annotations

import json
import socket
import struct
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial

import trio

RESET = struct.pack("ii", 1, 0)

# How long each waits for anything; far above what the server takes for it, and not for ever.
PATIENCE = 60.0

counts: Counter[str] = Counter()


async def _connect(port: int, receive_buffer: int | None = None) -> trio.SocketStream:
    sock = trio.socket.socket()
    if receive_buffer is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    try:
        await sock.connect(("127.0.0.1", port))
    except BaseException:
        sock.close()
        raise
    return trio.SocketStream(sock)


async def never_finishing(port: int, connected: Callable[[], None]) -> None:
    async with await _connect(port) as stream:
        connected()
        try:
            await stream.send_all(b"GET /v1/sessions/flood/events HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")
            while True:
                with trio.move_on_after(1.0):
                    await stream.receive_some(4096)
                    break
                await stream.send_all(b"x")
        except trio.BrokenResourceError:
            pass
        counts["heads cut"] += 1


async def never_reading(port: int, connected: Callable[[], None]) -> None:
    async with await _connect(port, receive_buffer=2048) as stream:
        connected()
        await stream.send_all(b"GET /v1/sessions/flood/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        # Without reading: that we were cut shows in what we send.
        try:
            while True:
                await trio.sleep(1.0)
                await stream.send_all(b"\n")
        except trio.BrokenResourceError:
            counts["readers cut"] += 1


async def reconnecting(port: int, connected: Callable[[], None]) -> None:
    for round_ in range(100):
        stream = await _connect(port)
        connected()
        if round_ % 2:
            await stream.send_all(b"GET /v1/sessions/flood/events?after=now HTTP/1.1\r\nHost: localhost\r\n\r\n")
        if round_ % 4 == 1:
            await stream.receive_some(1)
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        await stream.aclose()
        counts["reconnects"] += 1


async def _for_ever(attack: Callable[[Callable[[], None]], Awaitable[None]], connected: Callable[[], None]) -> None:
    while True:
        try:
            with trio.move_on_after(PATIENCE):
                await attack(connected)
        except (OSError, trio.BrokenResourceError):
            await trio.sleep(0.05)  # the server may have gone


async def _until_told() -> None:
    async with trio.lowlevel.FdStream(sys.stdin.fileno()) as told:
        with suppress(trio.BrokenResourceError):
            while await told.receive_some(64):
                pass


async def main(port: int, heads: int, unread: int, loops: int) -> None:
    async with trio.open_nursery() as nursery:
        left = heads + unread + loops
        ready = trio.Event()

        def once() -> Callable[[], None]:
            told = False

            def connected() -> None:
                nonlocal told, left
                if not told:
                    told = True
                    left -= 1
                    if not left:
                        ready.set()

            return connected

        for number, attack in ((heads, never_finishing), (unread, never_reading), (loops, reconnecting)):
            for _ in range(number):
                nursery.start_soon(_for_ever, partial(attack, port), once())
        await ready.wait()
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        await _until_told()
        nursery.cancel_scope.cancel()
    sys.stdout.write(json.dumps(counts))


if __name__ == "__main__":
    asked_port, *asked = map(int, sys.argv[1:])
    trio.run(main, asked_port, asked[0], asked[1], asked[2])
