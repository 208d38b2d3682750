"""What a step writes: events with the records that go with them, indivisible in the log.

Each function here makes one of what a step is asked for; a step adds up what it needs and commits that at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from itertools import chain
from types import MappingProxyType
from typing import Final, final

from attrs import define, evolve, field, frozen

from ..codec import converter, encode_json
from ..errors import InvalidBody
from ..events import (
    JSON,
    BlockSnapshot,
    GenerationFinished,
    GenerationQueued,
    GenerationStarted,
    JSONObject,
    MessageRetracted,
    MessageSnapshot,
    QueuePaused,
    QueueResumed,
    Version,
    new_message_id,
    now,
)
from ..generation.generation import Producer
from ..generation.remote import RemoteProducer
from ..generation.stamper import Item
from ..rules.ending import SAFE_TEXTS, Ending, closing
from ..rules.lifecycle import Draft, OpenGeneration, WaitingGeneration
from ..rules.policy import Policy
from ..rules.queue import Queue, QueuedStart
from ..rules.records import (
    OPEN,
    SESSION,
    GenerationRecord,
    MessageRecord,
    OpenRecord,
    SessionRecord,
    dirty,
    generation_key,
    message_key,
    to_record,
)
from ..rules.states import GenerationState, Outcome

__all__ = [
    "NOTHING",
    "StartRequest",
    "Transaction",
    "after_stop",
    "all_dropped",
    "digest",
    "dropped",
    "ended",
    "enqueued",
    "posted",
    "replaced",
    "resumed",
    "retracted",
    "started",
    "user_message",
]


@final
@frozen
class Transaction:
    """Events and records that are stored together or not at all.

    ``items`` are drawn once, while they are stamped: there may be any number, and what ends a generation is made from
    where that stands by then.
    """

    items: Iterable[Item] = ()
    records: Mapping[str, bytes | None] = MappingProxyType({})

    def __add__(self, other: Transaction) -> Transaction:
        """This and then the other; where both set a record, the other does."""
        return Transaction(chain(self.items, other.items), {**self.records, **other.records})


NOTHING: Final = Transaction()


@final
@define(kw_only=True, eq=False)
class StartRequest:
    """One start on its way: what was asked, and whether a stop reached it before its turn came.

    What it holds can be written, whenever that is: `arguments` has seen to that, and nobody else can change it.
    """

    generation_id: str
    proposed: bool  # the caller chose the id
    producer: Producer
    producer_name: str
    registered: bool  # the producer is known by its name, in the next process too
    policy: Policy
    text: str | None = None
    input: JSON = None
    job_id: str | None = None
    metadata: JSONObject | None = None
    replaces: str | None = None
    on_last_disconnect: float | None = None
    idle_limit: float | None = None  # 0: none; None: its producer's
    continues: str | None = None
    idempotency_key: str | None = None
    principal: str = ""
    author: str | None = None
    message: MessageSnapshot | None = None  # where it is more than a text
    message_id: str = field(factory=new_message_id)
    names_message: bool = False  # the caller chose that id
    stopped: bool = False

    @property
    def asked(self) -> MessageSnapshot | None:
        """The user's message that comes with it."""
        return self.message if self.text is None else user_message(self.text, self.author)

    @property
    def brings_message(self) -> bool:
        return self.text is not None or self.message is not None

    @property
    def brings_content(self) -> bool:
        return self.brings_message or self.input is not None

    @property
    def digest(self) -> str:
        """Tells whether two starts with the same idempotency key ask for the same."""
        asked: list[JSON] = [
            self.generation_id if self.proposed else None,
            self.producer_name,
            self.policy.value,
            self.text,
            self.input,
            self.job_id,
            self.metadata,
            self.replaces,
            self.on_last_disconnect,
        ]
        # Only what is given, else the digest is that of versions that did not know them.
        if self.idle_limit is not None:
            asked.append({"idle_limit": self.idle_limit})
        if self.continues is not None:
            asked.append({"continues": self.continues})
        if self.message is not None:
            asked.append({"message": digest(self.message), "id": self.message_id if self.names_message else None})
        return sha256(encode_json(asked)).hexdigest()

    def __attrs_post_init__(self) -> None:
        """Refuse now what a policy never takes, whatever is live."""
        if self.policy is Policy.JOIN and (self.brings_content or self.continues is not None):
            raise InvalidBody("a start that joins brings neither text nor input, and continues nothing")
        if self.continues is not None and (self.brings_message or self.replaces is not None):
            raise InvalidBody("a start that continues a message brings no text, and replaces none")
        if self.text is not None and self.message is not None:
            raise InvalidBody("a start brings either text or message")


def user_message(text: str, author: str | None = None) -> MessageSnapshot:
    """A user's message that is one text."""
    blocks = (BlockSnapshot(kind="text", seq=0, text=text),)
    return MessageSnapshot(role="user", status="complete", blocks=blocks, author=author)


def _words(message: MessageSnapshot | None) -> str | None:
    """What it says in words: its texts, one below the other."""
    texts = [block.text for block in (message.blocks if message else ()) if block.kind == "text" and block.text]
    return "\n\n".join(texts) if texts else None


def posted(message: MessageSnapshot, message_id: str) -> Transaction:
    """A message of the session's own, with the record that knows it again."""
    record = to_record(MessageRecord(digest=digest(message)))
    return Transaction([(None, Draft(message, message_id))], {message_key(message_id): record})


def digest(message: MessageSnapshot) -> str:
    """Tells whether two messages have the same content, whoever posts them."""
    return sha256(encode_json(converter.unstructure(evolve(message, author=None, version=None)))).hexdigest()


def retracted(message_ids: Iterable[str], reason: str) -> Transaction:
    """The messages leave the transcript."""
    return Transaction((None, Draft(MessageRetracted(reason=reason), mid)) for mid in message_ids)


def ended(structure: OpenGeneration, ending: Ending, *, by: str | None = None) -> Transaction:
    """Close what is open, then `finished`; the generation leaves the index of what is open. ``by``: its producer."""
    record = GenerationRecord(turn=structure.turn, outcome=ending.outcome, code=ending.code, by=by)
    gid = structure.generation_id
    records: dict[str, bytes | None] = {OPEN: None, generation_key(gid): to_record(record), **dirty(gid, now())}
    results_id = new_message_id()
    if structure.calls:
        records[message_key(results_id)] = to_record(MessageRecord(generation_id=structure.generation_id))
    drafts = closing(structure, ending, new_message_id=lambda: results_id)
    return Transaction(((structure, draft) for draft in drafts), records)


def enqueued(queue: Queue, request: StartRequest, position: int) -> Transaction:
    """The start waits behind the others, at ``position`` of those that stay; ``queue`` has it when this returns."""
    item = QueuedStart(
        number=queue.next_number(),
        generation_id=request.generation_id,
        producer=request.producer_name,
        policy=request.policy.value,
        message_id=request.message_id,
        text=request.text,
        message=request.message,
        input=request.input,
        job_id=request.job_id,
        metadata=request.metadata,
        replaces=request.replaces,
        on_last_disconnect=request.on_last_disconnect,
        idle_limit=request.idle_limit,
        continues=request.continues,
        author=request.author,
    )
    records = queue.add(item)
    records[generation_key(item.generation_id)] = to_record(GenerationRecord())
    queued = GenerationQueued(
        producer=item.producer,
        policy=item.policy,
        position=position,
        metadata=item.metadata,
        text=_words(item.message) if item.text is None else item.text,
        author=item.author,
    )
    return Transaction([(WaitingGeneration(item.generation_id, item.job_id), Draft(queued))], records)


def replaced(message_ids: Sequence[str], old: OpenGeneration | None, *, rolled_back: bool) -> Transaction:
    """Retract the messages, and what the old generation's end adds behind them."""
    before = set(() if old is None else old.message_ids)

    def items() -> Iterator[Item]:
        kept = (mid for mid in message_ids if not (rolled_back and mid in before))
        yield from retracted(kept, "replaced").items
        if old is not None and not rolled_back:
            added = [mid for mid in old.message_ids if mid not in before]
            yield from retracted(added, "replaced").items

    return Transaction(items())


def dropped(queue: Queue, item: QueuedStart, ending: Ending) -> Transaction:
    """A start that waits ends without having begun; ``queue`` has it no longer when this returns."""
    was_paused = queue.paused
    records = queue.remove(item)
    record = GenerationRecord(outcome=ending.outcome, code=ending.code)
    records[generation_key(item.generation_id)] = to_record(record)
    waiting = WaitingGeneration(item.generation_id, item.job_id, GenerationState.QUEUED)
    items: list[Item] = [(waiting, Draft(ending.finished()))]
    if was_paused and not queue.paused:
        items.append((None, Draft(QueueResumed(reason="empty"))))
    return Transaction(items, records)


def all_dropped(
    queue: Queue,
    items: Sequence[QueuedStart],
    outcome: Outcome,
    *,
    by: str | None = None,
    author: str | None = None,
) -> Transaction:
    """Some that wait end without having begun, of themselves or because ``author`` stops them. Stamp it at once."""
    ending = Ending(outcome=outcome, code=outcome.upper(), message=SAFE_TEXTS[outcome], superseded_by=by, author=author)
    each = [dropped(queue, item, ending) for item in list(items)]
    records: dict[str, bytes | None] = {}
    for one in each:
        records.update(one.records)
    return Transaction(chain.from_iterable(one.items for one in each), records)


def after_stop(queue: Queue, choice: str, reason: str, author: str | None = None) -> Transaction:
    """What a stop makes of those that wait: ``pause``, ``continue`` or ``clear``. Stamp it at once."""
    if choice == "clear":
        return all_dropped(queue, queue.items, "stopped", author=author)
    return paused(queue, reason) if choice == "pause" else NOTHING


def paused(queue: Queue, reason: str) -> Transaction:
    """What waits goes on waiting after the live generation ended. Nothing where nothing waits."""
    if queue.paused or not len(queue):
        return NOTHING
    return Transaction([(None, Draft(QueuePaused(reason=reason)))], queue.pause(True))


def resumed(queue: Queue, reason: str) -> Transaction:
    """What waits goes on."""
    if not queue.paused:
        return NOTHING
    return Transaction([(None, Draft(QueueResumed(reason=reason)))], queue.pause(False))


def started(
    structure: OpenGeneration,
    request: StartRequest,
    *,
    supersedes: str | None,
    after: int,
    version: Version | None = None,
) -> Transaction:
    """The user's message, if there is one, then `started`; a start that a stop reached also finishes.

    ``after`` is an offset before the part's first event, ``version`` what the user's message is.
    """
    gid = structure.generation_id
    session = SessionRecord(turn=structure.turn, anew=structure.version is not None)
    records: dict[str, bytes | None] = {SESSION: to_record(session)}
    asked = NOTHING
    if request.asked is not None:
        asked = posted(evolve(request.asked, version=version), request.message_id)
    items: list[Item] = []
    started = GenerationStarted(
        producer=request.producer_name,
        policy=request.policy.value,
        supersedes=supersedes,
        metadata=request.metadata,
        author=request.author,
        continues=request.continues,
        version=structure.version,
    )
    items.append((structure, Draft(started)))
    if not request.stopped:
        open_ = OpenRecord(
            generation_id=gid,
            turn=structure.turn,
            after=after,
            job_id=structure.job_id,
            remote=isinstance(request.producer, RemoteProducer),
            on_last_disconnect=request.on_last_disconnect,
            idle_limit=request.idle_limit,
        )
        records[OPEN] = to_record(open_)
        records[generation_key(gid)] = to_record(GenerationRecord(turn=structure.turn))
    else:
        finished = GenerationFinished(
            outcome="stopped", code="STOPPED", message="Stopped before it began.", cleanup="clean"
        )
        items.append((structure, Draft(finished)))
        record = GenerationRecord(turn=structure.turn, outcome="stopped", code="STOPPED")
        records[generation_key(gid)] = to_record(record)
    return asked + Transaction(items, records)
