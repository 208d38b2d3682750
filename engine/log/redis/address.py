"""Where a Redis is, as its URL says."""

from __future__ import annotations

import re
from typing import Final, final
from urllib.parse import parse_qs, unquote, urlsplit

from attrs import field, frozen

from ...errors import UnwritableDatabase

__all__ = ["SCHEMES", "Address"]

SCHEMES: Final = ("redis", "rediss", "redis+cluster", "rediss+cluster", "redis+sentinel", "rediss+sentinel")

_SERVICE: Final = re.compile(r"[A-Za-z0-9._-]{1,128}")
_SENTINEL: Final = 26379

# In braces it is a hash tag of Redis Cluster, so it has none.
_PREFIX: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")


@final
@frozen(kw_only=True)
class Address:
    """``redis://[user:password@]host[:port][/db][?prefix=…&shards=…&replicas=…]``.

    ``rediss`` is the same over TLS, ``redis+cluster`` and ``rediss+cluster`` a Redis Cluster that the host is a node
    of. ``redis+sentinel://[user:password@]host[:port][,host[:port]…]/service[/db]`` is the primary that Sentinels there
    know under this name, whichever it is now; user and password are its own.

    All keys begin with the prefix. ``shards`` counts only when nothing is stored under that prefix yet. ``replicas`` is
    on how many of them what is acknowledged must be on disk, besides the primary's.
    """

    host: str
    port: int = 6379
    database: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: bool = False
    cluster: bool = False
    service: str = ""  # what the Sentinels know it as,
    sentinels: tuple[tuple[str, int], ...] = ()  # and where these are
    prefix: str = "penstock"
    shards: int = 64
    replicas: int = 0

    @classmethod
    def parse(cls, url: str) -> Address:
        """Raises `UnwritableDatabase`, which says what is wrong and nothing of a password."""
        scheme, _, rest = url.partition("://")
        if scheme not in SCHEMES:
            raise _wrong(f"it begins with {', '.join(f'{each}://' for each in SCHEMES)}")
        sentinels: tuple[tuple[str, int], ...] = ()
        service = ""
        try:
            if scheme.endswith("+sentinel"):
                rest, service, sentinels = _sentinels(rest)
            parts = urlsplit("//" + rest)
            port = parts.port
            asked = parse_qs(parts.query, strict_parsing=bool(parts.query))
        except ValueError:
            raise _wrong("its port or what stands behind the ? cannot be read") from None
        if not parts.hostname:
            raise _wrong("it names no host")
        if unknown := asked.keys() - {"prefix", "shards", "replicas"}:
            raise _wrong(f"it may say prefix, shards and replicas, not {', '.join(sorted(unknown))}")
        database = parts.path.strip("/") or "0"
        prefix = asked.get("prefix", ["penstock"])[-1]
        shards = asked.get("shards", ["64"])[-1]
        replicas = asked.get("replicas", ["0"])[-1]
        if not database.isdecimal() or (database != "0" and scheme.endswith("+cluster")):
            raise _wrong("behind the host comes the number of a database, and in a cluster 0")
        if not _PREFIX.fullmatch(prefix):
            raise _wrong("the prefix is 1 to 64 of A-Z a-z 0-9 . _ -")
        if not (shards.isdecimal() and 1 <= int(shards) <= 1024):
            raise _wrong("shards is a number from 1 to 1024")
        if not (replicas.isdecimal() and int(replicas) <= 64):
            raise _wrong("replicas is a number from 0 to 64")
        return cls(
            host=parts.hostname,
            port=6379 if port is None else port,
            database=int(database),
            username=None if parts.username is None else unquote(parts.username) or None,
            password=None if parts.password is None else unquote(parts.password),
            tls=scheme.startswith("rediss"),
            cluster=scheme.endswith("+cluster"),
            service=service,
            sentinels=sentinels,
            prefix=prefix,
            shards=int(shards),
            replicas=int(replicas),
        )

    def __str__(self) -> str:
        """For people and logs: without user and password."""
        kind = "+cluster" if self.cluster else "+sentinel" if self.service else ""
        scheme = ("rediss" if self.tls else "redis") + kind
        places = ",".join(_place(*each) for each in self.sentinels or ((self.host, self.port),))
        service = f"{self.service}/" if self.service else ""
        return f"{scheme}://{places}/{service}{self.database}?prefix={self.prefix}"


def _place(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _sentinels(rest: str) -> tuple[str, str, tuple[tuple[str, int], ...]]:
    """What is left of the URL of one of them without the service's name, that name, and where all of them are."""
    place, slash, path = rest.partition("/")
    login, at, hosts = place.rpartition("@")
    path, mark, query = path.partition("?")
    service, _, database = path.partition("/")
    if not (slash and _SERVICE.fullmatch(service)):
        raise _wrong("behind the Sentinels comes the name under which they know the primary")
    found = [urlsplit("//" + each) for each in hosts.split(",")]
    places = tuple((each.hostname or "", each.port or _SENTINEL) for each in found)
    return f"{login}{at}{hosts.split(',')[0]}/{database}{mark}{query}", service, places


def _wrong(why: str) -> UnwritableDatabase:
    return UnwritableDatabase(f"the URL of the Redis is none: {why}")
