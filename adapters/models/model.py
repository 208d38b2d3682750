"""What a producer needs of a model, whoever provides it: one request, and the answer in pieces."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, TypeAlias, final, runtime_checkable

from attrs import frozen

from penstock.engine import JSONObject

from .pieces import Piece
from .transcript import Attached, Turn

__all__ = ["Answer", "Key", "Model", "Offer", "Request", "Seeing"]

# What signs in, or what gets it anew for each request: tokens that live for minutes come by a function.
Key: TypeAlias = str | Callable[[], Awaitable[str]]


@final
@frozen(kw_only=True)
class Offer:
    """A tool as the model is told of it; ``parameters`` is a JSON schema of an object."""

    name: str
    description: str
    parameters: JSONObject


@final
@frozen(kw_only=True)
class Request:
    """What a model is asked; ``left_out`` is how many of the conversation's oldest turns are not in it.

    ``unseen`` are the names of what is attached to it and not shown.
    """

    turns: Sequence[Turn]
    system: str | None = None
    tools: Sequence[Offer] = ()
    left_out: int = 0
    unseen: Sequence[str] = ()


class Answer(Protocol):
    """An answer on its way. Close it, under a deadline, whatever became of it."""

    async def next(self) -> Sequence[Piece] | None:
        """The next pieces, maybe none; None after the last. Raises `ModelFailure`."""

    async def close(self) -> None: ...


@runtime_checkable
class Seeing(Protocol):
    """A model that is shown more than words. One without this is told that something is attached, and no more."""

    def shows(self, attached: Attached, /) -> bool:
        """Whether it can be shown this; asked again once its content is there."""


class Model(Protocol):
    """A model at a provider's."""

    @property
    def name(self) -> str: ...

    async def ask(self, request: Request) -> Answer:
        """Send the request, once, and return when the answer begins. Raises `ModelFailure`."""

    async def aclose(self) -> None:
        """Close the connections that are kept."""
