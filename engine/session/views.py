"""The sessions that are read in an engine that shares its log: each as its readers have it, whoever writes in it.

Owns how readers hear of what another engine commits. A session that is only read is never claimed. Its view follows the
log: the bus tells of each commit, and where that may have missed something, the log is asked where the session stands:
when a batch does not fit behind the last one, when somebody begins to read, and every few seconds.

    nothing        nobody reads it here, and nobody writes
    view           its readers; it follows the log
    resident       this engine owns it and writes (`resident`); the view's readers hear of it from its journal

The readers stay while the session goes from one of the last two to the other: the hub that they hang on, and what they
read (`History`), are the view's, and only what tells where the log ends changes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final, final

import trio
from attrs import define

from ..errors import CorruptSession, StorageError, TimedOut
from ..events import Cursor
from ..log.fence import went_back
from ..log.port import EventLog, Head, life_of
from ..observers.reporting import Reporter
from ..results import GenerationInfo
from ..stream.aside import sound
from ..stream.bus import Bus
from ..stream.history import ForkPoint, History
from ..stream.hub import WENT_BACK, Batch, Drained, Ended, Hub
from ..stream.presence import SharedPresence
from .life import Call
from .together import Audience, Together

if TYPE_CHECKING:
    from .registry import Registry
    from .resident import Resident

__all__ = ["View", "Views"]

logger = logging.getLogger("penstock.session")

# The log is asked this often where the sessions stand that are read here: so long may a hint that was lost be missed.
_LOOK: Final = 5.0

# Who begins to read waits so long at most to be told at once who is present: seconds.
_CATCH_UP: Final = 1.0

# Sessions in one such question.
_AT_ONCE: Final = 1000


@final
@define
class Follower:
    """Where the log of a session ends that another engine writes, as far as this one has heard."""

    session_id: str
    epoch: str
    committed: int

    @property
    def cursor(self) -> Cursor:
        return Cursor(self.epoch, self.committed)


@final
class View:
    """One session as its readers have it here. ``resident`` is set while this engine writes in it, or is about to."""

    def __init__(
        self, log: EventLog, head: Head, registry: Registry, together: Together, look: Callable[[View], None]
    ) -> None:
        config = registry.config
        self.session_id: Final = head.session_id
        self.epoch: Final = head.epoch
        self.hub: Final = Hub(
            config.subscriber_buffer, config.subscriber_bytes, reporter=Reporter(head.session_id, registry.observer)
        )
        self._registry = registry
        self._together = together
        self.presence: Final = SharedPresence(
            head.session_id,
            head.epoch,
            self.hub,
            config,
            together.volatile,
            on_changed=partial(together.changed, head.session_id),
            look=partial(together.look, self),
        )
        self.audience: Final = Audience((head.session_id, head.epoch, "reading"), self.hub, together.ask)
        self._follower = Follower(head.session_id, head.epoch, head.tail)
        self.history: Final = History(
            log,
            self._follower,
            self.hub,
            self.presence,
            config,
            on_corrupt=registry.set_aside,
            on_missed=registry.doubts.missed,
        )
        # Another engine may be taking events out of any page.
        self.history.share_pages(shared=False)
        self.resident: Resident | None = None
        self.leave: Callable[[], None] = lambda: None  # ends its following
        self.idle_since = trio.current_time()
        self._token = head.token  # the highest that was seen
        self._most_published = config.subscriber_buffer
        self._look = look

    @property
    def over(self) -> bool:
        """Whether nothing follows any more: this life of the session is over, or it cannot be read."""
        return self.hub.over

    @property
    def used(self) -> bool:
        return bool(self.resident is not None or len(self.hub) or self.history.busy)

    @property
    def known(self) -> Head:
        """Where the session stands at least, as far as its readers here have heard."""
        tail = self.history.tail
        return Head(session_id=self.session_id, epoch=tail.epoch, tail=tail.committed, token=self._token)

    # --- following

    def heard(self, batch: Batch | None) -> None:
        """The bus told of this: hand it on to the readers, or have the log asked where it does not fit."""
        known = self.history.tail
        if batch is not None and batch.epoch == known.epoch:
            if batch.last <= known.committed:
                return  # told before; or by this engine, whose journal has told its readers
            if known is self._follower and batch.first == known.committed + 1:
                self._follower.committed = batch.last
                if len(batch) > self._most_published:
                    self.hub.overflow()
                else:
                    self.hub.publish(batch)
                return
        if batch is None:
            self._together.expect(self)
        self._look(self)

    def met(self, head: Head | None) -> None:
        """The log says that the session stands there; None: it does not live. An older head is passed over."""
        if head is not None:
            if head.token < self._token:
                return
            self._token = head.token
        resident = self.resident
        if resident is not None and resident.owns:
            if head is None or head.epoch != self.epoch or resident.overtaken(head):
                resident.journal.probe()  # the refusal leads to all else
        elif head is None or life_of(head.epoch) != life_of(self.epoch):
            self.hub.close(Ended("deleted"))
        elif head.epoch != self.epoch:
            self.hub.close(Drained(WENT_BACK))
        elif head.tail > self._follower.committed:
            self._follower.committed = head.tail
            self.hub.overflow()

    def lose(self) -> None:
        """What its readers were told may be gone: they come back, to a session that has a new epoch or gets one."""
        if self.resident is not None and self.resident.owns:
            self.resident.journal.probe()  # the refusal leads to all else
        else:
            self.hub.close(Drained(WENT_BACK))

    def rest(self) -> None:
        """This engine does not write in it any more: follow the log from where its journal stood."""
        self._follower.committed = max(self._follower.committed, self.history.tail.committed)
        self.history.stand_on(self._follower)
        self.resident = None
        self.idle_since = trio.current_time()
        self._look(self)

    async def catch_up(self) -> None:
        """Have who begins to read here told who is present now: while nobody reads, nobody looks."""
        if not len(self.hub):
            # What comes later, they are told as a change; nobody waits for that store who only reads the log.
            with trio.move_on_after(_CATCH_UP), suppress(StorageError, TimedOut):
                await self._together.look(self)

    # --- what a session is asked for that only reads: as `Resident` has it

    def check(self, call: Call) -> None:
        if self.resident is not None:
            self.resident.check(call)

    async def generation(self, generation_id: str) -> GenerationInfo:
        if self.resident is not None and self.resident.owns:
            return await self.resident.generation(generation_id)
        return await self.history.generation_info(generation_id)

    async def fork_point(self, at: Cursor | str | None) -> ForkPoint:
        if self.resident is not None and self.resident.owns:
            return await self.resident.fork_point(at)
        return await self.history.fork_point(at)


@final
class Views:
    """Those of one engine, by id."""

    def __init__(self, log: EventLog, bus: Bus, registry: Registry) -> None:
        self._log = log
        self._bus = bus
        self._registry = registry
        self.together: Final = Together(bus, registry.owner, lambda: self, patience=registry.config.flush_timeout)
        self._views: dict[str, View] = {}
        self._due: dict[View, None] = {}  # to be asked for now
        self._woken = trio.Event()

    def __iter__(self) -> Iterator[View]:
        return iter(list(self._views.values()))

    def known(self, session_id: str) -> Head | None:
        """Where the session stands at least, as far as its readers here have heard."""
        view = self._views.get(session_id)
        return None if view is None or view.over else view.known

    def lose(self, session_id: str) -> None:
        """What readers here were told of the session may be gone."""
        view = self._views.get(session_id)
        if view is not None:
            view.lose()

    def met(self, head: Head) -> View | None:
        """The session's view, if there is one that goes on; it is told that the log stands there."""
        view = self._views.get(head.session_id)
        if view is None:
            return None
        view.met(head)
        # While the engine shuts down, what is stored can be read on where its readers have been sent away.
        return view if not view.over or self._registry.draining else None

    async def open(self, head: Head) -> View:
        """The session's view, made where there is none of this life. One at a time per session.

        Raises `CorruptSession`, `StorageError`.
        """
        view = self.met(head)
        if view is None:
            self._drop(head.session_id)
            view = View(self._log, head, self._registry, self.together, self._look)
            view.leave = await self._bus.follow(head.session_id, view.heard)
            self._views[head.session_id] = view
            # What was told before it followed, it has not heard.
            view.met(_living(await self._log.head(head.session_id)))
        return view

    def rest(self, view: View) -> None:
        """The engine does not write in it any more."""
        view.rest()
        if view.over and self._views.get(view.session_id) is view:
            self._drop(view.session_id)

    def end(self, session_id: str, reason: str) -> None:
        """Nothing more can be read of the session."""
        view = self._views.get(session_id)
        if view is not None:
            view.hub.close(Ended(reason))

    def _drop(self, session_id: str) -> None:
        view = self._views.pop(session_id, None)
        if view is not None:
            view.leave()
            if view.history.holds_messages and not self._registry.draining:
                self._registry.launch_apart(view.history.release, f"penstock release {session_id}")

    def _look(self, view: View) -> None:
        self._due[view] = None
        self._woken.set()

    async def run(self) -> None:
        """Ask the log where sessions stand: those that may have missed something at once, all of them now and then."""
        due = trio.current_time() + _LOOK
        while True:
            with trio.move_on_at(due):
                await self._woken.wait()
            self._woken = trio.Event()
            if trio.current_time() >= due:
                due = trio.current_time() + _LOOK
                self._forget()
                self._due = dict.fromkeys(self)
            views, self._due = list(self._due), {}
            for start in range(0, len(views), _AT_ONCE):
                try:
                    await self._ask(views[start : start + _AT_ONCE])
                except StorageError as error:
                    logger.warning("sessions that are read cannot be followed for now: %s", error)

    async def _ask(self, views: Sequence[View]) -> None:
        known = [view.known for view in views]  # before: what comes meanwhile may not be in the heads
        heads = await self._log.living([view.session_id for view in views])
        for view, before in zip(views, known, strict=True):
            if self._views.get(view.session_id) is view:
                try:
                    head = sound(heads.get(view.session_id))
                    if head is not None and went_back(head, before):
                        self._registry.doubts.missed(before)
                    else:
                        view.met(head)
                except CorruptSession as error:
                    self._registry.set_aside(error)

    def _forget(self) -> None:
        """Let go of those that nobody has used for a while."""
        now = trio.current_time()
        for view in self:
            if view.used:
                view.idle_since = now
            elif view.over or view.idle_since + self._registry.config.idle_session <= now:
                self._drop(view.session_id)


def _living(head: Head | None) -> Head | None:
    return None if head is None or head.deleted else sound(head)
