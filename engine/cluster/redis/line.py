"""A connection to a Redis over which it tells what happens on channels.

A client of one's own for this one thing: whoever follows must know when the server has taken the subscription, when the
connection is gone, and that nothing piles up in between. What arrives is handed on as it is read, so what is not read
yet waits in the server, which ends the connection where that is too much; behind each new connection everybody is told
that they may have missed something.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Final, final

import trio
from attrs import define, field

from .wire import Answers, Refused, Reply, command

__all__ = ["Line"]

logger = logging.getLogger("penstock.cluster")

# The server is asked this often whether it is there, and the connection given up when nothing has come for so long:
# seconds. One of which only this end is left is found by it.
_PING: Final = 2.0
_SILENCE: Final = 4.5

# A connection is made within this, and tried again after it: seconds.
_CONNECT: Final = 2.0
_PAUSE: Final = 0.2

# What ends a connection, and not this.
_LOST: Final = (OSError, trio.BrokenResourceError, trio.TooSlowError, ValueError, Refused)

_PIECE: Final = 65536
_AT_ONCE: Final = 1000  # channels in one command


@final
@define(eq=False)
class _Channel:
    """``asked``: subscriptions that this connection has been sent and has not acknowledged."""

    wanted: bool = True
    asked: int = 0
    taken: trio.Event = field(factory=trio.Event)


@final
class Line:
    """``connect`` makes a connection, past its login.

    ``heard`` is called with each message, and with None for a channel on which messages may have been missed. It must
    neither wait nor raise. ``sharded`` channels are those of a cluster.
    """

    def __init__(
        self,
        connect: Callable[[], Awaitable[trio.abc.Stream]],
        heard: Callable[[bytes, bytes | None], None],
        *,
        sharded: bool = False,
    ) -> None:
        self._connect: Final = connect
        self._heard: Final = heard
        self._prefix: Final = b"s" if sharded else b""
        self._channels: dict[bytes, _Channel] = {}
        self._outgoing: list[bytes] = []
        self._to_send = trio.Event()
        self._up = False
        self._failing = False  # the last connection was lost, or could not be made
        self.moved_to: tuple[str, int] | None = None  # where the server says that the channels are

    @property
    def up(self) -> bool:
        """Whether there is a connection."""
        return self._up

    async def join(self, channel: bytes) -> None:
        """Follow it; the server has acknowledged that when this returns.

        Or the connection is gone, or goes meanwhile: once there is one again, ``heard`` is called with None.
        """
        known = self._channels.get(channel)
        if known is None:
            known = self._channels[channel] = _Channel()
            self._ask(channel, known)
        elif not known.wanted:
            known.wanted = True
            self._ask(channel, known)
        if not self._failing:
            await known.taken.wait()

    def leave(self, channel: bytes) -> None:
        """Follow it no more. Does not wait."""
        known = self._channels.get(channel)
        if known is not None and known.wanted:
            known.wanted = False
            if self._up:
                self._send(command(self._prefix + b"unsubscribe", channel))
            if not known.asked:
                del self._channels[channel]

    def _ask(self, channel: bytes, known: _Channel) -> None:
        if known.taken.is_set():
            known.taken = trio.Event()
        if self._up:
            known.asked += 1
            self._send(command(self._prefix + b"subscribe", channel))

    def _send(self, what: bytes) -> None:
        self._outgoing.append(what)
        self._to_send.set()

    # --- its task

    async def run(self) -> None:
        """Keep a connection, until cancelled."""
        while True:
            try:
                with trio.fail_after(_CONNECT):
                    stream = await self._connect()
                try:
                    await self._live(stream)
                finally:
                    with trio.CancelScope(shield=True):
                        await trio.aclose_forcefully(stream)
            except (*_LOST, ExceptionGroup) as raised:
                error = _one(raised)
                self.moved_to = _moved_to(error)
                if not self._failing:
                    logger.warning("what other nodes tell does not arrive: %s", _told(error))
                self._failing = True
            finally:
                self._lost()
            await trio.sleep(_PAUSE)

    async def _live(self, stream: trio.abc.Stream) -> None:
        self._up = True
        wanted = list(self._channels)
        for start in range(0, len(wanted), _AT_ONCE):
            some = wanted[start : start + _AT_ONCE]
            for channel in some:
                self._channels[channel].asked += 1
            self._send(command(self._prefix + b"subscribe", *some))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._write, stream)
            nursery.start_soon(self._ask_now_and_then)
            answers = Answers()
            while True:
                with trio.fail_after(_SILENCE):
                    piece = await stream.receive_some(_PIECE)
                if not piece:
                    raise trio.BrokenResourceError("the server has ended the connection")
                for reply in answers.take(bytes(piece)):
                    self._take(reply)

    async def _write(self, stream: trio.abc.Stream) -> None:
        while True:
            await self._to_send.wait()
            self._to_send = trio.Event()
            outgoing, self._outgoing = self._outgoing, []
            await stream.send_all(b"".join(outgoing))

    async def _ask_now_and_then(self) -> None:
        while True:
            await trio.sleep(_PING)
            self._send(command(b"PING", b"bus"))

    def _lost(self) -> None:
        self._up = False
        self._outgoing = []
        for channel, known in list(self._channels.items()):
            known.asked = 0
            if known.wanted:
                known.taken.set()  # who waits is told later that something may have been missed
                known.taken = trio.Event()
            else:
                del self._channels[channel]

    def _take(self, reply: Reply) -> None:
        if self._failing and not isinstance(reply, Refused):
            self._failing = False
            logger.warning("what other nodes tell arrives again")
        match reply:
            case [bytes(kind), bytes(channel), bytes(message)] if kind == self._prefix + b"message":
                self._heard(channel, message)
            case [bytes(kind), bytes(channel), int()] if kind == self._prefix + b"subscribe":
                self._acknowledged(channel)
            case [bytes(kind), bytes(channel), int()] if kind == self._prefix + b"unsubscribe":
                known = self._channels.get(channel)
                if known is not None and known.wanted and not known.asked:
                    raise ValueError("the server has another place for this channel now")
            case Refused():
                raise reply
            case _:
                pass  # such as the answer to PING

    def _acknowledged(self, channel: bytes) -> None:
        known = self._channels.get(channel)
        if known is None:
            return
        known.asked -= 1
        if known.asked:
            return
        if not known.wanted:
            del self._channels[channel]
        elif known.taken.statistics().tasks_waiting:
            known.taken.set()  # who waits looks at the log now
        else:
            known.taken.set()
            self._heard(channel, None)


def _one(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _moved_to(error: BaseException) -> tuple[str, int] | None:
    """Of the answer that a server of a cluster gives that does not have the channel."""
    match str(error).split(" ") if isinstance(error, Refused) else []:
        case ["MOVED", _, place]:
            host, _, port = place.rpartition(":")
            return (host, int(port)) if host and port.isdecimal() else None
        case _:
            return None


def _told(error: BaseException) -> str:
    if isinstance(error, trio.TooSlowError):
        return "the server says nothing"
    return str(error) or type(error).__name__
