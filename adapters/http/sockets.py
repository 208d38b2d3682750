"""What a WebSocket's handshake gets from the HTTP application, where a server passes one on: a refusal in order.

`penstock.adapters.server.accept` never does: it hands a handshake to the WebSocket's own handler.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from hypercorn.typing import ASGIReceiveEvent, ASGISendEvent, WebsocketScope

from ..problems import NotFound, answer

__all__ = ["refuse_socket"]


async def refuse_socket(
    scope: WebsocketScope,
    receive: Callable[[], Awaitable[ASGIReceiveEvent]],
    send: Callable[[ASGISendEvent], Awaitable[None]],
) -> None:
    """Answer with a problem, where the server can send one, else by closing."""
    told = answer(NotFound("there is no WebSocket here; the streams are there over HTTP"))
    if (await receive())["type"] != "websocket.connect":
        return
    if "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close", "code": 1000, "reason": None})
        return
    await send({"type": "websocket.http.response.start", "status": told.status, "headers": told.head()})
    await send({"type": "websocket.http.response.body", "body": told.body, "more_body": False})
