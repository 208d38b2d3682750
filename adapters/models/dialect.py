"""What differs from one provider's API to the next: where it is, how one signs in, what is asked and answered. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol, final

from attrs import field, frozen

from penstock.engine import JSONObject

from .model import Request
from .pieces import Piece
from .transcript import Attached

__all__ = ["ANTHROPIC", "DRAWN", "OPENAI", "PDF", "Dialect", "Meaning", "Provider", "sendable"]

# The types of pictures that every provider takes, and the one of documents.
DRAWN: Final = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})
PDF: Final = "application/pdf"

_HEADER: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


def sendable(value: str) -> bool:
    """Whether a header takes this value. Asked before it is sent, since the library's error repeats the value."""
    return value.isascii() and value.isprintable()


@final
@frozen(kw_only=True)
class Provider:
    """Where an API is, and which variables of the environment say so and sign in: those of the provider's own SDKs."""

    url: str
    prefix: str  # of the variables that every provider has
    keys: tuple[str, ...]  # the variables that hold a key; the first that is set counts
    fixed: Mapping[str, str] = field(factory=dict)  # headers, as they are
    named: Mapping[str, str] = field(factory=dict)  # headers, and the variable that each is taken from
    unread: tuple[str, ...] = ()  # variables that the SDKs sign in with, and penstock does not

    def base_url(self, environ: Mapping[str, str]) -> str:
        return environ.get(f"{self.prefix}_BASE_URL") or self.url

    def key(self, environ: Mapping[str, str]) -> str | None:
        return next((key for name in self.keys if (key := environ.get(name))), None)

    def headers(self, environ: Mapping[str, str]) -> dict[str, str]:
        """What every request says beside its key. ``…_CUSTOM_HEADERS`` has a ``Name: value`` on each line.

        Raises `ValueError`, which names the variable, for what cannot be sent.
        """
        own = f"{self.prefix}_CUSTOM_HEADERS"
        made = dict(self.fixed) | {
            header: told.strip() for header, name in self.named.items() if (told := environ.get(name))
        }
        for line in environ.get(own, "").split("\n"):
            header, colon, value = line.partition(":")
            if colon:
                made[header.strip()] = value.strip()
        for header, value in made.items():
            if not (_HEADER.fullmatch(header) and sendable(value)):
                raise ValueError(f"{self.named.get(header, own)} holds what no header takes")
        return made


OPENAI: Final = Provider(
    url="https://api.openai.com/v1",
    prefix="OPENAI",
    keys=("OPENAI_API_KEY",),
    named={"OpenAI-Organization": "OPENAI_ORG_ID", "OpenAI-Project": "OPENAI_PROJECT_ID"},
)

ANTHROPIC: Final = Provider(
    url="https://api.anthropic.com",
    prefix="ANTHROPIC",
    keys=("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"),
    fixed={"anthropic-version": "2026-10-21"},
    unread=("ANTHROPIC_PROFILE", "ANTHROPIC_FEDERATION_RULE_ID"),
)


class Meaning(Protocol):
    """What the events of one answer mean."""

    over: bool
    """Whether the provider said that the answer is whole."""
    last: bool
    """Whether nothing more is worth waiting for."""

    def read(self, data: str, /) -> Sequence[Piece]:
        """The pieces in one event. Raises `ModelFailure`."""


@final
@frozen(kw_only=True)
class Dialect:
    """How one API is spoken to."""

    provider: Provider
    path: str  # below the base URL
    body: Callable[[str, Request], JSONObject]  # of a request to the model of this name
    meaning: Callable[[], Meaning]  # a new one for each answer
    shows: Callable[[Attached], bool]  # whether `body` has a place for it
