"""``GET /metrics``: what the engine and its edge do, as Prometheus reads it."""

from __future__ import annotations

from quart import Response, request
from quart_trio import QuartTrio

from ..problems import NotFound
from ..watching.metrics import Metrics
from .guard import allow

__all__ = ["add_metrics"]


def add_metrics(app: QuartTrio, measured: Metrics | None) -> None:
    """Add the route, which answers 404 where nothing is measured."""

    @app.get("/metrics")
    async def metrics() -> Response:
        await allow("admin")
        if measured is None:
            raise NotFound("this server does not measure itself")
        body, content_type = measured.render(request.headers.get("Accept", ""))
        return Response(body, 200, content_type=content_type)
