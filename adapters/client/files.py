"""A session's files over HTTP: sent whole, and read whole."""

from __future__ import annotations

from urllib.parse import quote

from penstock.engine import FileInfo, FileKept, FileNotFound, FileTooLarge

from ..problems import BodyTooLarge, NotFound
from ..requests.answers import FileAnswer
from .answers import parsed, read
from .commands import Commands
from .wire import session_path

__all__ = ["keep_file", "read_file"]


async def keep_file(
    commands: Commands, session_id: str, content: bytes, *, media_type: str, filename: str | None
) -> FileKept:
    """Send a file. It is sent again while there is no answer, for the same file is kept once. Raises `FileTooLarge`."""
    try:
        answer = await commands.exchange(
            "POST",
            f"{session_path(session_id)}/files",
            content,
            query={} if filename is None else {"filename": filename},
            headers={"Content-Type": media_type},
            within=commands.wire.config.file_timeout,
            repeatable=True,
        )
    except BodyTooLarge as error:
        raise FileTooLarge(error.detail, session_id=session_id) from error
    kept = read(FileAnswer, parsed(answer.body))
    file = FileInfo(file_id=kept.file_id, media_type=kept.media_type, size=kept.size, filename=kept.filename)
    return FileKept(file=file, created=answer.status == 201)


async def read_file(commands: Commands, session_id: str, file_id: str) -> bytes:
    """The whole file. Raises `FileNotFound`."""
    path = f"{session_path(session_id)}/files/{quote(file_id, safe='')}"
    try:
        answer = await commands.exchange("GET", path, within=commands.wire.config.file_timeout, repeatable=True)
    except NotFound as error:
        raise FileNotFound(error.detail, session_id=session_id) from error
    return answer.body
