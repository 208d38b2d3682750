"""The producers that an engine knows by name, and what else may stand for one."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterable, Mapping
from typing import cast, final

from ..codec import own_json
from ..errors import InvalidBody, ProducerNotFound
from ..events import JSONObject
from ..generation.generation import Producer
from ..generation.remote import REMOTE, RemoteProducer
from ..results import ProducerInfo
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
        self.infos = tuple(_info(name, self._known[name], default) for name in sorted(self._known))

    @property
    def names(self) -> tuple[str, ...]:
        """In order; `REMOTE` is not among them."""
        return tuple(info.name for info in self.infos)

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


def _info(name: str, producer: Producer, default: str | None) -> ProducerInfo:
    """What a producer says of itself: by its attributes, where they are text and a dict, or a function's docstring.

    Raises `InvalidBody` for what JSON cannot say.
    """
    said = getattr(producer, "description", None)
    if said is None and inspect.isfunction(producer):
        said = (inspect.getdoc(producer) or "").partition("\n")[0] or None
    schema = getattr(producer, "input_schema", None)
    what = f"input_schema of the producer {name!r}"
    return ProducerInfo(
        name=name,
        default=name == default,
        description=check_text(said, f"description of the producer {name!r}") if type(said) is str else None,
        input_schema=cast("JSONObject", own_json(schema, what)) if isinstance(schema, dict) else None,
    )
