"""The operations of remote producers: chunks, batches of them, and the end of what they made."""

from __future__ import annotations

from typing import Final

from ...requests.answers import ChunksAnswer, FinishAnswer
from ...requests.chunks import SECONDS, ChunkBody, FinishBody
from .operation import SESSION, Body, Operation, answered, header
from .schemas import Schema, reference

__all__ = ["LEASE", "OPERATIONS"]

_ONE: Final = "/v1/sessions/{session_id}"

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

_CODES: Final = (
    *SESSION,
    "GENERATION_MISMATCH",
    "ID_IN_USE",
    "SEQUENCE_GAP",
    "STALE_GENERATION",
    "STALE_PRODUCER",
)

OPERATIONS: Final = (
    Operation(
        method="post",
        path=f"{_ONE}/chunks",
        id="writeChunk",
        tag="producing",
        summary="Write one chunk",
        description="An event without the server's part of the stamp. The first chunk of a new generation registers it "
        "when nothing is live, and opens message and block as needed. Of a chunk that is refused nothing is written; "
        "one whose `seq` was there before is a duplicate, which is no error.",
        scope="produce",
        parameters=(*_STAMP, LEASE),
        body=Body(shape=ChunkBody, needed=True),
        answers={200: answered("It is stored.", ChunksAnswer)},
        codes=_CODES,
    ),
    Operation(
        method="post",
        path=f"{_ONE}/chunks/batch",
        id="writeChunks",
        tag="producing",
        summary="Write chunks, all or none",
        description="All of one generation, in their order. With none of them it says that the producer lives, and "
        "keeps its lease; then `generation_id` names the generation, or it is the one that is live.",
        scope="produce",
        parameters=(*_STAMP, LEASE),
        body=Body(shape=reference("ChunkBatch"), needed=True),
        answers={200: answered("They are stored.", ChunksAnswer)},
        codes=(*_CODES, "GENERATION_NOT_FOUND"),
    ),
    Operation(
        method="post",
        path=f"{_ONE}/generations/{{generation_id}}/finish",
        id="finishGeneration",
        tag="producing",
        summary="End a generation that is driven by chunks",
        description="What is open is closed. Fails with FINISH_FAILED when anything before it could not be stored: it "
        "never reports an end that readers cannot see. A repeat by the same producer is answered with 200.",
        scope="produce",
        parameters=(*_STAMP, LEASE),
        body=Body(shape=FinishBody),
        answers={200: answered("It has ended.", FinishAnswer)},
        codes=(*_CODES, "GENERATION_NOT_FOUND", "FINISH_FAILED"),
    ),
)
