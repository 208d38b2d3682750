"""What a request's path is to the routes: what it was on the wire, part by part.

A server hands on the path with its escapes resolved, and Quart takes slashes from its beginning. So ``//metrics`` and
``/v1%2fsessions`` would lead to routes, though to whoever stands in front and decides by the path they are others.
"""

from __future__ import annotations

import re
from typing import Final, cast
from urllib.parse import unquote

from hypercorn.typing import HTTPScope

__all__ = ["with_path"]

_SLASH: Final = re.compile(b"%2f", re.IGNORECASE)

# It stays one when escapes are resolved: no route has it, and no id.
_ESCAPED: Final = "%2F"


def with_path(scope: HTTPScope) -> HTTPScope:
    """The scope, with a path where an escaped slash is no slash and an empty first part is one."""
    path = scope["path"]
    raw = scope.get("raw_path") or b""
    if _SLASH.search(raw):
        path = unquote(_SLASH.sub(b"%252F", raw).decode("utf-8", "replace"))
    root = scope.get("root_path", "")
    if path.startswith(f"{root}//"):
        path = f"{root}/{_ESCAPED}{path[len(root) + 2 :]}"
    return scope if path == scope["path"] else cast(HTTPScope, {**scope, "path": path})
