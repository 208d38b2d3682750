"""``GET /v1/events``: the list of sessions as a stream, as SSE or NDJSON."""

from __future__ import annotations

from functools import partial
from types import ModuleType
from typing import Final, TypeAlias

from quart import Response

from penstock.engine import CaughtUp, Degraded, Drained, Ended, Engine, Gap, Opened

from ..access import covers
from ..forms import ndjson, sse
from ..requests.listing import FollowedList, ListFrame
from ..server.handover import chunk
from .guard import identity, may_list
from .openapi.schemas import reference
from .routes import HEARTBEAT, LIMIT, Operation, Routes, flag, page_size, query, seconds_between
from .streaming import LAST_EVENT_ID, Form, Forms, after_cursor, answer_of, streamed

__all__ = ["add_list_events"]

_Delivery: TypeAlias = ListFrame | Opened | Gap | CaughtUp | Drained | Degraded | Ended


def _forms(module: ModuleType) -> Forms[_Delivery]:
    def frame(delivery: _Delivery) -> bytes:
        made: bytes = module.frame_list(*delivery) if isinstance(delivery, ListFrame) else module.frame(delivery)
        return made

    def in_chunks(delivery: _Delivery) -> bytes:
        return chunk(frame(delivery))

    return Forms(Form(module.HEARTBEAT, frame), Form(chunk(module.HEARTBEAT), in_chunks))


_FORMS: Final = {module: _forms(module) for module in (ndjson, sse)}

_STREAM: Final = """The sessions that you may read, the last active first: one page of them as `sessions`, then what
changes: `session` is what is listed of one now, also of one that was made; `session-gone` names one that was deleted. A
client that comes back with the cursor of the last frame gets what has changed since, each session once, and no page,
or a `gap` and the page. Frames about the stream itself are those of a session's: `caught-up`, `gap`, `degraded`,
`drain`."""


def add_list_events(routes: Routes, engine: Engine, heartbeat: float) -> None:
    """Add the route over ``engine``; a silent stream says every ``heartbeat`` seconds that it lives."""

    @routes.add(
        Operation(
            method="get",
            path="/v1/events",
            id="watchSessions",
            tag="streams",
            summary="The list of sessions, as it changes",
            description=" ".join(_STREAM.split()),
            scope="read",
            parameters=(
                LIMIT,
                query("after", "Cursor", "Where to go on: the cursor of a frame of this stream."),
                query("live", {"type": "boolean", "default": True}, "With false it ends when it is caught up."),
                HEARTBEAT,
                LAST_EVENT_ID,
            ),
            answers={200: answer_of(reference("ListLine"), reference("ListLine"))},
            codes=("INVALID_CURSOR", "DRAINING", "WRITE_FAILED"),
        ),
    )
    async def list_events() -> Response:
        principal, live, interval = may_list(), flag("live", default=True), seconds_between(heartbeat)
        followed = FollowedList(
            engine,
            after_cursor(),
            patterns=principal.sessions,
            wants=partial(covers, principal.sessions),
            # Bound to whom it is asked of: the stream outlives the request that Quart knows.
            permitted=partial(identity().permits, principal, "read"),
            page_size=page_size(),
            live=live,
        )
        return streamed(followed, _FORMS, principal=principal, live=live, heartbeat=interval)
