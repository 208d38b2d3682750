"""Readers for end-to-end tests, written on sockets alone: they see bytes as they come and can be cut anywhere."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

__all__ = ["SseReader", "call", "fold_frames"]

TIMEOUT = 30.0


def call(url: str, method: str, path: str, body: object = None) -> Any:
    """One request; the parsed answer. Raises HTTPError for what is no success."""
    data = None if body is None else json.dumps(body).encode()
    request = Request(url + path, data=data, method=method, headers={"Content-Type": "application/json"})
    with urlopen(request, timeout=TIMEOUT) as answer:
        text = answer.read()
    return json.loads(text) if text else None


class SseReader:
    """One connection to an event stream. ``last_id`` is what a browser would send to resume.

    ``received`` holds every event as (id, data) in the order it came; control frames are in ``control``.
    """

    def __init__(self, url: str, path: str, last_id: str = "", *, receive_buffer: int | None = None) -> None:
        where = urlsplit(url)
        assert where.hostname
        assert where.port
        self.last_id = last_id
        self.received: list[tuple[str, bytes]] = []
        self.control: list[tuple[str, Any]] = []
        self._pending = b""
        self._body = b""
        self._headers = b""
        self.over = False  # the stream was ended in an orderly way
        self.socket = socket.socket()
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(TIMEOUT)
        self.socket.connect((where.hostname, where.port))
        resume = f"Last-Event-ID: {last_id}\r\n" if last_id else ""
        head = f"GET {path} HTTP/1.1\r\nHost: {where.netloc}\r\nAccept: text/event-stream\r\n{resume}\r\n"
        self.socket.sendall(head.encode())

    def close(self) -> None:
        self.socket.close()

    def read(self, most: int = 65536) -> bool:
        """Take at most so many bytes; False when the stream is over."""
        try:
            data = self.socket.recv(most)
        except ConnectionError:
            return False
        self._pending += data
        self._take()
        return bool(data) and not self.over

    def frames(self) -> Iterator[tuple[str, bytes]]:
        """Every event until the stream is over or the caller has enough; then the connection is closed."""
        taken = 0
        try:
            while True:
                while taken < len(self.received):
                    yield self.received[taken]
                    taken += 1
                if self.over or not (self.read() or len(self.received) > taken):
                    return
        finally:
            self.close()

    def _take(self) -> None:
        if not self._headers:
            head, found, rest = self._pending.partition(b"\r\n\r\n")
            if not found:
                return
            assert head.startswith(b"HTTP/1.1 200"), self._pending
            self._headers, self._pending = head, rest
        while True:
            size, found, rest = self._pending.partition(b"\r\n")
            if not found or len(rest) < int(size, 16) + 2:
                break
            self.over = self.over or int(size, 16) == 0
            self._body += rest[: int(size, 16)]
            self._pending = rest[int(size, 16) + 2 :]
        *whole, self._body = self._body.split(b"\n\n")
        for frame in whole:
            self._dispatch(frame)

    def _dispatch(self, frame: bytes) -> None:
        fields: dict[str, bytes] = {}
        for line in frame.split(b"\n"):
            name, _, value = line.partition(b": ")
            if name:
                fields[name.decode()] = value
        if "event" in fields:
            self.control.append((fields["event"].decode(), json.loads(fields["data"])))
        elif "data" in fields:
            self.received.append((fields.get("id", b"").decode(), fields["data"]))
        if "id" in fields:
            self.last_id = fields["id"].decode()


def fold_frames(frames: list[tuple[str, bytes]]) -> str:
    """The text that these events add up to, all blocks in order."""
    return "".join(json.loads(data)["data"].get("text", "") for _, data in frames if b'"block.delta"' in data)
