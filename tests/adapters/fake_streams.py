"""Streams that are written by hand: what a server would send, and how the line behaves. All under a mock clock."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable

import httpx
import trio

from penstock.adapters.client import ClientConfig, Events, Token, connect
from penstock.adapters.problems import TABLE
from penstock.engine import Cursor, Event, QueuePaused, encode

__all__ = ["BROKEN", "DRAIN", "END", "EXPIRED", "SSE", "Answer", "Server", "Stream", "control", "event", "problem"]

SSE = {"content-type": "text/event-stream"}


class Stream(httpx.AsyncByteStream):
    """Pieces: bytes to send, seconds to be silent for, an error to break with."""

    def __init__(self, *pieces: bytes | float | Exception) -> None:
        self.pieces = pieces

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self.pieces:
            if isinstance(piece, Exception):
                raise piece
            if isinstance(piece, bytes):
                await trio.lowlevel.checkpoint()
                yield piece
            else:
                await trio.sleep(piece)


Answer = httpx.Response | Exception | Stream


class Server(httpx.AsyncBaseTransport):
    """Answers, one a request; the last one again and again."""

    def __init__(self, *answers: Answer | Callable[[], Answer]) -> None:
        self.answers = deque(answers)
        self.asked: list[str | None] = []
        self.queries: list[str] = []
        self.tokens: list[str | None] = []
        self.times: list[float] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request.headers.get("last-event-id"))
        self.queries.append(request.url.query.decode())
        self.tokens.append(request.headers.get("authorization"))
        self.times.append(trio.current_time())
        await trio.lowlevel.checkpoint()
        answer = self.answers.popleft() if len(self.answers) > 1 else self.answers[0]
        made = answer() if callable(answer) and not isinstance(answer, Stream) else answer
        if isinstance(made, Exception):
            raise made
        return httpx.Response(200, headers=SSE, stream=made) if isinstance(made, Stream) else made

    async def read(
        self, after: Cursor | str | None = None, *, token: Token = None, config: ClientConfig | None = None
    ) -> list[int | None]:
        """All offsets until the end."""
        async with (
            connect("http://fake", transport=self, token=token, config=config) as client,
            client.session("s").events(after) as events,
        ):
            self.events: Events = events
            return [event.offset async for event in events]


def event(*offsets: int, epoch: str = "e") -> bytes:
    return b"".join(
        b"id: %b\ndata: %b\n\n"
        % (
            str(Cursor(epoch, offset)).encode(),
            encode(Event(data=QueuePaused(), session_id="s", time="2026-01-01T00:00:00.000Z", offset=offset)),
        )
        for offset in offsets
    )


def control(name: str, data: str = "{}", *, retry: int | None = None) -> bytes:
    return f"event: {name}\n{f'retry: {retry}' if retry else ': '}\ndata: {data}\n\n".encode()


END = control("end", '{"reason": "deleted"}')
DRAIN = control("drain", '{"reason": "shutdown"}', retry=3000)
EXPIRED = control("drain", '{"reason": "token-expired"}', retry=3000)
BROKEN = httpx.ReadError("gone")


def problem(code: str, **headers: str) -> httpx.Response:
    made = {name.replace("_", "-"): value for name, value in headers.items()}
    told = {"code": code, "detail": "so it is", "retryable": TABLE[code].retryable}
    return httpx.Response(TABLE[code].status, headers=made, json=told)
