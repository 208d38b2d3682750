"""Forks: a session that begins with what another one holds."""

from __future__ import annotations

import trio
from outcome import Error, Outcome, Value

from ..errors import Draining, IdInUse, PenstockError
from ..events import Cursor, JSONObject, SessionId, now
from ..rules.forking import beginning
from ..rules.records import COPYING, CopyingRecord, to_record
from ..stream.slices import in_slices
from ..supervision import own_failure
from ..upkeep.files import copy_files
from .registry import Registry

__all__ = ["fork"]


async def fork(
    registry: Registry,
    sid: SessionId,
    source: SessionId,
    at: Cursor | str | None,
    metadata: JSONObject | None,
) -> None:
    """Begin a session with what ``source`` holds, in a task of the engine's: a caller may leave.

    Raises `IdInUse`, `InvalidCursor`, `MessageNotFound` and what the source's being gone raises.
    """
    registry.check_open()
    done = trio.Event()
    came_to: Outcome[None] = Error(Draining("the engine is shutting down"))  # unless it comes to its end

    async def carry_out() -> None:
        nonlocal came_to
        try:
            await _fork(registry, sid, source, at, metadata)
            came_to = Value(None)
        except BaseException as error:  # noqa: BLE001  the caller's
            came_to = Error(own_failure(error))
        finally:
            done.set()

    registry.launch(carry_out, f"penstock fork of {source}")
    await done.wait()
    came_to.unwrap()


async def _fork(
    registry: Registry,
    sid: SessionId,
    source: SessionId,
    at: Cursor | str | None,
    metadata: JSONObject | None,
) -> None:
    point = await (await registry.reader(source)).fork_point(at)
    metadata = point.metadata if metadata is None else metadata
    begins = await in_slices(
        beginning(
            point.messages,
            point.generations,
            session_id=sid,
            source=source,
            cursor=point.cursor,
            metadata=metadata,
            time=now(),
        )
    )
    files = CopyingRecord(session_id=source, epoch=point.cursor.epoch, file_ids=begins.file_ids)
    records = {**begins.records, COPYING: to_record(files)} if begins.file_ids else begins.records
    async with registry.until_closed(), registry.entrance(sid):
        head = await registry.heads.find(sid)
        if head is not None and not head.deleted:
            raise IdInUse("a session has this id already; choose another for the fork", session_id=sid)
        registry.check_open()
        head = await registry.heads.begin(sid, head, begins.events, metadata, records, begins.listed)
        try:
            if begins.file_ids:
                await copy_files(registry.log, sid, head.epoch, files)
        except PenstockError:  # then there is no fork; if that cannot be stored either, its files come later
            await registry.heads.end(sid, head)
            raise
        await registry.enter(head)
    await registry.reader(sid)
