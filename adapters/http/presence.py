"""The routes of who is here: one entry per actor and device, for as long as it is put again."""

from __future__ import annotations

from quart import Response

from penstock.engine import Engine

from ..requests.answers import PresenceAnswer, PresentAnswer
from ..requests.bodies import read_body
from ..requests.presence import PresenceBody, PresenceFrame, carry_out
from .guard import allow, authenticate
from .intake import json_body
from .routes import SESSION, Body, Operation, Routes, answered, json_answer

__all__ = ["add_presence"]


def add_presence(routes: Routes, engine: Engine) -> None:
    """Add the routes over ``engine``."""

    @routes.add(
        Operation(
            method="get",
            path="/v1/sessions/{session_id}/presence",
            id="readPresence",
            tag="presence",
            summary="Who is here",
            scope="read",
            answers={200: json_answer("All who are here.", PresenceAnswer)},
            codes=SESSION,
        ),
    )
    async def presence(session_id: str) -> Response:
        present = await (await engine.session(session_id)).presence()
        return answered(PresenceAnswer(session_id=session_id, presence=present))

    @routes.add(
        Operation(
            method="put",
            path="/v1/sessions/{session_id}/presence/{actor_id}/{device_id}",
            id="putPresence",
            tag="presence",
            summary="Be here for a minute",
            description="Put it again to stay. Readers of the stream are told at once. An actor other than the "
            "token's subject needs the scope `produce`.",
            scope="write",
            body=Body(shape=PresenceBody, example={"name": "Ann"}),
            answers={200: json_answer("It is known.", PresentAnswer)},
            codes=SESSION,
        ),
    )
    async def put_presence(session_id: str, actor_id: str, device_id: str) -> Response:
        await _allow_for(actor_id, session_id)
        body = read_body(await json_body(), PresenceBody)
        frame = PresenceFrame(actor_id=actor_id, device_id=device_id, name=body.name, status=body.status)
        return answered(await carry_out(await engine.session(session_id), frame))

    @routes.add(
        Operation(
            method="delete",
            path="/v1/sessions/{session_id}/presence/{actor_id}/{device_id}",
            id="dropDevice",
            tag="presence",
            summary="Be gone on one device",
            scope="write",
            answers={200: json_answer("It is known.", PresentAnswer)},
            codes=SESSION,
        ),
    )
    async def drop_device(session_id: str, actor_id: str, device_id: str) -> Response:
        await _allow_for(actor_id, session_id)
        frame = PresenceFrame(actor_id=actor_id, device_id=device_id, gone=True)
        return answered(await carry_out(await engine.session(session_id), frame))

    @routes.add(
        Operation(
            method="delete",
            path="/v1/sessions/{session_id}/presence/{actor_id}",
            id="dropActor",
            tag="presence",
            summary="Be gone on all devices",
            scope="write",
            answers={200: json_answer("It is known.", PresentAnswer)},
            codes=SESSION,
        ),
    )
    async def drop_actor(session_id: str, actor_id: str) -> Response:
        await _allow_for(actor_id, session_id)
        frame = PresenceFrame(actor_id=actor_id, gone=True)
        return answered(await carry_out(await engine.session(session_id), frame))


async def _allow_for(actor_id: str, session_id: str) -> None:
    """Whoever may write says where they are themselves; it takes more to say it of another."""
    if actor_id != authenticate().subject:
        await allow("produce", session_id)
