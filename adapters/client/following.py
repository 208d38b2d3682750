"""Following a session for ever, over any number of connections.

What is new is `place`'s, what a connection is `lines`'s, and when there is another one `reconnecting`'s.
"""

from __future__ import annotations

from typing import Final, final

import trio

from penstock.engine import CaughtUp, CorruptSession, Drained, Ended, SessionDeleted

from .frames import Frame, Later
from .lines import Line, Over, open_line
from .place import Delivery, Place
from .reconnecting import Reconnecting
from .wire import Wire

__all__ = ["Follower"]

# Doublings of the silence that a line may keep. A whole conversation is one message on a WebSocket, and nothing of it
# is heard before its end.
_SLOWEST: Final = 2


@final
class Follower(Reconnecting[Delivery]):
    """One reader's task."""

    def __init__(self, wire: Wire, place: Place, over: Over) -> None:
        super().__init__(wire, f"session {place.session_id}")
        self.place: Final = place
        self._over: Final = over
        self._slow = 0  # lines in a row that brought nothing, and might have with more time
        self._caught_up = False
        self._connection = trio.CancelScope()

    def refresh(self) -> None:
        """Leave this connection and begin the next one with the state."""
        self.place.want_snapshot()
        self._connection.cancel(reason="penstock: what was read does not add up")

    async def connect(self) -> bool:
        """True when the session is over."""
        self._caught_up = False
        connections, cursor = self.connections, self.place.cursor
        try:
            return await self._connect()
        except (CorruptSession, SessionDeleted) as error:
            if not self.connections:
                raise
            await self._send.send(Ended("deleted" if isinstance(error, SessionDeleted) else "corrupt"))
            return True
        finally:
            slow = self.connections > connections and not self._caught_up and self.place.cursor == cursor
            self._slow = min(self._slow + 1, _SLOWEST) if slow else 0

    async def _connect(self) -> bool:
        with trio.CancelScope() as self._connection:
            silence = self._wire.config.silence * 2**self._slow
            opening = open_line(self._wire, self.place.session_id, self.place.asks, self._over, silence)
            async with self.connected(opening) as line:
                return await self._read(line)
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
            self.come_back(frame.seconds)
        before = self.place.cursor
        delivery = self.place.take(frame)
        if self.place.cursor != before:
            self.brought_on()
        if delivery is not None:
            await self._send.send(delivery)
        self._caught_up |= isinstance(frame, CaughtUp)
        if isinstance(frame, Drained) and frame.reason == "token-expired":
            self.come_back(0.0)  # the server is well; only our token is not
        return isinstance(frame, Ended | Drained)
