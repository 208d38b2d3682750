"""Which requests of remote producers one session has taken: so that each counts once, also across a crash.

A producer's number is stored in the same part as what its request wrote. Here is what was stamped and may not be stored
yet, and what of the stored was asked for; a write that the log refused takes its number back with it.
"""

from __future__ import annotations

from typing import Final, final

import trio
from attrs import frozen

from ..codec import encode_record
from ..errors import SequenceGap, StaleProducer
from ..rules.admission import Accepted, HoleInSequence, ProducerMark, Repeated, StaleProducerEpoch, admit_producer
from ..rules.chunks import ProducerStamp
from ..stream.history import History
from ..stream.journal import Journal, Mark

__all__ = ["Numbering"]

# Producers of one session whose numbers are kept in memory; a session has one or two.
_KEPT: Final = 256


@final
@frozen
class _Last:
    """The last request taken of a producer, and a place in the session's order that is behind it."""

    number: ProducerMark | None
    mark: Mark


@final
class Numbering:
    """The producers of one session, by their ids."""

    def __init__(self, journal: Journal, history: History) -> None:
        self._journal = journal
        self._history = history
        self._last: dict[str, _Last] = {}
        self._reading = trio.Lock()

    def knows(self, stamp: ProducerStamp | None) -> bool:
        """Whether `repeats` can judge the request now."""
        return stamp is None or self._find(stamp.id) is not None

    async def learn(self, stamp: ProducerStamp | None) -> None:
        """Read what is stored of the producer, unless it is known. Nothing waits, then."""
        while stamp is not None and not self.knows(stamp):
            # One reads at a time: nobody can stamp a number of a producer that is being read about.
            async with self._reading:
                if not self.knows(stamp):
                    mark = self._journal.mark()
                    number = await self._history.known(_key(stamp.id), ProducerMark)
                    self._keep(stamp.id, _Last(number, mark))

    def repeats(self, stamp: ProducerStamp | None) -> Mark | None:
        """None if the request is next; if it was taken before, the place that it stood before.

        Raises `StaleProducer`, `SequenceGap`. Behind `learn`, as long as the producer is known.
        """
        if stamp is None:
            return None
        last = self._find(stamp.id)
        assert last is not None
        match admit_producer(last.number, stamp.mark):
            case Accepted():
                return None
            case Repeated():
                return last.mark
            case StaleProducerEpoch(current=current):
                raise StaleProducer(
                    f"epoch {current} of this producer has written since; this one is over", epoch=current
                )
            case HoleInSequence(expected=expected):
                raise SequenceGap(f"requests of this producer are missing: {expected} comes next", expected=expected)

    def records(self, stamp: ProducerStamp | None) -> dict[str, bytes | None]:
        """What stores the request's number; goes into its part."""
        return {} if stamp is None else {_key(stamp.id): encode_record(stamp.mark)}

    def note(self, stamp: ProducerStamp | None, mark: Mark) -> None:
        """The request was stamped as next, at ``mark``."""
        if stamp is not None:
            self._keep(stamp.id, _Last(stamp.mark, mark))

    def _find(self, producer_id: str) -> _Last | None:
        last = self._last.get(producer_id)
        return last if last is not None and self._journal.current(last.mark) else None

    def _keep(self, producer_id: str, last: _Last) -> None:
        self._last.pop(producer_id, None)
        if len(self._last) >= _KEPT:
            # What is not stored yet must stay: the log would say that it never was.
            self._last = {pid: each for pid, each in self._last.items() if not self._journal.settled(each.mark)}
        self._last[producer_id] = last


def _key(producer_id: str) -> str:
    return f"producer/{producer_id}"
