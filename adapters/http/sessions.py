"""The routes that answer once: sessions, messages, generations, and the server's own state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from quart import Response, request
from quart_trio import QuartTrio

from engine import JSON, Engine, InvalidBody, decode_json, encode_json

from ..bodies import MessageBody, SessionBody, StartBody, StopBody, post, read_body, show_generation, start, stop

__all__ = ["add_sessions"]

# Messages in one snapshot, unless the client asks otherwise: a screenful many times over.
_PAGE: Final = 100

# And at most: what fits in memory for many clients at a time.
_LARGEST_PAGE: Final = 1000


def add_sessions(app: QuartTrio, engine: Engine) -> None:
    """Add the routes over ``engine``."""

    @app.put("/v1/sessions/<session_id>")
    async def create(session_id: str) -> Response:
        body = read_body(await _json(), SessionBody)
        session = await engine.create_session(session_id, metadata=body.metadata)
        made: dict[str, JSON] = {
            "session_id": session.session_id,
            "cursor": str(await session.cursor()),
            "created": session.created,
        }
        return _answer(made, 201 if session.created else 200)

    @app.get("/v1/sessions/<session_id>")
    async def show(session_id: str) -> Response:
        session = await engine.session(session_id)
        snapshot = await session.snapshot(_limit(), request.args.get("before"))
        return _answer(snapshot.to_json())

    @app.delete("/v1/sessions/<session_id>")
    async def delete(session_id: str) -> Response:
        await (await engine.session(session_id)).delete()
        return Response(b"", 204)

    @app.post("/v1/sessions/<session_id>/messages")
    async def post_message(session_id: str) -> Response:
        body = read_body(await _json(), MessageBody)
        made, created = await post(await engine.session(session_id), body)
        return _answer(made, 201 if created else 200)

    @app.post("/v1/sessions/<session_id>/generations")
    async def start_generation(session_id: str) -> Response:
        if "Idempotency-Key" in request.headers:
            raise InvalidBody("Idempotency-Key is not supported; propose a generation_id, which is used once only")
        body = read_body(await _json(), StartBody)
        return _answer(await start(await engine.session(session_id), body), 201)

    @app.get("/v1/sessions/<session_id>/generations/<generation_id>")
    async def generation(session_id: str, generation_id: str) -> Response:
        return _answer(await show_generation(await engine.session(session_id), generation_id))

    @app.post("/v1/sessions/<session_id>/stop")
    async def stop_generation(session_id: str) -> Response:
        body = read_body(await _json(), StopBody)
        return _answer(await stop(await engine.session(session_id), body))

    @app.get("/v1/ws")
    async def no_websocket() -> Response:
        raise InvalidBody("this is a WebSocket: ask for it with a handshake of version 13")

    @app.get("/healthz")
    async def healthz() -> Response:
        return _answer({"status": "ok"})

    @app.get("/readyz")
    async def readyz() -> Response:
        if engine.draining:
            return _answer({"status": "draining"}, 503)
        if engine.degraded:
            return _answer({"status": "degraded"}, 503)
        return _answer({"status": "ok"})


async def _json() -> JSON:
    """The body; none at all stands for an empty object."""
    data = await request.get_data()
    assert isinstance(data, bytes)
    return decode_json(data) if data else {}


def _limit() -> int:
    text = request.args.get("limit")
    if text is None:
        return _PAGE
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:9]) <= _LARGEST_PAGE:
        raise InvalidBody(f"limit must be a whole number from 1 to {_LARGEST_PAGE}")
    return int(text)


def _answer(value: Mapping[str, JSON], status: int = 200) -> Response:
    return Response(encode_json(value), status, content_type="application/json")
