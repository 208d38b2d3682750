"""``GET …/events``: the stream as SSE or NDJSON. Owns what a request means; the bytes are `sse`'s and `ndjson`'s."""

from __future__ import annotations

from types import ModuleType
from typing import Final

from quart import Response, request

from penstock.engine import Batch, Cursor, Delivery, Engine, SnapshotPage, SnapshotTaken

from ..forms import ndjson, sse
from ..server.handover import chunk
from .guard import authenticate, identity
from .openapi.schemas import reference
from .routes import HEARTBEAT, LARGEST_PAGE, SESSION, Operation, Routes, flag, number, query, seconds_between
from .streaming import LAST_EVENT_ID, Allowance, Form, Forms, after_cursor, answer_of, streamed

__all__ = ["add_events"]


def _forms(module: ModuleType) -> Forms[Delivery]:
    """What is made once for all readers is made so in chunks, too."""

    def frame_batch(batch: Batch) -> bytes:
        return chunk(module.frame_batch(batch))

    def frame_snapshot(page: SnapshotPage) -> bytes:
        return chunk(module.frame_snapshot(page))

    def frame(delivery: Delivery) -> bytes:
        if isinstance(delivery, Batch):
            return delivery.framed(frame_batch)
        if isinstance(delivery, SnapshotTaken):
            return delivery.framed(frame_snapshot)
        return chunk(module.frame(delivery))

    return Forms(Form(module.HEARTBEAT, module.frame), Form(chunk(module.HEARTBEAT), frame))


_FORMS: Final = {module: _forms(module) for module in (ndjson, sse)}

_STREAM: Final = """The log from a cursor on, and what comes. A logged event comes with its cursor: as the `id` of a
server-sent event, or to be built of the epoch in the first line and the event's `offset`. Frames about the stream
itself have an `event:` line, or a member `control`: `snapshot`, `caught-up`, `gap`, `presence`, `degraded`, `end`,
`drain`. Every 15 seconds of silence, or as often as `heartbeat` asks, a comment, or an empty line, says that it
lives."""


def add_events(routes: Routes, engine: Engine, heartbeat: float) -> None:
    """Add the route over ``engine``; a silent stream says every ``heartbeat`` seconds that it lives."""

    @routes.add(
        Operation(
            method="get",
            path="/v1/sessions/{session_id}/events",
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
                query(
                    "limit",
                    {"type": "integer", "minimum": 1, "maximum": LARGEST_PAGE},
                    "How many messages the state has, at most: the newest. Without it as many as a page may have.",
                ),
                HEARTBEAT,
                LAST_EVENT_ID,
            ),
            answers={200: answer_of(reference("Event"), reference("StreamLine"))},
            codes=(*SESSION, "INVALID_CURSOR"),
        ),
    )
    async def events(session_id: str) -> Response:
        principal = authenticate()
        after = _after()
        live, snapshot = flag("live", default=True), flag("snapshot", default=False)
        limit, interval = number("limit", LARGEST_PAGE), seconds_between(heartbeat)
        session = await engine.session(session_id)
        await session.cursor()  # one that is set aside is refused here, before there is an answer
        opening = session.subscribe(after, live=live, snapshot=snapshot, limit=limit)
        return streamed(
            opening,
            _FORMS,
            principal=principal,
            live=live,
            heartbeat=interval,
            session_id=session_id,
            allowed=Allowance(identity(), principal, session_id),
        )


def _after() -> Cursor | str | None:
    """Where to begin. Raises `InvalidCursor`."""
    if not request.headers.get(LAST_EVENT_ID.name) and request.args.get("after") == "now":
        return "now"
    return after_cursor()
