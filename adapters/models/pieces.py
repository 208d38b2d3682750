"""What a model's answer consists of while it streams, whoever the provider is. Pure.

Each provider's reader turns what came over its wire into these; the engine turns them into blocks. A ``key`` tells
which part of the answer a piece belongs to: pieces with the same key make one block.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final, Literal, TypeAlias, final

from attrs import frozen

from penstock.engine import JSONObject

__all__ = [
    "CARRIED",
    "CallArguments",
    "CallOpened",
    "Carried",
    "Closed",
    "Finished",
    "Piece",
    "Spent",
    "Words",
]

# The name of the data block that holds what a provider wants back together with a tool's result.
CARRIED: Final = "model.reasoning"


@final
@frozen
class Words:
    """One more piece of text or of reasoning."""

    kind: Literal["text", "reasoning"]
    key: Hashable
    text: str


@final
@frozen
class CallOpened:
    """The model begins to call a tool. An empty id means that the provider gave none."""

    key: Hashable
    call_id: str
    name: str


@final
@frozen
class CallArguments:
    """One more piece of a call's arguments, as JSON text."""

    key: Hashable
    text: str


@final
@frozen
class Closed:
    """Nothing more comes for this key."""

    key: Hashable


@final
@frozen
class Carried:
    """Something only this provider can read, to be sent back as it is while its tool loop lasts."""

    value: JSONObject


@final
@frozen
class Spent:
    """What the answer cost so far, in tokens; the last word counts."""

    usage: JSONObject


@final
@frozen
class Finished:
    """Why the model stopped: ``stop``, ``length``, ``tool_calls``, ``refusal``, ``content_filter`` or its own word."""

    reason: str


Piece: TypeAlias = Words | CallOpened | CallArguments | Closed | Carried | Spent | Finished
