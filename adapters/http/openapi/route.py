"""``/openapi.json``: the description, made once and told the prefix under which this server is reached."""

from __future__ import annotations

from hashlib import sha256

from quart import Response, request
from quart_trio import QuartTrio

from penstock.engine import encode_json

from ..page import FILES
from .document import document

__all__ = ["add_openapi"]


def add_openapi(app: QuartTrio, *, secured: bool) -> None:
    """Add the route. ``secured``: requests must bear a token."""
    told = document(files=FILES, secured=secured)

    @app.get("/openapi.json")
    async def openapi() -> Response:
        prefix = request.root_path.rstrip("/")
        body = encode_json({**told, "servers": [{"url": prefix}]} if prefix else told)
        response = Response(body, 200, {"Cache-Control": "no-cache"}, content_type="application/json")
        response.set_etag(sha256(body).hexdigest()[:32])
        return await response.make_conditional(request)
