"""A request's head: as it came, for those who decide about it, and the few changes that a server makes to it. Pure."""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Iterable, Sequence
from typing import Final, Self, final

import h11
from attrs import frozen

from penstock.engine import InvalidBody

from .hosts import is_host

__all__ = ["Head", "check_headers", "is_handshake", "origin_form", "replaced", "rooted", "wire"]

# What the key of a handshake decodes to (RFC 6455, 4.2.1).
_KEY_BYTES: Final = 16

_PROTOCOL: Final = "sec-websocket-protocol"

# Headers of a handshake that `wire` writes itself, and one that is never taken up.
_WRITTEN: Final = frozenset({b"host", b"connection", b"sec-websocket-extensions"})

_AUTHORITY_END: Final = re.compile(rb"[/?]")


@final
@frozen(kw_only=True)
class Head:
    """The request's target, and its headers in order with lower-case names."""

    target: str
    headers: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, request: h11.Request) -> Self:
        return cls(
            target=request.target.decode("ascii"),
            headers=tuple((name.decode("ascii"), value.decode("latin-1")) for name, value in request.headers),
        )

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    def get(self, name: str) -> str | None:
        """The first header of this (lower-case) name."""
        return next((value for key, value in self.headers if key == name), None)

    def all(self, name: str) -> list[str]:
        """Each header of this (lower-case) name, in order."""
        return [value for key, value in self.headers if key == name]


def is_handshake(request: h11.Request, path: str) -> bool:
    """Whether this is a complete WebSocket handshake for ``path``; half a one is a request like any other."""
    head = Head.of(request)
    if request.method != b"GET" or request.http_version != b"1.1" or head.path != path:
        return False
    tokens = ",".join(head.all("connection")).lower().split(",")
    if "upgrade" not in map(str.strip, tokens) or head.get("content-length") or head.get("transfer-encoding"):
        return False
    upgrades, versions, keys = (head.all(name) for name in ("upgrade", "sec-websocket-version", "sec-websocket-key"))
    if [value.lower() for value in upgrades] != ["websocket"] or versions != ["13"] or len(keys) != 1:
        return False
    try:
        return len(b64decode(keys[0], validate=True)) == _KEY_BYTES and all(map(str.isascii, head.all(_PROTOCOL)))
    except ValueError:
        return False


def wire(request: h11.Request, behind: bytes) -> bytes:
    """The bytes of a handshake, and what came ``behind`` it: what decides is written in the one way that wsproto reads.

    It takes the last header of a name for all of them, and would decode the host, which is looked at in the `Head`.
    """
    lines = [b"GET " + request.target + b" HTTP/1.1", b"Host: localhost", b"Connection: Upgrade"]
    lines += [name + b": " + value for name, value in request.headers.raw_items() if name.lower() not in _WRITTEN]
    return b"\r\n".join(lines) + b"\r\n\r\n" + behind


def origin_form(target: bytes) -> tuple[bytes, bytes | None]:
    """The path and query of a request's target, and the host before it, where one stands there (RFC 9112, 3.2).

    Raises `InvalidBody`.
    """
    if target.startswith(b"/") or target == b"*":
        return target, None
    scheme, _, rest = target.partition(b"://")
    host = _AUTHORITY_END.split(rest, maxsplit=1)[0]
    if scheme.lower() not in (b"http", b"https") or not is_host(host):
        raise InvalidBody("the request's target must be a path")
    path = rest[len(host) :]
    return path if path.startswith(b"/") else b"/" + path, host


def check_headers(headers: Iterable[tuple[bytes, bytes]]) -> set[bytes]:
    """The names that there are, all in lower case.

    Raises `InvalidBody` unless one host at most is asked, that is one, by one page at most.
    """
    names = set()
    for name, value in headers:
        if name == b"host" and value and not is_host(value):
            raise InvalidBody("the Host header names no host")
        if name in names and name in (b"host", b"origin"):
            raise InvalidBody("there is more than one Host or Origin header")
        names.add(name)
    return names


def rooted(target: bytes, root: bytes) -> bytes:
    """``target`` below ``root``, whether the proxy in front has left that away or not: ASGI wants it there."""
    if not target.startswith(b"/") or target.startswith((root + b"/", root + b"?")) or target == root:
        return target
    return root + target


def replaced(request: h11.Request, target: bytes, headers: Sequence[tuple[bytes, bytes]]) -> h11.Request:
    return h11.Request(method=request.method, target=target, headers=list(headers), http_version=request.http_version)
