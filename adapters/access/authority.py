"""Whom the server believes, and what it lets them do. One `Identity` serves HTTP and WebSocket alike."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from inspect import isawaitable
from math import inf
from typing import Final, TypeAlias, final

import trio

from penstock.engine import TimedOut

from ..problems import Forbidden, Unauthenticated
from .principal import EVERYBODY, Principal, Scope, may
from .recognition import Recognize, read_cookies, read_headers
from .tickets import Tickets
from .tokens import read_bearer

__all__ = ["OPEN", "Authorize", "Identity", "Verify"]

# How long somebody may go on reading who has lost the right to. For ten thousand streams a hook is asked 170 times a
# second.
_ASK_AGAIN: Final = 60.0

# What an answer to that may take; the stream that it is about waits for it.
_ANSWER_AGAIN: Final = 10.0

# What it may take to know who asks; the request waits for it.
_ANSWER: Final = 10.0

# Reads a bearer token. Raises `Unauthenticated`.
Verify: TypeAlias = Callable[[str], Principal]

# An application's own word on what the token allows: it can only refuse more. None stands for the server as a whole.
Authorize: TypeAlias = Callable[[Principal, Scope, str | None], bool | Awaitable[bool]]


@final
class Identity:
    """Believes what ``verify`` believes of a token, and what ``recognize`` says of a request that shows none.

    Without both everybody may do everything. ``recognize`` is an application's own function of a request's headers, by
    their lower-case names, and its cookies: it gives a `Principal`, or None for somebody whom it does not know. What it
    raises refuses the request as a bug of the server's, and so does an answer of another kind; it has 10 s. With it,
    pages of other origins are refused whatever they ask, for browsers send them along with cookies.

    ``authorize`` is asked on every operation, after the token's own scopes and sessions have allowed it; what it
    raises refuses the request as a bug of the server's. For what stays open, a stream or a subscription, it is asked
    again every ``ask_again`` seconds.
    """

    def __init__(
        self,
        verify: Verify | None = None,
        *,
        recognize: Recognize | None = None,
        authorize: Authorize | None = None,
        tickets: Tickets | None = None,
        ask_again: float = _ASK_AGAIN,
    ) -> None:
        if not ask_again > 0:
            raise ValueError(f"ask_again must be above 0, not {ask_again!r}")
        self._verify = verify
        self._recognize = recognize
        self._authorize = authorize
        self.ask_again: Final = inf if authorize is None else ask_again
        self.tickets: Final = tickets or Tickets()

    @property
    def open(self) -> bool:
        """Whether nobody is asked who they are."""
        return self._verify is None and self._recognize is None

    @property
    def takes_tokens(self) -> bool:
        """Whether the header ``Authorization`` is ours to read."""
        return self._verify is not None

    @property
    def ambient(self) -> bool:
        """Whether who asks may be known by what a browser sends by itself, whichever page made it ask."""
        return self._recognize is not None

    @classmethod
    def of(cls, asked: Identity | Recognize) -> Identity:
        """An identity as it is; of a function the one that asks it."""
        return asked if isinstance(asked, Identity) else cls(recognize=asked)

    async def who(
        self,
        tokens: Sequence[str],
        headers: Iterable[tuple[str, str]],
        tickets: Sequence[str] = (),
        redeem: Callable[[str], Principal | Awaitable[Principal]] | None = None,
    ) -> Principal | None:
        """Who makes a request: ``tokens`` are its headers ``Authorization``, ``headers`` all of them, lower-case, and
        ``tickets`` those of its query, which ``redeem`` reads.

        None: nothing of it says who. Raises `Unauthenticated` for a token or a ticket that is not good, or for several,
        `TimedOut`, and what the application raises.
        """
        if self.open:
            return EVERYBODY
        if not self.takes_tokens:
            tokens = ()
        if len(tokens) + len(tickets) > 1:
            raise Unauthenticated("there is more than one token or ticket", reason="several")
        if tickets and redeem is not None:
            redeemed = redeem(tickets[0])
            return await redeemed if isawaitable(redeemed) else redeemed
        if tokens:
            return self.authenticate(read_bearer(tokens[0]))
        return None if self._recognize is None else await self._ask(self._recognize, read_headers(headers))

    async def _ask(self, recognize: Recognize, headers: dict[str, str]) -> Principal | None:
        with trio.move_on_after(_ANSWER) as limit:
            said = recognize(headers, read_cookies(headers.get("cookie", "")))
            principal = await said if isawaitable(said) else said
        if limit.cancelled_caught:
            raise TimedOut(f"who asks could not be found out within {_ANSWER:.0f} s")
        if principal is not None:
            if not isinstance(principal, Principal):
                raise TypeError(f"an identity function gives a Principal or None, not {type(principal).__name__}")
            self.check_time(principal)
        return principal

    def authenticate(self, token: str | None) -> Principal:
        """Whose token this is. Raises `Unauthenticated`."""
        if self.open:
            return EVERYBODY
        if token is None or self._verify is None:
            raise Unauthenticated("there is no token that this server takes", reason="missing")
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

    def check_list(self, principal: Principal) -> Principal:
        """The principal, if they may read sessions at all: they are told of those that `permits` allows.

        Raises `Forbidden`.
        """
        if principal.scopes.isdisjoint({"read", "admin"}):
            raise Forbidden("you may not read here: it takes a token with 'read'")
        return principal

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
