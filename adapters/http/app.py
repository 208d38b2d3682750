"""The application: its limits, what holds for every request, and every error as a problem answer."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from typing import Final, final

from quart import Response, request
from quart.globals import request_ctx
from quart_trio import QuartTrio
from werkzeug.exceptions import HTTPException
from werkzeug.exceptions import MethodNotAllowed as HttpMethodNotAllowed

from engine import Engine, InvalidBody, InvalidId, PenstockError, check_session_id, is_uuid

from ..origins import check_origin
from ..problems import Answer, BodyTooLarge, MethodNotAllowed, NotFound, SlowRequest, answer
from .events import add_events
from .generations import add_generations
from .health import add_health
from .page import add_page
from .sessions import add_sessions

__all__ = ["create_app"]

# A prompt with a long document fits; more in one request is a mistake, or an attack on memory.
_BODY_BYTES: Final = 1024 * 1024

# A mebibyte over a line of 35 KiB a second. Who takes longer holds a connection for its own sake.
_BODY_SECONDS: Final = 30

# How often a silent stream says that it lives: below the 30 to 60 s after which proxies cut a silent line.
_HEARTBEAT: Final = 15.0

_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})


@final
class _App(QuartTrio):
    async def make_default_options_response(self) -> Response:
        """What the resource knows. No word of other origins: they are refused."""
        adapter = request_ctx.url_adapter
        allowed = [] if adapter is None else sorted(adapter.allowed_methods())
        return Response(b"", 204, {"Allow": ", ".join(allowed)})


def create_app(engine: Engine, *, allowed_origins: Collection[str] = (), heartbeat: float = _HEARTBEAT) -> QuartTrio:
    """The application over ``engine``, for `adapters.server.serve` or another ASGI server under Trio.

    Pages of other origins are refused whatever changes something, unless ``allowed_origins`` names them.
    Streams say every ``heartbeat`` seconds that they live. The engine's life is the caller's business.
    """
    app = _App("penstock.http", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = _BODY_BYTES
    app.config["BODY_TIMEOUT"] = _BODY_SECONDS
    app.url_map.merge_slashes = False  # one path, one resource; and no redirects with pages of HTML
    allowed = frozenset(allowed_origins)

    @app.before_request
    async def check_page() -> None:
        if request.method not in _SAFE:
            check_origin(request.headers.get("Origin"), request.headers.get("Host"), allowed)

    @app.after_request
    async def guard(response: Response) -> Response:
        response.headers.setdefault("Cache-Control", "no-store")
        response.headers["X-Content-Type-Options"] = "nosniff"
        if response.status_code == 204:
            for name in ("Content-Type", "Content-Length"):
                response.headers.pop(name, None)
        return response

    app.register_error_handler(PenstockError, _on_error)
    app.register_error_handler(HTTPException, _on_http_error)
    add_sessions(app, engine)
    add_generations(app, engine)
    add_health(app, engine)
    add_events(app, engine, heartbeat)
    add_page(app)
    return app


async def _on_error(error: PenstockError) -> Response:
    return _respond(answer(error, **_ids()))


def _ids() -> dict[str, str]:
    """The ids in the request's path; what is no id is not told back as one."""
    ids: dict[str, str] = {}
    for name, text in (request.view_args or {}).items():
        if name == "session_id":
            with suppress(InvalidId):
                ids[name] = check_session_id(text)
        elif is_uuid(text):
            ids[name] = text.lower()
    return ids


async def _on_http_error(error: HTTPException) -> Response:
    """What Quart and Werkzeug refuse by themselves."""
    if isinstance(error, HttpMethodNotAllowed):
        allowed = tuple(sorted(error.valid_methods or ()))
        return _respond(answer(MethodNotAllowed(f"this resource knows {', '.join(allowed)}", allowed=allowed)))
    status = error.code or 500
    if status == 404:
        return _respond(answer(NotFound("no resource has this path")))
    ids = _ids()
    if status == 413:
        return _respond(answer(BodyTooLarge(f"a body is at most {_BODY_BYTES} bytes"), **ids))
    if status == 408:
        return _respond(answer(SlowRequest("the body did not arrive in time"), **ids))
    if status < 500:
        return _respond(answer(InvalidBody("the request is malformed"), **ids))
    return _respond(answer(error, **ids))  # Quart has logged what was behind it


def _respond(told: Answer) -> Response:
    response = Response(told.body, told.status)
    response.headers.update(dict(told.headers))
    return response
