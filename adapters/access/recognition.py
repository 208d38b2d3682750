"""A request as an application's own function of it sees it: its headers and its cookies, as plain dicts. Pure."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TypeAlias

from .principal import Principal

__all__ = ["Recognize", "read_cookies", "read_headers"]

# Who asks, by a request's headers and its cookies; None: nobody who is known. May be an async function or a plain one.
Recognize: TypeAlias = Callable[[Mapping[str, str], Mapping[str, str]], Awaitable[Principal | None] | Principal | None]


def read_headers(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The headers by their lower-case names. One that came more than once is joined, as RFC 9110, 5.3 has it."""
    found: dict[str, str] = {}
    for name, value in pairs:
        between = "; " if name == "cookie" else ", "
        found[name] = f"{found[name]}{between}{value}" if name in found else value
    return found


def read_cookies(header: str) -> dict[str, str]:
    """The cookies in a header ``Cookie``; of two with one name the first, which is the one of the longer path.

    Values are as they stand there, but for the quotes around one.
    """
    found: dict[str, str] = {}
    for part in header.split(";"):
        name, equals, value = part.partition("=")
        value = value.strip()
        if len(value) > 1 and value[0] == value[-1] == '"':
            value = value[1:-1]
        if equals:
            found.setdefault(name.strip(), value)
    return found
