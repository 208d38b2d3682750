"""A model at a provider's: one request over HTTP, its answer as it comes, and what goes wrong, as `ModelFailure`.

Owns the connections. What a request looks like and what the answer's events mean is the dialect's; whether a model is
asked again is `answering`'s.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from typing import Final, final

import httpx
import trio

from penstock.engine import JSON, InvalidBody, JSONObject, decode_json, encode_json

from ..forms.sse_reader import EventStream
from ..whole_body import WholeBody
from .dialect import Dialect, Meaning, sendable
from .failures import ModelFailure, of_error
from .model import Answer, Key, Request
from .pieces import Piece
from .transcript import Attached
from .wire import garbled

__all__ = ["ProviderModel"]

# Seconds. How long an answer may say nothing is `waiting`'s before its first word, and the engine's from then on.
_TIMEOUT: Final = httpx.Timeout(600, connect=5, read=None)

# Every answer holds a connection for as long as it lasts.
_LIMITS: Final = httpx.Limits(max_connections=1000, max_keepalive_connections=100)

# Seconds. A body that is read to its end leaves a connection that can be used again. What comes after the last piece is
# a few bytes that are on their way; a provider that keeps the body open for longer loses the connection.
_LAST_BYTES: Final = 0.05

# What an address that is not the model's answers with, and some servers with an error that has the status of success.
_NO_STREAM: Final = ("text/html", "application/json")

# Of an error's body, in bytes and seconds: what says more, or says it later, is told by its status.
_LONGEST_ERROR: Final = 64 * 1024
_ERROR_LIMIT: Final = 5

# An event is a few bytes, and one that tells a whole answer is as long as that. This is longer than any model writes.
_LONGEST_EVENT: Final = 16 * 1024 * 1024


@final
class ProviderModel:
    """A model behind one dialect's path below ``url``."""

    def __init__(
        self, dialect: Dialect, name: str, url: str, *, key: Key, headers: Mapping[str, str], options: JSONObject
    ) -> None:
        self.name: Final = name
        self._dialect: Final = dialect
        self._key: Final = key
        self._headers: Final = dict(headers)
        self._options: Final = dict(options)
        at = httpx.URL(url)
        self._http: Final = httpx.AsyncClient(
            base_url=at.copy_with(userinfo=b""),  # the library logs the address of each request
            auth=(at.username, at.password) if at.userinfo else None,
            verify=_trusted(),
            timeout=_TIMEOUT,
            limits=_LIMITS,
            follow_redirects=True,
        )

    def shows(self, attached: Attached, /) -> bool:
        return self._dialect.shows(attached)

    async def ask(self, request: Request) -> Answer:
        content = encode_json({**self._dialect.body(self.name, request), **self._options})
        try:
            given = self._key if isinstance(self._key, str) else await self._key()
            key = given.strip()  # out of a file it has a line's end
            if given and not (key and sendable(key)):
                raise ModelFailure("MODEL_AUTH", "the key is empty, or holds what no header takes")
            response = await self._http.send(self._request(key, content), stream=True)
        except (OSError, httpx.HTTPError) as error:
            raise ModelFailure("MODEL_UNAVAILABLE", repr(error)) from error
        kind = response.headers.get("content-type", "")
        if response.is_success and not kind.startswith(_NO_STREAM):
            return _StreamedAnswer(response, self._dialect.meaning())
        told = await _told(response)
        if response.is_success and not (isinstance(told, Mapping) and told.get("error")):
            raise garbled(f"a stream was expected, and {kind} came")
        raise of_error(told, status=response.status_code, headers=response.headers)

    def _request(self, key: str, content: bytes) -> httpx.Request:
        headers = httpx.Headers(
            {
                "Accept-Encoding": "identity",  # compressed, a word may wait for those behind it
                "Content-Length": str(len(content)),
                "Content-Type": "application/json",
                "User-Agent": "penstock",
            }
        )
        if key:
            headers["Authorization"] = f"Bearer {key}"
        headers.update(self._headers)
        made = self._http.build_request("POST", self._dialect.path, headers=headers)
        made.stream = WholeBody(content)
        return made

    async def aclose(self) -> None:
        await self._http.aclose()


def _trusted() -> ssl.SSLContext:
    """What ``SSL_CERT_FILE`` or ``SSL_CERT_DIR`` names; else httpx's own list and the system's, where a company's own
    certificate stands."""
    context = httpx.create_ssl_context()
    if not (os.environ.get("SSL_CERT_FILE") or os.environ.get("SSL_CERT_DIR")):
        context.load_default_certs()
    return context


async def _told(response: httpx.Response) -> JSON:
    """What an error's body says; where it breaks off, or does not end, the status says enough."""
    body, pieces = bytearray(), response.aiter_bytes()
    with trio.move_on_after(_ERROR_LIMIT), suppress(httpx.HTTPError):
        while len(body) <= _LONGEST_ERROR and (piece := await anext(pieces, None)) is not None:
            body += piece
    await _leave(response, pieces, 0)
    try:
        return decode_json(bytes(body))
    except InvalidBody:
        return body.decode(errors="replace")


async def _leave(response: httpx.Response, pieces: AsyncIterator[bytes], limit: float) -> None:
    """Close the connection, or have it used again if the body is read to its end within ``limit`` seconds.

    Cancelled while they wait, the library's generators end and close the connection; what is not read to its end would
    be left to the collector, with a warning.
    """
    with trio.move_on_after(limit), suppress(httpx.HTTPError):
        async for _ in pieces:
            pass
    await response.aclose()


@final
class _StreamedAnswer:
    def __init__(self, response: httpx.Response, meaning: Meaning) -> None:
        self._response: Final = response
        self._meaning: Final = meaning
        self._bytes: Final = response.aiter_bytes()
        self._events: Final = EventStream(_LONGEST_EVENT)

    async def next(self) -> Sequence[Piece] | None:
        if self._meaning.last:
            return None
        try:
            piece = await anext(self._bytes, None)
        except httpx.HTTPError as error:
            raise ModelFailure("MODEL_INTERRUPTED", repr(error)) from error
        if piece is None:
            if not self._meaning.over:
                raise ModelFailure("MODEL_INTERRUPTED", "the stream ended before the answer did")
            return None
        try:
            events = self._events.feed(piece)
        except ValueError as error:
            raise garbled(str(error)) from error
        return [found for event in events if event.data is not None for found in self._meaning.read(event.data)]

    async def close(self) -> None:
        await _leave(self._response, self._bytes, _LAST_BYTES if self._meaning.over else 0)
