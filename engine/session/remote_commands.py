"""What producers in other processes ask of a session, as values: see `commands`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, cast, final

import trio
from attrs import evolve, frozen

from ..codec import converter, decode_json, encode_json, structure
from ..errors import InvalidBody, PenstockError
from ..events import JSON, JSONObject
from ..results import ChunksAccepted, Finished
from ..rules.chunks import Chunk, Pieces, ProducerStamp
from ..shapes import check_object
from .arguments import checked_ending
from .commands import Command
from .producers import Producers
from .resident import Resident

__all__ = ["FENCE_WAIT", "Chunks", "Finish", "Keep", "WaitFenced"]

# How long an engine is asked at a time whether a generation is fenced: whoever waits longer asks again, also another
# engine, if that has the session by then.
FENCE_WAIT: Final = 20.0


@final
@frozen(kw_only=True)
class Chunks(Command[ChunksAccepted]):
    name = "chunks"

    chunks: Sequence[Chunk]
    stamp: ProducerStamp | None = None
    lease: float | None = None

    async def carry_out(self, resident: Resident) -> ChunksAccepted:
        return await resident.chunks(self.chunks, self.stamp, self.lease)

    @property
    def repeatable(self) -> bool:
        return self.stamp is not None

    def to_bytes(self) -> bytes:
        chunks = self.chunks
        told: JSONObject = cast("JSONObject", converter.unstructure(evolve(self, chunks=())))
        if isinstance(chunks, Pieces):
            return encode_json({**told, "pieces": cast("JSON", converter.unstructure(chunks, unstructure_as=Pieces))})
        return encode_json({**told, "chunks": [cast("JSON", converter.unstructure(each)) for each in chunks]})

    @classmethod
    def from_bytes(cls, body: bytes, producers: Producers) -> Chunks:
        given = dict(check_object(decode_json(body), "chunks"))
        pieces = given.pop("pieces", None)
        made = structure({"chunks": [], **given}, cls)
        made = made if pieces is None else evolve(made, chunks=structure(pieces, Pieces))
        if not made.chunks:
            raise InvalidBody("a batch has chunks")
        return made


@final
@frozen(kw_only=True)
class Keep(Command[ChunksAccepted]):
    name = "keep"

    generation_id: str | None = None
    stamp: ProducerStamp | None = None
    lease: float | None = None

    async def carry_out(self, resident: Resident) -> ChunksAccepted:
        return await resident.keep(self.generation_id, self.stamp, self.lease)

    @property
    def repeatable(self) -> bool:
        return True


@final
@frozen(kw_only=True)
class Finish(Command[Finished]):
    name = "finish"

    generation_id: str
    outcome: str
    code: str | None = None
    message: str | None = None
    usage: JSONObject | None = None
    stamp: ProducerStamp | None = None

    async def carry_out(self, resident: Resident) -> Finished:
        ending = checked_ending(self.outcome, self.code, self.message, self.usage)
        return await resident.finish(self.generation_id, ending, self.stamp)

    @property
    def repeatable(self) -> bool:
        return True


@final
@frozen(kw_only=True)
class WaitFenced(Command["PenstockError | None"]):
    """Answers None where it was waited for ``within`` seconds, and is to be asked for again."""

    name = "wait_fenced"

    generation_id: str
    within: float = FENCE_WAIT

    async def carry_out(self, resident: Resident) -> PenstockError | None:
        with trio.move_on_after(self.within):
            return await resident.wait_fenced(self.generation_id)
        return None

    @property
    def repeatable(self) -> bool:
        return True
