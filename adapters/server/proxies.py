"""Which proxies are believed, and what they say of a request. Pure.

A proxy's word is its peer's word unless the operator named it: anybody can write a header. Of
``X-Forwarded-For`` the right-most address that is no trusted proxy is the client, as each proxy adds on the
right; of the others the right-most value, which the nearest proxy wrote.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from typing import Final, TypeAlias, final

from attrs import frozen

__all__ = ["FORWARDED", "Forwarded", "Network", "TrustedProxies"]

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
_Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

# What no application behind the server gets to see: believed or not, it has been dealt with here. `Forwarded`
# (RFC 7239) is not read, so it must not be believed either.
FORWARDED: Final = frozenset({b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"forwarded"})

_SCHEMES: Final = {"https": "https", "wss": "https", "http": "http", "ws": "http"}


@final
@frozen(kw_only=True)
class Forwarded:
    """Who asked, and how; None where nobody trusted has said."""

    client: str
    scheme: str | None = None
    host: str | None = None


def _parse(text: str) -> _Address | None:
    """An address, also with a port behind it."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if address.version == 6 and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


@final
class TrustedProxies:
    """The proxies in ``networks``. Without any, only what the socket says is true."""

    def __init__(self, networks: Iterable[Network] = ()) -> None:
        self._networks = tuple(networks)

    def __contains__(self, address: str) -> bool:
        parsed = _parse(address)
        return parsed is not None and self._trusts(parsed)

    def _trusts(self, address: _Address) -> bool:
        return any(address in network for network in self._networks)

    def read(self, peer: str, headers: Sequence[tuple[bytes, bytes]]) -> Forwarded:
        """What is true of a request that ``peer`` sent with ``headers`` (names in any case)."""
        if not self._networks or peer not in self:
            return Forwarded(client=peer)
        said: dict[bytes, list[str]] = {name: [] for name in FORWARDED}
        for name, value in headers:
            if name.lower() in said:
                said[name.lower()] += value.decode("latin-1").split(",")
        client = peer
        for text in reversed(said[b"x-forwarded-for"]):
            address = _parse(text)
            if address is None:
                break  # what stands further left came through something that writes no addresses
            client = str(address)
            if not self._trusts(address):
                break
        return Forwarded(
            client=client,
            scheme=_SCHEMES.get(_last(said[b"x-forwarded-proto"]).lower()),
            host=_last(said[b"x-forwarded-host"]) or None,
        )


def _last(values: Sequence[str]) -> str:
    return values[-1].strip() if values else ""
