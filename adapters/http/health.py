"""The routes about the server itself."""

from __future__ import annotations

from typing import Final

from quart import Response

from penstock.engine import Engine, InvalidBody

from ..requests.answers import Health
from .answers import answered
from .routes import Operation, Routes, json_answer, no_body

__all__ = ["add_health"]


_SOCKET: Final = """A handshake of version 13 with the subprotocol `penstock.v1`, or none. Text frames, one JSON object
each. The client sends `{"op", "id"?, …}`, the bodies as here; the server `reply` and `error`, and for each session
that is subscribed to `events` and the frames of a stream."""


def add_health(routes: Routes, engine: Engine) -> None:
    """Add the routes over ``engine``."""

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
        return answered({"status": "ok"})

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
                503: json_answer("It is shutting down, or cannot store.", Health),
            },
        ),
    )
    async def readyz() -> Response:
        if engine.draining:
            return answered({"status": "draining"}, 503)
        if engine.degraded:
            return answered({"status": "degraded"}, 503)
        return answered({"status": "ok"})

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
