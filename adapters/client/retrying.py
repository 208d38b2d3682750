"""Whether a producer's request that failed is sent again, and when.

Pure. Attempts for some time, a number of them at least; where the session turns out not to exist, as long to make it,
and once it is made, as long again. It is made once: only a request that made it uses that up, not one that failed.
Decides by status and by code, never by a text.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias, final

from attrs import frozen

from penstock.engine import CorruptSession, FinishFailed, PenstockError, SessionNotFound

from ..problems import Unauthenticated
from .backoff import Backoff
from .refusals import repeatable_status

__all__ = ["Again", "Budget", "Failure", "GiveUp", "Recover", "Verdict"]


@final
@frozen(kw_only=True)
class Failure:
    """``status`` is None when there was no answer."""

    error: PenstockError
    status: int | None = None
    retry_after: float = 0.0


@final
@frozen
class Again:
    """Send the same once more, after ``pause`` seconds."""

    pause: float


@final
@frozen
class Recover:
    """Make the session, tell the budget (`Budget.made`), and send the same once more."""


@final
@frozen
class GiveUp:
    error: PenstockError


Verdict: TypeAlias = Again | Recover | GiveUp


@final
class Budget:
    """Of one request: attempts for ``outage`` seconds by the clock ``now``, ``attempts`` at least. ``renews``: another
    token may be had. ``may_recover``: nothing of the session is known to us that a new one would lack."""

    def __init__(
        self,
        attempts: int,
        outage: float,
        backoff: Backoff,
        *,
        now: Callable[[], float],
        renews: bool,
        may_recover: bool,
    ) -> None:
        self._attempts: Final = attempts
        self._outage: Final = outage
        self._backoff: Final = backoff
        self._now: Final = now
        self._renews: Final = renews
        self._may_recover = may_recover
        self._left = attempts
        self._until = now() + outage
        self._renewed = False
        self._making = False

    def made(self) -> None:
        """The session was made: not again, and the attempts begin anew."""
        self._may_recover = self._making = False
        self._begin_anew()

    def judge(self, failure: Failure, *, making: bool = False) -> Verdict:
        """One attempt has failed. ``making``: it was to make the session."""
        error = failure.error
        if isinstance(error, SessionNotFound) and not making:
            if not self._may_recover:
                return GiveUp(error)
            if not self._making:
                self._making = True
                self._begin_anew()
            return Recover()
        if isinstance(error, CorruptSession):
            return GiveUp(error)
        self._left -= 1
        if isinstance(error, Unauthenticated):
            if self._renewed or not self._renews:
                return GiveUp(error)
            self._renewed = True
            return Again(0.0)
        repeatable = error.retryable if failure.status is None else repeatable_status(failure.status)
        pause = self._backoff.next(failure.retry_after)
        # An end that could not be stored stays so: to ask for long is no use.
        in_time = self._now() + pause <= self._until and not isinstance(error, FinishFailed)
        if not repeatable or (self._left <= 0 and not in_time):
            return GiveUp(error)
        return Again(pause)

    def _begin_anew(self) -> None:
        self._left = self._attempts
        self._until = self._now() + self._outage
        self._backoff.reset()
