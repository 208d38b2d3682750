"""A penstock server, seen from a Trio program elsewhere."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final, Literal, final

import httpx
import trio
from attrs import asdict

from penstock.engine import (
    Cursor,
    InvalidBody,
    JSONObject,
    ProducerInfo,
    SessionInfo,
    check_session_id,
    new_session_id,
)

from ..requests.answers import ProducersAnswer, SessionList
from ..tasks import open_tasks
from .answers import read
from .commands import Commands, given
from .config import ClientConfig
from .listing import ListEvents, SessionPage, follow_list, page_of
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

    async def producers(self) -> tuple[ProducerInfo, ...]:
        """Those that the server runs, by name."""
        answer, _ = await self._commands.ask("GET", "/v1/producers", repeatable=True)
        listed = read(ProducersAnswer, answer)
        return tuple(
            ProducerInfo(default=each.name == listed.default, **asdict(each, recurse=False))
            for each in listed.producers
        )

    async def sessions(self, after: str = "", limit: int = 100) -> list[SessionInfo]:
        """Those that live, by id, behind ``after``; at most ``limit``, which is 1000 or less."""
        return list((await self.sessions_page(after or None, limit, order="id")).sessions)

    async def sessions_page(
        self, after: str | None = None, limit: int = 100, *, order: Literal["id", "updated"] = "updated"
    ) -> SessionPage:
        """Those that live, the last active first or in order of id; ``after`` is the `SessionPage.next` before."""
        query = {"limit": str(limit)} | ({} if after is None else {"after": after})
        if order != "id":
            query["order"] = order
        answer, _ = await self._commands.ask("GET", "/v1/sessions", query=query, repeatable=True)
        return page_of(read(SessionList, answer))

    def watch(self, after: Cursor | None = None, *, limit: int = 100) -> AbstractAsyncContextManager[ListEvents]:
        """Follow the list of sessions.

            async with client.watch() as changes:
                async for each in changes: ...  # a `SessionPage` first, then each `ListChange`

        The page has ``limit`` sessions, the last active first. Reconnects for ever, behind the last change; what cannot
        be made up for begins with a page anew. ``after`` is the cursor of a change that was seen. What the server
        refuses for good comes out of the iteration.
        """
        return follow_list(self._tasks, self._commands.wire, after, limit)


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
