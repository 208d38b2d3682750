"""``openai:NAME`` to a model, with an error for each way in which that can fail.

The SDKs are loaded here and only when one is asked for: they take half a second, and are an extra.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final, Literal, TypeAlias, final

from attrs import frozen

from penstock.engine import InvalidBody, JSONObject, decode_json

from .assistant import Assistant
from .model import Model

__all__ = ["ModelError", "ModelSpec", "open_assistant", "open_model", "parse_options"]

Dialect: TypeAlias = Literal["openai", "openai-responses", "anthropic"]

_DIALECTS: Final[tuple[Dialect, ...]] = ("openai", "openai-responses", "anthropic")

# Where the SDKs look for the key first. They know more places than these, and are asked for the last word.
_KEYS: Final[Mapping[Dialect, str]] = {
    "openai": "OPENAI_API_KEY",
    "openai-responses": "OPENAI_API_KEY",
    "anthropic": "ANTHROPIC_API_KEY",
}


@final
class ModelError(Exception):
    """A model cannot be used; the text says why and what to do."""


@final
@frozen
class ModelSpec:
    """Which model, and how it is spoken to."""

    dialect: Dialect
    name: str

    @classmethod
    def parse(cls, text: str) -> ModelSpec:
        """Read ``dialect:NAME``; the name may hold colons. Raises `ModelError`."""
        dialect, _, name = text.partition(":")
        if dialect not in _DIALECTS or not name.strip():
            raise ModelError(f"{text!r} is none of openai:NAME, openai-responses:NAME, anthropic:NAME")
        return cls(dialect, name.strip())


def parse_options(text: str) -> JSONObject:
    """Fields for every request, as a JSON object. Raises `ModelError`."""
    try:
        value = decode_json(text.encode())
    except InvalidBody as error:
        raise ModelError(f"the model's options are {error.detail}") from error
    if not isinstance(value, dict):
        raise ModelError('the model\'s options are a JSON object, as in {"temperature": 0.2}')
    return value


def open_model(
    spec: str, *, base_url: str | None = None, api_key: str | None = None, options: JSONObject | None = None
) -> Model:
    """The model that ``openai:NAME``, ``openai-responses:NAME`` or ``anthropic:NAME`` names.

    Without ``base_url`` and ``api_key`` the SDK takes its own: ``OPENAI_BASE_URL``, ``OPENAI_API_KEY``,
    ``ANTHROPIC_BASE_URL``, ``ANTHROPIC_API_KEY`` and the others that it documents. ``options`` are fields of every
    request, as the provider documents them. Nothing is sent. Raises `ModelError`.
    """
    asked = ModelSpec.parse(spec)
    if base_url is not None and not base_url.startswith(("http://", "https://")):
        raise ModelError(f"the base URL {base_url!r} begins with neither http:// nor https://")
    try:
        if asked.dialect == "anthropic":
            return _open_anthropic(asked, base_url, api_key, options)
        return _open_openai(asked, base_url, api_key, options)
    except ModuleNotFoundError as error:
        raise ModelError(
            f"{spec} needs the package {error.name!r}, which is not installed: pip install 'penstock[models]'"
        ) from error


def _open_openai(asked: ModelSpec, base_url: str | None, api_key: str | None, options: JSONObject | None) -> Model:
    import openai  # noqa: PLC0415  loaded only when it is asked for

    from .chat import ChatModel  # noqa: PLC0415
    from .responses import ResponsesModel  # noqa: PLC0415

    if not api_key and not os.environ.get("OPENAI_API_KEY"):
        raise _no_key(asked)
    try:
        # Asking again is `answering`'s, which knows whether something was written.
        client = openai.AsyncOpenAI(api_key=api_key, base_url=base_url, max_retries=0)
    except openai.OpenAIError as error:
        raise ModelError(f"{_no_key(asked)}; the SDK says: {error}") from error
    made = ChatModel if asked.dialect == "openai" else ResponsesModel
    return made(client, asked.name, options=options)


def _open_anthropic(asked: ModelSpec, base_url: str | None, api_key: str | None, options: JSONObject | None) -> Model:
    import anthropic  # noqa: PLC0415  loaded only when it is asked for

    from .claude import ClaudeModel  # noqa: PLC0415

    try:
        client = anthropic.AsyncAnthropic(api_key=api_key, base_url=base_url, max_retries=0)
    except (anthropic.AnthropicError, ValueError) as error:
        raise ModelError(f"{_no_key(asked)}; the SDK says: {error}") from error
    if not (client.api_key or client.auth_token or client.credentials):
        raise _no_key(asked)
    return ClaudeModel(client, asked.name, options=options)


def _no_key(asked: ModelSpec) -> ModelError:
    return ModelError(
        f"{asked.dialect} needs a key: set {_KEYS[asked.dialect]} (a server that asks for none takes any text)"
    )


def open_assistant(
    spec: str, *, base_url: str | None = None, system: str | None = None, options: str | None = None
) -> Assistant:
    """A producer without tools, from what a command line says. Raises `ModelError`."""
    read = None if options is None else parse_options(options)
    return Assistant(open_model(spec, base_url=base_url, options=read), system=system)
