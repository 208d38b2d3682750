"""How a turn of one session begins: in place of the live generation, or behind it.

Owns what becomes of a start, and what a run is made of. `start` is a lifecycle step, and the other coroutines are parts
of one. What is refused is refused before anything is cancelled or written.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import nullcontext

from ..errors import (
    GenerationActive,
    IdInUse,
    InvalidBody,
    MessageNotFound,
    PenstockError,
    QueueFull,
    TimedOut,
)
from ..events import Version
from ..generation.run import Run
from ..generation.stamper import LongPart
from ..results import Queued, Started, Superseded
from ..rules.ending import SAFE_TEXTS, Ending
from ..rules.lifecycle import Draft, OpenGeneration
from ..rules.policy import Enqueue, Join, Refuse, Situation, Start, Supersede, decide
from ..rules.queue import QueuedStart
from ..stream.journal import Mark
from ..stream.slices import in_slices
from .core import Core
from .ending import ending_of, finished_first, wind_down, write_end
from .messages import said_without, tell_last
from .transaction import NOTHING, StartRequest, Transaction, all_dropped, ended, enqueued, replaced, started
from .versions import Leaving, leaving

__all__ = ["begin", "begin_written", "make_run", "start"]


async def start(core: Core, request: StartRequest) -> Started | Queued:
    """Start a generation, or queue it; the live one ends first if the policy says so. Returns after the commit."""
    await _settle(core, request)
    answer = await core.answers.find(request)
    if answer is not None:
        return answer
    try:
        await _check_ids(core, request)
    except IdInUse:
        # Another engine may have claimed the session and started this very request since the first look.
        answer = await core.answers.find(request)
        if answer is None:
            raise
        return answer
    async with core.message_ids.claiming(request.message_id if request.names_message else None):
        return await _start(core, request)


async def _start(core: Core, request: StartRequest) -> Started | Queued:
    """What its ids do not stand in the way of."""
    old = finished_first(core)
    decision = _decide(core, request, old)
    match decision:
        case Join():
            assert old is not None
            return await _join(core, request, old)
        case Enqueue():
            return await _enqueue(core, request, decision)
        case Supersede(retract=retract):
            assert old is not None
            ending, seconds = await wind_down(core, old, "superseded", by=request.generation_id, retract=retract)
            superseded = Superseded(generation_id=old.generation_id, cleanup=ending.cleanup or "clean", seconds=seconds)
            try:
                return await begin(core, request, old=old, ending=ending, superseded=superseded)
            except PenstockError:
                # What is fenced and cancelled ends all the same, and as what it was; a repair ends it itself.
                if core.live is old and core.journal.refused is None:
                    write_end(core, old, ending)
                raise
        case Start():
            return await begin(core, request)


async def _settle(core: Core, request: StartRequest) -> None:
    """A start that may be a repetition waits for those that the log may not know yet."""
    if not (request.proposed or request.idempotency_key):
        return
    for mark in core.unsettled:
        if not core.journal.settled(mark):
            await core.settled(mark)


async def _check_ids(core: Core, request: StartRequest) -> None:
    gid = request.generation_id
    if request.proposed and (core.info(gid) is not None or await core.history.generation(gid) is not None):
        raise IdInUse("a generation had this id before", session_id=core.session_id, generation_id=gid)
    for named in (request.replaces, request.continues):
        if named is not None:
            await core.settled()
            await core.history.message_ids(named)


def _decide(core: Core, request: StartRequest, old: Run | None) -> Start | Supersede | Enqueue | Join:
    """Every refusal of a start, before anything is cancelled or written."""
    live = None if old is None else old.generation_id
    decision = decide(
        request.policy,
        Situation(
            live=live,
            queued=core.queue.generation_ids,
            queue_limit=core.config.queue_limit,
            queueable=request.registered,
            brings_content=request.brings_content,
        ),
    )
    match decision:
        case Refuse(code="GENERATION_ACTIVE"):
            raise GenerationActive("a generation is live", session_id=core.session_id, generation_id=live)
        case Refuse(code="QUEUE_FULL"):
            raise QueueFull(f"{len(core.queue)} generations wait already", session_id=core.session_id)
        case Refuse():
            raise InvalidBody(
                "only a registered producer, by its name, can wait in the queue", session_id=core.session_id
            )
        case Start() | Supersede():
            core.check_stragglers()
        case Enqueue() | Join():
            pass
    return decision


async def _join(core: Core, request: StartRequest, old: Run) -> Started:
    """Answer with the live one, and keep the answer for a repetition that comes behind its end."""
    gid, turn = old.generation_id, old.structure.turn
    # One that its first chunk began may not be stored yet.
    mark = core.journal.mark()
    if request.idempotency_key is not None:
        mark = core.journal.append((), core.answers.answer(request, turn=turn, joined=gid)(mark.offset))
        core.note_unsettled(mark)
    await core.settled(mark)
    return Started(generation_id=gid, turn=turn, cursor=core.journal.cursor_at(mark), joined=True)


async def _enqueue(core: Core, request: StartRequest, decision: Enqueue) -> Queued:
    """Queue the start, in place of those it pushes out; durable when this returns."""
    request.stopped = core.stops.take(request.generation_id) or request.stopped
    core.journal.check()
    pushed_out = [item for item in core.queue.items if item.generation_id in decision.pushed_out]
    # It takes its place before the others leave theirs: a queue that is empty in between would no longer be paused.
    added = enqueued(core.queue, request, decision.position)
    transaction = all_dropped(core.queue, pushed_out, "superseded", by=request.generation_id) + added
    if request.stopped:
        transaction += all_dropped(core.queue, core.queue.items[-1:], "stopped")
    mark = core.commit(transaction, core.answers.answer(request, position=decision.position))
    await core.settled(mark)
    return Queued(generation_id=request.generation_id, position=decision.position, cursor=core.journal.cursor_at(mark))


async def begin(
    core: Core,
    request: StartRequest,
    *,
    old: Run | None = None,
    ending: Ending | None = None,
    superseded: Superseded | None = None,
    waited: QueuedStart | None = None,
) -> Started:
    """Write the old one's end and the start as one part; run the producer once that is durable.

    ``waited`` leaves the queue in the same part.
    """
    gid = request.generation_id
    message_ids = await _retracted(core, request)
    rolls_back = ending is not None and ending.retract
    gone, version = await _anew(core, request, message_ids, old.structure.message_ids if old and rolls_back else ())
    said = await said_without(core, message_ids)
    request.stopped = core.stops.take(gid) or request.stopped
    question = request.message_id if request.brings_message else None
    structure = OpenGeneration(
        gid,
        core.turn + 1,
        request.job_id,
        continues=request.continues,
        question=question,
        version=version if question is None else None,
    )
    before = NOTHING if old is None or ending is None else ended(old.structure, ending)
    transaction = NOTHING
    if request.replaces is not None:
        transaction += replaced(message_ids, None if old is None else old.structure, rolled_back=rolls_back)
    if waited is not None:
        transaction += Transaction(records=core.queue.remove(waited))
    transaction += started(
        structure,
        request,
        supersedes=None if superseded is None else superseded.generation_id,
        after=core.journal.stamped,
        version=version,
    )
    run = make_run(core, structure, request)
    answer = core.answers.answer(request, turn=structure.turn, superseded=superseded)
    part = LongPart(core.journal)  # it may retract any number of messages
    with nullcontext() if old is None else ending_of(core, old):
        await in_slices(part.preparing(before.items))
        ends = len(part)
        await in_slices(part.preparing(transaction.items))

        def records(offset: int) -> Mapping[str, bytes | None]:
            left = {} if gone is None else gone.records(offset - len(part) + ends + 1)
            return {**before.records, **transaction.records, **left, **answer(offset)}

        core.journal.raise_token()
        mark = part.stamp(records)
        tell_last(core, said)
    core.turn, core.anew = structure.turn, structure.version is not None
    core.hold(None if request.stopped else run)
    if question is not None:
        core.message_ids.note(request.message_id, mark)
    await in_slices(part.writing())
    await _committed_or_ended(core, mark, run)
    if core.live is run:
        run.launched = True
        core.launch(run)
    return Started(
        generation_id=gid,
        turn=structure.turn,
        cursor=core.journal.cursor_at(mark),
        message_id=question,
        superseded=superseded,
    )


def begin_written(
    core: Core,
    request: StartRequest,
    structure: OpenGeneration,
    drafts: Iterator[Draft],
    records: Callable[[int], Mapping[str, bytes | None]],
) -> tuple[Mark, Run | None]:
    """Write a start and the first that its producer wrote, ``drafts``, as one part. Nothing may be live.

    It runs before it is durable: its producer is elsewhere, and hears of nothing that is not. If a stop came
    first, it is written as started and stopped, without the drafts; there is no run, then. What the drafts
    raise leaves no trace. Without a wait.
    """
    core.journal.check()
    request.stopped = core.stops.take(request.generation_id) or request.stopped
    run = None if request.stopped else make_run(core, structure, request)
    transaction = started(structure, request, supersedes=None, after=core.journal.stamped)
    if run is None:
        mark = core.commit(transaction)
    else:
        mark = core.commit(transaction + Transaction((structure, draft) for draft in drafts), records)
        core.hold(run)
        run.launched = True
        core.launch(run)
    core.turn, core.anew = structure.turn, False
    core.note_unsettled(mark)
    return mark, run


def make_run(core: Core, structure: OpenGeneration, request: StartRequest) -> Run:
    """What carries the start out; it is to be launched."""
    return Run(
        structure,
        core.journal,
        core.config,
        core.context,
        producer=request.producer,
        producer_name=request.producer_name,
        input=request.input,
        metadata=request.metadata or {},
        on_last_disconnect=request.on_last_disconnect,
        idle_limit=request.idle_limit,
    )


async def _retracted(core: Core, request: StartRequest) -> list[str]:
    """The messages that the start takes out: the one it replaces, and what follows."""
    if request.replaces is None:
        return []
    await core.settled()
    try:
        return await core.history.message_ids(request.replaces)
    except MessageNotFound:
        return []  # it left the transcript while the start waited


async def _anew(
    core: Core, request: StartRequest, message_ids: Sequence[str], rolled_back: Collection[str]
) -> tuple[Leaving | None, Version | None]:
    """What leaves for another version of it, and which version comes; what is rolled back is none, and gives it up.

    So does an answer anew that wrote nothing: what is asked for next, with nothing new said, takes its number.
    """
    if message_ids:
        gone = await leaving(core, message_ids[0])
        if message_ids[0] in rolled_back:
            return None, gone.standing.message.version
        return gone, gone.next
    if core.anew and request.replaces is None and not request.brings_message and request.continues is None:
        await core.settled()
        return None, await core.history.ask_state(lambda state: state.unspoken)
    return None, None


async def _committed_or_ended(core: Core, mark: Mark, run: Run) -> None:
    """Wait for a start's commit; when the disk hangs, put the end right behind it and do not run it."""
    try:
        await core.settled(mark)
    except TimedOut:
        if core.live is run:
            run.set_done()
            mark = write_end(core, run, Ending(outcome="failed", code="WRITE_FAILED", message=SAFE_TEXTS["failed"]))
        core.note_unsettled(mark)
        raise
