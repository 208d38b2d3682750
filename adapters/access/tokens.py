"""Bearer tokens: JWTs (RFC 7519), read and made by PyJWT.

Owns which claims mean what, and which keys are good enough. One algorithm per server, as it was told: what a token
says of its own algorithm decides nothing.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Final, Literal, TypeAlias, cast, final, get_args

import jwt
from attrs import field, frozen
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

from ..problems import Unauthenticated
from .principal import MAX_PATTERNS, SCOPES, Principal, Scope, is_pattern

__all__ = [
    "ALGORITHMS",
    "Algorithm",
    "BadKey",
    "JwtTokens",
    "PublicKey",
    "Signer",
    "load_key",
    "load_signer",
    "make_token",
    "read_bearer",
]

Algorithm: TypeAlias = Literal["HS256", "EdDSA", "RS256"]
ALGORITHMS: Final[tuple[Algorithm, ...]] = get_args(Algorithm)

# What tokens are checked with.
PublicKey: TypeAlias = bytes | Ed25519PublicKey | RSAPublicKey
_PrivateKey: TypeAlias = bytes | Ed25519PrivateKey | RSAPrivateKey

# RFC 7518, 3.2 and 3.3: a shorter one can be found by trying.
_SECRET_BYTES: Final = 32
_RSA_BITS: Final = 2048

# Two machines that keep time at all agree by far better than this.
_LEEWAY: Final = 5.0

# A hundred patterns and a few claims of the issuer's own; over HTTP the head's own limit is near.
_TOKEN_BYTES: Final = 12 * 1024
_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")

# It is shown to people as who approved, and compared with ids in paths.
_SUBJECT_LENGTH: Final = 256

# What the library finds, in a word of ours.
_REASONS: Final[Mapping[type[jwt.PyJWTError], str]] = {
    jwt.ExpiredSignatureError: "expired",
    jwt.ImmatureSignatureError: "not-yet",
    jwt.InvalidAudienceError: "audience",
    jwt.InvalidIssuerError: "issuer",
    jwt.InvalidAlgorithmError: "algorithm",
    jwt.MissingRequiredClaimError: "claims",
}


class BadKey(Exception):
    """A key file cannot be used; the text names it and says what to do."""


@final
class JwtTokens:
    """Reads tokens that were signed for one of ``keys``.

    ``audience`` and ``issuer``, where given, must be the token's. Without an audience here, a token that was made
    for one is refused.
    """

    def __init__(
        self,
        keys: Sequence[PublicKey],
        algorithm: Algorithm,
        *,
        audience: str | None = None,
        issuer: str | None = None,
        leeway: float = _LEEWAY,
    ) -> None:
        self._keys: tuple[PublicKey, ...]
        self._algorithm = algorithm
        self.replace(keys)
        self._audience = audience
        self._issuer = issuer
        self._leeway = leeway

    def replace(self, keys: Sequence[PublicKey]) -> None:
        """Read tokens that were signed for one of these from now on. Raises `BadKey`, and changes nothing."""
        if not keys:
            raise ValueError("tokens are checked with one key at least")
        self._keys = tuple(_check(key, self._algorithm, "the key") for key in keys)

    @property
    def secrets(self) -> tuple[bytes, ...]:
        """The keys that only this server and its issuer know."""
        return tuple(key for key in self._keys if isinstance(key, bytes))

    def __call__(self, token: str) -> Principal:
        """Whose token this is. Raises `Unauthenticated`, which tells nothing of the token but what is wrong with it."""
        if len(token) > _TOKEN_BYTES or not _TOKEN.fullmatch(token):
            raise Unauthenticated("the token is no JWT, or longer than one may be", reason="malformed")
        claims = self._claims(token)
        return Principal(
            subject=_subject(claims.get("sub")),
            scopes=_scopes(claims),
            sessions=_sessions(claims.get("sessions", [])),
            expires_at=_seconds(claims.get("exp")) + self._leeway,
        )

    def _claims(self, token: str) -> Mapping[str, object]:
        for key in self._keys:
            try:
                claims: dict[str, object] = jwt.decode(
                    token,
                    key,
                    algorithms=[self._algorithm],
                    audience=self._audience,
                    issuer=self._issuer,
                    leeway=self._leeway,
                    # When it was made is no reason to refuse it: a clock that is some seconds fast would shut everybody
                    # out. What must not be used yet says so itself, in `nbf`.
                    options={"require": ["exp", "sub"], "verify_iat": False},
                )
            except jwt.InvalidSignatureError:
                continue  # another key's, perhaps
            except jwt.PyJWTError as error:
                reason = _REASONS.get(type(error), "malformed")
                raise Unauthenticated(f"the token is refused: {type(error).__name__}", reason=reason) from None
            except Exception as error:  # noqa: BLE001  # whatever a stranger's token does to the parser, it is none
                detail = f"the token cannot be read: {type(error).__name__}"
                raise Unauthenticated(detail, reason="malformed") from None
            return claims
        keys = "key" if len(self._keys) == 1 else f"{len(self._keys)} keys"
        raise Unauthenticated(f"the token is not signed with this server's {keys}", reason="signature")


def read_bearer(header: str) -> str:
    """The token in an ``Authorization`` header (RFC 6750). Raises `Unauthenticated`."""
    scheme, _, token = header.partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise Unauthenticated("the Authorization header is not 'Bearer <token>'", reason="malformed")
    return token.strip()


def _subject(value: object) -> str:
    if not isinstance(value, str) or not 1 <= len(value) <= _SUBJECT_LENGTH or not value.isprintable():
        raise _claim(f"the token's sub is not 1 to {_SUBJECT_LENGTH} printable characters")
    return value


def _scopes(claims: Mapping[str, object]) -> frozenset[Scope]:
    """Those of ours among the token's: an issuer has others for other services."""
    if "scope" in claims and "scopes" in claims:
        raise _claim("the token has both scope and scopes")
    value = claims.get("scope", claims.get("scopes", []))
    if "scope" in claims:
        value = value.split(" ") if isinstance(value, str) else None
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise _claim("the token's scope is not words in a text, or its scopes not a list of texts")
    return frozenset(cast("list[Scope]", [name for name in value if name in SCOPES]))


def _sessions(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) > MAX_PATTERNS:
        raise _claim(f"the token's sessions are not a list of {MAX_PATTERNS} at most")
    if not all(isinstance(pattern, str) and is_pattern(pattern) for pattern in value):
        raise _claim("the token's sessions are not session ids, in which * may stand for any characters")
    return tuple(value)


def _seconds(value: object) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 2**53 and isfinite(value):
        return float(value)
    raise _claim("the token's exp is no number of seconds")


def _claim(detail: str) -> Unauthenticated:
    return Unauthenticated(detail, reason="claims")


# --- keys


def load_key(path: Path, algorithm: Algorithm) -> PublicKey:
    """What tokens are checked with: a secret for HS256, else a public key in PEM. Raises `BadKey`."""
    if algorithm == "HS256":
        return _check(_secret(path), algorithm, str(path))
    data = _read(path)
    if b"PRIVATE KEY-----" in data:
        raise BadKey(
            f"{path} holds a private key, which only who makes tokens should have; give the server the public one "
            f"(openssl pkey -in {path} -pubout)"
        )
    try:
        key = load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise BadKey(f"{path} holds no public key in PEM form, which {algorithm} needs") from error
    return _check(cast("PublicKey", key), algorithm, str(path))


def _check(key: PublicKey, algorithm: Algorithm, name: str) -> PublicKey:
    """The key, if it is of the algorithm's kind and good enough. Raises `BadKey`."""
    match algorithm:
        case "HS256" if isinstance(key, bytes):
            if len(key) < _SECRET_BYTES:
                raise BadKey(
                    f"{name} has {len(key)} bytes; a secret for HS256 has {_SECRET_BYTES} at least, as from "
                    "openssl rand -base64 48"
                )
            if b"-----BEGIN" in key:
                raise BadKey(f"{name} is a key in PEM form, no secret: name its algorithm, EdDSA or RS256")
            return key
        case "EdDSA" if isinstance(key, Ed25519PublicKey):
            return key
        case "RS256" if isinstance(key, RSAPublicKey):
            if key.key_size < _RSA_BITS:
                raise BadKey(f"{name} has {key.key_size} bits; a key for RS256 has {_RSA_BITS} at least")
            return key
        case _:
            raise BadKey(f"{name} is no key for {algorithm}")


def _secret(path: Path) -> bytes:
    return _read(path).rstrip(b"\r\n")  # editors and echo end a file so; it is no part of the secret


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadKey(f"{path} cannot be read: {error.strerror}") from error


# --- for who makes tokens


@final
@frozen(kw_only=True)
class Signer:
    """A key to make tokens with, and what they are checked with."""

    algorithm: Algorithm
    key: _PrivateKey = field(repr=False)
    public: PublicKey = field(repr=False)


def load_signer(path: Path, algorithm: Algorithm) -> Signer:
    """A secret for HS256, else a private key in PEM. Raises `BadKey`."""
    if algorithm == "HS256":
        secret = _check(_secret(path), algorithm, str(path))
        assert isinstance(secret, bytes)
        return Signer(algorithm=algorithm, key=secret, public=secret)
    try:
        key = load_pem_private_key(_read(path), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise BadKey(f"{path} holds no private key in PEM form without a password, which {algorithm} needs") from error
    if not isinstance(key, Ed25519PrivateKey | RSAPrivateKey):
        raise BadKey(f"{path} is no key for {algorithm}")
    return Signer(algorithm=algorithm, key=key, public=_check(key.public_key(), algorithm, str(path)))


def make_token(
    signer: Signer,
    *,
    subject: str,
    scopes: Sequence[Scope],
    sessions: Sequence[str],
    ttl: float,
    audience: str | None = None,
    issuer: str | None = None,
) -> str:
    """A token that holds for ``ttl`` seconds from now."""
    now = int(time.time())
    claims: dict[str, object] = {
        "sub": subject,
        "scope": " ".join(scopes),
        "sessions": list(sessions),
        "iat": now,
        "exp": int(now + ttl),
    }
    if audience is not None:
        claims["aud"] = audience
    if issuer is not None:
        claims["iss"] = issuer
    return jwt.encode(claims, signer.key, signer.algorithm)
