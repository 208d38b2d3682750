"""How long to wait before the next attempt: full jitter, so that clients that were cut at once do not return at once.

Pure: whoever asks does the waiting.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final, final

__all__ = ["Backoff"]

# Beyond it a power of two means nothing: every ceiling is reached long before.
_MOST_DOUBLINGS: Final = 30


@final
class Backoff:
    """Pauses that double: each a random part of a ceiling that begins at ``first`` and ends at ``longest`` seconds.

    ``chance`` gives numbers from 0 to 1.
    """

    def __init__(self, first: float, longest: float, *, chance: Callable[[], float] = random.random) -> None:
        self._first: Final = first
        self._longest: Final = longest
        self._chance: Final = chance
        self.failures = 0

    def next(self, at_least: float = 0.0, *, spent: float = 0.0) -> float:
        """The pause after one more failure; not less than the server asked for.

        ``spent``: seconds that nothing came in, which was a pause as well.
        """
        ceiling = min(self._longest, self._first * 2.0 ** min(self.failures, _MOST_DOUBLINGS))
        self.failures += 1
        return max(at_least, ceiling * self._chance() - spent, 0.0)

    def reset(self) -> None:
        """It went well."""
        self.failures = 0
