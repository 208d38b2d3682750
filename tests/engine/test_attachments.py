"""What a block may name, and what a file may be called: rules that are functions of their arguments."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.engine.errors import InvalidBody, PenstockError
from penstock.engine.events import BlockOpened
from penstock.engine.rules.attachments import RASTER_TYPES, check_media_type, check_named, clean_filename, looks_like

URL = "https://example.org/a.png"
BEGINNINGS = {
    "image/png": b"\x89PNG\r\n\x1a\n" + bytes(8),
    "image/jpeg": b"\xff\xd8\xff\xe0" + bytes(12),
    "image/gif": b"GIF89a" + bytes(10),
    "image/webp": b"RIFF\x0a\x00\x00\x00WEBPVP8 ",
}


@pytest.mark.parametrize(
    "block",
    [
        BlockOpened(kind="image", url=URL),
        BlockOpened(kind="image", file_id="f", media_type="image/svg+xml", filename="水.svg"),
        BlockOpened(kind="file", url="http://localhost:1/?q=1#x", media_type="text/plain", filename="a b.txt"),
        BlockOpened(kind="source", url=URL, title="any\u202e words"),
        BlockOpened(kind="source", file_id="f"),
        BlockOpened(kind="text"),
    ],
)
def test_a_block_may_name_what_its_kind_does(block: BlockOpened) -> None:
    check_named(block)


@pytest.mark.parametrize(
    "block",
    [
        BlockOpened(kind="image"),
        BlockOpened(kind="file", file_id="f", url=URL),
        BlockOpened(kind="image", file_id="a/b"),
        BlockOpened(kind="image", url=URL, media_type="text/html"),
        BlockOpened(kind="file", url=URL, media_type="TEXT/plain"),
        BlockOpened(kind="file", url=URL, media_type="text/plain; charset=utf-8"),
        BlockOpened(kind="file", url=URL, filename="../a"),
        BlockOpened(kind="file", url=URL, filename="a\u202egpj.exe"),
        BlockOpened(kind="file", url=URL, title="x"),
        BlockOpened(kind="source", url=URL, filename="x"),
        BlockOpened(kind="text", url=URL),
        BlockOpened(kind="tool_call", file_id="f"),
    ],
)
def test_a_block_that_names_something_wrongly_is_refused(block: BlockOpened) -> None:
    with pytest.raises(PenstockError):
        check_named(block)


@pytest.mark.parametrize(
    "url",
    [
        *("javascript:alert(1)", "data:text/html,x", "file:///etc/passwd", "ftp://example.org/", "//example.org/"),
        *("https://", "https:///a", "https://exam ple.org/", "https://example.org/\n", "https://example.org\\@x/"),
        *("https://known.example@other.example/", "https://[::1", "https://example.org:99999/", ""),
        f"https://example.org/{'a' * 8192}",
    ],
)
def test_an_address_is_one_of_http_that_shows_where_it_leads(url: str) -> None:
    with pytest.raises(InvalidBody):
        check_named(BlockOpened(kind="source", url=url))


@pytest.mark.parametrize("given", ["image", "image/", "/png", "image/png;x", "image/p ng", "", "a/b/c", None, 1])
def test_what_is_no_media_type_is_refused(given: object) -> None:
    with pytest.raises(InvalidBody):
        check_media_type(given)


def test_a_picture_begins_as_its_type_and_as_no_other() -> None:
    assert BEGINNINGS.keys() == RASTER_TYPES.keys()
    for media_type, own in BEGINNINGS.items():
        fits = [other for other, beginning in BEGINNINGS.items() if looks_like(media_type, beginning)]
        assert fits == [media_type]
        for lie in (b"", b"<html>", b"<svg xmlns='x'>", b" " + own):
            assert not looks_like(media_type, lie)
    assert looks_like("text/html", b"anything")


@pytest.mark.parametrize(
    ("given", "cleaned"),
    [
        ("a.png", "a.png"),
        ("C:\\Users\\ann\\a.png", "a.png"),
        ("../../etc/passwd", "passwd"),
        ("invoice\u202egpj.exe", "invoice_gpj.exe"),
        ("a\r\nSet-Cookie: x", "a__Set-Cookie: x"),
        (" 水 .txt ", "水 .txt"),
        ("a/", None),
        ("..", None),
        ("", None),
        ("   ", None),
    ],
)
def test_a_name_loses_what_deceives(given: str, cleaned: str | None) -> None:
    assert clean_filename(given) == cleaned


@given(st.text(alphabet=st.characters(codec=None), max_size=400) | st.text("ab./\\水\ud800\u202eé", max_size=600))
def test_a_cleaned_name_is_safe_and_stays_as_it_is(given: str) -> None:
    cleaned = clean_filename(given)
    if cleaned is None:
        return
    assert 1 <= len(cleaned.encode()) <= 255
    assert not {"/", "\\"} & set(cleaned)
    assert not any(unicodedata.category(each) in ("Cc", "Cf", "Cs", "Zl", "Zp") for each in cleaned)
    assert cleaned not in (".", "..")
    assert clean_filename(cleaned) == cleaned


@given(st.text("ab水", min_size=256, max_size=600))
def test_a_name_that_is_too_long_keeps_its_ending(stem: str) -> None:
    cleaned = clean_filename(f"{stem}.pdf")
    assert cleaned is not None
    assert cleaned.endswith(".pdf")
    assert stem.startswith(cleaned[:-4])
