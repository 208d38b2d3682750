"""The routes of sessions and of their messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence  # noqa: F401  # what `JSON` is made of, resolved by name in here
from functools import partial
from typing import final

from attrs import frozen
from quart import Response, request

from penstock.engine import Engine, InvalidBody, JSONObject, Snapshot, encode_json, new_session_id

from ..requests.answers import (
    DeleteAnswer,
    ForkAnswer,
    PostAnswer,
    PutAnswer,
    ResetAnswer,
    RestoreAnswer,
    RetractAnswer,
    SessionList,
    UpdateAnswer,
    VersionsAnswer,
)
from ..requests.bodies import EmptyBody, MessageBody, post, read_body
from ..requests.listing import Order, Place, list_body, list_sessions
from .guard import allow, authenticate, may_list, permitted
from .intake import json_body
from .routes import (
    KEY,
    LIMIT,
    SESSION,
    Body,
    Operation,
    Routes,
    answered,
    behind,
    idempotency_key,
    json_answer,
    page_size,
    query,
)

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


def _order() -> Order:
    """By what the request wants them listed. Raises `InvalidBody`."""
    match request.args.getlist("order"):
        case [] | ["id"]:
            return "id"
        case ["updated"]:
            return "updated"
        case _:
            raise InvalidBody("order must be id or updated, given once")


def add_sessions(routes: Routes, engine: Engine) -> None:
    """Add the routes over ``engine``."""

    @routes.add(
        Operation(
            method="get",
            path="/v1/sessions",
            id="listSessions",
            tag="sessions",
            summary="Those that live",
            description="By id, or with `order=updated` the last active first.",
            scope="read",
            parameters=(
                LIMIT,
                query(
                    "order",
                    {"type": "string", "enum": ["id", "updated"], "default": "id"},
                    "Of one time, in order of id.",
                ),
                query(
                    "after",
                    {"type": "string"},
                    "Where the page begins: the `next` of the one before, or in the order of ids an id.",
                ),
            ),
            answers={
                200: json_answer("A page. With an `authorize` hook it may be short, and have a `next`.", SessionList)
            },
            codes=("INVALID_ID", "INVALID_CURSOR", "DRAINING", "WRITE_FAILED"),
        ),
    )
    async def sessions() -> Response:
        principal = may_list()
        limit, order, after = page_size(), _order(), request.args.get("after")
        found, place = await list_sessions(
            engine,
            principal.sessions,
            partial(permitted, "read"),
            order=order,
            after=None if after is None else Place.parse(after, order),
            page_size=limit,
        )
        return answered(list_body(found, place))

    @routes.add(
        Operation(
            method="put",
            path="/v1/sessions/{session_id}",
            id="createSession",
            tag="sessions",
            summary="Make a session, or find it",
            description="One that was deleted begins a new life, with a new epoch.",
            scope="write",
            body=Body(shape=NewBody),
            answers={200: json_answer("It was there.", PutAnswer), 201: json_answer("It was made.", PutAnswer)},
            codes=SESSION,
        ),
    )
    async def create(session_id: str) -> Response:
        body = read_body(await json_body(), NewBody)
        session = await engine.create_session(session_id, metadata=body.metadata)
        made = PutAnswer(session_id=session.session_id, cursor=await session.cursor(), created=session.created)
        return answered(made, 201 if session.created else 200)

    @routes.add(
        Operation(
            method="patch",
            path="/v1/sessions/{session_id}",
            id="updateSession",
            tag="sessions",
            summary="Merge metadata",
            description="As RFC 7396 has it: null removes a member, objects merge.",
            scope="write",
            body=Body(shape=PatchBody, needed=True, example={"metadata": {"title": "Water"}}),
            answers={200: json_answer("All the metadata, as they are now.", UpdateAnswer)},
            codes=(*SESSION, "OVERLOADED"),
        ),
    )
    async def update(session_id: str) -> Response:
        body = read_body(await json_body(), PatchBody)
        updated = await (await engine.session(session_id)).update(body.metadata)
        return answered(UpdateAnswer(session_id=session_id, cursor=updated.cursor, metadata=updated.metadata))

    @routes.add(
        Operation(
            method="get",
            path="/v1/sessions/{session_id}",
            id="readSession",
            tag="sessions",
            summary="The snapshot",
            description="The state after all events up to `cursor`, with the newest messages.",
            scope="read",
            parameters=(LIMIT, query("before", "Uuid", "A message id: the messages before that one.")),
            answers={200: json_answer("The snapshot.", Snapshot)},
            codes=(*SESSION, "MESSAGE_NOT_FOUND"),
        ),
    )
    async def show(session_id: str) -> Response:
        session = await engine.session(session_id)
        page = await session.snapshot_page(page_size(), request.args.get("before"))
        return answered(page.body)

    @routes.add(
        Operation(
            method="delete",
            path="/v1/sessions/{session_id}",
            id="deleteSession",
            tag="sessions",
            summary="Delete it",
            description="Answers once the live generation has ended; its streams get `end`. Works for one that "
            "cannot be read, too.",
            scope="admin",
            answers={200: json_answer("It is gone.", DeleteAnswer)},
            codes=tuple(code for code in SESSION if code != "CORRUPT_SESSION"),
        ),
    )
    async def delete(session_id: str) -> Response:
        await engine.delete_session(session_id)
        return answered(DeleteAnswer(session_id=session_id))

    @routes.add(
        Operation(
            method="post",
            path="/v1/sessions/{session_id}/reset",
            id="resetSession",
            tag="sessions",
            summary="Empty the transcript",
            description="What is live and what waits ends as `reset`. The session, its epoch and its metadata stay.",
            scope="admin",
            body=Body(shape=ResetBody),
            answers={200: json_answer("It is empty.", ResetAnswer)},
            codes=SESSION,
        ),
    )
    async def reset(session_id: str) -> Response:
        body = read_body(await json_body(), ResetBody)
        cursor = await (await engine.session(session_id)).reset(body.reason)
        return answered(ResetAnswer(session_id=session_id, cursor=cursor))

    @routes.add(
        Operation(
            method="post",
            path="/v1/sessions/{session_id}/fork",
            id="forkSession",
            tag="sessions",
            summary="A new session that begins with this one's messages",
            description="All of them, or those up to `at`: a cursor, or the id of the last message to take.",
            scope="write",
            body=Body(shape=ForkBody),
            answers={201: json_answer("The new session.", ForkAnswer)},
            codes=(*SESSION, "INVALID_CURSOR", "MESSAGE_NOT_FOUND", "ID_IN_USE"),
            asks_itself=True,
        ),
    )
    async def fork(session_id: str) -> Response:
        await allow("read", session_id)
        body = read_body(await json_body(), ForkBody)
        # Made here, for it too must be one that the caller may write.
        target = new_session_id() if body.session_id is None else body.session_id
        await allow("write", target)
        made = await (await engine.session(session_id)).fork(target, at=body.at, metadata=body.metadata)
        return answered(ForkAnswer(session_id=made.session_id, cursor=await made.cursor()), 201)

    @routes.add(
        Operation(
            method="post",
            path="/v1/sessions/{session_id}/messages",
            id="postMessage",
            tag="messages",
            summary="Post a whole message",
            description="With `text` or with `blocks`. Repeated under its `message_id` it changes nothing. A "
            "`role` other than `user` needs the scope `produce`.",
            scope="write",
            body=Body(shape=MessageBody, needed=True, example={"text": "hello"}),
            answers={
                200: json_answer("It was there, just so.", PostAnswer),
                201: json_answer("It is posted.", PostAnswer),
            },
            codes=(*SESSION, "ID_IN_USE"),
            asks_itself=True,
        ),
    )
    async def post_message(session_id: str) -> Response:
        body = read_body(await json_body(), MessageBody)
        await allow("write" if body.role == "user" else "produce", session_id)
        made, created = await post(await engine.session(session_id), body, principal=authenticate().subject)
        return answered(made, 201 if created else 200)

    @routes.add(
        Operation(
            method="post",
            path="/v1/sessions/{session_id}/messages/{message_id}/retract",
            id="retractMessage",
            tag="messages",
            summary="Take a message out of the transcript",
            description="With `and_after` also all that follow it. One of the live generation's, or the one that it "
            "answers, is `GENERATION_ACTIVE`.",
            scope="write",
            body=Body(shape=RetractBody),
            answers={200: json_answer("It is out.", RetractAnswer)},
            codes=(*SESSION, "MESSAGE_NOT_FOUND", "GENERATION_ACTIVE"),
        ),
    )
    async def retract(session_id: str, message_id: str) -> Response:
        body = read_body(await json_body(), RetractBody)
        cursor = await (await engine.session(session_id)).retract(message_id, and_after=body.and_after)
        return answered(RetractAnswer(session_id=session_id, message_id=message_id.lower(), cursor=cursor))

    @routes.add(
        Operation(
            method="get",
            path="/v1/sessions/{session_id}/messages/{message_id}/versions",
            id="listVersions",
            tag="messages",
            summary="The versions of a message that was regenerated, or edited and sent again",
            description="The oldest first; the message is that of any of them. What followed each is not told of.",
            scope="read",
            parameters=(
                LIMIT,
                query(
                    "after", {"type": "integer", "minimum": 0, "default": 0}, "The number behind which the page begins."
                ),
            ),
            answers={200: json_answer("A page.", VersionsAnswer)},
            codes=(*SESSION, "MESSAGE_NOT_FOUND"),
        ),
    )
    async def versions(session_id: str, message_id: str) -> Response:
        session = await engine.session(session_id)
        found = await session.versions(message_id, after=behind(), limit=page_size())
        head = encode_json({"session_id": session_id, "message_id": message_id.lower()})
        more = b"true" if found.more else b"false"
        return answered(b'%b,"versions":[%b],"more":%b}' % (head[:-1], b",".join(found.bodies), more))

    @routes.add(
        Operation(
            method="post",
            path="/v1/sessions/{session_id}/messages/{message_id}/restore",
            id="restoreVersion",
            tag="messages",
            summary="Bring back a version of a message, with all that followed it",
            description="In place of what stands there now, which can be restored in its turn. A version that stands "
            "there stays as it is. While a generation is live it is `GENERATION_ACTIVE`.",
            scope="write",
            parameters=(KEY,),
            body=Body(shape=EmptyBody),
            answers={200: json_answer("It stands there.", RestoreAnswer)},
            codes=(*SESSION, "MESSAGE_NOT_FOUND", "GENERATION_ACTIVE", "IDEMPOTENCY_CONFLICT"),
        ),
    )
    async def restore(session_id: str, message_id: str) -> Response:
        key = idempotency_key()
        read_body(await json_body(), EmptyBody)
        session = await engine.session(session_id)
        restored = await session.restore(message_id, idempotency_key=key, principal=authenticate().subject)
        return answered(
            RestoreAnswer(
                session_id=session_id,
                message_id=message_id.lower(),
                message_ids=list(restored.message_ids),
                cursor=restored.cursor,
            )
        )
