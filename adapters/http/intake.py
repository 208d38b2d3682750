"""A request's body: how it is read on every route, and what of it reaches Quart.

A file is read piece by piece, past Quart, by `Streamed`. For all else there is one way in, `whole_body`, with one bound
in bytes and one in time, over whatever delivers the pieces: the server itself where chunks are answered without Quart,
and elsewhere Quart, which collects them. What JSON it is, `parsed` says. Quart is held to the same bound while it
collects: see `bounded`.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import Final, Self, TypeAlias, cast, final

import trio
from hypercorn.typing import ASGIReceiveCallable, ASGIReceiveEvent, HTTPRequestEvent
from quart import current_app, request

from penstock.engine import JSON, decode_json

from ..problems import BodyTooLarge, SlowRequest
from ..server.incoming import Incoming

__all__ = [
    "BODY_BYTES",
    "BODY_SECONDS",
    "ClientLeft",
    "Streamed",
    "body_of_request",
    "bounded",
    "json_body",
    "parsed",
    "too_large",
    "too_slow",
    "whole_body",
]

# A prompt with a long document fits; more in one request is a mistake, or an attack on memory.
BODY_BYTES: Final = 1024 * 1024

# A mebibyte over a line of 35 KiB a second. Who takes longer holds a connection for its own sake.
BODY_SECONDS: Final = 30

_Receive: TypeAlias = Callable[[], Awaitable[ASGIReceiveEvent]]


class ClientLeft(Exception):
    """The client is gone before its body was whole: nobody is to be answered."""


async def whole_body(receive: _Receive, *, length: int | None, most: float, seconds: float) -> bytes:
    """The body that ``receive`` delivers; ``length`` is what the request says of it.

    Raises `BodyTooLarge` as soon as it has, or says that it has, more than ``most`` bytes; `SlowRequest` when it is not
    there within ``seconds``; `ClientLeft`.
    """
    if length is not None and length > most:
        raise too_large(most)
    body = bytearray()

    def take(event: ASGIReceiveEvent) -> bool:
        """Add it to the body; whether that is whole now."""
        if event["type"] != "http.request":
            raise ClientLeft
        first = not body
        body.extend(event.get("body", b""))
        if len(body) > most:
            raise too_large(most)
        # Nearly every body is one piece, and its end, which is only said then, need not be waited for.
        return not event.get("more_body", False) or (first and len(body) == length)

    if isinstance(receive, Incoming) and any(map(take, receive.arrived())):
        return bytes(body)
    with trio.move_on_after(seconds):
        while not take(await receive()):
            pass
        return bytes(body)
    raise too_slow()


async def body_of_request() -> bytes:
    """That of the request that Quart is at, which Quart has kept for others who read it. Raises as `whole_body`."""

    async def collected() -> ASGIReceiveEvent:
        data = cast(bytes, await request.get_data())
        return HTTPRequestEvent(type="http.request", body=data, more_body=False)

    most, seconds = (current_app.config[name] for name in ("MAX_CONTENT_LENGTH", "BODY_TIMEOUT"))
    return await whole_body(
        collected,
        length=request.content_length,
        most=float("inf") if most is None else most,
        seconds=float("inf") if seconds is None else seconds,
    )


async def json_body() -> JSON:
    """The JSON of the request that Quart is at. Raises as `whole_body`, and `InvalidBody`."""
    return parsed(await body_of_request())


def parsed(body: bytes) -> JSON:
    """The JSON of a body; none at all stands for an empty object. Raises `InvalidBody`."""
    return decode_json(body) if body else {}


def too_large(most: float) -> BodyTooLarge:
    return BodyTooLarge(f"a body is at most {most} bytes")


def too_slow() -> SlowRequest:
    return SlowRequest("the body did not arrive in time")


@final
class Streamed:
    """A body that its route reads piece by piece: an async iterator of bytes, for one reader.

    Quart, which would collect all of it, is given an empty one by `receive`, and what comes behind the real one.
    """

    def __init__(self, receive: ASGIReceiveCallable) -> None:
        self._receive = receive
        self._told = False
        self._over = trio.Event()
        self._deadline = math.inf

    async def receive(self) -> ASGIReceiveEvent:
        if not self._told:
            self._told = True
            return HTTPRequestEvent(type="http.request", body=b"", more_body=False)
        await self._over.wait()
        return await self._receive()

    def within(self, seconds: float) -> Self:
        """Have it be whole so many seconds from now."""
        self._deadline = trio.current_time() + seconds
        return self

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        """Raises `SlowRequest`, and `ClientLeft`."""
        if self._over.is_set():
            raise StopAsyncIteration
        with trio.CancelScope(deadline=min(self._deadline, trio.current_time() + BODY_SECONDS)) as limit:
            event = await self._receive()
        if limit.cancelled_caught:
            raise too_slow()
        if event["type"] != "http.request":
            raise ClientLeft
        if not event.get("more_body", False):
            self._over.set()
        return event.get("body", b"")


def bounded(receive: ASGIReceiveCallable, most: int) -> ASGIReceiveCallable:
    """``receive`` for Quart, with a body that ends with the piece by which it has more than ``most`` bytes.

    Up to 0.22 Quart counts a body's bytes as they come; from 0.23 on it keeps all that comes, read or not, and counts
    at the body's end. So any Quart refuses it there and then. What still comes is received and dropped, for a peer may
    send all of it before it reads the refusal.
    """
    taken = 0

    async def receive_bounded() -> ASGIReceiveEvent:
        nonlocal taken
        while True:
            event = await receive()
            if event["type"] != "http.request":
                return event
            if taken > most:
                continue
            taken += len(event.get("body", b""))
            return {"type": "http.request", "body": event["body"], "more_body": False} if taken > most else event

    return receive_bounded
