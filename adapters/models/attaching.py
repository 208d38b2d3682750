"""What users attached, on its way to a model: read from the session, within a bound, and named where it is not shown.

What a text file says goes into the turn, for every model; what else is shown, and how, is the dialect's. Of what is not
shown the model is told that it is there, and so are readers (`Request.unseen`): nothing is left out in silence.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from attrs import define, evolve, field

from penstock.engine import FileNotFound, Generation

from .model import Request, Seeing
from .transcript import Attached, Turn, UserTurn

__all__ = ["attached", "unattached"]

# Bytes of all that is shown in one request, the newest first. In base64 this is a third more, and the smallest limit on
# a request of the providers' is 32 MB.
_MOST: Final = 16 * 1024 * 1024

# And of one text file: some 80 000 tokens.
_LONGEST_TEXT: Final = 256 * 1024

# Types that are read as text, beside those of ``text/``.
_TEXTS: Final = frozenset(
    f"application/{name}"
    for name in ("json", "ld+json", "ndjson", "x-ndjson", "xml", "yaml", "x-yaml", "toml", "javascript", "sql", "x-sh")
)

# Of so many that are not shown the names are told.
_NAMED: Final = 20


async def attached(generation: Generation, request: Request, model: object) -> Request:
    """The request with what is attached read, as far as ``model`` is shown it; itself where nothing is attached."""
    if not any(isinstance(turn, UserTurn) and turn.attached for turn in request.turns):
        return request
    reading = _Reading(generation, model.shows if isinstance(model, Seeing) else _shows_nothing)
    turns = [await reading.turn(turn) for turn in reversed(request.turns)]
    return evolve(request, turns=tuple(reversed(turns)), unseen=tuple(reading.unseen[:_NAMED]))


def unattached(request: Request) -> Request:
    """The request with nothing attached, for a model that does not take it; itself where nothing is."""
    names = [each.name for turn in request.turns if isinstance(turn, UserTurn) for each in turn.attached]
    if not names:
        return request
    turns = [_without(turn) if isinstance(turn, UserTurn) else turn for turn in request.turns]
    return evolve(request, turns=tuple(turns), unseen=(*request.unseen, *names)[:_NAMED])


@define
class _Reading:
    """One request's attachments, the newest first."""

    generation: Generation
    shows: Callable[[Attached], bool]
    room: int = _MOST
    unseen: list[str] = field(factory=list)

    async def turn(self, turn: Turn) -> Turn:
        if not isinstance(turn, UserTurn) or not turn.attached:
            return turn
        kept: list[Attached] = []
        texts: list[str] = []
        for each in turn.attached:
            shown = await self._read(each)
            if isinstance(shown, Attached):
                kept.append(shown)
            else:
                texts.append(_note(each) if shown is None else f"[The attached file {each.name}:]\n\n{shown}")
                if shown is None:
                    self.unseen.append(each.name)
        return UserTurn(_joined([*texts, turn.text]), tuple(kept))

    async def _read(self, each: Attached) -> Attached | str | None:
        """What is shown of it: itself with its content, or its text; None: it is not shown."""
        is_text = each.file_id is not None and _is_text(each.media_type)
        if not is_text and not self.shows(each):
            return None
        if each.file_id is None:
            return each  # the provider asks there
        most = min(self.room, _LONGEST_TEXT) if is_text else self.room
        try:
            content = await self.generation.read_file(each.file_id, limit=most + 1)
        except FileNotFound:
            return None
        shown = _decoded(content) if is_text else evolve(each, content=content)
        if len(content) > most or (isinstance(shown, Attached) and not self.shows(shown)):
            return None
        if shown is not None:
            self.room -= len(content)
        return shown


def _decoded(content: bytes) -> str | None:
    try:
        return content.decode()
    except UnicodeDecodeError:
        return None


def _shows_nothing(_: Attached) -> bool:
    return False


def _is_text(media_type: str | None) -> bool:
    return media_type is not None and (media_type.startswith("text/") or media_type in _TEXTS)


def _without(turn: UserTurn) -> UserTurn:
    return UserTurn(_joined([*map(_note, turn.attached), turn.text])) if turn.attached else turn


def _note(each: Attached) -> str:
    what = "picture" if each.kind == "image" else "file"
    return f"[The {what} {each.name} is attached here, and cannot be shown to you.]"


def _joined(texts: Sequence[str]) -> str:
    return "\n\n".join(filter(None, texts))
