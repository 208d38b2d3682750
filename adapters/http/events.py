"""``GET …/events``: the stream as SSE or NDJSON. Owns what a request means; the bytes are `sse`'s and `ndjson`'s."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager
from types import ModuleType
from typing import Final, Self, final

import trio
from quart import Response, request
from quart.wrappers.response import ResponseBody
from quart_trio import QuartTrio

from engine import Cursor, Degraded, Delivery, Drained, Engine, InvalidBody, PenstockError, Subscription

from .. import ndjson, sse
from .guard import allow, counted, limits
from .request_log import Visit

__all__ = ["add_events"]

_log = logging.getLogger("penstock.http")

_HEADERS: Final = {
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",  # nginx would collect events before it passes them on
    "Vary": "Accept, Last-Event-ID",
}


@final
class _Deliveries(ResponseBody, AsyncIterator[bytes]):
    """A subscription as the body of an answer.

    No generator: Quart enters and leaves it in the task that reads it, so the session is left the moment the
    client is gone, and nothing waits for a garbage collector.
    """

    def __init__(
        self,
        opening: AbstractAsyncContextManager[Subscription],
        frame: Callable[[Delivery], bytes],
        heartbeat: bytes,
        interval: float,
        seconds: float,
        session_id: str,
    ) -> None:
        self._opening = opening
        self._frame = frame
        self._heartbeat = heartbeat
        self._interval = interval
        self._deadline = trio.current_time() + seconds  # of who reads
        self._subscription: Subscription | None = None
        self._visit = Visit(session_id)

    async def __aenter__(self) -> Self:
        self._subscription = await self._opening.__aenter__()
        self._visit.begin()
        return self

    async def __aexit__(self, *raised: object) -> None:
        self._visit.end(cut=raised[0] is not None)
        await self._opening.__aexit__(None, None, None)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if self._subscription is None:
            raise StopAsyncIteration
        left = self._deadline - trio.current_time()
        try:
            if left > 0:
                with trio.move_on_after(min(self._interval, left)):
                    return self._frame(await self._subscription.receive())
            if left <= self._interval:
                self._subscription = None
                return self._frame(Drained("token-expired"))
            return self._heartbeat
        except trio.EndOfChannel:
            raise StopAsyncIteration from None
        except PenstockError as error:
            # The log cannot be read. Said, and the answer ended: the client resumes by its cursor.
            _log.error("a stream ends early: %s", error, extra={"session_id": self._visit.session_id})
            self._subscription = None
            return self._frame(Degraded(error.code))


@asynccontextmanager
async def _held(
    share: AbstractContextManager[None], opening: AbstractAsyncContextManager[Subscription]
) -> AsyncIterator[Subscription]:
    with share:
        async with opening as subscription:
            yield subscription


def add_events(app: QuartTrio, engine: Engine, heartbeat: float) -> None:
    """Add the route over ``engine``; a silent stream says every ``heartbeat`` seconds that it lives."""

    @app.get("/v1/sessions/<session_id>/events")
    async def events(session_id: str) -> Response:
        principal = await allow("read", session_id)
        after = _after()
        live, snapshot = _flag("live", default=True), _flag("snapshot", default=False)
        session = await engine.session(session_id)
        accepted = request.accept_mimetypes
        form: ModuleType = ndjson if accepted[ndjson.MEDIA_TYPE] > accepted[sse.MEDIA_TYPE] else sse
        # From here to the body's own start nothing is open that could be forgotten.
        who = counted(principal)
        limits().check_subscriptions(who)
        opening = _held(limits().subscription(who), session.subscribe(after, live=live, snapshot=snapshot))
        seconds = principal.expires_at - time.time()
        body = (
            b""
            if request.method == "HEAD"
            else _Deliveries(opening, form.frame, form.HEARTBEAT, heartbeat, seconds, session_id)
        )
        response = Response(body, 200, _HEADERS, content_type=form.MEDIA_TYPE)
        response.headers.pop("Content-Length", None)  # HEAD tells of the stream, which has none
        response.timeout = None  # Quart would break the stream off after a minute
        return response


def _after() -> Cursor | str | None:
    """Where to begin. Raises `InvalidCursor`."""
    last = request.headers.get("Last-Event-ID")
    if last:
        return Cursor.parse(last)
    after = request.args.get("after")
    return after if after is None or after == "now" else Cursor.parse(after)


def _flag(name: str, *, default: bool) -> bool:
    text = request.args.get(name)
    if text is None:
        return default
    if text not in ("true", "false"):
        raise InvalidBody(f"{name} must be true or false, not {text!r}")
    return text == "true"
