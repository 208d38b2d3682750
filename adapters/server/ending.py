"""Whether an answer ends by itself: what an application tells its server where no length does.

A client may close its sending side as soon as it has asked, and still wait for the whole answer. One that does so on a
stream without an end has left: nothing else would tell.
"""

from __future__ import annotations

from typing import Final, Self, cast, final

from hypercorn.typing import Scope

__all__ = ["Ending"]

_EXTENSION: Final = "penstock.ending"


@final
class Ending:
    """The end of one request's answer, if it has no length; in the ASGI scope."""

    def __init__(self) -> None:
        self.promised = False

    @classmethod
    def of(cls, scope: Scope) -> Self:
        """Put it into ``scope``."""
        made = cls()
        cast("dict[str, dict[str, object]]", scope)["extensions"][_EXTENSION] = made
        return made

    @staticmethod
    def promise(scope: Scope) -> None:
        """Tell the server, if it asks, that the answer to this request ends by itself."""
        found = (cast("dict[str, dict[str, object]]", scope).get("extensions") or {}).get(_EXTENSION)
        if isinstance(found, Ending):
            found.promised = True
