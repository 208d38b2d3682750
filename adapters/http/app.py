"""The application: its limits, what holds for every request, and every error as a problem answer."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final, final
from urllib.parse import unquote

from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, Scope, WebsocketScope
from quart import Response, current_app, request
from quart_trio import QuartTrio
from werkzeug.exceptions import HTTPException
from werkzeug.exceptions import MethodNotAllowed as HttpMethodNotAllowed

from penstock.engine import Engine, InvalidBody, PenstockError

from ..access import OPEN, Identity, Recognize
from ..access.origins import check_host, check_origin, check_site, cross_origin, navigates
from ..isolation import ISOLATION
from ..problems import Answer, MethodNotAllowed, NotFound, answer, ids_in
from ..server.handover import Handover
from ..server.head import check_headers
from ..server.limits import UNLIMITED, Limits, Place
from ..watching.metrics import Metrics
from .chunks import add_chunks
from .events import add_events
from .files import add_files, brings_file, without_body
from .generations import add_generations
from .guard import add_guard, keeping
from .health import add_health
from .intake import BODY_BYTES, BODY_SECONDS, bounded, too_large, too_slow
from .list_events import add_list_events
from .openapi import add_openapi
from .page import PAGE, add_page
from .paths import with_path
from .presence import add_presence
from .producers import add_producers
from .pushing import NODE, Pushing
from .request_log import add_request_log, note_refusal
from .routes import Routes
from .sessions import add_sessions
from .tickets import add_tickets

__all__ = ["create_app"]

# How often a silent stream says that it lives: below the 30 to 60 s after which proxies cut a silent line.
_HEARTBEAT: Final = 15.0

# What every answer says, unless it says something else itself.
_GUARD: Final = (("Cache-Control", "no-store"), *ISOLATION)

_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})


@final
class _App(QuartTrio):
    routes: Routes
    pushing: Pushing | None = None
    own_hooks = 0

    def _hooks(self) -> int:
        return sum(map(len, self.after_request_funcs.values()))

    async def asgi_app(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        handover = Handover.offered(scope)
        if handover is not None and not (handover.reaches(send) and self._hooks() == self.own_hooks):
            scope = Handover.declined(scope)  # somebody may want to see, or to change, what is answered
        if scope["type"] == "websocket":  # Quart would come here with what is made for requests, and fail
            await _refuse_socket(scope, receive, send)
        elif scope["type"] != "http":
            await super().asgi_app(scope, receive, send)
        elif self.pushing is not None and (asked := self.pushing.read(scope)) is not None:
            await self.pushing.answer(asked, receive, send)
        else:
            try:
                check_headers(scope["headers"])  # Quart fails on a host that is none, before anything of ours is asked
            except InvalidBody as error:
                await _refuse(error, send)
                return
            scope = with_path(scope)
            if brings_file(scope):
                scope, receive = without_body(scope, receive)
            elif (most := self.config["MAX_CONTENT_LENGTH"]) is not None:
                receive = bounded(receive, most)
            held: list[Place] = []
            try:
                await super().asgi_app(keeping(scope, held), receive, send)
            finally:
                for place in held:
                    place.leave()

    async def make_default_options_response(self, *_context: object) -> Response:  # Quart gives one from 0.23 on
        """What the resource knows."""
        adapter = self.create_url_adapter(request)
        allowed = [] if adapter is None else sorted(adapter.allowed_methods())
        return Response(b"", 204, {"Allow": ", ".join(allowed)})


def create_app(
    engine: Engine,
    *,
    identity: Identity | Recognize = OPEN,
    allowed_origins: Collection[str] = (),
    allowed_hosts: Collection[str] = (),
    heartbeat: float = _HEARTBEAT,
    metrics: Metrics | None = None,
    limits: Limits | None = None,
) -> QuartTrio:
    """The application over ``engine``, for `penstock.adapters.server.accept.serve` or another ASGI server under Trio.

    ``identity`` says who may do what; a function of headers and cookies is ``Identity(recognize=…)``. Without it
    everybody may do everything, and the server must be asked by a name of its own machine or one in ``allowed_hosts``
    (``*``: any), and by no page of another origin. With it such pages get no answer to read and are refused whatever
    changes something; where cookies may say who asks, whatever they ask. ``allowed_origins`` names those that may.
    Streams say every ``heartbeat`` seconds that they live. ``metrics`` are shown at ``/metrics``. ``limits``, to be
    shared with the WebSocket's handler, is what one client may take; without it, any number. The engine's life is the
    caller's business.
    """
    identity = Identity.of(identity)
    app = _App("penstock.http", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = BODY_BYTES
    app.config["BODY_TIMEOUT"] = BODY_SECONDS
    app.url_map.merge_slashes = False  # one path, one resource; and no redirects with pages of HTML
    allowed = frozenset(allowed_origins)
    add_request_log(app)

    @app.before_request
    async def check_page() -> None:
        said, method = request.headers, request.method
        if identity.open:
            check_host(said.get("Host"), allowed_hosts)
        if (identity.open or identity.ambient) and method != "OPTIONS":  # by which a page asks whether it may
            tab = navigates(said.get("Sec-Fetch-Mode"), said.get("Sec-Fetch-Dest")) and request.endpoint == PAGE
            check_site(said.getlist("Sec-Fetch-Site"), said.get("Origin"), allowed, navigates=tab)
        if method not in _SAFE:
            check_origin(said.get("Origin"), said.get("Host"), allowed)

    @app.after_request
    async def guard(response: Response) -> Response:
        if (node := engine.node) is not None:
            response.headers[NODE] = node.name
        # A page has a policy of its own, with more in it.
        there = {name.lower() for name, _ in response.headers}
        response.headers.extend([(name, value) for name, value in _GUARD if name.lower() not in there])
        if allowed:
            preflight = request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers
            response.vary.add("Origin")
            response.headers.update(cross_origin(request.headers.get("Origin"), allowed, preflight=preflight))
        if response.status_code == 204:
            for name in ("Content-Type", "Content-Length"):
                response.headers.pop(name, None)
        return response

    bounds = limits or Limits(UNLIMITED)
    routes = app.routes = Routes(app)
    add_guard(app, identity, bounds, routes.public)
    app.register_error_handler(PenstockError, _on_error)
    app.register_error_handler(HTTPException, _on_http_error)
    add_sessions(routes, engine)
    add_files(routes, engine)
    add_presence(routes, engine)
    add_events(routes, engine, heartbeat)
    add_list_events(routes, engine, heartbeat)
    add_generations(routes, engine)
    add_chunks(routes, engine)
    add_producers(routes, engine)
    add_tickets(routes)
    add_health(routes, engine, metrics)
    add_page(routes)
    add_openapi(routes, identity)
    app.own_hooks = app._hooks()
    app.pushing = Pushing(app, engine, identity, bounds, allowed_origins=allowed, allowed_hosts=allowed_hosts)
    return app


async def _refuse_socket(scope: WebsocketScope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
    """Answer a handshake with a problem, where the server can send one, else by closing.

    `penstock.adapters.server.accept` passes none on: it hands them to the WebSocket's own handler.
    """
    told = answer(NotFound("there is no WebSocket here; the streams are there over HTTP"))
    if (await receive())["type"] != "websocket.connect":
        return
    if "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close", "code": 1000, "reason": None})
        return
    await send({"type": "websocket.http.response.start", "status": told.status, "headers": told.head()})
    await send({"type": "websocket.http.response.body", "body": told.body, "more_body": False})


async def _refuse(error: InvalidBody, send: ASGISendCallable) -> None:
    """Answer a request that Quart does not get."""
    told = answer(error)
    await send({"type": "http.response.start", "status": told.status, "headers": told.head()})
    await send({"type": "http.response.body", "body": told.body, "more_body": False})


async def _on_error(error: PenstockError) -> Response:
    ids = _ids()
    note_refusal(error, ids)
    return _respond(answer(error, **ids))


def _ids() -> dict[str, str]:
    """The ids in the request's path."""
    return ids_in(_named_in_path() if request.view_args is None else request.view_args)


def _named_in_path() -> dict[str, str]:
    """What the path names where no route has read it: it has another method, or stands below a session."""
    path = request.scope.get("raw_path", b"").decode("latin-1").removeprefix(request.root_path)
    parts = [unquote(part) for part in path.split("/")]
    if parts[:3] != ["", "v1", "sessions"] or len(parts) < 4:
        return {}
    known = {"generations": "generation_id", "queue": "generation_id", "messages": "message_id"}
    named = {"session_id": parts[3]}
    if len(parts) > 5 and parts[4] in known:
        named[known[parts[4]]] = parts[5]
    return named


async def _on_http_error(error: HTTPException) -> Response:
    """What Quart and Werkzeug refuse by themselves."""
    if isinstance(error, HttpMethodNotAllowed):
        allowed = tuple(sorted(error.valid_methods or ()))
        return await _on_error(MethodNotAllowed(f"this resource knows {', '.join(allowed)}", allowed=allowed))
    status = error.code or 500
    if status == 404:
        return await _on_error(NotFound("no resource has this path"))
    if status == 413:
        return await _on_error(too_large(current_app.config["MAX_CONTENT_LENGTH"]))
    if status == 408:
        return await _on_error(too_slow())
    if status < 500:
        return await _on_error(InvalidBody("the request is malformed"))
    return _respond(answer(error, **_ids()))  # Quart has logged what was behind it


def _respond(told: Answer) -> Response:
    response = Response(told.body, told.status)
    response.headers.update(dict(told.headers))
    return response
