"""An application below a path of another one: which requests are whose, and what each is told of where it stands."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias, cast

from hypercorn.typing import ASGIFramework, ASGIReceiveEvent, ASGISendEvent, HTTPScope, Scope

from ..isolation import ISOLATION

__all__ = ["mount"]

_Receive: TypeAlias = Callable[[], Awaitable[ASGIReceiveEvent]]
_Send: TypeAlias = Callable[[ASGISendEvent], Awaitable[None]]

_PREFIX: Final = re.compile(r"(/[A-Za-z0-9._~-]+)+")


def mount(site: ASGIFramework, prefix: str, app: ASGIFramework) -> ASGIFramework:
    """``site``, with ``app`` below ``prefix``, like ``/chat``: an ASGI application for any server under Trio.

        whole = mount(site, "/chat", create_app(engine))

    Below the prefix, ``app`` stands at the root: its ``root_path`` is the site's and the prefix, as ASGI has it. The
    prefix alone leads to ``prefix/``, for the page's links are relative. The lifespan is the site's; an application
    that `create_app` made has none. Raises `ValueError` if ``prefix`` is no plain path.
    """
    if not _PREFIX.fullmatch(prefix):
        raise ValueError(f"{prefix!r} is no plain path like /chat")

    async def mounted(scope: Scope, receive: _Receive, send: _Send) -> None:
        if scope["type"] == "lifespan":
            return await site(scope, receive, send)
        root = scope.get("root_path", "") + prefix
        if scope["path"].startswith(f"{root}/"):
            return await app(cast("Scope", {**scope, "root_path": root}), receive, send)
        if scope["type"] == "http" and scope["path"] == root:
            return await _lead(scope, root, send)
        return await site(scope, receive, send)

    return mounted


async def _lead(scope: HTTPScope, root: str, send: _Send) -> None:
    """To where the application is."""
    query = b"?" + scope["query_string"] if scope["query_string"] else b""
    headers = [(b"location", f"{root}/".encode() + query), (b"content-length", b"0")]
    headers += [(name.lower().encode(), value.encode()) for name, value in ISOLATION]
    await send({"type": "http.response.start", "status": 307, "headers": headers})
    await send({"type": "http.response.body", "body": b"", "more_body": False})
