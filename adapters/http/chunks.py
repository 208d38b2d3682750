"""The routes of remote producers: chunks, batches of them, and the end of a generation driven by them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from quart import Response, request

from penstock.engine import Chunk, Engine, InvalidBody, ProducerStamp

from ..requests.answers import ChunksAnswer, FinishAnswer
from ..requests.bodies import read_body
from ..requests.chunks import (
    SECONDS,
    FinishBody,
    SignOfLife,
    finish,
    push,
    read_batch,
    read_chunk,
    read_lease,
    read_pieces,
    read_stamp,
)
from .intake import body_of_request, json_body, parsed
from .openapi.schemas import Schema, reference
from .routes import SESSION, Body, Operation, Routes, answered, header, json_answer

__all__ = ["LEASE", "add_chunks", "lease_in", "one", "write"]


_NUMBER: Final[Schema] = {"type": "integer", "minimum": 0, "maximum": 9_999_999_999_999_999}

_STAMP: Final = (
    header(
        "Producer-Id",
        {"type": "string", "pattern": "^[!-~]{1,128}$"},
        "With the other two, or none of them: makes the request exactly-once. A repeated one is answered with 200, "
        "and a refused one uses up no number.",
    ),
    header("Producer-Epoch", _NUMBER, "Which run of the producer; an older one is STALE_PRODUCER."),
    header("Producer-Seq", _NUMBER, "Which request of this run, from 0; a hole is SEQUENCE_GAP."),
)

LEASE: Final = header(
    "Producer-Lease",
    {"type": "string", "pattern": f"^({SECONDS})$"},
    "How many seconds the producer may be silent: without a request for so long, readers get the status "
    "producer-silent; for twice as long, the generation ends as lost. It stands in place of the idle limit and holds "
    "until it is said anew. A day at most.",
)

# A generation of whoever copies the examples.
_GENERATION: Final = "0198c0de-7a11-7abc-8def-0123456789ab"

_CODES: Final = (
    *SESSION,
    "GENERATION_MISMATCH",
    "ID_IN_USE",
    "SEQUENCE_GAP",
    "STALE_GENERATION",
    "STALE_PRODUCER",
)


def add_chunks(routes: Routes, engine: Engine) -> None:
    """Add the routes over ``engine``."""

    @routes.add(
        Operation(
            method="post",
            path="/v1/sessions/{session_id}/chunks",
            id="writeChunk",
            tag="producing",
            summary="Write one chunk",
            description="An event without the server's part of the stamp. The first chunk of a new generation "
            "registers it when nothing is live, and opens message and block as needed. Of a chunk "
            "that is refused nothing is written; one whose `seq` was there before is a duplicate, "
            "which is no error.",
            scope="produce",
            parameters=(*_STAMP, LEASE),
            body=Body(shape=Chunk, needed=True, example={"generation_id": _GENERATION, "data": {"text": "water "}}),
            answers={200: json_answer("It is stored.", ChunksAnswer)},
            codes=_CODES,
        ),
    )
    async def write_chunk(session_id: str) -> Response:
        return answered(await write(engine, session_id, request.headers.getlist, body_of_request, batch=False))

    @routes.add(
        Operation(
            method="post",
            path="/v1/sessions/{session_id}/chunks/batch",
            id="writeChunks",
            tag="producing",
            summary="Write chunks, all or none",
            description="All of one generation, in their order. With none of them it says that the producer "
            "lives, and keeps its lease; then `generation_id` names the generation, or it is the one "
            "that is live.",
            scope="produce",
            parameters=(*_STAMP, LEASE),
            body=Body(
                shape=reference("ChunkBatch"),
                needed=True,
                example={
                    "chunks": [{"generation_id": _GENERATION, "data": {"text": word}} for word in ("its ", "way")]
                },
            ),
            answers={200: json_answer("They are stored.", ChunksAnswer)},
            codes=(*_CODES, "GENERATION_NOT_FOUND"),
        ),
    )
    async def write_chunks(session_id: str) -> Response:
        return answered(await write(engine, session_id, request.headers.getlist, body_of_request, batch=True))

    @routes.add(
        Operation(
            method="post",
            path="/v1/sessions/{session_id}/generations/{generation_id}/finish",
            id="finishGeneration",
            tag="producing",
            summary="End a generation that is driven by chunks",
            description="What is open is closed. Fails with FINISH_FAILED when anything before it could not be "
            "stored: it never reports an end that readers cannot see. A repeat by the same producer "
            "is answered with 200.",
            scope="produce",
            parameters=(*_STAMP, LEASE),
            body=Body(shape=FinishBody),
            answers={200: json_answer("It has ended.", FinishAnswer)},
            codes=(*_CODES, "GENERATION_NOT_FOUND", "FINISH_FAILED"),
        ),
    )
    async def finish_generation(session_id: str, generation_id: str) -> Response:
        stamp, _ = stamp_in(request.headers.getlist), lease_in(request.headers.getlist)
        body = read_body(await json_body(), FinishBody)
        return answered(await finish(await engine.session(session_id), generation_id.lower(), body, stamp))


async def write(
    engine: Engine,
    session_id: str,
    values_of: Callable[[str], Sequence[str]],
    body: Callable[[], Awaitable[bytes]],
    *,
    batch: bool,
) -> ChunksAnswer:
    """Carry out a request with one chunk or a batch of them.

    ``values_of`` are those of its headers, ``body`` reads it. Who asks may do this: that was decided before.
    """
    stamp, lease = stamp_in(values_of), lease_in(values_of)
    chunks = _chunks_in(await body(), batch=batch)
    return await push(await engine.session(session_id), chunks, stamp, lease)


def _chunks_in(body: bytes, *, batch: bool) -> Sequence[Chunk] | SignOfLife:
    if not batch:
        return [read_chunk(parsed(body))]
    pieces = read_pieces(body)
    return read_batch(parsed(body)) if pieces is None else pieces


def stamp_in(values_of: Callable[[str], Sequence[str]]) -> ProducerStamp | None:
    """What makes a request exactly-once, in its headers: ``values_of`` each name. Raises `InvalidBody`."""
    return read_stamp(one(values_of, "Producer-Id"), one(values_of, "Producer-Epoch"), one(values_of, "Producer-Seq"))


def lease_in(values_of: Callable[[str], Sequence[str]]) -> float | None:
    """How long the producer may be silent, as its header says. Raises `InvalidBody`."""
    return read_lease(one(values_of, "Producer-Lease"))


def one(values_of: Callable[[str], Sequence[str]], name: str) -> str | None:
    """The header's value, if it is there. Raises `InvalidBody` if it is there again."""
    values = values_of(name)
    if len(values) > 1:
        raise InvalidBody(f"there is more than one {name}")
    return values[0] if values else None
