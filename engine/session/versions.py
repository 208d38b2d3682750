"""What leaves the transcript for another version of it, and how a version comes back.

Owns what is written about both. A version that is restored is the same version again, whatever its messages are called:
it keeps its number, and the one that stood there keeps its own, so that going back and forth adds none.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import final

from attrs import evolve, frozen

from ..errors import GenerationActive
from ..events import ForkedGeneration, MessageSnapshot, Version, new_message_id
from ..generation.stamper import LongPart
from ..reducer import GenerationInfo, MessageView
from ..results import Restored
from ..rules.forking import carrying, digesting, end_of, telling
from ..rules.listing import said_in
from ..rules.records import MessageRecord, VersionRecord, message_key, to_record, version_key
from ..stream.folding import Standing
from ..stream.slices import in_slices
from ..stream.versions import find, record_of, version_of
from ..work import Work, emptying
from .core import Core
from .ending import finished_first
from .idempotency import Key
from .messages import said_without, tell_last
from .transaction import retracted

__all__ = ["Leaving", "leaving", "restore"]


@final
@frozen
class Leaving:
    """A message that is about to leave the transcript, with all that follows it, for another version of it.

    `Standing.last` is 0 where more of it comes right before it leaves.
    """

    standing: Standing
    known: MessageRecord

    @property
    def next(self) -> Version:
        """What a new one in its place would be."""
        version = version_of(self.standing.message)
        return evolve(version, index=version.count + 1, count=version.count + 1)

    def records(self, left: int) -> Mapping[str, bytes | None]:
        """What tells where to find it again, once it has left with the event at this offset."""
        standing, version = self.standing, version_of(self.standing.message)
        message_id = standing.message.message_id
        where = VersionRecord(
            message_id=message_id,
            first=standing.first,
            last=standing.last or left - 1,
            left=left,
            behind=standing.behind,
        )
        return {
            version_key(version.of, version.index): to_record(where),
            message_key(message_id): to_record(evolve(self.known, of=version.of, index=version.index)),
        }


async def leaving(core: Core, message_id: str) -> Leaving:
    """The message as it stands; what is live ends before it leaves. Raises `MessageNotFound`."""
    standing = await core.history.ask(lambda fold: fold.standing(message_id))
    if core.live is not None and message_id in core.live.structure.asked_in:
        standing = evolve(standing, last=0)  # the end says that what was asked for is refused
    return Leaving(standing, await core.message_ids.find(message_id) or MessageRecord())


async def restore(core: Core, message_id: str, key: Key) -> Restored:
    """Take out what stands in place of a version, and bring that back with all that followed it. A step.

    One that stands there already stays as it is. Raises `MessageNotFound`, `GenerationActive`, `IdempotencyConflict`.
    """
    await core.settled()
    answer = await core.answers.find_restored(key)
    if answer is not None:
        return answer
    live = finished_first(core)
    await core.settled()
    found = await find(core.history, message_id)
    out: Sequence[str] = ()
    gone: Leaving | None = None
    if found.standing is not None:
        stands = found.standing.message.message_id
        out = await core.history.message_ids(stands)
        if found.version == found.stands:
            return Restored(message_ids=tuple(out), cursor=core.journal.cursor)
        gone = await leaving(core, stands)
    if live is not None:
        raise GenerationActive(
            "an answer runs behind this message; stop it first",
            session_id=core.session_id,
            generation_id=live.generation_id,
            message_id=message_id,
        )
    said = await said_without(core, out)
    record = await record_of(core.history, found.version)
    messages, generations = await core.history.ask(lambda fold: fold.left_with(record.first, record.left))
    ids: dict[str, str] = {}  # the new ones, by the old
    part = LongPart(core.journal)
    await in_slices(part.preparing(retracted(out, "replaced").items))
    brought = await in_slices(_bringing(part, found.version, messages, generations, ids))

    def records(offset: int) -> Mapping[str, bytes | None]:
        return {
            **brought,
            **({} if gone is None else gone.records(offset - len(part) + 1)),
            **core.answers.restored(key, offset, len(ids)),
        }

    core.journal.raise_token()
    mark = part.stamp(records)
    tell_last(core, said)
    await in_slices(part.writing())
    await core.settled(mark)
    await in_slices(emptying(brought))
    return Restored(message_ids=tuple(ids.values()), cursor=core.journal.cursor_at(mark))


def _bringing(
    part: LongPart,
    version: Version,
    messages: deque[MessageView],
    generations: dict[str, GenerationInfo],
    ids: dict[str, str],
) -> Work[dict[str, bytes | None]]:
    """Add the messages to ``part``, under new ``ids``, by which they name those before them; the records for them.

    What is added is taken out of ``messages``, and all of ``generations``.
    """
    records: dict[str, bytes | None] = {}
    asked: tuple[str, MessageSnapshot] | None = None  # what a user said first
    last: tuple[str, MessageSnapshot] | None = None  # what was said last
    while messages:
        old = messages.popleft()
        message_id = ids[old.message_id] = new_message_id()
        parent = old.parent_message_id or ""
        message = evolve(old, parent_message_id=ids.get(parent, parent) or None)
        whole, said = yield from carrying(message)
        wrote = generations.get(old.generation_id or "")
        data = telling(
            said,
            author=old.author,
            continues=None if old.continues is None else ids.get(old.continues, old.continues),
            generation=None if wrote is None else _end(wrote),
            version=old.version if records else version,
        )
        part.add_whole(message_id, whole, data)
        # As of a message that was posted: repeated with the same content, it is the same.
        record = MessageRecord(digest=(yield from digesting(said)))
        records[message_key(message_id)] = to_record(record)
        if said_in(message_id, whole) is not None:
            last = (message_id, whole)
            asked = last if asked is None and whole.role == "user" else asked
        yield
    for told in (asked, last):
        if told is not None:
            part.tell(*told)
    yield from emptying(generations)
    return records


def _end(generation: GenerationInfo) -> ForkedGeneration | None:
    """How it ended, with all that snapshots tell of that."""
    end = end_of(generation)
    return end and evolve(
        end,
        started=generation.started,
        finished=generation.finished,
        retryable=generation.retryable,
        usage=generation.usage,
        author=generation.author,
    )
