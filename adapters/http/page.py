"""The pages and their files: read once, served from memory by their exact names, so no path leads anywhere else."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Final, final

from attrs import frozen
from quart import Response, request

from ..problems import NotFound
from .routes import Operation, Routes, no_body, text_answer

__all__ = ["FILES", "PAGE", "add_page"]

# The endpoint of the pages and their files.
PAGE: Final = "page"

_FOLDER: Final = Path(__file__).parent.parent / "web"

_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".ts": "text/plain; charset=utf-8",  # has no type of its own; for editors, no browser runs it
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}

# What there is, by name.
FILES: Final = tuple(sorted(path.name for path in _FOLDER.iterdir() if path.suffix in _TYPES))

# Nothing from anywhere else, nothing inline, in nobody's frame. A blob is a picture that the page has read by itself.
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@final
@frozen(kw_only=True)
class _File:
    body: bytes
    content_type: str
    etag: str


def _read(path: Path) -> _File:
    body = path.read_bytes()
    return _File(body=body, content_type=_TYPES[path.suffix], etag=sha256(body).hexdigest()[:32])


_UNCHANGED: Final = no_body("It is what `If-None-Match` names.")
_PAGE: Final = {200: text_answer("The page.", "text/html"), 304: _UNCHANGED}


def add_page(routes: Routes) -> None:
    """Add the playground at ``/``, the API's page at ``/docs``, and their files beside them."""
    files = {name: _read(_FOLDER / name) for name in FILES}
    routes.app.url_map.redirect_defaults = False  # a page has two names, and neither sends to the other

    @routes.add(
        Operation(
            method="get", path="/", id="playground", tag="pages", summary="The playground", scope=None, answers=_PAGE
        ),
        defaults={"name": "index.html"},
        endpoint=PAGE,
    )
    @routes.add(
        Operation(
            method="get", path="/docs", id="docs", tag="pages", summary="This API on a page", scope=None, answers=_PAGE
        ),
        defaults={"name": "api.html"},
        endpoint=PAGE,
    )
    @routes.add(
        Operation(
            method="get",
            path="/{name}",
            id="file",
            tag="pages",
            summary="A file of a page's",
            scope=None,
            answers={
                200: text_answer(
                    "The file.", "text/html", "text/javascript", "text/css", "image/svg+xml", "text/plain"
                ),
                304: _UNCHANGED,
            },
            codes=("NOT_FOUND",),
        ),
        endpoint=PAGE,
    )
    async def page(name: str) -> Response:
        file = files.get(name)
        if file is None:
            raise NotFound("no resource has this path")
        headers = {
            "Cache-Control": "no-cache",  # ask each time; the ETag makes that cheap
            "Content-Security-Policy": _POLICY,
            "Referrer-Policy": "no-referrer",
        }
        response = Response(file.body, 200, headers, content_type=file.content_type)
        response.set_etag(file.etag)
        return await response.make_conditional(request)
