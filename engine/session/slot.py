"""The place of the live generation of one session: at most one stands in it, and how it leaves.

Owns the fence, the cancel, the bounded wait for the clean-up and the stragglers. Which generation takes the place next
is `starting`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Final, final

import trio

from ..config import Config
from ..errors import PenstockError, TooManyStragglers
from ..events import GenerationCancelling
from ..generation.run import Run
from ..generation.stamper import stamp
from ..results import GenerationInfo
from ..rules.ending import Ending
from ..rules.lifecycle import Draft
from ..rules.states import GenerationState, Outcome, StateName
from ..stream.journal import Journal, Mark
from .transaction import NOTHING, Part, end_part, joined

__all__ = ["Slot"]

# A session hardly ever has stragglers: one empty set serves all.
_NONE: Final[frozenset[Run]] = frozenset()


@final
class Slot:
    """Holds the live generation, and the cancelled ones whose clean-up goes on."""

    __slots__ = ("_config", "_journal", "_on_done", "_on_finished", "live", "stragglers")

    def __init__(
        self, journal: Journal, config: Config, *, on_finished: Callable[[Run], None], on_done: Callable[[], None]
    ) -> None:
        self._journal = journal
        self._config = config
        self._on_finished = on_finished
        self._on_done = on_done
        self.live: Run | None = None
        self.stragglers = _NONE

    def info(self, generation_id: str) -> GenerationInfo | None:
        """The live generation's state, if it is this one."""
        if self.live is None or self.live.generation_id != generation_id:
            return None
        structure = self.live.structure
        state: StateName = "live" if structure.state is GenerationState.LIVE else "cancelling"
        return GenerationInfo(generation_id=generation_id, state=state, turn=structure.turn)

    def check_stragglers(self) -> None:
        """Raises `TooManyStragglers` when so many run on that nothing may start."""
        if len(self.stragglers) >= self._config.max_stragglers:
            raise TooManyStragglers(
                f"{len(self.stragglers)} producers of this session were cancelled and still run",
                session_id=self._journal.session_id,
            )

    def message_ids(self) -> Collection[str]:
        """The live generation's messages so far."""
        return () if self.live is None else self.live.structure.message_ids

    def fail(self, error: PenstockError) -> None:
        """What the live generation wrote could not be stored: fence and cancel it. Synchronous."""
        if self.live is not None:
            self.live.fence_failed(error)
            self.live.cancel("its writes cannot be stored")

    async def forget(self) -> None:
        """Let go of a generation that `fail` cancelled, after its clean-up; the log tells how it ends."""
        live, self.live = self.live, None
        if live is not None and live.launched and not live.done:
            await self._await_cleanup(live)

    def finished_first(self) -> Run | None:
        """The live generation; one whose producer is done and whose end was not written yet is ended now."""
        if self.live is not None and self.live.done:
            self.write_end(self.live, self.live.ending())
        return self.live

    async def wind_down(
        self, run: Run, outcome: Outcome, *, by: str | None = None, reason: str | None = None, retract: bool = False
    ) -> tuple[Ending, float]:
        """Fence, cancel, wait for the clean-up at most `Config.cleanup_timeout`. Writes all but the end.

        The fence rises at `generation.cancelling`'s place in the session's order: what the producer wrote
        before stands before it, and nothing of it comes after.
        """
        begun = trio.current_time()
        self._journal.raise_token()
        cancelling = Draft(GenerationCancelling(reason=reason or outcome, by=by))
        stamp(self._journal, [(run.structure, cancelling)])
        run.ends_as = outcome
        run.fence(f"the generation was {outcome}")
        run.cancel(reason or outcome)
        cleanup = await self._await_cleanup(run)
        seconds = trio.current_time() - begun
        return run.ending(outcome, by=by, cleanup=cleanup, retract=retract), seconds

    async def _await_cleanup(self, run: Run) -> str:
        begun = trio.current_time()
        with trio.move_on_after(self._config.cleanup_timeout):
            await run.wait_done()
        overran = not run.done
        if overran:
            self.stragglers |= {run}
        seconds = trio.current_time() - begun
        self._journal.witness.cleaned_up(run.generation_id, run.producer_name, seconds, overran=overran)
        return "overran" if overran else "clean"

    def write_end(
        self,
        run: Run,
        ending: Ending,
        *,
        by: str | None = None,
        more: Part = NOTHING,
    ) -> Mark:
        """End it now, and write ``more`` behind that; ``by`` is the remote producer that asks for it."""
        run.fence(f"the generation has ended as {ending.outcome}")
        self._journal.raise_token()
        items, records = joined(end_part(run.structure, ending, by=by), more)
        with self.ending(run):
            return stamp(self._journal, items, records)

    @contextmanager
    def ending(self, run: Run) -> Iterator[None]:
        """Around the stamp of its end: it is live no more then; where the stamp raises, its structure is as it was."""
        with run.structure.trial():
            yield
        if self.live is run:
            self.live = None

    def on_done(self, run: Run) -> None:
        """A producer's task is over. Called in that task; the end is written in the session's."""
        if run in self.stragglers:
            self.stragglers -= {run}
            self._journal.witness.straggler_ended(run.generation_id, run.producer_name, run.seconds_cancelled)
        elif self.live is run:
            self._on_finished(run)
        self._on_done()
