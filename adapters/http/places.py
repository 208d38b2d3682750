"""What a request takes for the time of its answer, and gives back at its end whatever becomes of it.

An answer's body may never be begun: its reader has left by then, or a hook has failed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Final, cast

from hypercorn.typing import Scope

__all__ = ["kept_places", "places"]

_KEY: Final = "penstock.places"


@contextmanager
def kept_places(scope: Scope) -> Iterator[Scope]:
    """The scope of a request, with room for what it takes. That is closed behind the block, but for what was moved."""
    with ExitStack() as held:
        yield cast("Scope", {**scope, _KEY: held})


def places(scope: Scope) -> ExitStack:
    """What the request of this scope has taken."""
    found = cast("dict[str, object]", scope)[_KEY]
    assert isinstance(found, ExitStack)
    return found
