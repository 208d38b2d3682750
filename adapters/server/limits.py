"""How much one client may take: requests a second, connections at work, subscriptions.

Owns the counting. Who the client is, the caller says: the principal where there is one, else nobody, and then it
is the address that the request came from. The server tells about each connection through `CONNECTION`, so that
whoever learns the principal need not know the server; without it (under another server) connections are not
counted.
"""

from __future__ import annotations

import ipaddress
import math
import time
from collections.abc import Callable
from contextvars import ContextVar
from functools import lru_cache
from typing import Final, final

from attrs import field, frozen, validators

from ..problems import RateLimited
from .handover import Outlet

__all__ = [
    "CONNECTION",
    "UNLIMITED",
    "Connection",
    "Limits",
    "LimitsConfig",
    "Place",
    "RateLimiter",
    "Shares",
    "address_key",
]

# Buckets that are not full. Each is some 200 bytes, and only who has a token, or an address, makes one.
_BUCKETS: Final = 100_000

# Of which it is known what they are counted under: as many as may be connected, and it is asked with every request.
_ADDRESSES: Final = 10_000

# A float's own error over days of a monotonic clock.
_SLACK: Final = 1e-6

_above_0 = validators.gt(0.0)
_at_least_1 = validators.ge(1.0)


@final
@frozen(kw_only=True)
class LimitsConfig:
    """What one client may take, each with its reason. `math.inf` is no limit."""

    # Requests, and WebSocket commands, a second: about what one process answers in all, so that nobody who works is
    # held up (a remote producer sends 200 a second at most for each answer), and a loop gone wild is.
    rate: float = field(default=1000.0, validator=_above_0)

    # How many of them may come at once: a reconnect with all its sessions.
    burst: float = field(default=2000.0, validator=_at_least_1)

    # Authentications of one address that fail, a second, and at once: a page full of tabs whose tokens have all ended
    # fits, and to try many tokens takes long. Who has a good one is never refused for those who have not.
    failures: float = field(default=10.0, validator=_above_0)
    failures_at_once: float = field(default=100.0, validator=_at_least_1)

    # A tenth of the server's own, so that it takes ten to fill it.
    connections: float = field(default=1000.0, validator=_at_least_1)

    # Each may hold up to 1024 events in memory. Eight WebSockets' worth.
    subscriptions: float = field(default=2048.0, validator=_at_least_1)


UNLIMITED: Final = LimitsConfig(
    rate=math.inf,
    burst=math.inf,
    failures=math.inf,
    failures_at_once=math.inf,
    connections=math.inf,
    subscriptions=math.inf,
)


@lru_cache(maxsize=_ADDRESSES)
def address_key(address: str) -> str:
    """What one address's takings are counted under: of IPv6 the /64, which is what one customer gets."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return address
    if ip.version == 4:
        return str(ip)
    return str(ip.ipv4_mapped or ipaddress.ip_network((int(ip) >> 64 << 64, 64)))


@final
class RateLimiter:
    """A token bucket for each key: ``burst`` tokens, refilled with ``rate`` a second.

    At most ``buckets`` are kept; past that the one unused for longest starts anew. ``clock`` is in seconds.
    """

    def __init__(
        self, rate: float, burst: float, *, clock: Callable[[], float] = time.monotonic, buckets: int = _BUCKETS
    ) -> None:
        self._rate = rate
        self._burst = burst
        self._clock = clock
        self._bound = buckets
        # When each bucket will be full again (the generic cell rate algorithm), least recently used first.
        self._full_at: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self._full_at)

    def take(self, key: str, cost: float = 1.0) -> None:
        """Take ``cost`` tokens of ``key``, all of a full bucket at most. Raises `RateLimited`, and takes none."""
        if self._rate == math.inf:
            return
        now = self._clock()
        self._forget(now)
        full_at = max(self._full_at.pop(key, now), now)
        then = full_at + min(cost, self._burst) / self._rate
        wait = then - now - self._burst / self._rate
        if wait > _SLACK:
            self._full_at[key] = full_at
            raise RateLimited("too many requests; slow down", retry_after=wait)
        self._full_at[key] = then

    def _forget(self, now: float) -> None:
        """Drop what is full, a little at each call, and what is too many."""
        for _ in range(2):
            oldest = next(iter(self._full_at), None)
            if oldest is None or (self._full_at[oldest] > now and len(self._full_at) < self._bound):
                return
            del self._full_at[oldest]


@final
class Shares:
    """At most ``bound`` of something for each key at the same time; ``what`` names it in the refusal."""

    def __init__(self, bound: float, what: str) -> None:
        self._bound = bound
        self._what = what
        self._held: dict[str, int] = {}

    def held(self, key: str) -> int:
        return self._held.get(key, 0)

    def check(self, key: str) -> None:
        """Raises `RateLimited` if ``key`` has all that it may."""
        if self.held(key) >= self._bound:
            raise RateLimited(f"you have {self._what} as many as you may; close one first")

    def take(self, key: str) -> None:
        """Raises `RateLimited`. To be given back with `leave`."""
        self.check(key)
        self._held[key] = self.held(key) + 1

    def leave(self, key: str) -> None:
        self._held[key] -= 1
        if not self._held[key]:
            del self._held[key]


@final
class Place:
    """One of somebody's `Shares`, taken, or nobody's. Given back by `leave`, or at the end of its block."""

    __slots__ = ("_key", "_shares")

    def __init__(self, shares: Shares, key: str | None) -> None:
        """Raises `RateLimited`."""
        self._shares = shares
        self._key = key
        if key is not None:
            shares.take(key)

    def leave(self) -> None:
        """Idempotent."""
        key, self._key = self._key, None
        if key is not None:
            self._shares.leave(key)

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        self.leave()


@final
class Connection:
    """One connection, as the server tells of it.

    ``client`` is the address that now asks on it; what is sent through ``outlet`` goes out as it is.
    """

    def __init__(self, client: str, outlet: Outlet) -> None:
        self.client = client
        self.outlet: Final = outlet
        self._place: tuple[Shares, str] | None = None
        self._kept: Place | None = None

    def work_for(self, shares: Shares, key: str) -> None:
        """Count as one of ``key``'s until `rest`. Raises `RateLimited`."""
        if self._place == (shares, key):
            return
        self.rest()
        shares.take(key)
        self._place = (shares, key)

    def keep(self, place: Place) -> None:
        """Give back what the answer holds that is being sent, if nobody has by then, when this connection rests."""
        self._give_back()
        self._kept = place

    def rest(self) -> None:
        """Count as nobody's. Idempotent."""
        self._give_back()
        if self._place is not None:
            (shares, key), self._place = self._place, None
            shares.leave(key)

    def _give_back(self) -> None:
        if self._kept is not None:
            self._kept.leave()
            self._kept = None


CONNECTION: Final[ContextVar[Connection | None]] = ContextVar("CONNECTION", default=None)


@final
class Limits:
    """The limits of one server, shared by its HTTP and its WebSocket face."""

    def __init__(self, config: LimitsConfig | None = None, *, clock: Callable[[], float] = time.monotonic) -> None:
        bounds = config or LimitsConfig()
        self._rate = RateLimiter(bounds.rate, bounds.burst, clock=clock)
        self._failures = RateLimiter(bounds.failures, bounds.failures_at_once, clock=clock)
        self._connections = Shares(bounds.connections, "connections open,")
        self._subscriptions = Shares(bounds.subscriptions, "subscriptions,")

    def admit(self, principal: str | None = None, cost: float = 1.0) -> None:
        """Count one request of ``principal``, or of the address, and the connection as its own while it works on it.

        To be called once for each request and each WebSocket command. Raises `RateLimited`.
        """
        key = _key(principal)
        if key is None:
            return
        self._rate.take(key, cost)
        connection = CONNECTION.get()
        if connection is not None:
            connection.work_for(self._connections, key)

    def admit_refused(self) -> None:
        """Count a request by nobody who is known, or whose token is not good: of the address. Raises `RateLimited`.

        To be called once it is refused, so that a good token has nothing to do with it.
        """
        self.admit()
        key = _key(None)
        if key is not None:
            self._failures.take(key)

    def subscription(self, principal: str | None = None) -> Place:
        """One more, until it is left. Raises `RateLimited`."""
        return Place(self._subscriptions, _key(principal))


def _key(principal: str | None) -> str | None:
    if principal is not None:
        return f"principal {principal}"
    connection = CONNECTION.get()
    return None if connection is None else f"address {address_key(connection.client)}"
