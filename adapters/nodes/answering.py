"""What a node answers other nodes: an ASGI application for a listener of its own, never for the public one.

Who cannot sign is refused by the head of the request: nothing of its body is read. What is answered is signed, too,
with the request that it answers, so that nobody else can answer in this node's place.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Awaitable, Callable, Sequence
from hmac import compare_digest
from typing import Final, final

import trio
import trio_websocket
from hypercorn.typing import ASGIFramework, ASGIReceiveCallable, ASGISendCallable, HTTPScope, Scope

from penstock.engine import Engine, InvalidBody, PenstockError, request_id

from ..http.intake import ClientLeft, whole_body
from ..problems import MethodNotAllowed, NotFound, Unauthenticated, answer
from ..server.accept import ServerConfig, serve
from ..server.head import Head
from ..server.tls import Certificate
from ..watching.request_ids import REQUEST_ID, request_id_of
from .signing import ClusterSecret, Numbers, Signed, digest_of

__all__ = ["DIGEST", "MOST_BYTES", "NONCE", "NUMBER", "PATH", "SENDER", "SIGNATURE", "node_app", "serve_nodes"]

_log = logging.getLogger("penstock.nodes")

NONCE: Final = "penstock-nonce"
SENDER: Final = "penstock-sender"
NUMBER: Final = "penstock-number"
DIGEST: Final = "penstock-digest"
SIGNATURE: Final = "penstock-signature"

# A command of the edge's is a mebibyte, and with every character escaped six; a file has its own bound beside that.
MOST_BYTES: Final = 8 * 1024 * 1024

# Of all other nodes; and what each keeps idle, longer than the other side does.
_CONNECTIONS: Final = 4096
_KEEP_ALIVE: Final = 75.0

# A node that is as slow as this is none to wait for.
_BODY_SECONDS: Final = 30

PATH: Final = re.compile(r"/node/v1/([A-Za-z0-9._~:-]+)/([a-z_]+)")

_TOKEN: Final = re.compile(r"[0-9a-f]{0,64}")
_COUNT: Final = re.compile(r"[1-9][0-9]{0,15}", re.ASCII)
_REQUEST_ID: Final = REQUEST_ID.lower()


def node_app(engine: Engine, secret: ClusterSecret) -> ASGIFramework:
    """What ``engine`` carries out for nodes that have the secret."""
    return _Answering(engine, secret)


async def serve_nodes(
    engine: Engine,
    secret: ClusterSecret,
    listeners: Sequence[trio.SocketListener],
    *,
    shutdown: trio.Event,
    tls: Certificate | None = None,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Answer other nodes until ``shutdown`` is set; as `penstock.adapters.server.accept.serve` for the rest.

    What is under way then has a moment to be answered.
    """
    config = ServerConfig(max_connections=_CONNECTIONS, keep_alive=_KEEP_ALIVE, tls=tls)
    app = node_app(engine, secret)
    await serve(app, _no_socket, listeners, shutdown=shutdown, config=config, task_status=task_status)


async def _no_socket(request: trio_websocket.WebSocketRequest, head: Head, drained: trio.Event) -> None:
    await request.reject(404)


@final
class _Answering:
    def __init__(self, engine: Engine, secret: ClusterSecret) -> None:
        self._engine = engine
        self._secret = secret
        self._numbers = Numbers()
        self._quiet_until = -math.inf
        self._most = MOST_BYTES + engine.config.file_bytes

    async def __call__(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        if scope["type"] != "http":
            raise NotFound("this is for requests only")
        try:
            await self._answer(scope, receive, send)
        except ClientLeft:
            return
        except PenstockError as error:
            told = answer(error)
            await send({"type": "http.response.start", "status": told.status, "headers": told.head()})
            await send({"type": "http.response.body", "body": told.body, "more_body": False})

    async def _answer(self, scope: HTTPScope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        signed, signature, length, session_id, command = self._read_head(scope)
        if not compare_digest(signature, self._secret.of_request(signed)):
            self._warn(command)
            raise Unauthenticated("the signature is not of this cluster's secret")
        if signed.nonce != self._numbers.nonce or not self._numbers.take(signed.sender, signed.number):
            await self._say(send, signature, 401, b"")
            return
        body = await whole_body(receive, length=length, most=self._most, seconds=_BODY_SECONDS)
        if not compare_digest(signed.digest, digest_of(body)):
            raise InvalidBody("this is not the body that was signed")
        request_id.set(request_id_of(signed.request_id or None))
        await self._say(send, signature, 200, await self._engine.carry_out(session_id, command, body))

    def _warn(self, command: str) -> None:
        """Once a second at most: whoever tries secrets must not fill the log."""
        if trio.current_time() >= self._quiet_until:
            self._quiet_until = trio.current_time() + 1
            _log.warning("somebody who does not know the cluster's secret asked for %s", command)

    def _read_head(self, scope: HTTPScope) -> tuple[Signed, str, int, str, str]:
        """What is signed, by which signature, the body's length, and what is asked. Raises what says what is wrong."""
        found = PATH.fullmatch(scope["path"])
        if found is None or scope["query_string"] or scope.get("raw_path", b"") != scope["path"].encode():
            raise NotFound("there is nothing here")
        if scope["method"] != "POST":
            raise MethodNotAllowed("nodes ask with POST", allowed=("POST",))
        headers: dict[str, str] = {}
        for name, value in scope["headers"]:
            if headers.setdefault(name.decode("latin-1"), value.decode("latin-1")) != value.decode("latin-1"):
                raise InvalidBody(f"there is more than one {name.decode('latin-1')}")
        nonce, sender, digest, signature = (headers.get(name, "") for name in (NONCE, SENDER, DIGEST, SIGNATURE))
        number, length = headers.get(NUMBER, ""), headers.get("content-length", "0")
        if not (
            all(map(_TOKEN.fullmatch, (nonce, sender, digest, signature)))
            and _COUNT.fullmatch(number)
            and (length == "0" or _COUNT.fullmatch(length))
            and "transfer-encoding" not in headers
        ):
            raise Unauthenticated("nodes sign what they ask")
        signed = Signed(
            method=scope["method"],
            path=scope["path"],
            nonce=nonce,
            sender=sender,
            number=int(number),
            request_id=headers.get(_REQUEST_ID, ""),
            digest=digest,
        )
        return signed, signature, int(length), found[1], found[2]

    async def _say(self, send: Callable[..., Awaitable[None]], request: str, status: int, body: bytes) -> None:
        nonce = self._numbers.nonce
        signature = self._secret.of_answer(request, status, nonce, body)
        headers = [
            (b"content-type", b"application/octet-stream"),
            (b"content-length", b"%d" % len(body)),
            (NONCE.encode(), nonce.encode()),
            (SIGNATURE.encode(), signature.encode()),
        ]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": False})
