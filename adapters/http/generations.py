"""The routes of a session's generations: start, look, stop, the queue, and what is sent into a live one."""

from __future__ import annotations

from typing import Final

from quart import Response, request

from penstock.engine import Engine

from ..requests.answers import (
    DequeueAnswer,
    GenerationAnswer,
    InputAnswer,
    QueueAnswer,
    QueuedAnswer,
    StartAnswer,
    StopAnswer,
)
from ..requests.bodies import (
    EmptyBody,
    StartBody,
    StopBody,
    put_in,
    read_body,
    read_input,
    start,
    stop,
)
from .chunks import LEASE, lease_in
from .guard import allow, authenticate
from .intake import json_body
from .openapi.schemas import reference
from .routes import KEY, SESSION, Body, Operation, Routes, answered, idempotency_key, json_answer

__all__ = ["add_generations"]

_STATUS: Final = {"started": 201, "queued": 202, "joined": 200, "repeated": 200}


def add_generations(routes: Routes, engine: Engine) -> None:
    """Add the routes over ``engine``."""

    @routes.add(
        Operation(
            method="post",
            path="/v1/sessions/{session_id}/generations",
            id="startGeneration",
            tag="generations",
            summary="Start one",
            description="A refusal is decided before anything is cancelled or written. The end of the old "
            "generation, the user's message and the start are stored together or not at all. "
            "`producer: remote` opens one that is driven by chunks, and needs the scope `produce`.",
            scope="write",
            parameters=(
                KEY,
                LEASE,
            ),
            body=Body(shape=StartBody, example={"text": "water finds its way"}),
            answers={
                200: json_answer(
                    "It joined the live one, or was asked for before under the same key.", (StartAnswer, QueuedAnswer)
                ),
                201: json_answer("It has started.", StartAnswer),
                202: json_answer("It waits.", QueuedAnswer),
            },
            codes=(
                *SESSION,
                "GENERATION_ACTIVE",
                "ID_IN_USE",
                "IDEMPOTENCY_CONFLICT",
                "MESSAGE_NOT_FOUND",
                "PRODUCER_NOT_FOUND",
                "QUEUE_FULL",
                "TOO_MANY_STRAGGLERS",
            ),
        ),
    )
    async def start_generation(session_id: str) -> Response:
        key = idempotency_key()
        lease = lease_in(request.headers.getlist)
        body = read_body(await json_body(), StartBody)
        if body.is_remote:
            await allow("produce", session_id)
        session = await engine.session(session_id)
        made, how = await start(session, body, key, principal=authenticate().subject, lease=lease)
        return answered(made, _STATUS[how])

    @routes.add(
        Operation(
            method="get",
            path="/v1/sessions/{session_id}/generations/{generation_id}",
            id="readGeneration",
            tag="generations",
            summary="Where it stands, and how it ended",
            description="As it stands among the snapshot's `generations`.",
            scope="read",
            answers={200: json_answer("Where it stands.", GenerationAnswer)},
            codes=(*SESSION, "GENERATION_NOT_FOUND"),
        ),
    )
    async def generation(session_id: str, generation_id: str) -> Response:
        found = await (await engine.session(session_id)).generation(generation_id)
        return answered(GenerationAnswer.of(session_id, found))

    @routes.add(
        Operation(
            method="post",
            path="/v1/sessions/{session_id}/generations/{generation_id}/inputs",
            id="sendInput",
            tag="generations",
            summary="Send something into the live one",
            description="An `approval` answers what the generation asked for; `steer`, or a kind of your own, "
            "lies before the producer until it takes it. Repeated under its `input_id` it changes "
            "nothing. A `by` needs the scope `produce`.",
            scope="write",
            body=Body(shape=reference("InputBody"), needed=True, example={"kind": "steer", "text": "be brief"}),
            answers={202: json_answer("It is taken in.", InputAnswer)},
            codes=(
                *SESSION,
                "APPROVAL_NOT_FOUND",
                "GENERATION_MISMATCH",
                "GENERATION_NOT_FOUND",
                "ID_IN_USE",
                "QUEUE_FULL",
                "STALE_GENERATION",
            ),
        ),
    )
    async def send_input(session_id: str, generation_id: str) -> Response:
        body = read_input(await json_body())
        if body.names_another:
            await allow("produce", session_id)
        session = await engine.session(session_id)
        return answered(await put_in(session, generation_id.lower(), body, principal=authenticate().subject), 202)

    @routes.add(
        Operation(
            method="post",
            path="/v1/sessions/{session_id}/stop",
            id="stopGeneration",
            tag="generations",
            summary="Stop the live one, or the one that is named",
            description="What was said so far is kept. Closing a connection stops nothing.",
            scope="write",
            body=Body(shape=StopBody),
            answers={200: json_answer("What happened.", StopAnswer)},
            codes=SESSION,
        ),
    )
    async def stop_generation(session_id: str) -> Response:
        body = read_body(await json_body(), StopBody)
        return answered(await stop(await engine.session(session_id), body, principal=authenticate().subject))

    @routes.add(
        Operation(
            method="post",
            path="/v1/sessions/{session_id}/queue/next",
            id="continueQueue",
            tag="queue",
            summary="Let a paused queue go on",
            scope="write",
            body=Body(shape={"type": "object", "additionalProperties": False}),
            answers={200: json_answer("It goes on.", QueueAnswer)},
            codes=SESSION,
        ),
    )
    async def queue_next(session_id: str) -> Response:
        read_body(await json_body(), EmptyBody)
        went_on = await (await engine.session(session_id)).queue_next()
        made = QueueAnswer(session_id=session_id, cursor=went_on.cursor, generation_id=went_on.generation_id)
        return answered(made)

    @routes.add(
        Operation(
            method="delete",
            path="/v1/sessions/{session_id}/queue/{generation_id}",
            id="removeFromQueue",
            tag="queue",
            summary="Take one out",
            description="It ends as `stopped`.",
            scope="write",
            answers={200: json_answer("It is out.", DequeueAnswer)},
            codes=(*SESSION, "GENERATION_NOT_FOUND"),
        ),
    )
    async def dequeue(session_id: str, generation_id: str) -> Response:
        await (await engine.session(session_id)).dequeue(generation_id)
        return answered(DequeueAnswer(session_id=session_id, generation_id=generation_id.lower()))
