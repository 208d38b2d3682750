"""The client's side of HTTP for the command line: requests, and a stream that comes back when it breaks.

Synchronous on purpose: these commands do one thing, and Ctrl-C must end them at any point.
"""

from __future__ import annotations

import ipaddress
import random
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Final, Self, final
from urllib.parse import quote

import httpx
from attrs import frozen
from httpx_sse import EventSource, SSEError

from engine import JSON, PenstockError, decode_json

__all__ = ["ClientError", "Frame", "Server"]

# Three heartbeats of the server's: a line that is silent for longer is dead.
_SILENCE: Final = 45.0

_CONNECT: Final = 5.0
_FIRST_PAUSE: Final = 0.25
_LONGEST_PAUSE: Final = 5.0

# A server that restarts is back long before; one that is not is not coming.
_PATIENCE: Final = 60.0


@final
class ClientError(Exception):
    """It cannot go on; the text says why and what to do. ``code`` is the server's, if it answered."""

    def __init__(self, text: str, *, code: str | None = None, retryable: bool = False) -> None:
        super().__init__(text)
        self.code = code
        self.retryable = retryable


@final
@frozen(kw_only=True)
class Frame:
    """One frame of a stream: an event (``control`` is None) or a control frame, as the JSON text it came as."""

    control: str | None
    data: str
    cursor: str


@final
class Server:
    """A penstock server at ``url``. Use as a context manager.

    ``note`` is told, for people, that a connection was lost and is being taken up again.
    """

    def __init__(
        self,
        url: str,
        *,
        note: Callable[[str], None] = lambda text: None,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._url = url.rstrip("/")
        self._note = note
        self._sleep = sleep
        self._clock = clock
        self._http = httpx.Client(
            timeout=httpx.Timeout(_SILENCE, connect=_CONNECT),
            transport=transport,
            trust_env=not _is_loopback(url),  # a proxy cannot reach this machine's own loopback
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def request(
        self, method: str, path: str, body: Mapping[str, JSON], *, key: str | None = None
    ) -> Mapping[str, JSON]:
        """One request. Raises `ClientError`.

        With an idempotency ``key`` it is repeated, for a while, when the connection breaks before the answer: the
        server carries it out once. A server that was never there is an error at once.
        """
        headers = {} if key is None else {"Idempotency-Key": key}
        pause, broke_at = _FIRST_PAUSE, None
        while True:
            try:
                response = self._http.request(method, self._url + path, json=dict(body), headers=headers)
            except (httpx.TransportError, httpx.InvalidURL) as error:
                never_there = broke_at is None and isinstance(error, httpx.ConnectError | httpx.InvalidURL)
                broke_at = self._clock() if broke_at is None else broke_at
                if key is None or never_there or self._clock() - broke_at > _PATIENCE:
                    raise self._unreachable(error) from error
                self._note("the connection broke; asking again")
                self._sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
                continue
            if not response.is_success:
                raise _refusal(response)
            return _object(response.content)

    def follow(self, session_id: str, after: str | None) -> Iterator[Frame]:
        """The session's frames behind ``after``, a cursor or ``now``; ends after ``end``. Raises `ClientError`.

        A connection that breaks is taken up behind the last cursor it told; one that never came about is an
        error at once.
        """
        path = f"{self._url}{session_path(session_id)}/events"
        cursor, pause = after, _FIRST_PAUSE
        connected = False
        lost_at: float | None = None
        while True:
            failure: ClientError | None = None
            try:
                for frame, retry in self._read(path, cursor):
                    connected, cursor, lost_at = True, frame.cursor or cursor, None
                    pause = _FIRST_PAUSE if retry is None else retry
                    if frame.data:
                        yield frame
                    if frame.control == "end":
                        return
            except (httpx.TransportError, httpx.InvalidURL) as error:
                failure = self._unreachable(error)
            except ClientError as error:
                failure = error
                if not error.retryable:
                    raise
            if not connected and failure is not None:
                raise failure
            if lost_at is None:
                lost_at = self._clock()
                self._note("connection lost, resuming")
            elif failure is not None and self._clock() - lost_at > _PATIENCE:
                raise failure
            self._sleep(pause * random.uniform(0.5, 1.0))
            pause = min(pause * 2, _LONGEST_PAUSE)

    def _read(self, path: str, cursor: str | None) -> Iterator[tuple[Frame, float | None]]:
        headers = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
        query: dict[str, str] = {}
        if cursor == "now":  # no cursor, so no header: the stream's first line tells the one to resume from
            query["after"] = cursor
        elif cursor is not None:
            headers["Last-Event-ID"] = cursor
        with self._http.stream("GET", path, headers=headers, params=query) as response:
            if not response.is_success:
                response.read()
                raise _refusal(response)
            try:
                for sse in EventSource(response).iter_sse():
                    control = None if sse.event == "message" else sse.event
                    retry = None if sse.retry is None else sse.retry / 1000
                    yield Frame(control=control, data=sse.data, cursor=sse.id), retry
            except SSEError as error:
                raise ClientError(f"what answers at {self._url} is no penstock server: {error}") from error

    def _unreachable(self, error: Exception) -> ClientError:
        return ClientError(
            f"no server answers at {self._url} ({error}); start one with 'penstock serve' or name another with --url",
            retryable=True,
        )


def session_path(session_id: str) -> str:
    return f"/v1/sessions/{quote(session_id, safe='')}"


def _is_loopback(url: str) -> bool:
    try:
        host = httpx.URL(url).host
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except (httpx.InvalidURL, ValueError):
        return False


def _object(content: bytes) -> Mapping[str, JSON]:
    try:
        value = decode_json(content)
    except PenstockError:
        return {}
    return value if isinstance(value, dict) else {}


def _refusal(response: httpx.Response) -> ClientError:
    problem = _object(response.content)
    code = problem.get("code")
    if not isinstance(code, str):
        return ClientError(
            f"{response.url} answered {response.status_code}; is a penstock server there?",
            retryable=response.status_code in (502, 503, 504),  # a proxy whose server is restarting
        )
    return ClientError(
        f"{problem.get('detail') or problem.get('title') or 'refused'} [{code}]",
        code=code,
        retryable=problem.get("retryable") is True,
    )
