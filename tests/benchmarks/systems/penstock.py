"""penstock as its users run it: ``penstock serve`` with a producer of the benchmark's."""

from __future__ import annotations

import base64
import json
import re
import struct
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final, final

from attrs import asdict

from penstock.engine import JSON, JSONObject
from tests.benchmarks.children import Child, ChildFailed, python
from tests.benchmarks.systems.base import Server, Source, connected, exchange, get
from tests.benchmarks.viewers import Viewer

__all__ = ["Penstock", "events", "open_penstock"]

_START: Final = 30.0

# Behind it a reader follows live.
_READY: Final = b"caught-up"


@final
class Penstock(Server):
    """Read over server-sent events, or over WebSocket. Requests are made one after the other, from any thread.

    ``token`` is what they are made with, where the server asks for one.
    """

    def __init__(self, child: Child, *, websocket: bool, token: str | None = None) -> None:
        found = re.search(r"http://127\.0\.0\.1:(\d+)/", child.line(_START))
        if found is None:
            raise ChildFailed("penstock did not say where it listens")
        super().__init__(int(found[1]), child)
        self._child: Final = child
        self._websocket = websocket
        self._connection: Final = connected(self.address)
        self._asking: Final = threading.Lock()
        self._headers: Final = {} if token is None else {"Authorization": f"Bearer {token}"}

    def ask(self, method: str, path: str, body: Mapping[str, JSON] | None = None) -> JSONObject:
        """One request; the parsed answer. Raises `OSError` for what is no success."""
        with self._asking:
            return exchange(self._connection, method, path, body or {}, self._headers)

    def create(self, streams: Sequence[str]) -> None:
        for name in streams:
            self.ask("PUT", f"/v1/sessions/{name}")

    def start(self, session_id: str, source: Mapping[str, JSON]) -> None:
        """Let the source write into the session, as it is told: see `sources.source`."""
        given: JSONObject = {"producer": "source", "input": dict(source)}
        self.ask("POST", f"/v1/sessions/{session_id}/generations", given)

    def viewer(self, stream: str, expected: int, *, shared: bool = False) -> Viewer:
        sends = _subscribing(stream) if self._websocket else (events(stream),)
        return Viewer(sends=sends, expected=expected, ready=_READY)

    def begin(self, streams: Sequence[str], source: Source) -> None:
        for place, name in enumerate(streams):
            self.start(name, {**asdict(source), "phase": place / len(streams)})

    def kill(self) -> None:
        """As kill -9."""
        self._child.kill()

    def close(self) -> None:
        self._connection.close()


def events(session_id: str, query: str = "") -> bytes:
    """What a reader of the session's events sends."""
    return get(f"/v1/sessions/{session_id}/events{query}")


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
def open_penstock(
    folder: Path,
    *,
    db: str = "bench.db",
    log: str | None = None,
    name: str = "penstock",
    websocket: bool = False,
    options: Sequence[str] = (),
    token: str | None = None,
) -> Iterator[Penstock]:
    """A server over a database in ``folder``, or the ``log`` at a URL, ended when the block is left.

    Its processes have ``name``, whose log is in the folder. Raises `ChildFailed`.
    """
    place = ("--db", str(folder / db)) if log is None else ("--log", log)
    command = python("penstock.adapters.cli", "serve", *place, "--port", "0")
    command += ["--producer", "source=tests.benchmarks.sources:source", "--log-level", "warning", *options]
    with (
        Child(command, folder, name) as child,
        closing(Penstock(child, websocket=websocket, token=token)) as server,
    ):
        yield server
