"""An answer's body past the framework: decided in the request's task, written by the connection itself.

A long stream needs nothing of what has decided about it. An application that is offered a handover (in its ASGI scope,
for HTTP/1.1) may send the head of its answer as ever and leave the body to a function that gets the connection's
`Outlet`. The framework's own tasks end there, and with them goes what they hold; the body is written as it is, without
an event for each piece on its way through the framework and the protocol. Under a server that offers none, the body
goes the ordinary way.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, Protocol, TypeAlias, cast, final

from hypercorn.typing import ASGISendCallable, ASGISendEvent, Scope

__all__ = ["Body", "Handover", "Outlet", "chunk"]

_EXTENSION: Final = "penstock.handover"


class Outlet(Protocol):
    """Where a body is written to: in chunks, see `chunk`."""

    def send_now(self, data: bytes) -> bytes:
        """Send what goes out without waiting, and return the rest, which is to be sent before anything else."""

    async def send_all(self, data: bytes) -> None:
        """Send all of it. When the peer is gone, whoever sends is cancelled."""


# Writes a body, all but its end.
Body: TypeAlias = Callable[[Outlet], Awaitable[None]]


def chunk(data: bytes) -> bytes:
    """``data``, which must not be empty, as a chunk of HTTP/1.1's chunked coding (RFC 9112, section 7.1)."""
    return b"%x\r\n%b\r\n" % (len(data), data)


@final
class Handover:
    """The offer, for one request."""

    def __init__(self) -> None:
        self._body: Body | None = None
        self._begun = False  # the head is out
        self._send: ASGISendCallable | None = None

    @classmethod
    def offer(cls, scope: Scope) -> Handover:
        """Make it in ``scope``, if the answer's body will be sent in chunks."""
        made = cls()
        if scope["type"] == "http" and scope["http_version"] == "1.1" and scope["method"] == "GET":
            cast(dict[str, object], scope["extensions"])[_EXTENSION] = made
        return made

    @classmethod
    def offered(cls, scope: Scope) -> Handover | None:
        found = cast(dict[str, object], scope.get("extensions") or {}).get(_EXTENSION)
        return found if isinstance(found, Handover) else None

    def reaches(self, send: ASGISendCallable) -> bool:
        """Whether nothing stands between the server and who has this ``send``: what does may want to see the body."""
        return send is self._send

    @property
    def begun(self) -> bool:
        """Whether the head of the answer is out."""
        return self._begun

    def take(self, body: Body) -> bool:
        """Leave the body to this function, unless the head is not out yet; what is sent from here on is dropped."""
        if self._begun:
            self._body = body
        return self._begun

    @staticmethod
    def declined(scope: Scope) -> Scope:
        """The scope without the offer."""
        offered = cast(dict[str, object], scope.get("extensions") or {})
        extensions = {name: value for name, value in offered.items() if name != _EXTENSION}
        return cast(Scope, {**scope, "extensions": extensions})

    def sending(self, send: ASGISendCallable) -> ASGISendCallable:
        """What the application sends with."""

        async def send_or_drop(message: ASGISendEvent) -> None:
            if self._body is None:
                await send(message)
                self._begun |= message["type"] == "http.response.start"

        self._send = send_or_drop
        return send_or_drop

    async def carry_out(self, outlet: Outlet, send: ASGISendCallable) -> None:
        """Write the body that was handed over, if one was, and its end."""
        if self._body is not None:
            await self._body(outlet)
            await send({"type": "http.response.body", "body": b"", "more_body": False})
