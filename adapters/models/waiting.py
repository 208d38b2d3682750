"""How long a model may take for its first word, and what readers are told meanwhile.

Owns the time before anything of an answer is written. A long prompt on a small machine, or a model that thinks in
silence, takes minutes there, for which the engine's idle limit would end the generation as stuck. As long as the
provider's connection stands a status is told now and then: readers see that it goes on, and the limit counts anew. From
the first word on, the idle limit alone holds.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final

import trio

from penstock.engine import Generation, PenstockError

from ..tasks import open_tasks
from .failures import ModelFailure

__all__ = ["FIRST_WORD", "patience"]

# Seconds. A small machine reads some ten thousand tokens in them; who waits for longer has given up.
FIRST_WORD: Final = 600.0

# Seconds from one status to the next, at most: soon enough that nobody takes the silence for the end. And at least:
# each is stored, and a start may ask for any idle limit; one that is shorter ends a silent model.
_TELL: Final = 30.0
_TELL_AT_LEAST: Final = 0.1


@asynccontextmanager
async def patience(generation: Generation, first_word: float) -> AsyncIterator[None]:
    """Around the wait for the first word of an answer.

    Raises `ModelFailure` with ``MODEL_SILENT`` after ``first_word`` seconds, or after the generation's idle limit where
    that is longer. What the block raises comes out as it is.
    """
    limit = max(first_word, generation.idle_limit)
    with trio.move_on_after(limit) as scope:
        async with open_tasks() as tasks:
            tasks.start_soon(_tell, generation)
            yield
    if scope.cancelled_caught:
        raise ModelFailure("MODEL_SILENT", f"nothing came for {limit:.10g} s")


async def _tell(generation: Generation) -> None:
    """That the model is waited for, often enough for the idle limit."""
    begun, pause = trio.current_time(), max(_TELL_AT_LEAST, min(_TELL, generation.idle_limit / 2))
    with suppress(PenstockError):  # whoever writes next hears of it
        while True:
            await trio.sleep(pause)
            await generation.status("waiting", {"seconds": round(trio.current_time() - begun)})
