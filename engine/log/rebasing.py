"""New epochs for a store that was restored from a backup, while nobody noticed."""

from __future__ import annotations

import os
from collections.abc import Sequence

import trio

from ..errors import PenstockError
from .opening import open_log
from .port import Claim, EventLog, Head, rebased

__all__ = ["rebase_log"]


async def rebase_log(place: str | os.PathLike[str], *, patience: float = 10.0, allow_weak_store: bool = False) -> None:
    """Have every session of the log at ``place`` go on in a new epoch, so that no cursor of before fits any event.

    For a store of others that was restored from a backup: at once, whatever it holds, and servers may be at work. Each
    session gets its epoch when it is next written in. In a file they all get it here, and it must not be in use.
    Cancelled, it leaves some as they were; it can be repeated.

    Raises `DatabaseError` when the log cannot be opened, `StorageError`, `WriteFailed`.
    """
    log = await open_log(place, patience=patience, allow_weak_store=allow_weak_store)
    try:
        if not await log.doubt_all():
            await _rebase_each(log)
    finally:
        await log.aclose()


async def _rebase_each(log: EventLog) -> None:
    after = ""
    while heads := await log.heads(after=after):
        await _claim_all(log, [head for head in heads if head.damage is None])
        after = heads[-1].session_id


async def _claim_all(log: EventLog, heads: Sequence[Head]) -> None:
    """All in one turn, so that a commit takes many."""
    reports: list[PenstockError | None] = []
    done = trio.Event()

    def report(error: PenstockError | None) -> None:
        reports.append(error)
        if len(reports) == len(heads):
            done.set()

    for head in heads:
        anew = rebased(head.epoch)
        claim = Claim(session_id=head.session_id, epoch=head.epoch, seen=head.token, owner=head.owner, anew=anew)
        log.submit(claim, report)
    if heads:
        await done.wait()
    for error in reports:
        if error is not None:
            raise error
