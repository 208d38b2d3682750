"""The handshake: which page, whose socket; and then the conversation."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection
from typing import Final, TypeAlias
from urllib.parse import parse_qs

import trio
from trio_websocket import WebSocketRequest

from penstock.engine import Engine, InvalidBody, PenstockError

from ..access import OPEN, Identity, Principal, Recognize
from ..access.origins import check_host, check_origin, check_site
from ..problems import Unauthenticated, answer
from ..server.head import Head
from ..server.limits import CONNECTION, UNLIMITED, Limits
from .connection import Conversation, SocketConfig
from .holder import Holder
from .socket_log import name_socket, note_refusal, open_socket

__all__ = ["SUBPROTOCOL", "websocket_handler"]

_log = logging.getLogger("penstock.websocket")

SUBPROTOCOL: Final = "penstock.v1"

_Handler: TypeAlias = Callable[[WebSocketRequest, Head, trio.Event], Awaitable[None]]


def websocket_handler(
    engine: Engine,
    *,
    identity: Identity | Recognize = OPEN,
    allowed_origins: Collection[str] = (),
    allowed_hosts: Collection[str] = (),
    config: SocketConfig | None = None,
    limits: Limits | None = None,
) -> _Handler:
    """The handler over ``engine`` for `penstock.adapters.server.accept.serve`.

    ``identity`` is the application's: the same `Identity` knows the tickets that were made there. Pages of other
    origins are refused unless ``allowed_origins`` names them; ``allowed_hosts`` are as there.
    """
    known = Identity.of(identity)
    allowed = frozenset(allowed_origins)
    bounds = config or SocketConfig()
    shared = limits or Limits(UNLIMITED)

    async def handle(request: WebSocketRequest, head: Head, drained: trio.Event) -> None:
        connection = CONNECTION.get()
        assert connection is not None, "this handler is for penstock.adapters.server.serve"
        named = name_socket(head)
        proposed = request.proposed_subprotocols
        try:
            if known.open:
                check_host(head.get("host"), allowed_hosts)
            if known.ambient:
                check_site(head.all("sec-fetch-site"), head.get("origin"), allowed)
            check_origin(head.get("origin"), head.get("host"), allowed)
            if proposed and SUBPROTOCOL not in proposed:
                raise InvalidBody(f"the subprotocol here is {SUBPROTOCOL}")
            principal = await _holder(head, known, shared)
        except Exception as error:  # noqa: BLE001  # the application's bug: who comes gets an answer, and is not let in
            if isinstance(error, PenstockError):
                note_refusal(error, None)
            else:
                _log.exception("finding out who opens a WebSocket failed")
            told = answer(error)
            headers = [(name.encode(), value.encode()) for name, value in told.headers]
            await request.reject(told.status, extra_headers=[*headers, named], body=told.body)
            return
        ws = await request.accept(subprotocol=SUBPROTOCOL if proposed else None, extra_headers=[named])
        with open_socket():
            holder = Holder(known, principal, bounds.auth_timeout)
            await Conversation(ws, connection.outlet, engine, holder, bounds, shared).run(drained)

    return handle


async def _holder(head: Head, identity: Identity, limits: Limits) -> Principal | None:
    """Who comes, by the handshake's token, ticket or cookies; None: they will say so in their first frame.

    Raises `Unauthenticated`, `Overloaded`, `RateLimited`, and what `Identity.who` does.
    """
    try:
        return await _named(head, identity)
    except Unauthenticated:
        limits.admit_refused()
        raise


async def _named(head: Head, identity: Identity) -> Principal | None:
    tickets = parse_qs(head.target.partition("?")[2]).get("ticket", [])
    principal = await identity.who(head.all("authorization"), head.headers, tickets, identity.tickets.for_socket)
    if principal is None and not identity.takes_tokens:
        raise Unauthenticated("nothing in the handshake says who comes", reason="missing")
    return principal
