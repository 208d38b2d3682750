"""The ASGI application on one HTTP/1.1 connection: started for each request, fed its body, heard to its end.

It is what hypercorn calls a task group, and leaves to hypercorn's protocol what is read and what is written.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final, final

import trio
from hypercorn.config import Config as HypercornConfig
from hypercorn.typing import AppWrapper, ASGIFramework, ASGIReceiveEvent, ASGISendEvent, Scope

from penstock.engine import PenstockError

from ..problems import answer
from .ending import Ending
from .handover import Handover, Outlet
from .incoming import Incoming

__all__ = ["Apps"]

_log = logging.getLogger("penstock.server")

# Pieces of a request's body that wait for the application; then the peer waits. Each is at most one read.
_BODY_PIECES: Final = 10


@final
class Apps:
    """The application for each request of one connection."""

    def __init__(self, nursery: trio.Nursery, app: ASGIFramework, outlet: Outlet) -> None:
        self._nursery = nursery
        self._app = app
        self._outlet = outlet
        self.ending: Ending  # of the latest answer

    async def spawn_app(
        self,
        app: AppWrapper,
        config: HypercornConfig,
        scope: Scope,
        send: Callable[[ASGISendEvent | None], Awaitable[None]],
    ) -> Callable[[ASGIReceiveEvent], Awaitable[None]]:
        self.ending = Ending.of(scope)
        to_app, from_peer = trio.open_memory_channel[ASGIReceiveEvent](_BODY_PIECES)
        self._nursery.start_soon(self._run, scope, from_peer, send)

        async def put(event: ASGIReceiveEvent) -> None:
            try:
                if event["type"] == "http.disconnect":
                    # Said at the end of every request, from the application's own task: it must not wait for
                    # itself. Where the peer has left, the connection's nursery is cancelled, which nobody misses.
                    to_app.send_nowait(event)
                else:
                    try:
                        to_app.send_nowait(event)  # there is room, unless a body comes faster than it is read
                    except trio.WouldBlock:
                        await to_app.send(event)
            except (trio.BrokenResourceError, trio.WouldBlock):
                pass  # the application has answered and wants no more

        return put

    async def _run(
        self,
        scope: Scope,
        from_peer: trio.MemoryReceiveChannel[ASGIReceiveEvent],
        send: Callable[[ASGISendEvent | None], Awaitable[None]],
    ) -> None:
        handover = Handover.offer(scope)
        try:
            with from_peer:
                await self._app(scope, Incoming(from_peer), handover.sending(send))
            await handover.carry_out(self._outlet, send)
        except Exception as error:  # noqa: BLE001  # the connection says 500 or breaks the answer off, and goes on
            if handover.begun and _is_refusal(error):
                _log.warning("an answer breaks off: %r", error)
            else:
                _log.exception("the application failed on a request")
            if not handover.begun:
                told = answer(error)
                await send({"type": "http.response.start", "status": told.status, "headers": told.head()})
                await send({"type": "http.response.body", "body": told.body, "more_body": False})
        await send(None)

    # Of the interface, unused by HTTP/1.1.
    def spawn(self, func: Callable[..., Any], *args: Any) -> None:
        self._nursery.start_soon(func, *args)

    async def __aenter__(self) -> Apps:
        return self

    async def __aexit__(self, *_: object) -> None:
        return None


def _is_refusal(error: Exception) -> bool:
    """Whether it is the engine's word alone, as of a session that is deleted while one of its files is read."""
    if isinstance(error, ExceptionGroup):
        return error.split(PenstockError)[1] is None
    return isinstance(error, PenstockError)
