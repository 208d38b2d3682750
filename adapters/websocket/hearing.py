"""What a socket goes on to hear, and whether it still may: its holder may get a token for less, or lose a right."""

from __future__ import annotations

import logging
from typing import Final, final

from penstock.engine import PenstockError

from ..access import Scope
from ..forms.frames import frame_error
from .holder import Holder
from .productions import Productions
from .socket_log import note_refusal
from .subscriptions import Subscriptions

__all__ = ["Hearing"]

_log = logging.getLogger("penstock.websocket")


@final
class Hearing:
    """The subscriptions of one socket, and the generations that it produces into and is told the end of."""

    def __init__(self, holder: Holder, subscriptions: Subscriptions, productions: Productions) -> None:
        self._holder: Final = holder
        self._subscriptions: Final = subscriptions
        self._productions: Final = productions

    def stop(self) -> None:
        """All of it is left; no frame follows the one that is being sent."""
        self._subscriptions.stop()
        self._productions.stop()

    async def leave_refused(self) -> list[bytes]:
        """Leave what the holder may not hear of any more. Returns the frames that say so.

        No frame of what is left comes behind this. What the token itself does not allow is silent at once; what the
        application has a say in, when it has said no, or nothing in time.
        """
        heard: list[tuple[Scope, str]] = [("read", each) for each in self._subscriptions.sessions]
        heard += [("produce", each) for each in self._productions.sessions]
        left = {each for each in heard if not self._holder.covers(*each) and self._leave(*each)}
        told: list[bytes] = []
        for action, session_id in heard:
            error = await self._refusal(action, session_id)
            if error is None or not ((action, session_id) in left or self._leave(action, session_id)):
                continue
            if action == "read":
                await self._subscriptions.remove(session_id)
            told.append(frame_error(None, error, session_id=session_id))
        return told

    async def _refusal(self, action: Scope, session_id: str) -> Exception | None:
        try:
            await self._holder.allow_again(action, session_id)
        except PenstockError as error:
            note_refusal(error, "subscribe" if action == "read" else "chunks", session_id=session_id)
            return error
        except Exception as error:  # noqa: BLE001  # the application's bug: who cannot be asked has not said yes
            _log.exception("asking for the right to %s session %s failed", action, session_id)
            return error
        return None

    def _leave(self, action: Scope, session_id: str) -> bool:
        """Whether there was something to leave."""
        if action == "read":
            return self._subscriptions.leave(session_id)
        return self._productions.leave(session_id)
