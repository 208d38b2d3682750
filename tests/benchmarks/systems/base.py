"""What the harness needs of a system that serves event streams, whoever it is."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final, Protocol, TypeAlias, final

from attrs import evolve, frozen

from penstock.adapters.cli.bench.viewing import Viewer
from penstock.engine import JSON, JSONObject
from tests.benchmarks.children import Child

__all__ = ["Late", "Open", "Plain", "Server", "Source", "ask"]


class Late(Exception):
    """The harness was not ready when the first event was due: it was the bound, not the system."""


@final
@frozen(kw_only=True)
class Source:
    """What is to be written into each stream: ``count`` events, ``rate`` a second, or as fast as they go for 0.

    ``begin`` is by `time.monotonic_ns`; 0 is now. Streams at a pace take turns.
    """

    count: int
    size: int
    rate: float = 0
    begin: int = 0

    def to_json(self) -> JSONObject:
        return {"count": self.count, "size": self.size, "rate": self.rate, "begin": self.begin}

    def soon(self, seconds: float) -> Source:
        """The same, beginning in so many seconds."""
        return evolve(self, begin=time.monotonic_ns() + int(seconds * 1e9))


class Server(Protocol):
    """A running system."""

    @property
    def address(self) -> tuple[str, int]: ...

    @property
    def pids(self) -> Sequence[int]:
        """Its processes, for what they cost."""

    def viewers(self, streams: Sequence[str], each: int, expected: int, *, shared: bool) -> list[Viewer]:
        """Make the streams; ``each`` readers of each of them. ``shared``: many read what one writes."""

    def go(self, streams: Sequence[str], source: Source) -> None:
        """Let the source write into each of them. Returns before it has. Raises `Late`."""


# Starts a system with its files in a folder; it ends when the block is left.
Open: TypeAlias = Callable[[Path], AbstractContextManager[Server]]


@final
class Plain(Server):
    """A peer of ours: streams at ``/events/NAME``, and ``POST /go`` to let something be written into them."""

    def __init__(self, child: Child, others: Sequence[Child] = ()) -> None:
        self._address: Final = ("127.0.0.1", int(str(child.answer(30)["port"])))
        self._pids: Final = [child.pid, *(other.pid for other in others)]

    @property
    def address(self) -> tuple[str, int]:
        return self._address

    @property
    def pids(self) -> Sequence[int]:
        return self._pids

    def viewers(self, streams: Sequence[str], each: int, expected: int, *, shared: bool) -> list[Viewer]:
        query = "?shared=1" if shared else ""
        requests = (f"GET /events/{name}{query} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode() for name in streams)
        return [Viewer(sends=(request,), expected=expected) for request in requests for _ in range(each)]

    def go(self, streams: Sequence[str], source: Source) -> None:
        ask(self._address, "POST", "/go", {"streams": list(streams), **source.to_json()})
        check_time(source)


def check_time(source: Source) -> None:
    """Raises `Late` when the source should have begun by now."""
    if source.begin and time.monotonic_ns() > source.begin:
        raise Late("not all sources were started before the first event was due")


def ask(address: tuple[str, int], method: str, path: str, body: Mapping[str, JSON]) -> JSONObject:
    """One request on a connection of its own. Raises `OSError` for what is no success."""
    connection = http.client.HTTPConnection(*address, timeout=120)
    try:
        connection.request(method, path, json.dumps(dict(body)).encode(), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        text = answer.read()
        if answer.status >= 300:
            raise OSError(f"{method} {path} was answered with {answer.status}: {text[:200]!r}")
        found = json.loads(text) if text else {}
        return found if isinstance(found, dict) else {}
    finally:
        connection.close()
