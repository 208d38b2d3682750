"""penstock as its users run it: ``penstock serve`` with a producer of the benchmark's."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, final

from penstock.adapters.cli.bench.serving import Bench, serving
from penstock.adapters.cli.bench.viewing import Viewer
from tests.benchmarks.systems.base import Server, Source, check_time

__all__ = ["Penstock", "open_penstock", "open_penstock_websocket"]

# Behind it a reader follows live.
_READY: Final = b"caught-up"


@final
class Penstock(Server):
    def __init__(self, bench: Bench, *, websocket: bool) -> None:
        self.bench: Final = bench
        self._websocket = websocket

    @property
    def address(self) -> tuple[str, int]:
        return self.bench.address

    @property
    def pids(self) -> Sequence[int]:
        return [self.bench.pid]

    def viewers(self, streams: Sequence[str], each: int, expected: int, *, shared: bool) -> list[Viewer]:
        for name in streams:
            self.bench.create(name)
        sends = [_subscribing(name) if self._websocket else (self.bench.request(name),) for name in streams]
        return [Viewer(sends=sent, expected=expected, ready=_READY) for sent in sends for _ in range(each)]

    def go(self, streams: Sequence[str], source: Source) -> None:
        for place, name in enumerate(streams):
            self.bench.start(name, {**source.to_json(), "phase": place / len(streams)})
        check_time(source)


def _subscribing(session_id: str) -> tuple[bytes, bytes]:
    """A handshake, and the frame behind it that subscribes; masked with zeros, as a client must mask."""
    key = base64.b64encode(bytes(16)).decode()
    handshake = (
        "GET /v1/ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Protocol: penstock.v1\r\n\r\n"
    )
    text = json.dumps({"op": "subscribe", "id": 1, "session_id": session_id}).encode()
    assert len(text) < 126  # a longer one has its length elsewhere
    return handshake.encode(), struct.pack("!BBI", 0x81, 0x80 | len(text), 0) + text


@contextmanager
def open_penstock(folder: Path) -> Iterator[Penstock]:
    """Read over server-sent events."""
    with serving(folder) as bench:
        yield Penstock(bench, websocket=False)


@contextmanager
def open_penstock_websocket(folder: Path) -> Iterator[Penstock]:
    """Read over WebSocket."""
    with serving(folder) as bench:
        yield Penstock(bench, websocket=True)
