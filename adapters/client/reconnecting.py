"""A stream for ever: connect, read, lose the connection, wait, connect again.

Owns when to reconnect, how long to wait, and the reader's end of it. What is read is `following`'s, of a session, and
`listing`'s. It ends with what is followed, with a refusal that no new attempt would change, or with its reader.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final, Generic, TypeVar, final

import trio
from attrs import frozen

from penstock.engine import CapacityError, PenstockError

from ..problems import Unauthenticated
from .backoff import Backoff
from .refusals import BadAnswer
from .wire import Wire

__all__ = ["Lost", "Reconnecting"]

logger = logging.getLogger("penstock.client")

D = TypeVar("D")
L = TypeVar("L")


@final
@frozen
class Lost:
    """The connection is gone; a new one is made after ``pause`` seconds. ``error`` is None where it was ended in order.

    Nothing is missing: what follows goes on behind the last event.
    """

    error: PenstockError | None
    pause: float


class Reconnecting(Generic[D]):
    """Delivers what a subclass reads, from a task of its own. While nobody receives, the connection is not read."""

    def __init__(self, wire: Wire, what: str) -> None:
        """``what`` is followed, for the log."""
        self._wire: Final = wire
        self._what: Final = what
        self._send, self._receive = trio.open_memory_channel[D | Lost](wire.config.deliveries)
        self._backoff: Final = Backoff(wire.config.first_pause, wire.config.longest_pause)
        self._bad_frames = 0
        self._refused = False
        self._later = 0.0  # seconds that the server asks us to wait
        self._scope: Final = trio.CancelScope()
        self._done: Final = trio.Event()
        self._failure: Exception | None = None
        self.attempts = 0
        self.connections = 0

    async def connect(self) -> bool:
        """One connection's life; True when nothing will follow. Raises `PenstockError`."""
        raise NotImplementedError

    @asynccontextmanager
    async def running(self, tasks: trio.Nursery) -> AsyncIterator[None]:
        """In a task of ``tasks`` until the block is left."""
        tasks.start_soon(self._run, name=f"penstock follow {self._what}")
        try:
            yield
        finally:
            self._scope.cancel(reason="penstock: the reader has left")
            self._receive.close()

    async def receive(self) -> D | Lost:
        """The next delivery, as soon as there is one.

        Raises `trio.EndOfChannel` when nothing will follow, and a `PenstockError` that no new attempt would change.
        """
        try:
            return await self._receive.receive()
        except trio.EndOfChannel:
            await self._done.wait()
            if self._failure is not None:
                raise self._failure from None
            raise

    @asynccontextmanager
    async def connected(self, opening: AbstractAsyncContextManager[L]) -> AsyncIterator[L]:
        """A connection, counted."""
        self.attempts += 1
        async with opening as line:
            self.connections += 1
            self._refused = False
            begun = trio.current_time()
            try:
                yield line
            finally:
                if trio.current_time() - begun >= self._wire.config.longest_pause:
                    self._backoff.reset()

    def brought_on(self) -> None:
        """Something new has come. Only that makes the next pause short again: a server that takes connections and cuts
        them is not asked in a tight loop."""
        self._backoff.reset()
        self._bad_frames = 0

    def come_back(self, seconds: float) -> None:
        """The server asks us to wait for so long before the next connection."""
        self._later = seconds

    async def _run(self) -> None:
        """Until the end; then ``_done`` is set, and ``_failure`` says why if it was one. Raises nothing."""
        try:
            with self._scope:
                await self._reconnect()
        except Exception as error:  # noqa: BLE001  # whatever it is, it is the reader's to learn
            self._failure = error
        finally:
            self._send.close()
            self._done.set()

    async def _reconnect(self) -> None:
        while True:
            error: PenstockError | None = None
            self._later = 0.0
            begun, connections = trio.current_time(), self.connections
            try:
                if await self.connect():
                    return
            except PenstockError as raised:
                error = raised
                if not self._goes_on(error):
                    raise
                if isinstance(error, CapacityError):
                    self._later = error.retry_after
            spent = 0.0 if self.connections > connections else trio.current_time() - begun
            pause = self._backoff.next(min(self._later, self._wire.config.longest_retry_after), spent=spent)
            logger.info(
                "the stream of %s is lost (%s); the next attempt comes in %.3f s", self._what, error or "ended", pause
            )
            await self._send.send(Lost(error, pause))
            await trio.sleep(pause)

    def _goes_on(self, error: PenstockError) -> bool:
        """Whether another attempt may fare better."""
        if isinstance(error, Unauthenticated):
            # One more with another token; if that is refused, too, the next one will be.
            again = self._wire.renews and not self._refused
            self._refused = True
            return again
        if isinstance(error, BadAnswer):
            self._bad_frames += 1
            logger.error("%s: %s", self._what, error.detail)
            return self._bad_frames < self._wire.config.bad_frames
        return error.retryable
