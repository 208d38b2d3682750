"""What a list of many sessions tells of one: a fold of its events, small enough to be stored anew with every turn.

Owns what is told and which events change that. It is stored as the session's summary in the log, in the same part as
the event that changes it, so that the two never differ. Nothing in it changes with a delta: a turn changes it when it
begins, when it ends, and where it asks for an approval.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from itertools import chain
from typing import Final, final

from attrs import evolve, frozen

from ..codec import decode, decode_json, encode_record, structure
from ..events import (
    ApprovalRequested,
    ApprovalResolved,
    BlockSnapshot,
    Data,
    GenerationFinished,
    GenerationQueued,
    GenerationStarted,
    JSONObject,
    MessageRetracted,
    MessageSnapshot,
    SessionReset,
    SessionUpdated,
)
from ..reducer import BlockView, MessageView
from .attachments import NAMING_KINDS
from .compacting import seconds_of
from .lifecycle import Draft, OpenGeneration, Said, WaitingGeneration, first_words
from .records import OpenRecord, read_record

__all__ = [
    "Listed",
    "begun",
    "changes_list",
    "follow",
    "found_again",
    "read_listed",
    "said_in",
    "saying",
    "title_of",
    "without",
    "words_of",
]


@final
@frozen(kw_only=True)
class Listed:
    """What is told of one session.

    ``created`` and ``updated`` are times as events have them. ``running`` is the live generation, ``approvals`` how
    many of its approvals are open. ``first`` is the first thing that a user said, ``last`` the last that a user or
    an assistant did.
    """

    created: str | None = None
    updated: str | None = None
    running: str | None = None
    approvals: int = 0
    first: Said | None = None
    last: Said | None = None

    @property
    def rank(self) -> int:
        """Its place in a list by activity: ``updated`` in milliseconds since 1970, 0 where that is not known."""
        return 0 if self.updated is None else round(seconds_of(self.updated) * 1000)

    def encoded(self) -> bytes:
        """As it is stored; `read_listed` reads it back."""
        return encode_record(self)


_FOLLOWED: Final = frozenset(
    {
        ApprovalRequested,
        ApprovalResolved,
        GenerationFinished,
        GenerationQueued,
        GenerationStarted,
        MessageRetracted,
        MessageSnapshot,
        SessionReset,
        SessionUpdated,
    }
)


def changes_list(data: Data) -> bool:
    """Whether an event like this may change what is told; `follow` says how."""
    return type(data) in _FOLLOWED


def follow(listed: Listed, generation: OpenGeneration | WaitingGeneration | None, draft: Draft, time: str) -> Listed:
    """What is told once this event stands behind all others; ``generation`` is the one that it belongs to, if any.

    The very same object where nothing changes.
    """
    data = draft.data
    if type(data) not in _FOLLOWED:
        return listed
    own = generation if isinstance(generation, OpenGeneration) else None
    match data:
        case MessageSnapshot():
            if own is not None:
                return listed  # told when its generation ends, as all that one says
            return saying(evolve(listed, updated=time), said_in(draft.message_id, data))
        case MessageRetracted():
            return without(listed, {draft.message_id})
        case GenerationStarted():
            return evolve(listed, updated=time, running=None if own is None else own.generation_id, approvals=0)
        case GenerationFinished():
            if own is None:
                return evolve(listed, updated=time)  # it had only waited
            return evolve(listed, updated=time, running=None, approvals=0, last=own.last_said() or listed.last)
        case ApprovalRequested():
            return evolve(listed, updated=time, approvals=listed.approvals + 1)
        case ApprovalResolved():
            return evolve(listed, updated=time, approvals=max(0, listed.approvals - 1))
        case SessionReset():
            return Listed(created=listed.created, updated=time)
        case _:
            return evolve(listed, updated=time)


def begun(time: str) -> Listed:
    """What is told of a session that begins."""
    return Listed(created=time, updated=time)


def said_in(message_id: str | None, message: MessageSnapshot | MessageView) -> Said | None:
    """What is told of a whole message; None where it says nothing that is shown."""
    return first_words(message_id, message.role, words_of(message.blocks))


def words_of(blocks: Sequence[BlockSnapshot | BlockView]) -> Iterator[str | None]:
    """Where the words of a message are looked for: in its texts, else in the names of what it attaches."""
    texts = (block.text for block in blocks if block.kind == "text")
    names = (block.filename or block.title or block.url for block in blocks if block.kind in NAMING_KINDS)
    return chain(texts, names)


def saying(listed: Listed, said: Said | None) -> Listed:
    """What is told once this is said behind all else; the very same object where that is nothing."""
    if said is None:
        return listed
    first = said if listed.first is None and said.role == "user" else listed.first
    return evolve(listed, first=first, last=said)


def without(listed: Listed, message_ids: Collection[str | None]) -> Listed:
    """What is told once these messages are taken back; the very same object where they were not told of."""
    first, last = (
        None if said is not None and said.message_id in message_ids else said for said in (listed.first, listed.last)
    )
    if first is listed.first and last is listed.last:
        return listed
    return evolve(listed, first=first, last=last)


def title_of(metadata: JSONObject, listed: Listed) -> str | None:
    """What the session is called: as its metadata say, else by the first words that a user said."""
    given = metadata.get("title")
    if isinstance(given, str) and given.strip():
        return given
    return None if listed.first is None else listed.first.text


def read_listed(body: bytes | None) -> Listed:
    """What is stored. One that cannot be read says nothing: all that it tells, the events tell."""
    try:
        return Listed() if body is None else _with_a_rank(structure(decode_json(body), Listed))
    except Exception:  # noqa: BLE001  # damage may lead to anything
        return Listed()


def _with_a_rank(listed: Listed) -> Listed:
    """The same. Raises `InvalidBody` where its time is none."""
    assert listed.rank < 2**53
    return listed


def found_again(first: Sequence[bytes], last: bytes | None, open_: bytes | None) -> Listed:
    """What can be told of a session whose summary was never kept, by its ``first`` events, its ``last`` one, and the
    record `OPEN`, each as it is stored. What cannot be read is passed over.
    """
    listed = Listed()
    for body in first:
        try:
            event = decode(body)
            listed = begun(event.time) if listed.created is None else listed
            if isinstance(event.data, MessageSnapshot) and event.generation_id is None:
                listed = saying(listed, said_in(event.message_id, event.data))
        except Exception:  # noqa: BLE001  # as above
            break
    listed = evolve(listed, last=None)
    try:
        if last is not None:
            listed = _with_a_rank(evolve(listed, updated=decode(last).time))
    except Exception:  # noqa: BLE001  # as above
        listed = evolve(listed, updated=None)
    try:
        running = None if open_ is None else read_record(open_, OpenRecord).generation_id
        return evolve(listed, running=running)
    except Exception:  # noqa: BLE001  # as above
        return listed
