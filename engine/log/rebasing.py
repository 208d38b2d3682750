"""New epochs for a store that was restored from a backup, while nobody noticed."""

from __future__ import annotations

import os

import trio

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
        async with trio.open_nursery(strict_exception_groups=False) as nursery:
            for head in heads:
                if head.damage is None:
                    nursery.start_soon(log.write, _claim(head))
        after = heads[-1].session_id


def _claim(head: Head) -> Claim:
    return Claim(
        session_id=head.session_id, epoch=head.epoch, seen=head.token, owner=head.owner, anew=rebased(head.epoch)
    )
