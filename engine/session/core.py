"""What the steps of one session share, and what each of them does with it.

In a session at most one generation is live, and whatever begins or ends one is a lifecycle step. Steps are functions of
the core (`starting`, `ending`, `queue`, `recovery`). They run one at a time, in the session's own task:

    a caller                        the session's task                          its nursery
       │
    Session.start ──▶ Steps.take
       │                  │  waits in line
       │                  ▼
       │              start(core, request)
       │                  │  refuse, or decide
       │                  │  core.commit(transaction) ──▶ journal ──▶ log
       │                  │  core.hold(run)
       │                  │  await core.settled(mark)
       │◀── answer ───────┤
                          └─ core.launch(run) ──────────────────────────▶ the producer runs

A caller that leaves loses the answer, not the step. Between two waits of a step nothing changes but what the live
producer writes, from its own task and through the same journal.

A step has three parts. First it refuses whatever can be refused: nothing has changed by then. Then, without a wait, it
decides and commits: it raises the token, stamps its events and appends them with their records as one `Transaction`, of
which the log will have all or nothing. Then it waits until that is settled, at most `Config.flush_timeout`. A caller
that is told `TimedOut` knows that it may yet be stored, and repeats with the same key.

Who ends what. A generation ends by itself, at a limit, by a stop or a supersede, with a reset, a deletion or a
shutdown, and several of these may come at once. So there is one way (`ending.wind_down`, then `ending.write_end`), and
only a step takes it:

    fence      the writer refuses everything from here on, with the reason
    cancel     the producer's scope
    wait       for its clean-up, at most `Config.cleanup_timeout`
    write      what is open is closed, then `generation.finished`

The fence comes before the cancellation, so a producer that catches `Cancelled` and goes on cannot write behind its own
end. One that is not done in time is a straggler: Trio cannot abandon a task, so it runs on in the nursery, can write
nothing, and counts against `Config.max_stragglers` until it is done. A producer that returns by itself only reports;
its end is a step like any other, and does nothing if another step was there first.

When the log refuses a write, everything stamped behind it is gone. What is live is fenced and cancelled at once
(`Core.fail`), and the next step is the repair: it reads where the log stands, ends what the log holds open as failed,
and sets anew what is said here (`recovery`). Opening a session is the same step, with another outcome to give.

Behind one refusal nothing is repaired: another engine has claimed the session. Then this one steps down. It writes
nothing more, not even an end, and refuses what waits; its producers are cancelled, and its readers follow the log.

Writing the end belongs to the steps, and the steps are shielded from the nursery's scope. So cancelling that scope ends
all that runs for the session, and what has ended is still written down.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Final, final

from attrs import define, field

from ..config import Config
from ..errors import PenstockError, TooManyStragglers
from ..generation.run import Run, RunContext
from ..generation.stamper import stamp
from ..log.port import EventLog
from ..results import GenerationInfo
from ..rules.queue import Queue
from ..rules.states import GenerationState, StateName
from ..stream.history import History
from ..stream.journal import Journal, Mark
from ..stream.message_ids import MessageIds
from .idempotency import Answers
from .stops import PendingStops
from .transaction import Transaction

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
    message_ids: MessageIds
    answers: Answers
    stops: PendingStops
    context: RunContext
    launch: Callable[[Run], None]
    owner: str = ""  # the engine's name, where others share its log
    queue: Queue = field(factory=Queue)  # as stamped
    turn: int = 0
    anew: bool = False  # the generation of that turn was to answer anew
    live: Run | None = None  # assigned by `hold`
    stragglers: frozenset[Run] = _NONE
    unsettled: tuple[Mark, ...] = ()  # of starts that the log may not know yet
    retry_at: float = -math.inf  # by the trio clock: when what waits is tried again, after it could not start

    @property
    def session_id(self) -> str:
        return self.journal.session_id

    # --- writing

    def commit(self, transaction: Transaction, more: Callable[[int], Mapping[str, bytes | None]] | None = None) -> Mark:
        """Raise the log's token, and stamp: all of it will be stored, or nothing. Raises as `stamp`.

        ``more`` gives further records, once the last offset is known.
        """
        self.journal.raise_token()
        records = transaction.records
        if more is None:
            return stamp(self.journal, transaction.items, records)
        return stamp(self.journal, transaction.items, lambda offset: {**records, **more(offset)})

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

    def info(self, generation_id: str) -> GenerationInfo | None:
        """The live generation's state and turn, if it is this one."""
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
