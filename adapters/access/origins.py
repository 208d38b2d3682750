"""Which pages may speak to this server: the rules for the ``Origin`` and ``Host`` headers as functions.

A browser sends the origin with every WebSocket handshake and every request that changes something; programs send
none. Without the rule any page a person visits could start and stop answers on a server on that person's own
machine. The host is checked where nobody is asked for a token: a page may give its own name this machine's address
(DNS rebinding), and is then of the same origin as what it asks.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Sequence
from functools import lru_cache
from typing import Final
from urllib.parse import urlsplit

from ..problems import OriginRefused

__all__ = ["check_host", "check_origin", "check_site", "cross_origin", "is_origin", "navigates"]

_OWN_SITES: Final = frozenset({"same-origin", "none"})

# Of which it is known what they name: it is asked with every request, and a server has few names.
_HOSTS: Final = 100

_DEFAULT_PORTS = {"http": 80, "https": 443}

# What the playground's commands and other processes send.
_REQUEST_HEADERS: Final = (
    "Authorization, Content-Type, Idempotency-Key, Last-Event-ID, "
    "Producer-Id, Producer-Epoch, Producer-Seq, X-Request-Id"
)
_METHODS: Final = "GET, HEAD, POST, PUT, PATCH, DELETE"

# What of an answer a page could not see otherwise, beside its content type.
_ANSWER_HEADERS: Final = "Allow, ETag, Retry-After, WWW-Authenticate, X-Request-Id"

# Browsers ask again before the next request that is later; Chromium's own bound is 7200.
_PREFLIGHT_SECONDS: Final = "600"


def check_origin(origin: str | None, host: str | None, allowed: Collection[str] = ()) -> None:
    """Raises `OriginRefused` unless there is no origin, or it is the ``host`` that was asked, or it is ``allowed``.

    The scheme is not compared: behind a proxy that ends TLS, only the page's side knows it. ``allowed`` holds
    origins as browsers write them, like ``https://chat.example``.
    """
    if origin is None or origin in allowed:
        return
    try:
        page = urlsplit(origin)
        port = page.port or _DEFAULT_PORTS.get(page.scheme)
        asked = urlsplit(f"//{host or ''}")
        asked_port = asked.port or _DEFAULT_PORTS.get(page.scheme)
    except ValueError:
        raise OriginRefused("the Origin or Host header is malformed") from None
    if page.hostname is None or page.hostname != asked.hostname or port != asked_port:
        raise OriginRefused("a page of another origin may not do this; ask the server's operator to allow it")


def check_site(
    site: Sequence[str], origin: str | None, allowed: Collection[str] = (), *, navigates: bool = False
) -> None:
    """Raises `OriginRefused` where a browser says, in ``Sec-Fetch-Site``, that a page of another origin asks.

    A page loads what it may not read, too: as an image or a script, in a frame, or to hold a connection. Programs, and
    browsers of before 2023, do not send the header. A person who comes from another site is none of its pages: who
    ``navigates`` is let in, and so are what is typed or bookmarked (``none``) and the origins that are ``allowed``. A
    page at another port of this machine is of the same site, and of another origin.
    """
    if navigates or origin in allowed or all(each.strip() in _OWN_SITES for each in site):
        return
    raise OriginRefused("a page of another origin may not ask here; ask the server's operator to allow it")


def navigates(mode: str | None, destination: str | None) -> bool:
    """Whether a browser opens this in a tab of its own, and no page embeds it: by ``Sec-Fetch-Mode`` and ``-Dest``."""
    return mode == "navigate" and destination == "document"


def check_host(host: str | None, allowed: Collection[str] = ()) -> None:
    """Raises `OriginRefused` unless this machine is asked by a name that only it can have, or by an ``allowed`` one.

    No browser leaves the header out or empty. ``allowed`` holds names without ports, in lower case; ``*`` is any.
    """
    if not host or "*" in allowed:
        return
    name = _name_in(host)
    if name not in allowed and not _is_this_machine(name.removesuffix(".")):
        raise OriginRefused("this server is not asked by this name; its operator can allow it (--allow-host)")


@lru_cache(maxsize=_HOSTS)
def _name_in(host: str) -> str:
    """What it names, without a port. Raises `OriginRefused`."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        raise OriginRefused("the Host header is malformed") from None


@lru_cache(maxsize=_HOSTS)
def _is_this_machine(name: str) -> bool:
    if name == "localhost" or name.endswith(".localhost"):  # RFC 6761, 6.3
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def cross_origin(origin: str | None, allowed: Collection[str], *, preflight: bool) -> dict[str, str]:
    """The headers by which a browser lets the page of an ``allowed`` origin have the answer (CORS); else none.

    No cookie and no other credential of the browser's own is asked for or taken.
    """
    if origin is None or origin not in allowed:
        return {}
    headers = {"Access-Control-Allow-Origin": origin, "Access-Control-Expose-Headers": _ANSWER_HEADERS}
    if preflight:
        headers |= {
            "Access-Control-Allow-Methods": _METHODS,
            "Access-Control-Allow-Headers": _REQUEST_HEADERS,
            "Access-Control-Max-Age": _PREFLIGHT_SECONDS,
        }
    return headers


def is_origin(text: str) -> bool:
    """Whether this is an origin as browsers write it: ``https://chat.example``, with a port unless it is the usual."""
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        return False
    if parts.scheme not in _DEFAULT_PORTS or parts.hostname is None or port == _DEFAULT_PORTS[parts.scheme]:
        return False
    return text == f"{parts.scheme}://{parts.netloc}" and text == text.lower() and "@" not in text
