"""Who is here: the actors of one session, each with its devices, each until its time is up.

Owns the list and its clock. Nothing of it is stored: a change is told to whoever watches at that moment, the whole
list to everybody who has caught up. It lives as long as the session stays in memory, and keeps it there.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, final

import trio
from attrs import define, evolve

from ..codec import encode
from ..config import Config
from ..errors import InvalidBody, Overloaded
from ..events import Event, PresenceChanged, check_path_id, now
from ..results import Present
from ..shapes import check_text
from ..supervision import own_failure
from .hub import Hub

__all__ = ["GONE", "Presence"]

logger = logging.getLogger("penstock.session")

# The status of an entry that was taken away or has expired: the last thing that is told of it.
GONE: Final = "gone"

# A name, or a line about what somebody is doing. Every reader gets all of them whenever it has caught up.
_LONGEST: Final = 256


@final
@define
class _Entry:
    present: Present
    until: float  # by the trio clock


@final
class Presence:
    """The presence of one session. ``launch`` runs its clock, while there is anybody, until `close`."""

    __slots__ = ("_clock", "_config", "_entries", "_hub", "_launch", "_session_id")

    def __init__(
        self,
        session_id: str,
        hub: Hub,
        config: Config,
        *,
        launch: Callable[[Callable[[], Awaitable[None]]], None],
    ) -> None:
        self._session_id = session_id
        self._hub = hub
        self._config = config
        self._launch = launch
        self._entries: dict[tuple[str, str], _Entry] = {}
        self._clock: trio.CancelScope | None = None

    def __len__(self) -> int:
        return len(self._entries)

    def listed(self) -> tuple[Present, ...]:
        """All who are here, in the order in which they came."""
        return tuple(entry.present for entry in self._entries.values())

    def put(self, actor_id: str, device_id: str, *, name: str | None, status: str | None) -> None:
        """Be here, with this name and status, for `Config.presence_ttl`. The same again only renews it.

        Raises `InvalidId`, `InvalidBody`, and `Overloaded` when as many are here as may be.
        """
        key = (check_path_id(actor_id, "an actor id"), check_path_id(device_id, "a device id"))
        present = Present(actor_id=actor_id, device_id=device_id, name=_text(name, "name"), status=_status(status))
        entry = self._entries.get(key)
        if entry is None and len(self._entries) >= self._config.presence_limit:
            raise Overloaded(f"at most {self._config.presence_limit} are here at a time", session_id=self._session_id)
        until = trio.current_time() + self._config.presence_ttl
        if entry is None or entry.present != present:
            self._tell(present)
            entry = self._entries.setdefault(key, _Entry(present, until))
        entry.present, entry.until = present, until
        if self._clock is None:
            self._clock = trio.CancelScope()
            self._launch(partial(self._expire, self._clock))

    def drop(self, actor_id: str, device_id: str | None = None) -> None:
        """Be gone: one device of the actor's, or all. Who is not here is gone already. Raises `InvalidId`."""
        check_path_id(actor_id, "an actor id")
        if device_id is not None:
            check_path_id(device_id, "a device id")
        for key in [key for key in self._entries if key[0] == actor_id and device_id in (None, key[1])]:
            self._leave(key)
        if not self._entries:
            self.close()

    def close(self) -> None:
        """Stop the clock: nobody is here any more, or the session leaves memory. Nobody is told. Idempotent."""
        clock, self._clock = self._clock, None
        if clock is not None:
            clock.cancel(reason="penstock: nobody is here, or the session leaves memory")

    async def _expire(self, clock: trio.CancelScope) -> None:
        with clock:
            while self._entries:
                await trio.sleep_until(min(entry.until for entry in self._entries.values()))
                time = trio.current_time()
                for key in [key for key, entry in self._entries.items() if entry.until <= time]:
                    try:
                        self._leave(key)
                    except BaseException as error:
                        logger.error("the end of a presence was not told", exc_info=own_failure(error))
            self._clock = None

    def _leave(self, key: tuple[str, str]) -> None:
        self._tell(evolve(self._entries.pop(key).present, status=GONE))

    def _tell(self, present: Present) -> None:
        data = PresenceChanged(
            actor_id=present.actor_id, device_id=present.device_id, name=present.name, status=present.status
        )
        self._hub.tell(encode(Event(data=data, session_id=self._session_id, time=now())))


def _status(text: str | None) -> str | None:
    if type(text) is str and text == GONE:
        raise InvalidBody(f"status {GONE!r} is said by the server, of those who have left")
    return _text(text, "status")


def _text(text: str | None, what: str) -> str | None:
    if text is not None and not 1 <= len(check_text(text, what)) <= _LONGEST:
        raise InvalidBody(f"{what} is 1 to {_LONGEST} characters")
    return text
