"""A penstock server in memory, for producers: what it stores, what it refuses, and a network that does as it is told.

It keeps the rules that a producer's client must live with: exactly-once by the producer's numbers, dense seqs, one
live generation, and nothing under one that has ended. All of it runs under a mock clock.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import httpx
import trio

from penstock.adapters.client import Client, ClientConfig, Token, connect
from penstock.adapters.problems import TABLE

__all__ = ["Carry", "FakeServer", "Fate", "answer_lost", "delayed", "refused", "request_lost"]

JSONDict = dict[str, object]
Carry = Callable[[], Awaitable[httpx.Response]]

# What becomes of one request: it may be carried out, or not, and the answer may arrive, or not.
Fate = Callable[[Carry], Awaitable[httpx.Response]]


async def request_lost(carry: Carry) -> httpx.Response:
    """The connection breaks before the server has it."""
    raise httpx.ConnectError("lost")


async def answer_lost(carry: Carry) -> httpx.Response:
    """The server does it, and the connection breaks before the answer."""
    await carry()
    raise httpx.ReadError("lost")


def refused(status: int, code: str | None = None, **headers: str) -> Fate:
    """The server, or a proxy where there is no code, refuses and does nothing."""

    async def fate(carry: Carry) -> httpx.Response:
        return problem(code, status, headers)

    return fate


def delayed(seconds: float) -> Fate:
    async def fate(carry: Carry) -> httpx.Response:
        await trio.sleep(seconds)
        return await carry()

    return fate


async def as_it_is(carry: Carry) -> httpx.Response:
    return await carry()


def problem(code: str | None, status: int = 0, headers: dict[str, str] | None = None) -> httpx.Response:
    made = {name.replace("_", "-"): value for name, value in (headers or {}).items()}
    if code is None:
        return httpx.Response(status, headers=made, text="<html>a proxy</html>")
    status = status or TABLE[code].status
    return httpx.Response(
        status,
        headers=made | {"Content-Type": "application/problem+json"},
        json={"code": code, "status": status, "detail": "so it is", "retryable": TABLE[code].retryable},
    )


class FakeServer(httpx.AsyncBaseTransport):
    """One session. ``fates`` are used up, one a request that is about chunks or an end, and ``makings``, one a request
    that makes the session; then all goes well.
    """

    def __init__(self, *fates: Fate, exists: bool = True, latency: float = 0.0, makings: Sequence[Fate] = ()) -> None:
        self.fates: deque[Fate] = deque(fates)
        self.makings: deque[Fate] = deque(makings)
        self.exists = exists
        self.deleted = False
        self.latency = latency
        self.chunks: list[JSONDict] = []
        self.batches: list[int] = []
        self.signs: list[float] = []  # when the producer said no more than that it lives
        self.requests: list[httpx.Request] = []
        self.times: list[float] = []
        self.ends: list[JSONDict] = []
        self.stops: list[JSONDict] = []
        self.stale = False
        self.token: str | None = None
        self.closed_requests = 0
        self._next_seq: dict[str, int] = {}
        self._seqs: dict[tuple[object, object], int] = {}

    @asynccontextmanager
    async def client(self, config: ClientConfig | None = None, token: Token = None) -> AsyncIterator[Client]:
        async with connect("http://fake", config=config, token=token, transport=self) as client:
            yield client

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        assert isinstance(request.stream, httpx.AsyncByteStream)
        content = b"".join([piece async for piece in request.stream])
        assert request.headers.get("content-length", "0") == str(len(content))
        request = httpx.Request(request.method, request.url, headers=request.headers, content=content)
        path = request.url.path
        if re.search(r"/(chunks/batch|finish)$", path):
            self.requests.append(request)
            self.times.append(trio.current_time())
            fate = self.fates.popleft() if self.fates else as_it_is
        elif request.method == "PUT" and self.makings:
            fate = self.makings.popleft()
        else:
            fate = as_it_is

        async def carry() -> httpx.Response:
            return self._carry_out(request)

        try:
            if self.latency:
                await trio.sleep(self.latency)
            else:
                await trio.lowlevel.checkpoint()
            return await fate(carry)
        except trio.Cancelled:
            self.closed_requests += 1
            raise

    @property
    def text(self) -> str:
        return "".join(str(data.get("text", "")) for data in self.datas)

    @property
    def datas(self) -> list[JSONDict]:
        return [data for chunk in self.chunks if isinstance(data := chunk["data"], dict)]

    @property
    def types(self) -> list[object]:
        return [chunk["type"] for chunk in self.chunks]

    @property
    def numbers(self) -> list[str]:
        """The Producer-Seq of each request."""
        return [request.headers["producer-seq"] for request in self.requests]

    def _carry_out(self, request: httpx.Request) -> httpx.Response:
        path, body = request.url.path, json.loads(request.content or b"{}")
        if self.token is not None and request.headers.get("authorization") != f"Bearer {self.token}":
            return problem("UNAUTHENTICATED")
        if request.method == "PUT":
            self.exists, self.deleted = True, False
            return httpx.Response(201, json={"session_id": "s", "cursor": self._cursor, "created": True})
        if self.deleted:
            return problem("SESSION_DELETED")
        if not self.exists:
            return problem("SESSION_NOT_FOUND")
        if path.endswith("/stop"):
            self.stops.append(body)
            self.stale = True
            return httpx.Response(200, json={"session_id": "s", "state": "stopped"})
        repeated = self._judge_stamp(request)
        if isinstance(repeated, httpx.Response):
            return repeated
        if path.endswith("/finish"):
            if not repeated:
                if self.stale:
                    return problem("STALE_GENERATION")
                self.ends.append(body)
                self.stale = True
            return httpx.Response(200, json={"session_id": "s", "generation_id": "g", "cursor": self._cursor})
        assert path.endswith("/chunks/batch")
        chunks = body["chunks"]
        if not repeated:
            if self.stale:
                return problem("STALE_GENERATION")
            for chunk in chunks:
                self._check_seq(chunk)
            self.chunks += chunks
            if chunks:
                self.batches.append(len(chunks))
            else:
                self.signs.append(trio.current_time())
        accepted = 0 if repeated else len(chunks)
        return httpx.Response(
            200,
            json={
                "session_id": "s",
                "generation_id": chunks[0]["generation_id"] if chunks else body["generation_id"],
                "cursor": self._cursor,
                "accepted": accepted,
                "duplicates": len(chunks) - accepted,
                "turn": 1,
            },
        )

    @property
    def _cursor(self) -> str:
        return f"e-{len(self.chunks) + 2:016d}"

    def _judge_stamp(self, request: httpx.Request) -> bool | httpx.Response:
        """Whether the request came before."""
        producer = request.headers.get("producer-id")
        if producer is None:
            return False
        seq, expected = int(request.headers["producer-seq"]), self._next_seq.get(producer, 0)
        if seq < expected:
            return True
        if seq > expected:
            return problem("SEQUENCE_GAP")
        if not self.stale:
            self._next_seq[producer] = seq + 1
        return False

    def _check_seq(self, chunk: JSONDict) -> None:
        if str(chunk["type"]).startswith("block."):
            key = chunk["message_id"], chunk["block_index"]
            assert chunk["seq"] == self._seqs.get(key, 0), chunk
            self._seqs[key] = self._seqs.get(key, 0) + 1
