"""What a block of kind image, file or source may name, and what a file may be called and said to be.

Such a block names either a file that the session keeps, or an address, which the server never fetches. What a file
is called, and which type it is said to be, comes from whoever sent it: neither is taken at its word.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

from ..errors import InvalidBody
from ..events import BlockOpened, BlockSnapshot, check_path_id
from ..shapes import check_text

__all__ = ["NAMING_KINDS", "RASTER_TYPES", "check_media_type", "check_named", "clean_filename", "looks_like"]

# The kinds of blocks that name something, and the fields that each may have for it.
NAMING_KINDS: Final[Mapping[str, frozenset[str]]] = {
    "image": frozenset({"media_type", "file_id", "url", "filename"}),
    "file": frozenset({"media_type", "file_id", "url", "filename"}),
    "source": frozenset({"file_id", "url", "title"}),
}
_FIELDS: Final = ("media_type", "file_id", "url", "filename", "title")

# What browsers draw and never run, with what each begins with: at most so many bytes as `looks_like` is to be given.
RASTER_TYPES: Final[Mapping[str, re.Pattern[bytes]]] = {
    "image/png": re.compile(rb"\x89PNG\r\n\x1a\n"),
    "image/jpeg": re.compile(rb"\xff\xd8\xff"),
    "image/gif": re.compile(rb"GIF8[79]a"),
    "image/webp": re.compile(rb"RIFF....WEBP", re.DOTALL),
}

_MEDIA_TYPE: Final = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]{0,62}/[a-z0-9][a-z0-9!#$&^_.+-]{0,62}")

# Longer ones are cut off by browsers and proxies.
_LONGEST_URL: Final = 8192

# Bytes in UTF-8: what nearly every disk takes.
_LONGEST_NAME: Final = 255


def check_named(block: BlockOpened | BlockSnapshot) -> None:
    """Raises `InvalidBody`, `InvalidId` where the block names something that its kind does not, or not as it must."""
    allowed = NAMING_KINDS.get(block.kind, frozenset())
    for name in _FIELDS:
        if getattr(block, name) is not None and name not in allowed:
            raise InvalidBody(f"a {block.kind} block has no {name}")
    if not allowed:
        return
    if (block.file_id is None) == (block.url is None):
        raise InvalidBody(f"a block of kind {block.kind} has either file_id or url")
    if block.file_id is not None:
        check_path_id(block.file_id, "a file_id")
    if block.url is not None:
        _check_url(block.url)
    if block.media_type is not None:
        check_media_type(block.media_type)
        if block.kind == "image" and not block.media_type.startswith("image/"):
            raise InvalidBody(f"{block.media_type} is no image: make it a block of kind file")
    if block.filename is not None and clean_filename(block.filename) != block.filename:
        raise InvalidBody(
            f"filename is 1 to {_LONGEST_NAME} bytes of printable characters, without / and \\, and neither . nor .."
        )


def check_media_type(given: object) -> str:
    """A media type without parameters, in lower case: ``image/png``. Raises `InvalidBody`."""
    media_type = check_text(given, "media_type")
    if not _MEDIA_TYPE.fullmatch(media_type):
        raise InvalidBody("media_type is a type and a subtype in lower case, without parameters, as in image/png")
    return media_type


def looks_like(media_type: str, beginning: bytes) -> bool:
    """Whether a file that begins like this may be of that type; told of those in `RASTER_TYPES`, of others always."""
    pattern = RASTER_TYPES.get(media_type)
    return pattern is None or pattern.match(beginning) is not None


def clean_filename(given: str) -> str | None:
    """The name without what deceives or leads elsewhere; None where nothing of it is left.

    Folders before it are cut off. What is not printed (controls, marks that turn the direction of writing) becomes
    ``_``. A name that is too long keeps its ending.
    """
    name = re.split(r"[/\\]", given)[-1]
    name = "".join(each if each.isprintable() else "_" for each in name).strip()
    if name in ("", ".", ".."):
        return None
    if len(name.encode()) <= _LONGEST_NAME:
        return name
    stem, dot, ending = name.rpartition(".")
    if not stem or len(ending.encode()) > _LONGEST_NAME // 8:
        stem, dot, ending = name, "", ""
    room = _LONGEST_NAME - len((dot + ending).encode())
    return stem.encode()[:room].decode(errors="ignore").rstrip() + dot + ending


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        sound = sound and parts.username is None  # ``https://known.example@other.example`` leads to the other
    except ValueError:
        sound = False
    if not sound or len(url) > _LONGEST_URL or not url.isprintable() or " " in url or "\\" in url:
        raise InvalidBody(
            f"url is an http or https address of at most {_LONGEST_URL} characters, without spaces or a user's name"
        )
