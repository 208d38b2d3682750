"""The files that one session keeps: taken in part by part, read again, and named by its messages.

A file is stored in the log, as records of the session's life, beside its events and in no order with them: nothing here
is a step, and nothing waits for one.

    reserve    its place among all the session's files, in the record `UPLOADING`
    store      each part, durable before the next is taken
    finish     its record, `FileRecord`, which makes it a file

Whoever breaks off in between has the parts removed again; what a crash leaves, the next opening of the engine removes
(`upkeep.files`). The id is a digest of what the file is, so that one which is sent again is the same file.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from hashlib import sha256
from typing import Final, cast, final

import trio
from attrs import define, evolve
from uuid_utils import uuid7

from ..codec import decode_json, encode_json
from ..errors import (
    FileNotFound,
    FileTooLarge,
    InvalidBody,
    PenstockError,
    SessionDeleted,
    StaleEpoch,
    StorageError,
    TimedOut,
)
from ..events import BlockSnapshot, MessageSnapshot
from ..log.port import Keep
from ..results import FileInfo, FileKept
from ..rules.attachments import NAMING_KINDS, looks_like
from ..rules.records import FILES, PART, UPLOADING, FileRecord, UploadsRecord, file_key, part_keys, to_record
from ..stream.aside import reading
from ..stream.history import History
from ..upkeep.files import removed_parts
from .core import Core

__all__ = ["Files", "file_info", "read_file", "whole"]

# What is enough of a file to tell its type by.
_BEGINNING: Final = 16

# What a generator that brings a file may take to end, in seconds.
_CLEANUP: Final = 1.0


@final
@define
class _Coming:
    """A file on its way, of at most so many bytes."""

    upload: str
    most: int
    left: bool = False  # there may be something to be removed by whoever gives up


@final
class Files:
    """Those of one session in memory. ``check`` raises where nothing may be written in it."""

    def __init__(self, core: Core, check: Callable[[], None]) -> None:
        self._core = core
        self._check = check
        self._changing = trio.Lock()  # around each look at what there is and the write that stands on it

    async def keep(
        self, content: bytes | AsyncIterable[bytes], media_type: str, filename: str | None, size: int | None
    ) -> FileKept:
        """Take a file in; durable when this returns. ``size`` is what its sender says it has, if anything.

        Raises `FileTooLarge`, `InvalidBody`, and what writing raises: nothing of it is kept then.
        """
        most = self._core.config.file_bytes
        if size is not None:
            if size > most:
                raise self._too_large()
            most = size
        coming = _Coming(str(uuid7()), most)
        try:
            await self._reserve(coming)
            async with _closing(_pieces(content) if isinstance(content, bytes) else content) as pieces:
                stored, digest = await self._store(coming, pieces, media_type)
            if size not in (None, stored):
                raise InvalidBody(f"the file was to have {size} bytes, and {stored} came")
            file = FileRecord(media_type=media_type, size=stored, upload=coming.upload, filename=filename)
            return await self._finish(coming, file, digest)
        except BaseException:
            if coming.left:
                with trio.move_on_after(self._core.config.flush_timeout, shield=True), suppress(PenstockError):
                    async with self._changing:
                        await self._discard(coming)
            raise

    async def named(self, message: MessageSnapshot) -> MessageSnapshot:
        """The message, whose blocks say of each file what the session knows of it, whatever they said.

        Raises `InvalidBody` for a file that the session does not keep, and for an image that is none.
        """
        if not any(block.file_id for block in message.blocks):
            return message
        blocks: list[BlockSnapshot] = []
        files: dict[str, FileRecord | None] = {}  # a message may name one over and over
        for index, block in enumerate(message.blocks):
            if block.file_id is None:
                blocks.append(block)
                continue
            if block.file_id not in files:
                files[block.file_id] = await self._core.history.known(file_key(block.file_id), FileRecord)
            file = files[block.file_id]
            if file is None:
                raise InvalidBody(f"blocks[{index}] names a file that this session does not keep: send the file first")
            if block.kind == "image" and not file.media_type.startswith("image/"):
                raise InvalidBody(f"blocks[{index}] names a file of {file.media_type}: make it a block of kind file")
            if "media_type" in NAMING_KINDS[block.kind]:
                block = evolve(block, media_type=file.media_type, filename=file.filename)
            blocks.append(block)
        return evolve(message, blocks=tuple(blocks))

    # --- the steps of taking one in

    async def _reserve(self, coming: _Coming) -> None:
        async with self._changing:
            others = await self._coming()
            taken = await self._taken() + sum(map(_counted, others.values()))
            # One is let in that there may be no room for: it may be one that is there.
            room = self._core.config.session_file_bytes + _counted(self._core.config.file_bytes)
            if taken + _counted(coming.most) > room:
                raise self._full()
            coming.left = True
            await self._write({UPLOADING: to_record(UploadsRecord(most={**others, coming.upload: coming.most}))})

    async def _store(self, coming: _Coming, content: AsyncIterable[bytes], media_type: str) -> tuple[int, bytes]:
        """Store the parts; how many bytes they have, and their digest."""
        keys = iter(part_keys(coming.upload, coming.most))
        digest, held, size, looked = sha256(), bytearray(), 0, False
        async for piece in content:
            if not isinstance(piece, bytes):
                raise InvalidBody(f"a file is made of bytes, not of {type(piece).__name__}")
            size += len(piece)
            if size > coming.most:
                raise self._too_large(coming.most)
            digest.update(piece)
            held += piece
            if not looked and size >= _BEGINNING:
                _check_type(media_type, held)
                looked = True
            whole = len(held) - len(held) % PART
            for start in range(0, whole, PART):
                await self._write({next(keys): bytes(held[start : start + PART])})
            del held[:whole]
        if not looked:
            _check_type(media_type, held)
        if held:
            await self._write({next(keys): bytes(held)})
        return size, digest.digest()

    async def _finish(self, coming: _Coming, file: FileRecord, digest: bytes) -> FileKept:
        """Have what was stored be a file, unless it is one already."""
        said = encode_json([digest.hex(), file.media_type, file.filename])
        file_id = sha256(said).hexdigest()[:32]
        async with self._changing:
            known = await self._core.history.known(file_key(file_id), FileRecord)
            if known is not None:
                await self._discard(coming)
                coming.left = False
                return FileKept(file=_info(file_id, known), created=False)
            if await self._taken() + _counted(file.size) > self._core.config.session_file_bytes:
                raise self._full()
            records = {file_key(file_id): to_record(file), **await self._without(coming.upload)}
            coming.left = False  # who leaves now, or is told `TimedOut`, does not know what becomes of it
            try:
                await self._write(records)
            except StorageError:
                coming.left = True
                raise
        return FileKept(file=_info(file_id, file), created=True)

    async def _discard(self, coming: _Coming) -> None:
        """Remove whatever there is of it."""
        await self._keep({**removed_parts(coming.upload, coming.most), **await self._without(coming.upload)})

    async def _without(self, upload: str) -> dict[str, bytes | None]:
        others = {each: most for each, most in (await self._coming()).items() if each != upload}
        return {UPLOADING: to_record(UploadsRecord(most=others)) if others else None}

    # --- what there is

    async def _taken(self) -> int:
        """What the session's files count, all in all. There may be a thousand: of each only its size is looked at."""
        bodies = await self._core.history.records(FILES)
        with reading(self._core.session_id):
            return sum(_counted(cast("dict[str, int]", decode_json(body))["size"]) for body in bodies.values())

    async def _coming(self) -> dict[str, int]:
        record = await self._core.history.known(UPLOADING, UploadsRecord)
        return {} if record is None else {each: most for each, most in record.most.items() if type(most) is int}

    async def _write(self, records: Mapping[str, bytes | None]) -> None:
        """`_keep`, where the session may be written."""
        self._check()
        try:
            await self._keep(records)
        except (StorageError, StaleEpoch) as error:
            self._check()  # it was deleted, or the engine closes
            if isinstance(error, StaleEpoch):
                raise SessionDeleted("the session was deleted", session_id=self._core.session_id) from error
            raise

    async def _keep(self, records: Mapping[str, bytes | None]) -> None:
        core = self._core
        with trio.move_on_after(core.config.flush_timeout) as limit:
            await core.log.write(Keep(session_id=core.session_id, epoch=core.journal.epoch, records=records))
        if limit.cancelled_caught:
            raise TimedOut("the log has not stored a part of the file yet", session_id=core.session_id)

    # --- what is refused

    def _too_large(self, most: int | None = None) -> FileTooLarge:
        allowed = self._core.config.file_bytes if most is None else most
        return FileTooLarge(f"a file is at most {allowed} bytes", session_id=self._core.session_id)

    def _full(self) -> FileTooLarge:
        allowed = self._core.config.session_file_bytes
        return FileTooLarge(f"the files of a session are at most {allowed} bytes", session_id=self._core.session_id)


async def file_info(history: History, file_id: str) -> FileInfo:
    """What the session knows of the file. Raises `FileNotFound`."""
    return _info(file_id, await _found(history, file_id))


async def read_file(history: History, file_id: str, start: int, limit: int | None) -> bytes:
    """The file's bytes from ``start`` on, at most ``limit`` of them. Raises `FileNotFound`."""
    file = await _found(history, file_id)
    end = file.size if limit is None else min(file.size, start + limit)
    found = bytearray()
    for number in range(start // PART, -(-end // PART)):
        part = await history.record(file.part_keys[number])
        if part is None or len(part) != min(PART, file.size - number * PART):
            raise FileNotFound("what is stored of the file is not whole", session_id=history.session_id)
        found += part[max(0, start - number * PART) : end - number * PART]
    return bytes(found)


async def _found(history: History, file_id: str) -> FileRecord:
    file = await history.known(file_key(file_id), FileRecord)
    if file is None:
        raise FileNotFound("the session keeps no file with this id", session_id=history.session_id)
    return file


async def whole(content: bytes | AsyncIterable[bytes], most: int) -> bytes:
    """All of a file that is to be kept elsewhere; of one with more than ``most`` bytes one more than that.

    Raises `InvalidBody`. ``content`` is closed.
    """
    if isinstance(content, bytes):
        return content
    held = bytearray()
    async with _closing(content) as pieces:
        async for piece in pieces:
            if not isinstance(piece, bytes):
                raise InvalidBody(f"a file is made of bytes, not of {type(piece).__name__}")
            held += piece
            if len(held) > most:
                break
    return bytes(held[: most + 1])


@asynccontextmanager
async def _closing(pieces: AsyncIterable[bytes]) -> AsyncIterator[AsyncIterable[bytes]]:
    """Have a generator that is left in the middle come to its end here, and not whenever it is collected."""
    try:
        yield pieces
    finally:
        aclose = getattr(pieces, "aclose", None)
        if aclose is not None:
            with trio.move_on_after(_CLEANUP, shield=True):
                await aclose()


async def _pieces(content: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(content), PART):
        yield content[start : start + PART]


def _info(file_id: str, file: FileRecord) -> FileInfo:
    return FileInfo(file_id=file_id, media_type=file.media_type, size=file.size, filename=file.filename)


def _counted(size: int) -> int:
    """What it counts among the session's files."""
    return max(size, PART)


def _check_type(media_type: str, beginning: bytes | bytearray) -> None:
    if not looks_like(media_type, bytes(beginning[:_BEGINNING])):
        raise InvalidBody(f"the file says that it is {media_type}, and does not begin as one")
