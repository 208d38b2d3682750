"""What answers cost, in tokens; the fields are the same for every provider. Pure."""

from __future__ import annotations

from penstock.engine import JSONObject

__all__ = ["add", "tokens"]


def tokens(*, input_tokens: int, output_tokens: int | None, cached_tokens: int, reasoning_tokens: int) -> JSONObject:
    """``input_tokens`` with those that came from a cache, ``output_tokens`` with those of reasoning.

    How many these were stands beside them, where there were any. What is written is None until it is known.
    """
    made = {"input_tokens": input_tokens}
    if output_tokens is not None:
        made["output_tokens"] = output_tokens
    if cached_tokens:
        made["cached_tokens"] = cached_tokens
    if reasoning_tokens:
        made["reasoning_tokens"] = reasoning_tokens
    return made


def add(one: JSONObject, other: JSONObject) -> JSONObject:
    """The sum, field by field."""
    made = dict(one)
    for name, number in other.items():
        before = made.get(name)
        made[name] = number + before if isinstance(number, int) and isinstance(before, int) else number
    return made
