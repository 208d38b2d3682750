"""How a turn of one session ends: by itself, at a limit, by a stop, a reset, a deletion, a shutdown.

Owns the fence, the cancel, the bounded wait for the clean-up, and that the end is written once. Every public coroutine
is a lifecycle step or part of one; the end is written in the session's order, with what it means for those that wait.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import trio
from attrs import evolve

from ..errors import CorruptSession, Draining, PenstockError, StaleEpoch, TimedOut
from ..events import GenerationCancelling, SessionReset
from ..generation.run import LimitName, Run
from ..log.port import Delete
from ..results import Stopped, StopState
from ..rules.ending import Ending
from ..rules.lifecycle import Draft
from ..rules.states import Outcome
from ..stream.journal import Mark
from .core import Core
from .transaction import NOTHING, StartRequest, Transaction, after_stop, all_dropped, ended

__all__ = [
    "end_at_limit",
    "end_corrupt",
    "end_live",
    "ending_of",
    "finish",
    "finished_first",
    "forget",
    "leave",
    "remove",
    "reset",
    "stop",
    "wind_down",
    "write_end",
]


# --- what every end is made of


def finished_first(core: Core) -> Run | None:
    """The live generation; one whose producer is done and whose end was not written yet is ended now."""
    if core.live is not None and core.live.done:
        write_end(core, core.live, core.live.ending())
    return core.live


async def wind_down(
    core: Core,
    run: Run,
    outcome: Outcome,
    *,
    by: str | None = None,
    reason: str | None = None,
    retract: bool = False,
    author: str | None = None,
) -> tuple[Ending, float]:
    """Fence, cancel, wait for the clean-up at most `Config.cleanup_timeout`. Writes all but the end.

    The fence rises at `generation.cancelling`'s place in the session's order: what the producer wrote
    before stands before it, and nothing of it comes after.
    """
    begun = trio.current_time()
    cancelling = GenerationCancelling(reason=reason or outcome, by=by, author=author)
    core.commit(Transaction([(run.structure, Draft(cancelling))]))
    run.ends_as = outcome
    run.fence(f"the generation was {outcome}")
    run.cancel(reason or outcome)
    cleanup = await _await_cleanup(core, run)
    ending = run.ending(outcome, by=by, cleanup=cleanup, retract=retract, author=author)
    return ending, trio.current_time() - begun


async def _await_cleanup(core: Core, run: Run) -> str:
    begun = trio.current_time()
    with trio.move_on_after(core.config.cleanup_timeout):
        await run.wait_done()
    overran = not run.done
    if overran:
        core.stragglers |= {run}
    seconds = trio.current_time() - begun
    core.journal.reporter.cleaned_up(run.generation_id, run.producer_name, seconds, overran=overran)
    return "overran" if overran else "clean"


def write_end(core: Core, run: Run, ending: Ending, *, by: str | None = None, more: Transaction = NOTHING) -> Mark:
    """End it now, and write ``more`` behind that; ``by`` is the remote producer that asks for it."""
    run.fence(f"the generation has ended as {ending.outcome}")
    with ending_of(core, run):
        return core.commit(ended(run.structure, ending, by=by) + more)


@contextmanager
def ending_of(core: Core, run: Run) -> Iterator[None]:
    """Around the stamp of its end: it is live no more then; where the stamp raises, its structure is as it was."""
    with run.structure.trial():
        yield
    if core.live is run:
        core.hold(None)


async def forget(core: Core) -> None:
    """Let go of a generation that `Core.fail` cancelled, after its clean-up; the log tells how it ends."""
    live = core.live
    core.hold(None)
    if live is not None and live.launched and not live.done:
        await _await_cleanup(core, live)


# --- the steps


async def finish(core: Core, run: Run) -> None:
    """Write the end of a generation whose producer is done, unless another step was there first."""
    if core.live is run and core.journal.refused is None:
        write_end(core, run, run.ending())


async def end_at_limit(core: Core, run: Run, limit: LimitName) -> None:
    """End a generation that reached a limit of its own, unless it ended meanwhile.

    A ``disconnected`` one is stopped.
    """
    if core.journal.refused is not None or finished_first(core) is not run:
        return
    stopped = limit == "disconnected"
    outcome: Outcome = "stopped" if limit == "disconnected" else limit
    if limit == "stalled" and run.remote is not None and run.remote.is_lost:
        outcome = limit = "lost"
    ending, _ = await wind_down(core, run, outcome, reason=limit)
    write_end(core, run, ending, more=after_stop(core.queue, "pause", limit) if stopped else NOTHING)


async def stop(
    core: Core,
    generation_id: str | None,
    reason: str,
    reached: Sequence[StartRequest],
    queue: str,
    author: str | None,
) -> Stopped:
    """Stop the live generation, or tell what became of the one meant; ``author`` is who stops it.

    ``reached`` are the starts that were caught while they waited. ``queue`` says what becomes of the waiting
    ones when the live one is stopped, or when no id is given: ``pause``, ``continue`` or ``clear``.
    """
    live = finished_first(core)
    if live is not None and generation_id in (None, live.generation_id):
        ending, _ = await wind_down(core, live, "stopped", reason=reason, author=author)
        await core.settled(write_end(core, live, ending, more=after_stop(core.queue, queue, reason, author)))
        return Stopped(state=_found(ending), generation_id=live.generation_id)
    waiting = None if generation_id is None else core.queue.find(generation_id)
    if waiting is not None:
        core.journal.check()
        await core.settled(core.commit(all_dropped(core.queue, [waiting], "stopped", author=author)))
        return Stopped(state="stopped", generation_id=generation_id)
    if generation_id is None and live is None:
        core.commit(after_stop(core.queue, queue, reason, author))
    await core.settled()
    return await _tell(core, generation_id, reached)


def _found(ending: Ending) -> StopState:
    """What a stop may say of the generation that it ended so: one that failed meanwhile was not stopped."""
    if ending.outcome != "stopped":
        return "already_done"
    return "stopped" if ending.cleanup == "clean" else "stopping"


async def _tell(core: Core, generation_id: str | None, reached: Sequence[StartRequest]) -> Stopped:
    """What a stop found that has nothing to stop."""
    for request in reversed(reached):
        record = await core.history.generation(request.generation_id)
        if record is not None and record.outcome == "stopped":
            return Stopped(state="stopped", generation_id=request.generation_id)
    if generation_id is None:
        return Stopped(state="nothing_active")
    if await core.history.generation(generation_id) is not None:
        return Stopped(state="already_done", generation_id=generation_id)
    core.stops.add(generation_id)
    if core.owner:
        await core.settled(core.journal.append((), core.stops.records()))
    return Stopped(state="pending", generation_id=generation_id)


async def reset(core: Core, reason: str | None) -> Mark:
    """End what is live and what waits as ``reset``; then nothing of the transcript is left."""

    def rest() -> Transaction:
        drops = all_dropped(core.queue, core.queue.items, "reset")
        return drops + Transaction([(None, Draft(SessionReset(reason=reason)))])

    return await _end_live(core, "reset", rest)


async def end_live(core: Core, outcome: Outcome) -> None:
    """End what is live, whatever it is, and wait until everything written so far is durable."""
    await _end_live(core, outcome, lambda: NOTHING)


async def _end_live(core: Core, outcome: Outcome, rest: Callable[[], Transaction]) -> Mark:
    """End what is live and write ``rest`` behind it, as they are then; returns after the commit."""
    live = finished_first(core)
    if live is not None:
        ending, _ = await wind_down(core, live, outcome)
        mark = write_end(core, live, ending, more=rest())
    else:
        mark = core.commit(rest())
    await core.settled(mark)
    return mark


async def end_corrupt(core: Core) -> None:
    """End what is live because what is stored of the session cannot be read; durable when this returns."""
    live = finished_first(core)
    if live is None:
        return
    ending, _ = await wind_down(core, live, "failed", reason="corrupt")
    if live.failure is None:
        ending = evolve(ending, code=CorruptSession.code, message="What is stored of the session cannot be read.")
    await core.settled(write_end(core, live, ending))


async def leave(core: Core) -> None:
    """The engine shuts down: end what is live as ``shutdown``. A remote one stays open in the log.

    Its producer goes on with whoever opens the log next; what it wrote so far is durable when this returns.
    """
    live = finished_first(core)
    if live is None or live.remote is None:
        await end_live(core, "shutdown")
        return
    live.refuse(
        lambda: Draining(
            "the engine is shutting down; go on with the next one",
            session_id=core.session_id,
            generation_id=live.generation_id,
        )
    )
    core.hold(None)  # first: the end of its task writes nothing, then
    live.cancel("the engine shuts down")
    await core.settled()


async def remove(core: Core, on_removed: Callable[[], None]) -> None:
    """End this life of the session in the log; ``on_removed`` is called when the log says so, in its report.

    When the disk hangs it ends whenever the log says so, without a caller. Raises `WriteFailed`, `TimedOut`.
    """
    refusals: list[PenstockError] = []
    reported = trio.Event()

    def report(error: PenstockError | None) -> None:
        # This life is over also when an earlier delete was stored and reported as failed.
        if error is None or isinstance(error, StaleEpoch):
            on_removed()
        else:
            refusals.append(error)
        reported.set()

    journal = core.journal
    journal.raise_token()
    core.log.submit(Delete(session_id=journal.session_id, epoch=journal.epoch, token=journal.token), report)
    with trio.move_on_after(core.config.flush_timeout):
        await reported.wait()
    if refusals:
        raise refusals[0]
    if not reported.is_set():
        raise TimedOut("the log has not deleted the session yet", session_id=journal.session_id)
