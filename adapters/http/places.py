"""What a request takes for the time of its answer, and gives back at its end whatever becomes of it.

An answer's body may never be begun: its reader has left by then, or a hook has failed.
"""

from __future__ import annotations

from typing import Final, cast

from hypercorn.typing import Scope

from ..server.limits import Place

__all__ = ["keeping", "places"]

_KEY: Final = "penstock.places"


def keeping(scope: Scope, held: list[Place]) -> Scope:
    """The scope of a request, with room for what it takes."""
    return cast("Scope", {**scope, _KEY: held})


def places(scope: Scope) -> list[Place]:
    """What the request of this scope has taken, and gives back at its end; what is taken out of it, it does not."""
    return cast("dict[str, list[Place]]", scope)[_KEY]
