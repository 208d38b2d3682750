"""Whom the server believes, and what it lets them do. One `Identity` serves HTTP and WebSocket alike."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from inspect import isawaitable
from math import inf
from typing import Final, TypeAlias, final

import trio

from ..problems import Forbidden, Unauthenticated
from .principal import EVERYBODY, Principal, Scope, may
from .tickets import Tickets

__all__ = ["OPEN", "Authorize", "Identity", "Verify"]

# How long somebody may go on reading who has lost the right to. For ten thousand streams a hook is asked 170 times a
# second.
_ASK_AGAIN: Final = 60.0

# What an answer to that may take; the stream that it is about waits for it.
_ANSWER_AGAIN: Final = 10.0

# Reads a bearer token. Raises `Unauthenticated`.
Verify: TypeAlias = Callable[[str], Principal]

# An application's own word on what the token allows: it can only refuse more. None stands for the server as a whole.
Authorize: TypeAlias = Callable[[Principal, Scope, str | None], bool | Awaitable[bool]]


@final
class Identity:
    """Believes what ``verify`` believes; without it everybody may do everything.

    ``authorize`` is asked on every operation, after the token's own scopes and sessions have allowed it; what it
    raises refuses the request as a bug of the server's. For what stays open, a stream or a subscription, it is asked
    again every ``ask_again`` seconds.
    """

    def __init__(
        self,
        verify: Verify | None = None,
        *,
        authorize: Authorize | None = None,
        tickets: Tickets | None = None,
        ask_again: float = _ASK_AGAIN,
    ) -> None:
        if not ask_again > 0:
            raise ValueError(f"ask_again must be above 0, not {ask_again!r}")
        self._verify = verify
        self._authorize = authorize
        self.ask_again: Final = inf if authorize is None else ask_again
        self.tickets: Final = tickets or Tickets()

    @property
    def open(self) -> bool:
        """Whether nobody is asked who they are."""
        return self._verify is None

    def authenticate(self, token: str | None) -> Principal:
        """Whose token this is. Raises `Unauthenticated`."""
        if self._verify is None:
            return EVERYBODY
        if token is None:
            raise Unauthenticated("there is no token", reason="missing")
        principal = self._verify(token)
        self.check_time(principal)
        return principal

    def check_time(self, principal: Principal) -> None:
        """Raises `Unauthenticated` when the principal's time is over."""
        if time.time() >= principal.expires_at:
            raise Unauthenticated("the token has expired", reason="expired")

    async def permits(self, principal: Principal, action: Scope, session_id: str | None) -> bool:
        """Whether the principal may do this, by its token and by the application."""
        if not may(principal, action, session_id):
            return False
        if self._authorize is None:
            return True
        said = self._authorize(principal, action, session_id)
        return (await said if isawaitable(said) else said) is True

    def check_token(self, principal: Principal, action: Scope, session_id: str | None) -> None:
        """What `check` says of the token alone, without a wait for the application's own word."""
        self.check_time(principal)
        if not may(principal, action, session_id):
            raise _forbidden(action, session_id)

    async def check(self, principal: Principal, action: Scope, session_id: str | None) -> None:
        """Raises `Unauthenticated` when its time is over, and `Forbidden`: with the same words for every session."""
        self.check_time(principal)
        if not await self.permits(principal, action, session_id):
            raise _forbidden(action, session_id)

    async def check_again(self, principal: Principal, action: Scope, session_id: str | None) -> None:
        """`check`, for what is open: who does not say yes in time says no.

        Raises `Unauthenticated`, `Forbidden`, and what the application raises.
        """
        with trio.move_on_after(_ANSWER_AGAIN) as limit:
            await self.check(principal, action, session_id)
        if limit.cancelled_caught:
            raise _forbidden(action, session_id)


def _forbidden(action: Scope, session_id: str | None) -> Forbidden:
    what = "this server" if session_id is None else "this session"
    return Forbidden(f"you may not {action} here: it takes a token with {action!r} for {what}")


# Where there is no authentication: on a loopback address, or behind somebody who does it.
OPEN: Final = Identity()
