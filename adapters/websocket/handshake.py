"""The handshake: which page, whose socket; and then the conversation."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from typing import Final, TypeAlias
from urllib.parse import parse_qs

import trio
from trio_websocket import WebSocketRequest

from penstock.engine import Engine, InvalidBody, PenstockError

from ..access import OPEN, Identity, Principal, read_bearer
from ..access.origins import check_host, check_origin
from ..problems import Unauthenticated, answer
from ..server.head import Head
from ..server.limits import CONNECTION, UNLIMITED, Limits
from .connection import Conversation, SocketConfig
from .holder import Holder
from .socket_log import name_socket, note_refusal, open_socket

__all__ = ["SUBPROTOCOL", "websocket_handler"]

SUBPROTOCOL: Final = "penstock.v1"

_Handler: TypeAlias = Callable[[WebSocketRequest, Head, trio.Event], Awaitable[None]]


def websocket_handler(
    engine: Engine,
    *,
    identity: Identity = OPEN,
    allowed_origins: Collection[str] = (),
    allowed_hosts: Collection[str] = (),
    config: SocketConfig | None = None,
    limits: Limits | None = None,
) -> _Handler:
    """The handler over ``engine`` for `penstock.adapters.server.accept.serve`.

    ``identity`` is the application's: it knows the tickets that were made there. Pages of other origins are refused
    unless ``allowed_origins`` names them; ``allowed_hosts`` are as there.
    """
    allowed = frozenset(allowed_origins)
    bounds = config or SocketConfig()
    shared = limits or Limits(UNLIMITED)

    async def handle(request: WebSocketRequest, head: Head, drained: trio.Event) -> None:
        connection = CONNECTION.get()
        assert connection is not None, "this handler is for penstock.adapters.server.serve"
        named = name_socket(head)
        proposed = request.proposed_subprotocols
        try:
            if identity.open:
                check_host(head.get("host"), allowed_hosts)
            check_origin(head.get("origin"), head.get("host"), allowed)
            if proposed and SUBPROTOCOL not in proposed:
                raise InvalidBody(f"the subprotocol here is {SUBPROTOCOL}")
            principal = _holder(head, identity, shared)
        except PenstockError as error:
            note_refusal(error, None)
            told = answer(error)
            headers = [(name.encode(), value.encode()) for name, value in told.headers]
            await request.reject(told.status, extra_headers=[*headers, named], body=told.body)
            return
        ws = await request.accept(subprotocol=SUBPROTOCOL if proposed else None, extra_headers=[named])
        with open_socket():
            holder = Holder(identity, principal, bounds.auth_timeout)
            await Conversation(ws, connection.outlet, engine, holder, bounds, shared).run(drained)

    return handle


def _holder(head: Head, identity: Identity, limits: Limits) -> Principal | None:
    """Who comes, by the handshake's token or ticket; None: they will say so in their first frame.

    Raises `Unauthenticated`, `Overloaded`, `RateLimited`.
    """
    if identity.open:
        return identity.authenticate(None)
    try:
        return _named(head, identity)
    except Unauthenticated:
        limits.admit_refused()
        raise


def _named(head: Head, identity: Identity) -> Principal | None:
    tokens = [value for name, value in head.headers if name == "authorization"]
    tickets = parse_qs(head.target.partition("?")[2]).get("ticket", [])
    if len(tokens) + len(tickets) > 1:
        raise Unauthenticated("there is more than one token or ticket", reason="several")
    if tickets:
        return identity.tickets.for_socket(tickets[0])
    return identity.authenticate(read_bearer(tokens[0])) if tokens else None
