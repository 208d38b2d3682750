"""The limit: sockets on trio and nothing above them, which write the bytes that penstock would have written.

Speaks just enough HTTP for the harness; prints its port. A burst is made beforehand and written 128 events at a time,
as a commit of penstock's brings them; at a pace each event is a write of its own.
"""

from __future__ import annotations

import json
import time
from typing import Any

import trio

from tests.benchmarks.payload import body, chunk, frame, stamped

__all__: list[str] = []

_PER_WRITE = 128
_LEAD = 0.2

_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_DONE = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"


class _Stream:
    def __init__(self) -> None:
        self.going = trio.Event()
        self.plan: dict[str, Any] = {}
        self.pieces: list[bytes] = []


_streams: dict[str, _Stream] = {}


def _stream(name: str) -> _Stream:
    return _streams.setdefault(name, _Stream())


async def _sleep_until(due: int) -> None:
    left = due - time.monotonic_ns()
    if left > 0:
        await trio.sleep(left / 1e9)


def _go(plan: dict[str, Any]) -> None:
    for place, name in enumerate(plan["streams"]):
        stream = _stream(name)
        stream.plan = {**plan, "phase": place / len(plan["streams"])}
        if not plan["rate"]:
            # It takes a second for 100 000 events, before the first is due.
            begin = time.monotonic_ns() + int((_LEAD + plan["count"] * 1e-5) * 1e9)
            stream.plan["begin"] = begin
            frames = [frame(n, body(name, n, stamped(begin, plan["size"]))) for n in range(1, plan["count"] + 1)]
            groups = (frames[at : at + _PER_WRITE] for at in range(0, len(frames), _PER_WRITE))
            stream.pieces = [chunk(b"".join(group)) for group in groups]
        stream.going.set()


async def _write(connection: trio.SocketStream, name: str) -> None:
    await connection.send_all(_HEAD)
    stream = _stream(name)
    await stream.going.wait()
    plan = stream.plan
    if stream.pieces:
        await _sleep_until(plan["begin"])
        for piece in stream.pieces:
            await connection.send_all(piece)
        return
    for number in range(plan["count"]):
        due = plan["begin"] + int((number + plan["phase"]) * 1e9 / plan["rate"])
        await _sleep_until(due)
        await connection.send_all(chunk(frame(number + 1, body(name, number + 1, stamped(due, plan["size"])))))


async def _serve(connection: trio.SocketStream) -> None:
    try:
        data = b""
        while b"\r\n\r\n" not in data:
            piece = await connection.receive_some()
            if not piece:
                return
            data += piece
        head, _, sent = data.partition(b"\r\n\r\n")
        method, path, _ = head.split(b" ", 2)
        if method == b"POST":
            (length,) = (int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            while len(sent) < length:
                sent += await connection.receive_some()
            _go(json.loads(sent))
            await connection.send_all(_DONE)
        else:
            await _write(connection, path.decode().partition("?")[0].rpartition("/")[2])
            while await connection.receive_some():
                pass
    except trio.BrokenResourceError:
        pass
    finally:
        await trio.aclose_forcefully(connection)


async def main() -> None:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    print(json.dumps({"port": listeners[0].socket.getsockname()[1]}), flush=True)  # noqa: T201  the pipe to the harness
    await trio.serve_listeners(_serve, listeners)


if __name__ == "__main__":
    trio.run(main)
