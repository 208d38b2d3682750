"""``GET /metrics``: what the engine and its edge do, as Prometheus reads it."""

from __future__ import annotations

from quart import Response, request

from ..problems import NotFound
from ..watching.metrics import Metrics
from .guard import allow
from .routes import Operation, Routes, text_answer

__all__ = ["add_metrics"]


def add_metrics(routes: Routes, measured: Metrics | None) -> None:
    """Add the route, which answers 404 where nothing is measured."""

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
