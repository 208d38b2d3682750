"""Whose socket this is, until when, and what each command asks of them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from math import inf
from typing import final

import trio

from penstock.engine import JSON

from ..access import Identity, Principal, Scope
from ..problems import Forbidden, Unauthenticated

__all__ = ["Holder", "right"]


def right(op: str, value: Mapping[str, JSON]) -> Scope | None:
    """What the command in this frame takes, as over HTTP; None where it is about the socket alone."""
    match op:
        case "unsubscribe" | "unwatch" | "ping":
            return None
        case "watch":
            return None  # of each session that it tells of it is asked then
        case "subscribe":
            return "read"
        case "start" | "stop" | "input" | "presence":
            return "write"
        case "post":
            return "write" if value.get("role", "user") == "user" else "produce"
        case "chunks" | "finish":
            return "produce"
        case _:
            return "admin"  # until somebody says what it is


@final
class Holder:
    """``principal`` holds the socket, or nobody does yet: then somebody has to within ``patience`` seconds."""

    def __init__(self, identity: Identity, principal: Principal | None, patience: float) -> None:
        self._identity = identity
        self._principal = principal
        self._time = trio.CancelScope(deadline=trio.current_time() + patience)
        if principal is not None:
            self._renew(principal)

    @property
    def known(self) -> bool:
        """Whether somebody has said who they are."""
        return self._principal is not None

    @property
    def counted(self) -> str | None:
        """Under whose name commands are counted; None where nobody has one: then it is the address."""
        return None if self._principal is None or self._identity.open else self._principal.subject

    def principal(self) -> Principal:
        """Raises `Unauthenticated`."""
        if self._principal is None:
            raise Unauthenticated("there was no token before this frame", reason="missing")
        self._identity.check_time(self._principal)
        return self._principal

    def present(self, token: str) -> Principal:
        """Take over the socket, or hold it for longer. Raises `Unauthenticated`, and `Forbidden` for somebody else."""
        principal = self._identity.authenticate(token)
        if self._principal is not None and principal.subject != self._principal.subject:
            raise Forbidden("this socket is another subject's; open one of your own")
        self._renew(principal)
        return principal

    def _renew(self, principal: Principal) -> None:
        self._principal = principal
        left = principal.expires_at - time.time()
        self._time.deadline = inf if left == inf else trio.current_time() + left

    def check_token(self, action: Scope, session_id: str) -> None:
        """Raises `Unauthenticated`, and `Forbidden` where the token alone does not let its holder do this."""
        self._identity.check_token(self.principal(), action, session_id)

    async def allow(self, action: Scope, session_id: str) -> Principal:
        """Who holds the socket, if they may do this. Raises `Unauthenticated`, `Forbidden`."""
        principal = self.principal()
        await self._identity.check(principal, action, session_id)
        return principal

    @property
    def ask_again(self) -> float:
        """After how many seconds to ask again whether what is open still may be."""
        return self._identity.ask_again

    def covers(self, action: Scope, session_id: str) -> bool:
        """Whether the token alone lets its holder do this now."""
        try:
            self.check_token(action, session_id)
        except (Forbidden, Unauthenticated):
            return False
        return True

    async def allow_again(self, action: Scope, session_id: str) -> None:
        """For what is open. Raises `Unauthenticated`, `Forbidden`, and what the application raises."""
        await self._identity.check_again(self.principal(), action, session_id)

    async def may(self, action: Scope, session_id: str) -> bool:
        """Whether who holds the socket may do this. Raises `Unauthenticated`."""
        return await self._identity.permits(self.principal(), action, session_id)

    def may_list(self) -> Principal:
        """Who holds the socket, if they may read sessions at all. Raises `Unauthenticated`, `Forbidden`."""
        return self._identity.check_list(self.principal())

    async def wait_over(self) -> Unauthenticated:
        """Wait until nobody holds the socket any more, or nobody came to hold it. To be called once."""
        with self._time:
            await trio.sleep_forever()
        known, self._principal = self.known, None
        if known:
            return Unauthenticated("the token has expired", reason="expired")
        return Unauthenticated("no token came in time", reason="missing")
