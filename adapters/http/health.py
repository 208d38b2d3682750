"""The routes about the server itself."""

from __future__ import annotations

from quart import Response
from quart_trio import QuartTrio

from penstock.engine import Engine, InvalidBody

from .answers import answered

__all__ = ["add_health"]


def add_health(app: QuartTrio, engine: Engine) -> None:
    """Add the routes over ``engine``."""

    @app.get("/healthz")
    async def healthz() -> Response:
        return answered({"status": "ok"})

    @app.get("/readyz")
    async def readyz() -> Response:
        if engine.draining:
            return answered({"status": "draining"}, 503)
        if engine.degraded:
            return answered({"status": "degraded"}, 503)
        return answered({"status": "ok"})

    # A handshake never comes here: the server takes it off the connection before.
    @app.get("/v1/ws")
    async def no_websocket() -> Response:
        raise InvalidBody("this is a WebSocket: ask for it with a handshake of version 13")
