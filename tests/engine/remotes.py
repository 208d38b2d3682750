"""A producer in another process, as tests play it."""

from __future__ import annotations

from typing import Literal, final

from penstock.engine import Chunk, ChunksAccepted, Event, Finished, JSONObject, ProducerStamp, Session, to_json

__all__ = ["Remote", "body", "texts_of", "types_of"]


def body(generation_id: str, text: str | None = None, **fields: object) -> Chunk:
    """A chunk: a delta of ``text``, or what ``fields`` say."""
    data: object = fields.pop("data", {} if text is None else {"text": text})
    return Chunk(generation_id=generation_id, data=data, **fields)  # type: ignore[arg-type]


def types_of(events: list[Event]) -> list[str]:
    return [event.type for event in events]


def texts_of(events: list[Event]) -> dict[str, str]:
    """The text of every message, from its deltas."""
    texts: dict[str, str] = {}
    for event in events:
        if event.type == "block.delta" and event.message_id is not None:
            data = to_json(event)["data"]
            assert isinstance(data, dict)
            texts[event.message_id] = texts.get(event.message_id, "") + str(data.get("text", ""))
    return texts


@final
class Remote:
    """Numbers its requests as the protocol wants it."""

    def __init__(self, generation_id: str, *, producer_id: str = "p", epoch: int = 0) -> None:
        self.generation_id = generation_id
        self.producer_id = producer_id
        self.epoch = epoch
        self.next = 0

    def stamp(self) -> ProducerStamp:
        return ProducerStamp(self.producer_id, self.epoch, self.next)

    async def say(self, session: Session, *texts: str, **fields: object) -> ChunksAccepted:
        chunks = [body(self.generation_id, text, **fields) for text in texts]
        answer = await session.chunks(chunks, stamp=self.stamp())
        self.next += 1
        return answer

    async def finish(
        self,
        session: Session,
        outcome: Literal["completed", "failed"] = "completed",
        usage: JSONObject | None = None,
    ) -> Finished:
        answer = await session.finish(self.generation_id, outcome=outcome, usage=usage, stamp=self.stamp())
        self.next += 1
        return answer
