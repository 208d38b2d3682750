"""What a step writes: the items of a start and of an end, each with its records, to go into the log as one part."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from typing import TypeAlias, final

from attrs import define, field

from .codec import check_json, converter, encode_json
from .errors import InvalidBody
from .events import (
    JSON,
    BlockSnapshot,
    GenerationFinished,
    GenerationStarted,
    JSONObject,
    MessageSnapshot,
    new_message_id,
)
from .generation import Producer
from .lifecycle import Draft, Ending, OpenGeneration
from .policy import Policy
from .records import (
    OPEN,
    SESSION,
    GenerationRecord,
    MessageRecord,
    OpenRecord,
    SessionRecord,
    generation_key,
    message_key,
    to_record,
)
from .stamper import Item

__all__ = ["Part", "StartRequest", "digest", "end_part", "posted", "start_part", "user_message"]

# Items, to be drawn while they are stamped, and the records that go with them.
Part: TypeAlias = tuple[Iterator[Item], dict[str, bytes | None]]


@final
@define(kw_only=True, eq=False)
class StartRequest:
    """One start on its way: what was asked, and whether a stop reached it before its turn came."""

    generation_id: str
    proposed: bool  # the caller chose the id
    producer: Producer
    producer_name: str
    policy: Policy
    text: str | None = None
    input: JSON = None
    job_id: str | None = None
    metadata: JSONObject | None = None
    message_id: str = field(factory=new_message_id)
    stopped: bool = False

    @property
    def brings_content(self) -> bool:
        return self.text is not None or self.input is not None

    def __attrs_post_init__(self) -> None:
        """Refuse now what could not be written later, and what a policy never takes, whatever is live."""
        if self.policy is Policy.JOIN and self.brings_content:
            raise InvalidBody("a start that joins brings neither text nor input")
        check_json(self.input, "input")
        check_json(self.metadata, "metadata")
        encode_json([self.text, self.input, self.metadata, self.producer_name])


def user_message(text: str) -> MessageSnapshot:
    """A user's message that is one text."""
    return MessageSnapshot(role="user", status="complete", blocks=(BlockSnapshot(kind="text", seq=0, text=text),))


def posted(message: MessageSnapshot, message_id: str) -> tuple[Item, dict[str, bytes | None]]:
    """A message of the session's own, with the record that knows it again."""
    record = to_record(MessageRecord(digest=digest(message)))
    return (None, Draft(message, message_id)), {message_key(message_id): record}


def digest(message: MessageSnapshot) -> str:
    """Tells whether two messages have the same content."""
    return sha256(encode_json(converter.unstructure(message))).hexdigest()


def end_part(structure: OpenGeneration, ending: Ending) -> Part:
    """Close what is open, then `finished`; the generation leaves the index of what is open."""
    record = GenerationRecord(turn=structure.turn, outcome=ending.outcome)
    records: dict[str, bytes | None] = {OPEN: None, generation_key(structure.generation_id): to_record(record)}
    results_id = new_message_id()
    if structure.unanswered:
        records[message_key(results_id)] = to_record(MessageRecord(generation_id=structure.generation_id))
    return ((structure, draft) for draft in structure.closing(ending, new_message_id=lambda: results_id)), records


def start_part(structure: OpenGeneration, request: StartRequest, *, supersedes: str | None, after: int) -> Part:
    """The user's message, if there is one, then `started`; a start that a stop reached also finishes.

    ``after`` is an offset before the part's first event.
    """
    gid = structure.generation_id
    records: dict[str, bytes | None] = {SESSION: to_record(SessionRecord(turn=structure.turn))}
    items: list[Item] = []
    if request.text is not None:
        message, record = posted(user_message(request.text), request.message_id)
        items.append(message)
        records.update(record)
    started = GenerationStarted(
        producer=request.producer_name, policy=request.policy.value, supersedes=supersedes, metadata=request.metadata
    )
    items.append((structure, Draft(started)))
    if not request.stopped:
        open_ = OpenRecord(generation_id=gid, turn=structure.turn, after=after, job_id=structure.job_id)
        records[OPEN] = to_record(open_)
        records[generation_key(gid)] = to_record(GenerationRecord(turn=structure.turn))
    else:
        finished = GenerationFinished(
            outcome="stopped", code="STOPPED", message="Stopped before it began.", cleanup="clean"
        )
        items.append((structure, Draft(finished)))
        records[generation_key(gid)] = to_record(GenerationRecord(turn=structure.turn, outcome="stopped"))
    return iter(items), records
