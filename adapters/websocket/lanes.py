"""Commands that wait for their turn: those of one session in their order, those of different sessions side by side.

And for room: how much of what a socket asks may be under way, so that its peer waits and nobody else.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Mapping
from typing import Final, final

import trio
from attrs import frozen

from penstock.engine import JSON, PenstockError

from ..forms.frames import frame_error, frame_reply
from ..problems import ids_in
from .commands import Commands
from .envelope import parse_frame
from .socket_log import note_refusal
from .subscriptions import Send

__all__ = ["Lanes", "Room"]

_log = logging.getLogger("penstock.websocket")


@final
class Room:
    """Room for ``number`` commands of ``size`` bytes in all; one that is larger than that gets in when it is alone."""

    def __init__(self, number: int, size: int) -> None:
        self._number: Final = number
        self._size: Final = size
        self._held = self._held_bytes = 0
        self._left = trio.lowlevel.ParkingLot()

    def _fits(self, size: int) -> bool:
        return not self._held or (self._held < self._number and self._held_bytes + size <= self._size)

    async def enter(self, size: int) -> None:
        """Wait until there is room for ``size`` bytes, and take it. Nothing is taken when this is cancelled."""
        while not self._fits(size):
            await self._left.park()
        self._held += 1
        self._held_bytes += size

    def leave(self, size: int) -> None:
        """Give back what `enter` took."""
        self._held -= 1
        self._held_bytes -= size
        self._left.unpark_all()


@final
@frozen(kw_only=True)
class _Asked:
    """A command, as text."""

    text: bytes
    op: str
    session_id: str
    request_id: JSON
    ids: Mapping[str, str]


@final
class Lanes:
    """Carries ``commands`` out in tasks of ``nursery`` and sends their answers with ``send``.

    A command takes of the ``room`` until its answer is sent.
    """

    def __init__(self, nursery: trio.Nursery, commands: Commands, send: Send, room: Room) -> None:
        self._nursery: Final = nursery
        self._commands: Final = commands
        self._send: Final = send
        self._room: Final = room
        self._waiting: dict[str, deque[_Asked]] = {}

    async def put(self, text: bytes, envelope: Mapping[str, JSON], request_id: JSON) -> None:
        """Put the command behind those of its session, when there is room. Raises what `Commands.session_of` does."""
        session_id = self._commands.session_of(envelope)
        asked = _Asked(
            text=text,
            op=str(envelope["op"]),
            session_id=session_id,
            request_id=request_id,
            ids=ids_in(envelope),
        )
        await self._room.enter(len(text))
        lane = self._waiting.get(session_id)
        if lane is None:
            lane = self._waiting[session_id] = deque()
            self._nursery.start_soon(self._work, session_id)
        lane.append(asked)

    async def _work(self, session_id: str) -> None:
        """Carry out the commands of one session, one after the other, while there are any."""
        lane = self._waiting[session_id]
        while lane:
            await self._carry_out(lane[0])
            self._room.leave(len(lane.popleft().text))
        del self._waiting[session_id]

    async def _carry_out(self, asked: _Asked) -> None:
        try:
            result = await self._commands.carry_out(asked.session_id, parse_frame(asked.text), asked.request_id)
        except PenstockError as error:
            note_refusal(error, asked.op, **asked.ids)
            await self._send(frame_error(asked.request_id, error, **asked.ids))
        except Exception as error:  # noqa: BLE001  # one command's bug is not the others'
            _log.exception("the command %s failed", asked.op)
            await self._send(frame_error(asked.request_id, error, **asked.ids))
        else:
            if result is not None:
                await self._send(frame_reply(asked.request_id, result))
