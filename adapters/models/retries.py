"""Whether a model is asked again, and after how long. Pure."""

from __future__ import annotations

from typing import final

from attrs import frozen

from .failures import ModelFailure

__all__ = ["Retries"]


@final
@frozen(kw_only=True)
class Retries:
    """Exponential backoff with jitter; a provider that says when to come back is obeyed."""

    attempts: int = 4  # with the pauses below some four seconds: a restart at the provider's, not an outage
    first_pause: float = 0.5
    longest_pause: float = 8.0
    # What a provider may ask for at most; half the engine's idle limit by default. Who must wait longer shall know at
    # once.
    patience: float = 60.0

    def pause(self, attempt: int, failure: ModelFailure, spread: float) -> float | None:
        """The seconds before the next attempt after the one numbered ``attempt``, from 1; None: give up.

        ``spread`` is a random number from 0 to 1; it takes away up to a quarter, so that many do not come back at once.
        """
        if not failure.retryable or attempt >= self.attempts:
            return None
        if failure.retry_after:  # 0 says nothing of when
            return failure.retry_after if failure.retry_after <= self.patience else None
        grown = self.first_pause * 2.0 ** (attempt - 1)
        return min(grown, self.longest_pause) * (1 - spread / 4)
