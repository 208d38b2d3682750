"""Where a Redis is, as its URL says."""

from __future__ import annotations

import re
from typing import Final, final
from urllib.parse import parse_qs, unquote, urlsplit

from attrs import field, frozen

from ...errors import UnwritableDatabase

__all__ = ["SCHEMES", "Address"]

SCHEMES: Final = ("redis", "rediss", "redis+cluster", "rediss+cluster")

# In braces it is a hash tag of Redis Cluster, so it has none.
_PREFIX: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")


@final
@frozen(kw_only=True)
class Address:
    """``redis://[user:password@]host[:port][/db][?prefix=…&shards=…]``.

    ``rediss`` is the same over TLS, ``redis+cluster`` and ``rediss+cluster`` a Redis Cluster that the host is a node
    of. All keys begin with the prefix. ``shards`` counts only when nothing is stored under that prefix yet.
    """

    host: str
    port: int = 6379
    database: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: bool = False
    cluster: bool = False
    prefix: str = "penstock"
    shards: int = 64

    @classmethod
    def parse(cls, url: str) -> Address:
        """Raises `UnwritableDatabase`, which says what is wrong and nothing of a password."""
        scheme, _, rest = url.partition("://")
        if scheme not in SCHEMES:
            raise _wrong(f"it begins with {', '.join(f'{each}://' for each in SCHEMES)}")
        try:
            parts = urlsplit("//" + rest)
            port = parts.port
            asked = parse_qs(parts.query, strict_parsing=bool(parts.query))
        except ValueError:
            raise _wrong("its port or what stands behind the ? cannot be read") from None
        if not parts.hostname:
            raise _wrong("it names no host")
        if unknown := asked.keys() - {"prefix", "shards"}:
            raise _wrong(f"it may say prefix and shards, not {', '.join(sorted(unknown))}")
        database = parts.path.strip("/") or "0"
        prefix = asked.get("prefix", ["penstock"])[-1]
        shards = asked.get("shards", ["64"])[-1]
        if not database.isdecimal() or (database != "0" and scheme.endswith("+cluster")):
            raise _wrong("behind the host comes the number of a database, and in a cluster 0")
        if not _PREFIX.fullmatch(prefix):
            raise _wrong("the prefix is 1 to 64 of A-Z a-z 0-9 . _ -")
        if not (shards.isdecimal() and 1 <= int(shards) <= 1024):
            raise _wrong("shards is a number from 1 to 1024")
        return cls(
            host=parts.hostname,
            port=6379 if port is None else port,
            database=int(database),
            username=None if parts.username is None else unquote(parts.username) or None,
            password=None if parts.password is None else unquote(parts.password),
            tls=scheme.startswith("rediss"),
            cluster=scheme.endswith("+cluster"),
            prefix=prefix,
            shards=int(shards),
        )

    def __str__(self) -> str:
        """For people and logs: without user and password."""
        scheme = ("rediss" if self.tls else "redis") + ("+cluster" if self.cluster else "")
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{scheme}://{host}:{self.port}/{self.database}?prefix={self.prefix}"


def _wrong(why: str) -> UnwritableDatabase:
    return UnwritableDatabase(f"the URL of the Redis is none: {why}")
