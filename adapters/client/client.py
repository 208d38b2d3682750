"""A penstock server, seen from a Trio program elsewhere."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, final

import httpx
import trio

from penstock.engine import InvalidBody, JSONObject, SessionInfo, check_session_id, new_session_id

from ..requests.answers import SessionList
from ..tasks import open_tasks
from .answers import read
from .commands import Commands, given
from .config import ClientConfig
from .session import RemoteSession
from .wire import Token, Wire, session_path

__all__ = ["Client", "connect"]


@final
class Client:
    """What `connect` gives. Sessions, streams and producers live as long as its block."""

    def __init__(self, wire: Wire, tasks: trio.Nursery) -> None:
        self._commands: Final = Commands(wire)
        self._tasks: Final = tasks
        self.url: Final = wire.url

    def session(self, session_id: str) -> RemoteSession:
        """A handle on a session, whether or not it exists; nothing is asked. Raises `InvalidId`."""
        return RemoteSession(self._commands, self._tasks, session_id)

    async def create_session(
        self, session_id: str | None = None, *, metadata: JSONObject | None = None
    ) -> RemoteSession:
        """The session with this id, made if it does not exist; a new one without an id."""
        sid = new_session_id() if session_id is None else check_session_id(session_id)
        _, status = await self._commands.ask("PUT", session_path(sid), given(metadata=metadata), repeatable=True)
        return RemoteSession(self._commands, self._tasks, sid, created=status == 201)

    async def sessions(self, after: str = "", limit: int = 100) -> list[SessionInfo]:
        """Those that live, by id, behind ``after``; at most ``limit``, of which the server gives 1000."""
        query = {"limit": str(limit)} | ({"after": after} if after else {})
        answer, _ = await self._commands.ask("GET", "/v1/sessions", query=query, repeatable=True)
        return [
            SessionInfo(
                session_id=each.session_id,
                cursor=each.cursor,
                metadata=each.metadata,
                generation_id=None if each.generation is None else each.generation.generation_id,
                corrupt=bool(each.corrupt),
            )
            for each in read(SessionList, answer).sessions
        ]


@asynccontextmanager
async def connect(
    url: str,
    *,
    token: Token = None,
    config: ClientConfig | None = None,
    ssl_context: ssl.SSLContext | None = None,
    transport: httpx.AsyncBaseTransport | None = None,
) -> AsyncIterator[Client]:
    """A client of the server at ``url``, ``http`` or ``https``; no connection is made before it is needed.

    ``token`` is sent as a bearer's: text, or an async function that gives one that is valid now, asked before each
    request. ``transport`` stands in for the network in tests. Leaving the block ends all that goes on in it.
    """
    parsed = httpx.URL(url)
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise InvalidBody(f"a server's URL is http://host or https://host, not {url!r}")
    wire = Wire(url, token, config or ClientConfig(), ssl_context=ssl_context, transport=transport)
    async with wire.http, open_tasks() as tasks:
        yield Client(wire, tasks)
