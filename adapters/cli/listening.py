"""Where a server listens: its addresses are taken before anything else, and answer once there is something to answer.

A name, an address that is in use: what is wrong with what was asked for is said at once. Until `Bound.listen` nobody is
let in, so that no connection waits for a database that is still being opened, or never is.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
from collections.abc import Sequence
from typing import Final, Self, final

import trio

__all__ = ["Bound", "ListenError", "is_dual"]

# Connections that wait for the loop; the system has a bound of its own below it.
_BACKLOG: Final = 65_535

# With port 0 the first address gets any port that is free, and it may not be free at another.
_TRIES: Final = 10


@final
class ListenError(Exception):
    """An address cannot be had; the text names it and a way out."""


def is_dual(host: str, hosts: Sequence[str]) -> bool:
    """Whether ``host`` serves IPv4, too: ``::`` does, where no address of IPv4 is among the ``hosts``."""
    parsed = ipaddress.ip_address(host)
    if parsed.version == 4 or not parsed.is_unspecified:
        return False
    return all(ipaddress.ip_address(each).version == 6 for each in hosts)


@final
class Bound:
    """The addresses that a server has taken. To be closed, or given away by `listen`."""

    def __init__(self, sockets: Sequence[socket.socket]) -> None:
        self._sockets = list(sockets)

    @classmethod
    def to(cls, hosts: Sequence[str], port: int) -> Self:
        """Take ``port`` at each of the ``hosts``, which are addresses. With 0 it is the same free one at all of them.

        Raises `ListenError`.
        """
        for tries_left in reversed(range(1 if port else _TRIES)):
            made = cls([])
            try:
                for host in hosts:
                    taken = port or (made._sockets[0].getsockname()[1] if made._sockets else 0)
                    made._sockets.append(_bind(host, taken, dual=is_dual(host, hosts)))
            except ListenError:
                made.close()
                if not tries_left:
                    raise
            else:
                return made
        raise AssertionError

    def listen(self) -> list[trio.SocketListener]:
        """Let connections in. Raises `ListenError`, and then closes all of them."""
        try:
            for each in self._sockets:
                try:
                    each.listen(_BACKLOG)
                except OSError as error:
                    host, port = each.getsockname()[:2]
                    raise _cannot(host, port, error) from error
        except ListenError:
            self.close()
            raise
        sockets, self._sockets = self._sockets, []
        return [trio.SocketListener(trio.socket.from_stdlib_socket(each)) for each in sockets]

    def filenos(self) -> list[int]:
        """For a process that is to listen there, too."""
        return [each.fileno() for each in self._sockets]

    def urls(self, scheme: str) -> list[str]:
        """Where each of them is reached."""
        return [_url(each, scheme) for each in self._sockets]

    def close(self) -> None:
        """Give them back. Idempotent."""
        while self._sockets:
            self._sockets.pop().close()


def _bind(host: str, port: int, *, dual: bool) -> socket.socket:
    try:
        flags = socket.AI_NUMERICHOST | socket.AI_PASSIVE
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)[0]
        made = socket.socket(family, kind, protocol)
    except OSError as error:
        raise _cannot(host, port, error) from error
    try:
        made.setblocking(False)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # those of an earlier server may linger
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not dual)
        made.bind(address)
    except OSError as error:
        made.close()
        raise _cannot(host, port, error) from error
    return made


def _cannot(host: str, port: int, error: OSError) -> ListenError:
    where = f"{host} port {port}"
    if error.errno == errno.EADDRINUSE:
        return ListenError(f"{where} is in use; is penstock running already? Choose another with --port")
    if error.errno == errno.EACCES:
        return ListenError(f"this user may not listen on {where}; choose a port above 1023 with --port")
    if error.errno == errno.EAFNOSUPPORT:
        return ListenError(f"cannot listen on {where}: this machine has no IPv6; choose another with --host")
    return ListenError(f"cannot listen on {where}: {error.strerror}")


def _url(bound: socket.socket, scheme: str) -> str:
    host, port = bound.getsockname()[:2]
    if bound.family != socket.AF_INET6:
        return f"{scheme}://{host}:{port}/"
    both = not bound.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) and ipaddress.ip_address(host).is_unspecified
    return f"{scheme}://[{host}]:{port}/" + (" for IPv6 and IPv4" if both else "")
