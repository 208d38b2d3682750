"""What engines that share a log know together of the sessions that are read in this one: who is present, who reads.

Owns when that is looked at and said. All of it is in the store for a while (`stream.volatile`). Whoever changes it has
the bus tell who follows the session to look, and everybody looks every few seconds, so a hint that is lost costs that
time. One task looks, so that no older answer comes behind a newer one, and many sessions are asked for in one
call.

Whether anybody reads a session anywhere is asked only while that matters: by the engine that runs a generation which is
to be stopped when nobody reads (`on_last_disconnect`), and has no reader itself. It puts its question beside the
readers', and every engine that has any puts its name there. That holds for some beats: the readers of an engine that
died are gone with its name, and only when several questions in a row were not answered does nobody read.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, final

import trio

from ..errors import StorageError, TimedOut
from ..stream.bus import Bus
from ..stream.hub import Hub
from ..stream.volatile import Place, Volatile

if TYPE_CHECKING:
    from .views import View

__all__ = ["Audience", "Together"]

logger = logging.getLogger("penstock.session")

# So long may a hint that was lost be missed, and may who is gone by the time alone still be listed: seconds.
_LOOK: Final = 5.0

# Between two questions whether anybody reads: seconds.
_BEAT: Final = 1.5

# What is said to one holds for so many beats, and so many in a row must stay without an answer.
_BEATS: Final = 3

# The question. It is no name of an engine.
_WHO: Final = "?"

# Sessions in one call, and calls at a time.
_AT_ONCE: Final = 500
_SIDE_BY_SIDE: Final = 25


@final
class Audience:
    """The readers of one session in all engines, for its owner. Until it is known that there are none, there are some.

    ``on_asked`` is called when somebody wants to know, and has `met` called with each answer.
    """

    def __init__(self, place: Place, hub: Hub, on_asked: Callable[[Audience], None]) -> None:
        self.place: Final = place
        self.hub: Final = hub
        self.asked = False  # its question is in the store
        self.due = -math.inf  # when the next one is put, by the trio clock
        self._on_asked = on_asked
        self._on_left: Callable[[], object] | None = None
        self._unanswered = 0  # questions in a row
        self._elsewhere = False  # the last answer was that somebody reads
        self._left_elsewhere = -math.inf  # since when nobody has, by the trio clock

    def __len__(self) -> int:
        """0 when nobody reads, as far as is known."""
        return len(self.hub) or int(self._unanswered < _BEATS)

    @property
    def last_left(self) -> float:
        """When the last reader left, by the trio clock; one of another engine left some beats before, perhaps."""
        return max(self.hub.last_left, self._left_elsewhere)

    @property
    def on_left(self) -> Callable[[], object] | None:
        """Called when there may be no reader any more; None while nobody wants to know."""
        return self._on_left

    @on_left.setter
    def on_left(self, call: Callable[[], object] | None) -> None:
        self._on_left = self.hub.on_left = call
        self.rest()
        if call is not None:
            self._on_asked(self)

    def rest(self) -> None:
        """There are readers here, or nobody wants to know: the questions begin anew."""
        self.asked = False
        self._unanswered = 0

    def met(self, *, anybody: bool) -> None:
        """The question was answered, or not."""
        if self._elsewhere and not anybody:
            self._left_elsewhere = trio.current_time()
        self._elsewhere = anybody
        self._unanswered = 0 if anybody else self._unanswered + 1
        if self._unanswered == _BEATS and self._on_left is not None:
            self._on_left()


@final
class _Look:
    """One that somebody waits for."""

    def __init__(self) -> None:
        self.done = trio.Event()
        self.failure: StorageError | None = None


@final
class Together:
    """Of one engine, whose name is ``owner``. ``views`` gives the sessions that are read or written in it."""

    def __init__(self, bus: Bus, owner: str, views: Callable[[], Iterable[View]], *, patience: float) -> None:
        self._bus = bus
        self.volatile: Final[Volatile] = bus.volatile
        self._owner = owner
        self._views = views
        self._patience = patience
        self._due: dict[View, _Look] = {}
        self._asking: dict[Audience, None] = {}
        self._woken = trio.Event()
        self._wanted = trio.Event()
        self._away = False  # the store, and that was said

    def changed(self, session_id: str) -> None:
        """Have all engines that follow the session look."""
        self._bus.hint(session_id)

    def ask(self, audience: Audience) -> None:
        """Find out whether it has readers elsewhere, for as long as somebody wants to know."""
        if audience not in self._asking:
            self._asking[audience] = None
            self._wanted.set()

    def expect(self, view: View) -> _Look:
        """Something has changed: look."""
        self._woken.set()
        return self._due.setdefault(view, _Look())

    async def look(self, view: View) -> None:
        """Have its readers know what is so now. Raises `StorageError`, `TimedOut`."""
        look = self.expect(view)
        with trio.move_on_after(self._patience):
            await look.done.wait()
        if look.failure is not None:
            raise look.failure
        if not look.done.is_set():
            raise TimedOut("the store has not said yet who is present", session_id=view.session_id)

    # --- its tasks, for as long as the engine is open

    async def keep_looking(self) -> None:
        """Look where something has changed, and now and then wherever anybody reads."""
        look_at = trio.current_time() + _LOOK
        while True:
            with trio.move_on_at(look_at):
                await self._woken.wait()
            self._woken = trio.Event()
            if trio.current_time() >= look_at:
                look_at = trio.current_time() + _LOOK
                for view in self._views():
                    if len(view.hub):
                        self.expect(view)
            due, self._due = list(self._due.items()), {}
            for start in range(0, len(due), _AT_ONCE):
                await self._look(due[start : start + _AT_ONCE])

    async def _look(self, due: Sequence[tuple[View, _Look]]) -> None:
        places = [place for view, _ in due for place in (view.presence.place, view.audience.place)]
        failure: StorageError | None = None
        try:
            found = await self.volatile.listed(places)
            for (view, _), present, reading in zip(due, found[::2], found[1::2], strict=True):
                view.presence.met(present)
                await self._answer(view, reading)
        except StorageError as error:
            failure = error
            self._failed(error)
        else:
            self._away = False
        for _, look in due:
            look.failure = failure
            look.done.set()

    def _failed(self, error: StorageError) -> None:
        if not self._away:
            self._away = True
            logger.warning("who is present in other engines, and who reads there, is not known for now: %s", error)

    async def _answer(self, view: View, reading: Mapping[str, bytes]) -> None:
        """Say whether anybody reads it here, where that is asked or was said."""
        place, count = view.audience.place, len(view.hub)
        if count and _WHO in reading:
            await self.volatile.put(place, self._owner, b"%d" % count, ttl=_BEATS * _BEAT)
        elif not count and self._owner in reading:
            await self.volatile.drop(place, [self._owner])

    async def keep_asking(self) -> None:
        """Ask whether anybody reads, wherever somebody wants to know: at once, and then in each beat."""
        while True:
            self._wanted = trio.Event()
            self._asking = {audience: None for audience in self._asking if audience.on_left is not None}
            now = trio.current_time()
            due = [audience for audience in self._asking if audience.due <= now]
            for start in range(0, len(due), _AT_ONCE):
                await self._ask(due[start : start + _AT_ONCE])
            with trio.move_on_at(min((audience.due for audience in self._asking), default=math.inf)):
                await self._wanted.wait()

    async def _ask(self, audiences: Sequence[Audience]) -> None:
        """See who has answered the last question, and put the next one."""
        alone: list[Audience] = []
        for audience in audiences:
            audience.due = trio.current_time() + _BEAT
            if len(audience.hub):
                audience.rest()
            else:
                alone.append(audience)
        try:
            found = await self.volatile.listed([audience.place for audience in alone]) if alone else ()
        except StorageError as error:
            self._failed(error)
            for audience in alone:
                audience.asked = False
            return
        for audience, reading in zip(alone, found, strict=True):
            if audience.asked:
                audience.met(anybody=bool(reading.keys() - {_WHO, self._owner}))
        for start in range(0, len(alone), _SIDE_BY_SIDE):
            async with trio.open_nursery() as nursery:
                for audience in alone[start : start + _SIDE_BY_SIDE]:
                    nursery.start_soon(self._put_question, audience)

    async def _put_question(self, audience: Audience) -> None:
        try:
            await self.volatile.put(audience.place, _WHO, b"", ttl=_BEATS * _BEAT)
        except StorageError as error:
            self._failed(error)
            audience.asked = False
        else:
            audience.asked = True
            self.changed(audience.place[0])
