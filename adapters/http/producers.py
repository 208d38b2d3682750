"""``GET /v1/producers``: what a start may name."""

from __future__ import annotations

from quart import Response

from penstock.engine import Engine

from ..requests.answers import ListedProducer, ProducersAnswer
from .routes import Operation, Routes, answered, json_answer

__all__ = ["add_producers"]


def add_producers(routes: Routes, engine: Engine) -> None:
    """Add the route over ``engine``."""

    @routes.add(
        Operation(
            method="get",
            path="/v1/producers",
            id="listProducers",
            tag="server",
            summary="The producers that this server runs",
            description="What a start may name, with what each says of itself. Any token will do.",
            scope="read",
            answers={200: json_answer("All of them.", ProducersAnswer)},
        ),
    )
    async def producers() -> Response:
        infos = engine.producer_infos
        listed = (
            ListedProducer(name=each.name, description=each.description, input_schema=each.input_schema)
            for each in infos
        )
        default = next((each.name for each in infos if each.default), None)
        return answered(ProducersAnswer(producers=tuple(listed), default=default))
