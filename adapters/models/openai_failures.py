"""What the errors of the SDK `openai` mean, and those that stand in a stream. For both of OpenAI's dialects."""

from __future__ import annotations

import openai

from penstock.engine import JSONObject

from .failures import ModelFailure, of_answer
from .sdk import plain_failure

__all__ = ["failure", "of_event"]


def failure(error: Exception, *, began: bool) -> ModelFailure | None:
    """None if the error is none of the provider's making. ``began``: the answer had begun to come."""
    if isinstance(error, openai.APIStatusError):
        words = (error.code, error.type)
        return of_answer(error.status_code, words, error.message, headers=error.response.headers)
    if isinstance(error, openai.APIConnectionError):
        return ModelFailure("MODEL_INTERRUPTED" if began else "MODEL_UNAVAILABLE", repr(error.__cause__ or error))
    if isinstance(error, openai.OpenAIError):  # its own: no way to sign in
        return ModelFailure("MODEL_AUTH", type(error).__name__)
    return plain_failure(error, began=began)


def of_event(error: JSONObject) -> ModelFailure:
    """An error that stands in an event of the stream, where there is no status any more."""
    return of_answer(None, (error.get("code"), error.get("type")), str(error.get("message")))
