"""The short way in for chunks: the two requests that remote producers make hundreds of times a second, without Quart.

Quart costs as much as all else that such a request takes. So one that is spelled as producers spell it is answered
here, by the functions that `chunks` has it answered by and in the same order; any other spelling, and all of them where
the application has hooks or views of somebody else's, goes there. What is told is the same to the last byte.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Sequence
from functools import partial
from operator import attrgetter
from typing import Final, TypeAlias, final

import trio
from attrs import define, field, frozen
from hypercorn.typing import ASGIReceiveEvent, ASGISendEvent, HTTPScope
from quart import (
    appcontext_popped,
    appcontext_pushed,
    appcontext_tearing_down,
    got_request_exception,
    request_finished,
    request_started,
    request_tearing_down,
)
from quart_trio import QuartTrio

from penstock.engine import Engine, PenstockError, encode_json, request_id

from ..access import Identity
from ..access.origins import check_host, check_origin, check_site, cross_origin
from ..isolation import ISOLATION
from ..problems import Unauthenticated, answer, ids_in
from ..requests.answers import as_json
from ..server.limits import Limits
from ..watching.request_ids import REQUEST_ID, request_id_of
from .chunks import write
from .intake import ClientLeft, whole_body
from .request_log import Noted, tell

__all__ = ["NODE", "Asked", "Pushing"]

# Which of the nodes that share a log has answered.
NODE: Final = "Penstock-Node"

_log = logging.getLogger("penstock.http")

_Receive: TypeAlias = Callable[[], Awaitable[ASGIReceiveEvent]]
_Send: TypeAlias = Callable[[ASGISendEvent], Awaitable[None]]

# Any other path, and any escape in it, is for Quart to make sense of.
_PATH: Final = re.compile(r"/v1/sessions/([A-Za-z0-9._~:-]+)/chunks(/batch)?")

_Headers: TypeAlias = Sequence[tuple[bytes, bytes]]


def _sent(headers: Iterable[tuple[str, str]]) -> _Headers:
    return [(name.lower().encode(), value.encode()) for name, value in headers]


# Those of an answer to chunks that were taken, but for its length; the type comes first in every answer.
_TAKEN: Final = _sent([("Content-Type", "application/json"), ("Cache-Control", "no-store"), *ISOLATION])
_REQUEST_ID: Final = REQUEST_ID.lower().encode()

_SIGNALS: Final = (
    appcontext_popped,
    appcontext_pushed,
    appcontext_tearing_down,
    got_request_exception,
    request_finished,
    request_started,
    request_tearing_down,
)
_RECEIVERS: Final = attrgetter("receivers")


@final
@frozen(kw_only=True)
class _Told:
    status: int
    headers: _Headers
    body: bytes


@final
@define(kw_only=True)
class Asked:
    """One request that is answered here."""

    session_id: str
    batch: bool
    path: str
    length: int
    headers: dict[bytes, list[str]]
    begun: float = field(factory=trio.current_time)
    refusal: PenstockError | None = None
    refused_ids: dict[str, str] = field(factory=dict)

    def values(self, name: str) -> list[str]:
        """Of each header of this name, in order."""
        return self.headers.get(name.lower().encode(), [])

    def value(self, name: str) -> str | None:
        return next(iter(self.values(name)), None)

    def pairs(self) -> Iterator[tuple[str, str]]:
        """All headers, by their lower-case names."""
        return ((name.decode("latin-1"), value) for name, values in self.headers.items() for value in values)


@final
class Pushing:
    """Chunks for ``engine``, by the rules that `create_app` was given."""

    def __init__(
        self,
        app: QuartTrio,
        engine: Engine,
        identity: Identity,
        limits: Limits,
        *,
        allowed_origins: Collection[str],
        allowed_hosts: Collection[str],
    ) -> None:
        self._app = app
        self._engine = engine
        self._identity = identity
        self._limits = limits
        self._allowed_origins = allowed_origins
        self._allowed_hosts = allowed_hosts
        self._made = self._surroundings()

    def _surroundings(self) -> list[object]:
        """What an application that was made by `create_app` may get later, and must not be passed by."""
        app = self._app
        found: list[object] = [app.view_functions["write_chunk"], app.view_functions["write_chunks"]]
        for each in app.error_handler_spec.values():
            for handlers in each.values():
                found += handlers.values()
        found += (
            sum(map(len, app.before_request_funcs.values())),
            sum(map(len, app.after_request_funcs.values())),
            sum(map(len, app.teardown_request_funcs.values())),
            sum(map(len, app.url_value_preprocessors.values())),
            len(app.teardown_appcontext_funcs),
            any(map(_RECEIVERS, _SIGNALS)),
        )
        return found

    def read(self, scope: HTTPScope) -> Asked | None:
        """The request, if it is to be answered here."""
        if scope["method"] != "POST" or scope["query_string"] or scope["http_version"] != "1.1":
            return None
        if None in (self._app.config["MAX_CONTENT_LENGTH"], self._app.config["BODY_TIMEOUT"]):
            return None
        root = scope.get("root_path", "")
        found = _PATH.fullmatch(scope["path"], len(root)) if scope["path"].startswith(root) else None
        if found is None or scope.get("raw_path") != scope["path"].encode():
            return None
        headers: dict[bytes, list[str]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name, []).append(value.decode("latin-1"))
        if len(headers.get(b"host", ())) > 1 or len(headers.get(b"origin", ())) > 1:
            return None
        lengths = headers.get(b"content-length")
        if lengths is None or not lengths[0].isdecimal() or b"transfer-encoding" in headers:
            return None
        if self._surroundings() != self._made:
            return None
        return Asked(
            session_id=found[1],
            batch=found[2] is not None,
            path=found[0],
            length=int(lengths[0]),
            headers=headers,
        )

    async def answer(self, asked: Asked, receive: _Receive, send: _Send) -> None:
        """Answer it, whatever it comes to."""
        request_id.set(request_id_of(asked.value(REQUEST_ID)))
        ids = {"session_id": asked.session_id}
        try:
            made = await self._carry_out(asked, receive)
            told = _Told(status=200, headers=_TAKEN, body=made)
        except ClientLeft:
            return
        except PenstockError as error:
            asked.refusal, asked.refused_ids = error, ids_in(ids)
            told = _refused(error, asked.refused_ids)
        except Exception as error:  # noqa: BLE001  # whatever it is, the client gets its answer
            _log.exception("Exception on request POST %s", asked.path)
            told = _refused(error, ids_in(ids))
        headers = self._headers(asked, told)
        tell(
            told.status,
            lambda: Noted(
                method="POST",
                path=asked.path,
                ids=ids,
                begun=asked.begun,
                refusal=asked.refusal,
                refused_ids=asked.refused_ids,
            ),
        )
        await send({"type": "http.response.start", "status": told.status, "headers": headers})
        await send({"type": "http.response.body", "body": told.body, "more_body": False})

    async def _carry_out(self, asked: Asked, receive: _Receive) -> bytes:
        """In the order of the other way: whether the page may, whose request it is, whether they may, what it says."""
        host = asked.value("Host")
        if self._identity.open:
            check_host(host, self._allowed_hosts)
        if self._identity.open or self._identity.ambient:
            check_site(asked.values("Sec-Fetch-Site"), asked.value("Origin"), self._allowed_origins)
        check_origin(asked.value("Origin"), host, self._allowed_origins)
        await self._allow(asked)
        body = partial(
            whole_body,
            receive,
            length=asked.length,
            most=self._app.config["MAX_CONTENT_LENGTH"],
            seconds=self._app.config["BODY_TIMEOUT"],
        )
        made = await write(self._engine, asked.session_id, asked.values, body, batch=asked.batch)
        return encode_json(as_json(made))

    async def _allow(self, asked: Asked) -> None:
        identity = self._identity
        try:
            principal = await identity.who(asked.values("Authorization"), asked.pairs())
            if principal is None:
                raise Unauthenticated("nothing in the request says who asks", reason="missing")
        except Unauthenticated:
            self._limits.admit_refused()
            raise
        self._limits.admit(None if identity.open else principal.subject)
        await identity.check(principal, "produce", asked.session_id)

    def _headers(self, asked: Asked, told: _Told) -> list[tuple[bytes, bytes]]:
        """Those that every answer has, among them."""
        type_, *others = told.headers
        headers = [type_, (b"content-length", b"%d" % len(told.body)), *others]
        if self._allowed_origins:
            headers.append((b"vary", b"Origin"))
            headers += _sent(cross_origin(asked.value("Origin"), self._allowed_origins, preflight=False).items())
        if (node := self._engine.node) is not None:
            headers.append((NODE.lower().encode(), node.name.encode()))
        headers.append((_REQUEST_ID, (request_id.get() or "").encode()))
        return headers


def _refused(error: Exception, ids: dict[str, str]) -> _Told:
    told = answer(error, **ids)
    return _Told(status=told.status, headers=_sent(told.headers), body=told.body)
