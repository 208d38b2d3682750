"""Several `penstock serve` over one Redis, as nodes of one service, and a balancer in front of them."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Final, final

import trio
from attrs import define

from tests.e2e.conftest import ServerProcess
from tests.engine.stores import free_port

__all__ = ["Balancer", "Life", "Node", "as_nodes", "clock_library"]


def clock_library() -> str | None:
    """Where libfaketime is, by which a process's wall clock is set while it runs. None: it is not installed."""
    found = [*Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), *Path("/usr/lib/faketime").glob("*MT.so.1")]
    named = shutil.which("faketime")
    if not found and named is not None:
        found = [*Path(named).parents[1].glob("lib/*/faketime/libfaketimeMT.so.1")]
    return str(found[0]) if found else None


def as_nodes(folder: Path, name: str, ttl: float) -> list[str]:
    """What `penstock serve` is told to be a node of this name among others, which share the folder's secret."""
    secret = folder / "secret"
    if not secret.exists():
        secret.write_text("of-all-nodes-" * 4)
        secret.chmod(0o600)
    port = free_port()
    return [
        *("--node", name, "--node-listen", f"127.0.0.1:{port}", "--node-url", f"http://127.0.0.1:{port}"),
        *("--cluster-secret-file", str(secret), "--lease-ttl", f"{ttl:g}"),
    ]


@define
class Life:
    """One process of a node's. Times are those of `time.monotonic`."""

    began: float
    ended: float | None = None


@final
class Node:
    """One `penstock serve`, which is killed, paused and started again. Its public port is another in each life."""

    def __init__(
        self, name: str, folder: Path, url: str, *arguments: str, variables: Mapping[str, str] | None = None
    ) -> None:
        """``url`` is the log's. The folder is the node's own."""
        folder.mkdir(exist_ok=True)
        self.name: Final = name
        self.folder: Final = folder
        self.lives: list[Life] = []
        self.away_since: float | None = None  # paused, or cut off from the store
        self._url: Final = url
        self._arguments: Final = arguments
        self._variables: Final = variables
        self._server: ServerProcess | None = None

    def start(self) -> None:
        """Returns when it serves; the test fails if it does not."""
        self.lives.append(Life(time.monotonic()))
        self._server = ServerProcess(self.folder, *self._arguments, url=self._url, variables=self._variables)

    @property
    def server(self) -> ServerProcess:
        assert self._server is not None, f"{self.name} was never started"
        return self._server

    @property
    def up(self) -> bool:
        """Whether it takes connections: one that is paused does."""
        return self._server is not None and self._server.process.poll() is None

    @property
    def url(self) -> str:
        return self.server.url

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def kill(self) -> None:
        """As kill -9."""
        if self._server is not None:
            self._server.kill()
            self._ended()

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        code = self.server.stop()
        self._ended()
        return code

    def pause(self) -> None:
        self.away_since = time.monotonic()
        self.server.signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self.server.signal(signal.SIGCONT)
        self.away_since = None

    def _ended(self) -> None:
        self.away_since = None
        if self.lives and self.lives[-1].ended is None:
            self.lives[-1].ended = time.monotonic()


@final
class Balancer:
    """Hands each connection to the next of the nodes that takes it. It asks none whether it is well."""

    def __init__(self, nodes: Callable[[], list[Node]]) -> None:
        self._nodes: Final = nodes
        self._turn = 0
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled."""
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.port = listener.socket.getsockname()[1]
        async with trio.open_nursery() as nursery:
            await nursery.start(partial(trio.serve_listeners, self._carry, [listener]))
            task_status.started()

    async def _carry(self, client: trio.SocketStream) -> None:
        async with client:
            node = await self._open()
            if node is not None:
                async with node, trio.open_nursery() as nursery:
                    nursery.start_soon(_pass, client, node, nursery.cancel_scope)
                    nursery.start_soon(_pass, node, client, nursery.cancel_scope)

    async def _open(self) -> trio.SocketStream | None:
        nodes = [node for node in self._nodes() if node.up]
        for _ in nodes:
            self._turn += 1
            try:
                return await trio.open_tcp_stream("127.0.0.1", nodes[self._turn % len(nodes)].port)
            except OSError:
                continue
        return None


async def _pass(source: trio.SocketStream, sink: trio.SocketStream, both: trio.CancelScope) -> None:
    try:
        while piece := await source.receive_some():
            await sink.send_all(piece)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass  # the other side learns it by the end of its own
    both.cancel(reason="one side has ended")
