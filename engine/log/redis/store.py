"""The connection to a Redis: what its scripts answer, with patience through its restarts.

Owns when a call is made again, and when the store counts as away. A call may be carried out twice: reads do no harm,
and rounds have numbers (`lane`). The client is coredis, which makes no call again by itself here.
"""

from __future__ import annotations

import hashlib
import logging
import ssl
from collections.abc import Sequence
from importlib.resources import files
from typing import Final, TypeAlias, final

import coredis
import trio
from attrs import frozen
from coredis.exceptions import (
    AskError,
    ClusterDownError,
    ClusterError,
    ClusterRoutingError,
    NoScriptError,
    PersistenceError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)
from coredis.exceptions import ConnectionError as LostConnection
from coredis.retry import NoRetryPolicy

from ...errors import StorageError
from .address import Address

__all__ = ["Client", "Script", "Store", "client_of"]

logger = logging.getLogger("penstock.log")

Client: TypeAlias = coredis.Redis[bytes] | coredis.RedisCluster[bytes]
Argument: TypeAlias = bytes | str | int

# Between two attempts: seconds. A store that restarts takes some hundred milliseconds, or as long as it takes to load.
_PAUSE: Final = 0.1

# Whose connection cannot even be made within this is away: seconds.
_CONNECT: Final = 2.0

# While nobody asks the store anything, it is asked this often whether it is there: seconds. A connection of which only
# this end is left is found by it.
_PERIOD: Final = 2.0

# What passes by itself: the store is away, loads what it has stored, is full, cannot write to its disk, is held up by
# a script, or has become a replica.
_PASSING: Final = (
    LostConnection,
    OSError,  # the builtin TimeoutError is one
    AskError,
    ClusterDownError,
    ClusterError,
    ClusterRoutingError,
    PersistenceError,
    ReadOnlyError,
    TryAgainError,
)
_PASSING_CODES: Final = ("BUSY", "LOADING", "MASTERDOWN", "MISCONF", "NOREPLICAS", "OOM")


@final
@frozen
class Script:
    """A script by its text. Its digest is its version: two of them never meet under one name."""

    text: bytes
    digest: str

    @classmethod
    def load(cls, name: str) -> Script:
        """The file of that name beside this module, behind what all of them share."""
        folder = files(__package__)
        text = b"\n".join(folder.joinpath(f"{part}.lua").read_bytes() for part in ("common", name))
        return cls(text, hashlib.sha1(text, usedforsecurity=False).hexdigest())


def client_of(address: Address, within: float) -> Client:
    """A client that is not connected yet. An answer that takes longer than ``within`` seconds is given up."""
    context = ssl.create_default_context() if address.tls else None
    if address.cluster:
        return coredis.RedisCluster(
            address.host,
            address.port,
            username=address.username,
            password=address.password,
            ssl_context=context,
            stream_timeout=within,
            connect_timeout=_CONNECT,
            retry_policy=NoRetryPolicy(),
        )
    return coredis.Redis(
        address.host,
        address.port,
        address.database,
        username=address.username,
        password=address.password,
        ssl_context=context,
        stream_timeout=within,
        connect_timeout=_CONNECT,
        retry_policy=NoRetryPolicy(),
    )


@final
class Store:
    """Calls scripts. ``patience`` is how long the store may be away before a call fails: seconds."""

    def __init__(self, client: Client, patience: float) -> None:
        self._client = client
        self._patience = patience
        self._away_since: float | None = None
        self._heard = trio.current_time()

    @property
    def away(self) -> float:
        """How long the store has been away: seconds; 0 while it answers."""
        return 0.0 if self._away_since is None else trio.current_time() - self._away_since

    async def call(self, script: Script, key: str, *arguments: Argument) -> object:
        """What the script answers where ``key`` lies. Raises `StorageError`.

        Once the store has been away for longer than its patience, a call is tried once.
        """
        while True:
            asked = trio.current_time()
            try:
                try:
                    answer: object = await self._client.evalsha(script.digest, keys=[key], args=arguments)
                except NoScriptError:
                    answer = await self._client.eval(script.text, keys=[key], args=arguments)
            except (RedisError, OSError) as error:
                if not _passes(error):
                    raise StorageError(f"the store refused a call: {error}") from error
                await self._failed(asked, error)
            else:
                self._answered()
                return answer

    async def watch(self) -> None:
        """Ask the store whether it is there while nobody else asks it anything, for as long as it is open."""
        while True:
            await trio.sleep(_PERIOD if self._away_since is None else _PAUSE)
            if self._away_since is None and trio.current_time() - self._heard < _PERIOD:
                continue
            try:
                await self._client.ping()
            except (RedisError, OSError) as error:
                self._gone(trio.current_time(), error)
            else:
                self._answered()

    async def _failed(self, asked: float, error: Exception) -> None:
        self._gone(asked, error)
        if self.away >= self._patience:
            raise StorageError(f"the store has been away for {self.away:.0f} s: {_named(error)}") from error
        await trio.sleep(_PAUSE)

    def _gone(self, asked: float, error: Exception) -> None:
        if self._away_since is None:
            self._away_since = asked
            logger.warning("the store is away: %s", _named(error))
        # coredis keeps a connection whose answer has not come, and would put the next call behind it.
        self._client.connection_pool.disconnect()

    def _answered(self) -> None:
        self._heard = trio.current_time()
        if self._away_since is not None:
            logger.warning("the store is back after %.1f s", self.away)
            self._away_since = None


def _passes(error: Exception) -> bool:
    if isinstance(error, _PASSING):
        return True
    return isinstance(error, ResponseError) and str(error).startswith(_PASSING_CODES)


def _named(error: Exception) -> str:
    return str(error) or type(error).__name__


def of_answers(answer: object, count: int) -> Sequence[object]:
    """The answer of a script that answers for each of so many. Raises `StorageError`."""
    if not isinstance(answer, list) or len(answer) != count:
        raise StorageError("the store's answer cannot be read")
    return answer
