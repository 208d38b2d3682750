"""What the routes share: the ids in a path, a page's size, an answer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

from quart import Response, request

from penstock.engine import JSON, InvalidBody, InvalidId, check_session_id, encode_json, is_uuid

__all__ = [
    "answered",
    "ids_in",
    "page_size",
    "whole_number",
]

# Messages, or sessions, in one page unless the client asks otherwise: a screenful many times over.
_PAGE: Final = 100

# What a number in a query looks like; no bound on one that we have is longer.
_NUMBER: Final = re.compile(r"[1-9][0-9]{0,8}", re.ASCII)

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
    return whole_number("limit", default=_PAGE, most=_LARGEST_PAGE)


def whole_number(name: str, *, default: int, most: int) -> int:
    """A query field that counts, from 1: as it is written in decimal, and in no other way. Raises `InvalidBody`."""
    given = request.args.getlist(name)
    if not given:
        return default
    if len(given) > 1 or _NUMBER.fullmatch(given[0]) is None or int(given[0]) > most:
        raise InvalidBody(f"{name} must be a whole number from 1 to {most}, given once")
    return int(given[0])


def answered(value: Mapping[str, JSON] | bytes, status: int = 200) -> Response:
    """An answer; ``value`` may be its JSON."""
    body = value if isinstance(value, bytes) else encode_json(value)
    return Response(body, status, content_type="application/json")
