"""The routes of remote producers: chunks, batches of them, and the end of a generation driven by them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from quart import Response, request
from quart_trio import QuartTrio

from engine import Engine, InvalidBody, ProducerStamp

from ..bodies import read_body
from ..pushed import FinishBody, finish, push, read_chunk, read_chunks, read_stamp
from .answers import answered, json_body
from .guard import allow

__all__ = ["add_chunks", "stamp_in"]


def add_chunks(app: QuartTrio, engine: Engine) -> None:
    """Add the routes over ``engine``."""

    @app.post("/v1/sessions/<session_id>/chunks")
    async def write_chunk(session_id: str) -> Response:
        await allow("produce", session_id)
        stamp = stamp_in(request.headers.getlist)
        chunk = read_chunk(await json_body())
        return answered(await push(await engine.session(session_id), [chunk], stamp))

    @app.post("/v1/sessions/<session_id>/chunks/batch")
    async def write_chunks(session_id: str) -> Response:
        await allow("produce", session_id)
        stamp = stamp_in(request.headers.getlist)
        chunks = read_chunks(await json_body())
        return answered(await push(await engine.session(session_id), chunks, stamp))

    @app.post("/v1/sessions/<session_id>/generations/<generation_id>/finish")
    async def finish_generation(session_id: str, generation_id: str) -> Response:
        await allow("produce", session_id)
        stamp = stamp_in(request.headers.getlist)
        body = read_body(await json_body(), FinishBody)
        return answered(await finish(await engine.session(session_id), generation_id.lower(), body, stamp))


def stamp_in(values_of: Callable[[str], Sequence[str]]) -> ProducerStamp | None:
    """What makes a request exactly-once, in its headers: ``values_of`` each name. Raises `InvalidBody`."""

    def header(name: str) -> str | None:
        values = values_of(name)
        if len(values) > 1:
            raise InvalidBody(f"there is more than one {name}")
        return values[0] if values else None

    return read_stamp(header("Producer-Id"), header("Producer-Epoch"), header("Producer-Seq"))
