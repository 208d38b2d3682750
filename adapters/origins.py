"""Which pages may speak to this server: the rule for the ``Origin`` header as one function.

A browser sends the header with every WebSocket handshake and every request that changes something; programs
send none. Without the rule any page a person visits could start and stop answers on a server on that person's
own machine.
"""

from __future__ import annotations

from collections.abc import Collection
from urllib.parse import urlsplit

from .problems import OriginRefused

__all__ = ["check_origin"]

_DEFAULT_PORTS = {"http": 80, "https": 443}


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
