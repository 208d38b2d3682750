"""Who is here: the actors of one session, each with its devices, each until its time is up.

Owns the list. Nothing of it is durable: a change is told to whoever watches at that moment, the whole list to everybody
who has caught up. Of an engine alone the list and its clock are here, for as long as the session stays in memory, and
keep it there. Where engines share the log they share the list, too: it is the store's (`volatile`), and here is what
the readers of this engine were told of it.
"""

from __future__ import annotations

import abc
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Final, cast, final

import trio
from attrs import define, evolve

from ..codec import decode_json, encode, encode_json
from ..config import Config
from ..errors import InvalidBody, Overloaded, StorageError, TimedOut
from ..events import Event, PresenceChanged, check_path_id, now
from ..results import Present
from ..shapes import check_text
from ..supervision import own_failure
from .hub import Hub
from .volatile import Place, Volatile

__all__ = ["GONE", "LocalPresence", "Presence", "SharedPresence"]

logger = logging.getLogger("penstock.session")

# The status of an entry that was taken away or has expired: the last thing that is told of it.
GONE: Final = "gone"

# A name, or a line about what somebody is doing. Every reader gets all of them whenever it has caught up.
_LONGEST: Final = 256


class Presence(abc.ABC):
    """The presence of one session."""

    __slots__ = ("_config", "_hub", "_session_id")

    def __init__(self, session_id: str, hub: Hub, config: Config) -> None:
        self._session_id = session_id
        self._hub = hub
        self._config = config

    @abc.abstractmethod
    def __len__(self) -> int: ...

    @abc.abstractmethod
    def listed(self) -> tuple[Present, ...]:
        """All who are here, as readers have been told, in the order in which they came."""

    @abc.abstractmethod
    async def asked(self) -> tuple[Present, ...]:
        """All who are here now. Raises `TimedOut`."""

    @abc.abstractmethod
    async def put(self, actor_id: str, device_id: str, *, name: str | None, status: str | None) -> None:
        """Be here, with this name and status, for `Config.presence_ttl`. The same again only renews it.

        Raises `InvalidId`, `InvalidBody`, `Overloaded` when as many are here as may be, and `TimedOut`.
        """

    @abc.abstractmethod
    async def drop(self, actor_id: str, device_id: str | None = None) -> None:
        """Be gone: one device of the actor's, or all. Who is not here is gone already.

        Raises `InvalidId`, `TimedOut`.
        """

    @abc.abstractmethod
    def close(self) -> None:
        """The session leaves memory. Nobody is told. Idempotent."""

    def _overloaded(self) -> Overloaded:
        return Overloaded(f"at most {self._config.presence_limit} are here at a time", session_id=self._session_id)

    def _tell(self, present: Present) -> None:
        data = PresenceChanged(
            actor_id=present.actor_id, device_id=present.device_id, name=present.name, status=present.status
        )
        self._hub.tell(encode(Event(data=data, session_id=self._session_id, time=now())))


@final
@define
class _Entry:
    present: Present
    until: float  # by the trio clock


@final
class LocalPresence(Presence):
    """Of an engine alone. ``launch`` runs its clock, while there is anybody, until `close`."""

    __slots__ = ("_clock", "_entries", "_launch")

    def __init__(
        self,
        session_id: str,
        hub: Hub,
        config: Config,
        *,
        launch: Callable[[Callable[[], Awaitable[None]]], None],
    ) -> None:
        super().__init__(session_id, hub, config)
        self._launch = launch
        self._entries: dict[tuple[str, str], _Entry] = {}
        self._clock: trio.CancelScope | None = None

    def __len__(self) -> int:
        return len(self._entries)

    def listed(self) -> tuple[Present, ...]:
        return tuple(entry.present for entry in self._entries.values())

    async def asked(self) -> tuple[Present, ...]:
        return self.listed()

    async def put(self, actor_id: str, device_id: str, *, name: str | None, status: str | None) -> None:
        present = _checked(actor_id, device_id, name, status)
        key = (present.actor_id, present.device_id)
        entry = self._entries.get(key)
        if entry is None and len(self._entries) >= self._config.presence_limit:
            raise self._overloaded()
        until = trio.current_time() + self._config.presence_ttl
        if entry is None or entry.present != present:
            self._tell(present)
            entry = self._entries.setdefault(key, _Entry(present, until))
        entry.present, entry.until = present, until
        if self._clock is None:
            self._clock = trio.CancelScope()
            self._launch(partial(self._expire, self._clock))

    async def drop(self, actor_id: str, device_id: str | None = None) -> None:
        _check(actor_id, device_id)
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


@final
class SharedPresence(Presence):
    """Of engines that share a log. ``on_changed`` has all of them look, ``look`` this one, and waits for it.

    What readers are told is the difference between two looks. So whatever was told late, twice or not at all, by
    whichever engine, each of them hears of each change once; of what changed and changed again between two looks, of
    the last.
    """

    __slots__ = ("_known", "_look", "_on_changed", "_volatile", "place")

    def __init__(
        self,
        session_id: str,
        epoch: str,
        hub: Hub,
        config: Config,
        volatile: Volatile,
        *,
        on_changed: Callable[[], None],
        look: Callable[[], Awaitable[None]],
    ) -> None:
        super().__init__(session_id, hub, config)
        self.place: Final[Place] = (session_id, epoch, "present")
        self._volatile = volatile
        self._on_changed = on_changed
        self._look = look
        self._known: dict[str, Present] = {}

    def __len__(self) -> int:
        return len(self._known)

    def listed(self) -> tuple[Present, ...]:
        return tuple(self._known.values())

    async def asked(self) -> tuple[Present, ...]:
        with self._in_time():
            await self._look()
        return self.listed()

    async def put(self, actor_id: str, device_id: str, *, name: str | None, status: str | None) -> None:
        present = _checked(actor_id, device_id, name, status)
        with self._in_time():
            changed = await self._volatile.put(
                self.place,
                f"{actor_id}/{device_id}",
                encode_json([present.name, present.status]),
                ttl=self._config.presence_ttl,
                limit=self._config.presence_limit,
            )
        if changed is None:
            raise self._overloaded()
        if changed:
            self._on_changed()

    async def drop(self, actor_id: str, device_id: str | None = None) -> None:
        _check(actor_id, device_id)
        keys = [f"{actor_id}/{device_id}"]
        with self._in_time():
            if device_id is None:
                (here,) = await self._volatile.listed([self.place])
                keys = [key for key in here if key.startswith(f"{actor_id}/")]
            changed = bool(keys) and await self._volatile.drop(self.place, keys)
        if changed:
            self._on_changed()

    @contextmanager
    def _in_time(self) -> Iterator[None]:
        """What the store has not answered in time may have been carried out."""
        try:
            yield
        except StorageError as error:
            raise TimedOut("the store has not said yet who is present", session_id=self._session_id) from error

    def close(self) -> None:
        """Nothing of it is this engine's alone."""

    def met(self, here: Mapping[str, bytes]) -> None:
        """The store says that these are here: tell readers what is new of it. An older answer never follows."""
        known, self._known = self._known, {key: _present(key, value) for key, value in here.items()}
        for key, present in known.items():
            if key not in here:
                self._tell(evolve(present, status=GONE))
        for key, present in self._known.items():
            if known.get(key) != present:
                self._tell(present)


def _present(key: str, value: bytes) -> Present:
    actor_id, device_id = key.split("/")
    name, status = cast("list[str | None]", decode_json(value))
    return Present(actor_id=actor_id, device_id=device_id, name=name, status=status)


def _check(actor_id: str, device_id: str | None) -> None:
    check_path_id(actor_id, "an actor id")
    if device_id is not None:
        check_path_id(device_id, "a device id")


def _checked(actor_id: str, device_id: str, name: str | None, status: str | None) -> Present:
    _check(actor_id, check_path_id(device_id, "a device id"))
    return Present(actor_id=actor_id, device_id=device_id, name=_text(name, "name"), status=_status(status))


def _status(text: str | None) -> str | None:
    if type(text) is str and text == GONE:
        raise InvalidBody(f"status {GONE!r} is said by the server, of those who have left")
    return _text(text, "status")


def _text(text: str | None, what: str) -> str | None:
    if text is not None and not 1 <= len(check_text(text, what)) <= _LONGEST:
        raise InvalidBody(f"{what} is 1 to {_LONGEST} characters")
    return text
