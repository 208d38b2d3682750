"""The operations of generations: start, look, stop, the queue, and what is sent into a live one."""

from __future__ import annotations

from typing import Final

from ...requests.answers import (
    DequeueAnswer,
    GenerationAnswer,
    InputAnswer,
    QueueAnswer,
    QueuedAnswer,
    StartAnswer,
    StopAnswer,
)
from ...requests.bodies import StartBody, StopBody
from .operation import SESSION, Body, Operation, answered, header
from .producing import LEASE
from .schemas import Schema, reference

__all__ = ["OPERATIONS"]

_ONE: Final = "/v1/sessions/{session_id}"

_KEY: Final[Schema] = {"type": "string", "pattern": "^[!-~]{1,255}$"}

OPERATIONS: Final = (
    Operation(
        method="post",
        path=f"{_ONE}/generations",
        id="startGeneration",
        tag="generations",
        summary="Start one",
        description="A refusal is decided before anything is cancelled or written. The end of the old generation, the "
        "user's message and the start are stored together or not at all. `producer: remote` opens one that is driven "
        "by chunks, and needs the scope `produce`.",
        scope="write",
        parameters=(
            header(
                "Idempotency-Key",
                _KEY,
                "Makes the start safe to repeat: for a day the same key in the same session gets the first answer.",
            ),
            LEASE,
        ),
        body=Body(shape=StartBody),
        answers={
            200: answered(
                "It joined the live one, or was asked for before under the same key.", (StartAnswer, QueuedAnswer)
            ),
            201: answered("It has started.", StartAnswer),
            202: answered("It waits.", QueuedAnswer),
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
    Operation(
        method="get",
        path=f"{_ONE}/generations/{{generation_id}}",
        id="readGeneration",
        tag="generations",
        summary="Where it stands",
        scope="read",
        answers={200: answered("Where it stands.", GenerationAnswer)},
        codes=(*SESSION, "GENERATION_NOT_FOUND"),
    ),
    Operation(
        method="post",
        path=f"{_ONE}/generations/{{generation_id}}/inputs",
        id="sendInput",
        tag="generations",
        summary="Send something into the live one",
        description="An `approval` answers what the generation asked for; `steer`, or a kind of your own, lies before "
        "the producer until it takes it. Repeated under its `input_id` it changes nothing. A `by` needs the scope "
        "`produce`.",
        scope="write",
        body=Body(shape=reference("InputBody"), needed=True),
        answers={202: answered("It is taken in.", InputAnswer)},
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
    Operation(
        method="post",
        path=f"{_ONE}/stop",
        id="stopGeneration",
        tag="generations",
        summary="Stop the live one, or the one that is named",
        description="What was said so far is kept. Closing a connection stops nothing.",
        scope="write",
        body=Body(shape=StopBody),
        answers={200: answered("What happened.", StopAnswer)},
        codes=SESSION,
    ),
    Operation(
        method="post",
        path=f"{_ONE}/queue/next",
        id="continueQueue",
        tag="queue",
        summary="Let a paused queue go on",
        scope="write",
        body=Body(shape={"type": "object", "additionalProperties": False}),
        answers={200: answered("It goes on.", QueueAnswer)},
        codes=SESSION,
    ),
    Operation(
        method="delete",
        path=f"{_ONE}/queue/{{generation_id}}",
        id="removeFromQueue",
        tag="queue",
        summary="Take one out",
        description="It ends as `stopped`.",
        scope="write",
        answers={200: answered("It is out.", DequeueAnswer)},
        codes=(*SESSION, "GENERATION_NOT_FOUND"),
    ),
)
