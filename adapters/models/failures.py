"""What can go wrong with a model: stable codes, what readers are told, and whether asking again may help. Pure.

The providers' own texts are for the log: they may name accounts, addresses and pieces of keys. Readers get them only
where they are about the request, and whoever serves them says that they may.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final, final

from penstock.engine import JSON

__all__ = ["CODES", "ModelFailure", "of_error", "retry_after"]

# Code → what readers are told, and whether the same request may do better later.
CODES: Final[Mapping[str, tuple[str, bool]]] = {
    "MODEL_AUTH": ("The model's provider does not accept this server's key.", False),
    "MODEL_QUOTA": ("This server's account at the model's provider has no credit left.", False),
    "MODEL_NOT_FOUND": ("The model's provider does not know this model, or its address (base URL) is wrong.", False),
    "MODEL_REJECTED": ("The model's provider did not accept the request.", False),
    "MODEL_CONTEXT_TOO_LONG": ("The conversation is longer than the model can read.", False),
    "MODEL_REFUSED": ("The model declined to answer.", False),
    "MODEL_RATE_LIMITED": ("The model's provider takes no more requests right now. Try again later.", True),
    "MODEL_UNAVAILABLE": ("The model's provider cannot be reached or is overloaded. Try again later.", True),
    "MODEL_SILENT": ("The model took too long for its first word.", False),
    "MODEL_INTERRUPTED": ("The model's answer broke off before its end. Try again.", True),
    "MODEL_GARBLED": ("What the model's provider sent cannot be understood.", False),
    "MODEL_TOO_MANY_ROUNDS": ("The model kept calling tools and came to no answer.", False),
    "MODEL_NOTHING_ASKED": ("There is nothing to answer yet: post a user message, or start with a text.", False),
}

# The providers' own words, `code` or `type` of an error; they say more than the status that they come with.
_WORDS: Final[Mapping[str, str]] = {
    "authentication_error": "MODEL_AUTH",
    "billing_error": "MODEL_QUOTA",
    "billing_hard_limit_reached": "MODEL_QUOTA",
    "billing_not_active": "MODEL_QUOTA",
    "bio_policy": "MODEL_REFUSED",
    "content_filter": "MODEL_REFUSED",
    "content_policy_violation": "MODEL_REFUSED",
    "context_length_exceeded": "MODEL_CONTEXT_TOO_LONG",
    "exceed_context_size_error": "MODEL_CONTEXT_TOO_LONG",
    "image_content_policy_violation": "MODEL_REFUSED",
    "insufficient_quota": "MODEL_QUOTA",
    "invalid_api_key": "MODEL_AUTH",
    "invalid_prompt": "MODEL_REFUSED",
    "misalignment_policy_violation": "MODEL_REFUSED",
    "model_not_found": "MODEL_NOT_FOUND",
    "not_found_error": "MODEL_NOT_FOUND",
    "overloaded_error": "MODEL_UNAVAILABLE",
    "permission_error": "MODEL_AUTH",
    "rate_limit_error": "MODEL_RATE_LIMITED",
    "rate_limit_exceeded": "MODEL_RATE_LIMITED",
    "request_too_large": "MODEL_CONTEXT_TOO_LONG",
    "server_error": "MODEL_UNAVAILABLE",
    "api_error": "MODEL_UNAVAILABLE",
    "timeout_error": "MODEL_UNAVAILABLE",
    "invalid_request_error": "MODEL_REJECTED",  # the least telling: a status that says more counts for more
}

_STATUSES: Final[Mapping[int, str]] = {
    401: "MODEL_AUTH",
    402: "MODEL_QUOTA",
    403: "MODEL_AUTH",
    404: "MODEL_NOT_FOUND",
    408: "MODEL_UNAVAILABLE",
    409: "MODEL_UNAVAILABLE",  # the rule of the providers' own SDKs: a lock at the provider's timed out
    413: "MODEL_CONTEXT_TOO_LONG",
    429: "MODEL_RATE_LIMITED",
}

# What servers say of a request that is too long, where they have no word for it: Anthropic ("prompt is too long",
# "exceed context limit"), vLLM ("maximum context length", "maximum model length", "max_tokens must be at least 1, got
# -7584", which is the room that is left for the answer), Ollama ("prompt too long; exceeded max context length",
# "exceeds the context length"), LM Studio ("context length of only", "greater than the context length"), older servers
# of llama.cpp ("available context size"), OpenAI ("exceeds the context window").
_TOO_LONG: Final = re.compile(
    r"context (length|limit|size|window)|prompt (is )?too long|maximum model length|reduce the length"
    r"|max_tokens must be at least 1, got -",
    re.IGNORECASE,
)

# What servers say of a model that takes words only, with the status of their own trouble or with none: llama.cpp
# ("image input is not supported"), Ollama ("missing data required for image input"), LM Studio ("does not support
# images", "images were provided"). And OpenAI, in its stream, of a picture that it cannot read: "invalid_image_url".
_NO_PICTURES: Final = re.compile(
    r"(image|audio|file) input|support images|images were provided|image_|_image", re.IGNORECASE
)

# What those come as by their words and statuses alone.
_MAY_BE_LONG: Final = frozenset({"MODEL_REJECTED", "MODEL_UNAVAILABLE"})

# Of which the provider's own words tell something to do.
_OF_THE_REQUEST: Final = frozenset({"MODEL_CONTEXT_TOO_LONG", "MODEL_NOT_FOUND", "MODEL_REJECTED"})

# Characters of them that a reader is told.
_MOST: Final = 500


@final
class ModelFailure(Exception):
    """A request to a model came to nothing. ``retry_after`` is what the provider asked for, in seconds."""

    def __init__(self, code: str, why: str, *, retryable: bool | None = None, retry_after: float | None = None) -> None:
        super().__init__(f"{code}: {why}")
        self.code = code
        self.why = why  # for the log
        self.retryable = CODES[code][1] if retryable is None else retryable
        self.retry_after = retry_after

    def told(self, *, in_own_words: bool = False) -> str:
        """What readers are told; ``in_own_words``: with what the provider said, where that is about the request."""
        text, why = CODES[self.code][0], " ".join(self.why.split())
        if not in_own_words or not why or self.code not in _OF_THE_REQUEST:
            return text
        return f"{text} It says: {why[:_MOST]}"


def of_error(told: JSON, *, status: int | None = None, headers: Mapping[str, str] | None = None) -> ModelFailure:
    """The failure behind an error as servers tell it: an object, by itself or in a field ``error``, or a text.

    The provider's own words count first, its ``code`` before its ``type``, then the status; in a stream there is none.
    That a request is too long has a word at some only; of the others the text says so.
    """
    error = told.get("error") or told if isinstance(told, Mapping) else told
    said = error if isinstance(error, Mapping) else {"message": error}
    words = said.get("code"), said.get("type")
    code = next((_WORDS[word] for word in words if isinstance(word, str) and word in _WORDS), None)
    for word in (status, *words):  # some gateways put the status where others put a word
        if code is None or code == "MODEL_REJECTED":
            code = _of_number(word) or code
    known = code or "MODEL_UNAVAILABLE"
    message = str(said.get("message") or error)
    if known in _MAY_BE_LONG and _TOO_LONG.search(message):
        known = "MODEL_CONTEXT_TOO_LONG"
    elif known == "MODEL_UNAVAILABLE" and _NO_PICTURES.search(f"{words[0]}: {message}"):
        known = "MODEL_REJECTED"
    # What is said of a key may hold a piece of it.
    why = f"status {status}" if known == "MODEL_AUTH" else message
    headers = headers or {}
    again = {"true": True, "false": False}.get(headers.get("x-should-retry", ""))
    return ModelFailure(known, why, retryable=again, retry_after=retry_after(headers))


def _of_number(word: object) -> str | None:
    number = int(word) if isinstance(word, str) and word.isascii() and word.isdecimal() and len(word) == 3 else word
    if type(number) is not int or number < 400:
        return None
    return _STATUSES.get(number) or ("MODEL_UNAVAILABLE" if number >= 500 else "MODEL_REJECTED")


def retry_after(headers: Mapping[str, str]) -> float | None:
    """The seconds that an answer asks to wait; None if it asks for nothing that makes sense."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        text = headers.get(name)
        if text is None:
            continue
        try:
            seconds = float(text) * unit
        except ValueError:
            seconds = _until(text)
        if math.isfinite(seconds) and seconds >= 0:
            return seconds
    return None


def _until(date: str) -> float:
    try:
        moment = parsedate_to_datetime(date)
    except (ValueError, OverflowError):
        return math.nan
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())
