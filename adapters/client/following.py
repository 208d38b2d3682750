"""Following a session for ever: connect, read, lose the connection, wait, resume behind the last event.

Owns when to reconnect and how long to wait. What is new is `place`'s, what a connection is `lines`'s. It ends with
the session's ``end``, with a refusal that no new attempt would change, or with its reader.
"""

from __future__ import annotations

import logging
from typing import Final, final

import trio
from attrs import frozen

from penstock.engine import CapacityError, CaughtUp, CorruptSession, Drained, Ended, PenstockError, SessionDeleted

from ..problems import Unauthenticated
from .backoff import Backoff
from .frames import Frame, Later
from .lines import Line, Over, open_line
from .place import Delivery, Place
from .refusals import BadAnswer
from .wire import Wire

__all__ = ["Follower", "Lost"]

# Doublings of the silence that a line may keep. A whole conversation is one message on a WebSocket, and nothing of it
# is heard before its end.
_SLOWEST: Final = 2

logger = logging.getLogger("penstock.client")


@final
@frozen
class Lost:
    """The connection is gone; a new one is made after ``pause`` seconds. ``error`` is None where it was ended in order.

    Nothing is missing: what follows goes on behind the last event.
    """

    error: PenstockError | None
    pause: float


@final
class Follower:
    """One reader's task. ``send`` takes what is new; while it waits, the connection is not read."""

    def __init__(self, wire: Wire, place: Place, over: Over, send: trio.MemorySendChannel[Delivery | Lost]) -> None:
        config = wire.config
        self._wire: Final = wire
        self.place: Final = place
        self._over: Final = over
        self._send: Final = send
        self._backoff: Final = Backoff(config.first_pause, config.longest_pause)
        self._bad_frames = 0
        self._refused = False
        self._later = 0.0
        self._slow = 0  # lines in a row that brought nothing, and might have with more time
        self._caught_up = False
        self._connection = trio.CancelScope()
        self.scope: Final = trio.CancelScope()
        self.done: Final = trio.Event()
        self.failure: Exception | None = None
        self.attempts = 0
        self.connections = 0

    async def run(self) -> None:
        """Until the end; then ``done`` is set, and ``failure`` says why if it was one. Raises nothing."""
        try:
            with self.scope:
                await self._run()
        except Exception as error:  # noqa: BLE001  # whatever it is, it is the reader's to learn
            self.failure = error
        finally:
            self._send.close()
            self.done.set()

    def refresh(self) -> None:
        """Leave this connection and begin the next one with the state."""
        self.place.want_snapshot()
        self._connection.cancel(reason="penstock: what was read does not add up")

    async def _run(self) -> None:
        while True:
            error: PenstockError | None = None
            self._later = 0.0
            self._caught_up = False
            begun, connections, cursor = trio.current_time(), self.connections, self.place.cursor
            try:
                if await self._connect():
                    return
            except PenstockError as raised:
                error = raised
                if isinstance(error, SessionDeleted | CorruptSession) and self.connections:
                    await self._send.send(Ended("deleted" if isinstance(error, SessionDeleted) else "corrupt"))
                    return
                if not self._goes_on(error):
                    raise
                if isinstance(error, CapacityError):
                    self._later = error.retry_after
            connected = self.connections > connections
            spent = 0.0 if connected else trio.current_time() - begun
            slow = connected and not self._caught_up and self.place.cursor == cursor
            self._slow = min(self._slow + 1, _SLOWEST) if slow else 0
            pause = self._backoff.next(min(self._later, self._wire.config.longest_retry_after), spent=spent)
            logger.info(
                "the stream of session %s is lost (%s); the next attempt comes in %.3f s",
                self.place.session_id,
                "ended" if error is None else error,
                pause,
            )
            await self._send.send(Lost(error, pause))
            await trio.sleep(pause)

    async def _connect(self) -> bool:
        """One connection's life; True when the session is over."""
        self.attempts += 1
        with trio.CancelScope() as self._connection:
            silence = self._wire.config.silence * 2**self._slow
            async with open_line(self._wire, self.place.session_id, self.place.asks, self._over, silence) as line:
                self.connections += 1
                self._refused = False
                begun = trio.current_time()
                try:
                    return await self._read(line)
                finally:
                    if trio.current_time() - begun >= self._wire.config.longest_pause:
                        self._backoff.reset()
        return False

    async def _read(self, line: Line) -> bool:
        while True:
            try:
                frame = await line.receive()
            except trio.EndOfChannel:
                return False
            if await self._take(frame):
                return isinstance(frame, Ended)

    async def _take(self, frame: Frame) -> bool:
        """Pass on what is new; True when nothing more comes on this connection."""
        if isinstance(frame, Later):
            self._later = frame.seconds
        before = self.place.cursor
        delivery = self.place.take(frame)
        if self.place.cursor != before:
            # Only what brings us on makes the next pause short again: a server that takes connections and cuts them
            # is not asked in a tight loop.
            self._backoff.reset()
            self._bad_frames = 0
        if delivery is not None:
            await self._send.send(delivery)
        self._caught_up |= isinstance(frame, CaughtUp)
        if isinstance(frame, Drained) and frame.reason == "token-expired":
            self._later = 0.0  # the server is well; only our token is not
        return isinstance(frame, Ended | Drained)

    def _goes_on(self, error: PenstockError) -> bool:
        """Whether another attempt may fare better."""
        if isinstance(error, Unauthenticated):
            # One more with another token; if that is refused, too, the next one will be.
            again = self._wire.renews and not self._refused
            self._refused = True
            return again
        if isinstance(error, BadAnswer):
            self._bad_frames += 1
            logger.error("session %s: %s", self.place.session_id, error.detail)
            return self._bad_frames < self._wire.config.bad_frames
        return error.retryable
