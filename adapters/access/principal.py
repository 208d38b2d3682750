"""Who asks, and what a token lets them do: one rule, as a function of its arguments.

Owns the scopes and the session patterns. How a token is read is `tokens`'s; who asks when is the adapters'.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from math import inf
from typing import Final, Literal, TypeAlias, final, get_args

from attrs import frozen

__all__ = ["EVERYBODY", "MAX_PATTERNS", "SCOPES", "Principal", "Scope", "covers", "is_pattern", "may"]

# `read`: state and stream. `write`: what a person does in a chat. `produce`: what the answering side does, and
# speaking for others. `admin`: deleting, resetting and all the rest, on its own sessions.
Scope: TypeAlias = Literal["read", "write", "produce", "admin"]

SCOPES: Final[tuple[Scope, ...]] = get_args(Scope)

# A tenant's sessions are one pattern; more than these in one token is a list that belongs into a hook.
MAX_PATTERNS: Final = 100

# The characters of a session id, and `*`. No other wildcard: with `?` and `[…]` it could not be said safely whether
# one pattern lets through less than another (`?` matches the letter `*` itself), which tickets are judged by.
_PATTERN: Final = re.compile(r"[A-Za-z0-9._~:*-]{1,128}")


@final
@frozen(kw_only=True)
class Principal:
    """``subject`` may do what ``scopes`` name on sessions that match one of ``sessions``.

    In a pattern `*` stands for any characters, also none; all else stands for itself. ``expires_at`` is in
    seconds of Unix time.
    """

    subject: str
    scopes: frozenset[Scope]
    sessions: tuple[str, ...]
    expires_at: float = inf


# Who asks where nobody is asked who they are.
EVERYBODY: Final = Principal(subject="", scopes=frozenset(SCOPES), sessions=("*",))


def is_pattern(text: str) -> bool:
    """Whether the text is a session id in which `*` may stand for any characters."""
    return _PATTERN.fullmatch(text) is not None


def may(principal: Principal, action: Scope, session_id: str | None) -> bool:
    """Whether the principal's token lets it do this to the session; with None: to the server as a whole.

    Whether there is such a session plays no part. `admin` is every action; the server is every session.
    """
    if action not in principal.scopes and "admin" not in principal.scopes:
        return False
    if session_id is None:
        return "*" in principal.sessions
    return covers(principal.sessions, session_id)


def covers(own: Iterable[str], asked: str) -> bool:
    """Whether one of the ``own`` patterns matches everything that ``asked`` matches, a session id or a pattern.

    The `*` in ``asked`` is no character of an id, so only a `*` can have matched it.
    """
    return any(_matches(pattern, asked) for pattern in own)


def _matches(pattern: str, text: str) -> bool:
    """Whether ``text`` is ``pattern`` with any characters for each `*`.

    No regular expression: people choose the patterns of their tickets, and to compile one costs many requests.
    """
    first, *others = pattern.split("*")
    if not others:
        return text == first
    *middle, last = others
    at, end = len(first), len(text) - len(last)
    if at > end or not text.startswith(first) or not text.endswith(last):
        return False
    for part in middle:  # the first place that fits leaves most for the others
        found = text.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return True
