"""The end that a producer in another process gives its generation.

Owns when a finish is a repetition, and that none succeeds where readers cannot see all that was written.
"""

from __future__ import annotations

import logging

from ..errors import FinishFailed, GenerationMismatch, GenerationNotFound, PenstockError, StaleGeneration
from ..generation.run import Run
from ..rules.chunks import ProducerStamp
from ..rules.ending import Ending
from ..rules.records import GenerationRecord
from ..stream.journal import Mark
from .core import Core
from .ending import write_end
from .numbering import Numbering
from .transaction import Transaction

__all__ = ["driven_from_elsewhere", "finish", "refusal", "unfinished"]

logger = logging.getLogger("penstock.session")


async def finish(
    core: Core, numbering: Numbering, gid: str, ending: Ending, stamp: ProducerStamp | None
) -> tuple[Mark, bool]:
    """Write the end, or find that it stands there. A step; returns what to wait for, and whether it stood there.

    What it raises is told in `Session.finish`, but for `WriteFailed`, which there is `FinishFailed`.
    """
    await numbering.learn(stamp)
    before = numbering.repeats(stamp)
    if before is not None:
        return before, True
    by = "" if stamp is None else stamp.id
    run = driven_from_elsewhere(core, gid)
    if run is not None and run.remote is not None:
        run.writer.check()
        mark = write_end(core, run, ending, by=by, more=Transaction(records=numbering.records(stamp)))
        numbering.note(stamp, mark)
        run.remote.finish()
        return mark, False
    # What the log says of it is all there is to say, then.
    await core.settled()
    _check_same_end(core, gid, await core.history.generation(gid), ending, by)
    await numbering.learn(stamp)
    before = numbering.repeats(stamp)
    if before is None:
        before = core.journal.append((), numbering.records(stamp))
        numbering.note(stamp, before)
    return before, True


def _check_same_end(core: Core, gid: str, record: GenerationRecord | None, ending: Ending, by: str) -> None:
    """Raises unless the generation has ended as its producer now says again."""
    if record is None:
        if core.live is not None:
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
        core.session_id,
        gid,
        record.outcome,
        ending.outcome,
    )
    raise refusal(record)


def driven_from_elsewhere(core: Core, generation_id: str) -> Run | None:
    """The live generation, if it is this one. Raises `GenerationMismatch` when its producer is in this process."""
    live = core.live
    if live is None or live.generation_id != generation_id:
        return None
    if live.remote is None:
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
