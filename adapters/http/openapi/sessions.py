"""The operations of sessions, their messages and their streams."""

from __future__ import annotations

from typing import Final

from penstock.engine import Snapshot

from ...forms.ndjson import MEDIA_TYPE as NDJSON
from ...forms.sse import MEDIA_TYPE as SSE
from ...requests.answers import (
    DeleteAnswer,
    ForkAnswer,
    PostAnswer,
    PresenceAnswer,
    PresentAnswer,
    PutAnswer,
    ResetAnswer,
    RetractAnswer,
    SessionList,
    UpdateAnswer,
)
from ...requests.bodies import MessageBody
from ...requests.presence import PresenceBody
from ..sessions import ForkBody, NewBody, PatchBody, ResetBody, RetractBody
from .operation import LIMIT, SESSION, Answer, Body, Operation, answered, header, query
from .schemas import reference

__all__ = ["OPERATIONS"]

_ONE: Final = "/v1/sessions/{session_id}"

_STREAM: Final = """The log from a cursor on, and what comes. A logged event comes with its cursor: as the `id` of a
server-sent event, or to be built of the epoch in the first line and the event's `offset`. Frames about the stream
itself have an `event:` line, or a member `control`: `snapshot`, `caught-up`, `gap`, `presence`, `degraded`, `end`,
`drain`. Every 15 seconds of silence a comment, or an empty line, says that it lives."""

OPERATIONS: Final = (
    Operation(
        method="get",
        path="/v1/sessions",
        id="listSessions",
        tag="sessions",
        summary="Those that live, by id",
        scope="read",
        parameters=(LIMIT, query("after", "SessionId", "The id behind which the page begins.")),
        answers={200: answered("A page.", SessionList)},
        codes=("INVALID_ID", "DRAINING", "WRITE_FAILED"),
    ),
    Operation(
        method="put",
        path=_ONE,
        id="createSession",
        tag="sessions",
        summary="Make a session, or find it",
        description="One that was deleted begins a new life, with a new epoch.",
        scope="write",
        body=Body(shape=NewBody),
        answers={200: answered("It was there.", PutAnswer), 201: answered("It was made.", PutAnswer)},
        codes=SESSION,
    ),
    Operation(
        method="patch",
        path=_ONE,
        id="updateSession",
        tag="sessions",
        summary="Merge metadata",
        description="As RFC 7396 has it: null removes a member, objects merge.",
        scope="write",
        body=Body(shape=PatchBody, needed=True),
        answers={200: answered("All the metadata, as they are now.", UpdateAnswer)},
        codes=(*SESSION, "OVERLOADED"),
    ),
    Operation(
        method="get",
        path=_ONE,
        id="readSession",
        tag="sessions",
        summary="The snapshot",
        description="The state after all events up to `cursor`, with the newest messages.",
        scope="read",
        parameters=(LIMIT, query("before", "Uuid", "A message id: the messages before that one.")),
        answers={200: answered("The snapshot.", Snapshot)},
        codes=(*SESSION, "MESSAGE_NOT_FOUND"),
    ),
    Operation(
        method="delete",
        path=_ONE,
        id="deleteSession",
        tag="sessions",
        summary="Delete it",
        description="Answers once the live generation has ended; its streams get `end`. Works for one that cannot be "
        "read, too.",
        scope="admin",
        answers={200: answered("It is gone.", DeleteAnswer)},
        codes=tuple(code for code in SESSION if code != "CORRUPT_SESSION"),
    ),
    Operation(
        method="post",
        path=f"{_ONE}/reset",
        id="resetSession",
        tag="sessions",
        summary="Empty the transcript",
        description="What is live and what waits ends as `reset`. The session, its epoch and its metadata stay.",
        scope="admin",
        body=Body(shape=ResetBody),
        answers={200: answered("It is empty.", ResetAnswer)},
        codes=SESSION,
    ),
    Operation(
        method="post",
        path=f"{_ONE}/fork",
        id="forkSession",
        tag="sessions",
        summary="A new session that begins with this one's messages",
        description="All of them, or those up to `at`: a cursor, or the id of the last message to take.",
        scope="write",
        body=Body(shape=ForkBody),
        answers={201: answered("The new session.", ForkAnswer)},
        codes=(*SESSION, "INVALID_CURSOR", "MESSAGE_NOT_FOUND", "ID_IN_USE"),
    ),
    Operation(
        method="post",
        path=f"{_ONE}/messages",
        id="postMessage",
        tag="messages",
        summary="Post a whole message",
        description="With `text` or with `blocks`. Repeated under its `message_id` it changes nothing. A `role` other "
        "than `user` needs the scope `produce`.",
        scope="write",
        body=Body(shape=MessageBody, needed=True),
        answers={200: answered("It was there, just so.", PostAnswer), 201: answered("It is posted.", PostAnswer)},
        codes=(*SESSION, "ID_IN_USE"),
    ),
    Operation(
        method="post",
        path=f"{_ONE}/messages/{{message_id}}/retract",
        id="retractMessage",
        tag="messages",
        summary="Take a message out of the transcript",
        description="With `and_after` also all that follow it.",
        scope="write",
        body=Body(shape=RetractBody),
        answers={200: answered("It is out.", RetractAnswer)},
        codes=(*SESSION, "MESSAGE_NOT_FOUND", "GENERATION_ACTIVE"),
    ),
    Operation(
        method="get",
        path=f"{_ONE}/presence",
        id="readPresence",
        tag="presence",
        summary="Who is here",
        scope="read",
        answers={200: answered("All who are here.", PresenceAnswer)},
        codes=SESSION,
    ),
    Operation(
        method="put",
        path=f"{_ONE}/presence/{{actor_id}}/{{device_id}}",
        id="putPresence",
        tag="presence",
        summary="Be here for a minute",
        description="Put it again to stay. Readers of the stream are told at once. An actor other than the token's "
        "subject needs the scope `produce`.",
        scope="write",
        body=Body(shape=PresenceBody),
        answers={200: answered("It is known.", PresentAnswer)},
        codes=SESSION,
    ),
    Operation(
        method="delete",
        path=f"{_ONE}/presence/{{actor_id}}/{{device_id}}",
        id="dropDevice",
        tag="presence",
        summary="Be gone on one device",
        scope="write",
        answers={200: answered("It is known.", PresentAnswer)},
        codes=SESSION,
    ),
    Operation(
        method="delete",
        path=f"{_ONE}/presence/{{actor_id}}",
        id="dropActor",
        tag="presence",
        summary="Be gone on all devices",
        scope="write",
        answers={200: answered("It is known.", PresentAnswer)},
        codes=SESSION,
    ),
    Operation(
        method="get",
        path=f"{_ONE}/events",
        id="readEvents",
        tag="streams",
        summary="The stream",
        description=" ".join(_STREAM.split()),
        scope="read",
        parameters=(
            query(
                "after",
                {"anyOf": [reference("Cursor"), {"const": "now"}]},
                "Where to begin: behind this cursor, or at the tail. Else at the start.",
            ),
            query("live", {"type": "boolean", "default": True}, "With false it ends at the tail."),
            query("snapshot", {"type": "boolean", "default": False}, "The state first, then the events behind it."),
            header(
                "Last-Event-ID",
                {"type": "string", "pattern": "^([A-Za-z0-9]{1,32}-[0-9]{16})?$"},
                "A cursor: where to begin, before `after`. EventSource sends it by itself.",
            ),
        ),
        answers={
            200: Answer(
                description="The stream; its form by `Accept`, server-sent events unless it asks for the other.",
                content={SSE: reference("Event"), NDJSON: reference("StreamLine")},
            )
        },
        codes=(*SESSION, "INVALID_CURSOR"),
    ),
)
