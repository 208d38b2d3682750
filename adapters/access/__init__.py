"""Identity and permission: who asks, by which token, and what they may do.

`principal` has the rule, `tokens` reads JWTs, `recognition` a request for an application's own function, `tickets` are
for clients that cannot send headers, `authority` is what the HTTP application and the WebSocket ask. All of it is free
of both.
"""

from ..problems import Unauthenticated
from .authority import OPEN, Authorize, Identity, Verify
from .principal import EVERYBODY, MAX_PATTERNS, SCOPES, Principal, Scope, covers, is_pattern, may
from .recognition import Recognize
from .tickets import MAX_TICKET, Ticket, Tickets
from .tokens import (
    ALGORITHMS,
    Algorithm,
    BadKey,
    JwtTokens,
    PublicKey,
    Signer,
    load_key,
    load_signer,
    make_token,
    read_bearer,
)

__all__ = [
    "ALGORITHMS",
    "EVERYBODY",
    "MAX_PATTERNS",
    "MAX_TICKET",
    "OPEN",
    "SCOPES",
    "Algorithm",
    "Authorize",
    "BadKey",
    "Identity",
    "JwtTokens",
    "Principal",
    "PublicKey",
    "Recognize",
    "Scope",
    "Signer",
    "Ticket",
    "Tickets",
    "Unauthenticated",
    "Verify",
    "covers",
    "is_pattern",
    "load_key",
    "load_signer",
    "make_token",
    "may",
    "read_bearer",
]
