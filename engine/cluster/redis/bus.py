"""`RedisBus`: hints and leases of engines that share a log, in a Redis.

What happens in a session is told on a channel of its own. The log tells it where it lies in the same Redis: in the
script that stores it, so that there is no call between the commit and who hears of it. How old a lease is the server's
clock decides.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final, final

import trio

from ...errors import StorageError, UnwritableDatabase
from ...log.port import Entry
from ...log.redis.address import Address
from ...log.redis.checks import take_layout
from ...log.redis.layout import Layout
from ...log.redis.store import Client, Script, Store, connected, primary_of, to_bytes
from ...stream.bus import REMEMBERED, Bus, Heard, Node, name_taken
from ...stream.hub import Batch
from ...stream.volatile import Volatile
from .line import Line
from .volatile import RedisVolatile
from .wire import Answers, Refused, command

__all__ = ["RedisBus", "open_redis_bus"]

logger = logging.getLogger("penstock.cluster")

_BEAT: Final = Script.of(__package__, "beat")
_NODES: Final = Script.of(__package__, "nodes")
_RETIRE: Final = Script.of(__package__, "retire")
_TELL: Final = Script.of(__package__, "tell")

# An answer that takes longer is given up: seconds.
_WITHIN: Final = 5.0

# Who is told of more bytes at once looks at the log; as in `write.lua`.
_TOLD: Final = 64 * 1024

# Bytes of messages that wait to be sent, where the log does not tell them: beyond, they are dropped, and the log has it
# all. One that says nothing counts, too.
_WAITING: Final = 4 * 1024 * 1024
_LEAST: Final = 1024
_AT_ONCE: Final = 100


async def open_redis_bus(address: Address, *, patience: float = 10.0, told_by_log: bool = False) -> RedisBus:
    """Open the bus in the Redis there. Nothing but the prefix need be there.

    Calls that wait fail once the store has been away for ``patience`` seconds. ``told_by_log``: a `RedisLog` over the
    same address tells of what is committed.

    Close it with `RedisBus.aclose`. Raises `UnwritableDatabase` when it cannot be reached, and `NewerSchema`.
    """
    bus = RedisBus(address, patience=patience, told_by_log=told_by_log)
    try:
        await bus._open()
    except BaseException:
        await bus.aclose()
        raise
    return bus


@final
class RedisBus(Bus):
    """The bus in a Redis; made by `open_redis_bus`, in the trio loop that uses it."""

    def __init__(self, address: Address, *, patience: float, told_by_log: bool) -> None:
        self._address = address
        self._patience = patience
        self._told_by_log = told_by_log
        self._base = f"{{{address.prefix}:nodes}}"
        self._following: dict[bytes, dict[object, Heard]] = {}
        self._sessions: dict[bytes, str] = {}  # of channels that are followed
        self._lines: dict[int, Line] = {}
        self._telling: list[tuple[str, bytes]] = []
        self._waiting = 0  # bytes of these
        self._to_tell = trio.Event()
        self._opened = trio.Event()
        self._closing = trio.Event()
        self._closed = trio.Event()
        self._closed.set()
        self._failure: Exception | None = None

    # --- its task

    async def _open(self) -> None:
        self._closed = trio.Event()
        # A system task, as the log's: no caller has a nursery for it.
        trio.lowlevel.spawn_system_task(self._live, name="penstock bus")
        await self._opened.wait()
        if self._failure is not None:
            raise self._failure

    async def _live(self) -> None:
        try:
            async with connected(self._address, _WITHIN) as client:
                await self._serve(client)
        except Exception as error:  # noqa: BLE001  it would end the loop; `open_redis_bus` raises it
            self._failure = error
            if not isinstance(error, StorageError):
                self._failure = UnwritableDatabase(f"{self._address} cannot be reached: {_told(error)}")
                self._failure.__cause__ = error
            if self._opened.is_set():
                logger.error("the bus is gone: %s", _told(error))
        finally:
            self._closing.set()
            self._opened.set()
            self._closed.set()

    async def _serve(self, client: Client) -> None:
        shards = await take_layout(client, self._address)
        self._layout = Layout(self._address.prefix, shards, self._address.cluster)
        self._store = Store(client, self._patience)
        self._client = client
        self._volatile = RedisVolatile(self._layout, self._call)
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            nursery.start_soon(self._store.watch)
            nursery.start_soon(self._keep_telling)
            if not self._address.cluster:
                self._line_to(0)
            self._opened.set()
            await self._closing.wait()
            nursery.cancel_scope.cancel(reason="the bus closes")

    @property
    def listening(self) -> bool:
        return not self._closed.is_set() and all(line.up for line in self._lines.values())

    async def aclose(self) -> None:
        self._closing.set()
        with trio.CancelScope(shield=True):
            await self._closed.wait()
        await trio.lowlevel.checkpoint()

    # --- what is told

    def _line_to(self, lane: int) -> Line:
        """There is one to a server; in a cluster one for each shard, which may move from server to server."""
        line = self._lines.get(lane)
        if line is None:
            base = self._layout.lanes[lane][0]
            line = Line(partial(self._connected, lane, base), self._heard, sharded=self._address.cluster)
            self._lines[lane] = line
            self._nursery.start_soon(line.run)
        return line

    async def _connected(self, lane: int, base: str) -> trio.abc.Stream:
        moved_to = self._lines[lane].moved_to
        return await _connected(self._address, moved_to or primary_of(self._client, self._address, base))

    def _channel(self, session_id: str) -> str:
        return f"{self._layout.base(session_id)}c{session_id}"

    async def follow(self, session_id: str, heard: Heard) -> Callable[[], None]:
        if self._closing.is_set():
            raise StorageError("the bus is closed")
        channel, line = self._channel(session_id).encode(), self._line_to(self._layout.lane(session_id))
        following = self._following.setdefault(channel, {})
        self._sessions[channel] = session_id
        key = object()
        following[key] = heard

        def leave() -> None:
            following.pop(key, None)
            if not following and self._following.get(channel) is following:
                del self._following[channel], self._sessions[channel]
                line.leave(channel)

        try:
            await line.join(channel)
        except BaseException:
            leave()
            raise
        return leave

    def _heard(self, channel: bytes, message: bytes | None) -> None:
        following = self._following.get(channel)
        if following is not None:
            batch = None if not message else _batch(self._sessions[channel], message)
            for heard in list(following.values()):
                heard(batch)

    def tell(self, session_id: str, batch: Batch | None) -> None:
        if not self._told_by_log:
            self._tell(session_id, b"" if batch is None else _message(batch))

    def hint(self, session_id: str) -> None:
        self._tell(session_id, b"")

    def _tell(self, session_id: str, message: bytes) -> None:
        if self._waiting < _WAITING:
            self._telling.append((session_id, message))
            self._waiting += max(_LEAST, len(message))
            self._to_tell.set()

    async def _keep_telling(self) -> None:
        verb = "SPUBLISH" if self._address.cluster else "PUBLISH"
        while True:
            await self._to_tell.wait()
            self._to_tell = trio.Event()
            while self._telling:
                first = self._layout.lane(self._telling[0][0])
                count = 0
                while count < min(_AT_ONCE, len(self._telling)) and (
                    self._layout.lane(self._telling[count][0]) == first
                ):
                    count += 1
                some, self._telling = self._telling[:count], self._telling[count:]
                self._waiting -= sum(max(_LEAST, len(message)) for _, message in some)
                words = [word for session_id, message in some for word in (self._channel(session_id), message)]
                try:
                    await self._store.call(_TELL, self._layout.base(some[0][0]), verb, *words)
                except StorageError as error:
                    self._telling, self._waiting = [], 0
                    logger.warning("other nodes are not told for now: %s", error)

    # --- what is known for a while

    @property
    def volatile(self) -> Volatile:
        return self._volatile

    # --- leases

    async def beat(self, node: Node, ttl: float) -> bool:
        milliseconds = max(1, round(ttl * 1000))
        said = node.encoded()
        answer = await self._call(_BEAT, self._base, node.name, node.incarnation, said, milliseconds, REMEMBERED)
        if answer == -1:
            raise name_taken(node.name)
        return answer == 1

    async def nodes(self) -> Mapping[str, Node | None]:
        answer = await self._call(_NODES, self._base)
        if not isinstance(answer, list):
            raise StorageError("the store's answer cannot be read")
        pairs = zip(answer[::2], answer[1::2], strict=True)
        said = ((to_bytes(name).decode(), to_bytes(lease)) for name, lease in pairs)
        return {name: Node.decoded(name, lease) if lease else None for name, lease in said}

    async def retire(self, name: str, incarnation: str | None = None) -> None:
        await self._call(_RETIRE, self._base, name, incarnation or "")

    async def _call(self, script: Script, key: str, *arguments: bytes | str | int) -> object:
        if self._closing.is_set():
            raise StorageError("the bus is closed")
        return await self._store.call(script, key, *arguments)


async def _connected(address: Address, place: tuple[str, int]) -> trio.abc.Stream:
    """A connection past its login. Raises `OSError`, `Refused`, `ValueError`."""
    stream: trio.abc.Stream = await trio.open_tcp_stream(*place)
    try:
        if address.tls:
            stream = trio.SSLStream(stream, ssl.create_default_context(), server_hostname=place[0])
        if address.password is not None:
            user = [] if address.username is None else [address.username.encode()]
            await stream.send_all(command(b"AUTH", *user, address.password.encode()))
            answers = Answers()
            while True:
                piece = await stream.receive_some()
                if not piece:
                    raise OSError("the server has ended the connection")
                for reply in answers.take(bytes(piece)):
                    if isinstance(reply, Refused):
                        raise reply
                    return stream
    except BaseException:
        with trio.CancelScope(shield=True):
            await trio.aclose_forcefully(stream)
        raise
    return stream


def _message(batch: Batch) -> bytes:
    """As `write.lua` makes it."""
    if sum(len(entry.body) for entry in batch.entries) > _TOLD:
        return b""
    told = " ".join([batch.epoch, str(batch.first), *(str(len(entry.body)) for entry in batch.entries)])
    return b"".join([told.encode(), b"\n", *(entry.body for entry in batch.entries)])


def _batch(session_id: str, message: bytes) -> Batch | None:
    """What was told; None, so that the log is looked at, for what cannot be read."""
    told, _, bodies = message.partition(b"\n")
    try:
        epoch, first, *lengths = told.decode().split(" ")
        entries: list[Entry] = []
        position = 0
        for offset, length in enumerate(map(int, lengths), int(first)):
            entries.append(Entry(offset, bodies[position : position + length]))
            position += length
    except ValueError:
        return None
    return Batch(session_id, epoch, entries) if entries and position == len(bodies) else None


def _told(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error) or type(error).__name__
