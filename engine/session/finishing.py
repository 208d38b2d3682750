"""The end that a producer in another process gives its generation.

Owns when a finish is a repetition, and that none succeeds where readers cannot see all that was written.
"""

from __future__ import annotations

import logging
from typing import final

from ..config import Config
from ..errors import FinishFailed, GenerationMismatch, GenerationNotFound, PenstockError, StaleGeneration
from ..generation.run import Run
from ..rules.chunks import ProducerStamp
from ..rules.ending import Ending
from ..rules.records import GenerationRecord
from ..stream.history import Reads
from ..stream.journal import Journal, Mark
from .numbering import Numbering
from .slot import Slot

__all__ = ["Finishing", "driven_from_elsewhere", "refusal", "unfinished"]

logger = logging.getLogger("penstock.session")


@final
class Finishing:
    """Ends the remote generations of one session in memory."""

    def __init__(self, journal: Journal, reads: Reads, config: Config, *, slot: Slot, numbering: Numbering) -> None:
        self._journal = journal
        self._reads = reads
        self._config = config
        self._slot = slot
        self._numbering = numbering

    async def finish(self, gid: str, ending: Ending, stamp: ProducerStamp | None) -> tuple[Mark, bool]:
        """Write the end, or find that it stands there. A step; returns what to wait for, and whether it stood there.

        What it raises is told in `Session.finish`, but for `WriteFailed`, which there is `FinishFailed`.
        """
        await self._numbering.learn(stamp)
        before = self._numbering.repeats(stamp)
        if before is not None:
            return before, True
        by = "" if stamp is None else stamp.id
        run = driven_from_elsewhere(self._slot, gid)
        if run is not None and run.stand_in is not None:
            run.pen.check()
            mark = self._slot.write_end(run, ending, by=by, more=(iter(()), dict(self._numbering.records(stamp))))
            self._numbering.note(stamp, mark)
            run.stand_in.finish()
            return mark, False
        # What the log says of it is all there is to say, then.
        await self._journal.wait_committed(self._journal.mark(), self._config.flush_timeout)
        self._check_same_end(gid, await self._reads.generation(gid), ending, by)
        await self._numbering.learn(stamp)
        before = self._numbering.repeats(stamp)
        if before is None:
            before = self._journal.append((), self._numbering.records(stamp))
            self._numbering.note(stamp, before)
        return before, True

    def _check_same_end(self, gid: str, record: GenerationRecord | None, ending: Ending, by: str) -> None:
        """Raises unless the generation has ended as its producer now says again."""
        if record is None:
            if self._slot.live is not None:
                raise GenerationMismatch("another generation is live")
            raise GenerationNotFound("the session never saw this generation")
        if record.outcome is None:
            raise refusal(record)
        if (record.by, record.outcome) == (by, ending.outcome):
            return
        if record.by is None and record.code == "WRITE_FAILED":  # a producer may give that code to an end of its own
            raise unfinished()
        logger.warning(
            "session %s: generation %s, which ended as %s, was to be finished as %s: ignored",
            self._journal.session_id,
            gid,
            record.outcome,
            ending.outcome,
        )
        raise refusal(record)


def driven_from_elsewhere(slot: Slot, generation_id: str) -> Run | None:
    """The live generation, if it is this one. Raises `GenerationMismatch` when its producer is in this process."""
    live = slot.live
    if live is None or live.generation_id != generation_id:
        return None
    if live.stand_in is None:
        raise GenerationMismatch("the generation has a producer in the server; none other can write to it")
    return live


def refusal(record: GenerationRecord) -> PenstockError:
    """Why nothing can be written to a generation that the log knows and that is not live."""
    if record.turn is None and record.outcome is None:
        return GenerationMismatch("the generation waits in the queue; write to it once it has started")
    if record.outcome is None:
        return StaleGeneration("the generation has ended")
    return StaleGeneration(f"the generation has ended as {record.outcome}")


def unfinished() -> FinishFailed:
    return FinishFailed("what the generation wrote, or its end, could not be stored; read the session to see what was")
