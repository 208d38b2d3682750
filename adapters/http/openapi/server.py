"""The operations of the server itself: its state, its description, the WebSocket and the pages."""

from __future__ import annotations

from typing import Final

from ...requests.answers import Health, TicketAnswer
from ..tickets import TicketBody
from .operation import Answer, Body, Operation, answered, empty, text
from .schemas import Schema

__all__ = ["OPERATIONS", "PAGES"]

_ANY_OBJECT: Final[Schema] = {"type": "object"}

_SOCKET: Final = """A handshake of version 13 with the subprotocol `penstock.v1`, or none. Text frames, one JSON object
each. The client sends `{"op", "id"?, …}`, the bodies as here; the server `reply` and `error`, and for each session
that is subscribed to `events` and the frames of a stream."""

OPERATIONS: Final = (
    Operation(
        method="post",
        path="/v1/tickets",
        id="makeTicket",
        tag="server",
        summary="A ticket for a client that cannot send headers",
        description="Never more than the token may do, nor for longer. To `read` one session by a stream, again and "
        "again for an hour at most; else for one WebSocket within a minute.",
        scope="read",
        body=Body(shape=TicketBody, needed=True),
        answers={201: answered("The ticket.", TicketAnswer)},
    ),
    Operation(
        method="get",
        path="/v1/ws",
        id="openSocket",
        tag="streams",
        summary="The WebSocket",
        description=" ".join(_SOCKET.split()),
        scope=None,
        answers={101: empty("The WebSocket is open.")},
    ),
    Operation(
        method="get",
        path="/healthz",
        id="healthz",
        tag="server",
        summary="Whether the process lives",
        scope=None,
        answers={200: answered("It does.", Health)},
    ),
    Operation(
        method="get",
        path="/readyz",
        id="readyz",
        tag="server",
        summary="Whether it takes work",
        scope=None,
        answers={
            200: answered("It does.", Health),
            503: answered("It is shutting down, or cannot store.", Health),
        },
    ),
    Operation(
        method="get",
        path="/metrics",
        id="metrics",
        tag="server",
        summary="What the server does, as Prometheus reads it",
        scope="admin",
        answers={200: text("In the form that `Accept` asks for.", "text/plain", "application/openmetrics-text")},
        codes=("NOT_FOUND",),
    ),
    Operation(
        method="get",
        path="/metrics",
        id="metrics",
        tag="server",
        summary="What Prometheus reads",
        scope="admin",
        answers={
            200: text("Text, or OpenMetrics if `Accept` asks for it.", "text/plain", "application/openmetrics-text")
        },
        codes=("NOT_FOUND",),
    ),
    Operation(
        method="get",
        path="/openapi.json",
        id="describe",
        tag="server",
        summary="This description",
        scope=None,
        answers={
            200: Answer(description="OpenAPI 3.1.", content={"application/json": _ANY_OBJECT}),
            304: empty("It is what `If-None-Match` names."),
        },
    ),
)

_UNCHANGED: Final = empty("It is what `If-None-Match` names.")
_PAGE: Final = {200: text("The page.", "text/html"), 304: _UNCHANGED}

PAGES: Final = (
    Operation(
        method="get", path="/", id="playground", tag="pages", summary="The playground", scope=None, answers=_PAGE
    ),
    Operation(
        method="get", path="/docs", id="docs", tag="pages", summary="This API on a page", scope=None, answers=_PAGE
    ),
    Operation(
        method="get",
        path="/{name}",
        id="file",
        tag="pages",
        summary="A file of a page's",
        scope=None,
        answers={
            200: text("The file.", "text/html", "text/javascript", "text/css", "image/svg+xml", "text/plain"),
            304: _UNCHANGED,
        },
        codes=("NOT_FOUND",),
    ),
)
