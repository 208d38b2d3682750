"""The routes of a session's generations: start, look, stop, the queue, and what is sent into a live one."""

from __future__ import annotations

from typing import Final, final

from attrs import frozen
from quart import Response, request
from quart_trio import QuartTrio

from penstock.engine import JSON, Engine, InvalidBody

from ..requests.bodies import StartBody, StopBody, check_idempotency_key, put_in, read_body, read_input, start, stop
from .answers import answered
from .chunks import lease_in
from .guard import allow, permitted
from .intake import json_body

__all__ = ["add_generations"]

_STATUS: Final = {"started": 201, "queued": 202, "joined": 200, "repeated": 200}


@final
@frozen(kw_only=True)
class _NoBody:
    pass


def add_generations(app: QuartTrio, engine: Engine) -> None:
    """Add the routes over ``engine``."""

    @app.post("/v1/sessions/<session_id>/generations")
    async def start_generation(session_id: str) -> Response:
        principal = await allow("write", session_id)
        key, lease = _idempotency_key(), lease_in(request.headers.getlist)
        body = read_body(await json_body(), StartBody)
        if body.is_remote:
            await allow("produce", session_id)
        produces = await permitted("produce", session_id)
        session = await engine.session(session_id)
        made, how = await start(session, body, key, principal=principal.subject, produces=produces, lease=lease)
        return answered(made, _STATUS[how])

    @app.get("/v1/sessions/<session_id>/generations/<generation_id>")
    async def generation(session_id: str, generation_id: str) -> Response:
        await allow("read", session_id)
        found = await (await engine.session(session_id)).generation(generation_id)
        made: dict[str, JSON] = {
            "session_id": session_id,
            "generation_id": found.generation_id,
            "state": found.state,
        }
        if found.turn is not None:
            made["turn"] = found.turn
        if found.outcome is not None:
            made["outcome"] = found.outcome
        return answered(made)

    @app.post("/v1/sessions/<session_id>/generations/<generation_id>/inputs")
    async def send_input(session_id: str, generation_id: str) -> Response:
        principal = await allow("write", session_id)
        body = read_input(await json_body())
        if body.names_another:
            await allow("produce", session_id)
        session = await engine.session(session_id)
        return answered(await put_in(session, generation_id.lower(), body, principal=principal.subject), 202)

    @app.post("/v1/sessions/<session_id>/stop")
    async def stop_generation(session_id: str) -> Response:
        await allow("write", session_id)
        body = read_body(await json_body(), StopBody)
        return answered(await stop(await engine.session(session_id), body))

    @app.post("/v1/sessions/<session_id>/queue/next")
    async def queue_next(session_id: str) -> Response:
        await allow("write", session_id)
        read_body(await json_body(), _NoBody)
        went_on = await (await engine.session(session_id)).queue_next()
        made: dict[str, JSON] = {"session_id": session_id, "cursor": str(went_on.cursor)}
        if went_on.generation_id is not None:
            made["generation_id"] = went_on.generation_id
        return answered(made)

    @app.delete("/v1/sessions/<session_id>/queue/<generation_id>")
    async def dequeue(session_id: str, generation_id: str) -> Response:
        await allow("write", session_id)
        await (await engine.session(session_id)).dequeue(generation_id)
        return answered({"session_id": session_id, "generation_id": generation_id.lower()})


def _idempotency_key() -> str | None:
    """Raises `InvalidBody`."""
    keys = request.headers.getlist("Idempotency-Key")
    if len(keys) > 1:
        raise InvalidBody("there is more than one Idempotency-Key")
    return check_idempotency_key(keys[0]) if keys else None
