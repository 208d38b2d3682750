"""The generations that one socket produces into, each told at once when nothing more can be written to it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Final, final

import trio

from penstock.engine import JSON, InvalidBody, Overloaded, ProducerStamp, Session

from ..forms.frames import frame_error
from ..requests.answers import ChunksAnswer, FinishAnswer
from ..requests.bodies import read_body
from ..requests.chunks import FinishBody, SignOfLife, finish, push, read_batch, read_lease, read_stamp
from .subscriptions import Send

__all__ = ["Productions", "lease_in"]

_log = logging.getLogger("penstock.websocket")

# What stands in headers, or in the path, over HTTP.
_STAMP: Final = frozenset({"producer_id", "producer_epoch", "producer_seq"})
_ENVELOPE: Final = frozenset({"op", "id", "session_id", "producer_lease"}) | _STAMP
_FINISH_ENVELOPE: Final = _ENVELOPE | {"generation_id"}


@final
class _Watch:
    """Waits for one generation's fence."""

    def __init__(self) -> None:
        self.scope: Final = trio.CancelScope()
        self.sending = False

    def end(self) -> None:
        if not self.sending:  # in the middle of a frame it would break the socket for all others
            self.scope.cancel(reason="the producer ends it itself")


@final
class Productions:
    """At most ``bound`` generations at a time, watched in tasks of ``nursery``; frames go to ``send``.

    Only of sessions that who holds the socket ``may_hear`` of, which may change while a command is under way.

    A producer that is superseded or stopped learns of it by an error frame without an ``id``, not only when it
    writes again.
    """

    def __init__(self, send: Send, bound: int, may_hear: Callable[[str], bool]) -> None:
        self._send = send
        self._bound = bound
        self._may_hear = may_hear
        self._watches: dict[tuple[str, str], _Watch] = {}

    @property
    def sessions(self) -> list[str]:
        """Those that generations are watched in."""
        return list(dict.fromkeys(session_id for session_id, _ in self._watches))

    def leave(self, session_id: str) -> bool:
        """Tell nothing more of the session's generations, if there are any."""
        watched = [key for key in self._watches if key[0] == session_id]
        for key in watched:
            self._watches.pop(key).end()
        return bool(watched)

    def stop(self) -> None:
        """Tell nothing more at all."""
        for session_id in self.sessions:
            self.leave(session_id)

    async def chunks(self, nursery: trio.Nursery, session: Session, value: Mapping[str, JSON]) -> ChunksAnswer:
        """Write the chunks of the frame. Raises `Overloaded`, and what the session does."""
        stamp = _stamp(value)
        batch = read_batch({name: item for name, item in value.items() if name not in _ENVELOPE})
        if not isinstance(batch, SignOfLife) and len(self._watches) >= self._bound:
            known = {generation_id for sid, generation_id in self._watches if sid == session.session_id}
            if not known.issuperset(chunk.generation_id.lower() for chunk in batch):
                raise Overloaded(f"a socket produces into at most {self._bound} generations; open another")
        made = await push(session, batch, stamp, lease_in(value))
        self._watch(nursery, session, made.generation_id)
        return made

    async def finish(self, nursery: trio.Nursery, session: Session, value: Mapping[str, JSON]) -> FinishAnswer:
        """End the generation that the frame names."""
        generation_id = value.get("generation_id")
        if not isinstance(generation_id, str):
            raise InvalidBody("finish needs generation_id, a string")
        body = read_body(value, FinishBody, aside=_FINISH_ENVELOPE)
        watch = self._watches.pop((session.session_id, generation_id.lower()), None)
        if watch is not None:
            watch.end()
        ended = False
        try:
            lease_in(value)  # of no use any more, but no nonsense either
            made = await finish(session, generation_id.lower(), body, _stamp(value))
            ended = True
        finally:
            if watch is not None and not ended:
                self._watch(nursery, session, generation_id.lower())
        return made

    def _watch(self, nursery: trio.Nursery, session: Session, generation_id: str) -> None:
        key = session.session_id, generation_id
        if key not in self._watches and self._may_hear(session.session_id):
            watch = self._watches[key] = _Watch()
            nursery.start_soon(self._tell, watch, session, generation_id)

    async def _tell(self, watch: _Watch, session: Session, generation_id: str) -> None:
        key = session.session_id, generation_id
        try:
            with watch.scope:
                error = await session.wait_fenced(generation_id)
                watch.sending = True
                await self._send(frame_error(None, error, session_id=session.session_id, generation_id=generation_id))
        except Exception:  # noqa: BLE001  # one generation's bug is not the others'
            _log.exception("watching a remote generation failed")
        finally:
            if self._watches.get(key) is watch:
                del self._watches[key]


def lease_in(value: Mapping[str, JSON]) -> float | None:
    """How long the producer may be silent. Raises `InvalidBody`, for a null, too."""
    if "producer_lease" in value and value["producer_lease"] is None:
        raise InvalidBody("producer_lease must not be null; leave it out")
    return read_lease(value.get("producer_lease"))


def _stamp(value: Mapping[str, JSON]) -> ProducerStamp | None:
    """What makes the frame exactly-once. Raises `InvalidBody`, for a null, too: it was meant to be something."""
    for name in _STAMP:
        if name in value and value[name] is None:
            raise InvalidBody(f"{name} must not be null; leave all three out, or none")
    return read_stamp(value.get("producer_id"), value.get("producer_epoch"), value.get("producer_seq"))
