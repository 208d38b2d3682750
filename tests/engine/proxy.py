"""A connection that goes wrong: a proxy in front of a store."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias, final

import pytest
import trio

__all__ = ["FAULTS", "Fault", "FaultyProxy", "each_fault"]

Fault: TypeAlias = Literal["cut before", "cut after", "half open", "slow", "byte by byte", "late"]

# "cut before": the connection ends, and the request never arrives. "cut after": it arrives, and the answer is lost.
# "half open": neither the request nor anything behind it goes anywhere, in either direction, and nobody is told.
# "slow": the answer takes its time. "byte by byte": request and answer come in as many pieces as they have bytes.
# "late": the connection ends, and the request arrives when `FaultyProxy.deliver` says so.
FAULTS: Final[tuple[Fault, ...]] = ("cut before", "cut after", "half open", "slow", "byte by byte")

# Those whose test is over only when an answer has been given up.
_WAITED_FOR: Final = ("half open", "slow")

each_fault: Final = pytest.mark.parametrize(
    "fault", [pytest.param(fault, marks=[pytest.mark.long] * (fault in _WAITED_FOR)) for fault in FAULTS]
)

_SLOW: Final = 0.2
_CHUNK: Final = 65536


@final
class FaultyProxy:
    """Lets everything pass to ``port``, later to ``to``, but for one ``fault``.

    That befalls the next request that has one of ``marks``. Without any named, one that runs a script of a Redis.
    """

    def __init__(self, port: int, *marks: bytes) -> None:
        self.to = port
        self._marks = marks or (b"EVAL",)
        self.fault: Fault | None = None
        self.befallen = 0
        self.port = 0
        self._held: list[tuple[trio.SocketStream, bytes]] = []
        self._open: set[trio.CancelScope] = set()
        self._cut_off = False

    def cut_off(self) -> None:
        """End every connection, and each new one at once, until `mend`."""
        self._cut_off = True
        for scope in self._open:
            scope.cancel(reason="the line was cut")

    def mend(self) -> None:
        self._cut_off = False

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.port = listener.socket.getsockname()[1]
        async with trio.open_nursery() as nursery:
            await nursery.start(trio.serve_listeners, self._pass_on, [listener])
            task_status.started()

    async def deliver(self) -> None:
        """Let what is late arrive, and wait until the store has answered."""
        for server, request in self._held:
            await server.send_all(request)
            await server.receive_some(_CHUNK)
            await server.aclose()
        self._held = []

    async def _pass_on(self, client: trio.SocketStream) -> None:
        if self._cut_off:
            await client.aclose()
            return
        try:
            server = await trio.open_tcp_stream("127.0.0.1", self.to)
        except OSError:
            await client.aclose()
            return
        keep = False
        try:
            async with trio.open_nursery() as nursery:
                self._open.add(nursery.cancel_scope)
                quirk: list[Fault] = []  # what has befallen this connection
                nursery.start_soon(self._answers, server, client, quirk, nursery.cancel_scope)
                try:
                    while request := await client.receive_some(_CHUNK):
                        if self.fault is not None and any(mark in request for mark in self._marks):
                            quirk.append(self.fault)
                            self.fault = None
                            self.befallen += 1
                        if "half open" in quirk:
                            continue
                        if quirk[-1:] == ["late"]:
                            keep = True
                            self._held.append((server, request))
                        if quirk[-1:] in (["cut before"], ["late"]):
                            break
                        await _send(server, request, quirk)
                except trio.BrokenResourceError:
                    pass
                nursery.cancel_scope.cancel()
        finally:
            self._open.discard(nursery.cancel_scope)
            with trio.CancelScope(shield=True):
                await trio.aclose_forcefully(client)
                if not keep:
                    await trio.aclose_forcefully(server)

    async def _answers(
        self, server: trio.SocketStream, client: trio.SocketStream, quirk: list[Fault], whole: trio.CancelScope
    ) -> None:
        try:
            while answer := await server.receive_some(_CHUNK):
                if "half open" in quirk:
                    continue
                if "slow" in quirk:
                    await trio.sleep(_SLOW)
                if quirk[-1:] == ["cut after"]:
                    break
                await _send(client, answer, quirk)
        except trio.BrokenResourceError:
            pass
        whole.cancel()


async def _send(stream: trio.SocketStream, what: bytes, quirk: list[Fault]) -> None:
    if "byte by byte" in quirk:
        for byte in what:
            await stream.send_all(bytes([byte]))
    else:
        await stream.send_all(what)
