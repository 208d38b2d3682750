"""``/openapi.json``: the description, made once and told the prefix under which this server is reached."""

from __future__ import annotations

from hashlib import sha256

from quart import Response, request

from penstock.engine import encode_json

from ..page import FILES
from ..routes import Answer, Operation, Routes, no_body
from .document import document

__all__ = ["add_openapi"]


def add_openapi(routes: Routes, *, secured: bool) -> None:
    """Add the route, as the last one: it describes those that are there. ``secured``: requests must bear a token."""

    @routes.add(
        Operation(
            method="get",
            path="/openapi.json",
            id="describe",
            tag="server",
            summary="This description",
            scope=None,
            answers={
                200: Answer(description="OpenAPI 3.1.", content={"application/json": {"type": "object"}}),
                304: no_body("It is what `If-None-Match` names."),
            },
        )
    )
    async def openapi() -> Response:
        prefix = request.root_path.rstrip("/")
        body = encode_json({**told, "servers": [{"url": prefix}]} if prefix else told)
        response = Response(body, 200, {"Cache-Control": "no-cache"}, content_type="application/json")
        response.set_etag(sha256(body).hexdigest()[:32])
        return await response.make_conditional(request)

    told = document(routes.operations.values(), files=FILES, secured=secured)
