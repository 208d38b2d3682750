"""The routes of remote producers: chunks, batches of them, and the end of a generation driven by them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from quart import Response, request
from quart_trio import QuartTrio

from penstock.engine import JSON, Chunk, Engine, InvalidBody, ProducerStamp

from ..requests.bodies import read_body
from ..requests.chunks import (
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
from .answers import answered
from .guard import allow
from .intake import body_of_request, json_body, parsed

__all__ = ["add_chunks", "lease_in", "write"]


def add_chunks(app: QuartTrio, engine: Engine) -> None:
    """Add the routes over ``engine``."""

    @app.post("/v1/sessions/<session_id>/chunks")
    async def write_chunk(session_id: str) -> Response:
        await allow("produce", session_id)
        return answered(await write(engine, session_id, request.headers.getlist, body_of_request, batch=False))

    @app.post("/v1/sessions/<session_id>/chunks/batch")
    async def write_chunks(session_id: str) -> Response:
        await allow("produce", session_id)
        return answered(await write(engine, session_id, request.headers.getlist, body_of_request, batch=True))

    @app.post("/v1/sessions/<session_id>/generations/<generation_id>/finish")
    async def finish_generation(session_id: str, generation_id: str) -> Response:
        await allow("produce", session_id)
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
) -> dict[str, JSON]:
    """Carry out a request with one chunk or a batch of them; what it is answered with.

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
    return read_stamp(*(_one(values_of, name) for name in ("Producer-Id", "Producer-Epoch", "Producer-Seq")))


def lease_in(values_of: Callable[[str], Sequence[str]]) -> float | None:
    """How long the producer may be silent, as its header says. Raises `InvalidBody`."""
    return read_lease(_one(values_of, "Producer-Lease"))


def _one(values_of: Callable[[str], Sequence[str]], name: str) -> str | None:
    values = values_of(name)
    if len(values) > 1:
        raise InvalidBody(f"there is more than one {name}")
    return values[0] if values else None
