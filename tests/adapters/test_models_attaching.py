"""What users attach is shown to a model as its provider takes it; where it is not, everybody is told."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any, Final

import pytest

from penstock.adapters.models import chat as chat_dialect
from penstock.adapters.models import claude as claude_dialect
from penstock.adapters.models import responses as responses_dialect
from penstock.adapters.models.attaching import _LONGEST_TEXT, _MOST
from penstock.adapters.models.transcript import Attached, Turn, UserTurn, transcript
from penstock.engine import BlockView, GenerationFinished, JSONObject, MessageView
from tests.adapters.providers import (
    WIRES,
    Answer,
    Provider,
    Wire,
    chat,
    claude,
    error,
    provider,
    responses,
    sse,
    whole,
)
from tests.adapters.talking import Talk, model_of, talking

PNG: Final = b"\x89PNG\r\n\x1a\n" + bytes(20)
PDF: Final = b"%PDF-1.7 " + bytes(20)
URL: Final = "https://example.org/a.png"

every_wire = pytest.mark.parametrize("wire", WIRES, ids=[wire.kind for wire in WIRES])


def data(content: bytes, media_type: str) -> str:
    return f"data:{media_type};base64,{b64encode(content).decode()}"


async def say(talk: Talk, text: str, *blocks: JSONObject) -> GenerationFinished:
    words: list[JSONObject] = [{"kind": "text", "text": text}] if text else []
    await talk.session.start("model", message={"blocks": [*words, *blocks]})
    return await talk.end()


async def sent(talk: Talk, content: bytes, media_type: str, filename: str | None = None) -> JSONObject:
    """A block of the file that was sent."""
    kept = await talk.session.keep_file(content, media_type=media_type, filename=filename)
    kind = "image" if media_type.startswith("image/") else "file"
    return {"kind": kind, "file_id": kept.file.file_id}


def asked(server: Provider, wire: Wire) -> list[Any]:
    """What the user said last, part by part."""
    body: Any = server.seen[-1].body
    last = body["input" if wire is responses else "messages"][-1]
    assert last["role"] == "user"
    content = last["content"]
    return content if isinstance(content, list) else [content]


async def unseen(talk: Talk) -> object:
    last = await talk.last()
    assert last.metadata is not None
    told = last.metadata.get("unseen")
    said = [detail for status, detail in await talk.statuses() if status == "unseen"]
    assert (said[-1] if said else None) == (None if told is None else {"files": told})
    return told


def in_words(wire: Wire, text: str) -> dict[str, str]:
    return {"type": "input_text" if wire is responses else "text", "text": text}


@every_wire
async def test_a_picture_and_a_document_are_shown_as_the_provider_takes_them(wire: Wire) -> None:
    async with provider(whole(wire, "A weir.")) as server, talking(model_of(wire, server)) as talk:
        picture = await sent(talk, PNG, "image/png", "a.png")
        paper = await sent(talk, PDF, "application/pdf", "b.pdf")
        elsewhere: JSONObject = {"kind": "image", "url": URL}
        assert (await say(talk, "What is this?", picture, paper, elsewhere)).outcome == "completed"
        png, pdf = data(PNG, "image/png"), data(PDF, "application/pdf")
        shown: dict[Wire, list[Any]] = {
            chat: [
                {"type": "image_url", "image_url": {"url": png}},
                {"type": "file", "file": {"filename": "b.pdf", "file_data": pdf}},
                {"type": "image_url", "image_url": {"url": URL}},
            ],
            responses: [
                {"type": "input_image", "image_url": png, "detail": "auto"},
                {"type": "input_file", "filename": "b.pdf", "file_data": pdf},
                {"type": "input_image", "image_url": URL, "detail": "auto"},
            ],
            claude: [
                {"type": "image", "source": _base64(PNG, "image/png")},
                {"type": "document", "source": _base64(PDF, "application/pdf"), "title": "b.pdf"},
                {"type": "image", "source": {"type": "url", "url": URL}},
            ],
        }
        assert asked(server, wire) == [*shown[wire], in_words(wire, "What is this?")]
        assert await unseen(talk) is None


def _base64(content: bytes, media_type: str) -> dict[str, str]:
    return {"type": "base64", "media_type": media_type, "data": b64encode(content).decode()}


@every_wire
async def test_without_a_word_the_picture_is_asked_about_alone(wire: Wire) -> None:
    async with provider(whole(wire, "A weir.")) as server, talking(model_of(wire, server)) as talk:
        assert (await say(talk, "", await sent(talk, PNG, "image/png"))).outcome == "completed"
        assert len(asked(server, wire)) == 1
        assert "text" not in json.dumps(asked(server, wire))


@every_wire
async def test_what_a_text_file_says_is_shown_to_every_model(wire: Wire) -> None:
    async with provider(whole(wire, "So.")) as server, talking(model_of(wire, server)) as talk:
        notes = await sent(talk, "water 水".encode(), "text/markdown", "notes.md")
        table = await sent(talk, b'{"a": 1}', "application/json")
        source: JSONObject = {"kind": "source", "url": "https://example.org/", "title": "Where"}
        assert (await say(talk, "Read.", notes, table, source)).outcome == "completed"
        said = "\n\n".join(
            (
                "[The attached file notes.md:]\n\nwater 水",
                '[The attached file of type application/json:]\n\n{"a": 1}',
                "Read.\n\n[Source: Where https://example.org/]",
            )
        )
        assert asked(server, wire) == ([in_words(wire, said)] if wire is claude else [said])
        assert await unseen(talk) is None


@every_wire
async def test_what_the_model_cannot_be_shown_is_named_to_it_and_to_readers(wire: Wire) -> None:
    async with provider(whole(wire, "I cannot see it.")) as server, talking(model_of(wire, server)) as talk:
        film = await sent(talk, b"film", "video/mp4", "a.mp4")
        drawing = await sent(talk, b"<svg/>", "image/svg+xml", "b.svg")
        no_text = await sent(talk, b"\xff\xfe\xff", "text/plain", "c.txt")
        assert (await say(talk, "And?", film, drawing, no_text)).outcome == "completed"
        notes = [
            f"[The {what} is attached here, and cannot be shown to you.]"
            for what in ("file a.mp4", "picture b.svg", "file c.txt")
        ]
        said = "\n\n".join([*notes, "And?"])
        assert asked(server, wire) == ([in_words(wire, said)] if wire is claude else [said])
        assert await unseen(talk) == ["a.mp4", "b.svg", "c.txt"]


@every_wire
@pytest.mark.parametrize(
    "refusal",
    [
        error(400, "this model does not support images"),
        error(500, "image input is not supported - hint: you may need to provide the mmproj"),
        error(500, "this model is missing data required for image input"),
        error(200, "Model does not support images. Please use a model that does."),
    ],
    ids=["rejected", "llama.cpp", "ollama", "lm studio"],
)
async def test_a_model_that_takes_words_only_is_asked_again_with_words_only(wire: Wire, refusal: Any) -> None:
    async with provider(refusal, whole(wire, "I cannot see it.")) as server, talking(model_of(wire, server)) as talk:
        assert (await say(talk, "And?", await sent(talk, PNG, "image/png", "a.png"))).outcome == "completed"
        assert len(server.seen) == 2
        assert "base64" not in json.dumps(server.seen[-1].body)
        assert "[The picture a.png is attached here, and cannot be shown to you.]" in json.dumps(server.seen[-1].body)
        assert await unseen(talk) == ["a.png"]
        server.then(whole(wire, "Well."))
        assert (await talk.say("And now?")).outcome == "completed", "the conversation does not die of it"


@pytest.mark.parametrize(
    ("wire", "told"),
    [
        (chat, {"error": {"message": "Vision add-on is not loaded, but images were provided for processing"}}),
        (responses, {"type": "error", "code": "invalid_image_format", "message": "x"}),
        (responses, {"type": "response.failed", "response": {"error": {"code": "image_parse_error", "message": "x"}}}),
    ],
    ids=["lm studio", "openai", "openai, failed"],
)
async def test_what_is_said_of_a_picture_in_the_stream_counts_too(wire: Wire, told: JSONObject) -> None:
    refusal = Answer(pieces=[sse(told, "error")])
    async with provider(refusal, whole(wire, "I cannot see it.")) as server, talking(model_of(wire, server)) as talk:
        assert (await say(talk, "And?", await sent(talk, PNG, "image/png", "a.png"))).outcome == "completed"
        assert len(server.seen) == 2
        assert await unseen(talk) == ["a.png"]


async def test_a_request_that_is_rejected_for_its_words_is_not_asked_for_ever() -> None:
    async with provider(*[error(400, "no")] * 5) as server, talking(model_of(chat, server)) as talk:
        assert (await say(talk, "And?", await sent(talk, PNG, "image/png"))).code == "MODEL_REJECTED"
        assert len(server.seen) == 2


async def test_the_newest_are_shown_as_far_as_there_is_room() -> None:
    async with provider() as server, talking(model_of(chat, server)) as talk:
        for number in range(3):
            server.then(whole(chat, "So."))
            large = await sent(talk, PNG + bytes(_MOST // 2 - 1000 + number), "image/png", f"{number}.png")
            assert (await say(talk, f"Number {number}?", large)).outcome == "completed"
        body = json.dumps(server.seen[-1].body)
        assert body.count("base64,") == 2
        assert "[The picture 0.png is attached here" in body
        assert await unseen(talk) == ["0.png"]


async def test_text_files_take_of_the_same_room() -> None:
    async with provider(whole(chat, "So.")) as server, talking(model_of(chat, server)) as talk:
        fit = _MOST // _LONGEST_TEXT
        files = [
            await sent(talk, f"{number:08}".encode() * (_LONGEST_TEXT // 8), "text/plain", f"{number}.txt")
            for number in range(fit + 1)
        ]
        assert (await say(talk, "And?", *files)).outcome == "completed"
        assert await unseen(talk) == [f"{fit}.txt"]


async def test_a_picture_that_is_too_large_for_its_provider_is_named() -> None:
    async with provider(whole(claude, "So.")) as server, talking(model_of(claude, server)) as talk:
        large = await sent(talk, PNG + bytes(4 * 1024 * 1024), "image/png", "large.png")
        assert (await say(talk, "And?", large)).outcome == "completed"
        assert await unseen(talk) == ["large.png"]


async def test_what_does_not_fit_beside_the_picture_is_asked_without_it() -> None:
    too_long = error(400, "prompt is too long: 210 tokens > 200 maximum")
    async with provider(too_long, whole(chat, "So.")) as server, talking(model_of(chat, server)) as talk:
        assert (await say(talk, "And?", await sent(talk, PNG, "image/png", "a.png"))).outcome == "completed"
        assert await unseen(talk) == ["a.png"]


def test_what_is_attached_stands_with_what_was_said() -> None:
    def user(*blocks: BlockView) -> MessageView:
        return MessageView(message_id="m", role="user", status="complete", blocks=blocks)

    picture = BlockView(kind="image", seq=0, file_id="f", media_type="image/png", filename="a.png")
    words = BlockView(kind="text", seq=0, text="And?")
    source = BlockView(kind="source", seq=0, file_id="g", title="A")
    shown = Attached(kind="image", media_type="image/png", filename="a.png", file_id="f")
    assert transcript([user(picture), user(words, source)]) == (
        UserTurn("And?", (shown, Attached(kind="file", filename="A", file_id="g"))),
    )
    answer = MessageView(message_id="m", role="assistant", status="complete", blocks=(picture,))
    assert transcript([user(words), answer]) == (UserTurn("And?"),)


def test_no_dialect_shows_what_it_says_that_it_does_not() -> None:
    """The pictures of every type, and files: whatever is said to be shown has a place in the request."""
    types = ("image/png", "image/jpeg", "image/gif", "image/webp", "image/tiff", "application/pdf", "video/mp4", None)
    whats = [
        Attached(
            kind=kind, media_type=media_type, content=b"x" if at == "file_id" else None, **{at: "https://a.example/"}
        )
        for kind in ("image", "file")
        for media_type in types
        for at in ("file_id", "url")
    ]
    made: list[tuple[Any, Any]] = [
        (chat_dialect.CHAT, lambda turns: chat_dialect.messages(turns, None)),
        (responses_dialect.RESPONSES, responses_dialect.items),
        (claude_dialect.CLAUDE, claude_dialect.messages),
    ]
    for dialect, written in made:
        shown = [what for what in whats if dialect.shows(what)]
        assert 4 < len(shown) < len(whats)
        for what in shown:
            turns: list[Turn] = [UserTurn("x", (what,))]
            text = json.dumps(written(turns))
            assert (what.url or b64encode(b"x").decode()) in text
            assert "None" not in text
