"""What every WebSocket leaves behind: its id in the answer to the handshake, lines in the log, and a count.

Two lines tell of its life, and one of each command that was refused: a refusal at INFO, with its reason; what went
wrong here at WARNING, with what was behind it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import trio

from penstock.engine import PenstockError, request_id

from ..problems import brief, is_failure, logged
from ..server.head import Head
from ..watching.request_ids import REQUEST_ID, request_id_of
from ..watching.traffic import traffic

__all__ = ["name_socket", "note_refusal", "open_socket"]

_log = logging.getLogger("penstock.websocket")


def name_socket(head: Head) -> tuple[bytes, bytes]:
    """Give all that this task does the handshake's request id. Returns the header that tells the client."""
    named = request_id_of(head.get(REQUEST_ID.lower()))
    request_id.set(named)
    return REQUEST_ID.encode(), named.encode()


@contextmanager
def open_socket() -> Iterator[None]:
    """Inside, a socket is open."""
    begun = trio.current_time()
    traffic.sockets += 1
    _log.info("socket_opened", extra={"event": "socket_opened"})
    try:
        yield
    finally:
        traffic.sockets -= 1
        duration = round((trio.current_time() - begun) * 1000, 1)
        _log.info("socket_closed", extra={"event": "socket_closed", "duration_ms": duration})


def note_refusal(error: PenstockError, op: object, **ids: str | None) -> None:
    """Tell what a command was refused with, or a handshake, which has no ``op``.

    ``ids`` fill in what the error does not name itself.
    """
    failed = is_failure(error)
    level = logging.WARNING if failed else logging.INFO
    if not _log.isEnabledFor(level):
        return
    event = "command_failed" if failed else "command_refused"
    asked = {"op": brief(op)} if isinstance(op, str) else {}
    _log.log(level, event, extra={"event": event, **asked, **logged(error, ids)})
