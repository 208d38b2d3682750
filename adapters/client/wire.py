"""HTTP as the client uses it: one request, one answer; one request, one stream.

Owns the headers, made anew for each request so that no token gets old in a closure, and the translation of the
HTTP library's errors. What is repeated, and when, is not decided here.
"""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Final, TypeAlias, final
from urllib.parse import quote

import httpx
import trio
from attrs import frozen

from penstock.engine import InvalidBody, PenstockError

from ..problems import Unauthenticated
from ..whole_body import WholeBody
from .config import ClientConfig
from .refusals import Unreachable, from_answer, retry_after

__all__ = ["Answer", "Token", "Wire", "session_path"]

# Bytes of a body in a second, on a line that is slow and not dead.
_SLOW: Final = 32 * 1024

# A token, or what gets one that is valid now: asked before every request.
Token: TypeAlias = str | Callable[[], Awaitable[str | None]] | None


@final
@frozen(kw_only=True)
class Answer:
    """An answer as it came. ``refusal``: the error that it tells of; ``retry_after``: seconds, if it says so."""

    status: int
    body: bytes
    refusal: PenstockError | None
    retry_after: float | None


@final
class Wire:
    """The server at ``url``; as `async with`."""

    def __init__(
        self,
        url: str,
        token: Token,
        config: ClientConfig,
        *,
        ssl_context: ssl.SSLContext | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        at = httpx.URL(url)
        self.url: Final = str(at.copy_with(userinfo=b"")).rstrip("/")  # it is told in errors and logs
        self.ssl_context: Final = ssl_context
        self.config: Final = config
        self._token: Final = token
        self.http: Final = httpx.AsyncClient(
            transport=transport,
            auth=(at.username, at.password) if at.userinfo else None,
            verify=_trust(url) if ssl_context is None else ssl_context,
            # Every stream holds a connection for as long as it lives: they must not starve the commands.
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=20),
            timeout=httpx.Timeout(config.request_timeout, connect=config.connect_timeout),
            trust_env=not _is_loopback(url),  # a proxy cannot reach this machine's own loopback
        )

    @property
    def renews(self) -> bool:
        """Whether another token may be had when one is refused."""
        return callable(self._token)

    async def headers(self) -> dict[str, str]:
        """Who asks. What gets the token may raise anything; where it found no connection, that is `Unreachable`.

        Raises `Unauthenticated` for a token that cannot be sent.
        """
        token = self._token
        if callable(token):
            try:
                token = await token()
            except (OSError, httpx.TransportError) as error:
                raise Unreachable(f"no token could be had: {error}") from error
        if token is None:
            return {}
        token = token.strip()  # out of a file it has a line's end
        if not (token and token.isascii() and token.isprintable()):  # the library's error would repeat it
            raise Unauthenticated("the token is empty, or holds what no header takes", reason="malformed")
        return {"Authorization": f"Bearer {token}"}

    async def exchange(
        self,
        method: str,
        path: str,
        *,
        body: bytes | None = None,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        repeatable: bool = False,
        within: float | None = None,
    ) -> Answer:
        """One request, once. A body is JSON unless ``headers`` say otherwise.

        Raises `Unreachable` when no answer comes in time, and `InvalidBody` for a header that cannot be sent. With a
        file in it, either way, an answer has ``within`` so many seconds; one that is ``repeatable`` begins sooner.
        """
        limit = self.config.request_timeout if within is None else within
        if repeatable:
            limit = min(limit, self.config.attempt_timeout + len(body or b"") / _SLOW)
        made = dict(headers or {})
        if body is not None:
            made = {"Content-Type": "application/json", "Content-Length": str(len(body)), **made}
        try:
            with trio.fail_after(limit):
                made |= await self.headers()
                request = self.http.build_request(method, self.url + path, params=dict(query or {}), headers=made)
                request.stream = WholeBody(body or b"")
                response = await self.http.send(request, stream=True)
            await self._read_whole(response, within)
        except (UnicodeEncodeError, httpx.LocalProtocolError) as error:
            raise InvalidBody(f"a header cannot be sent: {error}") from error
        except (httpx.HTTPError, httpx.InvalidURL, trio.TooSlowError) as error:
            raise self._unreachable(error) from error
        after = response.headers.get("Retry-After")
        return Answer(
            status=response.status_code,
            body=response.content,
            refusal=None if response.is_success else from_answer(response.status_code, response.content, after),
            retry_after=retry_after(after),
        )

    @asynccontextmanager
    async def stream(
        self, path: str, *, query: Mapping[str, str], headers: Mapping[str, str], within: float
    ) -> AsyncIterator[httpx.Response]:
        """A GET whose answer is read as it comes; it begins ``within`` so many seconds.

        Raises `Unreachable`, also while it is read, and the error that the server answers with.
        """
        try:
            with trio.fail_after(within):
                made = dict(headers) | await self.headers()
                timeout = httpx.Timeout(None, connect=self.config.connect_timeout)
                request = self.http.build_request(
                    "GET", self.url + path, params=dict(query), headers=made, timeout=timeout
                )
                request.stream = WholeBody(b"")
                response = await self.http.send(request, stream=True)
            if not response.is_success:
                await self._read_whole(response)
        except (httpx.HTTPError, httpx.InvalidURL, trio.TooSlowError) as error:
            raise self._unreachable(error) from error
        if not response.is_success:
            raise from_answer(response.status_code, response.content, response.headers.get("Retry-After"))
        try:
            yield response
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error
        finally:
            await self._close(response)

    async def _read_whole(self, response: httpx.Response, within: float | None = None) -> None:
        """The rest of an answer that has begun. Raises `trio.TooSlowError`."""
        try:
            with trio.fail_after(self.config.request_timeout if within is None else within):
                await response.aread()
        finally:
            await self._close(response)

    async def _close(self, response: httpx.Response) -> None:
        """Also what was not read to its end; the connection is not used again then."""
        with trio.CancelScope(shield=True, deadline=trio.current_time() + self.config.cleanup_timeout):
            await response.aclose()

    def _unreachable(self, error: Exception) -> Unreachable:
        told = str(error) or type(error).__name__
        return Unreachable(f"no answer from {self.url} ({told}); is a penstock server there?")


def session_path(session_id: str) -> str:
    return f"/v1/sessions/{quote(session_id, safe='')}"


def _trust(url: str) -> ssl.SSLContext | bool:
    """Whom the system trusts; on this machine without encryption nobody, for loading the certificates takes a while."""
    plain = _is_loopback(url) and httpx.URL(url).scheme == "http"
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) if plain else True


def _is_loopback(url: str) -> bool:
    try:
        host = httpx.URL(url).host
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except (httpx.InvalidURL, ValueError):
        return False
