"""One log copied into another, whatever stores they are: every living session, read back and compared.

Owns what a copy is. Works on the two logs alone. Epochs, offsets and tokens stay, so that cursors hold, and a claim in
the copy gets a token that nobody had; owners do not, for none of them is there. What is in doubt takes a new epoch.

The source may be in use. Of each session is copied what it held at one moment: records are read before and behind its
head until they are the same, events up to that head stay as they are, and what compaction makes of them meanwhile
folds to the same. Sessions are of different moments.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Final, final

import trio
from attrs import evolve, field, frozen

from ..errors import CorruptSession, PenstockError, StaleEpoch, StorageError, UnwritableDatabase
from ..log.fence import life_over
from ..log.port import Append, Compact, Delete, Entry, EventLog, Head, Keep, Write, rebased
from ..rules.records import COPYING, FILES, INCOMPLETE, PARTS, READABLE, UPLOADING, FileRecord, read_record
from ..stream.aside import check_page, reading, sound
from .compaction import Progress

__all__ = ["Copied", "copy_log"]

# How many sessions one read of the index gives, and how many are under way at once: their writes share commits.
_SESSIONS: Final = 200
_AT_ONCE: Final = 16

# What is in memory of one session, beside its records: a page of events, or a part of a file.
_EVENTS: Final = 512
_BYTES: Final = 1024 * 1024

# Offsets in one write, and records in one with so many bytes past the first.
_PIECE: Final = 1024
_LOT: Final = 256 * 1024

# How often a session is looked at that changes all the time, and seconds in between.
_TRIES: Final = 200
_PAUSE: Final = 0.02


@final
@frozen(kw_only=True)
class Copied:
    """What a copy holds. ``left_out`` has the sessions of the source that cannot be read, and why."""

    sessions: int
    events: int
    left_out: Mapping[str, str] = field(factory=dict)


async def copy_log(
    source: EventLog, destination: EventLog, *, progress: Callable[[Progress], None] | None = None
) -> Copied:
    """Copy all sessions that live in ``source`` into ``destination``, which must be empty, and read them back.

    One that is deleted meanwhile is not in the copy, one that is created meanwhile may be. What was deleted before is
    not. Until the copy is whole, `open_engine` refuses it and says why: also when this was cancelled, or failed.

    In memory are the records of 16 sessions and a page of each. Raises `UnwritableDatabase` when ``destination`` is not
    empty or ``source`` is itself a copy that is not whole, and `StorageError` when either store fails, when what is
    read back is something else, and when a session changes all the time.
    """
    if await source.holders(INCOMPLETE, limit=1):
        raise UnwritableDatabase("the source is a copy that is not whole: copy from what that was made of")
    if await destination.holders(INCOMPLETE, limit=1):
        raise UnwritableDatabase("the destination has a copy that is not whole: remove it, and copy again")
    if await destination.heads(limit=1):
        raise UnwritableDatabase("the destination is not empty: name another place, or remove what is there")
    return await _Copying(source, destination, progress).run()


@final
class _Copying:
    def __init__(
        self, source: EventLog, destination: EventLog, progress: Callable[[Progress], None] | None = None
    ) -> None:
        self._source = source
        self._destination = destination
        self._progress = progress
        self._done = self._total = 0
        self._sessions = self._events = 0
        self._left_out: dict[str, str] = {}
        self._marked: Head | None = None  # which says that the copy is not whole
        self._dropped: list[Head] = []
        self._free = trio.Semaphore(_AT_ONCE)
        self._failure: BaseException | None = None

    async def run(self) -> Copied:
        if self._progress is not None:
            after = ""
            while heads := await self._source.heads(after=after, limit=_SESSIONS):
                self._total += sum(head.tail for head in heads)
                after = heads[-1].session_id
        await self._copy_all()
        for head in self._dropped:
            if head is not self._marked:
                await self._delete(head)
        if self._marked in self._dropped:
            await self._delete(self._marked)
        elif (mark := self._marked) is not None:
            await self._write(Keep(session_id=mark.session_id, epoch=mark.epoch, records={INCOMPLETE: None}))
        return Copied(sessions=self._sessions, events=self._events, left_out=self._left_out)

    async def _copy_all(self) -> None:
        raised: BaseException | None = None
        async with trio.open_nursery() as nursery:
            try:
                after = ""
                while heads := await self._source.heads(after=after, limit=_SESSIONS):
                    for head in heads:
                        await self._free.acquire()
                        if self._marked is None:  # the first is there before any other is begun
                            await self._copy_one(head, nursery)
                        else:
                            nursery.start_soon(self._copy_one, head, nursery)
                    after = heads[-1].session_id
                for _ in range(_AT_ONCE):
                    await self._free.acquire()
            except BaseException as error:  # noqa: BLE001  carried around the nursery, which would wrap it
                raised = error
                nursery.cancel_scope.cancel(reason="the copy failed")
        raised = self._failure or raised
        if raised is not None:
            raise raised

    async def _copy_one(self, head: Head, nursery: trio.Nursery) -> None:
        made: list[Head] = []
        try:
            try:
                await self._copy(head, made)
            except StaleEpoch:  # it was deleted meanwhile
                self._dropped += made
            except CorruptSession as error:
                self._left_out[head.session_id] = error.detail
                self._dropped += made
        except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001  carried around the nursery
            self._failure = self._failure or error
            nursery.cancel_scope.cancel(reason="the copy failed")
        finally:
            self._free.release()

    async def _copy(self, found: Head, made: list[Head]) -> None:
        """``made`` gets the head of what has been begun. Raises `StaleEpoch` and `CorruptSession` of the source."""
        sound(found)
        head, records = await self._standing(found)
        there = await self._destination.head(head.session_id)  # none, or what a deleted one has left
        mark: dict[str, bytes | None] = {INCOMPLETE: b"{}"} if self._marked is None else {}
        begun = Append(
            session_id=head.session_id,
            epoch=rebased(head.epoch) if head.doubted else head.epoch,
            expected_tail=0,
            token=max(head.token, there.token if there is not None else 0),
            events=(),
            records=mark,
            summary=head.summary,
            create=True,
        )
        await self._write(begun)
        made.append(copied := evolve(head, epoch=begun.epoch, token=begun.token, owner="", doubted=False))
        if mark:
            self._marked = copied
        wanted = await self._copy_events(head, copied)
        await self._copy_records(head, copied, records, wanted)
        await self._compare(copied, records, wanted)
        self._sessions += 1

    async def _standing(self, found: Head) -> tuple[Head, dict[str, bytes]]:
        """A head and the records of the same moment. Raises `StaleEpoch` when this life is over."""
        for _ in range(_TRIES):
            records = await _records(self._source, found)
            head = sound(await self._source.head(found.session_id))
            if head is None or head.deleted or head.epoch != found.epoch:
                raise life_over(found.session_id)
            if records == await _records(self._source, found):
                return head, records
            await trio.sleep(_PAUSE)
        raise StorageError(f"session {found.session_id} changes all the time: stop what serves the source")

    async def _copy_events(self, head: Head, copied: Head) -> _Sum:
        summed = _Sum()
        position = 0
        while position < head.tail:
            page = await _page(self._source, head, position)
            last = page[-1].offset if page else head.tail
            await self._append(copied, position, last, page)
            summed.add_all(page)
            self._events += len(page)
            self._pass(last - position)
            position = last
        return summed

    async def _append(self, head: Head, position: int, last: int, page: Sequence[Entry]) -> None:
        """Where compaction has left no event, there is one for a moment: a log has no hole when it is appended to."""
        bodies = {entry.offset: entry.body for entry in page}
        session_id, epoch = head.session_id, head.epoch
        for begin in range(position, last, _PIECE):
            offsets = range(begin + 1, min(begin + _PIECE, last) + 1)
            events = [bodies.get(offset, b"null") for offset in offsets]
            await self._write(
                Append(session_id=session_id, epoch=epoch, expected_tail=begin, token=head.token, events=events)
            )
            gone = [offset for offset in offsets if offset not in bodies]
            if gone:
                await self._write(Compact(session_id=session_id, epoch=epoch, remove=gone))

    async def _copy_records(self, head: Head, copied: Head, records: Mapping[str, bytes], summed: _Sum) -> None:
        session_id, epoch = copied.session_id, copied.epoch
        lot: dict[str, bytes | None] = {}
        size = 0
        for key, value in records.items():
            lot[key] = value
            size += len(key) + len(value)
            if size > _LOT:
                await self._write(Keep(session_id=session_id, epoch=epoch, records=lot))
                lot, size = {}, 0
        if lot:
            await self._write(Keep(session_id=session_id, epoch=epoch, records=lot))
        for key in _part_keys(head, records):
            part = await self._source.record(head.session_id, head.epoch, key)
            summed.add(key, part)
            if part is not None:
                await self._write(Keep(session_id=session_id, epoch=epoch, records={key: part}))

    async def _compare(self, head: Head, records: Mapping[str, bytes], wanted: _Sum) -> None:
        """Read everything back. Raises `StorageError` when it is not what was copied."""
        log = self._destination
        found = _Sum()
        position = 0
        try:
            while page := await _page(log, head, position):
                found.add_all(page)
                position = page[-1].offset
            for key in _part_keys(head, records):
                found.add(key, await log.record(head.session_id, head.epoch, key))
            same = (
                found.digest == wanted.digest
                and await log.head(head.session_id) == head
                and await _records(log, head) == records
            )
        except (StaleEpoch, CorruptSession):
            same = False
        if not same:
            raise StorageError(f"session {head.session_id} is not in the copy as it was copied: do not use it")

    async def _delete(self, head: Head) -> None:
        await self._write(Delete(session_id=head.session_id, epoch=head.epoch, token=head.token))

    async def _write(self, write: Write) -> None:
        try:
            await self._destination.write(write)
        except PenstockError as error:
            raise StorageError(f"the copy cannot be written: {error.detail}") from error

    def _pass(self, offsets: int) -> None:
        self._done += offsets
        if self._progress is not None:
            self._progress(Progress(done=self._done, total=max(self._total, self._done)))


@final
class _Sum:
    """Tells whether two have the same events and parts of files, without keeping them."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def add_all(self, page: Sequence[Entry]) -> None:
        for entry in page:
            self.add(str(entry.offset), entry.body)

    def add(self, key: str, value: bytes | None) -> None:
        self._hash.update(b"%d %s %d " % (len(key), key.encode(), -1 if value is None else len(value)))
        self._hash.update(value or b"")

    @property
    def digest(self) -> bytes:
        return self._hash.digest()


async def _page(log: EventLog, head: Head, position: int) -> list[Entry]:
    """The next events up to the head's tail."""
    page = await log.read(head.session_id, head.epoch, after=position, limit=_EVENTS, max_bytes=_BYTES)
    with reading(head.session_id):
        check_page(page, position)
    return [entry for entry in page if entry.offset <= head.tail]


async def _records(log: EventLog, head: Head) -> dict[str, bytes]:
    """All but the parts of files, which may be many, and what says that the copy is not whole.

    Where there are no files, in one read: most sessions have none.
    """
    files = [await log.records(head.session_id, head.epoch, prefix) for prefix in (UPLOADING, COPYING, FILES)]
    found: dict[str, bytes] = {}
    for prefix in READABLE if any(files) else ("",):
        found |= await log.records(head.session_id, head.epoch, prefix)
    return {key: value for key, value in found.items() if key != INCOMPLETE and not key.startswith(PARTS)}


def _part_keys(head: Head, records: Mapping[str, bytes]) -> list[str]:
    with reading(head.session_id):
        files = [read_record(body, FileRecord) for key, body in records.items() if key.startswith(FILES)]
    return [key for file in files for key in file.part_keys]
