"""What a ``Host`` header, or the host in a request's target, may be. Pure.

It is looked at before anything else looks into it: the codec for international names takes time that grows with the
square of a label's length, and stops at a label that is empty or longer than DNS has them; so do those who use it.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final

__all__ = ["is_host"]

# A name in DNS is no longer (RFC 1035, 2.3.4); a port, or the brackets of an address, are in it.
_LONGEST: Final = 255

# Labels of 1 to 63, with the underscore that networks inside use, and one dot at the end; or an IPv6 address. IPv4 has
# the form of a name. The port may be left out behind its colon (RFC 9110, 4.2.3).
_HOST: Final = re.compile(
    rb"(?:[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*\.?|\[([0-9A-Fa-f:.]{2,45})\])(?::([0-9]{0,5}))?"
)

_LAST_PORT: Final = 65535


def is_host(value: bytes) -> bool:
    """Whether this names a host, with a port or without."""
    found = _HOST.fullmatch(value) if len(value) <= _LONGEST else None
    if found is None:
        return False
    address, port = found.groups()
    if address is not None:
        try:
            ipaddress.IPv6Address(address.decode("ascii"))
        except ValueError:
            return False
    return not port or int(port) <= _LAST_PORT
