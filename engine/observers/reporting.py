"""Tells the observers of an engine what happens in it, and keeps what they do away from it.

One `Observers` per engine, one `Reporter` per session in memory: whoever does something worth telling says so in one
line, and here is what makes a fact of it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Final, Literal, final

import trio

from ..errors import PenstockError
from ..facts import (
    CleanupEnded,
    Committed,
    Fact,
    FellBehind,
    GapMet,
    GenerationBegan,
    GenerationCancelled,
    GenerationEnded,
    Observer,
    ProducerDone,
    SessionRepaired,
    StragglerEnded,
    WriteRefused,
)
from ..log.port import Append
from ..rules.records import GenerationRecord, generation_key, read_record
from ..supervision import Exit, find_exit

__all__ = ["SILENT", "Observers", "Reporter"]

logger = logging.getLogger("penstock.engine")

_GENERATION = generation_key("")


@final
class Observers:
    """Every observer of one engine; one that raises is let go of, for it must not end what it watches.

    ``on_exit`` is told when one raises what ends the process.
    """

    def __init__(self, observers: Sequence[Observer], on_exit: Callable[[Exit], None]) -> None:
        self._observers = tuple(observers)
        self._on_exit = on_exit

    def observe(self, fact: Fact, /) -> None:
        for observer in self._observers:
            try:
                observer.observe(fact)
            except BaseException as error:
                # It cannot wait, so nothing that it raises is a cancellation from outside.
                logger.exception("the observer %r failed; it is told nothing more", observer)
                self._observers = tuple(other for other in self._observers if other is not observer)
                if (exit_ := find_exit(error)) is not None:
                    self._on_exit(exit_)


@final
class Reporter:
    """What happens in one session, as it is told. Never raises."""

    __slots__ = ("_begun", "_observer", "_session_id")

    def __init__(self, session_id: str, observer: Observer) -> None:
        self._session_id = session_id
        self._observer = observer
        # The turn whose start was stored last, and when, by the trio clock; until its end. They never overlap.
        self._begun: tuple[int, float] | None = None

    def committed(self, write: Append, handed_over: float) -> None:
        """The log has stored ``write``, which it got at ``handed_over`` by the trio clock."""
        now = trio.current_time()
        if write.events:
            self._observe(Committed(self._session_id, len(write.events), write.size, now - handed_over))
        for key, body in write.records.items():
            if body is not None and key.startswith(_GENERATION):
                self._stands(key.removeprefix(_GENERATION), read_record(body, GenerationRecord), now)

    def _stands(self, gid: str, record: GenerationRecord, now: float) -> None:
        if record.outcome is not None:
            begun = None
            if self._begun is not None and self._begun[0] == record.turn:
                begun, self._begun = self._begun[1], None
            self._observe(
                GenerationEnded(
                    session_id=self._session_id,
                    generation_id=gid,
                    outcome=record.outcome,
                    seconds=None if begun is None else now - begun,
                )
            )
        elif record.turn is not None:
            self._begun = (record.turn, now)
            self._observe(GenerationBegan(session_id=self._session_id, generation_id=gid, turn=record.turn))

    def _observe(self, fact: Fact) -> None:
        self._observer.observe(fact)

    def refused(self, error: PenstockError) -> None:
        self._observe(WriteRefused(session_id=self._session_id, error=error))

    def repaired(self) -> None:
        self._observe(SessionRepaired(session_id=self._session_id))

    def cancelled(self, gid: str, reason: str) -> None:
        self._observe(GenerationCancelled(session_id=self._session_id, generation_id=gid, reason=reason))

    def cleaned_up(self, gid: str, producer: str, seconds: float, *, overran: bool) -> None:
        self._observe(
            CleanupEnded(
                session_id=self._session_id, generation_id=gid, producer=producer, seconds=seconds, overran=overran
            )
        )

    def straggler_ended(self, gid: str, producer: str, seconds: float) -> None:
        self._observe(
            StragglerEnded(session_id=self._session_id, generation_id=gid, producer=producer, seconds=seconds)
        )

    def producer_done(
        self, gid: str, producer: str, how: Literal["returned", "cancelled", "raised"], error: BaseException | None
    ) -> None:
        self._observe(
            ProducerDone(
                session_id=self._session_id,
                generation_id=gid,
                producer=producer,
                how=how,
                error=error,
            )
        )

    def fell_behind(self) -> None:
        self._observe(FellBehind(session_id=self._session_id))

    def met_gap(self, reason: str) -> None:
        self._observe(GapMet(session_id=self._session_id, reason=reason))


# Tells nobody.
SILENT: Final = Reporter("", Observers((), lambda _: None))
