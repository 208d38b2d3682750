"""The routes of a session's files: sent once, as they are, and given back as what no browser runs.

What a sender says of a file is not believed where it matters. Only a picture of a type that browsers draw, and that
begins as one, is served as what it is said to be; everything else is bytes, and all of it is to be saved, not shown.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Final, Self, cast, final
from urllib.parse import quote

from attrs import asdict
from hypercorn.typing import ASGIReceiveCallable, HTTPScope
from quart import Response, request
from quart.wrappers.response import ResponseBody

from penstock.engine import Engine, FileInfo, InvalidBody, Session

from ..requests.answers import FileAnswer
from .intake import BODY_BYTES, BODY_SECONDS, ClientLeft, Streamed
from .openapi.schemas import Schema
from .routes import SESSION, Answer, Body, Operation, Routes, answered, json_answer, query

__all__ = ["add_files", "brings_file", "without_body"]

_PATH: Final = re.compile(r"/v1/sessions/[^/]+/files")
_STREAMED: Final = "penstock.streamed"

# What browsers draw, and the engine has looked at.
_DRAWN: Final = ("image/png", "image/jpeg", "image/gif", "image/webp")
_BYTES: Final = "application/octet-stream"

# Whoever opens it all the same gets a page that may do nothing.
_POLICY: Final = "default-src 'none'; sandbox; frame-ancestors 'none'"

# What of a name every client reads, in quotes.
_PLAIN: Final = re.compile(r"[^A-Za-z0-9 ._-]")

# What of a file is in memory while it is sent: one part, as it is stored.
_PIECE: Final = 256 * 1024

# Forms, with which browsers and curl send a file unless they are told otherwise.
_FORMS: Final = ("multipart/form-data", "application/x-www-form-urlencoded")

_BINARY: Final[Schema] = {"type": "string", "format": "binary"}


def brings_file(scope: HTTPScope) -> bool:
    """Whether the request's body is a file."""
    root = scope.get("root_path", "")
    path = scope["path"].removeprefix(root)
    return scope["method"] == "POST" and _PATH.fullmatch(path) is not None


def without_body(scope: HTTPScope, receive: ASGIReceiveCallable) -> tuple[HTTPScope, ASGIReceiveCallable]:
    """The request for Quart, which is not to collect the body; `add_files` finds that in the scope."""
    body = Streamed(receive)
    return cast("HTTPScope", {**scope, _STREAMED: body}), body.receive


def add_files(routes: Routes, engine: Engine) -> None:
    """Add the routes over ``engine``."""

    @routes.add(
        Operation(
            method="post",
            path="/v1/sessions/{session_id}/files",
            id="sendFile",
            tag="files",
            summary="Send a file for messages to name",
            description="The body is the file as it is, `Content-Type` its type. Sent again, with the same content, "
            "type and name, it is the same file. It goes with the session; a fork has its own copy. A file that is "
            "said to be a PNG, JPEG, GIF or WebP must begin as one.",
            scope="write",
            parameters=(
                query(
                    "filename",
                    {"type": "string"},
                    "What it is called: folders before it, and what is not printed, are taken off.",
                ),
            ),
            body=Body(shape=_BINARY, media="*/*"),
            answers={200: json_answer("It was there.", FileAnswer), 201: json_answer("It is kept.", FileAnswer)},
            codes=SESSION,
        ),
    )
    async def send_file(session_id: str) -> Response:
        body: Streamed = request.scope[_STREAMED]  # type: ignore[typeddict-item]
        media_type = request.mimetype or _BYTES
        if media_type in _FORMS:
            raise InvalidBody("the body is the file itself, not a form; Content-Type says what it is")
        names = request.args.getlist("filename")
        if len(names) > 1:
            raise InvalidBody("filename is given more than once")
        session = await engine.session(session_id)
        # Over the same slow line as any other body.
        seconds = BODY_SECONDS * max(1.0, engine.config.file_bytes / BODY_BYTES)
        try:
            kept = await session.keep_file(
                body.within(seconds),
                media_type=media_type,
                filename=names[0] if names else None,
                size=request.content_length,
            )
        except ClientLeft as error:
            raise InvalidBody("the file did not come whole") from error
        made = FileAnswer(session_id=session_id, **asdict(kept.file))
        return answered(made, 201 if kept.created else 200)

    @routes.add(
        Operation(
            method="get",
            path="/v1/sessions/{session_id}/files/{file_id}",
            id="readFile",
            tag="files",
            summary="A file, to be saved",
            description="PNG, JPEG, GIF and WebP as what they are, all else as `application/octet-stream`: no browser "
            "runs any of it.",
            scope="read",
            answers={
                200: Answer(description="The file.", content=dict.fromkeys((_BYTES, *_DRAWN), _BINARY)),
            },
            codes=(*SESSION, "NOT_FOUND"),
        ),
    )
    async def read_file(session_id: str, file_id: str) -> Response:
        session = await engine.session(session_id)
        file = await session.file(file_id)
        headers = {
            "Content-Disposition": _disposition(file.filename),
            "Content-Security-Policy": _POLICY,
        }
        content_type = file.media_type if file.media_type in _DRAWN else _BYTES
        body = b"" if request.method == "HEAD" else _Content(session, file)
        response = Response(body, 200, headers, content_type=content_type)
        response.headers["Content-Length"] = str(file.size)  # also of the answer to HEAD, whose body is empty
        response.timeout = None  # its reader takes its time; the server sees to one that takes nothing
        return response


def _disposition(filename: str | None) -> str:
    """To be saved, under this name (RFC 6266)."""
    if filename is None:
        return "attachment"
    return f"attachment; filename=\"{_PLAIN.sub('_', filename)}\"; filename*=UTF-8''{quote(filename, safe='')}"


@final
class _Content(ResponseBody):
    """The file, read as it is sent."""

    def __init__(self, session: Session, file: FileInfo) -> None:
        self._session = session
        self._file = file
        self._sent = 0

    async def __aenter__(self) -> AsyncIterator[bytes]:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        pass

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if self._sent >= self._file.size:
            raise StopAsyncIteration
        piece = await self._session.read_file(self._file.file_id, start=self._sent, limit=_PIECE)
        self._sent += len(piece)
        return piece
