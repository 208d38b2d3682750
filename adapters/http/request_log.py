"""What every request leaves behind: its id in the answer, a line in the log, a count.

The line tells the path without its query, where a ticket may stand. What was answered well is told at the level DEBUG;
a refusal at INFO, with its reason; what went wrong here at WARNING, with what was behind it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final, final

import trio
from quart import Response, g, request
from quart_trio import QuartTrio

from engine import PenstockError, request_id

from ..request_ids import REQUEST_ID, request_id_of
from ..traffic import traffic

__all__ = ["Visit", "add_request_log", "note_refusal"]

_log = logging.getLogger("penstock.http")

_IDS: Final = ("session_id", "generation_id", "message_id")


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
        traffic.answers[response.status_code] += 1
        _tell(response.status_code)
        return response


def note_refusal(error: PenstockError, ids: Mapping[str, str]) -> None:
    """What the request is refused with, and the ids in its path, for its line in the log."""
    g.refusal = error
    g.refused_ids = ids


@final
class Visit:
    """One reader of one session's stream, from the first byte to the last."""

    def __init__(self, session_id: str) -> None:
        self.session_id: Final = session_id
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
        _log.info(event, extra={"event": event, "session_id": self.session_id, "duration_ms": duration})


def _tell(status: int) -> None:
    level = logging.DEBUG if status < 400 else logging.INFO if status < 500 else logging.WARNING
    if not _log.isEnabledFor(level):
        return
    event = "request_answered" if status < 400 else "request_refused" if status < 500 else "request_failed"
    fields: dict[str, object] = {"method": request.method, "path": request.path, "status": status}
    fields |= {name: value for name, value in (request.view_args or {}).items() if name in _IDS}
    if "begun" in g:
        fields["duration_ms"] = round((trio.current_time() - g.begun) * 1000, 1)
    refusal = g.get("refusal")
    if isinstance(refusal, PenstockError):
        named = {name: getattr(refusal, name) for name in _IDS}
        fields |= g.refused_ids | {name: value for name, value in named.items() if value is not None}
        fields |= {"code": refusal.code, "detail": str(refusal)}
        if (cause := refusal.__cause__) is not None and status >= 500:
            fields["cause"] = repr(cause)
    _log.log(level, event, extra={"event": event, **fields})
