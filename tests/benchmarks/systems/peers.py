"""The systems that penstock is held against, each started in processes of its own."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final, final

from tests.benchmarks.children import Child, ChildFailed, python
from tests.benchmarks.peers.install import Peers
from tests.benchmarks.systems.base import Open, Plain, Server, Source, ask, get
from tests.benchmarks.viewers import Viewer
from tests.benchmarks.writers import Order, writer

__all__ = ["DurableStreams", "durable_streams", "raw_trio", "redis_streams", "uvicorn"]

_START: Final = 30.0

# Durable Streams' burst comes over HTTP as everything does: so many events in a request.
_BURST_BATCH: Final = 100


@contextmanager
def raw_trio(folder: Path) -> Iterator[Server]:
    """Sockets on trio and nothing above them."""
    with Child(python("tests.benchmarks.peers.raw_trio"), folder, "raw-trio") as child:
        yield Plain(child)


def uvicorn(peers: Peers, kind: str) -> Open:
    """``kind``: starlette or sse-starlette."""

    @contextmanager
    def opened(folder: Path) -> Iterator[Server]:
        command = python("tests.benchmarks.peers.uvicorn_app", kind, interpreter=peers.python())
        with Child(command, folder, kind) as child:
            yield Plain(child)

    return opened


def redis_streams(peers: Peers, appendfsync: str) -> Open:
    """``appendfsync``: always or everysec."""

    @contextmanager
    def opened(folder: Path) -> Iterator[Server]:
        binary, environment = peers.redis()
        interpreter = peers.python()
        port = _free_port()
        options = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", ""]
        options += ["--appendonly", "yes", "--appendfsync", appendfsync, "--daemonize", "no", "--maxclients", "4096"]
        with ExitStack() as stack:
            server = stack.enter_context(Child([binary, *options], folder, "redis", environment))
            _wait_port(port)
            bridge = python("tests.benchmarks.peers.redis_bridge", str(port), interpreter=interpreter)
            yield Plain(stack.enter_context(Child(bridge, folder, "redis-bridge")), server)

    return opened


@final
class DurableStreams(Server):
    """What is written comes over HTTP, from a process of its own: there is no other way in."""

    def __init__(self, child: Child, folder: Path, stack: ExitStack) -> None:
        super().__init__(child.answer(_START)["port"], child)
        self._folder = folder
        self._stack = stack

    def create(self, streams: Sequence[str]) -> None:
        for name in streams:
            ask(self.address, "PUT", f"/v1/stream/{name}", {})

    def viewer(self, stream: str, expected: int, *, shared: bool = False) -> Viewer:
        request = get(f"/v1/stream/{stream}?offset=-1&live=sse")
        return Viewer(sends=(request,), expected=expected, ready=b"upToDate")

    def begin(self, streams: Sequence[str], source: Source) -> None:
        order = Order(
            kind="durable-streams",
            address=self.address,
            streams=tuple(streams),
            connections=len(streams),
            batch=1 if source.rate else min(_BURST_BATCH, source.count),
            count=source.count,
            rate=source.rate,
            begin=source.begin,
            size=source.size,
        )
        self._stack.enter_context(writer(self._folder, order))


def durable_streams(peers: Peers, *, files: bool) -> Open:
    """Backed by files, or in memory."""

    @contextmanager
    def opened(folder: Path) -> Iterator[Server]:
        place = folder / "durable-streams"
        place.mkdir(exist_ok=True)
        script = str(Path(__file__).parents[1] / "peers" / "durable_streams.mjs")
        command = ["node", script, str(peers.node_packages()), *([str(place)] if files else [])]
        with Child(command, folder, "durable-streams") as child, ExitStack() as stack:
            yield DurableStreams(child, folder, stack)

    return opened


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def _wait_port(port: int) -> None:
    end = time.monotonic() + _START
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            if time.monotonic() > end:
                raise ChildFailed(f"nothing listens on port {port}; see redis.log") from None
            time.sleep(0.02)
        else:
            return
