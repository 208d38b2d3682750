"""B6: from asking for a new answer to a viewer's seeing the old one's end and the new one's start."""

from __future__ import annotations

import json
import socket
import time

from penstock.engine import JSONObject
from tests.benchmarks.bench import Bench, Context, Incomplete
from tests.benchmarks.measures.reading import MILLI
from tests.benchmarks.samples import Delays
from tests.benchmarks.systems.penstock import events, open_penstock

__all__ = ["b6"]

_SESSION = "taken-over"

# The old answer is being written when the new one is asked for; those of the other sessions say something now and then.
_RATE = 30.0
_LIVE_RATE = 1.0
_FOREVER = 1_000_000

_PATIENCE = 30.0


class _Asking:
    """One viewer and one keep-alive connection that asks, in one thread, so that both clocks are one."""

    def __init__(self, address: tuple[str, int], viewer: bytes, size: int) -> None:
        self._size = size
        self._asks = socket.create_connection(address, timeout=_PATIENCE)
        self._asks.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._views = socket.create_connection(address, timeout=_PATIENCE)
        self._views.sendall(viewer)
        self._seen = b""

    def first(self) -> None:
        """Start the first one, which takes over from none, and see it write."""
        self._ask()
        self._answer()
        self.written()

    def start(self) -> tuple[int, int, int]:
        """Start one more; when it was asked for, and when the old one's end and the new one's start were seen."""
        begun = time.monotonic_ns()
        self._ask()
        ended = self._until(b'"generation.finished"')
        started = self._until(b'"generation.started"')
        self._answer()
        return begun, ended, started

    def _ask(self) -> None:
        given: JSONObject = {"count": _FOREVER, "rate": _RATE, "size": self._size}
        content = json.dumps({"producer": "source", "input": given}).encode()
        head = f"POST /v1/sessions/{_SESSION}/generations HTTP/1.1\r\nHost: localhost\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
        self._asks.sendall(head.encode() + content)

    def written(self) -> None:
        """Wait until the new one writes, and pass over it."""
        self._until(b'"block.delta"')

    def _until(self, mark: bytes) -> int:
        """When it has been seen; what lies before it is passed over."""
        while (at := self._seen.find(mark)) < 0:
            piece = self._views.recv(65536)
            if not piece:
                raise Incomplete("the viewer's stream ended")
            self._seen = self._seen[-len(mark) :] + piece
        self._seen = self._seen[at + len(mark) :]
        return time.monotonic_ns()

    def _answer(self) -> None:
        data = b""
        while b"\r\n\r\n" not in data or not data.endswith(b"}"):
            piece = self._asks.recv(65536)
            if not piece:
                raise Incomplete("the connection that asks was closed")
            data += piece
        if not data.startswith(b"HTTP/1.1 201"):
            raise Incomplete(f"a start was answered with {data!r:.300}")

    def close(self) -> None:
        self._asks.close()
        self._views.close()


def _takeovers(context: Context, live: int, name: str) -> dict[str, float]:
    sizes = context.sizes
    folder = context.folder / name
    folder.mkdir()
    with open_penstock(folder) as served:
        for number in range(live):
            name_ = f"live-{number}"
            served.create([name_])
            served.start(name_, {"count": _FOREVER, "rate": _LIVE_RATE, "size": sizes.text, "phase": number / live})
        served.create([_SESSION])
        asking = _Asking(served.address, events(_SESSION), sizes.text)
        try:
            asking.first()
            ended, started = [], []
            for _ in range(sizes.takeovers):
                begun, end, start = asking.start()
                ended.append(end - begun)
                started.append(start - begun)
                asking.written()
        finally:
            asking.close()
    seen, ends = Delays.of(started), Delays.of(ended)
    return {
        f"{name}.p50_ms": seen.p50 * MILLI,
        f"{name}.p99_ms": seen.p99 * MILLI,
        f"{name}.ended_p50_ms": ends.p50 * MILLI,
        f"{name}.ended_p99_ms": ends.p99 * MILLI,
    }


def _penstock(context: Context) -> dict[str, float]:
    return {**_takeovers(context, 0, "idle"), **_takeovers(context, context.sizes.live, "live")}


def b6() -> Bench:
    return Bench("B6", "From asking for a new answer to its start's being seen, in ms", {"penstock": _penstock})
