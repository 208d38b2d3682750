"""The routes of who is here: one entry per actor and device, for as long as it is put again."""

from __future__ import annotations

from quart import Response
from quart_trio import QuartTrio

from penstock.engine import Engine

from ..requests.bodies import read_body
from ..requests.presence import PresenceBody, PresenceFrame, carry_out
from .answers import answered
from .guard import allow
from .intake import json_body

__all__ = ["add_presence"]


def add_presence(app: QuartTrio, engine: Engine) -> None:
    """Add the routes over ``engine``."""

    @app.get("/v1/sessions/<session_id>/presence")
    async def presence(session_id: str) -> Response:
        await allow("read", session_id)
        present = await (await engine.session(session_id)).presence()
        return answered({"session_id": session_id, "presence": [one.to_json() for one in present]})

    @app.put("/v1/sessions/<session_id>/presence/<actor_id>/<device_id>")
    async def put_presence(session_id: str, actor_id: str, device_id: str) -> Response:
        await _allow_for(actor_id, session_id)
        body = read_body(await json_body(), PresenceBody)
        frame = PresenceFrame(actor_id=actor_id, device_id=device_id, name=body.name, status=body.status)
        return answered(await carry_out(await engine.session(session_id), frame))

    @app.delete("/v1/sessions/<session_id>/presence/<actor_id>/<device_id>")
    async def drop_device(session_id: str, actor_id: str, device_id: str) -> Response:
        await _allow_for(actor_id, session_id)
        frame = PresenceFrame(actor_id=actor_id, device_id=device_id, gone=True)
        return answered(await carry_out(await engine.session(session_id), frame))

    @app.delete("/v1/sessions/<session_id>/presence/<actor_id>")
    async def drop_actor(session_id: str, actor_id: str) -> Response:
        await _allow_for(actor_id, session_id)
        frame = PresenceFrame(actor_id=actor_id, gone=True)
        return answered(await carry_out(await engine.session(session_id), frame))


async def _allow_for(actor_id: str, session_id: str) -> None:
    """Whoever may write says where they are themselves; it takes more to say it of another."""
    principal = await allow("write", session_id)
    if actor_id != principal.subject:
        await allow("produce", session_id)
