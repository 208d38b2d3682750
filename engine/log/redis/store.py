"""The connection to a Redis: what its scripts answer, with patience through its restarts.

Owns when a call is made again, and when the store counts as away. A call may be carried out twice: reads do no harm,
and rounds have numbers (`writing`). The client is coredis, which makes no call again by itself here.
"""

from __future__ import annotations

import hashlib
import logging
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from importlib.resources import files
from typing import Any, Final, TypeAlias, final

import coredis
import trio
from attrs import frozen
from coredis._utils import hash_slot
from coredis.connection import TCPLocation
from coredis.exceptions import (
    AskError,
    ClusterDownError,
    ClusterError,
    ClusterRoutingError,
    NoScriptError,
    PersistenceError,
    ReadOnlyError,
    RedisError,
    ReplicationError,
    ResponseError,
    SentinelError,
    TryAgainError,
)
from coredis.exceptions import ConnectionError as LostConnection
from coredis.retry import NoRetryPolicy

from ...errors import StorageError
from ..absence import Absence
from .address import Address

__all__ = ["Client", "Script", "Store", "connected", "of_answers", "primary_of", "to_bytes"]

logger = logging.getLogger("penstock.log")

Client: TypeAlias = coredis.Redis[bytes] | coredis.RedisCluster[bytes]
Argument: TypeAlias = bytes | str | int

# Whose connection cannot even be made within this is away: seconds.
_CONNECT: Final = 2.0

# Replicas are waited for so long before the call is made again: milliseconds, far below what an answer may take.
_COPIED: Final = 1000

# What passes by itself, though the store answers or another does: it restarts, or another becomes the primary.
_PASSING: Final = (
    LostConnection,
    ClusterDownError,
    ClusterError,
    ClusterRoutingError,
    ReadOnlyError,
    SentinelError,
)

# And what it says itself, by the code that the answer begins with.
_REFUSALS: Final = {
    "BUSY": "it is busy with a script",
    "MASTERDOWN": "it has no primary",
    "MISCONF": "it cannot write to its disk",
    "NOREPLICAS": "it has too few replicas",
    "OOM": "its memory is full",
    "TRYAGAIN": "a part of it is on its way to another node",
}

# The same, where coredis has a class for it.
_KINDS: Final[Mapping[type[Exception], str]] = {
    AskError: "TRYAGAIN",
    PersistenceError: "NOREPLICAS",
    ReplicationError: "NOREPLICAS",
    TryAgainError: "TRYAGAIN",
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


@asynccontextmanager
async def connected(address: Address, within: float) -> AsyncIterator[Client]:
    """A client that may be used in here; Sentinels are asked anew for each connection.

    Raises `RedisError`, `OSError`.
    """
    if not address.service:
        async with client_of(address, within) as client:
            yield client
        return
    _quiet()
    context = ssl.create_default_context() if address.tls else None
    settings: dict[str, Any] = {"stream_timeout": within, "connect_timeout": _CONNECT, "ssl_context": context}
    login: dict[str, Any] = {"username": address.username, "password": address.password, "db": address.database}
    found: coredis.Sentinel[bytes] = coredis.Sentinel(
        [TCPLocation(host, port) for host, port in address.sentinels],
        sentinel_kwargs=dict(settings),
        decode_responses=False,
        retry_policy=NoRetryPolicy(),
        **settings,
        **login,
    )
    async with AsyncExitStack() as stack:
        there: list[coredis.Redis[Any]] = []
        for sentinel in found.sentinels:
            with suppress(RedisError, OSError):
                there.append(await stack.enter_async_context(sentinel))
        if not there:
            raise LostConnection("none of its Sentinels answers")
        found.sentinels = there
        yield await stack.enter_async_context(found.primary_for(address.service))


def primary_of(client: Client, address: Address, key: str) -> tuple[str, int]:
    """Host and port of the server that has this key, as far as the client knows. Raises `OSError` where it does not."""
    if isinstance(client, coredis.RedisCluster):
        try:
            node = client.connection_pool.cluster_layout.node_for_slot(hash_slot(key.encode()))
        except (RedisError, LookupError) as error:
            raise OSError("no server has this part of the cluster") from error
        return node.host, node.port
    if not address.service:
        return address.host, address.port
    location = client.connection_pool.location
    if not isinstance(location, TCPLocation):
        raise OSError("the Sentinels have named no primary yet")
    return location.host, location.port


def _quiet() -> None:
    """Each attempt to connect to a store that is away would be an error with a traceback; `Store` says it once."""
    theirs = logging.getLogger("coredis")
    if theirs.level == logging.NOTSET:
        theirs.setLevel(logging.CRITICAL)


@final
class Store:
    """Calls scripts. ``patience`` is how long the store may be away, or refuse a call, before that fails: seconds.

    ``on_back`` is called when it answers again, and may be another than before.
    """

    def __init__(self, client: Client, patience: float, replicas: int = 0) -> None:
        """``replicas``: on how many of them `call_safely` has its effects."""
        self._client = client
        self.replicas: Final = replicas
        self._absence = Absence(patience)
        self.on_back: Callable[[], None] = lambda: None
        self._known = ""  # the last of its runs
        self._refused: dict[str, str] = {}  # why, by the script's digest

    @property
    def trouble(self) -> str | None:
        """Why calls wait or fail at present, fit for anyone's eyes."""
        if self._absence:
            return self._absence.said
        for reason in self._refused.values():
            return f"the store refuses what it is asked: {reason}"
        return None

    async def call(self, script: Script, key: str, *arguments: Argument) -> object:
        """What the script answers where ``key`` lies. Raises `StorageError`.

        Once the store has been away for longer than its patience, a call is tried once.
        """
        return await self._persist(lambda: self._answer(script, key, *arguments), script)

    async def call_safely(self, script: Script, key: str, *arguments: Argument) -> object:
        """As `call`, with the effects on the disks of so many replicas, too. Each attempt must write something."""

        async def attempt() -> object:
            # WAIT and WAITAOF, which wait for what this connection has written, go behind the call on the same one. The
            # first is there for the time: each of them asks a replica once, and at first it has written nothing yet.
            client = self._client
            with (
                client.ensure_replication(self.replicas, _COPIED),
                client.ensure_persistence(1, self.replicas, _COPIED),
            ):
                return await self._answer(script, key, *arguments)

        return await self._persist(attempt if self.replicas else lambda: self._answer(script, key, *arguments), script)

    async def _answer(self, script: Script, key: str, *arguments: Argument) -> object:
        keys = [key]
        if isinstance(self._client, coredis.RedisCluster):
            # This one never is there. So while keys of their slot are on their way to another node, a script is told to
            # come again: it names none of those it needs, and would take what is not here for what never was.
            keys.append(f"{key.partition('}')[0]}}}moving")
        try:
            return await self._client.evalsha(script.digest, keys=keys, args=arguments)
        except NoScriptError:
            return await self._client.eval(script.text, keys=keys, args=arguments)

    async def _persist(self, attempt: Callable[[], Awaitable[object]], script: Script) -> object:
        begun = trio.current_time()
        while True:
            try:
                answer = await attempt()
            except Exception as error:  # noqa: BLE001  `_failed` raises what does not pass
                self._failed(script, error)
                await self._absence.pause(begun, error, self.trouble or f"the store failed: {_named(error)}")
            else:
                self._answered()
                self._refused.pop(script.digest, None)
                return answer

    async def watch(self) -> None:
        """Ask the store whether it is there while nobody else asks it anything, for as long as it is open."""
        while True:
            await self._absence.pause_watch()
            if self._absence and isinstance(self._client, coredis.RedisCluster):
                # That some node answers says nothing of the one that is away. Another takes its place: coredis looks
                # for it by itself, but with pauses of up to half a minute.
                with suppress(RedisError, OSError):
                    await self._client.connection_pool.cluster_layout.initialize()
                continue
            try:
                run = await self._run()
            except Exception as error:  # noqa: BLE001  as above, and here all count as away
                self._gone(error)
            else:
                restarted, self._known = run != self._known, run
                self._answered()
                if restarted:
                    self.on_back()

    async def _run(self) -> str:
        """Another one in each process that the store was; in a cluster there is no telling."""
        if isinstance(self._client, coredis.RedisCluster):
            await self._client.ping()
            return ""
        return str((await self._client.info("server")).get("run_id"))

    def _failed(self, script: Script, error: Exception) -> None:
        """Raises `StorageError` for what does not pass by itself."""
        if isinstance(error, _PASSING) or not isinstance(error, RedisError):  # such as TimeoutError
            self._gone(error)
            return
        code = next((code for kind, code in _KINDS.items() if isinstance(error, kind)), str(error).split(" ", 1)[0])
        if not isinstance(error, (ResponseError, *_KINDS)) or code not in _REFUSALS:
            raise StorageError(f"the store refused a call: {error}") from error
        if script.digest not in self._refused:
            logger.warning("the store refuses what it is asked: %s", error)
        self._refused[script.digest] = _REFUSALS[code]

    def _gone(self, error: Exception) -> None:
        self._absence.begin(_named(error))
        # coredis keeps a connection whose answer has not come, and would put the next call behind it.
        self._client.connection_pool.disconnect()

    def _answered(self) -> None:
        if self._absence.end():
            self.on_back()


def _named(error: Exception) -> str:
    return str(error) or type(error).__name__


def of_answers(answer: object, count: int) -> Sequence[object]:
    """The answer of a script that answers for each of so many. Raises `StorageError`."""
    if not isinstance(answer, list) or len(answer) != count:
        raise StorageError("the store's answer cannot be read")
    return answer


def to_bytes(value: object) -> bytes:
    """What of an answer must be bytes. Raises `StorageError`."""
    if not isinstance(value, bytes):
        raise StorageError("the store's answer cannot be read")
    return value
