"""How nodes know each other: by a secret that all of them have, and numbers that are good for once. No clock is asked.

Owns what is signed and what tells a request from its repetition. A node that answers makes a nonce when it starts, and
one that asks signs it, with a name of its own and a number that it never uses again. So a request that somebody caught
is good for nothing: at the node that it was for the number is used up, and another one, or the same after a new start,
has another nonce. Who signs an older nonce is told the present one, and signs anew.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from hashlib import sha256
from itertools import count
from pathlib import Path
from secrets import token_hex
from typing import Final, final

from attrs import define, field, frozen

__all__ = ["BadSecret", "ClusterSecret", "Numbers", "Sender", "Signed", "digest_of", "load_secret"]

# As a secret of HS256 tokens: what a hash of 32 bytes is worth.
_SECRET_BYTES: Final = 32

# Numbers of one sender that may overtake each other: more than it has requests under way.
_WINDOW: Final = 4096

# Senders that are remembered: one for each start of each node. Past these the nonce changes, and all is forgotten.
_SENDERS: Final = 4096


@final
class BadSecret(Exception):
    """The secret cannot be used; the text says why and what to do."""


@final
@frozen(kw_only=True)
class Signed:
    """What stands in the head of a request between nodes, but for the signature."""

    method: str
    path: str
    nonce: str
    sender: str
    number: int
    request_id: str
    digest: str


@final
class ClusterSecret:
    """The secret of all nodes of one cluster. Raises `BadSecret` for one that is too short."""

    def __init__(self, secret: bytes) -> None:
        if len(secret) < _SECRET_BYTES:
            raise BadSecret(
                f"it has {len(secret)} bytes; a cluster's secret has {_SECRET_BYTES} at least, as from "
                "openssl rand -base64 48"
            )
        self._key = hmac.digest(secret, b"penstock between nodes", "sha256")
        self.for_tickets: Final = hmac.digest(secret, b"penstock tickets of nodes", "sha256")  # see `Tickets.share`

    def of_request(self, signed: Signed) -> str:
        """The signature of a request."""
        number = str(signed.number)
        return self._sign(
            "asked", signed.method, signed.path, signed.nonce, signed.sender, number, signed.request_id, signed.digest
        )

    def of_answer(self, request: str, status: int, nonce: str, body: bytes) -> str:
        """The signature of the answer to a request with this signature."""
        return self._sign("answered", request, str(status), nonce, digest_of(body))

    def _sign(self, *lines: str) -> str:
        """None of them has a line's end."""
        return hmac.new(self._key, "\n".join(lines).encode(), sha256).hexdigest()


def load_secret(path: Path) -> ClusterSecret:
    """The secret in a file, without white space around it. Raises `BadSecret`."""
    try:
        return ClusterSecret(path.read_bytes().strip())
    except OSError as error:
        raise BadSecret(f"{path} cannot be read: {error.strerror}") from error
    except BadSecret as error:
        raise BadSecret(f"{path}: {error}") from error


def digest_of(body: bytes) -> str:
    return sha256(body).hexdigest()


@final
class Sender:
    """One start of a node, as it asks others. ``nonces`` by the URL of whom they are."""

    def __init__(self) -> None:
        self.name: Final = token_hex(16)
        self.nonces: Final[dict[str, str]] = {}
        self._numbers = count(1)

    def next_number(self) -> int:
        return next(self._numbers)


@final
@define
class _Window:
    """The numbers of one sender that were used: all up to ``least``, and those."""

    least: int = 0
    used: set[int] = field(factory=set)

    def take(self, number: int) -> bool:
        if number <= self.least or number in self.used:
            return False
        self.used.add(number)
        if len(self.used) > _WINDOW:
            ordered = sorted(self.used)
            self.least = ordered[_WINDOW // 2]
            self.used = set(ordered[_WINDOW // 2 + 1 :])
        return True


@final
class Numbers:
    """The nonce of a node that answers, and the numbers that were used with it."""

    def __init__(self) -> None:
        self.nonce = token_hex(16)
        self._senders: dict[str, _Window] = {}

    def take(self, sender: str, number: int) -> bool:
        """Use the number up; whether it could be. To be called for what is signed with this nonce only."""
        window = self._senders.get(sender)
        if window is None:
            if len(self._senders) >= _SENDERS:
                self.nonce = token_hex(16)
                self._senders.clear()
                return False
            window = self._senders[sender] = _Window()
        return window.take(number)

    @property
    def senders(self) -> Mapping[str, object]:
        """Those that are remembered."""
        return self._senders
