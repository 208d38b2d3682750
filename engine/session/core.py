"""What the steps of one session share, and what each of them does with it.

At any time at most one generation is live in a session, and whatever begins or ends one is a step. Steps are functions
of the core and run one at a time, in the session's own task, so between two waits of a step nothing of this changes but
what the live producer writes, through the same journal, from its own task:

    a caller ──▶ Resident.start ──▶ Steps ──▶ start(core, …) ──▶ core.commit ──▶ Journal ──▶ log
                                                   │
                                  core.hold(run) ◀─┘   the producer runs in the session's nursery

A step has three parts. First everything that can be refused is refused: nothing has changed, then. Then, without a
wait, the step decides and commits: it raises the token, stamps its events and appends them with their records as one
transaction, so the log has all of it or nothing. Then it waits until that is settled.

Who ends what: the fence comes first. A step that ends the live generation has its writer refuse every write, then
cancels its scope, then waits for the clean-up, at most `Config.cleanup_timeout`, then writes the end. A producer that
is not done by then is a straggler: it runs on, can write nothing, and counts against `Config.max_stragglers` until it
is done. A producer that ends by itself only reports; its end is a step like any other, and does nothing if another step
was there first.

The raised token is the second fence, in the log: should two processes hold the session, the log takes no write under
the older token. When the log refuses a write, everything stamped behind it is gone; what is live then ends as failed,
and `recovery` reads anew what is said here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable
from typing import Final, final

from attrs import define, field

from ..config import Config
from ..errors import PenstockError, TooManyStragglers
from ..generation.run import Run, RunContext
from ..generation.stamper import Item, Records, stamp
from ..log.port import EventLog
from ..results import GenerationInfo
from ..rules.queue import Queue
from ..rules.states import GenerationState, StateName
from ..stream.history import History
from ..stream.journal import Journal, Mark
from .idempotency import Answers
from .messages import Messages
from .stops import PendingStops

__all__ = ["Core"]

# A session hardly ever has stragglers: one empty set serves all.
_NONE: Final[frozenset[Run]] = frozenset()


@final
@define(eq=False, kw_only=True)
class Core:
    """One session in memory, as its steps see it.

    ``context`` is what its runs know of it; ``launch`` has one run in the session's nursery.
    """

    log: EventLog
    config: Config
    journal: Journal
    history: History
    messages: Messages
    answers: Answers
    stops: PendingStops
    context: RunContext
    launch: Callable[[Run], None]
    queue: Queue = field(factory=Queue)  # as stamped
    turn: int = 0
    live: Run | None = None  # assigned by `hold`
    stragglers: frozenset[Run] = _NONE
    unsettled: tuple[Mark, ...] = ()  # of starts that the log may not know yet
    retry_at: float = -math.inf  # by the trio clock: when what waits is tried again, after it could not start

    @property
    def session_id(self) -> str:
        return self.journal.session_id

    # --- writing

    def commit(self, items: Iterable[Item], records: Records | None = None) -> Mark:
        """Fence what came before, and stamp: all of it will be stored, or nothing. Raises as `stamp`."""
        self.journal.raise_token()
        return stamp(self.journal, items, records)

    async def settled(self, mark: Mark | None = None) -> None:
        """Wait until everything up to ``mark``, or stamped by now, is durable: at most `Config.flush_timeout`.

        Raises `WriteFailed` when it was dropped, and `TimedOut`: it may yet be stored.
        """
        await self.journal.wait_committed(self.journal.mark() if mark is None else mark, self.config.flush_timeout)

    def note_unsettled(self, mark: Mark) -> None:
        """A start stands there whose caller was told `TimedOut`, or does not wait in the step."""
        self.unsettled = (*(each for each in self.unsettled if not self.journal.settled(each)), mark)

    # --- the live generation

    def hold(self, run: Run | None) -> None:
        """Have this generation be the live one, or none."""
        self.live = run

    def fail(self, error: PenstockError) -> None:
        """What the live generation wrote could not be stored: fence and cancel it. Without a wait."""
        if self.live is not None:
            self.live.fence_failed(error)
            self.live.cancel("its writes cannot be stored")

    @property
    def message_ids(self) -> Collection[str]:
        """The live generation's messages so far."""
        return () if self.live is None else self.live.structure.message_ids

    def info(self, generation_id: str) -> GenerationInfo | None:
        """The live generation's state, if it is this one."""
        if self.live is None or self.live.generation_id != generation_id:
            return None
        structure = self.live.structure
        state: StateName = "live" if structure.state is GenerationState.LIVE else "cancelling"
        return GenerationInfo(generation_id=generation_id, state=state, turn=structure.turn)

    def check_stragglers(self) -> None:
        """Raises `TooManyStragglers` when so many run on that nothing may start."""
        if len(self.stragglers) >= self.config.max_stragglers:
            raise TooManyStragglers(
                f"{len(self.stragglers)} producers of this session were cancelled and still run",
                session_id=self.session_id,
            )
