"""What is asked of a session that writes in it, as values: carried out here, or carried to the engine that has it.

Each is one method of `Session`, with arguments that were checked and ids that were given before. What it does is the
resident's; how it gets to another engine is `forwarding`'s.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping
from functools import cache, partial
from typing import Any, ClassVar, Generic, Self, TypeVar, cast, final

from attrs import evolve, fields, frozen, resolve_types

from ..codec import converter, decode_json, encode_json, structure
from ..errors import InvalidBody, ProducerNotFound
from ..events import JSON, Cursor, JSONObject, MessageSnapshot, new_message_id
from ..results import FileKept, Posted, Queued, QueueNext, Restored, Started, Stopped, Updated
from ..shapes import check_object
from .ending import reset
from .idempotency import Key
from .messages import retract, update
from .producers import Producers
from .queue import dequeue, queue_next
from .resident import Resident
from .transaction import StartRequest
from .versions import restore

__all__ = [
    "Command",
    "DeleteSession",
    "Dequeue",
    "Give",
    "KeepFile",
    "Post",
    "Reset",
    "Restore",
    "Resume",
    "Retract",
    "Start",
    "Stop",
    "Update",
]

T = TypeVar("T")


class Command(abc.ABC, Generic[T]):
    """One call, whose answer is a ``T``. Its ``name`` is that of the method."""

    __slots__ = ()

    name: ClassVar[str]

    @abc.abstractmethod
    async def carry_out(self, resident: Resident) -> T:
        """Do it, in a session in memory. Raises what the method raises, and `Moved` where nothing of it was written."""

    @property
    def repeatable(self) -> bool:
        """Whether it may be asked for again when nobody knows what became of it: the second time changes nothing."""
        return False

    def identified(self) -> Self:
        """The same, `repeatable` if that takes no more than a key of its own."""
        return self

    def answered(self, answer: T) -> T:
        """``answer`` to what was `identified`, as it would be to this."""
        return answer

    def to_bytes(self) -> bytes:
        """Raises `InvalidBody` for what only this process can carry out."""
        return encode_json(cast("JSONObject", converter.unstructure(self)))

    @classmethod
    def from_bytes(cls, body: bytes, producers: Producers) -> Self:
        """What `to_bytes` made, in the engine that has these producers. Raises `InvalidBody`, `ProducerNotFound`."""
        return structure(decode_json(body), cls)


@final
@frozen(kw_only=True)
class Start(Command["Started | Queued"]):
    """``unknown``: this engine does not know the producer; another one may."""

    name = "start"

    request: StartRequest
    unknown: ProducerNotFound | None = None

    async def carry_out(self, resident: Resident) -> Started | Queued:
        if self.unknown is not None:
            raise self.unknown
        return await resident.start(self.request)

    @property
    def repeatable(self) -> bool:
        return self.request.idempotency_key is not None

    def identified(self) -> Start:
        if self.repeatable:
            return self
        return evolve(self, request=evolve(self.request, idempotency_key=f"\0{self.request.generation_id}"))

    def answered(self, answer: Started | Queued) -> Started | Queued:
        return answer if self.repeatable else evolve(answer, repeated=False)

    def to_bytes(self) -> bytes:
        if not self.request.registered:
            raise InvalidBody(
                "another engine has the session, and a producer that is a function cannot be carried there: register "
                "it, and name it"
            )
        request = self.request
        told = {
            name: cast("JSON", converter.unstructure(value, unstructure_as=kind))
            for name, kind in _carried().items()
            if (value := getattr(request, name)) is not None
        }
        return encode_json(told)

    @classmethod
    def from_bytes(cls, body: bytes, producers: Producers) -> Start:
        given = check_object(decode_json(body), "a start")
        known = _carried()
        made: dict[str, Any] = {name: structure(each, known[name]) for name, each in given.items() if name in known}
        try:
            producer, _ = producers.find(cast("str", made["producer_name"]))
            return cls(request=StartRequest(producer=producer, registered=True, **made))
        except (KeyError, TypeError) as error:
            raise InvalidBody(f"a start lacks something: {error}") from error


@cache
def _carried() -> Mapping[str, type]:
    """The types of a start's fields that are told, by name."""
    untold = ("producer", "registered", "stopped")
    resolved = fields(resolve_types(StartRequest))
    return {each.name: cast("type", each.type) for each in resolved if each.name not in untold}


@final
@frozen(kw_only=True)
class Stop(Command[Stopped]):
    name = "stop"

    generation_id: str | None = None
    reason: str
    queue: str
    author: str | None = None

    async def carry_out(self, resident: Resident) -> Stopped:
        return await resident.stop(self.generation_id, self.reason, self.queue, self.author)

    @property
    def repeatable(self) -> bool:
        return self.generation_id is not None


@final
@frozen(kw_only=True)
class Resume(Command[QueueNext]):
    name = "queue_next"

    async def carry_out(self, resident: Resident) -> QueueNext:
        return await resident.steps.take(partial(queue_next, resident.core))


@final
@frozen(kw_only=True)
class Dequeue(Command[None]):
    name = "dequeue"

    generation_id: str

    async def carry_out(self, resident: Resident) -> None:
        await resident.steps.take(partial(dequeue, resident.core, self.generation_id))


@final
@frozen(kw_only=True)
class Post(Command[Posted]):
    name = "post"

    message: MessageSnapshot
    message_id: str
    proposed: bool

    async def carry_out(self, resident: Resident) -> Posted:
        return await resident.post(self.message, self.message_id, proposed=self.proposed)

    @property
    def repeatable(self) -> bool:
        return self.proposed  # else nobody looks whether the id is there

    def identified(self) -> Post:
        return evolve(self, proposed=True)

    def answered(self, answer: Posted) -> Posted:
        return answer if self.proposed else evolve(answer, created=True)


@final
@frozen(kw_only=True)
class Retract(Command[Cursor]):
    name = "retract"

    message_id: str
    and_after: bool

    async def carry_out(self, resident: Resident) -> Cursor:
        return await resident.steps.take(partial(retract, resident.core, self.message_id, and_after=self.and_after))


@final
@frozen(kw_only=True)
class Restore(Command[Restored]):
    name = "restore"

    message_id: str
    key: str | None = None
    principal: str = ""
    own: str | None = None  # a key of the engine's that asks another one

    async def carry_out(self, resident: Resident) -> Restored:
        key = Key(key=self.own or self.key, principal=self.principal, digest=f"restore {self.message_id}")
        return await resident.steps.take(partial(restore, resident.core, self.message_id, key))

    @property
    def repeatable(self) -> bool:
        return (self.own or self.key) is not None

    def identified(self) -> Restore:
        return self if self.repeatable else evolve(self, own=f"\0{new_message_id()}")

    def answered(self, answer: Restored) -> Restored:
        return answer if self.repeatable else evolve(answer, repeated=False)


@final
@frozen(kw_only=True)
class Update(Command[Updated]):
    name = "update"

    patch: JSONObject

    async def carry_out(self, resident: Resident) -> Updated:
        return await resident.steps.take(partial(update, resident.core, self.patch))


@final
@frozen(kw_only=True)
class Reset(Command[Cursor]):
    name = "reset"

    reason: str | None = None

    async def carry_out(self, resident: Resident) -> Cursor:
        mark = await resident.steps.take(partial(reset, resident.core, self.reason))
        return resident.core.journal.cursor_at(mark)


@final
@frozen(kw_only=True)
class DeleteSession(Command[None]):
    name = "delete"

    async def carry_out(self, resident: Resident) -> None:
        await resident.delete()


@final
@frozen(kw_only=True)
class Give(Command[str]):
    """An input."""

    name = "input"

    generation_id: str
    kind: str
    content: JSONObject
    input_id: str | None = None
    by: str | None = None

    async def carry_out(self, resident: Resident) -> str:
        return await resident.input(self.generation_id, self.kind, self.content, input_id=self.input_id, by=self.by)

    @property
    def repeatable(self) -> bool:
        return self.input_id is not None

    def identified(self) -> Give:
        return self if self.repeatable else evolve(self, input_id=new_message_id())


@final
@frozen(kw_only=True)
class KeepFile(Command[FileKept]):
    """``content`` is not among what JSON says of it: it stands behind that."""

    name = "keep_file"

    content: bytes = b""
    media_type: str
    filename: str | None = None
    size: int | None = None

    async def carry_out(self, resident: Resident) -> FileKept:
        return await resident.keep_file(self.content, self.media_type, self.filename, self.size)

    @property
    def repeatable(self) -> bool:
        return True

    def to_bytes(self) -> bytes:
        told: JSONObject = cast("JSONObject", converter.unstructure(evolve(self, content=b"")))
        return b"\n".join((encode_json(told), self.content))  # JSON has no line's end

    @classmethod
    def from_bytes(cls, body: bytes, producers: Producers) -> KeepFile:
        told, _, content = body.partition(b"\n")
        return evolve(structure(decode_json(told), cls), content=content)
