"""What the server and each of its connections may take: every bound with its reason."""

from __future__ import annotations

import math
import ssl
from typing import TypeVar, final

from attrs import Attribute, field, frozen
from attrs.validators import matches_re

from .proxies import TrustedProxies
from .tls import Certificate

__all__ = ["ServerConfig"]

_Number = TypeVar("_Number", int, float)


def _positive(_: object, attribute: Attribute[_Number], value: _Number) -> None:
    if not value > 0:
        raise ValueError(f"{attribute.name} must be above 0, not {value!r}")


@final
@frozen(kw_only=True)
class ServerConfig:
    """The server's bounds, each with its reason. Times are in seconds."""

    # A viewer costs some 32 KiB, so this is 320 MiB: what one process serves before another should.
    max_connections: int = field(default=10_000, validator=_positive)

    # Of these from one address (of IPv6, one /64), and new ones a second, of which ten seconds' worth may come at once;
    # trusted proxies are not counted. No bound, as here nobody knows whether a proxy stands in front that was not
    # named, or all come from this machine: `penstock serve` knows, and sets them.
    peer_connections: float = field(default=math.inf, validator=_positive)
    peer_rate: float = field(default=math.inf, validator=_positive)

    # A connection that takes nothing for so long is gone or hopeless. It resumes by cursor, so nothing is lost.
    send_timeout: float = field(default=30.0, validator=_positive)

    # What process supervisors commonly wait between SIGTERM and SIGKILL.
    drain_timeout: float = field(default=10.0, validator=_positive)

    # Of that, what clients get to take the last of their answers once everything has ended: a slow line's worth of
    # a buffer. Who needs longer does not read; it resumes by cursor, and the process has time left to close.
    farewell_timeout: float = field(default=3.0, validator=_positive)

    # hypercorn's own: cookies and a token fit many times over.
    head_bytes: int = field(default=16 * 1024, validator=_positive)

    # A head is one packet or a few; more than this is a peer that wants to hold a connection.
    head_timeout: float = field(default=10.0, validator=_positive)

    # Above the 60 s that load balancers keep idle connections to us: who closes first must be the client.
    keep_alive: float = field(default=75.0, validator=_positive)

    # How long an answered peer may go on sending before it is cut, so that it gets to read the answer.
    linger: float = field(default=2.0, validator=_positive)

    # The application's own start and stop; the engine is open before and closed after it.
    lifespan_timeout: float = field(default=10.0, validator=_positive)

    # A message is a command with a prompt: as large as a request's body may be.
    websocket_message_bytes: int = field(default=1024 * 1024, validator=_positive)

    # Messages that are read and not taken yet. No more, for each may be as large as one may be: how many commands are
    # under way is the conversation's business.
    websocket_messages: int = field(default=1, validator=_positive)

    # Every other handshake is a plain request to the application.
    websocket_path: str = "/v1/ws"

    # Where the server stands below its public address, like "/penstock"; requests may come with it and without.
    root_path: str = field(default="", validator=matches_re(r"(/[A-Za-z0-9._~-]+)*"))

    # Whose X-Forwarded-For, -Proto and -Host are believed.
    trusted_proxies: TrustedProxies = field(factory=TrustedProxies)

    # All connections are encrypted with it, if it is there: see `tls.tls_context`, and `tls.Certificate` for one that
    # is changed meanwhile.
    tls: ssl.SSLContext | Certificate | None = None
