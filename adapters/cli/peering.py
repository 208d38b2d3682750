"""How a server is reached by others of its cluster: the flags of ``penstock serve`` about that."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Final, final
from urllib.parse import urlsplit

import click
from attrs import field, frozen

from .reloading import others_can_read

if TYPE_CHECKING:  # at run time only where a server is made
    from ..nodes import ClusterSecret

__all__ = ["Peering", "peering_options"]


@final
@frozen(kw_only=True)
class Peering:
    """Where other nodes ask this one. ``url`` is what they are told; empty: the address that it listens on."""

    host: str
    port: int
    url: str
    secret: ClusterSecret = field(repr=False)

    @property
    def encrypted(self) -> bool:
        return self.url.startswith("https:")


_OPTIONS: Final = (
    click.option(
        "--node-listen",
        metavar="ADDRESS:PORT",
        envvar="PENSTOCK_NODE_LISTEN",
        help="Answer other servers of the same log here: what is asked of a session that this one has goes on here, "
        "whichever of them was asked. For nobody else: not an address of the internet. 0: any port that is free.",
    ),
    click.option(
        "--node-url",
        metavar="URL",
        envvar="PENSTOCK_NODE_URL",
        help="Where they reach that, like http://10.0.0.5:8421; with https it has the certificate of --certfile.  "
        "[default: the address itself]",
    ),
    click.option(
        "--cluster-secret-file",
        metavar="FILE",
        envvar="PENSTOCK_CLUSTER_SECRET_FILE",
        type=click.Path(dir_okay=False, path_type=Path),
        help="What they know each other by: the same 32 bytes or more for all, that nobody else can read.",
    ),
)


def peering_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options to ``command``, which gets them as one argument, ``peering``."""

    @wraps(command)
    def told(
        *,
        node_listen: str | None,
        node_url: str | None,
        cluster_secret_file: Path | None,
        workers: int,
        **others: object,
    ) -> None:
        if workers > 1 and node_url is not None:
            raise click.UsageError("--node-url is the address of one server, and --workers are several")
        peering = _peering(node_listen, node_url, cluster_secret_file)
        command(peering=peering, workers=workers, **others)

    made: Callable[..., None] = told
    for option in reversed(_OPTIONS):
        made = option(made)
    return made


def _peering(listen: str | None, url: str | None, secret: Path | None) -> Peering | None:
    """Raises `click.ClickException`."""
    if listen is None and url is None and secret is None:
        return None
    if listen is None or secret is None:
        raise click.UsageError("--node-listen and --cluster-secret-file belong together, and --node-url to them")
    host, port = _address(listen)
    if url is None and ipaddress.ip_address(host).is_unspecified:
        raise click.UsageError(f"--node-listen: other servers cannot reach {host}; say where they do with --node-url")
    if url is not None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query:
            raise click.UsageError("--node-url is a URL like http://10.0.0.5:8421")
    from ..nodes import BadSecret, load_secret  # noqa: PLC0415  so that tail and send start without a server's weight

    if others_can_read(secret):
        raise click.ClickException(
            f"--cluster-secret-file: {secret} can be read by others, who could then do everything in every session; "
            f"it must be yours alone (chmod 600 {secret})"
        )
    try:
        return Peering(host=host, port=port, url=(url or "").rstrip("/"), secret=load_secret(secret))
    except BadSecret as error:
        raise click.ClickException(f"--cluster-secret-file: {error}") from error


def _address(listen: str) -> tuple[str, int]:
    host, _, port = listen.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    try:
        host = "127.0.0.1" if host == "localhost" else str(ipaddress.ip_address(host))
        if not (port.isascii() and port.isdecimal() and int(port) < 2**16):
            raise ValueError
    except ValueError:
        raise click.UsageError("--node-listen is an IP address and a port, like 10.0.0.5:8421") from None
    return host, int(port)
