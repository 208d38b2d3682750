"""The producers that an engine knows by name, and what else may stand for one."""

from __future__ import annotations

from collections.abc import AsyncIterable, Mapping
from typing import final

from ..errors import InvalidBody, ProducerNotFound
from ..generation.generation import Producer
from ..generation.remote import REMOTE, RemoteProducer
from ..shapes import check_text, shown

__all__ = ["Producers"]


@final
class Producers:
    """By name; with one of them, or with a ``default``, a start need not name any.

    Raises `InvalidBody` unless each has a name that can be stored, and can be called; `ProducerNotFound` for a default
    that is none of them.
    """

    def __init__(self, producers: object, default: str | None) -> None:
        if not isinstance(producers, Mapping):
            raise InvalidBody(f"producers must be a mapping of names to functions, not {shown(producers)}")
        for name, producer in producers.items():
            if check_text(name, "the name of a producer") == REMOTE:
                raise InvalidBody(f"{REMOTE!r} is the name of generations that another process drives; choose another")
            if not callable(producer):
                raise InvalidBody(f"the producer {name!r} is no function, but {shown(producer)}")
        if default is None and len(producers) == 1:
            default = next(iter(producers))
        if default is not None and check_text(default, "default_producer") not in producers:
            raise ProducerNotFound(f"the default producer {default!r} is not registered")
        self._known: dict[str, Producer] = dict(producers)
        self._default = default

    def named(self, name: str) -> Producer:
        """Raises `ProducerNotFound`."""
        return self.find(name)[0]

    def find(self, wanted: str | Producer | AsyncIterable[str] | None) -> tuple[Producer, str]:
        """The producer meant, and its name in the log. Raises `ProducerNotFound`, `InvalidBody`."""
        if wanted is None:
            if self._default is None:
                raise ProducerNotFound("name a producer: this engine has no default one")
            wanted = self._default
        if wanted == REMOTE:
            return RemoteProducer(), REMOTE
        if isinstance(wanted, str):
            check_text(wanted, "the name of a producer")
            found = self._known.get(wanted)
            if found is None:
                known = ", ".join(sorted(self._known)) or "none"
                raise ProducerNotFound(f"no producer is registered as {wanted!r}; registered: {known}")
            return found, wanted
        if isinstance(wanted, AsyncIterable):
            pieces = wanted
            return (lambda _: pieces), check_text(type(pieces).__name__, "the name of a producer")
        if not callable(wanted):
            raise InvalidBody("a producer is a name, an async function, an async generator function or async iterable")
        name = getattr(wanted, "__name__", None)
        return wanted, check_text(name if type(name) is str else type(wanted).__name__, "the name of a producer")
