"""Who is here, in HTTP bodies and WebSocket frames alike: read strictly, carried out, answered.

Owns the shapes of requests. What they do to a session is the engine's; who may speak for whom is
the routes'.
"""

from __future__ import annotations

from typing import final

from attrs import frozen

from penstock.engine import JSON, InvalidBody, Session

from .answers import PresentAnswer
from .bodies import read_body

__all__ = ["PresenceBody", "PresenceFrame", "carry_out", "read_frame"]


@final
@frozen(kw_only=True)
class PresenceBody:
    """What an actor's device says of itself."""

    name: str | None = None
    status: str | None = None


@final
@frozen(kw_only=True)
class PresenceFrame:
    """The same with whom it is about; or, with ``gone``, that the device is gone, or all of the actor's."""

    actor_id: str
    device_id: str | None = None
    name: str | None = None
    status: str | None = None
    gone: bool = False


def read_frame(value: JSON, *, aside: frozenset[str] = frozenset()) -> PresenceFrame:
    """A frame's request. Raises `InvalidBody`, naming the field."""
    frame = read_body(value, PresenceFrame, aside=aside)
    if frame.gone and (frame.name, frame.status) != (None, None):
        raise InvalidBody("who is gone has neither name nor status")
    if not frame.gone and frame.device_id is None:
        raise InvalidBody("presence needs device_id, a string; only 'gone' may leave it out, for all of the actor's")
    return frame


async def carry_out(session: Session, frame: PresenceFrame) -> PresentAnswer:
    """Be here, or be gone."""
    if frame.gone:
        await session.drop_presence(frame.actor_id, frame.device_id)
    else:
        assert frame.device_id is not None
        await session.put_presence(frame.actor_id, frame.device_id, name=frame.name, status=frame.status)
    return PresentAnswer(session_id=session.session_id, actor_id=frame.actor_id, device_id=frame.device_id)
