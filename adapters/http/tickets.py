"""``POST /v1/tickets``: for clients that cannot send headers, a part of their token's rights to put into a URL."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import final

from attrs import frozen
from quart import Response

from ..requests.answers import TicketAnswer
from ..requests.bodies import read_body
from .guard import authenticate, identity
from .intake import json_body
from .routes import Body, Operation, Routes, answered, json_answer

__all__ = ["TicketBody", "add_tickets"]


@final
@frozen(kw_only=True)
class TicketBody:
    """``ttl`` is in seconds."""

    sessions: list[str]
    scopes: list[str]
    ttl: int | None = None


def add_tickets(routes: Routes) -> None:
    """Add the route."""

    @routes.add(
        Operation(
            method="post",
            path="/v1/tickets",
            id="makeTicket",
            tag="server",
            summary="A ticket for a client that cannot send headers",
            description="Never more than the token may do, nor for longer. To `read` one session by a stream, "
            "again and again for an hour at most; else for one WebSocket within a minute.",
            scope="read",
            body=Body(shape=TicketBody, needed=True, example={"sessions": ["demo"], "scopes": ["read"]}),
            answers={201: json_answer("The ticket.", TicketAnswer)},
        ),
    )
    async def make_ticket() -> Response:
        principal = authenticate()
        body = read_body(await json_body(), TicketBody)
        ticket = identity().tickets.make(principal, body.sessions, body.scopes, body.ttl)
        expires_at = datetime.fromtimestamp(ticket.expires_at, UTC).isoformat(timespec="milliseconds")
        return answered(TicketAnswer(ticket=ticket.text, expires_at=expires_at.replace("+00:00", "Z")), 201)
