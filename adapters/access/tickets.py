"""Tickets: what clients that cannot send headers show in a URL in place of their token.

A URL ends up in logs and histories, so a ticket is worth little: never more than the token it was got with, once
and within a minute for a WebSocket, to read one session for an hour at most as a stream of events. Signed by
PyJWT with a key that tokens are not signed with.
"""

from __future__ import annotations

import time
from base64 import urlsafe_b64encode
from collections.abc import Awaitable, Callable, Collection, Sequence
from math import inf
from secrets import token_bytes, token_urlsafe
from typing import Final, TypeAlias, cast, final

import jwt
from attrs import evolve, frozen
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from penstock.engine import InvalidBody, Overloaded, StorageError

from ..problems import Forbidden, Unauthenticated
from .principal import MAX_PATTERNS, SCOPES, Principal, Scope, covers, is_pattern

__all__ = ["MAX_TICKET", "Redeem", "Ticket", "Tickets"]

_ALGORITHM: Final = "HS256"
_AUDIENCE: Final = "penstock-ticket"

# Longer than any ticket that is made here.
MAX_TICKET: Final = 16 * 1024

# For a WebSocket: from the request to the handshake, on a bad line. For a stream: EventSource comes back to the
# same URL as long as the page is open, and a page that is open for longer can ask for another.
_SOCKET_SECONDS: Final = 60
_STREAM_SECONDS: Final = 3600

# Uses a ticket's id up, for so many seconds; whether nobody had. Raises `StorageError`.
Redeem: TypeAlias = Callable[[str, float], Awaitable[bool]]

# Redeemed ids that are remembered for at most a minute each: 1 600 handshakes a second, some 20 MiB.
_MAX_USED: Final = 100_000


@final
@frozen(kw_only=True)
class Ticket:
    """``expires_at`` is in seconds of Unix time."""

    text: str
    expires_at: int


@final
class Tickets:
    """Makes tickets and takes them.

    With ``secrets``, what the server's tokens are signed with, a stream's ticket holds through a restart; without
    any, and for a WebSocket always, tickets end with the process: unless it is one of several that `share` them.
    """

    def __init__(self, secrets: Sequence[bytes] = ()) -> None:
        self._keys = [_derive(secret) for secret in secrets] or [token_bytes(32)]
        self._process = token_urlsafe(12)
        self._has_secrets = bool(secrets)
        self._used: dict[str, float] = {}
        self._redeem: Redeem = self._use

    def share(self, secret: bytes, redeem: Redeem) -> None:
        """Take the tickets of all servers that have this secret, and have ``redeem`` use each up once over all of them.

        Tickets are signed with what it gives (HKDF, RFC 5869) where the tokens have no secret that does.
        """
        self._process = urlsafe_b64encode(_derive(secret, b"penstock cluster")[:9]).decode()
        if not self._has_secrets:
            self._keys = [_derive(secret)]
        self._redeem = redeem

    def replace(self, secrets: Sequence[bytes]) -> None:
        """Sign with the first of these from now on, and take tickets of all of them. Without any nothing changes."""
        if secrets:
            self._has_secrets = True
            self._keys = [_derive(secret) for secret in secrets]

    def make(
        self, principal: Principal, sessions: Sequence[str], scopes: Collection[str], ttl: int | None = None
    ) -> Ticket:
        """A ticket for these session patterns and scopes, for ``ttl`` seconds at most.

        Raises `InvalidBody`, and `Forbidden` for more than the principal has.
        """
        if not sessions or len(sessions) > MAX_PATTERNS or not all(map(is_pattern, sessions)):
            raise InvalidBody(
                f"sessions are 1 to {MAX_PATTERNS} session ids, in which * may stand for any characters @ $.sessions"
            )
        if not scopes or not set(scopes) <= set(SCOPES):
            raise InvalidBody(f"scopes are one or more of {', '.join(SCOPES)} @ $.scopes")
        longest = _STREAM_SECONDS if _is_for_stream(sessions, scopes) else _SOCKET_SECONDS
        if ttl is not None and not 1 <= ttl <= longest:
            raise InvalidBody(
                f"this ticket's ttl is 1 to {longest} seconds; to read one session it may be {_STREAM_SECONDS} @ $.ttl"
            )
        if "admin" not in principal.scopes and not principal.scopes.issuperset(scopes):
            raise Forbidden("a ticket has no more scopes than the token that it is asked for with")
        if not all(covers(principal.sessions, pattern) for pattern in sessions):
            raise Forbidden("a ticket is for no more sessions than the token that it is asked for with")
        now = int(time.time())
        expires_at = int(min(now + (_SOCKET_SECONDS if ttl is None else ttl), principal.expires_at))
        claims: dict[str, object] = {
            "aud": _AUDIENCE,
            "sub": principal.subject,
            "scopes": sorted(scopes),
            "sessions": list(sessions),
            "iat": now,
            "exp": expires_at,
            "jti": token_urlsafe(12),
            "process": self._process,
        }
        if principal.expires_at < inf:
            claims["until"] = principal.expires_at
        text = jwt.encode(claims, self._keys[0], _ALGORITHM)
        if len(text) > MAX_TICKET:
            raise InvalidBody("these sessions do not fit into a ticket; name them by fewer patterns @ $.sessions")
        return Ticket(text=text, expires_at=expires_at)

    def for_stream(self, text: str) -> Principal:
        """Who shows this ticket for a stream of events, until it expires. Raises `Unauthenticated`."""
        claims = self._read(text)
        principal = _principal(claims)
        if not _is_for_stream(principal.sessions, principal.scopes):
            detail = "this ticket is not for a stream: that takes one session and the scope read alone"
            raise Unauthenticated(detail, reason="ticket")
        return evolve(principal, expires_at=float(cast("int", claims["exp"])))

    async def for_socket(self, text: str) -> Principal:
        """Who shows this ticket for a WebSocket, until their token expires. The ticket is used up.

        Raises `Unauthenticated`, and `Overloaded`, also while the store cannot be asked that servers share: then it may
        be used up.
        """
        claims = self._read(text)
        ticket_id, now = cast("str", claims["jti"]), time.time()
        if claims["process"] != self._process or now >= cast("int", claims["iat"]) + _SOCKET_SECONDS:
            raise Unauthenticated("this ticket is too old for a WebSocket", reason="expired")
        try:
            first = await self._redeem(ticket_id, _SOCKET_SECONDS)
        except StorageError as error:
            raise Overloaded("whether this ticket has been used cannot be found out now; try again") from error
        if not first:
            raise Unauthenticated("this ticket has been used", reason="used")
        return _principal(claims)

    async def _use(self, ticket_id: str, ttl: float) -> bool:
        """Use it up in this process alone. Without a wait."""
        now = time.time()
        self._forget(now)
        if ticket_id in self._used:
            return False
        if len(self._used) >= _MAX_USED:
            raise Overloaded("too many tickets are being used; try again")
        self._used[ticket_id] = now + ttl
        return True

    def _forget(self, now: float) -> None:
        """Let go of the ids whose tickets are too old by themselves."""
        for ticket_id, until in list(self._used.items()):
            if until > now:
                break
            del self._used[ticket_id]

    def _read(self, text: str) -> dict[str, object]:
        if len(text) > MAX_TICKET or not text.isascii():
            raise Unauthenticated("this is no ticket", reason="malformed")
        for key in self._keys:
            try:
                claims: dict[str, object] = jwt.decode(
                    text,
                    key,
                    algorithms=[_ALGORITHM],
                    audience=_AUDIENCE,
                    options={"verify_iat": False},  # as of a token
                )
            except jwt.ExpiredSignatureError:
                raise Unauthenticated("the ticket has expired", reason="expired") from None
            except (jwt.PyJWTError, ValueError, RecursionError):
                continue
            return claims
        raise Unauthenticated("this is no ticket of this server's", reason="signature")


def _is_for_stream(sessions: Collection[str], scopes: Collection[str]) -> bool:
    return len(sessions) == 1 and "*" not in next(iter(sessions)) and set(scopes) == {"read"}


def _principal(claims: dict[str, object]) -> Principal:
    """What was written by `make`: the signature says so."""
    return Principal(
        subject=cast("str", claims["sub"]),
        scopes=frozenset(cast("list[Scope]", claims["scopes"])),
        sessions=tuple(cast("list[str]", claims["sessions"])),
        expires_at=cast("float", claims.get("until", inf)),
    )


def _derive(secret: bytes, use: bytes = b"penstock tickets") -> bytes:
    """A key of its own for this use (RFC 5869), so that no token is a ticket and no ticket a token."""
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=use).derive(secret)
