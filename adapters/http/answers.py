"""What the routes share: the body as JSON, a page's size, an answer."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Final

from quart import Response, request

from engine import JSON, InvalidBody, InvalidId, check_session_id, decode_json, encode_json, is_uuid

from ..problems import BodyTooLarge, SlowRequest

__all__ = [
    "BODY_BYTES",
    "BODY_SECONDS",
    "answered",
    "ids_in",
    "json_body",
    "page_size",
    "parsed",
    "too_large",
    "too_slow",
]

# A prompt with a long document fits; more in one request is a mistake, or an attack on memory.
BODY_BYTES: Final = 1024 * 1024

# A mebibyte over a line of 35 KiB a second. Who takes longer holds a connection for its own sake.
BODY_SECONDS: Final = 30

# Messages, or sessions, in one page unless the client asks otherwise: a screenful many times over.
_PAGE: Final = 100

# And at most: what fits in memory for many clients at a time.
_LARGEST_PAGE: Final = 1000


async def json_body() -> JSON:
    """The body; none at all stands for an empty object. Raises `InvalidBody`."""
    data = await request.get_data()
    assert isinstance(data, bytes)
    return parsed(data)


def parsed(body: bytes) -> JSON:
    """The JSON of a body; none at all stands for an empty object. Raises `InvalidBody`."""
    return decode_json(body) if body else {}


def too_large() -> BodyTooLarge:
    return BodyTooLarge(f"a body is at most {BODY_BYTES} bytes")


def too_slow() -> SlowRequest:
    return SlowRequest("the body did not arrive in time")


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
