"""Keys and tokens for tests."""

from __future__ import annotations

import time
from collections.abc import Sequence

import jwt
from attrs import evolve

from penstock.adapters.access import Authorize, Identity, JwtTokens, Principal, Tickets

__all__ = ["ALL", "SECRET", "bearer", "identity", "token"]

SECRET = b"a secret that only these tests know, and 32 bytes"

ALL = ("read", "write", "produce", "admin")


def identity(*, authorize: Authorize | None = None, leeway: float = 0.0, ask_again: float = 60.0) -> Identity:
    tokens = JwtTokens([SECRET], "HS256", leeway=leeway)

    def verify(made: str) -> Principal:
        principal = tokens(made)
        lasts = jwt.decode(made, options={"verify_signature": False}).get("lasts")
        return principal if lasts is None else evolve(principal, expires_at=time.time() + lasts)

    return Identity(verify, authorize=authorize, tickets=Tickets(tokens.secrets), ask_again=ask_again)


def token(
    sessions: Sequence[str] = ("*",),
    scopes: Sequence[str] = ALL,
    *,
    subject: str = "ann",
    ttl: float = 24 * 3600,  # some are made when the tests are collected
    key: bytes = SECRET,
    **claims: object,
) -> str:
    """One that `identity` believes. With ``lasts=1.0`` it ends a second behind the moment when it is read: the end that
    it has of its own is read in whole seconds, and may be at once."""
    made = {"sub": subject, "scopes": list(scopes), "sessions": list(sessions), "exp": time.time() + ttl}
    return jwt.encode({**made, **claims}, key, "HS256")


def bearer(made: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {made}"}
