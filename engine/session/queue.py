"""The queue of one session goes on: what waits starts, one after the other, whenever nothing is live.

Owns when that is, and when it is tried again. What waits is `rules.queue`'s, how one starts is `starting`'s. Every
coroutine is a lifecycle step or part of one.
"""

from __future__ import annotations

import logging

import trio

from ..errors import GenerationNotFound, Moved, ProducerNotFound, StorageError, TimedOut
from ..events import new_message_id
from ..generation.generation import Producer
from ..results import QueueNext
from ..rules.ending import Ending
from ..rules.policy import Policy
from ..rules.queue import QueuedStart
from ..supervision import own_failure
from .core import Core
from .ending import finished_first
from .starting import begin
from .transaction import StartRequest, all_dropped, dropped, resumed

__all__ = ["dequeue", "due", "may_start", "queue_next", "start_next"]

logger = logging.getLogger("penstock.session")


def may_start(core: Core) -> bool:
    """Whether the next queued generation may start."""
    return (
        core.live is None
        and bool(len(core.queue))
        and not core.queue.paused
        and core.journal.refused is None
        and len(core.stragglers) < core.config.max_stragglers
    )


def due(core: Core) -> bool:
    """Whether it may, and its time has come."""
    return may_start(core) and trio.current_time() >= core.retry_at


async def start_next(core: Core) -> None:
    """Start what is next; what fails for the log's sake is tried again, and the steps that wait come in between."""
    try:
        await _start_next(core)
    except Moved:
        _try_later(core)  # it waits in the other engine now; this one steps down
    except (StorageError, TimedOut) as error:
        logger.warning("session %s: what waits cannot start yet: %s", core.session_id, error)
        _try_later(core)
    except BaseException as error:
        failure = own_failure(error)
        logger.error("session %s: what waits does not start", core.session_id, exc_info=failure)
        _try_later(core)


def _try_later(core: Core) -> None:
    if core.journal.refused is None:  # else the repair stands before the next try
        core.retry_at = trio.current_time() + core.config.retry_max


async def queue_next(core: Core) -> QueueNext:
    """Let a paused queue go on; tells which one started, if one did."""
    finished_first(core)
    await core.settled(core.commit(resumed(core.queue, "next")))
    started = await _start_next(core)
    return QueueNext(cursor=core.journal.cursor, generation_id=started)


async def _start_next(core: Core) -> str | None:
    """Start the next one, if it may; tells which."""
    while may_start(core):
        item = core.queue.items[0]
        try:
            producer = core.context.find_producer(item.producer)
        except ProducerNotFound:
            ending = Ending(outcome="failed", code="PRODUCER_NOT_FOUND", message="Nobody here can produce it.")
            core.commit(dropped(core.queue, item, ending))
            continue
        request = _request_of(item, producer)
        named = None if item.message is None else item.message_id
        if named is not None and await core.message_ids.find(named) is not None:  # used by somebody while this waited
            named = request.message_id = new_message_id()
        async with core.message_ids.claiming(named):
            await begin(core, request, waited=item)
        return item.generation_id
    return None


async def dequeue(core: Core, generation_id: str) -> None:
    """Take a waiting generation out; it ends as ``stopped``. Raises `GenerationNotFound`."""
    item = core.queue.find(generation_id)
    if item is None:
        raise GenerationNotFound(
            "no queued generation has this id", session_id=core.session_id, generation_id=generation_id
        )
    core.journal.check()
    await core.settled(core.commit(all_dropped(core.queue, [item], "stopped")))


def _request_of(item: QueuedStart, producer: Producer) -> StartRequest:
    """The start that waited, its turn come."""
    return StartRequest(
        generation_id=item.generation_id,
        proposed=False,
        producer=producer,
        producer_name=item.producer,
        registered=True,
        policy=Policy(item.policy),
        text=item.text,
        message=item.message,
        input=item.input,
        job_id=item.job_id,
        metadata=item.metadata,
        replaces=item.replaces,
        continues=item.continues,
        author=item.author,
        on_last_disconnect=item.on_last_disconnect,
        idle_limit=item.idle_limit,
        message_id=item.message_id,
    )
