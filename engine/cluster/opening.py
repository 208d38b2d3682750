"""Which bus it is over which engines that share a log hear of each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from uuid import uuid4

from ..errors import UnwritableDatabase
from ..events import now
from ..log.port import EventLog
from ..stream.bus import Bus, Node

__all__ = ["list_nodes", "open_bus", "this_node"]


async def open_bus(bus: str | Bus | None, log: EventLog, *, patience: float) -> Bus | None:
    """What `open_engine` was told to, by the URL of a Redis or as it is; else the log's own, or None where it has none.

    Raises `DatabaseError`, and says no password.
    """
    if isinstance(bus, Bus):
        return bus
    try:
        from ..log.redis.address import SCHEMES, Address  # noqa: PLC0415  an extra, and slow to import
        from ..log.redis.log import RedisLog  # noqa: PLC0415
        from .redis.bus import open_redis_bus  # noqa: PLC0415
    except ImportError as error:
        if bus is None:
            return None
        raise UnwritableDatabase("a bus in a Redis takes an extra: pip install 'penstock[redis]'") from error
    own = log if isinstance(log, RedisLog) else None
    if bus is None and own is None:
        return None
    if bus is not None and bus.partition("://")[0] not in SCHEMES:
        raise UnwritableDatabase("a bus is the URL of a Redis, such as redis://127.0.0.1:6379/0")
    address = own.address if bus is None and own is not None else Address.parse(bus or "")
    told_by_log = own is not None and own.address == address
    if own is not None and told_by_log:
        own.tell_followers()
    return await open_redis_bus(address, patience=patience, told_by_log=told_by_log)


async def list_nodes(url: str, *, patience: float) -> Mapping[str, Node | None]:
    """The engines that have been there, by name, as a Redis knows them; None: its lease is over, and nobody has seen to
    what it left.

    Raises `DatabaseError`, and `StorageError` where the store does not answer.
    """
    try:
        from ..log.redis.address import Address  # noqa: PLC0415  an extra, and slow to import
        from .redis.bus import open_redis_bus  # noqa: PLC0415
    except ImportError as error:
        raise UnwritableDatabase("nodes in a Redis take an extra: pip install 'penstock[redis]'") from error
    bus = await open_redis_bus(Address.parse(url), patience=patience, told_by_log=True)
    try:
        return await bus.nodes()
    finally:
        await bus.aclose()


def this_node(name: str, url: str, ttl: float, producers: Sequence[str]) -> Node:
    """What an engine says of itself to the others."""
    return Node(
        name=name,
        incarnation=uuid4().hex,
        url=url,
        version=_version(),
        since=now(),
        ttl=ttl,
        producers=tuple(producers),
    )


def _version() -> str:
    with suppress(PackageNotFoundError):  # an application may have copied the engine
        return version("penstock")
    return ""
