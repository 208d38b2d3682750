"""How a node asks other nodes: `Peers` over HTTP, signed, on connections that are kept.

Owns what is known of a request that got no answer. Nothing is repeated here but what the other node has refused for its
nonce: what else is asked for again is the engine's to decide.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable
from hmac import compare_digest
from types import TracebackType
from typing import Final, Self, final

import httpx
import trio

from penstock.engine import Moved, Peers, Unanswered, request_id

from ..watching.request_ids import REQUEST_ID, request_id_of
from ..whole_body import WholeBody
from .answering import DIGEST, MOST_BYTES, NONCE, NUMBER, SENDER, SIGNATURE
from .signing import ClusterSecret, Sender, Signed, digest_of

__all__ = ["HttpPeers"]

_log = logging.getLogger("penstock.nodes")

# Connections at a time, to all nodes; and how many are kept when nothing is asked.
_CONNECTIONS: Final = 512
_KEPT: Final = 64

# A node in the same network takes a connection at once, or is not there.
_CONNECT_SECONDS: Final = 2.0

# For the whole of an answer: an engine waits for a fence for 20 s at a time, and for the log for 10.
_ANSWER_SECONDS: Final = 35.0

# While an answer is waited for, it is looked this often whether the node is still there.
_LOOK_SECONDS: Final = 0.5

# How often a request is signed anew: the node has started again, and perhaps once more meanwhile.
_SIGNATURES: Final = 3

_CLEANUP_SECONDS: Final = 1.0

# Nothing was sent when these came.
_BEFORE: Final = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.InvalidURL,
    httpx.PoolTimeout,
    httpx.UnsupportedProtocol,
)


@final
class HttpPeers(Peers):
    """Asks the nodes that have the secret; as ``async with``. ``url_of`` a node's name: where it answers, if known.

    ``url_of`` may be set later: the engine that knows is opened with this.
    """

    def __init__(
        self,
        secret: ClusterSecret,
        url_of: Callable[[str], str | None] = lambda _: None,
        *,
        within: float = _ANSWER_SECONDS,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """``within`` so many seconds an answer is there."""
        self._secret = secret
        self.url_of = url_of
        self._within = within
        self._sender = Sender()
        self._http = httpx.AsyncClient(
            transport=transport,
            verify=ssl.create_default_context(),
            limits=httpx.Limits(max_connections=_CONNECTIONS, max_keepalive_connections=_KEPT, keepalive_expiry=30.0),
            timeout=httpx.Timeout(within, connect=_CONNECT_SECONDS, pool=_CONNECT_SECONDS),
            trust_env=False,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Give up the connections that are kept."""
        with trio.CancelScope(shield=True, deadline=trio.current_time() + _CLEANUP_SECONDS):
            await self._http.aclose()

    async def ask(self, owner: str, session_id: str, command: str, body: bytes) -> bytes:
        url = self.url_of(owner)
        if url is None:
            raise Moved(
                f"{owner} has the session, and nothing says where it answers", owner=owner, session_id=session_id
            )
        answer: bytes | None = None
        failure: Unanswered | None = None
        async with trio.open_nursery() as nursery:
            nursery.cancel_scope.deadline = trio.current_time() + self._within
            nursery.start_soon(self._while_there, owner, url, nursery.cancel_scope)
            try:
                answer = await self._try(owner, url.rstrip("/"), f"/node/v1/{session_id}/{command}", body)
            except Unanswered as error:  # carried around the nursery, which would wrap it
                failure = error
            nursery.cancel_scope.cancel(reason="it has been answered")
        if failure is not None:
            raise failure
        if answer is None:
            raise Unanswered(f"{owner} is not there any more, or took more than {self._within:g} s", asked=True)
        return answer

    async def _while_there(self, owner: str, url: str, asking: trio.CancelScope) -> None:
        """Who has stopped answers nothing and holds the connection: what tells is its lease."""
        while True:
            await trio.sleep(_LOOK_SECONDS)
            if self.url_of(owner) != url:
                asking.cancel(reason="the node is not there any more")
                return

    async def _try(self, owner: str, url: str, path: str, body: bytes) -> bytes:
        if url not in self._sender.nonces:  # else a large body would be sent for nothing
            await self._ask(owner, url, path, b"")
        for _ in range(_SIGNATURES):
            answer = await self._ask(owner, url, path, body)
            if answer is not None:
                return answer
        raise Unanswered(f"{owner} takes no signature", asked=False)

    async def _ask(self, owner: str, url: str, path: str, body: bytes) -> bytes | None:
        """The answer; None where the node has told another nonce, and nothing else was done."""
        signed = Signed(
            method="POST",
            path=path,
            nonce=self._sender.nonces.get(url, ""),
            sender=self._sender.name,
            number=self._sender.next_number(),
            request_id="" if (asked_by := request_id.get()) is None else request_id_of(asked_by),
            digest=digest_of(body),
        )
        signature = self._secret.of_request(signed)
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Length": str(len(body)),
            NONCE: signed.nonce,
            SENDER: signed.sender,
            NUMBER: str(signed.number),
            DIGEST: signed.digest,
            SIGNATURE: signature,
        }
        if signed.request_id:
            headers[REQUEST_ID] = signed.request_id
        try:
            request = self._http.build_request("POST", url + path, headers=headers)
            request.stream = WholeBody(body)
            response = await self._http.send(request, stream=True)
            told = await self._read(response)
        except _BEFORE as error:
            self._sender.nonces.pop(url, None)
            raise Unanswered(f"{owner} cannot be reached at {url}: {error!r}", asked=False) from error
        except httpx.HTTPError as error:
            self._sender.nonces.pop(url, None)
            raise Unanswered(f"{owner} at {url} did not answer: {error!r}", asked=True) from error
        nonce, given = (response.headers.get(name, "") for name in (NONCE, SIGNATURE))
        wanted = self._secret.of_answer(signature, response.status_code, nonce, told)
        if not compare_digest(given.encode(), wanted.encode()):
            _log.error(
                "what answers at %s for the node %s, with status %d, does not sign with this cluster's secret",
                url,
                owner,
                response.status_code,
            )
            raise Unanswered(f"what answers at {url} does not know the cluster's secret", asked=True)
        self._sender.nonces[url] = nonce
        return told if response.status_code == httpx.codes.OK else None

    async def _read(self, response: httpx.Response) -> bytes:
        """The body, or the beginning of one that is too large to be one."""
        held = bytearray()
        try:
            async for piece in response.aiter_bytes():
                held += piece
                if len(held) > MOST_BYTES:
                    break
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + _CLEANUP_SECONDS):
                await response.aclose()
        return bytes(held)
