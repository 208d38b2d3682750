"""What the routes share: the body as JSON, a page's size, an answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from quart import Response, request

from engine import JSON, InvalidBody, decode_json, encode_json

__all__ = ["answered", "json_body", "page_size"]

# Messages, or sessions, in one page unless the client asks otherwise: a screenful many times over.
_PAGE: Final = 100

# And at most: what fits in memory for many clients at a time.
_LARGEST_PAGE: Final = 1000


async def json_body() -> JSON:
    """The body; none at all stands for an empty object. Raises `InvalidBody`."""
    data = await request.get_data()
    assert isinstance(data, bytes)
    return decode_json(data) if data else {}


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
