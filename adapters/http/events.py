"""``GET …/events``: the stream as SSE or NDJSON. Owns what a request means; the bytes are `sse`'s and `ndjson`'s."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from types import ModuleType
from typing import Final, Self, final

import trio
from attrs import frozen
from quart import Response, request
from quart.wrappers.response import ResponseBody

from penstock.engine import (
    Batch,
    Cursor,
    Degraded,
    Delivery,
    Drained,
    Ended,
    Engine,
    InvalidBody,
    PenstockError,
    SessionDeleted,
    SnapshotPage,
    SnapshotTaken,
    Subscription,
    request_id,
)

from ..access import Identity, Principal
from ..forms import ndjson, sse
from ..server.ending import Ending
from ..server.handover import Handover, Outlet, chunk
from ..server.limits import CONNECTION, Place
from .guard import authenticate, counted, identity, limits, places
from .openapi.schemas import reference
from .request_log import Visit
from .routes import LARGEST_PAGE, SESSION, Answer, Operation, Routes, header, number, query

__all__ = ["add_events"]

_log = logging.getLogger("penstock.http")

_HEADERS: Final = {
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",  # nginx would collect events before it passes them on
    "Vary": "Accept, Last-Event-ID",
}


# When so many bytes have gathered for one write, what is behind them goes with the next.
_WRITE: Final = 64 * 1024


@final
@frozen
class _Form:
    """How deliveries are told."""

    heartbeat: bytes
    frame: Callable[[Delivery], bytes]

    @classmethod
    def of(cls, module: ModuleType) -> _Form:
        return cls(module.HEARTBEAT, module.frame)

    @classmethod
    def in_chunks(cls, module: ModuleType) -> _Form:
        """The same, for a connection's `Outlet`."""

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

        return cls(chunk(module.HEARTBEAT), frame)


_FORMS: Final = {module: _Form.of(module) for module in (ndjson, sse)}
_IN_CHUNKS: Final = {module: _Form.in_chunks(module) for module in (ndjson, sse)}


@final
class _Allowed:
    """Whether ``principal`` may still read; to be asked again when it is ``until``, by trio's clock."""

    def __init__(self, identity: Identity, principal: Principal, session_id: str) -> None:
        self._identity = identity
        self._principal = principal
        self._session_id = session_id
        self.until = trio.current_time() + identity.ask_again

    async def ask(self) -> Delivery | None:
        """How the stream ends, if not."""
        try:
            await self._identity.check_again(self._principal, "read", self._session_id)
        except PenstockError as refused:
            fields = {"session_id": self._session_id, "code": refused.code}
            _log.info("a stream ends, its reader may not read any more", extra=fields)
            return Drained("access-refused")  # who comes back is told how it stands
        except Exception:  # noqa: BLE001  # the application's bug: who cannot be asked has not said yes
            _log.exception("asking for the right to read %s failed", self._session_id)
            return Degraded("INTERNAL")
        self.until = trio.current_time() + self._identity.ask_again
        return None


@final
class _Deliveries(ResponseBody, AsyncIterator[bytes]):
    """A subscription as the body of an answer.

    No generator: it is entered and left in the task that reads it, so the session is left the moment the
    client is gone, and nothing waits for a garbage collector. Where the server offers to, it is handed over as soon as
    Quart would read it, and is then no more than empty to Quart.
    """

    def __init__(
        self,
        opening: AbstractAsyncContextManager[Subscription],
        module: ModuleType,
        interval: float,
        seconds: float,
        session_id: str,
        handover: Handover | None,
        place: Place,
        held: list[Place],
        allowed: _Allowed,
    ) -> None:
        self._opening = opening
        self._failed: PenstockError | None = None
        self._place = place
        self._held = held
        self._allowed = allowed
        self._form = (_FORMS if handover is None else _IN_CHUNKS)[module]
        self._module = module
        self._interval = interval
        self._deadline = trio.current_time() + seconds  # of who reads
        self._spoken = trio.current_time()
        self._subscription: Subscription | None = None
        self._entered = False
        self._visit = Visit(session_id)
        self._handover = handover
        self._request_id = request_id.get()

    async def __aenter__(self) -> Self:
        if self._handover is not None and not self._handover.take(self._pour):
            self._handover, self._form = None, _FORMS[self._module]
        if self._handover is None:
            await self._open()
        else:
            # The request ends before its answer does, which the connection carries out.
            self._held.remove(self._place)
            if (connection := CONNECTION.get()) is not None:
                connection.keep(self._place)
        return self

    async def __aexit__(self, *raised: object) -> None:
        if self._handover is None:
            await self._close(cut=raised[0] is not None)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        return await self._next()

    async def _pour(self, outlet: Outlet) -> None:
        """All of it, by the connection's own task."""
        request_id.set(self._request_id)
        ended = False
        await self._open()
        try:
            while True:
                await outlet.send_all(await self._next())
        except StopAsyncIteration:
            ended = True
        finally:
            await self._close(cut=not ended)

    async def _open(self) -> None:
        self._visit.begin()
        try:
            self._subscription = await self._opening.__aenter__()
            self._entered = True
        except PenstockError as error:
            self._failed = error  # the head is out, so it is said in the stream: the session was deleted meanwhile, say
        except BaseException:
            self._visit.end(cut=True)
            self._place.leave()
            raise

    async def _close(self, *, cut: bool) -> None:
        self._visit.end(cut=cut)
        self._place.leave()
        if self._entered:
            self._entered = False
            await self._opening.__aexit__(None, None, None)

    async def _next(self) -> bytes:
        """The next bytes, with all that has gathered by then. Raises `StopAsyncIteration` at the end."""
        if self._failed is not None:
            error, self._failed = self._failed, None
            return self._last(Ended("deleted") if isinstance(error, SessionDeleted) else Degraded(error.code))
        while self._subscription is not None:
            try:
                with trio.CancelScope(deadline=min(self._spoken + self._interval, self._deadline, self._allowed.until)):
                    delivery = await self._subscription.receive()
                    self._spoken = trio.current_time()
                    return self._drained(self._subscription, delivery)
            except trio.EndOfChannel:
                break
            except PenstockError as error:
                # The log cannot be read. Said, and the answer ended: the client resumes by its cursor.
                _log.error("a stream ends early: %s", error, extra={"session_id": self._visit.session_id})
                return self._last(Degraded(error.code))
            now = trio.current_time()
            if now >= self._deadline:
                return self._last(Drained("token-expired"))
            if now >= self._allowed.until and (refusal := await self._allowed.ask()) is not None:
                return self._last(refusal)
            if now >= self._spoken + self._interval:
                self._spoken = now
                return self._form.heartbeat
        raise StopAsyncIteration

    def _drained(self, subscription: Subscription, delivery: Delivery) -> bytes:
        """What was received, and what is there behind it: one write for all of them."""
        data = self._form.frame(delivery)
        more = subscription.receive_ready()
        if more is None:
            return data
        pieces, size = [data], len(data)
        while more is not None:
            pieces.append(self._form.frame(more))
            size += len(pieces[-1])
            more = subscription.receive_ready() if size < _WRITE else None
        return b"".join(pieces)

    def _last(self, delivery: Delivery) -> bytes:
        self._subscription = None
        return self._form.frame(delivery)


_STREAM: Final = """The log from a cursor on, and what comes. A logged event comes with its cursor: as the `id` of a
server-sent event, or to be built of the epoch in the first line and the event's `offset`. Frames about the stream
itself have an `event:` line, or a member `control`: `snapshot`, `caught-up`, `gap`, `presence`, `degraded`, `end`,
`drain`. Every 15 seconds of silence, or as often as `heartbeat` asks, a comment, or an empty line, says that it
lives."""

# The longest time between two signs of life that may be asked for: none is ever longer than the server's own.
_LONGEST_HEARTBEAT: Final = 3600


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
                query(
                    "heartbeat",
                    {"type": "integer", "minimum": 1, "maximum": _LONGEST_HEARTBEAT},
                    "Seconds of silence before it says that it lives; at most the server's own.",
                ),
                header(
                    "Last-Event-ID",
                    {"type": "string", "pattern": "^([A-Za-z0-9]{1,32}-[0-9]{16})?$"},
                    "A cursor: where to begin, before `after`. EventSource sends it by itself.",
                ),
            ),
            answers={
                200: Answer(
                    description="The stream; its form by `Accept`, server-sent events unless it asks for the other.",
                    content={sse.MEDIA_TYPE: reference("Event"), ndjson.MEDIA_TYPE: reference("StreamLine")},
                )
            },
            codes=(*SESSION, "INVALID_CURSOR"),
        ),
    )
    async def events(session_id: str) -> Response:
        principal = authenticate()
        after = _after()
        live, snapshot = _flag("live", default=True), _flag("snapshot", default=False)
        limit = number("limit", LARGEST_PAGE)
        interval = min(heartbeat, number("heartbeat", _LONGEST_HEARTBEAT) or heartbeat)
        session = await engine.session(session_id)
        accepted = request.accept_mimetypes
        module: ModuleType = ndjson if accepted[ndjson.MEDIA_TYPE] > accepted[sse.MEDIA_TYPE] else sse
        await session.cursor()  # one that is set aside is refused here, before there is an answer
        # The place is taken while a refusal can still be said, and the request gives it back whatever becomes of the
        # answer. From here to the body's own start nothing else is open that could be forgotten.
        place, held = limits().subscription(counted(principal)), places(request.scope)
        held.append(place)
        opening = session.subscribe(after, live=live, snapshot=snapshot, limit=limit)
        seconds = principal.expires_at - time.time()
        body = (
            b""
            if request.method == "HEAD"
            else _Deliveries(
                opening,
                module,
                interval,
                seconds,
                session_id,
                Handover.offered(request.scope),
                place,
                held,
                _Allowed(identity(), principal, session_id),
            )
        )
        if not live:
            Ending.promise(request.scope)
        response = Response(body, 200, _HEADERS, content_type=module.MEDIA_TYPE)
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
