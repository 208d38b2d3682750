"""What the routes share: the ids in a path, a page's size, an answer."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Final

from quart import Response, request

from engine import JSON, InvalidBody, InvalidId, check_session_id, encode_json, is_uuid

__all__ = [
    "answered",
    "ids_in",
    "page_size",
]

# Messages, or sessions, in one page unless the client asks otherwise: a screenful many times over.
_PAGE: Final = 100

# And at most: what fits in memory for many clients at a time.
_LARGEST_PAGE: Final = 1000


def ids_in(named: Mapping[str, str]) -> dict[str, str]:
    """The ids that a request's path names; what is no id is not told back as one."""
    ids: dict[str, str] = {}
    for name, text in named.items():
        if name == "session_id":
            with suppress(InvalidId):
                ids[name] = check_session_id(text)
        elif is_uuid(text):
            ids[name] = text.lower()
    return ids


def page_size() -> int:
    """``?limit=``. Raises `InvalidBody`."""
    text = request.args.get("limit")
    if text is None:
        return _PAGE
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:9]) <= _LARGEST_PAGE:
        raise InvalidBody(f"limit must be a whole number from 1 to {_LARGEST_PAGE}")
    return int(text)


def answered(value: Mapping[str, JSON], status: int = 200) -> Response:
    return Response(encode_json(value), status, content_type="application/json")
