"""The connection to a Redis: what its scripts answer, with patience through its restarts.

Owns when a call is made again, and when the store counts as away. A call may be carried out twice: reads do no harm,
and rounds have numbers (`writing`). The client is coredis, which makes no call again by itself here.
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
from coredis._utils import hash_slot
from coredis.exceptions import (
    AskError,
    ClusterDownError,
    ClusterError,
    ClusterRoutingError,
    NoScriptError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)
from coredis.exceptions import ConnectionError as LostConnection
from coredis.retry import NoRetryPolicy

from ...errors import StorageError
from .address import Address

__all__ = ["Client", "Script", "Store", "client_of", "of_answers", "primary_of"]

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

# What passes by itself, though the store answers or another does: it restarts, or another becomes the primary.
_PASSING: Final = (
    LostConnection,
    AskError,
    ClusterDownError,
    ClusterError,
    ClusterRoutingError,
    ReadOnlyError,
    TryAgainError,
)

# And what it says itself, by the code that the answer begins with.
_REFUSALS: Final = {
    "BUSY": "it is busy with a script",
    "MASTERDOWN": "it has no primary",
    "MISCONF": "it cannot write to its disk",
    "NOREPLICAS": "it has too few replicas",
    "OOM": "its memory is full",
}


@final
@frozen
class Script:
    """A script by its text. Its digest is its version: two of them never meet under one name."""

    text: bytes
    digest: str

    @classmethod
    def load(cls, name: str) -> Script:
        """The file of that name beside this module, behind what all of the log's share."""
        return cls.of(__package__, "common", name)

    @classmethod
    def of(cls, package: str, *names: str) -> Script:
        """The files of these names in a package, one behind the other."""
        folder = files(package)
        text = b"\n".join(folder.joinpath(f"{name}.lua").read_bytes() for name in names)
        return cls(text, hashlib.sha1(text, usedforsecurity=False).hexdigest())


def client_of(address: Address, within: float) -> Client:
    """A client that is not connected yet. An answer that takes longer than ``within`` seconds is given up."""
    _quiet()
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


def primary_of(client: Client, address: Address, key: str) -> tuple[str, int]:
    """Host and port of the server that has this key, as far as the client knows. Raises `OSError` where it does not."""
    if not isinstance(client, coredis.RedisCluster):
        return address.host, address.port
    try:
        node = client.connection_pool.cluster_layout.node_for_slot(hash_slot(key.encode()))
    except (RedisError, LookupError) as error:
        raise OSError("no server has this part of the cluster") from error
    return node.host, node.port


def _quiet() -> None:
    """Each attempt to connect to a store that is away would be an error with a traceback; `Store` says it once."""
    theirs = logging.getLogger("coredis")
    if theirs.level == logging.NOTSET:
        theirs.setLevel(logging.CRITICAL)


@final
class Store:
    """Calls scripts. ``patience`` is how long the store may be away, or refuse a call, before that fails: seconds."""

    def __init__(self, client: Client, patience: float) -> None:
        self._client = client
        self._patience = patience
        self._away_since: float | None = None
        self._heard = trio.current_time()
        self._refused: dict[str, str] = {}  # why, by the script's digest

    @property
    def trouble(self) -> str | None:
        """Why calls wait or fail at present, fit for anyone's eyes."""
        if self._away_since is not None:
            return f"the store has been away for {trio.current_time() - self._away_since:.0f} s"
        for reason in self._refused.values():
            return f"the store refuses what it is asked: {reason}"
        return None

    async def call(self, script: Script, key: str, *arguments: Argument) -> object:
        """What the script answers where ``key`` lies. Raises `StorageError`.

        Once the store has been away for longer than its patience, a call is tried once.
        """
        begun = trio.current_time()
        while True:
            try:
                try:
                    answer: object = await self._client.evalsha(script.digest, keys=[key], args=arguments)
                except NoScriptError:
                    answer = await self._client.eval(script.text, keys=[key], args=arguments)
            except Exception as error:
                self._failed(script, error)
                since = begun if self._away_since is None else min(begun, self._away_since)
                if trio.current_time() - since >= self._patience:
                    raise StorageError(self.trouble or f"the store failed: {_named(error)}") from error
                await trio.sleep(_PAUSE)
            else:
                self._answered()
                self._refused.pop(script.digest, None)
                return answer

    async def watch(self) -> None:
        """Ask the store whether it is there while nobody else asks it anything, for as long as it is open."""
        while True:
            await trio.sleep(_PERIOD if self._away_since is None else _PAUSE)
            if self._away_since is None and trio.current_time() - self._heard < _PERIOD:
                continue
            try:
                await self._client.ping()
            except Exception as error:  # noqa: BLE001  as above
                self._gone(error)
            else:
                self._answered()

    def _failed(self, script: Script, error: Exception) -> None:
        """Raises `StorageError` for what does not pass by itself."""
        if isinstance(error, _PASSING) or not isinstance(error, RedisError):  # such as TimeoutError
            self._gone(error)
            return
        code = str(error).split(" ", 1)[0]
        if not isinstance(error, ResponseError) or code not in _REFUSALS:
            raise StorageError(f"the store refused a call: {error}") from error
        if script.digest not in self._refused:
            logger.warning("the store refuses what it is asked: %s", error)
        self._refused[script.digest] = _REFUSALS[code]

    def _gone(self, error: Exception) -> None:
        if self._away_since is None:
            self._away_since = trio.current_time()
            logger.warning("the store is away: %s", _named(error))
        # coredis keeps a connection whose answer has not come, and would put the next call behind it.
        self._client.connection_pool.disconnect()

    def _answered(self) -> None:
        self._heard = trio.current_time()
        if self._away_since is not None:
            logger.warning("the store is back after %.1f s", self._heard - self._away_since)
            self._away_since = None


def _named(error: Exception) -> str:
    return str(error) or type(error).__name__


def of_answers(answer: object, count: int) -> Sequence[object]:
    """The answer of a script that answers for each of so many. Raises `StorageError`."""
    if not isinstance(answer, list) or len(answer) != count:
        raise StorageError("the store's answer cannot be read")
    return answer
