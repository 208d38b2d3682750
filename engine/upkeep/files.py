"""Files that a crash left half: parts of one that was being sent are removed, a fork gets what it lacks.

On the log alone, in steps of one part. A file's record is written behind its last part, so one that is there is whole.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from ..errors import PenstockError, StaleEpoch
from ..log.port import EventLog, Keep
from ..rules.records import (
    COPYING,
    UPLOADING,
    CopyingRecord,
    FileRecord,
    UploadsRecord,
    file_key,
    part_keys,
    read_record,
)
from ..stream.aside import reading, sound

__all__ = ["copy_files", "finish_copies", "removed_parts", "sweep_uploads"]

logger = logging.getLogger("penstock.files")

# Sessions in one read of the index.
_WIDTH = 100


def removed_parts(upload: str, most: object) -> dict[str, bytes | None]:
    """The records that take away whatever there is of a file of at most so many bytes."""
    return dict.fromkeys(part_keys(upload, most if type(most) is int and most > 0 else 0))


async def sweep_uploads(log: EventLog, owner: str = "") -> None:
    """Remove what is left of files whose sending was cut off. Nobody may be sending any yet.

    With ``owner``, an engine's name, only in sessions that are its or nobody's: into others somebody may be sending.

    Where that fails it stays, which the server's log tells. Raises `StorageError` when the store cannot be read.
    """

    async def sweep(session_id: str, epoch: str, body: bytes) -> None:
        with reading(session_id):
            uploads = read_record(body, UploadsRecord).most
        for upload, most in uploads.items():
            await log.write(Keep(session_id=session_id, epoch=epoch, records=removed_parts(upload, most)))
        await log.write(Keep(session_id=session_id, epoch=epoch, records={UPLOADING: None}))

    await _each_holder(log, UPLOADING, sweep, owner)


async def finish_copies(log: EventLog, *, begins: Callable[[str], bool]) -> None:
    """Give forks the files that they lack, but for one that ``begins`` just now. As `sweep_uploads`."""

    async def finish(session_id: str, epoch: str, body: bytes) -> None:
        if begins(session_id):
            return
        with reading(session_id):
            copying = read_record(body, CopyingRecord)
        await copy_files(log, session_id, epoch, copying)

    await _each_holder(log, COPYING, finish)


async def _each_holder(
    log: EventLog, key: str, do: Callable[[str, str, bytes], Awaitable[None]], owner: str = ""
) -> None:
    """``do`` it for each living session that has the record ``key``: its id, its epoch and the record."""
    after = ""
    while holders := await log.holders(key, after=after, limit=_WIDTH):
        for session_id, body in holders:
            try:
                head = sound(await log.head(session_id))
                if head is not None and (not owner or head.owner in ("", owner)):
                    await do(session_id, head.epoch, body)
            except StaleEpoch:
                pass  # it was deleted meanwhile
            except PenstockError as error:
                logger.warning("session %s: files that were cut off stay as they are: %s", session_id, error)
        after = holders[-1][0]


async def copy_files(log: EventLog, session_id: str, epoch: str, copying: CopyingRecord) -> None:
    """Copy files into this life of a session, whatever of them is there; one that is there is passed over.

    What the source does not have, or has no longer, stays away. Raises `WriteFailed`, `StorageError`, `StaleEpoch` when
    the life is over.
    """
    ids = copying.file_ids if isinstance(copying.file_ids, list | tuple) else ()
    for file_id in map(str, ids):
        key = file_key(file_id)
        if await log.record(session_id, epoch, key) is not None:
            continue
        try:
            body = await log.record(copying.session_id, copying.epoch, key)
        except StaleEpoch:
            break
        if body is None:
            continue
        with reading(copying.session_id):
            file = read_record(body, FileRecord)
        for part in file.part_keys:
            try:
                content = await log.record(copying.session_id, copying.epoch, part)
            except StaleEpoch:
                content = None
            if content is None:
                await log.write(Keep(session_id=session_id, epoch=epoch, records=dict.fromkeys(file.part_keys)))
                break
            await log.write(Keep(session_id=session_id, epoch=epoch, records={part: content}))
        else:
            await log.write(Keep(session_id=session_id, epoch=epoch, records={key: body}))
    await log.write(Keep(session_id=session_id, epoch=epoch, records={COPYING: None}))
