"""A socket that nobody can hold for ever: every send has a deadline of its own, closing has one too.

hypercorn and trio-websocket both wait for a peer that does not read: the one inside a shield, the other while
holding its lock. The deadline stands here, below both and below TLS, so that no scope of theirs keeps it from
firing.
"""

from __future__ import annotations

import os
import socket as stdlib_socket
import ssl
import struct
from contextlib import suppress
from typing import Final, final

import trio

__all__ = ["Guarded", "reset"]

# A send is cut into pieces of this size, each with its own deadline: what is bounded is the time without
# progress, not the time of a long answer on a slow line. The kernel holds 16 KiB unsent (trio sets
# TCP_NOTSENT_LOWAT), so a peer that takes 2 KiB a second is still alive to us.
_PIECE: Final = 64 * 1024

_RESET: Final = struct.pack("ii", 1, 0)


def reset(socket: trio.socket.SocketType) -> None:
    """Close at once and drop what the kernel still holds; the peer gets an error."""
    with suppress(OSError):  # the peer was faster
        socket.setsockopt(stdlib_socket.SOL_SOCKET, stdlib_socket.SO_LINGER, _RESET)
    socket.close()


@final
class _Timed(trio.abc.Stream):
    """``stream`` with a deadline on every send, whoever sends: also TLS does, while it reads."""

    def __init__(self, stream: trio.SocketStream, send_timeout: float) -> None:
        self._stream = stream
        self._send_timeout = send_timeout

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        return bytes(await self._stream.receive_some(max_bytes))

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        with trio.move_on_after(self._send_timeout) as limit:
            await self._stream.send_all(data)
        if limit.cancelled_caught:
            raise trio.BrokenResourceError(f"the peer took nothing for {self._send_timeout} s")

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self._stream.aclose()


@final
class Guarded(trio.abc.Stream):
    """``stream`` with a deadline on every send and with bytes that can be given back to be read again.

    Several may send: one after the other, each whole. A send that makes no progress for ``send_timeout`` seconds aborts
    the connection and raises `trio.BrokenResourceError`, also inside somebody's shield. A send that is cancelled aborts
    the connection too: nobody could tell how much of it has gone out. With ``tls``, all of it is encrypted, after
    `secure`.
    """

    def __init__(self, stream: trio.SocketStream, *, send_timeout: float, tls: ssl.SSLContext | None = None) -> None:
        self._below = stream
        timed = _Timed(stream, send_timeout)
        # As browsers do, a peer may leave without TLS's own goodbye: HTTP knows where its messages end.
        self._tls = None if tls is None else trio.SSLStream(timed, tls, server_side=True, https_compatible=True)
        self._stream: trio.abc.Stream = self._tls or timed
        self._sending = trio.Lock()
        self._given_back = b""

    @property
    def socket(self) -> trio.socket.SocketType:
        return self._below.socket

    @property
    def closed(self) -> bool:
        return self.socket.fileno() == -1

    @property
    def encrypted(self) -> bool:
        return self._tls is not None

    async def secure(self, seconds: float) -> None:
        """TLS's handshake, if there is TLS. Raises `trio.TooSlowError` and `trio.BrokenResourceError`."""
        if self._tls is not None:
            with trio.fail_after(seconds):
                await self._tls.do_handshake()

    def give_back(self, data: bytes) -> None:
        """Let the next reads deliver ``data`` first."""
        self._given_back = data + self._given_back

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        if self._given_back:
            await trio.lowlevel.checkpoint()
            size = len(self._given_back) if max_bytes is None else max_bytes
            piece, self._given_back = self._given_back[:size], self._given_back[size:]
            return piece
        return bytes(await self._stream.receive_some(max_bytes))

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        try:
            self._sending.acquire_nowait()  # what is sent waits anyway, and once is enough
        except trio.WouldBlock:
            await self._sending.acquire()
        whole = memoryview(data)
        sent = False
        try:
            for start in range(0, len(whole), _PIECE):
                await self._stream.send_all(whole[start : start + _PIECE])
            sent = True
        finally:
            self._sending.release()
            if not sent:
                self.abort()

    def send_now(self, data: bytes) -> bytes:
        """Send what goes out without waiting, and return the rest: all of it with TLS, or when the peer is gone.

        So it is when somebody else is sending. What is left is to be sent with `send_all`, which says what is wrong.
        """
        if self._tls is not None or self._sending.locked():
            return data
        try:
            sent = os.write(self.socket.fileno(), data)
        except OSError:
            return data
        return b"" if sent == len(data) else data[sent:]

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self._stream.aclose()

    def abort(self) -> None:
        """Close at once and drop what the kernel still holds. Whoever reads or sends gets an error. Idempotent."""
        if not self.closed:
            reset(self.socket)

    async def finish(self, seconds: float) -> None:
        """Close so that the peer gets what was sent, waiting at most ``seconds`` for it to close too.

        A close with unread bytes would reset the connection, and the peer might lose the answer that told it
        why (nginx calls this a lingering close). Raises nothing but `trio.Cancelled`.
        """
        if self.closed:
            return
        self._given_back = b""
        with trio.move_on_after(seconds), suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            if self._tls is not None:
                with suppress(trio.BrokenResourceError):  # it sends on, or has left without a goodbye
                    await self._tls.unwrap()
            await self._below.send_eof()
            while await self._below.receive_some(_PIECE):
                pass
        self.socket.close()
