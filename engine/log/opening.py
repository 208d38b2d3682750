"""Which log it is that is named: a file, memory, or a store of others by its URL."""

from __future__ import annotations

import os
import re
from typing import Final

from ..errors import UnwritableDatabase
from .memory import MemoryLog
from .port import EventLog
from .sqlite.log import open_sqlite

__all__ = ["open_log"]

_URL: Final = re.compile(r"([a-z][a-z0-9+.-]*)://")


async def open_log(
    place: str | os.PathLike[str], *, patience: float = 10.0, allow_weak_store: bool = False, replicas: int = 0
) -> EventLog:
    """Open what `open_engine` was told to; the options are for a store of others.

    Raises `DatabaseError`, and says no password.
    """
    path = os.fspath(place)
    url = _URL.match(path)
    if replicas and url is None:
        raise UnwritableDatabase("a file has no replicas: leave out --replicas, or name a Redis or a Postgres")
    if path == ":memory:":
        return MemoryLog()
    if url is None:
        return await open_sqlite(path)
    if url[1] in ("postgres", "postgresql"):
        try:
            from .postgres.log import open_postgres  # noqa: PLC0415  an extra, and slow to import
        except ImportError as error:
            raise UnwritableDatabase("a log in a Postgres takes an extra: pip install 'penstock[postgres]'") from error
        return await open_postgres(path, patience=patience, allow_weak_store=allow_weak_store, replicas=replicas)
    if url[1].removesuffix("+cluster").removesuffix("+sentinel") not in ("redis", "rediss"):
        raise UnwritableDatabase(
            f"there is no log for {url[1]}://: name a file, a Redis (redis://) or a Postgres (postgres://)"
        )
    try:
        from .redis.log import open_redis  # noqa: PLC0415  an extra, and slow to import
    except ImportError as error:
        raise UnwritableDatabase("a log in a Redis takes an extra: pip install 'penstock[redis]'") from error
    return await open_redis(path, patience=patience, allow_weak_store=allow_weak_store, replicas=replicas)
