"""What ``penstock serve`` may be told about its connections and limits, as one group of options."""

from __future__ import annotations

import functools
import ipaddress
import math
from collections.abc import Callable
from typing import Any, Final, final

import click
from attrs import fields, frozen

from ..server.config import ServerConfig
from ..server.limits import UNLIMITED, LimitsConfig
from ..server.proxies import Network, TrustedProxies
from ..server.tls import TlsError
from .reloading import CertificateFiles

__all__ = ["Edge", "edge_options"]

# As in `ServerConfig`.
_CONNECTIONS: Final = 10_000

# From one address: an office behind one has room, and it takes ten to fill the server.
_PEER: Final = 1_000

# New ones a second: a page's six streams that reconnect fit for each of an office's people; a loop does not, of whose
# connections 300 a second take a tenth of a core (measured).
_PEER_RATE: Final = 100.0

_LIMITS: Final = LimitsConfig()


@final
@frozen(kw_only=True)
class Edge:
    """What was said, each by the option of its name; None is the default, which depends on who can come."""

    certificate: CertificateFiles | None = None
    trusted_proxies: tuple[Network, ...] = ()
    root_path: str = ""
    max_connections: int = _CONNECTIONS
    peer_connections: int | None = None
    peer_rate: float | None = None
    rate: float | None = None
    burst: float | None = None
    auth_failures: float | None = None
    client_connections: int | None = None
    client_subscriptions: int | None = None

    def server_config(self, *, local: bool, send_timeout: float, drain_timeout: float) -> ServerConfig:
        """``local``: only this machine can connect. All of it then has one address, so that counts for nothing."""
        return ServerConfig(
            send_timeout=send_timeout,
            drain_timeout=drain_timeout,
            max_connections=self.max_connections,
            peer_connections=self.peer_connections or (math.inf if local else _PEER),
            peer_rate=self.peer_rate or (math.inf if local else _PEER_RATE),
            root_path=self.root_path,
            trusted_proxies=TrustedProxies(self.trusted_proxies),
            tls=None if self.certificate is None else self.certificate.certificate,
        )

    def limits(self, *, known: bool) -> LimitsConfig:
        """``known``: each client says who it is. Without that, what is behind one address may be many."""
        base = LimitsConfig() if known else UNLIMITED
        rate = self.rate or base.rate
        burst = self.burst or (base.burst if self.rate is None else max(1.0, 2 * rate))
        failures = self.auth_failures or base.failures
        return LimitsConfig(
            rate=rate,
            burst=burst,
            failures=failures,
            failures_at_once=base.failures_at_once if self.auth_failures is None else max(1.0, 10 * failures),
            connections=self.client_connections or base.connections,
            subscriptions=self.client_subscriptions or base.subscriptions,
        )


def _networks(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> tuple[Network, ...]:
    try:
        return tuple(ipaddress.ip_network(value) for value in values)
    except ValueError as error:
        raise click.BadParameter(f"{error}; give an address like 10.0.0.7 or a network like 10.0.0.0/8") from None


def _root_path(_: click.Context, __: click.Parameter, value: str) -> str:
    value = value.rstrip("/")
    try:
        return ServerConfig(root_path=value).root_path
    except ValueError:
        raise click.BadParameter(f"{value!r} is no plain path like /penstock") from None


_COUNT: Final = click.IntRange(min=1)

_OPTIONS: Final = (
    click.option("--certfile", metavar="FILE", help="Serve HTTPS with this certificate chain (PEM)."),
    click.option("--keyfile", metavar="FILE", help="Its private key, unless it is in the same file."),
    click.option(
        "--trusted-proxy",
        "trusted_proxies",
        metavar="CIDR",
        multiple=True,
        callback=_networks,
        help="Whose X-Forwarded-For, -Proto and -Host are believed; repeatable.",
    ),
    click.option(
        "--root-path",
        metavar="PATH",
        default="",
        callback=_root_path,
        help="Where a proxy has put the server, like /penstock.",
    ),
    click.option(
        "--max-connections",
        metavar="N",
        default=_CONNECTIONS,
        show_default=True,
        type=_COUNT,
        help="Connections at a time.",
    ),
    click.option(
        "--peer-connections",
        metavar="N",
        type=_COUNT,
        help=f"From one address, but for trusted proxies.  [default: {_PEER}; on a loopback address, all]",
    ),
    click.option(
        "--peer-rate",
        metavar="N",
        type=click.FloatRange(min=0, min_open=True),
        help=f"New connections a second, likewise.  [default: {_PEER_RATE:g}; on a loopback address, any]",
    ),
    click.option(
        "--rate",
        metavar="N",
        type=click.FloatRange(min=0, min_open=True),
        help=f"Requests a second that one client may make.  [default: {_LIMITS.rate:g}; without tokens, any]",
    ),
    click.option(
        "--burst", metavar="N", type=click.FloatRange(min=1), help="Of these at once.  [default: what 2 s bring]"
    ),
    click.option(
        "--auth-failures",
        metavar="N",
        type=click.FloatRange(min=0, min_open=True),
        help="Bad tokens a second from one address, ten times as many at once, before it is told to wait.  "
        f"[default: {_LIMITS.failures:g}]",
    ),
    click.option(
        "--client-connections",
        metavar="N",
        type=_COUNT,
        help=f"Connections at work for one client.  [default: {_LIMITS.connections:g}; without tokens, any]",
    ),
    click.option(
        "--client-subscriptions",
        metavar="N",
        type=_COUNT,
        help=f"Subscriptions of one client.  [default: {_LIMITS.subscriptions:g}; without tokens, any]",
    ),
)


def edge_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options to ``command``, which gets them as one argument, ``edge``."""

    @functools.wraps(command)
    def inner(
        *,
        certfile: str | None,
        keyfile: str | None,
        rate: float | None,
        burst: float | None,
        **given: Any,
    ) -> None:
        if keyfile is not None and certfile is None:
            raise click.UsageError("--keyfile belongs to a --certfile")
        if rate is None and burst is not None:
            raise click.UsageError("--burst belongs to a --rate")
        try:
            certificate = None if certfile is None else CertificateFiles(certfile, keyfile)
        except TlsError as error:
            raise click.ClickException(str(error)) from error
        own = {each.name: given.pop(each.name) for each in fields(Edge) if each.name in given}
        command(edge=Edge(certificate=certificate, rate=rate, burst=burst, **own), **given)

    decorated: Callable[..., None] = inner
    for option in reversed(_OPTIONS):
        decorated = option(decorated)
    return decorated
