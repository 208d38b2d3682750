"""What the harness needs of a system that serves event streams, whoever it is."""

from __future__ import annotations

import http.client
import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Final, TypeAlias, final

from attrs import asdict, evolve, frozen

from penstock.engine import JSON, JSONObject
from tests.benchmarks.children import Child
from tests.benchmarks.viewers import Viewer

__all__ = ["Late", "Open", "Plain", "Server", "Source", "ask", "connected", "exchange", "get"]

_PATIENCE: Final = 120.0


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

    def soon(self, seconds: float) -> Source:
        """The same, beginning in so many seconds."""
        return evolve(self, begin=time.monotonic_ns() + int(seconds * 1e9))


class Server(ABC):
    """A running system. ``pids`` are its processes, for what they cost."""

    def __init__(self, port: float, *processes: Child) -> None:
        self.address: Final = ("127.0.0.1", int(port))
        self.pids: Final = [process.pid for process in processes]

    def viewers(self, streams: Sequence[str], each: int, expected: int, *, shared: bool) -> list[Viewer]:
        """Make the streams; ``each`` readers of each of them. ``shared``: many read what one writes."""
        self.create(streams)
        return [viewer for name in streams for viewer in [self.viewer(name, expected, shared=shared)] * each]

    @abstractmethod
    def create(self, streams: Sequence[str]) -> None:
        """Make the streams, where they have to be made."""

    @abstractmethod
    def viewer(self, stream: str, expected: int, *, shared: bool = False) -> Viewer:
        """A reader that is ready when it follows the stream."""

    def go(self, streams: Sequence[str], source: Source) -> None:
        """Let the source write into each of them. Returns before it has. Raises `Late`."""
        self.begin(streams, source)
        if source.begin and time.monotonic_ns() > source.begin:
            raise Late("not all sources were started before the first event was due")

    @abstractmethod
    def begin(self, streams: Sequence[str], source: Source) -> None:
        """As `go`, whatever the time."""


# Starts a system with its files in a folder; it ends when the block is left.
Open: TypeAlias = Callable[[Path], AbstractContextManager[Server]]


@final
class Plain(Server):
    """A peer of ours: streams at ``/events/NAME``, and ``POST /go`` to let something be written into them."""

    def __init__(self, child: Child, *others: Child) -> None:
        super().__init__(child.answer(30)["port"], child, *others)

    def create(self, streams: Sequence[str]) -> None:
        """A stream is made when it is first named."""

    def viewer(self, stream: str, expected: int, *, shared: bool = False) -> Viewer:
        return Viewer(sends=(get(f"/events/{stream}{'?shared=1' if shared else ''}"),), expected=expected)

    def begin(self, streams: Sequence[str], source: Source) -> None:
        ask(self.address, "POST", "/go", {"streams": list(streams), **asdict(source)})


def get(path: str, token: str | None = None) -> bytes:
    """What a reader sends, who may have a token."""
    who = "" if token is None else f"Authorization: Bearer {token}\r\n"
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{who}\r\n".encode()


def connected(address: tuple[str, int]) -> http.client.HTTPConnection:
    """A connection for requests, one after the other; it is made with the first."""
    return http.client.HTTPConnection(*address, timeout=_PATIENCE)


def exchange(
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    body: Mapping[str, JSON],
    headers: Mapping[str, str] | None = None,
) -> JSONObject:
    """One request; the parsed answer. Raises `OSError` for what is no success."""
    told = {"Content-Type": "application/json", **(headers or {})}
    connection.request(method, path, json.dumps(dict(body)).encode(), told)
    answer = connection.getresponse()
    text = answer.read()
    if answer.status >= 300:
        raise OSError(f"{method} {path} was answered with {answer.status}: {text[:300]!r}")
    found = json.loads(text) if text else {}
    return found if isinstance(found, dict) else {}


def ask(address: tuple[str, int], method: str, path: str, body: Mapping[str, JSON]) -> JSONObject:
    """As `exchange`, on a connection of its own."""
    with closing(connected(address)) as connection:
        return exchange(connection, method, path, body)
