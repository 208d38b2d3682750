"""What every request leaves behind: its id in the answer, a line in the log, a count.

The line tells the path without its query, where a ticket may stand. What was answered well is told at the level DEBUG;
a refusal at INFO, with its reason; what went wrong here at WARNING, with what was behind it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Final, final

import trio
from attrs import frozen
from quart import Response, g, request
from quart_trio import QuartTrio

from penstock.engine import PenstockError, request_id

from ..problems import IDS, logged
from ..watching.request_ids import REQUEST_ID, request_id_of
from ..watching.traffic import traffic

__all__ = ["Noted", "Visit", "add_request_log", "note_refusal", "tell"]

_log = logging.getLogger("penstock.http")


def add_request_log(app: QuartTrio) -> None:
    """Watch every request of ``app``; to be added before all that may refuse one."""

    @app.before_request
    async def begin() -> None:
        request_id.set(request_id_of(request.headers.get(REQUEST_ID)))
        g.begun = trio.current_time()

    @app.after_request
    async def end(response: Response) -> Response:
        if (current := request_id.get()) is not None:
            response.headers[REQUEST_ID] = current
        tell(response.status_code, _noted)
        return response


def note_refusal(error: PenstockError, ids: Mapping[str, str]) -> None:
    """What the request is refused with, and the ids in its path, for its line in the log."""
    g.refusal = error
    g.refused_ids = ids


@final
class Visit:
    """One reader of a stream, of the session's or of the list's, from the first byte to the last."""

    def __init__(self, session_id: str | None) -> None:
        self.ids: Final = {} if session_id is None else {"session_id": session_id}
        self._begun = 0.0

    def begin(self) -> None:
        self._begun = trio.current_time()
        traffic.streams += 1

    def end(self, *, cut: bool) -> None:
        """The stream is over; ``cut`` if its reader has left before its end."""
        traffic.streams -= 1
        traffic.broken_off += cut
        event = "client_disconnected" if cut else "stream_ended"
        duration = round((trio.current_time() - self._begun) * 1000, 1)
        _log.info(event, extra={"event": event, **self.ids, "duration_ms": duration})


@final
@frozen(kw_only=True)
class Noted:
    """What the line of one request tells; ``begun`` by trio's clock."""

    method: str
    path: str
    ids: Mapping[str, str]
    begun: float | None
    refusal: PenstockError | None = None
    refused_ids: Mapping[str, str] = {}


def _noted() -> Noted:
    refusal = g.get("refusal")
    return Noted(
        method=request.method,
        path=request.path,
        ids=request.view_args or {},
        begun=g.get("begun"),
        refusal=refusal if isinstance(refusal, PenstockError) else None,
        refused_ids=g.get("refused_ids", {}),
    )


def tell(status: int, noted: Callable[[], Noted]) -> None:
    """A request was answered with ``status``: count it, and write its line, if there is to be one."""
    traffic.answers[status] += 1
    level = logging.DEBUG if status < 400 else logging.INFO if status < 500 else logging.WARNING
    if not _log.isEnabledFor(level):
        return
    about = noted()
    event = "request_answered" if status < 400 else "request_refused" if status < 500 else "request_failed"
    fields: dict[str, object] = {"method": about.method, "path": about.path, "status": status}
    fields |= {name: value for name, value in about.ids.items() if name in IDS}
    if about.begun is not None:
        fields["duration_ms"] = round((trio.current_time() - about.begun) * 1000, 1)
    if about.refusal is not None:
        fields |= logged(about.refusal, about.refused_ids)
    _log.log(level, event, extra={"event": event, **fields})
