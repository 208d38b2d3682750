"""The routes about the server itself."""

from __future__ import annotations

from typing import Final

from quart import Response, request

from penstock.engine import Engine, InvalidBody

from ..problems import NotFound
from ..requests.answers import Health
from ..watching.metrics import Metrics
from .guard import allow
from .routes import Operation, Routes, answered, json_answer, no_body, text_answer

__all__ = ["add_health"]


_SOCKET: Final = """A handshake of version 13 with the subprotocol `penstock.v1`, or none. Text frames, one JSON object
each. The client sends `{"op", "id"?, …}`, the bodies as here; the server `reply` and `error`, and for each session
that is subscribed to `events` and the frames of a stream."""


def add_health(routes: Routes, engine: Engine, measured: Metrics | None) -> None:
    """Add the routes over ``engine``; that of metrics answers 404 where nothing is ``measured``."""

    @routes.add(
        Operation(
            method="get",
            path="/healthz",
            id="healthz",
            tag="server",
            summary="Whether the process lives",
            scope=None,
            answers={200: json_answer("It does.", Health)},
        ),
    )
    async def healthz() -> Response:
        return answered(Health(status="ok"))

    @routes.add(
        Operation(
            method="get",
            path="/readyz",
            id="readyz",
            tag="server",
            summary="Whether it takes work",
            scope=None,
            answers={
                200: json_answer("It does.", Health),
                503: json_answer(
                    "It is shutting down, or cannot store; `failing` names what is not as it should be.", Health
                ),
            },
        ),
    )
    async def readyz() -> Response:
        failing = engine.failing
        if not failing:
            return answered(Health(status="ok"))
        return answered(Health(status="draining" if engine.draining else "degraded", failing=failing), 503)

    @routes.add(
        Operation(
            method="get",
            path="/metrics",
            id="metrics",
            tag="server",
            summary="What Prometheus reads",
            scope="admin",
            answers={
                200: text_answer(
                    "Text, or OpenMetrics if `Accept` asks for it.", "text/plain", "application/openmetrics-text"
                )
            },
            codes=("NOT_FOUND",),
        ),
    )
    async def metrics() -> Response:
        await allow("admin")
        if measured is None:
            raise NotFound("this server does not measure itself")
        body, content_type = measured.render(request.headers.get("Accept", ""))
        return Response(body, 200, content_type=content_type)

    # A handshake never comes here: the server takes it off the connection before.
    @routes.add(
        Operation(
            method="get",
            path="/v1/ws",
            id="openSocket",
            tag="streams",
            summary="The WebSocket",
            description=" ".join(_SOCKET.split()),
            scope=None,
            answers={101: no_body("The WebSocket is open.")},
        ),
    )
    async def no_websocket() -> Response:
        raise InvalidBody("this is a WebSocket: ask for it with a handshake of version 13")
