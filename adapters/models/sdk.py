"""The border to the SDKs: what they raise leaves as `ModelFailure`; an answer that is left closes its connection.

Theirs are keys, addresses, the request and its errors. The answer's body is read by `wire`; what its events mean is
each provider's module's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final, Protocol, final

import httpx2
import trio

from .failures import ModelFailure
from .pieces import Piece
from .wire import EventReader, GarbledError

__all__ = ["Meaning", "StreamedAnswer", "plain_failure"]

# A body that is read to its end leaves a connection that can be used again. What comes after the last piece is a few
# bytes that are on their way; a provider that keeps the body open for longer loses the connection.
_LAST_BYTES: Final = 0.05

# What an address that is not the model's answers with.
_NO_STREAM: Final = ("text/html", "application/json")


class Meaning(Protocol):
    """What the events of one answer mean. Pure."""

    over: bool
    """Whether the provider said that the answer is whole."""
    last: bool
    """Whether nothing more is worth waiting for."""

    def read(self, data: bytes, /) -> Sequence[Piece]:
        """The pieces in one event. Raises `GarbledError`, `ModelFailure`."""


@final
class StreamedAnswer:
    """An answer over the response that an SDK got."""

    def __init__(
        self,
        response: httpx2.Response,
        meaning: Meaning,
        failure: Callable[[Exception], ModelFailure | None],
    ) -> None:
        self._response: Final = response
        self._meaning: Final = meaning
        self._failure: Final = failure
        self._bytes: Final = response.aiter_bytes()
        self._events: Final = EventReader()

    async def next(self) -> Sequence[Piece] | None:
        if self._meaning.last:
            return None
        try:
            return await self._next()
        except GarbledError as error:
            raise ModelFailure("MODEL_GARBLED", str(error)) from error
        except ModelFailure:
            raise
        except Exception as error:
            failure = self._failure(error)
            if failure is None:
                raise
            raise failure from error

    async def _next(self) -> Sequence[Piece] | None:
        kind = self._response.headers.get("content-type", "")
        if kind.startswith(_NO_STREAM):
            raise GarbledError(f"a stream was expected, and {kind} came")
        piece = await anext(self._bytes, None)
        if piece is None:
            if not self._meaning.over:
                raise ModelFailure("MODEL_INTERRUPTED", "the stream ended before the answer did")
            return None
        return [found for data in self._events.feed(piece) for found in self._meaning.read(data)]

    async def close(self) -> None:
        try:
            if self._meaning.over:
                with trio.move_on_after(_LAST_BYTES):
                    await self._exhaust()
        finally:
            await self._response.aclose()
            # A generator that is not read to its end cannot be closed by who drops it, and Trio warns of it. With the
            # connection closed this takes no time.
            await self._exhaust()

    async def _exhaust(self) -> None:
        with suppress(httpx2.HTTPError, httpx2.StreamError, trio.ClosedResourceError):
            async for _ in self._bytes:
                pass


def plain_failure(error: Exception, *, began: bool) -> ModelFailure | None:
    """What an error of the connection means; None if it is none."""
    if isinstance(error, httpx2.HTTPError | httpx2.StreamError):
        return ModelFailure("MODEL_INTERRUPTED" if began else "MODEL_UNAVAILABLE", repr(error))
    return None
