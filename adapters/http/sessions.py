"""The routes of sessions and of their messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence  # noqa: F401  # what `JSON` is made of, resolved by name in here
from functools import partial
from typing import final

from attrs import frozen
from quart import Response, request
from quart_trio import QuartTrio

from penstock.engine import JSON, Engine, JSONObject, check_session_id, encode_json, new_session_id

from ..requests.bodies import MessageBody, post, read_body
from .answers import answered, page_size
from .guard import allow, may_list, permitted
from .intake import json_body
from .listing import list_sessions

__all__ = ["ForkBody", "NewBody", "PatchBody", "ResetBody", "RetractBody", "add_sessions"]


@final
@frozen(kw_only=True)
class NewBody:
    metadata: JSONObject | None = None


@final
@frozen(kw_only=True)
class PatchBody:
    metadata: JSONObject


@final
@frozen(kw_only=True)
class ResetBody:
    reason: str | None = None


@final
@frozen(kw_only=True)
class ForkBody:
    session_id: str | None = None
    at: str | None = None
    metadata: JSONObject | None = None


@final
@frozen(kw_only=True)
class RetractBody:
    and_after: bool = False


def add_sessions(app: QuartTrio, engine: Engine) -> None:
    """Add the routes over ``engine``."""

    @app.get("/v1/sessions")
    async def sessions() -> Response:
        principal = may_list()
        limit, after = page_size(), request.args.get("after")
        behind = "" if after is None else check_session_id(after)
        found, last = await list_sessions(engine, principal.sessions, partial(permitted, "read"), behind, limit)
        more = b"" if last is None else b',"next":%b' % encode_json(last)
        return answered(b'{"sessions":[%b]%b}' % (b",".join(found), more))

    @app.put("/v1/sessions/<session_id>")
    async def create(session_id: str) -> Response:
        await allow("write", session_id)
        body = read_body(await json_body(), NewBody)
        session = await engine.create_session(session_id, metadata=body.metadata)
        made: dict[str, JSON] = {
            "session_id": session.session_id,
            "cursor": str(await session.cursor()),
            "created": session.created,
        }
        return answered(made, 201 if session.created else 200)

    @app.patch("/v1/sessions/<session_id>")
    async def update(session_id: str) -> Response:
        await allow("write", session_id)
        body = read_body(await json_body(), PatchBody)
        updated = await (await engine.session(session_id)).update(body.metadata)
        return answered({"session_id": session_id, "cursor": str(updated.cursor), "metadata": updated.metadata})

    @app.get("/v1/sessions/<session_id>")
    async def show(session_id: str) -> Response:
        await allow("read", session_id)
        session = await engine.session(session_id)
        page = await session.snapshot_page(page_size(), request.args.get("before"))
        return answered(page.body)

    @app.delete("/v1/sessions/<session_id>")
    async def delete(session_id: str) -> Response:
        await allow("admin", session_id)
        await engine.delete_session(session_id)
        return answered({"session_id": session_id})

    @app.post("/v1/sessions/<session_id>/reset")
    async def reset(session_id: str) -> Response:
        await allow("admin", session_id)
        body = read_body(await json_body(), ResetBody)
        cursor = await (await engine.session(session_id)).reset(body.reason)
        return answered({"session_id": session_id, "cursor": str(cursor)})

    @app.post("/v1/sessions/<session_id>/fork")
    async def fork(session_id: str) -> Response:
        await allow("read", session_id)
        body = read_body(await json_body(), ForkBody)
        # Made here, for it too must be one that the caller may write.
        target = new_session_id() if body.session_id is None else body.session_id
        await allow("write", target)
        made = await (await engine.session(session_id)).fork(target, at=body.at, metadata=body.metadata)
        return answered({"session_id": made.session_id, "cursor": str(await made.cursor())}, 201)

    @app.post("/v1/sessions/<session_id>/messages")
    async def post_message(session_id: str) -> Response:
        body = read_body(await json_body(), MessageBody)
        await allow("write" if body.role == "user" else "produce", session_id)
        made, created = await post(await engine.session(session_id), body)
        return answered(made, 201 if created else 200)

    @app.post("/v1/sessions/<session_id>/messages/<message_id>/retract")
    async def retract(session_id: str, message_id: str) -> Response:
        await allow("write", session_id)
        body = read_body(await json_body(), RetractBody)
        cursor = await (await engine.session(session_id)).retract(message_id, and_after=body.and_after)
        return answered({"session_id": session_id, "message_id": message_id.lower(), "cursor": str(cursor)})
