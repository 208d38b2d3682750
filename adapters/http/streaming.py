"""Streams as answers: what is received of a subscription, or of the list, until its reader may or will read no more.

Owns the body of such an answer; the bytes of its pieces are `forms`'s, and what a request asks for is its route's.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from types import ModuleType
from typing import Final, Generic, Protocol, Self, TypeVar, final

import trio
from attrs import frozen
from quart import Response, request
from quart.wrappers.response import ResponseBody

from penstock.engine import (
    Cursor,
    Degraded,
    Drained,
    Ended,
    PenstockError,
    SessionDeleted,
    request_id,
)

from ..access import Identity, Principal
from ..forms import ndjson, sse
from ..server.ending import Ending
from ..server.handover import Handover, Outlet
from ..server.limits import CONNECTION, Place
from .guard import counted, limits, places
from .openapi.schemas import Schema
from .request_log import Visit
from .routes import Answer, header

__all__ = ["LAST_EVENT_ID", "Allowance", "Form", "Forms", "after_cursor", "answer_of", "streamed"]

_log = logging.getLogger("penstock.http")

_HEADERS: Final = {
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",  # nginx would collect events before it passes them on
    "Vary": "Accept, Last-Event-ID",
}


# Where to begin, before the query's ``after``.
LAST_EVENT_ID: Final = header(
    "Last-Event-ID",
    {"type": "string", "pattern": "^([A-Za-z0-9]{1,32}-[0-9]{16})?$"},
    "A cursor: where to begin, before `after`. EventSource sends it by itself.",
)


def answer_of(event: Schema, line: Schema) -> Answer:
    """A stream, as it is described: what a server-sent event of it holds, and a line of NDJSON."""
    return Answer(
        description="The stream; its form by `Accept`, server-sent events unless it asks for the other.",
        content={sse.MEDIA_TYPE: event, ndjson.MEDIA_TYPE: line},
    )


# When so many bytes have gathered for one write, what is behind them goes with the next.
_WRITE: Final = 64 * 1024


T_contra = TypeVar("T_contra", contravariant=True)
T_co = TypeVar("T_co", covariant=True)
T = TypeVar("T")


class Followed(Protocol[T_co]):
    """What a stream is read from."""

    async def receive(self) -> T_co:
        """The next delivery. Raises `trio.EndOfChannel`; cancelling it loses nothing and repeats nothing."""

    def receive_ready(self) -> T_co | None:
        """The next, if it need not be waited for."""


@final
@frozen
class Form(Generic[T_contra]):
    """How deliveries are told."""

    heartbeat: bytes
    frame: Callable[[T_contra], bytes]


@final
@frozen
class Forms(Generic[T_contra]):
    """The same deliveries for Quart, and in chunks for a connection's `Outlet`."""

    plain: Form[T_contra]
    chunked: Form[T_contra]


@final
class Allowance:
    """Whether ``principal`` may still read this session; to be asked again when it is ``until``, by trio's clock."""

    def __init__(self, identity: Identity, principal: Principal, session_id: str) -> None:
        self._identity = identity
        self._principal = principal
        self._session_id = session_id
        self.until = trio.current_time() + identity.ask_again

    async def ask(self) -> Degraded | Drained | None:
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
class Deliveries(ResponseBody, AsyncIterator[bytes], Generic[T]):
    """A subscription, or the list that is followed, as the body of an answer. ``session_id``: of a session's stream.

    No generator: it is entered and left in the task that reads it, so the session is left the moment the
    client is gone, and nothing waits for a garbage collector. Where the server offers to, it is handed over as soon as
    Quart would read it, and is then no more than empty to Quart.
    """

    def __init__(
        self,
        opening: AbstractAsyncContextManager[Followed[T]],
        forms: Forms[T | Degraded | Drained | Ended],
        interval: float,
        seconds: float,
        session_id: str | None,
        handover: Handover | None,
        place: Place,
        held: list[Place],
        allowed: Allowance | None,
    ) -> None:
        self._opening = opening
        self._failed: PenstockError | None = None
        self._place = place
        self._held = held
        self._allowed = allowed
        self._forms = forms
        self._form = forms.plain if handover is None else forms.chunked
        self._interval = interval
        self._deadline = trio.current_time() + seconds  # of who reads
        self._spoken = trio.current_time()
        self._subscription: Followed[T] | None = None
        self._entered = False
        self._visit = Visit(session_id)
        self._handover = handover
        self._request_id = request_id.get()

    async def __aenter__(self) -> Self:
        if self._handover is not None and not self._handover.take(self._pour):
            self._handover, self._form = None, self._forms.plain
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
                with trio.CancelScope(deadline=min(self._spoken + self._interval, self._deadline, self._ask_at)):
                    delivery = await self._subscription.receive()
                    self._spoken = trio.current_time()
                    return self._drained(self._subscription, delivery)
            except trio.EndOfChannel:
                break
            except PenstockError as error:
                # The log cannot be read. Said, and the answer ended: the client resumes by its cursor.
                _log.error("a stream ends early: %s", error, extra=self._visit.ids)
                return self._last(Degraded(error.code))
            now = trio.current_time()
            if now >= self._deadline:
                return self._last(Drained("token-expired"))
            if self._allowed is not None and now >= self._ask_at and (refusal := await self._allowed.ask()) is not None:
                return self._last(refusal)
            if now >= self._spoken + self._interval:
                self._spoken = now
                return self._form.heartbeat
        raise StopAsyncIteration

    @property
    def _ask_at(self) -> float:
        return math.inf if self._allowed is None else self._allowed.until

    def _drained(self, subscription: Followed[T], delivery: T) -> bytes:
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

    def _last(self, delivery: Degraded | Drained | Ended) -> bytes:
        self._subscription = None
        return self._form.frame(delivery)


def after_cursor() -> Cursor | None:
    """Where to begin, as EventSource says it, or the query. Raises `InvalidCursor`."""
    text = request.headers.get(LAST_EVENT_ID.name) or request.args.get("after")
    return None if text is None else Cursor.parse(text)


def streamed(
    opening: AbstractAsyncContextManager[Followed[T]],
    forms: Mapping[ModuleType, Forms[T | Degraded | Drained | Ended]],
    *,
    principal: Principal,
    live: bool,
    heartbeat: float,
    session_id: str | None = None,
    allowed: Allowance | None = None,
) -> Response:
    """The answer that is this stream, to the request that Quart is at, in the one of the ``forms`` that it asks for.

    It ends by itself where it is not ``live``, with the principal's token, and when ``allowed`` says so. A silent one
    says every ``heartbeat`` seconds that it lives. Raises `RateLimited`.
    """
    # The place is taken while a refusal can still be said, and the request gives it back whatever becomes of the
    # answer. From here to the body's own start nothing else is open that could be forgotten.
    place, held = limits().subscription(counted(principal)), places(request.scope)
    held.append(place)
    seconds = principal.expires_at - time.time()
    handover = Handover.offered(request.scope)
    module = _accepted_form()
    body: bytes | Deliveries[T] = b""
    if request.method != "HEAD":
        body = Deliveries(opening, forms[module], heartbeat, seconds, session_id, handover, place, held, allowed)
    response = Response(body, 200, _HEADERS, content_type=module.MEDIA_TYPE)
    response.headers.pop("Content-Length", None)  # HEAD tells of the stream, which has none
    response.timeout = None  # Quart would break the stream off after a minute
    if not live:
        Ending.promise(request.scope)
    return response


def _accepted_form() -> ModuleType:
    """The form that the request asks for: `sse`, unless it prefers the other."""
    accepted = request.accept_mimetypes
    return ndjson if accepted[ndjson.MEDIA_TYPE] > accepted[sse.MEDIA_TYPE] else sse
