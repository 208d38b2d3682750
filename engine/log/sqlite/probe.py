"""Whether anything can be stored now, found out before somebody's write fails of it.

Owns what the writing thread tries while nobody writes. What it waits for when somebody does, the loop sees by itself.
"""

from __future__ import annotations

import time
from typing import Final, final

from .commit import Committer
from .database import explain, is_held

__all__ = ["Probe"]

# Seconds without a write, between two tries that reach the disk. Balancers ask about as often if a server is ready.
_TO_DISK: Final = 10

# Another program may write for a moment; writes wait for it, up to five seconds. After two looks it is more than that.
_TWICE: Final = 2


@final
class Probe:
    """What was found. The attributes may be read by any thread; all else is the writing thread's.

    ``trouble`` is why nothing can be stored, in a few words fit for anyone's eyes, or None. ``since`` is when a try
    began that is not over yet, by the monotonic clock.
    """

    def __init__(self, committer: Committer) -> None:
        self._committer = committer
        self._quiet = 0
        self._held = 0
        self.trouble: str | None = None
        self.since: float | None = None

    def stored(self) -> None:
        """Something was."""
        self._quiet = self._held = 0
        self.trouble = None

    def failed(self, trouble: str) -> None:
        """Nothing could be."""
        self._quiet = 0
        self.trouble = trouble

    def try_again(self) -> None:
        """Take the write lock; now and then, and after a failure, write. To be called each second without a write."""
        self._quiet += 1
        self.since = time.monotonic()
        try:
            self._committer.rehearse(write=self.trouble is not None or self._quiet % _TO_DISK == 0)
        except Exception as error:  # noqa: BLE001  # the writing thread must live, and each error says the same
            self._held += 1
            if not is_held(error) or self._held >= _TWICE:
                self.trouble = explain(error)
        else:
            self._held = 0
            self.trouble = None
        finally:
            self.since = None
