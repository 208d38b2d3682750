"""What is done to a session's messages and metadata from outside of a generation: post, retract, update."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import trio
from attrs import evolve

from ..codec import encode_json
from ..errors import GenerationActive, IdInUse, TimedOut
from ..events import Cursor, JSONObject, MessageSnapshot, SessionUpdated
from ..generation.stamper import LongPart, stamp
from ..results import Posted, Updated
from ..rules.lifecycle import Draft, Said
from ..rules.listing import said_in
from ..rules.merging import updated
from ..rules.records import METADATA
from ..stream.slices import in_slices
from .core import Core
from .life import Call
from .steps import Steps
from .transaction import digest, posted, retracted

__all__ = ["post", "retract", "said_without", "tell_last", "update", "wait_room"]

# Messages that are looked at for what was said last: what says nothing to people rarely comes in longer rows.
_LOOKED_AT: Final = 20


async def wait_room(core: Core) -> None:
    """Wait for room when the disk is behind, at most `Config.flush_timeout`; then it raises `TimedOut`."""
    with trio.move_on_after(core.config.flush_timeout) as limit:
        await core.journal.wait_room()
    if limit.cancelled_caught:
        raise TimedOut("the log is behind and takes nothing new", session_id=core.session_id)


async def post(core: Core, steps: Steps, message: MessageSnapshot, message_id: str, *, proposed: bool) -> Posted:
    """Append a whole message of the session's own, beside the steps; durable when this returns.

    The same id with the same content changes nothing; with other content it raises `IdInUse`. Raises `TimedOut` when
    there is no room, and what the session refuses by then: nothing was written. Behind that, as `Core.settled`.
    """
    await wait_room(core)
    if proposed:
        record = await core.message_ids.find(message_id)
        if record is not None:
            if record.digest != digest(message):
                raise IdInUse(
                    "a message with other content has this id", session_id=core.session_id, message_id=message_id
                )
            return Posted(message_id=message_id, cursor=core.journal.cursor, created=False)
    steps.check(Call.WRITE)  # again, behind the waits
    transaction = posted(message, message_id)
    mark = stamp(core.journal, transaction.items, transaction.records)
    core.message_ids.note(message_id, mark)
    await core.settled(mark)
    return Posted(message_id=message_id, cursor=core.journal.cursor_at(mark), created=True)


async def retract(core: Core, message_id: str, *, and_after: bool) -> Cursor:
    """Take the message, and with ``and_after`` those behind it, out of the transcript. A step.

    Raises `MessageNotFound`, and `GenerationActive` when one of them is the live generation's, or what that answers:
    it would go on, and stand there without its question.
    """
    await core.settled()
    question = await core.history.ask_state(lambda state: state.question)
    found = await core.history.message_ids(message_id)
    wanted = found if and_after else found[:1]
    said = await said_without(core, wanted)
    # Asked for behind the last wait: the live generation opens messages meanwhile.
    if core.live is not None and not set(wanted).isdisjoint({question, *core.live.structure.message_ids}):
        raise GenerationActive(
            "a message of the live generation, and what it answers, cannot be retracted; stop it first",
            session_id=core.session_id,
            message_id=message_id,
        )
    part = LongPart(core.journal)
    await in_slices(part.preparing(retracted(wanted, "retracted").items))
    mark = part.stamp()
    tell_last(core, said)
    await in_slices(part.writing())
    await core.settled(mark)
    return core.journal.cursor_at(mark)


async def said_without(core: Core, message_ids: Sequence[str]) -> Said | None:
    """What lists are to tell as said last once these are retracted, which stand side by side; see `tell_last`."""
    last = core.journal.listed.last
    if last is None or last.message_id not in message_ids:
        return last
    snapshot = await core.history.snapshot(_LOOKED_AT, message_ids[0])
    for message in reversed(snapshot.messages):
        said = said_in(message.message_id, message)
        if said is not None:
            return said
    return None


def tell_last(core: Core, said: Said | None) -> None:
    """Have lists tell this, where the part that was stamped just now has taken back what they told.

    To be called before that part is written, without a wait: then it is stored with it.
    """
    listed = core.journal.listed
    if listed.last is None and said is not None:
        core.journal.summarize(evolve(listed, last=said))


async def update(core: Core, patch: JSONObject) -> Updated:
    """Merge ``patch`` into the session's metadata. A step. Raises `InvalidBody` for too many."""
    # A patch whose caller was told `TimedOut` may yet be stored; this one comes on top of it.
    await core.settled()
    metadata = updated(await core.history.metadata(), patch)
    event = Draft(SessionUpdated(metadata=metadata))
    mark = stamp(core.journal, [(None, event)], {METADATA: encode_json(metadata)})
    await core.settled(mark)
    return Updated(metadata=metadata, cursor=core.journal.cursor_at(mark))
