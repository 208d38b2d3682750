"""What people send into one live generation: taken in, used by the producer, or handed back.

Owns the checks of an input, the bounded channel between `input.accepted` and the producer, and the memory of what
was taken in, so that a repeated input is taken once. What is not applied the engine returns at the end (rule R4).
"""

from __future__ import annotations

from contextlib import suppress
from hashlib import sha256
from typing import Final, cast, final

import trio
from attrs import frozen
from uuid_utils import uuid7

from ..codec import encode_json, own_json
from ..errors import IdInUse, InvalidBody, InvalidId, QueueFull
from ..events import InputAccepted, JSONObject
from ..rules.lifecycle import Draft
from ..shapes import check_object
from .writer import GenerationWriter

__all__ = ["APPROVAL", "Input", "Inputs"]

# The kind that answers an approval; all others go to the producer.
APPROVAL: Final = "approval"

_RESERVED: Final = ("input_id", "kind")
# Ids and kinds are words, not content: enough for a UUID with a prefix, too short to hide a text in.
_LENGTH: Final = 128


@final
@frozen(kw_only=True)
class Input:
    """One input: ``steer``, or a kind of the application's own, with its content."""

    input_id: str
    kind: str
    content: JSONObject

    @classmethod
    def checked(cls, kind: object, content: object, input_id: object = None) -> Input:
        """An input as it came from outside; without an id it gets one. Raises `InvalidBody`, `InvalidId`."""
        if type(kind) is not str or not 1 <= len(kind) <= _LENGTH or not kind.isprintable():
            raise InvalidBody(f"the kind of an input is 1 to {_LENGTH} printable characters")
        own = cast("JSONObject", own_json(check_object(content, "content"), "content"))
        for name in _RESERVED:
            if name in own:
                raise InvalidBody(f"{name} is not a name for an input's content")
        if input_id is None:
            input_id = str(uuid7())
        elif type(input_id) is not str or not 1 <= len(input_id) <= _LENGTH or not input_id.isprintable():
            raise InvalidId(f"an input_id is 1 to {_LENGTH} printable characters")
        return cls(input_id=input_id, kind=kind, content=own)

    @property
    def digest(self) -> bytes:
        """Tells whether two inputs say the same."""
        return sha256(encode_json([self.kind, self.content])).digest()


@final
class Inputs:
    """At most ``bound`` inputs wait for the producer."""

    __slots__ = ("_bound", "_closed", "_known", "_opened", "_writer")

    def __init__(self, writer: GenerationWriter, *, bound: int) -> None:
        self._writer = writer
        self._bound = bound
        self._opened: tuple[trio.MemorySendChannel[Input], trio.MemoryReceiveChannel[Input]] | None = None
        self._closed = False
        self._known: dict[str, bytes] = {}

    def _channel(self) -> tuple[trio.MemorySendChannel[Input], trio.MemoryReceiveChannel[Input]]:
        """Made when it is needed first: most generations are sent nothing, and it takes 2 KiB."""
        if self._opened is None:
            self._opened = trio.open_memory_channel[Input](self._bound)
            if self._closed:
                self._opened[0].close()
        return self._opened

    def knows(self, given: Input) -> bool:
        """Whether this very input was taken in before. Raises `IdInUse` when another one had its id."""
        known = self._known.get(given.input_id)
        if known is not None and known != given.digest:
            raise IdInUse(
                "another input of this generation has this input_id",
                session_id=self._writer.session_id,
                generation_id=self._writer.generation_id,
            )
        return known is not None

    def note(self, given: Input) -> None:
        """The input was taken in."""
        self._known[given.input_id] = given.digest

    def add(self, given: Input) -> None:
        """Write `input.accepted` and lay the input before the producer. Raises `QueueFull`; nothing is written then."""
        send, _ = self._channel()
        if send.statistics().current_buffer_used >= self._bound:
            raise QueueFull(
                f"{self._bound} inputs wait for the producer",
                session_id=self._writer.session_id,
                generation_id=self._writer.generation_id,
            )
        self._writer.put_nowait(Draft(InputAccepted(input_id=given.input_id, kind=given.kind, extra=given.content)))
        send.send_nowait(given)

    def adopt(self, given: Input, *, waiting: bool) -> None:
        """An input that a process before this one took in; ``waiting``: its producer has not applied it yet."""
        self.note(given)
        if waiting:
            send, _ = self._channel()
            with suppress(trio.WouldBlock):  # the bound was higher then
                send.send_nowait(given)

    def free(self) -> None:
        """A producer in another process, which reads its inputs from the events, applied one: there is room for one."""
        _, receive = self._channel()
        with suppress(trio.WouldBlock):
            receive.receive_nowait()

    async def receive(self) -> Input | None:
        """The next input; None when the generation is fenced first. Cancellation loses nothing."""
        _, receive = self._channel()
        try:
            return await receive.receive()
        except trio.EndOfChannel:
            return None

    def receive_nowait(self) -> Input:
        """The next input, if one waits. Raises `trio.WouldBlock`."""
        _, receive = self._channel()
        return receive.receive_nowait()

    def close(self) -> None:
        """The fence is up: nothing is taken in, and who waits learns so."""
        self._closed = True
        if self._opened is not None:
            self._opened[0].close()
