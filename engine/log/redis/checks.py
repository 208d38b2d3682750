"""What a Redis must be, so that nothing is lost that it acknowledged."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final

import coredis
from coredis.exceptions import AuthorizationError, UnknownCommandError

from ...errors import NewerSchema, UnwritableDatabase
from .address import Address
from .store import Client

__all__ = ["check_store", "take_layout"]

logger = logging.getLogger("penstock.log")

# What this version writes; a store of a higher one is left alone.
_FORMAT: Final = 1

# Before it, what was acknowledged could still be on its way to the disk (redis/redis#9678).
_VERSION: Final = (7, 0)

# What has WAITAOF.
_WAITAOF: Final = (7, 2)

_SETTINGS: Final = ("appendfsync", "no-appendfsync-on-rewrite")


async def check_store(client: Client, address: Address, *, allow_weak: bool) -> None:
    """Raises `UnwritableDatabase` when the store takes no writes, or, unless ``allow_weak``, may lose some."""
    weak: list[str] = []
    if isinstance(client, coredis.RedisCluster):
        for node in client.primaries:
            async with node:
                weak += await _weaknesses(node, address)
    else:
        weak = await _weaknesses(client, address)
    if not weak:
        return
    text = "; ".join(dict.fromkeys(weak))
    if not allow_weak:
        raise UnwritableDatabase(
            f"{address} may lose what it acknowledged: {text}. Change it (CONFIG SET, and redis.conf), or allow a weak "
            "store (--allow-weak-store)"
        )
    logger.warning("%s may lose what it acknowledged: %s", address, text)


async def _weaknesses(node: coredis.Redis[bytes], address: Address) -> list[str]:
    told: Mapping[str, object] = await node.info()
    if told.get("role") != "master":
        raise UnwritableDatabase(f"{address} is a replica: name the primary, or let it become one")
    settings = await _settings(node, address)
    found: list[str] = []
    version = str(told.get("redis_version", "0"))
    number = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if address.replicas and (number < _WAITAOF or str(told.get("aof_enabled")) != "1"):
        raise UnwritableDatabase(
            f"{address} cannot say when replicas have something on their disks: its version is {version}, and it takes "
            f"{'.'.join(map(str, _WAITAOF))}, and appendonly yes, here and there. Leave out --replicas, or replace it"
        )
    if address.replicas > int(str(told.get("connected_slaves", 0))):
        logger.warning("%s has fewer than %d replicas now: nothing can be stored", address, address.replicas)
    if number < _VERSION:
        found.append(f"its version is {version}, and before {'.'.join(map(str, _VERSION))} it may answer too early")
    if str(told.get("aof_enabled")) != "1":
        found.append("appendonly is no, so that all since its last snapshot is lost when it ends")
    if settings.get("appendfsync", "always") != "always":
        found.append(f"appendfsync is {settings['appendfsync']}, so that a second or more is lost with its machine")
    if settings.get("no-appendfsync-on-rewrite", "no") != "no":
        found.append("no-appendfsync-on-rewrite is yes, so that half a minute may be lost with its machine")
    policy = str(told.get("maxmemory_policy"))
    if policy != "noeviction":
        found.append(f"maxmemory-policy is {policy}, so that it throws sessions away when its memory is full")
    return found


async def _settings(node: coredis.Redis[bytes], address: Address) -> dict[str, str]:
    try:
        found = await node.config_get(list(_SETTINGS))
    except (AuthorizationError, UnknownCommandError):
        logger.warning("%s does not tell its settings: see to it that appendfsync is always", address)
        return {}
    return {_told(name): _told(value) for name, value in found.items()}


def _told(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


async def take_layout(client: Client, address: Address) -> int:
    """How many shards there are under the prefix: fixed here, if nothing is stored yet. Raises `NewerSchema`."""
    key = f"{address.prefix}:meta"
    await client.hsetnx(key, "shards", str(address.shards))
    await client.hsetnx(key, "format", str(_FORMAT))
    stored = {_told(name): _told(value) for name, value in (await client.hgetall(key)).items()}
    if int(stored["format"]) > _FORMAT:
        raise NewerSchema(f"{address} was written by a newer penstock: use that one, or another prefix")
    return int(stored["shards"])
