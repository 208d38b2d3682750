"""A request's head: as it came, for those who decide about it, and the few changes that a server makes to it. Pure."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Sequence
from typing import Final, Self, final

import h11
from attrs import frozen

__all__ = ["Head", "is_handshake", "replaced", "rooted", "wire"]

# What the key of a handshake decodes to (RFC 6455, 4.2.1).
_KEY_BYTES: Final = 16


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


def is_handshake(request: h11.Request, path: str) -> bool:
    """Whether this is a complete WebSocket handshake for ``path``; half a one is a request like any other."""
    head = Head.of(request)
    if request.method != b"GET" or request.http_version != b"1.1" or head.path != path:
        return False
    tokens = ",".join(value for name, value in head.headers if name == "connection").lower().split(",")
    if "upgrade" not in map(str.strip, tokens) or (head.get("upgrade") or "").lower() != "websocket":
        return False
    if head.get("sec-websocket-version") != "13" or head.get("content-length") or head.get("transfer-encoding"):
        return False
    try:
        (head.get("host") or "").encode("ascii").decode("idna")
        return len(b64decode(head.get("sec-websocket-key") or "", validate=True)) == _KEY_BYTES
    except ValueError:
        return False


def wire(request: h11.Request, behind: bytes) -> bytes:
    """The bytes of a GET without a body, and what came ``behind`` it."""
    lines = [b"GET " + request.target + b" HTTP/1.1"]
    lines += [name + b": " + value for name, value in request.headers.raw_items()]
    return b"\r\n".join(lines) + b"\r\n\r\n" + behind


def rooted(target: bytes, root: bytes) -> bytes:
    """``target`` below ``root``, whether the proxy in front has left that away or not: ASGI wants it there."""
    if not target.startswith(b"/") or target.startswith((root + b"/", root + b"?")) or target == root:
        return target
    return root + target


def replaced(request: h11.Request, target: bytes, headers: Sequence[tuple[bytes, bytes]]) -> h11.Request:
    return h11.Request(method=request.method, target=target, headers=list(headers), http_version=request.http_version)
